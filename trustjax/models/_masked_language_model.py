"""A masked language model: an encoder that fills in hidden words."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from trustjax.models import (
  _language_model,
  _model,
  _precision,
  _transformer,
  _transformer_parts,
)

# Of the positions that are asked for: shown as the mask, as some other word,
# and (the rest) as they are.
_MASKED, _REPLACED = 0.8, 0.1


@dataclasses.dataclass(frozen=True, kw_only=True)
class MaskedLanguageModel(_language_model.TokenScorer):
  """Pure functions of ONE record; batches come from `jax.vmap`.

  The logits of position t score the token at t, and every position sees every
  other one. It is not a `LanguageModel`, whose logits score the next token.

  An example is a dict: tokens [time] and mask [time].

  Attributes:
    mask_id: Token that hides a word; the others are those of `TokenScorer`.
  """

  mask_id: int


class _MaskedEncoder(_transformer_parts.TransformerStack):
  """Words and positions, encoder layers, and the head of BERT."""

  def __init__(self, vocab_size, max_length, widths, rate, rngs):
    num_layers, dim, num_heads, ff_dim = widths
    # Rows of unit length: they score words, too.
    self.add_embeddings(vocab_size, max_length, dim, dim**-0.5, rngs)
    # As in BERT: without it words would drown in what the first layer adds.
    self.input_norm = nnx.LayerNorm(dim, rngs=rngs)
    self.add_layers(
      num_layers,
      lambda: _transformer.EncoderLayer(
        dim, num_heads, ff_dim, rate, rngs=rngs
      ),
    )
    self.norm = nnx.LayerNorm(dim, rngs=rngs)
    self.transform = nnx.Linear(dim, dim, rngs=rngs)
    self.head_norm = nnx.LayerNorm(dim, rngs=rngs)
    self.word_bias = nnx.Param(jnp.zeros(vocab_size))
    self.rate = rate

  def prepare(self, hidden):
    return self.input_norm(hidden)

  def logits(self, hidden):
    changed = self.head_norm(jax.nn.gelu(self.transform(hidden)))
    scores = changed @ self.words.embedding[...].T
    return scores + self.word_bias[...][None, :]


def masked_encoder(
  *,
  vocab_size: int,
  max_length: int,
  mask_id: int,
  size: str = "tiny",
  num_layers: int | None = None,
  dim: int | None = None,
  num_heads: int | None = None,
  ff_dim: int | None = None,
  dropout: float = 0.0,
) -> MaskedLanguageModel:
  """Pre-norm Transformer encoder with the masked-word head of BERT.

  Words and positions are added and normalised. The head is a dense layer, a
  GELU, a layer norm and scores by the rows that embed the words, plus a bias
  for each word.

  Args:
    vocab_size: Rows of the word table.
    max_length: Positions.
    mask_id: Token that hides a word.
    size: "tiny" (2 layers, width 128), "mini" (4, 256) or "base" (12, 768).
    num_layers: Overrides the size's.
    dim: Overrides the size's width.
    num_heads: Overrides the size's attention heads.
    ff_dim: Overrides the size's feed-forward width.
    dropout: Rate on embeddings and on what each sub-layer adds.

  Returns:
    The masked language model.

  Raises:
    ValueError: The size is unknown, a field is impossible, the heads do not
      divide the width, or the mask token is not in the vocabulary.

  Example:
    >>> model = masked_encoder(vocab_size=100, max_length=8, mask_id=4)
    >>> params = model.init(jax.random.key(0))
    >>> example = {"tokens": jnp.arange(8), "mask": jnp.ones(8, bool)}
    >>> model.apply(params, example).shape
    (8, 100)

  References:
    Devlin et al., NAACL 2019, arXiv 1810.04805.
  """
  _model.check_rate("dropout", dropout)
  widths = _transformer_parts.resolve_size(
    size, num_layers=num_layers, dim=dim, num_heads=num_heads, ff_dim=ff_dim
  )
  _model.check_sizes(vocab_size=vocab_size, max_length=max_length)
  if not 0 <= mask_id < vocab_size:
    raise ValueError(
      f"mask_id: got {mask_id}; it must lie between 0 and {vocab_size - 1}"
    )
  name = "masked_encoder"
  return MaskedLanguageModel(
    name=name,
    fields=dict(
      vocab_size=vocab_size,
      max_length=max_length,
      mask_id=mask_id,
      **dict(zip(("num_layers", "dim", "num_heads", "ff_dim"), widths)),
      dropout=dropout,
    ),
    mask_id=mask_id,
    **_language_model.functions_of_module(
      name,
      lambda rngs: _MaskedEncoder(
        vocab_size, max_length, widths, dropout, rngs
      ),
    ),
  )


def masked_language_model_loss(
  model: MaskedLanguageModel,
  *,
  mask_rate: float = 0.15,
  special_ids: tuple[int, ...] = (),
  salient_rate: float = 0.0,
) -> Callable[..., tuple[Float[Array, ""], dict[str, Any]]]:
  """Mean cross-entropy of the words that were hidden from the model, in nats.

  Of the n words of a record, max(1, round(mask_rate n)) are asked for, drawn
  without replacement by the record's own key: 80 % of them are shown as the
  mask, 10 % as a random word, 10 % as they are. The mean runs over this
  record's own positions, which a per-record clip allows; a record without a
  word (the padding of a lot) has zero loss and gradient.

  With `salient_rate` above 0, an example may hold `salient` [time], the words
  of a span of interest; with that probability exactly these are asked for, all
  together, so that none of them gives away the others. What depends on distant
  context alone is learned in far fewer steps.

  A key of None evaluates: every word is masked alone, one at a time, so that
  loss x num_predicted is the negative pseudo-log-likelihood of the record.

  Args:
    model: The masked language model.
    mask_rate: Share of the words that are asked for.
    special_ids: Tokens that are never asked for, such as start and end.
    salient_rate: Share of the records whose salient words are asked for.

  Returns:
    `loss_fn(params, example, key) -> (loss, aux)` of examples with tokens
    [time] and mask [time]; aux holds `token_correct` (mean over the asked
    positions) and `num_predicted`.

  Raises:
    ValueError: A rate is out of range.

  References:
    Devlin et al., NAACL 2019, arXiv 1810.04805; Salazar et al., ACL 2020,
    arXiv 1910.14659 (pseudo-log-likelihood); Guu et al., ICML 2020, arXiv
    2002.08909 (salient spans).
  """
  if not 0 < mask_rate <= 1:
    raise ValueError(f"mask_rate: got {mask_rate!r}; it must lie in (0, 1]")
  if not 0 <= salient_rate <= 1:
    raise ValueError(
      f"salient_rate: got {salient_rate!r}; it must lie in [0, 1]"
    )

  def loss_fn(params, example, key):
    tokens, mask = jnp.asarray(example["tokens"]), jnp.asarray(example["mask"])
    words = mask & ~jnp.isin(tokens, jnp.array(special_ids, tokens.dtype))
    if key is None:
      log_probs, correct = _one_at_a_time(model, params, tokens, mask)
      asked = words
    else:
      mask_key, dropout_key = jax.random.split(key)
      asked = _drawn(mask_key, words, mask_rate)
      if salient_rate and "salient" in example:
        salient = jnp.asarray(example["salient"]) & words
        coin = jax.random.bernoulli(
          jax.random.fold_in(mask_key, 3), salient_rate
        )
        asked = jnp.where(coin & salient.any(), salient, asked)
      shown = _hidden(model, mask_key, tokens, asked)
      logits = model.apply(params, {"tokens": shown, "mask": mask}, dropout_key)
      log_probs, correct = _of_tokens(logits, tokens)
    counted = asked.astype(log_probs.dtype)
    total = jnp.maximum(counted.sum(), 1.0)
    return -(counted @ log_probs) / total, {
      "token_correct": (counted @ correct) / total,
      "num_predicted": counted.sum(),
    }

  return loss_fn


def _drawn(key, words, mask_rate):
  """Positions that are asked for, drawn without replacement."""
  draws = jax.random.uniform(jax.random.fold_in(key, 0), words.shape)
  rank = jnp.argsort(jnp.argsort(jnp.where(words, draws, 2.0)))
  return words & (rank < jnp.maximum(jnp.round(mask_rate * words.sum()), 1))


def _hidden(model, key, tokens, asked):
  """The tokens that are shown."""
  way = jax.random.uniform(jax.random.fold_in(key, 1), tokens.shape)
  other = jax.random.randint(
    jax.random.fold_in(key, 2),
    tokens.shape,
    0,
    model.fields["vocab_size"],
    tokens.dtype,
  )
  shown = jnp.where(
    way < _MASKED,
    jnp.asarray(model.mask_id, tokens.dtype),
    jnp.where(way < _MASKED + _REPLACED, other, tokens),
  )
  return jnp.where(asked, shown, tokens)


def _one_at_a_time(model, params, tokens, mask):
  """Log-probability of each token, itself masked and all others visible."""

  def at(position):
    shown = tokens.at[position].set(model.mask_id)
    logits = model.apply(params, {"tokens": shown, "mask": mask})
    log_probs, correct = _of_tokens(logits, tokens)
    return log_probs[position], correct[position]

  return jax.vmap(at)(jnp.arange(tokens.shape[0]))


def _of_tokens(logits, tokens):
  """Log-probability of each token, and whether it is the likeliest."""
  logits = _precision.at_least_float32(logits)
  chosen = jnp.take_along_axis(
    jax.nn.log_softmax(logits), tokens[:, None], axis=1
  )[:, 0]
  correct = jnp.argmax(logits, axis=1) == tokens
  return chosen, correct.astype(logits.dtype)
