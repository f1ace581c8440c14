"""Transformer encoder with a joint intent and slot head."""

import jax
import jax.numpy as jnp
from flax import nnx

from trustjax.models import _heads, _model

# Layers, width, attention heads, feed-forward width.
SIZES = {
  "tiny": (2, 128, 2, 512),
  "mini": (4, 256, 4, 1024),
  "base": (12, 768, 12, 3072),
}
# Far below any score, and finite, so that a fully masked row stays finite.
_MASKED = -1e9


class EncoderLayer(nnx.Module):
  """Self-attention and feed-forward, each behind a layer norm and added."""

  def __init__(
    self, dim: int, num_heads: int, ff_dim: int, rate: float, *, rngs: nnx.Rngs
  ):
    """Builds the layer."""
    self.attention_norm = nnx.LayerNorm(dim, rngs=rngs)
    self.qkv = nnx.Linear(dim, 3 * dim, rngs=rngs)
    self.out = nnx.Linear(dim, dim, rngs=rngs)
    self.ff_norm = nnx.LayerNorm(dim, rngs=rngs)
    self.ff_in = nnx.Linear(dim, ff_dim, rngs=rngs)
    self.ff_out = nnx.Linear(ff_dim, dim, rngs=rngs)
    self.num_heads = num_heads
    self.rate = rate

  def __call__(self, hidden, mask, key):
    """Runs the layer on [time, dim]."""
    keys = [None] * 2 if key is None else jax.random.split(key)
    attended = self._attend(self.attention_norm(hidden), mask)
    hidden = hidden + _model.dropout(attended, self.rate, keys[0])
    widened = jax.nn.gelu(self.ff_in(self.ff_norm(hidden)))
    return hidden + _model.dropout(self.ff_out(widened), self.rate, keys[1])

  def _attend(self, inputs, mask):
    time, dim = inputs.shape
    shape = (time, 3, self.num_heads, dim // self.num_heads)
    query, key, value = jnp.moveaxis(jnp.reshape(self.qkv(inputs), shape), 1, 0)
    scores = jnp.einsum("qhd,khd->hqk", query, key)
    scores = scores * (shape[-1] ** -0.5)
    scores = jnp.where(mask[None, None, :], scores, _MASKED)
    weights = jax.nn.softmax(scores, axis=-1)
    mixed = jnp.einsum("hqk,khd->qhd", weights, value)
    return self.out(jnp.reshape(mixed, (time, dim)))


class _TransformerTagger(nnx.Module):
  """Words and positions, encoder layers, joint head."""

  def __init__(self, labels, vocab_size, max_length, size, rate, rngs):
    num_layers, dim, num_heads, ff_dim = size
    self.words = nnx.Embed(
      vocab_size,
      dim,
      embedding_init=jax.nn.initializers.normal(0.02),
      rngs=rngs,
    )
    self.positions = nnx.Param(
      0.02 * jax.random.normal(rngs.params(), (max_length, dim))
    )
    self.num_layers = num_layers
    for i in range(num_layers):
      layer = EncoderLayer(dim, num_heads, ff_dim, rate, rngs=rngs)
      setattr(self, f"layer_{i}", layer)
    self.norm = nnx.LayerNorm(dim, rngs=rngs)
    self.head = _heads.JointHead(dim, *labels, rngs=rngs)
    self.rate = rate

  def embed(self, example):
    return self.words(example["tokens"])

  def encode(self, embeddings, mask, key):
    time, longest = embeddings.shape[0], self.positions.shape[0]
    if time > longest:
      raise ValueError(
        f"time: got {time} positions; the model has {longest} (max_length)"
      )
    keys = [None] * (self.num_layers + 1)
    if key is not None:
      keys = jax.random.split(key, self.num_layers + 1)
    hidden = embeddings + self.positions[...][:time]
    hidden = _model.dropout(hidden, self.rate, keys[-1])
    for i in range(self.num_layers):
      hidden = getattr(self, f"layer_{i}")(hidden, mask, keys[i])
    return jnp.where(mask[:, None], self.norm(hidden), 0.0)

  def heads(self, hidden, mask):
    return self.head(hidden, mask)

  def word_table(self):
    return self.words.embedding[...]


def transformer_encoder(
  *,
  vocab_size: int,
  num_intents: int,
  num_slots: int,
  max_length: int,
  size: str = "tiny",
  num_layers: int | None = None,
  dim: int | None = None,
  num_heads: int | None = None,
  ff_dim: int | None = None,
  dropout: float = 0.0,
) -> _model.Model:
  """Pre-norm Transformer encoder with learned positions.

  Args:
    vocab_size: Rows of the word table.
    num_intents: Intents.
    num_slots: Slot labels.
    max_length: Positions.
    size: "tiny" (2 layers, width 128), "mini" (4, 256) or "base" (12, 768).
    num_layers: Overrides the size's.
    dim: Overrides the size's width.
    num_heads: Overrides the size's attention heads.
    ff_dim: Overrides the size's feed-forward width.
    dropout: Rate on embeddings and on what each sub-layer adds.

  Returns:
    The model.

  Raises:
    ValueError: The size is unknown, a field is impossible, or the heads do
      not divide the width.

  References:
    Vaswani et al., 2017; Xiong et al., 2020 (pre-norm).
  """
  if size not in SIZES:
    raise ValueError(f"size: got {size!r}; allowed are {list(SIZES)}")
  _model.check_rate("dropout", dropout)
  given = (num_layers, dim, num_heads, ff_dim)
  layers, width, heads, ff = (
    usual if own is None else own for own, usual in zip(given, SIZES[size])
  )
  _model.check_sizes(
    vocab_size=vocab_size,
    num_intents=num_intents,
    num_slots=num_slots,
    max_length=max_length,
    num_layers=layers,
    dim=width,
    num_heads=heads,
    ff_dim=ff,
  )
  if width % heads:
    raise ValueError(
      f"num_heads: got {heads}; it must divide the width {width}"
    )
  return _model.model_from_module(
    f"transformer_{size}",
    lambda rngs: _TransformerTagger(
      (num_intents, num_slots),
      vocab_size,
      max_length,
      (layers, width, heads, ff),
      dropout,
      rngs,
    ),
  )
