"""Logistic tagger: a linear model of words, whose loss is convex."""

import jax.numpy as jnp
from flax import nnx

from trustjax.models import _model, _precision


class _LogisticTagger(nnx.Module):
  """A row of scores for each word; the intent reads off their mean."""

  def __init__(self, vocab_size, num_intents, num_slots, rngs):
    width = num_intents + num_slots
    self.words = _precision.Embed(
      vocab_size, width, embedding_init=nnx.initializers.zeros, rngs=rngs
    )
    self.bias = nnx.Param(jnp.zeros(width))
    self.num_intents = num_intents

  def embed(self, example):
    return self.words(example["tokens"])

  def encode(self, embeddings, mask, key):
    del key
    return jnp.where(mask[:, None], embeddings, 0.0)

  def heads(self, hidden, mask):
    scores, bias, cut = hidden, self.bias[...], self.num_intents
    pooled = _model.masked_mean(scores[:, :cut], mask)
    return _model.NluLogits(
      intent=pooled + bias[:cut], slots=scores[:, cut:] + bias[None, cut:]
    )

  def word_table(self):
    return self.words.embedding[...]


def logistic_tagger(
  *, vocab_size: int, num_intents: int, num_slots: int
) -> _model.Model:
  """Multinomial logistic regression on words, for intents and slots.

  The intent is a linear function of the bag of words (their mean), a slot label
  of the word itself. The joint loss is convex, and training starts at zero, so
  the key of `init` does not matter.

  Args:
    vocab_size: Rows of the word table.
    num_intents: Intents.
    num_slots: Slot labels.

  Returns:
    The model; its word table is [vocab, intents + slots].

  Raises:
    ValueError: A size is impossible.
  """
  _model.check_sizes(
    vocab_size=vocab_size, num_intents=num_intents, num_slots=num_slots
  )
  return _model.model_from_module(
    "logistic",
    lambda rngs: _LogisticTagger(vocab_size, num_intents, num_slots, rngs),
  )
