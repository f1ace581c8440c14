"""Recurrent taggers, BiLSTM and BiGRU, with an optional character CNN."""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float

from trustjax.models import (
  _cells,
  _char_cnn,
  _heads,
  _model,
  _orthogonal,
  _precision,
)


class BiRnn(nnx.Module):
  """Both directions of a recurrent cell in one scan.

  The input projections of all steps and both directions are one matrix
  product; only the recurrent products stay inside the scan. The backward
  direction reads time from its end; where the mask is off, states are kept, so
  padding is invisible to both.

  References:
    Hochreiter and Schmidhuber, 1997; Cho et al., EMNLP 2014; Graves and
    Schmidhuber, 2005.
  """

  def __init__(
    self, cell: _cells.Cell, in_dim: int, hidden_dim: int, *, rngs: nnx.Rngs
  ):
    """Builds the kernels of the cell's gates."""
    key, width = rngs.params, cell.num_gates * hidden_dim
    self.input = nnx.Param(
      jax.nn.initializers.lecun_normal()(key(), (in_dim, 2 * width))
    )
    shape = (hidden_dim, width)
    self.recurrent = nnx.Param(
      jnp.stack([_orthogonal.orthogonal(key(), shape) for _ in range(2)])
    )
    self.bias = nnx.Param(jnp.tile(cell.initial_bias(hidden_dim), 2))
    self.cell, self.hidden_dim = cell, hidden_dim

  def __call__(
    self, inputs: Float[Array, "time dim"], mask: Bool[Array, " time"]
  ) -> Float[Array, "time hidden"]:
    """Runs over the sequence; returns [forward, backward] at each position."""
    cell = self.cell
    projected = inputs @ self.input[...] + self.bias[...][None, :]
    width = cell.num_gates * self.hidden_dim
    forward, backward = projected[:, :width], projected[::-1, width:]
    kernels = self.recurrent[...]
    # Two plain products a step: one batched product of both directions is
    # slower on a CPU by a quarter. Slicing here keeps it out of the loop.
    forward_kernel, backward_kernel = kernels[0], kernels[1]

    def step(carry, now):
      ahead, behind = carry
      forward, backward, forward_mask, backward_mask = now
      ahead = cell.advance(ahead, forward, forward_kernel, forward_mask)
      behind = cell.advance(behind, backward, backward_kernel, backward_mask)
      return (ahead, behind), (ahead[0], behind[0])

    start = (cell.start(self.hidden_dim, projected.dtype),) * 2
    _, (ahead, behind) = jax.lax.scan(
      step, start, (forward, backward, mask, mask[::-1])
    )
    return jnp.concatenate([ahead, behind[::-1]], axis=-1)


class _BiRnnTagger(nnx.Module):
  """Words (and characters), recurrent layers, joint head."""

  def __init__(self, cell, sizes, char_sizes, rates, skip, rngs):
    vocab_size, num_intents, num_slots, dim, hidden_dim, num_layers = sizes
    self.words = _precision.Embed(vocab_size, dim, rngs=rngs)
    self.chars = (
      _char_cnn.CharCnn(*char_sizes, rngs=rngs) if char_sizes else None
    )
    dim += char_sizes[-1] if char_sizes else 0
    skipped = dim if skip else 0
    self.layers = tuple(f"{cell.name}_{i}" for i in range(num_layers))
    for layer in self.layers:
      setattr(self, layer, BiRnn(cell, dim, hidden_dim, rngs=rngs))
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
    for layer in self.layers:
      hidden = getattr(self, layer)(hidden, mask)
    if self.skip:
      hidden = jnp.concatenate([hidden, embeddings], axis=-1)
    hidden = _model.dropout(hidden, self.rates, keys[1])
    return jnp.where(mask[:, None], hidden, 0.0)

  def heads(self, hidden, mask):
    return self.head(hidden, mask)

  def word_table(self):
    return self.words.embedding[...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class TaggerBuilder:
  """Builds recurrent taggers of one cell, when it is called.

  Attributes:
    cell: The cell of the recurrent layers.
    name: The models' name; those that read characters add "_char".
  """

  cell: _cells.Cell
  name: str

  def __call__(
    self,
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
    """Bidirectional layers of the cell with a joint intent and slot head.

    Args:
      vocab_size: Rows of the word table.
      num_intents: Intents.
      num_slots: Slot labels.
      dim: Width of a word embedding.
      hidden_dim: Width of each direction.
      num_layers: Recurrent layers.
      dropout: Rate on embeddings and on the last hidden states.
      skip: Show the head the embeddings beside the hidden states: the intent
        is then read off a bag of words as well, which learns sooner and
        survives more noise.
      num_chars: Size of the character alphabet with padding; None reads no
        characters.
      char_dim: Width of a character embedding.
      char_out_dim: Width of the character features of a word.

    Returns:
      The model; with `num_chars` its examples need "chars".

    Raises:
      ValueError: A field is impossible.
    """
    sizes = dict(
      vocab_size=vocab_size,
      num_intents=num_intents,
      num_slots=num_slots,
      dim=dim,
      hidden_dim=hidden_dim,
      num_layers=num_layers,
    )
    chars = dict(
      num_chars=num_chars, char_dim=char_dim, char_out_dim=char_out_dim
    )
    _model.check_sizes(**sizes, **chars)
    _model.check_rate("dropout", dropout)
    reads_chars = num_chars is not None
    return _model.model_from_module(
      f"{self.name}_char" if reads_chars else self.name,
      lambda rngs: _BiRnnTagger(
        self.cell,
        tuple(sizes.values()),
        tuple(chars.values()) if reads_chars else None,
        dropout,
        skip,
        rngs,
      ),
    )


bilstm_tagger = TaggerBuilder(cell=_cells.LSTM, name="bilstm")
# Three gates for four. The reset gate acts on the product with the hidden
# state, as in cuDNN, so that a step multiplies once.
bigru_tagger = TaggerBuilder(cell=_cells.GRU, name="bigru")
