"""Norms of gradients that are given as outer products, never too short.

A gradient is a list of parts (l_t, m_t), one part per use of the parameters;
put end to end they are one long sum of outer products, so that several uses of
one leaf, cross terms included, need no case of their own:

  ||sum_t l_t (x) m_t||^2 = sum_{t,s} (l_t . l_s) (m_t . m_s)     (Gram)

The terms cancel where positions oppose each other. With rounding the result
could then be far below the true norm, the record would be clipped too little
and the sensitivity would be wrong. So nothing is left to luck: with
a_t = ||l_t|| ||m_t|| and u = 2^-24,

1. Scalar products are taken in float64. What they can lose, eps (sum a_t)^2 of
   the square, is added to it.
2. What is added to the clipped sum is not sum_t l_t (x) m_t but its float32
   value. A sum of T products differs from the exact one by at most T u times
   the sum of the absolute values (Higham, Accuracy and Stability of Numerical
   Algorithms, section 3.1), in norm by T u sum_t a_t. It is added to the norm.

Both are bounds, not estimates. For records whose positions do not cancel the
second lengthens a norm by about T^1.5 u, 1e-5 at 32 positions. Where the model
multiplies in less than float32, an accelerator's norms are in `_reduced`.
"""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from trustjax.privacy._engines import _float64
from trustjax.privacy._engines._bookkeeping import _grams, _reduced, _sites

Factors = _sites.Factors

_UNIT = {32: 2.0**-24, 64: 2.0**-53}
# From so many multiply-adds a unit's Gram matrices fill a core by themselves.
_LARGE_UNIT = 1 << 14


@_float64.batched
def norms(parts: Sequence[Factors]) -> Float[Array, " units"]:
  """Norm of each unit's gradient, never forming it.

  Args:
    parts: Outer products of all units, arrays with a leading axis [units].

  Returns:
    Norms, at least those of what `add_weighted_sum` adds.
  """
  if len(parts) == 1 and parts[0].is_index:
    return _with_rounding(*_norms_of_rows(parts[0]))
  reduced = {
    platform: functools.partial(_reduced.norms, units)
    for platform, units in _reduced.units_of(parts).items()
  }
  exact = {"cpu": functools.partial(_exact_norms, unit_by_unit=True)}
  exact["default"] = functools.partial(_exact_norms, unit_by_unit=False)
  return jax.lax.platform_dependent(list(parts), **(exact | reduced))


def _exact_norms(parts, *, unit_by_unit):
  if len(parts) == 1 and parts[0].right.shape[2] == 1:
    lengths = _left_lengths(parts[0]) * _lengths(parts[0].right)
    squares = jnp.sum(jnp.square(lengths), axis=(1, 2))
  else:
    squares, lengths = _by_gram(parts, unit_by_unit)
  return _with_rounding(squares, lengths)


def _with_rounding(squares, lengths):
  """The norms, and what the rounding of the clipped sum can add to them."""
  rounding = (lengths.shape[-1] + _reduced.MORE_ROUNDINGS) * _UNIT[32]
  return jnp.sqrt(squares) + rounding * jnp.sqrt(_most(lengths))


def _most(lengths):
  """(sum_t a_t)^2, added over the blocks: what a square may reach."""
  return jnp.sum(jnp.square(jnp.sum(lengths, axis=-1)), axis=-1)


def _by_gram(parts, unit_by_unit):
  """(squared norms, lengths a_t), by Gram matrices of all positions.

  A CPU works through large units one by one: batched products in float64 are
  up to four times slower there, and the float64 copy of one unit stays in
  cache. Accelerators get one batch.
  """
  rows = sum(part.left.shape[-1] for part in parts if not part.is_index)
  cols = sum(part.right.shape[-1] for part in parts)
  positions = sum(part.right.shape[2] for part in parts)
  if unit_by_unit and positions**2 * (rows + cols) >= _LARGE_UNIT:
    return jax.lax.map(_unit_by_gram, parts)
  return jax.vmap(_unit_by_gram)(parts)


def _unit_by_gram(parts):
  """(squared norm, lengths [blocks, positions]) of one unit."""
  total, lengths, eps = jnp.zeros((), jnp.float64), [], 0.0
  for i, part in enumerate(parts):
    for other in parts[i:]:
      left, left_eps = _grams.left_gram(_dots, part, other)
      right, right_eps = _dots(part.right, other.right)
      product = left * right
      eps = max(eps, left_eps + right_eps)
      if other is part:
        lengths.append(jnp.diagonal(product, axis1=1, axis2=2))
        total += jnp.sum(product)
      else:
        total += 2.0 * jnp.sum(product)
  # A length can be that much longer itself, which is of second order.
  lengths = (1.0 + eps) * jnp.sqrt(jnp.concatenate(lengths, axis=1))
  eps += lengths.shape[-1] * _UNIT[64]
  return jnp.maximum(total, 0.0) + eps * _most(lengths), lengths


def _dots(a, b):
  """((a_t . b_s) [blocks, t, s], its rounding relative to |a_t| |b_s|)."""
  product = jnp.einsum(
    "etd,esd->ets",
    _float64.widen(a, jnp.float64),
    _float64.widen(b, jnp.float64),
    precision=jax.lax.Precision.HIGHEST,
  )
  return product, a.shape[-1] * _UNIT[64]


def _norms_of_rows(part):
  """Adds positions with the same row, then squares: nothing can cancel.

  A position's sum is kept at the first position with the same row, so that the
  sums take the space of the cotangents and not that of the table.

  Returns:
    (squared norms [units], lengths of the cotangents [units, blocks,
    positions]).
  """
  units, blocks, positions, cols = part.right.shape
  same = part.left[..., :, None] == part.left[..., None, :]
  # int32 throughout: what is lowered later is lowered outside of enable_x64.
  first = jax.lax.argmax(same, axis=3, index_dtype=jnp.int32)
  lists = jnp.arange(units * blocks, dtype=jnp.int32)
  lists = jnp.reshape(lists, (units, blocks, 1))
  places = jnp.ravel(lists * positions + first)
  values = jnp.reshape(_float64.widen(part.right, jnp.float64), (-1, cols))
  sums = jnp.zeros_like(values).at[places].add(values)
  squares = jnp.sum(jnp.square(jnp.reshape(sums, (units, -1))), axis=1)
  return squares, _lengths(part.right)


def _lengths(vectors):
  return jnp.sqrt(
    jnp.sum(jnp.square(_float64.widen(vectors, jnp.float64)), axis=-1)
  )


def _left_lengths(part):
  if part.is_index:
    return jnp.ones(part.left.shape, jnp.float64)
  return _lengths(part.left)
