"""Gradients that are given as outer products, and weighted sums of them.

  G_i           = sum_t l_{i,t} (x) m_{i,t}
  sum_i c_i G_i = sum_{i,t} l_{i,t} (x) c_i m_{i,t}     (one product)

Their norms are in `_norms`; in what an accelerator multiplies, in `_reduced`.
"""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from trustjax.privacy._engines import _float64
from trustjax.privacy._engines._bookkeeping import _reduced, _sites

Factors = _sites.Factors


def gradients(parts: Sequence[Factors], rows: int) -> Float[Array, "..."]:
  """The gradient of every unit, [units, blocks, rows, cols]."""
  total = jnp.float32(0)
  for part in parts:
    if part.is_index:
      total += jax.vmap(jax.vmap(functools.partial(_scatter_rows, rows)))(
        part.left, part.right
      )
    else:
      total += jnp.einsum(
        "uetd,uetp->uedp",
        part.left,
        part.right,
        # As the model multiplies: the norm is taken of the result.
        precision=jax.lax.Precision.HIGHEST if part.is_precise else None,
        preferred_element_type=jnp.float32,
      )
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
  units = _reduced.units_of(parts)
  for part in parts:
    if part.is_index:
      blocks = jnp.arange(total.shape[0])[None, :, None]
      total = total.at[blocks, part.left].add(_scaled(part.right, weights))
    elif part.scales_left:
      total += _product(units, _scaled(part.left, weights), part.right)
    else:
      total += _product(units, part.left, _scaled(part.right, weights))
  return total


def _scaled(vectors, weights):
  return _float64.widen(vectors, jnp.float32) * weights[:, None, None, None]


def _product(units, left, right):
  """sum_{u,t} left (x) right, float32, in what the platform multiplies in."""
  reduced = {
    platform: functools.partial(_reduced.weighted_product, of_platform)
    for platform, of_platform in units.items()
  }
  exact = {"cpu": _exact_product, "default": _exact_product}
  return jax.lax.platform_dependent(left, right, **(exact | reduced))


def _exact_product(left, right):
  return jnp.einsum(
    "uetd,uetp->edp",
    _float64.widen(left, jnp.float32),
    _float64.widen(right, jnp.float32),
    precision=jax.lax.Precision.HIGHEST,
  )
