"""Norms in float64 inside a float32 program.

Clipping rests on norms that are not too short, and float32 sums can be. JAX
keeps float64 out of programs unless it is enabled, and enabling it around a
piece of code holds while that code is traced, but not when a transformation
such as an outer `vmap` traces it again: float64 would silently become float32.
So a piece in float64 is closed here: it takes and returns float32, and a `vmap`
adds its axis to the batch and traces the piece anew, with float64 enabled.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def widen(values: jax.Array, dtype: Any) -> jax.Array:
  """Values in a wider type, as rounded as they were.

  A compiler may take the value from before a rounding to bfloat16 for the one
  behind it, in one place and not in another. Norms and sums have to be of the
  same entries.
  """
  info = jnp.finfo(values.dtype)
  wide = values.astype(jnp.promote_types(values.dtype, jnp.float32))
  if info.bits < 32:
    wide = jax.lax.reduce_precision(wide, info.nexp, info.nmant)
  return wide.astype(dtype)


def batched(fn: Callable) -> Callable:
  """Closes a function in float64 against retracing in float32.

  Args:
    fn: One tree of arrays with a leading axis [batch] to float32 [batch]; each
      result depends on its own entries only.

  Returns:
    The same function, to be called where float64 is not enabled.
  """

  @jax.custom_batching.custom_vmap
  def run(tree):
    with jax.enable_x64(True):
      return fn(tree).astype(jnp.float32)

  @run.def_vmap
  def _(axis_size, in_batched, tree):
    def merge(leaf, is_batched):
      if not is_batched:
        leaf = jnp.broadcast_to(leaf, (axis_size, *leaf.shape))
      batch = axis_size * leaf.shape[1]
      return jnp.reshape(leaf, (batch, *leaf.shape[2:]))

    found = run(jax.tree.map(merge, tree, in_batched[0]))
    return jnp.reshape(found, (axis_size, found.shape[0] // axis_size)), True

  return run


@batched
def joint_norms(
  arrays: Sequence[Float[Array, "batch ..."]],
) -> Float[Array, " batch"]:
  """L2 norm of each entry over all arrays together, from above.

  Squares of float32 numbers are exact in float64, and n - 1 additions in any
  order lose at most n 2^-53 of their sum; rounding to float32 loses 2^-24.
  Twice that is added, so that no norm is shorter than the exact one, nor longer
  by more than 2e-7 of it (of up to 10^8 numbers).
  """
  squares = [
    jnp.sum(
      jnp.square(widen(array, jnp.float64)), axis=tuple(range(1, array.ndim))
    )
    for array in arrays
  ]
  count = sum(math.prod(array.shape[1:]) for array in arrays)
  above = 1.0 + 2.0**-23 + count * 2.0**-53
  return above * jnp.sqrt(sum(squares))


def norms(arrays: Float[Array, "batch *shape"]) -> Float[Array, " batch"]:
  """L2 norm of each entry of a batch, from above."""
  return joint_norms((arrays,))
