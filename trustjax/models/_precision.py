"""Mixed precision: losses that compute on rounded copies of what they get."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

# What a loss may compute in. float16 needs loss scaling, which would rescale
# what is clipped.
COMPUTE_DTYPES = ("float32", "bfloat16")


class Embed(nnx.Embed):
  """Rows of a table, looked up in the precision of the parameters at hand.

  Flax's own fixes the precision when the module is built: rows of rounded
  parameters came back as float32, and with them everything behind them.
  """

  def __call__(self, inputs: Int[Array, "..."]) -> Float[Array, "... dim"]:
    """The rows that `inputs` names."""
    return jnp.take(self.embedding[...], inputs, axis=0)


def at_least_float32(values: Float[Array, "..."]) -> Float[Array, "..."]:
  """Values in float32, or in float64 if they are: for sums and exponentials."""
  return values.astype(jnp.promote_types(values.dtype, jnp.float32))


def in_precision(loss_fn: Callable, compute_dtype: str) -> Callable:
  """The loss, computed on parameters and features that are rounded first.

  Parameters, optimiser, clipping and noise stay in float32; activations and
  cotangents are in `compute_dtype`, and so are matrix products, which an
  accelerator then does many times faster. The losses of this room still take
  their logarithms in float32. What is clipped is the gradient of this loss, so
  the guarantee does not depend on the rounding.

  Args:
    loss_fn: `(params, example, key) -> (scalar, aux)` of one record.
    compute_dtype: "float32" changes nothing; "bfloat16".

  Returns:
    The same function of float32 arguments, with a float32 loss.

  Raises:
    ValueError: Unknown `compute_dtype`.

  Example:
    >>> loss_fn = in_precision(losses.joint_loss(model), "bfloat16")

  References:
    Micikevicius et al., Mixed Precision Training, ICLR 2018.
  """
  if compute_dtype not in COMPUTE_DTYPES:
    raise ValueError(
      f"compute_dtype: got {compute_dtype!r}; allowed are"
      f" {list(COMPUTE_DTYPES)}"
    )
  if compute_dtype == "float32":
    return loss_fn

  def rounded_loss(params: Any, example: Any, key: Any):
    def rounded(leaf):
      is_float = jnp.issubdtype(jnp.result_type(leaf), jnp.floating)
      return jnp.asarray(leaf, compute_dtype) if is_float else leaf

    params, example = jax.tree.map(rounded, (params, example))
    loss, aux = loss_fn(params, example, key)
    return loss.astype(jnp.float32), aux

  return rounded_loss
