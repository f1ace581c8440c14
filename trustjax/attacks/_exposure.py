"""Exhaustive scoring of a canary's completions: rank and exposure.

Where all |V|^n completions can be scored, they tell how well a model has
memorised the code whatever an optimiser finds: a failed search is not privacy.
"""

import dataclasses
import functools
import typing
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from trustjax.attacks import _intervals, _validate
from trustjax.attacks._validate import AnyArray

MAX_COMPLETIONS = 10**6
# Completions scored at a time: bounds memory, not the result.
_BATCH = 1_000


@typing.no_type_check  # JAX rebuilds records with placeholders of its own.
@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Exposure:
  """How exposed a code is among all codes that it could have been.

  Attributes:
    rank: Place of the code by loss, 1 for the smallest; ties share the mean of
      their places.
    exposure: log2 of the number of codes minus log2 of the rank, in bits.
    best: Index of the code with the smallest loss (the first of equals).
    is_best: Whether the code's loss is below all others.
    num_completions: Number of codes.
  """

  rank: Float[AnyArray, "*trials"]
  exposure: Float[AnyArray, "*trials"]
  best: Int[AnyArray, "*trials"]
  is_best: Any
  num_completions: int = dataclasses.field(metadata={"static": True})


def completion_index(
  tokens: Int[AnyArray, "*trials positions"], num_candidates: int
) -> Int[np.ndarray, "*trials"]:
  """Where a code stands among all codes in lexicographic order.

  Args:
    tokens: Candidate of each position, within [0, num_candidates).
    num_candidates: Size of the candidate set.

  Returns:
    The index, as used by `score_completions` and `exposure`.

  Raises:
    ValueError: If a token is not one of the candidates, or the index exceeds
      64 bits.
  """
  values = np.asarray(tokens)
  _validate.check_in_range("tokens", values, 0, num_candidates)
  if num_candidates ** values.shape[-1] > np.iinfo(np.int64).max:
    raise ValueError(
      f"tokens: got {values.shape[-1]} positions of {num_candidates}"
      " candidates; so many completions have no 64-bit index"
    )
  powers = num_candidates ** np.arange(values.shape[-1])[::-1]
  return np.asarray(values @ powers)


def score_completions(
  loss_from_tokens: Callable[..., Float[Array, ""]],
  num_positions: int,
  num_candidates: int,
  *,
  args: tuple[Any, ...] = (),
  batch_size: int = _BATCH,
  max_completions: int = MAX_COMPLETIONS,
) -> Float[Array, " completions"]:
  """Loss of every completion, in lexicographic order.

  One compiled program: batches of completions one after the other.

  Args:
    loss_from_tokens: (tokens [positions], *args) -> loss of one completion.
      The program is compiled once for each function object, so give model
      parameters as args instead of closing over them.
    num_positions: n.
    num_candidates: |V|.
    args: Passed on.
    batch_size: Completions scored at a time.
    max_completions: Largest |V|^n that is accepted.

  Returns:
    The losses.

  Raises:
    ValueError: If there are more completions than the bound, or a size is out
      of range.
  """
  for field, value in (
    ("num_positions", num_positions),
    ("num_candidates", num_candidates),
    ("batch_size", batch_size),
  ):
    _validate.check_at_least(field, value, 1)
  total = num_candidates**num_positions
  if total > max_completions:
    raise ValueError(
      f"num_candidates ** num_positions: got {num_candidates} **"
      f" {num_positions} = {total} completions; allowed are at most"
      f" {max_completions} (shorten the code, or raise max_completions)"
    )
  return _score_all(
    args,
    loss_from_tokens,
    num_positions,
    num_candidates,
    min(batch_size, total),
  )


@functools.partial(jax.jit, static_argnums=(1, 2, 3, 4))
def _score_all(args, loss_from_tokens, num_positions, num_candidates, batch):
  """Losses of all completions, their tokens decoded from a counter."""
  powers = jnp.asarray(
    num_candidates ** np.arange(num_positions)[::-1], jnp.int32
  )

  def score(index):
    return loss_from_tokens(index // powers % num_candidates, *args)

  indices = jnp.arange(num_candidates**num_positions, dtype=jnp.int32)
  return jax.lax.map(score, indices, batch_size=batch)


def exposure(
  losses: Float[AnyArray, "*trials completions"],
  true_index: int | Int[AnyArray, "*trials"],
) -> Exposure:
  """Rank and exposure of the true code among all completions.

    rank     = 1 + #{smaller losses} + #{other equal losses} / 2
    exposure = log2 #{completions} - log2 rank

  A model that knows nothing ranks the code uniformly: 1.44 bits on average.

  Fidelity:
    Paper: Carlini et al. 2019, exposure from the full ranking.
    Authors' code: tensorflow/privacy ranks the same way, and estimates where
      the full ranking is out of reach.
    Here: exact, ties by their mean rank.
    Verdict: faithful.

  Args:
    losses: Loss of each completion, from `score_completions`.
    true_index: Index of the code that was inserted, see `completion_index`.

  Returns:
    The exposure, in float64.

  Raises:
    ValueError: If a loss is nan or the index is out of range.

  Example:
    >>> float(exposure(np.arange(10_000.0), 0).exposure)
    13.287712379549449

  References:
    Carlini et al., The Secret Sharer, USENIX Security 2019, arXiv 1802.08232.
  """
  values = np.asarray(losses)
  if np.isnan(values).any():
    raise ValueError("losses: got nan; the code cannot be ranked")
  index = np.asarray(true_index)
  _validate.check_shape("true_index", index, values.shape[:-1])
  _validate.check_in_range("true_index", index, 0, values.shape[-1])
  own = np.take_along_axis(values, index[..., None], axis=-1)
  smaller = (values < own).sum(axis=-1)
  equal = (values == own).sum(axis=-1)
  rank = smaller + (equal + 1) / 2
  return Exposure(
    rank=rank,
    exposure=np.log2(values.shape[-1]) - np.log2(rank),
    best=np.argmin(values, axis=-1),
    is_best=(smaller == 0) & (equal == 1),
    num_completions=values.shape[-1],
  )


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExtractionMetrics:
  """How well codes were guessed, over trials with a fresh code each.

  Attributes:
    accuracy: Share of trials with all tokens right, exact interval.
    hamming: Mean share of wrong positions, bootstrap interval over trials.
    trials: Number of trials.
    chance_accuracy: Accuracy of guessing at random.
    chance_hamming: Hamming distance of guessing at random.
  """

  accuracy: _intervals.Estimate
  hamming: _intervals.Estimate
  trials: int
  chance_accuracy: float
  chance_hamming: float


def extraction_metrics(
  guesses: Int[AnyArray, "trials positions"],
  codes: Int[AnyArray, "trials positions"],
  *,
  num_candidates: int,
  confidence: float = 0.95,
  num_resamples: int = 10_000,
  seed: int = 0,
) -> ExtractionMetrics:
  """Accuracy and normalised Hamming distance of extracted codes.

  Fidelity:
    Paper: Parikh et al. 2022 report the share of fully recovered codes.
    Authors' code: a public replication divides wrong positions by n.
    Here: both, with intervals over trials; each trial should be another model
      with another code.
    Verdict: faithful.

  Args:
    guesses: Extracted tokens.
    codes: Inserted tokens.
    num_candidates: Size of the candidate set.
    confidence: Coverage of the intervals.
    num_resamples: Bootstrap draws of the Hamming distance.
    seed: Seed of the draws.

  Returns:
    The metrics.

  Raises:
    ValueError: If shapes differ, there is no trial, or a token is not one of
      the candidates.

  References:
    Parikh, Dupuy, Gupta, Canary Extraction in NLU Models, ACL 2022,
    arXiv 2203.13920.
  """
  found, truth = np.asarray(guesses), np.asarray(codes)
  _validate.check_shape("codes", truth, found.shape)
  if not found.size:
    raise ValueError("guesses: got no trials; at least 1 is needed")
  _validate.check_in_range("guesses", found, 0, num_candidates)
  _validate.check_in_range("codes", truth, 0, num_candidates)
  wrong = (found != truth).mean(axis=1)
  trials = wrong.size
  hits = int((wrong == 0).sum())
  low, high = _intervals.clopper_pearson(hits, trials, confidence=confidence)
  return ExtractionMetrics(
    accuracy=_intervals.Estimate(
      value=hits / trials, low=float(low), high=float(high), n=trials
    ),
    hamming=bootstrap_mean(
      wrong, confidence=confidence, num_resamples=num_resamples, seed=seed
    ),
    trials=trials,
    chance_accuracy=float(num_candidates) ** -found.shape[1],
    chance_hamming=1 - 1 / num_candidates,
  )


def bootstrap_mean(
  values: Float[AnyArray, " trials"] | Sequence[float],
  *,
  confidence: float = 0.95,
  num_resamples: int = 10_000,
  seed: int = 0,
) -> _intervals.Estimate:
  """Mean over trials with its percentile bootstrap interval.

  Args:
    values: One number for each trial, for instance its exposure.
    confidence: Nominal coverage.
    num_resamples: Draws.
    seed: Seed of the draws.

  Returns:
    The mean; a single trial has no interval.

  Raises:
    ValueError: If a value is not finite or there are none.
  """
  _validate.check_between("confidence", confidence, 0, 1)
  sample = _validate.finite("values", values)
  if not sample.size:
    raise ValueError("values: got none; at least 1 is needed")
  mean = float(sample.mean())
  if sample.size == 1:
    return _intervals.Estimate(
      value=mean, n=1, reason="one trial says nothing about the spread"
    )
  generator = np.random.default_rng(seed)
  picks = generator.integers(0, sample.size, (num_resamples, sample.size))
  tail = (1 - confidence) / 2
  low, high = np.quantile(sample[picks].mean(axis=1), [tail, 1 - tail])
  return _intervals.Estimate(
    value=mean,
    low=min(float(low), mean),
    high=max(float(high), mean),
    n=sample.size,
  )
