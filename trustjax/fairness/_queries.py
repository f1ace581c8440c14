"""Sentences with one open place each: what likelihood metrics ask a model.

Alignment of words and sub-words is done once, on the host, and produces index
arrays; the model then sees nothing but fixed-shape batches.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from trustjax.fairness import _validate
from trustjax.fairness._validate import AnyArray

# (token_ids [batch, time], mask [batch, time]) -> log-probabilities
# [batch, time, vocabulary].
LogProbFn = Callable[
  [Int[Array, "batch time"], Bool[Array, "batch time"]],
  Float[Array, "batch time vocab"],
]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Subwords:
  """What a metric has to know about a tokeniser.

  Attributes:
    encode: Text -> sub-word ids, without special tokens.
    mask_id: Id of the mask token; None for a causal model.
    prefix: Ids in front of every sentence, such as [CLS].
    suffix: Ids behind every sentence, such as [SEP].
    pad_id: Id that fills a batch.
    leading_space: Whether a word inside a sentence is encoded with the space
      in front of it, as byte-level BPE needs. Without it such a tokeniser
      sees another word, the defect behind the published RoBERTa rows of
      StereoSet.
  """

  encode: Callable[[str], Sequence[int]]
  mask_id: int | None
  prefix: tuple[int, ...] = ()
  suffix: tuple[int, ...] = ()
  pad_id: int = 0
  leading_space: bool = False

  def words(self, text: str, *, inside: bool) -> list[int]:
    """Encodes a piece of a sentence.

    Args:
      text: The piece.
      inside: Whether a space stands in front of it.

    Returns:
      Its ids; none for an empty piece.
    """
    text = text.strip(" ")
    if not text:
      return []
    if inside and self.leading_space:
      text = " " + text
    return [int(i) for i in self.encode(text)]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class MaskedQueries:
  """Rows with a mask, and the sub-word whose probability is asked there.

  Attributes:
    tokens: Ids, padded.
    mask: Positions that hold a token.
    position: Where each row is open.
    piece: Which sub-word is asked there.
    item: To which item each row belongs.
    num_items: How many items there are.
  """

  tokens: Int[AnyArray, "*batch rows time"]
  mask: Bool[AnyArray, "*batch rows time"]
  position: Int[AnyArray, "*batch rows"]
  piece: Int[AnyArray, "*batch rows"]
  item: Int[AnyArray, "*batch rows"]
  num_items: int = dataclasses.field(metadata={"static": True})

  @property
  def rows_per_item(self) -> Int[np.ndarray, " items"]:
    """How many rows each item has; an item without rows has no score."""
    return np.bincount(np.asarray(self.item), minlength=self.num_items)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class CausalQueries:
  """Sentences for a causal model, and which of their tokens are scored.

  Attributes:
    tokens: Ids, padded.
    mask: Positions that hold a token.
    scored: Positions whose probability, given what precedes, is asked.
  """

  tokens: Int[AnyArray, "*batch rows time"]
  mask: Bool[AnyArray, "*batch rows time"]
  scored: Bool[AnyArray, "*batch rows time"]


def masked_queries(
  rows: Sequence[tuple[Sequence[int], int, int, int]],
  subwords: Subwords,
  *,
  num_items: int,
) -> MaskedQueries:
  """Pads rows into arrays.

  Args:
    rows: (ids with prefix and suffix, open position, asked piece, item).
    subwords: The tokeniser, for its padding.
    num_items: How many items there are.

  Returns:
    The queries.

  Raises:
    ValueError: If there are no rows.
  """
  if not rows:
    raise ValueError("rows: got none; there is nothing to ask the model")
  tokens, mask = _padded([ids for ids, *_ in rows], subwords.pad_id)
  position, piece, item = (
    np.array(column, np.int32)
    for column in zip(*(rest for _, *rest in rows), strict=True)
  )
  return MaskedQueries(
    tokens=tokens,
    mask=mask,
    position=position,
    piece=piece,
    item=item,
    num_items=num_items,
  )


def causal_queries(
  rows: Sequence[tuple[Sequence[int], Sequence[bool]]], *, pad_id: int = 0
) -> CausalQueries:
  """Pads sentences into arrays.

  Args:
    rows: (ids, which of them are scored).
    pad_id: Id that fills a batch.

  Returns:
    The queries.

  Raises:
    ValueError: If there are no rows, or flags and ids differ in number.
  """
  if not rows:
    raise ValueError("rows: got none; there is nothing to ask the model")
  for i, (ids, flags) in enumerate(rows):
    if len(ids) != len(flags):
      raise ValueError(f"rows[{i}]: got {len(ids)} ids but {len(flags)} flags")
  tokens, mask = _padded([ids for ids, _ in rows], pad_id)
  scored = np.zeros_like(mask)
  for i, (_, flags) in enumerate(rows):
    scored[i, : len(flags)] = flags
  return CausalQueries(tokens=tokens, mask=mask, scored=scored)


def score_masked(
  log_prob_fn: LogProbFn, queries: MaskedQueries, *, batch_size: int = 64
) -> Float[Array, " rows"]:
  """Log-probability of the asked piece at the open place of every row.

  Args:
    log_prob_fn: The model; pass the same function object again to reuse the
      compiled program, or for many models of one architecture
      `jax.tree_util.Partial(fn, params)` with the same `fn`.
    queries: The rows.
    batch_size: Rows that the model sees at a time.

  Returns:
    One log-probability a row.

  Raises:
    ValueError: If a piece is not in the model's vocabulary.
  """
  _check_vocabulary(log_prob_fn, queries.tokens, queries.piece)
  return _score_masked(
    jax.tree.map(jnp.asarray, queries),
    _validate.as_partial(log_prob_fn),
    batch_size=min(batch_size, queries.tokens.shape[0]),
  )


def score_causal(
  log_prob_fn: LogProbFn,
  queries: CausalQueries,
  *,
  start_id: int | None,
  batch_size: int = 64,
) -> Float[Array, "rows time"]:
  """Log-probability of every scored token given the tokens before it.

  The first token of a sentence has nothing before it: its probability is read
  from the model fed with `start_id` alone, and the other tokens are
  conditioned without that prefix, as in the public StereoSet evaluation.

  Args:
    log_prob_fn: The model; position t predicts token t + 1.
    queries: The sentences.
    start_id: Id of the token that starts a text; None if no first token is
      scored.
    batch_size: Sentences that the model sees at a time.

  Returns:
    Log-probabilities, 0 where a token is not scored.

  Raises:
    ValueError: If a first token is scored and there is no `start_id`, or an
      id is not in the model's vocabulary.
  """
  first = bool(np.asarray(queries.scored)[:, 0].any())
  if first and start_id is None:
    raise ValueError(
      "start_id: got None, but the first token of a sentence is scored"
    )
  _check_vocabulary(log_prob_fn, queries.tokens, queries.tokens)
  return _score_causal(
    jax.tree.map(jnp.asarray, queries),
    jnp.asarray(0 if start_id is None else start_id, jnp.int32),
    _validate.as_partial(log_prob_fn),
    batch_size=min(batch_size, queries.tokens.shape[0]),
  )


def sum_by_item(
  values: Float[Array, " rows"], queries: MaskedQueries
) -> Float[Array, " items"]:
  """Sums rows by item: a log-probability by the chain of its pieces.

  Args:
    values: From `score_masked`.
    queries: The rows.

  Returns:
    One sum an item; 0 for an item without rows.
  """
  return jax.ops.segment_sum(
    values, jnp.asarray(queries.item), queries.num_items
  )


def mean_probability_by_item(
  values: Float[Array, " rows"], queries: MaskedQueries
) -> Float[Array, " items"]:
  """Arithmetic mean of probabilities by item.

  Args:
    values: Log-probabilities from `score_masked`.
    queries: The rows.

  Returns:
    One mean of exp(values) an item; nan for an item without rows.
  """
  item = jnp.asarray(queries.item)
  total = jax.ops.segment_sum(jnp.exp(values), item, queries.num_items)
  count = jax.ops.segment_sum(jnp.ones_like(values), item, queries.num_items)
  return jnp.where(count > 0, total / jnp.maximum(count, 1), jnp.nan)


@functools.partial(jax.jit, static_argnames=("batch_size",))
def _score_masked(queries, log_prob_fn, *, batch_size):
  def score(chunk):
    log_probs = log_prob_fn(chunk.tokens, chunk.mask)
    rows = jnp.arange(chunk.position.shape[0])
    return log_probs[rows, chunk.position, chunk.piece]

  return _in_batches(score, queries, batch_size)


@functools.partial(jax.jit, static_argnames=("batch_size",))
def _score_causal(queries, start_id, log_prob_fn, *, batch_size):
  first = log_prob_fn(jnp.reshape(start_id, (1, 1)), jnp.ones((1, 1), bool))[
    0, 0
  ]

  def score(chunk):
    log_probs = log_prob_fn(chunk.tokens, chunk.mask)[:, :-1]
    later = jnp.take_along_axis(log_probs, chunk.tokens[:, 1:, None], axis=2)[
      ..., 0
    ]
    both = jnp.concatenate([first[chunk.tokens[:, :1]], later], axis=1)
    return jnp.where(chunk.scored & chunk.mask, both, 0.0)

  return _in_batches(score, queries, batch_size)


def _in_batches(score, queries, batch_size):
  """Applies `score` to batches of rows; the last is filled with repeats."""
  num_rows = queries.tokens.shape[0]
  num_batches = -(-num_rows // batch_size)
  rows = jnp.arange(num_batches * batch_size) % num_rows
  # Item numbers do not matter here, and `num_items` stays.
  batches = jax.tree.map(
    lambda leaf: jnp.reshape(
      leaf[rows], (num_batches, batch_size, *leaf.shape[1:])
    ),
    queries,
  )
  scores = jax.lax.map(score, batches)
  return jnp.reshape(scores, (-1, *scores.shape[2:]))[:num_rows]


def _check_vocabulary(log_prob_fn, tokens, asked):
  """Raises if the model and the tokeniser cannot be a pair."""
  shape = jax.eval_shape(
    log_prob_fn,
    jax.ShapeDtypeStruct((1, tokens.shape[1]), jnp.int32),
    jax.ShapeDtypeStruct((1, tokens.shape[1]), jnp.bool_),
  ).shape
  largest = int(max(np.max(np.asarray(tokens)), np.max(np.asarray(asked))))
  if len(shape) != 3 or shape[:2] != (1, tokens.shape[1]):
    raise ValueError(
      f"log_prob_fn: returns shape {shape} for tokens [1, {tokens.shape[1]}];"
      " it must return [batch, time, vocabulary]"
    )
  if largest >= shape[2]:
    raise ValueError(
      f"log_prob_fn: has a vocabulary of {shape[2]}, but the sentences hold id"
      f" {largest}; model and tokeniser do not belong together"
    )


def _padded(rows, pad_id):
  longest = max(len(ids) for ids in rows)
  tokens = np.full((len(rows), longest), pad_id, np.int32)
  mask = np.zeros((len(rows), longest), bool)
  for i, ids in enumerate(rows):
    tokens[i, : len(ids)] = ids
    mask[i, : len(ids)] = True
  return tokens, mask


def require_mask_id(subwords: Subwords) -> int:
  """The mask id, or an error that says who needs one."""
  if subwords.mask_id is None:
    raise ValueError(
      "subwords.mask_id: got None; masked scores need a masked model"
    )
  _validate.check_at_least("subwords.mask_id", subwords.mask_id, 0)
  return subwords.mask_id
