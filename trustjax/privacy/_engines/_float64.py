"""Norms in float64 inside a float32 program.

Clipping rests on norms that are not too short, and float32 sums can be. JAX
keeps float64 out of programs unless it is enabled, and enabling it around a
piece of code holds while that code is traced, but not when a transformation
such as an outer `vmap` traces it again: float64 would silently become float32.
So a piece in float64 is closed here: it takes and returns float32, and a `vmap`
adds its axis to the batch and traces the piece anew, with float64 enabled.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


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
def norms(arrays: Float[Array, "batch *shape"]) -> Float[Array, " batch"]:
  """L2 norm of each entry of a batch, squares summed in float64.

  Equal entries round alike: a float32 sum of half a million of them was seen to
  fall short by 5e-6.
  """
  axes = tuple(range(1, arrays.ndim))
  squares = jnp.square(arrays.astype(jnp.float64))
  return jnp.sqrt(jnp.sum(squares, axis=axes))
