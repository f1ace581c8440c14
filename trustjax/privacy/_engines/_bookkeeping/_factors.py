"""Gradients that are given as outer products, and weighted sums of them.

  G_i           = sum_t l_{i,t} (x) m_{i,t}
  sum_i c_i G_i = sum_{i,t} l_{i,t} (x) c_i m_{i,t}     (one product)

Their norms are in `_norms`.
"""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from trustjax.privacy._engines._bookkeeping import _sites

Factors = _sites.Factors

# What splitting a float32 in two bfloat16 leaves, relative to it.
SPLIT_ERROR = 2.0**-16

_dot = functools.partial(
  jnp.einsum,
  precision=jax.lax.Precision.HIGHEST,
  preferred_element_type=jnp.float32,
)


def is_reduced(part: Factors) -> bool:
  """Whether both sides of the outer products are vectors in bfloat16."""
  if part.is_index:
    return False
  return part.left.dtype == part.right.dtype == jnp.bfloat16


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
      total += _summed(part.left, scaled, is_reduced(part))
  return total


def _summed(left, scaled, reduced):
  """sum_{u,t} left (x) scaled, float32."""
  if not reduced:
    return _whole_sum(left, scaled)
  return jax.lax.platform_dependent(
    left, scaled, cpu=_whole_sum, default=_split_sum
  )


def _whole_sum(left, scaled):
  return _dot("uetd,uetp->edp", left.astype(jnp.float32), scaled)


def _split_sum(left, scaled):
  """The same for a bfloat16 `left`, by two products of bfloat16.

  Scaled cotangents no longer fit into bfloat16; as a sum of two they do, to 16
  bits, and accelerators multiply them far faster than in float32.
  """
  # A cast to and fro could be optimised away; this is not.
  high = jax.lax.reduce_precision(scaled, exponent_bits=8, mantissa_bits=7)
  low = (scaled - high).astype(jnp.bfloat16)
  return sum(
    _dot("uetd,uetp->edp", left, part)
    for part in (high.astype(jnp.bfloat16), low)
  )
