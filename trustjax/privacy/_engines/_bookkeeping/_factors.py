"""Norms and sums of gradients that are given as outer products.

A gradient is a list of parts (l_t, m_t), one part per use of the parameters;
put end to end they are one long sum of outer products, so that several uses of
one leaf, cross terms included, need no case of their own:

  ||sum_t l_t (x) m_t||^2 = sum_{t,s} (l_t . l_s) (m_t . m_s)     (Gram)
  sum_i c_i G_i           = sum_{i,t} l_{i,t} (x) c_i m_{i,t}     (one product)
"""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from trustjax.privacy._engines._bookkeeping import _sites

Factors = _sites.Factors

# The Gram sum cancels where positions oppose each other, and then rounding
# could leave less than the true norm: an unclipped record and a broken bound.
# With a_t = |l_t| |m_t| its rounding is measured in units of (sum a_t)^2: one
# unit in the last place where nothing cancels, up to four for vectors at random
# whose products round alike. What is added back is empirical and NOT a bound:
# wide constant vectors lose over a hundred units, see "Known defect" in the
# README. Roundings of single terms are independent, _TERM_ROUNDINGS of a_t^2.
_ROUNDING = float(jnp.finfo(jnp.float32).eps) / 2
_TERM_ROUNDINGS = 16.0
_MOST_ROUNDINGS = 64.0
_CANCELLED = 1e4
# Squares of vectors shorter than this may underflow to zero, however long the
# vectors they meet. Added to every length, it bounds what is lost.
_UNDERFLOW = 1e-18

_dot = functools.partial(
  jnp.einsum,
  precision=jax.lax.Precision.HIGHEST,
  preferred_element_type=jnp.float32,
)


def squared_norms(parts: Sequence[Factors]) -> Float[Array, " units"]:
  """Squared norm of each unit's gradient, never forming it.

  Args:
    parts: Outer products of all units, arrays with a leading axis [units].

  Returns:
    Squared norms, at least the true ones up to their own rounding.
  """
  if len(parts) == 1 and parts[0].is_index:
    return _norms_of_rows(parts[0])
  if len(parts) == 1 and parts[0].right.shape[2] == 1:
    return _single_position(parts[0])
  total = jnp.float32(0)
  for i, part in enumerate(parts):
    for other in parts[i:]:
      count = 1.0 if other is part else 2.0
      product = _left_gram(part, other) * _dot(
        "uetp,uesp->uets", part.right, other.right
      )
      total += count * jnp.sum(product, axis=(1, 2, 3))
  left = jnp.concatenate([_left_lengths(part) for part in parts], axis=2)
  right = jnp.concatenate([_lengths(part.right) for part in parts], axis=2)
  lengths = left * right
  lost = _UNDERFLOW * jnp.sum(left + right, axis=(1, 2))
  of_sum = jnp.sum(jnp.square(jnp.sum(lengths, axis=2)), axis=1)
  of_terms = jnp.sum(jnp.square(lengths), axis=(1, 2))
  total = jnp.maximum(total, 0.0)
  # Written as a product, since the total may be zero.
  has_cancelled = of_sum >= _CANCELLED * total
  share = jnp.where(
    has_cancelled,
    1.0,
    of_sum / jnp.where(has_cancelled, 1.0, _CANCELLED * total),
  )
  roundings = 1.0 + (_MOST_ROUNDINGS - 1.0) * share
  guard = _ROUNDING * (roundings * of_sum + _TERM_ROUNDINGS * of_terms)
  return total + guard + jnp.square(lost)


def _norms_of_rows(part):
  """Adds positions with the same row, then squares: nothing can cancel.

  A position's sum is kept at the first position with the same row, so that the
  sums take the space of the cotangents and not that of the table.
  """
  units, blocks, positions, cols = part.right.shape
  same = part.left[..., :, None] == part.left[..., None, :]
  first = jnp.argmax(same, axis=-1)
  lists = jnp.reshape(jnp.arange(units * blocks), (units, blocks, 1))
  places = jnp.ravel(lists * positions + first)
  values = jnp.reshape(part.right.astype(jnp.float32), (-1, cols))
  sums = jnp.zeros_like(values).at[places].add(values)
  return jnp.sum(jnp.square(jnp.reshape(sums, (units, -1))), axis=1)


def _single_position(part):
  """One position per block: the norm of an outer product is a product."""
  left, right = _left_lengths(part)[:, :, 0], _lengths(part.right)[:, :, 0]
  lost = _UNDERFLOW * jnp.sum(left + right, axis=1)
  return jnp.sum(jnp.square(left * right), axis=1) + jnp.square(lost)


def _left_gram(a: Factors, b: Factors):
  """(l_t . l_s) for all pairs of positions, [units, blocks, t, s]."""
  if a.is_index and b.is_index:
    same = a.left[..., :, None] == b.left[..., None, :]
    return same.astype(jnp.float32)
  if a.is_index:
    # One-hot against dense: the entry that the index names.
    columns = jnp.take_along_axis(b.left, a.left[:, :, None, :], axis=-1)
    return jnp.swapaxes(columns, -1, -2).astype(jnp.float32)
  if b.is_index:
    return jnp.swapaxes(_left_gram(b, a), -1, -2)
  return _dot("uetd,uesd->uets", a.left, b.left)


def _lengths(vectors):
  return jnp.sqrt(jnp.sum(jnp.square(vectors.astype(jnp.float32)), axis=-1))


def _left_lengths(part):
  if part.is_index:
    return jnp.ones(part.left.shape, jnp.float32)
  return _lengths(part.left)


def gradients(parts: Sequence[Factors], rows: int) -> Float[Array, "..."]:
  """The gradient of every unit, [units, blocks, rows, cols]."""
  total = jnp.float32(0)
  for part in parts:
    if part.is_index:
      total += jax.vmap(jax.vmap(functools.partial(_scatter_rows, rows)))(
        part.left, part.right
      )
    else:
      total += _dot("uetd,uetp->uedp", part.left, part.right)
  return total


def _scatter_rows(rows, index, values):
  zeros = jnp.zeros((rows, values.shape[-1]), jnp.float32)
  return zeros.at[index].add(values.astype(jnp.float32))


def add_weighted_sum(
  total: Float[Array, "blocks rows cols"],
  parts: Sequence[Factors],
  weights: Float[Array, " units"],
) -> Float[Array, "blocks rows cols"]:
  """Adds sum_i weights[i] G_i, in one product over units and positions.

  Args:
    total: What to add to.
    parts: Outer products of all units.
    weights: Of each unit; a unit of weight zero must be finite.

  Returns:
    The sum, float32.
  """
  for part in parts:
    scaled = part.right.astype(jnp.float32) * weights[:, None, None, None]
    if part.is_index:
      blocks = jnp.arange(total.shape[0])[None, :, None]
      total = total.at[blocks, part.left].add(scaled)
    else:
      left = part.left.astype(jnp.float32)
      total += _dot("uetd,uetp->edp", left, scaled)
  return total
