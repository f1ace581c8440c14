"""What Transformers share: attention of one record, norms, sizes."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Key

from trustjax.models import _model

# Layers, width, attention heads, feed-forward width.
SIZES = {
  "tiny": (2, 128, 2, 512),
  "mini": (4, 256, 4, 1024),
  "base": (12, 768, 12, 3072),
}
# Far below any score, and finite, so that a fully masked row stays finite.
_MASKED = -1e9


def self_attention(
  qkv: Float[Array, "time three_dim"],
  allowed: Bool[Array, "#queries time"],
  num_heads: int,
  rate: float = 0.0,
  key: Key[Array, ""] | None = None,
) -> Float[Array, "time dim"]:
  """Scaled dot-product attention of every head, heads side by side.

  Head h returns softmax(Q_h K_h^T / sqrt(d)) V_h, where scores outside
  `allowed` count as minus infinity.

  Args:
    qkv: Queries, keys and values side by side, each of all heads side by side:
      the layout of one fused projection.
    allowed: Which key each query may see; one row serves all queries.
    num_heads: Heads; they share the width evenly.
    rate: Dropout rate of the attention weights.
    key: Switches that dropout on.

  Returns:
    Mixed values.
  """
  time, width = qkv.shape
  head_dim = width // (3 * num_heads)
  split = jnp.reshape(qkv, (time, 3, num_heads, head_dim))
  queries, keys, values = jnp.moveaxis(split, 1, 0)
  scores = jnp.einsum("qhd,khd->hqk", queries, keys)
  scores = scores * (head_dim**-0.5)
  scores = jnp.where(allowed[None, :, :], scores, _MASKED)
  weights = _model.dropout(jax.nn.softmax(scores, axis=-1), rate, key)
  mixed = jnp.einsum("hqk,khd->qhd", weights, values)
  return jnp.reshape(mixed, (time, width // 3))


def layer_norm(dim: int, epsilon: float, rngs: nnx.Rngs) -> nnx.LayerNorm:
  """A layer norm whose variance is that of the centred values.

  The default of flax, the mean square less the squared mean, loses all digits
  where the mean is far larger than the spread.
  """
  return nnx.LayerNorm(dim, epsilon=epsilon, use_fast_variance=False, rngs=rngs)


def resolve_size(
  size: str,
  *,
  num_layers: int | None,
  dim: int | None,
  num_heads: int | None,
  ff_dim: int | None,
) -> tuple[int, int, int, int]:
  """The four widths of a named size, each replaced where it is given.

  Raises:
    ValueError: The size is unknown, a width is below 1, or the heads do not
      divide the width.
  """
  if size not in SIZES:
    raise ValueError(f"size: got {size!r}; allowed are {list(SIZES)}")
  given = (num_layers, dim, num_heads, ff_dim)
  layers, width, heads, ff = (
    usual if own is None else own for own, usual in zip(given, SIZES[size])
  )
  _model.check_sizes(num_layers=layers, dim=width, num_heads=heads, ff_dim=ff)
  if width % heads:
    raise ValueError(
      f"num_heads: got {heads}; it must divide the width {width}"
    )
  return layers, width, heads, ff


def check_time(time: int, longest: int) -> None:
  """Raises ValueError where a record has more positions than the model."""
  if time > longest:
    raise ValueError(
      f"time: got {time} positions; the model has {longest} (max_length)"
    )


def check_epsilon(norm_epsilon: float) -> None:
  """Raises ValueError unless norm_epsilon is positive and finite."""
  if not 0 < norm_epsilon < float("inf"):
    raise ValueError(
      f"norm_epsilon: got {norm_epsilon!r}; it must be positive and finite"
    )
