"""Orthogonal initial kernels that can be drawn for many models at once."""

import jax
from jaxtyping import Array, Float, Key


def orthogonal(
  key: Key[Array, ""], shape: tuple[int, int]
) -> Float[Array, "rows columns"]:
  """A kernel whose rows, or columns if they are fewer, are orthonormal.

  Under `vmap` the kernels are factorised one after the other. On a CPU a batch
  of QR factorisations waits inside XLA's thread pool for other threads of that
  same pool, and two batches in one program (the two directions of a layer, say)
  can wait for each other without end on a machine of few cores.

  Args:
    key: Randomness.
    shape: Rows and columns.

  Returns:
    The kernel in float32.

  References:
    Saxe et al., "Exact solutions to the nonlinear dynamics of learning in deep
    linear neural networks", ICLR 2014.
  """

  @jax.custom_batching.sequential_vmap
  def draw(key):
    return jax.nn.initializers.orthogonal()(key, shape)

  return draw(key)
