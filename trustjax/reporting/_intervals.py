"""Intervals: what a number measured a few times is known to be.

Host-side float64. Every function is pure: bootstrap resamples come from the
seed that is passed in.
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64, Real
from scipy import stats

Numbers = Sequence[float] | Real[np.ndarray, "..."]

# Resampled values held at a time: bounds memory, not the result.
_CHUNK = 2_000_000


@dataclasses.dataclass(frozen=True)
class Interval:
  """An estimate and the interval it is known to lie in.

  Attributes:
    estimate: The point estimate.
    low: Lower end, or None where one value says nothing about the spread.
    high: Upper end, or None together with `low`.
    n: Number of values (seeds, rounds, records) behind the estimate.
  """

  estimate: float
  low: float | None = None
  high: float | None = None
  n: int = 1

  def __post_init__(self):
    # Plain Python numbers, so that json writes them and repr reads well.
    object.__setattr__(self, "estimate", float(self.estimate))
    for end in ("low", "high"):
      if getattr(self, end) is not None:
        object.__setattr__(self, end, float(getattr(self, end)))
    if not math.isfinite(self.estimate):
      raise ValueError(
        f"estimate: got {self.estimate}; it must be a finite number"
      )
    if (self.low is None) != (self.high is None):
      raise ValueError(
        f"low and high: got {self.low} and {self.high}; give both or neither"
      )
    if self.low is not None and self.high is not None:
      # Written so that a NaN fails it, too.
      if not self.low <= self.estimate <= self.high:
        raise ValueError(
          f"low, estimate, high: got {self.low}, {self.estimate},"
          f" {self.high}; they must be in this order"
        )
      if not (math.isfinite(self.low) and math.isfinite(self.high)):
        raise ValueError(
          f"low and high: got {self.low} and {self.high}; they must be finite"
        )
    if self.n < 1 or self.n != int(self.n):
      raise ValueError(
        f"n: got {self.n}; it must be a whole number, at least 1"
      )

  @classmethod
  def exact(cls, value: float) -> "Interval":
    """A number that was computed rather than measured: no width."""
    return cls(value, value, value)

  @property
  def has_ends(self) -> bool:
    """Whether the spread is known."""
    return self.low is not None


def _checked(values: Numbers, name: str) -> Float64[np.ndarray, " values"]:
  array = np.asarray(values, dtype=np.float64)
  if array.ndim != 1 or array.size == 0:
    raise ValueError(
      f"{name}: got shape {array.shape}; allowed is a list of one or more"
      " numbers"
    )
  bad = np.flatnonzero(~np.isfinite(array))
  if bad.size:
    raise ValueError(
      f"{name}[{bad[0]}]: got {array[bad[0]]}; allowed are finite numbers"
    )
  return array


def _check_confidence(confidence: float) -> None:
  if not 0 < confidence < 1:
    raise ValueError(
      f"confidence: got {confidence}; it must lie strictly between 0 and 1"
    )


def mean_interval(values: Numbers, *, confidence: float = 0.95) -> Interval:
  """Student's t interval of a mean, for example over seeds.

  mean +- t_{(1 + confidence) / 2, n - 1} s / sqrt(n), s with divisor n - 1.

  Args:
    values: One number a seed.
    confidence: Probability that the interval covers the mean, if the values
      are independent and normal.

  Returns:
    The interval; a single value has no ends.

  Raises:
    ValueError: If there are no values, or one is not finite.

  Example:
    >>> mean_interval([0.96, 0.97, 0.98])
    Interval(estimate=0.97, low=0.945..., high=0.994..., n=3)
  """
  _check_confidence(confidence)
  array = _checked(values, "values")
  mean, n = float(array.mean()), array.size
  if n == 1:
    return Interval(mean)
  half = stats.t.ppf((1 + confidence) / 2, n - 1) * array.std(ddof=1) / n**0.5
  return Interval(mean, mean - half, mean + half, n)


def _percentile_interval(
  estimate: float,
  resampled: Float64[np.ndarray, " resamples"],
  n: int,
  confidence: float,
) -> Interval:
  """Quantiles of the resampled statistic, widened to hold the estimate."""
  tail = (1 - confidence) / 2
  low, high = np.quantile(resampled, [tail, 1 - tail])
  # The percentile bootstrap may, for a few skewed values, miss its own
  # estimate; an interval that does would read like a mistake.
  return Interval(estimate, min(low, estimate), max(high, estimate), n)


def _resampled_medians(
  columns: Sequence[np.ndarray], generator: np.random.Generator, count: int
) -> list[np.ndarray]:
  """Medians over `count` bootstrap draws, the same draw for every column."""
  n = columns[0].size
  rows = max(1, _CHUNK // n)
  medians: list[list[np.ndarray]] = [[] for _ in columns]
  for start in range(0, count, rows):
    picks = generator.integers(0, n, size=(min(rows, count - start), n))
    for kept, column in zip(medians, columns, strict=True):
      kept.append(np.median(column[picks], axis=1))
  return [np.concatenate(kept) for kept in medians]


def bootstrap_median(
  values: Numbers,
  *,
  seed: int = 0,
  confidence: float = 0.95,
  num_resamples: int = 10_000,
) -> Interval:
  """Percentile bootstrap of the median.

  For the median of per-round ratios of two interleaved timings, pass the
  ratios.

  Args:
    values: Independent measurements.
    seed: Seed of the resampling.
    confidence: Nominal coverage.
    num_resamples: Bootstrap draws.

  Returns:
    The median with its interval; a single value has no ends.

  Raises:
    ValueError: If there are no values, or one is not finite.

  References:
    Efron and Tibshirani, An Introduction to the Bootstrap, chapter 13.
  """
  _check_confidence(confidence)
  array = _checked(values, "values")
  median = float(np.median(array))
  if array.size == 1:
    return Interval(median)
  generator = np.random.default_rng(seed)
  (medians,) = _resampled_medians([array], generator, num_resamples)
  return _percentile_interval(median, medians, array.size, confidence)


def bootstrap_ratio_of_medians(
  numerator: Numbers,
  denominator: Numbers,
  *,
  paired: bool = True,
  seed: int = 0,
  confidence: float = 0.95,
  num_resamples: int = 10_000,
) -> Interval:
  """Percentile bootstrap of median(numerator) / median(denominator).

  Timings taken in alternation share the machine's mood: resampling whole
  rounds keeps the pairs together, so that a slow minute widens both sides and
  not the ratio.

  Args:
    numerator: Seconds (or any positive measure) of each round.
    denominator: The same for the reference.
    paired: Whether round i of both was measured together. False resamples the
      two sides apart, and lets their lengths differ.
    seed: Seed of the resampling.
    confidence: Nominal coverage.
    num_resamples: Bootstrap draws.

  Returns:
    The ratio with its interval; `n` is the number of rounds (of the shorter
    side if not paired).

  Raises:
    ValueError: If a denominator is not positive, a value is not finite, or
      paired lengths differ.
  """
  _check_confidence(confidence)
  top = _checked(numerator, "numerator")
  bottom = _checked(denominator, "denominator")
  if (bottom <= 0).any():
    where = int(np.flatnonzero(bottom <= 0)[0])
    raise ValueError(
      f"denominator[{where}]: got {bottom[where]}; it must be positive"
    )
  if paired and top.size != bottom.size:
    raise ValueError(
      f"numerator and denominator: got {top.size} and {bottom.size} rounds;"
      " paired timings need as many of both (or paired=False)"
    )
  ratio = float(np.median(top) / np.median(bottom))
  n = min(top.size, bottom.size)
  if n == 1:
    return Interval(ratio)
  generator = np.random.default_rng(seed)
  if paired:
    tops, bottoms = _resampled_medians([top, bottom], generator, num_resamples)
  else:
    (tops,) = _resampled_medians([top], generator, num_resamples)
    (bottoms,) = _resampled_medians([bottom], generator, num_resamples)
  return _percentile_interval(ratio, tops / bottoms, n, confidence)


def _check_counts(successes: int, trials: int) -> None:
  if trials < 1 or not 0 <= successes <= trials:
    raise ValueError(
      f"successes of trials: got {successes} of {trials}; allowed is"
      " 0 <= successes <= trials with at least one trial"
    )


def clopper_pearson(
  successes: int, trials: int, *, confidence: float = 0.95
) -> Interval:
  """Exact binomial interval: covers at least `confidence`, always.

  Use it where a promise is made (audits, claims); it is wider than Wilson's.

  Args:
    successes: Number of hits.
    trials: Number of independent trials.
    confidence: Guaranteed coverage.

  Returns:
    The proportion with its interval.

  Raises:
    ValueError: If the counts are impossible.

  References:
    Clopper and Pearson, Biometrika 26 (1934).
  """
  _check_confidence(confidence)
  _check_counts(successes, trials)
  tail = (1 - confidence) / 2
  misses = trials - successes
  low = stats.beta.ppf(tail, successes, misses + 1) if successes else 0.0
  high = stats.beta.isf(tail, successes + 1, misses) if misses else 1.0
  return Interval(successes / trials, float(low), float(high), trials)


def wilson(
  successes: int, trials: int, *, confidence: float = 0.95
) -> Interval:
  """Wilson's score interval of a proportion: coverage close to nominal.

  The proportions p that a normal test of size 1 - confidence does not reject:
  |p_hat - p| <= z sqrt(p (1 - p) / n).

  Args:
    successes: Number of hits.
    trials: Number of independent trials.
    confidence: Nominal coverage.

  Returns:
    The proportion with its interval.

  Raises:
    ValueError: If the counts are impossible.

  References:
    Wilson, Journal of the American Statistical Association 22 (1927).
  """
  _check_confidence(confidence)
  _check_counts(successes, trials)
  share = successes / trials
  z = float(stats.norm.ppf((1 + confidence) / 2))
  shrink = 1 + z * z / trials
  centre = (share + z * z / (2 * trials)) / shrink
  half = (
    z
    / shrink
    * math.sqrt(share * (1 - share) / trials + (z / (2 * trials)) ** 2)
  )
  # At 0 and 1 the ends meet the estimate up to rounding.
  low = 0.0 if successes == 0 else min(share, centre - half)
  high = 1.0 if successes == trials else max(share, centre + half)
  return Interval(share, low, high, trials)
