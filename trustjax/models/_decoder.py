"""Causal Transformer decoder, the architecture of GPT-2."""

import jax
import jax.numpy as jnp
from flax import nnx

from trustjax.models import _language_model, _model, _transformer_parts

_SCALE = 0.02


class DecoderLayer(nnx.Module):
  """Causal self-attention and feed-forward, each behind a norm and added.

  A projection that adds to the residual stream starts smaller, by the root of
  the number of such projections, so that depth does not inflate the stream.
  """

  def __init__(
    self,
    widths: tuple[int, int, int, int],
    rate: float,
    epsilon: float,
    *,
    rngs: nnx.Rngs,
  ):
    """Builds the layer from (layers, width, heads, feed-forward width)."""
    num_layers, dim, num_heads, ff_dim = widths
    wide = jax.nn.initializers.normal(_SCALE)
    added = jax.nn.initializers.normal(_SCALE * (2 * num_layers) ** -0.5)
    self.attention_norm = _transformer_parts.layer_norm(dim, epsilon, rngs)
    self.qkv = nnx.Linear(dim, 3 * dim, kernel_init=wide, rngs=rngs)
    self.out = nnx.Linear(dim, dim, kernel_init=added, rngs=rngs)
    self.ff_norm = _transformer_parts.layer_norm(dim, epsilon, rngs)
    self.ff_in = nnx.Linear(dim, ff_dim, kernel_init=wide, rngs=rngs)
    self.ff_out = nnx.Linear(ff_dim, dim, kernel_init=added, rngs=rngs)
    self.num_heads = num_heads
    self.rate = rate

  def __call__(self, hidden, allowed, key):
    """Runs the layer on [time, dim]."""
    keys = [None] * 3 if key is None else jax.random.split(key, 3)
    mixed = _transformer_parts.self_attention(
      self.qkv(self.attention_norm(hidden)),
      allowed,
      self.num_heads,
      self.rate,
      keys[0],
    )
    hidden = hidden + _model.dropout(self.out(mixed), self.rate, keys[1])
    widened = self.ff_in(self.ff_norm(hidden))
    # The tanh form of the GELU, "gelu_new".
    widened = jax.nn.gelu(widened, approximate=True)
    return hidden + _model.dropout(self.ff_out(widened), self.rate, keys[2])


class _TransformerDecoder(_transformer_parts.TransformerStack):
  """Words and positions, decoder layers, final norm, scores of words."""

  def __init__(self, vocab_size, max_length, widths, rate, epsilon, tied, rngs):
    num_layers, dim, _, _ = widths
    self.add_embeddings(vocab_size, max_length, dim, _SCALE, rngs)
    self.add_layers(
      num_layers, lambda: DecoderLayer(widths, rate, epsilon, rngs=rngs)
    )
    self.norm = _transformer_parts.layer_norm(dim, epsilon, rngs)
    self.unembed = (
      None
      if tied
      else nnx.Linear(
        dim,
        vocab_size,
        use_bias=False,
        kernel_init=jax.nn.initializers.normal(_SCALE),
        rngs=rngs,
      )
    )
    self.rate = rate

  def visible(self, mask):
    order = jnp.arange(mask.shape[0])
    return (order[None, :] <= order[:, None]) & mask[None, :]

  def logits(self, hidden):
    if self.unembed is None:
      return hidden @ self.words.embedding[...].T
    return self.unembed(hidden)


def transformer_decoder(
  *,
  vocab_size: int,
  max_length: int,
  size: str = "tiny",
  num_layers: int | None = None,
  dim: int | None = None,
  num_heads: int | None = None,
  ff_dim: int | None = None,
  dropout: float = 0.0,
  tied: bool = True,
  norm_epsilon: float = 1e-5,
) -> _language_model.LanguageModel:
  """Causal decoder with the architecture of GPT-2.

  Pre-norm layers, learned positions, one fused projection to queries, keys and
  values, the tanh form of the GELU, a final layer norm, and scores without a
  bias. With size "base", a vocabulary of 50,257 and 1,024 positions it is
  GPT-2 small.

  Args:
    vocab_size: Rows of the word table.
    max_length: Positions.
    size: "tiny" (2 layers, width 128), "mini" (4, 256) or "base" (12, 768).
    num_layers: Overrides the size's.
    dim: Overrides the size's width.
    num_heads: Overrides the size's attention heads.
    ff_dim: Overrides the size's feed-forward width.
    dropout: Rate on embeddings, on attention weights and on what each
      sub-layer adds.
    tied: Score words by the rows that embed them; else by a table of their
      own.
    norm_epsilon: Added to the variance in every layer norm.

  Returns:
    The language model.

  Raises:
    ValueError: The size is unknown, a field is impossible, or the heads do
      not divide the width.

  Example:
    >>> model = transformer_decoder(vocab_size=100, max_length=8)
    >>> params = model.init(jax.random.key(0))
    >>> example = {"tokens": jnp.arange(8), "mask": jnp.ones(8, bool)}
    >>> model.apply(params, example).shape
    (8, 100)

  References:
    Radford et al., Language Models are Unsupervised Multitask Learners, 2019.
  """
  _model.check_rate("dropout", dropout)
  _transformer_parts.check_epsilon(norm_epsilon)
  widths = _transformer_parts.resolve_size(
    size, num_layers=num_layers, dim=dim, num_heads=num_heads, ff_dim=ff_dim
  )
  _model.check_sizes(vocab_size=vocab_size, max_length=max_length)
  fields = dict(
    vocab_size=vocab_size,
    max_length=max_length,
    **dict(zip(("num_layers", "dim", "num_heads", "ff_dim"), widths)),
    dropout=dropout,
    tied=tied,
    norm_epsilon=norm_epsilon,
  )
  return _language_model.language_model_from_module(
    "decoder",
    fields,
    lambda rngs: _TransformerDecoder(
      vocab_size, max_length, widths, dropout, norm_epsilon, tied, rngs
    ),
  )
