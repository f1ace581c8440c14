"""A small recurrent language model, as used on characters."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float

from trustjax.models import (
  _cells,
  _language_model,
  _model,
  _orthogonal,
  _precision,
)


class _Lstm(nnx.Module):
  """One LSTM layer; the input projections of all steps are one product."""

  def __init__(self, in_dim, hidden_dim, rngs):
    key, width = rngs.params, _cells.LSTM.num_gates * hidden_dim
    self.input = nnx.Param(
      jax.nn.initializers.lecun_normal()(key(), (in_dim, width))
    )
    self.recurrent = nnx.Param(
      _orthogonal.orthogonal(key(), (hidden_dim, width))
    )
    self.bias = nnx.Param(_cells.LSTM.initial_bias(hidden_dim))
    self.hidden_dim = hidden_dim

  def __call__(
    self, inputs: Float[Array, "time dim"], mask: Bool[Array, " time"]
  ) -> Float[Array, "time hidden"]:
    projected = inputs @ self.input[...] + self.bias[...][None, :]
    kernel = self.recurrent[...]

    def step(state, now):
      projected, live = now
      state = _cells.LSTM.advance(state, projected, kernel, live)
      return state, state[0]

    start = _cells.LSTM.start(self.hidden_dim, projected.dtype)
    return jax.lax.scan(step, start, (projected, mask))[1]


class _CharLstm(nnx.Module):
  """Embeddings, LSTM layers, a linear map to the next token's scores."""

  def __init__(self, vocab_size, dim, hidden_dim, num_layers, rate, rngs):
    self.words = _precision.Embed(vocab_size, dim, rngs=rngs)
    self.num_layers = num_layers
    for i in range(num_layers):
      width = dim if i == 0 else hidden_dim
      setattr(self, f"lstm_{i}", _Lstm(width, hidden_dim, rngs))
    self.unembed = nnx.Linear(hidden_dim, vocab_size, rngs=rngs)
    self.rate = rate

  def embed(self, example):
    return self.words(example["tokens"])

  def encode(self, embeddings, mask, key):
    hidden = embeddings
    for i in range(self.num_layers):
      hidden = getattr(self, f"lstm_{i}")(hidden, mask)
    hidden = _model.dropout(hidden, self.rate, key)
    return jnp.where(mask[:, None], hidden, 0.0)

  def logits(self, hidden):
    return self.unembed(hidden)

  def word_table(self):
    return self.words.embedding[...]


def char_lstm(
  *,
  vocab_size: int,
  dim: int = 8,
  hidden_dim: int = 256,
  num_layers: int = 2,
  dropout: float = 0.0,
) -> _language_model.LanguageModel:
  """Next-character model: an embedding, LSTM layers, a linear output.

  With its defaults it is the model that federated studies train on
  Shakespeare's plays by role.

  Args:
    vocab_size: Characters.
    dim: Width of a character's embedding.
    hidden_dim: Width of an LSTM layer.
    num_layers: LSTM layers.
    dropout: Rate on the last hidden states.

  Returns:
    The language model.

  Raises:
    ValueError: A field is impossible.

  References:
    Caldas et al., LEAF, 2018 (arXiv 1812.01097); McMahan et al., AISTATS 2017.
  """
  fields = dict(
    vocab_size=vocab_size,
    dim=dim,
    hidden_dim=hidden_dim,
    num_layers=num_layers,
  )
  _model.check_sizes(**fields)
  _model.check_rate("dropout", dropout)
  return _language_model.language_model_from_module(
    "char_lstm",
    fields | dict(dropout=dropout),
    lambda rngs: _CharLstm(
      vocab_size, dim, hidden_dim, num_layers, dropout, rngs
    ),
  )
