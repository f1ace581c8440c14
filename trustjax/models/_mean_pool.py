"""Mean-pool tagger: few parameters, so that private gradients are loud."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from trustjax.models import _model, _precision


class _MeanPoolTagger(nnx.Module):
  """Linear in everything but the logits' softmax."""

  def __init__(
    self, vocab_size, num_intents, num_slots, dim, window, scale, rate, rngs
  ):
    self.words = _precision.Embed(
      vocab_size,
      dim,
      embedding_init=jax.nn.initializers.normal(scale),
      rngs=rngs,
    )
    width = (2 * window + 2) * dim
    self.intent = nnx.Linear(dim, num_intents, rngs=rngs)
    self.slots = nnx.Linear(width, num_slots, rngs=rngs)
    self.window = window
    self.rate = rate

  def embed(self, example):
    return self.words(example["tokens"])

  def encode(self, embeddings, mask, key):
    words = jnp.where(mask[:, None], embeddings, 0.0)
    words = _model.dropout(words, self.rate, key)
    pooled = _model.masked_mean(words, mask)
    shifted = [_shift(words, k) for k in range(-self.window, self.window + 1)]
    everywhere = jnp.broadcast_to(pooled[None, :], words.shape)
    return jnp.concatenate([*shifted, everywhere], axis=-1)

  def heads(self, hidden, mask):
    dim = self.intent.in_features
    pooled = _model.masked_mean(hidden[:, -dim:], mask)
    return _model.NluLogits(
      intent=self.intent(pooled[None, :])[0], slots=self.slots(hidden)
    )

  def word_table(self):
    return self.words.embedding[...]


def _shift(words: Float[Array, "time dim"], by: int):
  """words[t + by] at position t, zero beyond the ends."""
  if by >= 0:
    return jnp.pad(words, ((0, by), (0, 0)))[by:]
  return jnp.pad(words, ((-by, 0), (0, 0)))[:by]


def mean_pool_tagger(
  *,
  vocab_size: int,
  num_intents: int,
  num_slots: int,
  dim: int = 32,
  window: int = 1,
  embedding_scale: float = 1.0,
  dropout: float = 0.0,
) -> _model.Model:
  """Word embeddings, their mean, and a window: a model for strong privacy.

  The intent is read off the mean embedding; a slot label off the embeddings
  of the word, its neighbours and the mean.

  Args:
    vocab_size: Rows of the word table.
    num_intents: Intents.
    num_slots: Slot labels.
    dim: Width of a word embedding.
    window: Neighbours on either side that a slot label sees.
    embedding_scale: Standard deviation of the initial embeddings.
    dropout: Rate on the embeddings.

  Returns:
    The model.

  Raises:
    ValueError: A field is impossible.
  """
  _model.check_sizes(
    vocab_size=vocab_size, num_intents=num_intents, num_slots=num_slots, dim=dim
  )
  _model.check_rate("dropout", dropout)
  if window < 0:
    raise ValueError(f"window: got {window!r}; it must be at least 0")
  if embedding_scale <= 0:
    raise ValueError(
      f"embedding_scale: got {embedding_scale!r}; it must be positive"
    )
  return _model.model_from_module(
    "mean_pool",
    lambda rngs: _MeanPoolTagger(
      vocab_size,
      num_intents,
      num_slots,
      dim,
      window,
      embedding_scale,
      dropout,
      rngs,
    ),
  )
