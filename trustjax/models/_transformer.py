"""Transformer encoder with a joint intent and slot head."""

import jax
from flax import nnx

from trustjax.models import _heads, _model, _transformer_parts


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
    mixed = _transformer_parts.self_attention(
      self.qkv(inputs), mask[None, :], self.num_heads
    )
    return self.out(mixed)


class _TransformerTagger(_transformer_parts.TransformerStack):
  """Words and positions, encoder layers, joint head."""

  def __init__(self, labels, vocab_size, max_length, size, rate, rngs):
    num_layers, dim, num_heads, ff_dim = size
    self.add_embeddings(vocab_size, max_length, dim, 0.02, rngs)
    self.add_layers(
      num_layers,
      lambda: EncoderLayer(dim, num_heads, ff_dim, rate, rngs=rngs),
    )
    self.norm = nnx.LayerNorm(dim, rngs=rngs)
    self.head = _heads.JointHead(dim, *labels, rngs=rngs)
    self.rate = rate

  def heads(self, hidden, mask):
    return self.head(hidden, mask)


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
  _model.check_rate("dropout", dropout)
  widths = _transformer_parts.resolve_size(
    size, num_layers=num_layers, dim=dim, num_heads=num_heads, ff_dim=ff_dim
  )
  _model.check_sizes(
    vocab_size=vocab_size,
    num_intents=num_intents,
    num_slots=num_slots,
    max_length=max_length,
  )
  return _model.model_from_module(
    f"transformer_{size}",
    lambda rngs: _TransformerTagger(
      (num_intents, num_slots),
      vocab_size,
      max_length,
      widths,
      dropout,
      rngs,
    ),
  )
