"""What Transformers share: their stack, attention, norms, sizes."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Key

from trustjax.models import _model, _precision

# Layers, width, attention heads, feed-forward width.
SIZES = {
  "tiny": (2, 128, 2, 512),
  "mini": (4, 256, 4, 1024),
  "base": (12, 768, 12, 3072),
}
# Far below any score, and finite, so that a fully masked row stays finite.
_MASKED = -1e9


class TransformerStack(nnx.Module):
  """Words and positions, layers and a final norm.

  A subclass calls `add_embeddings` and `add_layers`, sets `norm` and `rate`,
  and may change what the layers see.
  """

  words: _precision.Embed
  positions: nnx.Param
  num_layers: int
  norm: nnx.LayerNorm
  rate: float

  def add_embeddings(
    self,
    vocab_size: int,
    max_length: int,
    dim: int,
    scale: float,
    rngs: nnx.Rngs,
  ) -> None:
    """Adds tables of words and positions, normal with a standard deviation."""
    self.words = _precision.Embed(
      vocab_size,
      dim,
      embedding_init=jax.nn.initializers.normal(scale),
      rngs=rngs,
    )
    self.positions = nnx.Param(
      scale * jax.random.normal(rngs.params(), (max_length, dim))
    )

  def add_layers(self, num_layers: int, make: Callable[[], nnx.Module]) -> None:
    """Adds `layer_0`, ...: each takes (hidden, visible, key) to hidden."""
    self.num_layers = num_layers
    for i in range(num_layers):
      setattr(self, f"layer_{i}", make())

  def prepare(self, hidden: Array) -> Array:
    """What is done to the sum of words and positions."""
    return hidden

  def visible(self, mask: Array) -> Any:
    """What the layers are told of the positions that may be seen."""
    return mask

  def embed(self, example: dict[str, Array]) -> Array:
    """Looks up the words, [time, dim]."""
    return self.words(example["tokens"])

  def encode(self, embeddings: Array, mask: Array, key: Any) -> Array:
    """Runs the layers on [time, dim]; a key switches dropout on."""
    time = embeddings.shape[0]
    check_time(time, self.positions.shape[0])
    keys = [None] * (self.num_layers + 1)
    if key is not None:
      keys = jax.random.split(key, self.num_layers + 1)
    hidden = self.prepare(embeddings + self.positions[...][:time])
    hidden = _model.dropout(hidden, self.rate, keys[-1])
    visible = self.visible(mask)
    for i in range(self.num_layers):
      hidden = getattr(self, f"layer_{i}")(hidden, visible, keys[i])
    return jnp.where(mask[:, None], self.norm(hidden), 0.0)

  def word_table(self) -> Array:
    """The rows that tokens look up."""
    return self.words.embedding[...]


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
  # Split, not indexed: a split's gradient is one concatenation, that of three
  # indexings is three arrays as wide as `qkv`, mostly zeros, added up.
  queries, keys, values = (
    jnp.reshape(part, (time, num_heads, head_dim))
    for part in jnp.split(qkv, 3, axis=1)
  )
  scores = jnp.einsum("qhd,khd->hqk", queries, keys)
  scores = scores * (head_dim**-0.5)
  scores = jnp.where(allowed[None, :, :], scores, _MASKED)
  scores = _precision.at_least_float32(scores)
  weights = jax.nn.softmax(scores, axis=-1).astype(values.dtype)
  weights = _model.dropout(weights, rate, key)
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
