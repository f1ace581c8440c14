"""BiLSTM tagger, with an optional character CNN."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float

from trustjax.models import _char_cnn, _heads, _model


class BiLstm(nnx.Module):
  """Both directions of an LSTM in one scan.

  The input projections of all steps and both directions are one matrix
  product; only the recurrent products stay inside the scan. The backward
  direction reads time from its end; where the mask is off, states are kept, so
  padding is invisible to both.

  References:
    Hochreiter and Schmidhuber, 1997; Graves and Schmidhuber, 2005.
  """

  def __init__(self, in_dim: int, hidden_dim: int, *, rngs: nnx.Rngs):
    """Builds the kernels; the forget gates start open (bias 1)."""
    key = rngs.params
    self.input = nnx.Param(
      jax.nn.initializers.lecun_normal()(key(), (in_dim, 8 * hidden_dim))
    )
    recurrent = jax.nn.initializers.orthogonal()
    self.recurrent = nnx.Param(
      jnp.stack(
        [recurrent(key(), (hidden_dim, 4 * hidden_dim)) for _ in range(2)]
      )
    )
    gates = jnp.zeros((2, 4, hidden_dim)).at[:, 1].set(1.0)
    self.bias = nnx.Param(jnp.reshape(gates, -1))
    self.hidden_dim = hidden_dim

  def __call__(
    self, inputs: Float[Array, "time dim"], mask: Bool[Array, " time"]
  ) -> Float[Array, "time hidden"]:
    """Runs over the sequence; returns [forward, backward] at each position."""
    projected = inputs @ self.input[...] + self.bias[...][None, :]
    width = 4 * self.hidden_dim
    forward, backward = projected[:, :width], projected[::-1, width:]
    kernels = self.recurrent[...]
    # Two plain products a step: one batched product of both directions is
    # slower on a CPU by a quarter. Slicing here keeps it out of the loop.
    forward_kernel, backward_kernel = kernels[0], kernels[1]

    def step(carry, now):
      ahead, behind = carry
      forward, backward, forward_mask, backward_mask = now
      ahead = _advance(ahead, forward, forward_kernel, forward_mask)
      behind = _advance(behind, backward, backward_kernel, backward_mask)
      return (ahead, behind), (ahead[0], behind[0])

    zeros = jnp.zeros(self.hidden_dim, projected.dtype)
    start = ((zeros, zeros), (zeros, zeros))
    _, (ahead, behind) = jax.lax.scan(
      step, start, (forward, backward, mask, mask[::-1])
    )
    return jnp.concatenate([ahead, behind[::-1]], axis=-1)


def _advance(state, projected, kernel, mask):
  """One step of one direction; the state stays where the mask is off."""
  hidden, cell = state
  i, f, g, o = jnp.split(projected + hidden @ kernel, 4)
  new_cell = jax.nn.sigmoid(f) * cell + jax.nn.sigmoid(i) * jnp.tanh(g)
  new_hidden = jax.nn.sigmoid(o) * jnp.tanh(new_cell)
  return jnp.where(mask, new_hidden, hidden), jnp.where(mask, new_cell, cell)


class _BiLstmTagger(nnx.Module):
  """Words (and characters), BiLSTM layers, joint head."""

  def __init__(self, sizes, char_sizes, rates, skip, rngs):
    vocab_size, num_intents, num_slots, dim, hidden_dim, num_layers = sizes
    self.words = nnx.Embed(vocab_size, dim, rngs=rngs)
    self.chars = (
      _char_cnn.CharCnn(*char_sizes, rngs=rngs) if char_sizes else None
    )
    dim += char_sizes[-1] if char_sizes else 0
    skipped = dim if skip else 0
    self.num_layers = num_layers
    for i in range(num_layers):
      setattr(self, f"lstm_{i}", BiLstm(dim, hidden_dim, rngs=rngs))
      dim = 2 * hidden_dim
    self.head = _heads.JointHead(
      dim + skipped, num_intents, num_slots, rngs=rngs
    )
    self.rates = rates
    self.skip = skip

  def embed(self, example):
    words = self.words(example["tokens"])
    if self.chars is None:
      return words
    if "chars" not in example:
      raise ValueError(
        "this model was built with num_chars and reads characters, but the"
        ' example has no "chars" (prepare the data with max_chars)'
      )
    return jnp.concatenate([words, self.chars(example["chars"])], axis=-1)

  def encode(self, embeddings, mask, key):
    keys = [None] * 2 if key is None else jax.random.split(key)
    embeddings = _model.dropout(embeddings, self.rates, keys[0])
    hidden = embeddings
    for i in range(self.num_layers):
      hidden = getattr(self, f"lstm_{i}")(hidden, mask)
    if self.skip:
      hidden = jnp.concatenate([hidden, embeddings], axis=-1)
    hidden = _model.dropout(hidden, self.rates, keys[1])
    return jnp.where(mask[:, None], hidden, 0.0)

  def heads(self, hidden, mask):
    return self.head(hidden, mask)

  def word_table(self):
    return self.words.embedding[...]


def bilstm_tagger(
  *,
  vocab_size: int,
  num_intents: int,
  num_slots: int,
  dim: int = 100,
  hidden_dim: int = 100,
  num_layers: int = 1,
  dropout: float = 0.0,
  skip: bool = False,
  num_chars: int | None = None,
  char_dim: int = 16,
  char_out_dim: int = 32,
) -> _model.Model:
  """BiLSTM with a joint intent and slot head.

  Args:
    vocab_size: Rows of the word table.
    num_intents: Intents.
    num_slots: Slot labels.
    dim: Width of a word embedding.
    hidden_dim: Width of each direction.
    num_layers: BiLSTM layers.
    dropout: Rate on embeddings and on the last hidden states.
    skip: Show the head the embeddings beside the hidden states: the intent is
      then read off a bag of words as well, which learns sooner and survives
      more noise.
    num_chars: Size of the character alphabet with padding; None reads no
      characters.
    char_dim: Width of a character embedding.
    char_out_dim: Width of the character features of a word.

  Returns:
    The model; with `num_chars` its examples need "chars".

  Raises:
    ValueError: A field is impossible.
  """
  _model.check_sizes(
    vocab_size=vocab_size,
    num_intents=num_intents,
    num_slots=num_slots,
    dim=dim,
    hidden_dim=hidden_dim,
    num_layers=num_layers,
    num_chars=num_chars,
    char_dim=char_dim,
    char_out_dim=char_out_dim,
  )
  _model.check_rate("dropout", dropout)
  sizes = (vocab_size, num_intents, num_slots, dim, hidden_dim, num_layers)
  chars = None if num_chars is None else (num_chars, char_dim, char_out_dim)
  return _model.model_from_module(
    "bilstm" if chars is None else "bilstm_char",
    lambda rngs: _BiLstmTagger(sizes, chars, dropout, skip, rngs),
  )
