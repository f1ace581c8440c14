"""Pearson correlation that knows a constant when it sees one."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


def pearson(
  x: Float[Array, " records"],
  y: Float[Array, " records"],
  where: Bool[Array, " records"] | None = None,
) -> Float[Array, ""]:
  """Pearson correlation.

  Args:
    x: One number a record.
    y: Another.
    where: Records that count.

  Returns:
    The correlation; nan if a side does not vary by more than the rounding of
    its largest value, or if no record counts.
  """
  keep = jnp.ones(x.shape, bool) if where is None else where
  count = jnp.maximum(jnp.sum(keep, dtype=x.dtype), 1)

  def centred(values):
    values = jnp.where(keep, values, 0)
    low = jnp.min(jnp.where(keep, values, jnp.inf))
    high = jnp.max(jnp.where(keep, values, -jnp.inf))
    # A mean is rounded, so a constant minus its mean need not be 0.
    rounding = 8 * jnp.finfo(x.dtype).eps * jnp.max(jnp.abs(values))
    away = jnp.where(keep, values - jnp.sum(values) / count, 0)
    return away, high - low > rounding

  (x, x_varies), (y, y_varies) = centred(x), centred(y)
  scale = jnp.sqrt(jnp.sum(x * x)) * jnp.sqrt(jnp.sum(y * y))
  some = x_varies & y_varies & (scale > 0)
  return jnp.where(some, jnp.sum(x * y) / jnp.where(some, scale, 1), jnp.nan)
