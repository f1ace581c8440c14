"""Ratios that are nan, never 0, where there is nothing to divide by."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Real


def ratio_or_nan(
  part: Real[Array, "*part"] | Bool[Array, "*part"],
  whole: Real[Array, "*whole"],
) -> Float[Array, "*_"]:
  """Divides counts or sums.

  Args:
    part: Numerators.
    whole: Denominators, not negative.

  Returns:
    part / whole as floats, nan where the whole is not positive. The guard
    stands on both sides, so that gradients stay finite.
  """
  dtype = jnp.result_type(float)
  part, whole = part.astype(dtype), whole.astype(dtype)
  some = whole > 0
  return jnp.where(some, part / jnp.where(some, whole, 1), jnp.nan)
