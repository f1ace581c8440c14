"""Exact binomial intervals, and an estimate that may be missing."""

import dataclasses

import numpy as np
from jaxtyping import Float64, Int
from scipy import stats

from trustjax.attacks import _validate
from trustjax.attacks._validate import AnyArray

Counts = int | np.integer | Int[AnyArray, "..."]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Estimate:
  """A number with its interval, or the reason why there is none.

  Attributes:
    value: The estimate, or None if the data cannot tell.
    low: Lower end, or None.
    high: Upper end, or None.
    n: Records (or models) behind it.
    reason: Why the value or its ends are missing; empty otherwise.
  """

  value: float | None
  low: float | None = None
  high: float | None = None
  n: int
  reason: str = ""

  def __post_init__(self):
    missing = self.value is None or self.low is None or self.high is None
    if missing and not self.reason:
      raise ValueError("reason: got ''; a missing value or end needs a reason")

  def flat(self, name: str) -> dict[str, float | int | str | None]:
    """As entries of a flat record: name, name_low, name_high and name_n.

    Args:
      name: Key of the estimate itself.

    Returns:
      The entries; a missing value has `<name>_reason` beside it.
    """
    entries: dict[str, float | int | str | None] = {
      name: self.value,
      f"{name}_n": self.n,
    }
    if self.low is not None and self.high is not None:
      entries |= {f"{name}_low": self.low, f"{name}_high": self.high}
    if self.reason:
      entries[f"{name}_reason"] = self.reason
    return entries


def clopper_pearson(
  successes: Counts, trials: Counts, *, confidence: float = 0.95
) -> tuple[Float64[np.ndarray, "..."], Float64[np.ndarray, "..."]]:
  """Exact two-sided intervals of binomial proportions.

  The ends are those p at which seeing as many (as few) successes or more
  (fewer) has probability (1 - confidence) / 2: coverage is at least
  `confidence` whatever p is.

  Args:
    successes: Hits, one number or an array.
    trials: Independent trials, at least 1.
    confidence: Guaranteed coverage.

  Returns:
    Lower and upper ends.

  Raises:
    ValueError: If counts are impossible or the confidence is out of range.

  Example:
    >>> clopper_pearson(5, 10)
    (array(0.18708603), array(0.81291397))

  References:
    Clopper and Pearson, Biometrika 26 (1934).
  """
  _validate.check_between("confidence", confidence, 0, 1)
  tail = (1 - confidence) / 2
  low = binomial_lower(successes, trials, error=tail)
  return low, binomial_upper(successes, trials, error=tail)


def binomial_lower(
  successes: Counts, trials: Counts, *, error: float
) -> Float64[np.ndarray, "..."]:
  """One-sided exact lower bounds of proportions.

  Args:
    successes: Hits.
    trials: Independent trials, at least 1.
    error: Largest probability that the bound exceeds the proportion.

  Returns:
    The bounds.

  Raises:
    ValueError: If counts are impossible.
  """
  hits, misses = _counts(successes, trials, error)
  # beta.ppf is nan with a parameter of 0, where the bound is 0.
  bound = stats.beta.ppf(error, np.maximum(hits, 1), misses + 1)
  return np.where(hits > 0, bound, 0.0)


def binomial_upper(
  successes: Counts, trials: Counts, *, error: float
) -> Float64[np.ndarray, "..."]:
  """One-sided exact upper bounds of proportions.

  Args:
    successes: Hits.
    trials: Independent trials, at least 1.
    error: Largest probability that the bound falls short of the proportion.

  Returns:
    The bounds.

  Raises:
    ValueError: If counts are impossible.
  """
  hits, misses = _counts(successes, trials, error)
  bound = stats.beta.isf(error, hits + 1, np.maximum(misses, 1))
  return np.where(misses > 0, bound, 1.0)


def _counts(successes, trials, error):
  _validate.check_between("error", error, 0, 1)
  hits, n = np.asarray(successes), np.asarray(trials)
  if (n < 1).any() or (hits < 0).any() or (hits > n).any():
    raise ValueError(
      f"successes of trials: got {successes} of {trials}; allowed is"
      " 0 <= successes <= trials with at least one trial"
    )
  return hits, n - hits
