"""BERT and DistilBERT encoders with a joint intent and slot head."""

import jax
import jax.numpy as jnp
from flax import nnx

from trustjax.models import _heads, _model, _precision, _transformer_parts

_SCALE = 0.02
_NORMAL = jax.nn.initializers.normal(_SCALE)


class PostNormLayer(nnx.Module):
  """Self-attention and feed-forward, each added and then normalised."""

  def __init__(
    self,
    widths: tuple[int, int, int, int],
    rate: float,
    epsilon: float,
    *,
    rngs: nnx.Rngs,
  ):
    """Builds the layer from (layers, width, heads, feed-forward width)."""
    _, dim, num_heads, ff_dim = widths
    self.qkv = nnx.Linear(dim, 3 * dim, kernel_init=_NORMAL, rngs=rngs)
    self.out = nnx.Linear(dim, dim, kernel_init=_NORMAL, rngs=rngs)
    self.attention_norm = _transformer_parts.layer_norm(dim, epsilon, rngs)
    self.ff_in = nnx.Linear(dim, ff_dim, kernel_init=_NORMAL, rngs=rngs)
    self.ff_out = nnx.Linear(ff_dim, dim, kernel_init=_NORMAL, rngs=rngs)
    self.ff_norm = _transformer_parts.layer_norm(dim, epsilon, rngs)
    self.num_heads = num_heads
    self.rate = rate

  def __call__(self, hidden, allowed, key):
    """Runs the layer on [time, dim]."""
    keys = [None] * 3 if key is None else jax.random.split(key, 3)
    mixed = _transformer_parts.self_attention(
      self.qkv(hidden), allowed, self.num_heads, self.rate, keys[0]
    )
    attended = _model.dropout(self.out(mixed), self.rate, keys[1])
    hidden = self.attention_norm(hidden + attended)
    # The exact GELU, by the error function.
    widened = jax.nn.gelu(self.ff_in(hidden), approximate=False)
    widened = _model.dropout(self.ff_out(widened), self.rate, keys[2])
    return self.ff_norm(hidden + widened)


class _BertTagger(nnx.Module):
  """Words, positions and segments, post-norm layers, joint head."""

  def __init__(self, labels, rows, widths, rate, epsilon, pooler, rngs):
    vocab_size, max_length, num_token_types = rows
    num_layers, dim, _, _ = widths
    self.words = _precision.Embed(
      vocab_size, dim, embedding_init=_NORMAL, rngs=rngs
    )
    self.positions = nnx.Param(_NORMAL(rngs.params(), (max_length, dim)))
    self.token_types = (
      nnx.Param(_NORMAL(rngs.params(), (num_token_types, dim)))
      if num_token_types
      else None
    )
    self.embedding_norm = _transformer_parts.layer_norm(dim, epsilon, rngs)
    self.num_layers = num_layers
    for i in range(num_layers):
      layer = PostNormLayer(widths, rate, epsilon, rngs=rngs)
      setattr(self, f"layer_{i}", layer)
    self.pooler = (
      nnx.Linear(dim, dim, kernel_init=_NORMAL, rngs=rngs) if pooler else None
    )
    self.head = _heads.JointHead(dim, *labels, rngs=rngs)
    self.rate = rate

  def embed(self, example):
    words = self.words(example["tokens"])
    if "token_types" not in example:
      return words
    if self.token_types is None:
      raise ValueError(
        'the example has "token_types", but this model was built with'
        " num_token_types=0"
      )
    # `encode` adds the first segment everywhere, so that without segments the
    # embeddings are rows of the word table, as those of any other model.
    table = self.token_types[...]
    return words + (table[example["token_types"]] - table[:1])

  def encode(self, embeddings, mask, key):
    time = embeddings.shape[0]
    _transformer_parts.check_time(time, self.positions.shape[0])
    keys = [None] * (self.num_layers + 1)
    if key is not None:
      keys = jax.random.split(key, self.num_layers + 1)
    hidden = embeddings + self.positions[...][:time]
    if self.token_types is not None:
      hidden = hidden + self.token_types[...][:1]
    hidden = self.embedding_norm(hidden)
    hidden = _model.dropout(hidden, self.rate, keys[-1])
    for i in range(self.num_layers):
      hidden = getattr(self, f"layer_{i}")(hidden, mask[None, :], keys[i])
    return jnp.where(mask[:, None], hidden, 0.0)

  def heads(self, hidden, mask):
    if self.pooler is None:
      return self.head(hidden, mask)
    pooled = jnp.tanh(self.pooler(hidden[:1]))[0]
    return self.head(hidden, mask, pooled)

  def word_table(self):
    return self.words.embedding[...]


def bert_encoder(
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
  num_token_types: int = 2,
  pooler: bool = True,
  norm_epsilon: float = 1e-12,
) -> _model.Model:
  """Post-norm Transformer encoder with the architecture of BERT.

  Each sub-layer is added and then normalised, the sum of word, position and
  segment is normalised too, and the GELU is exact. With `num_token_types=0`
  and `pooler=False` it is DistilBERT. An example may hold "token_types"
  [time]; without them every position is of the first segment.

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
    dropout: Rate on embeddings, on attention weights and on what each
      sub-layer adds.
    num_token_types: Segments; 0 for none.
    pooler: Read the intent off the first position, [CLS] in BERT's encoding,
      through a layer with tanh; else off the masked mean.
    norm_epsilon: Added to the variance in every layer norm.

  Returns:
    The model.

  Raises:
    ValueError: The size is unknown, a field is impossible, or the heads do
      not divide the width.

  References:
    Devlin et al., BERT, NAACL 2019; Sanh et al., DistilBERT, 2019; Chen et
    al., BERT for Joint Intent Classification and Slot Filling, 2019.
  """
  _model.check_rate("dropout", dropout)
  _transformer_parts.check_epsilon(norm_epsilon)
  widths = _transformer_parts.resolve_size(
    size, num_layers=num_layers, dim=dim, num_heads=num_heads, ff_dim=ff_dim
  )
  _model.check_sizes(
    vocab_size=vocab_size,
    num_intents=num_intents,
    num_slots=num_slots,
    max_length=max_length,
  )
  if num_token_types < 0:
    raise ValueError(
      f"num_token_types: got {num_token_types!r}; it must be at least 0"
    )
  return _model.model_from_module(
    "bert",
    lambda rngs: _BertTagger(
      (num_intents, num_slots),
      (vocab_size, max_length, num_token_types),
      widths,
      dropout,
      norm_epsilon,
      pooler,
      rngs,
    ),
  )
