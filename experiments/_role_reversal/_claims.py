"""The claims of a role-reversal study: paired with the arm's baseline."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping

import numpy as np

from experiments._binary import _config_flags
from experiments._role_reversal import _resampling
from trustjax import distillation, reporting

_SOURCE = "Gupta et al. 2022, abstract; the threshold is a choice made here"
# Claim -> which statistic of the carry-over it is about.
CARRY_OVER = {
  "carry_over": "probe_gap",
  "carry_over_embedding": "seat",
  "carry_over_contexts": "ceat",
  "carry_over_biographies": "bios_gap",
}
_UNDEFINED = "a ratio is undefined: no group has a gendered text"


@dataclasses.dataclass(frozen=True, kw_only=True)
class ArmStatistics:
  """The resampled statistics of one arm.

  Attributes:
    perplexity: Of held-out text.
    disparity: Labels by counted words.
    by_vectors: Labels by word vectors, where there are any.
    carry_over: seat, ceat, probe_gap, bios_gap: those that were measured.
  """

  perplexity: _resampling.Resampled
  disparity: _resampling.Disparity
  by_vectors: _resampling.Disparity | None
  carry_over: dict[str, _resampling.Resampled]


# An estimate and its replicates.
_Pair = tuple[float, np.ndarray]
_Found = tuple[reporting.Interval | None, str]


def against_baseline(
  arm: ArmStatistics, baseline: ArmStatistics, drawn: np.ndarray
) -> dict[str, reporting.Interval]:
  """Paired differences of an arm from its baseline.

  Args:
    arm: The arm.
    baseline: With the same resampled items.
    drawn: Seeds of each resample.

  Returns:
    added_perplexity, as a share of the baseline's, and gender_ratio_gain, the
    difference of the mean ratios; what is undefined is left out.
  """
  found = {}
  ppl, plain = (one.perplexity.over_seeds(drawn) for one in (arm, baseline))
  ratio, other = (
    one.disparity.mean.over_seeds(drawn) for one in (arm, baseline)
  )
  for key, (estimate, replicates) in (
    ("added_perplexity", (ppl[0] / plain[0] - 1, ppl[1] / plain[1] - 1)),
    ("gender_ratio_gain", (ratio[0] - other[0], ratio[1] - other[1])),
  ):
    if np.isfinite(estimate):
      found[key] = _resampling.interval(estimate, replicates, drawn.shape[1])
  return found


def claims(
  config: _config_flags.Config,
  statistics: Mapping[str, ArmStatistics],
  drawn: np.ndarray,
) -> Iterator[reporting.Claim]:
  """Substantial reduction, minor loss, no automatic carry-over.

  Args:
    config: The study's config.
    statistics: Of each arm.
    drawn: Seeds of each resample.

  Yields:
    The claims; one whose arms were not run is undecided.
  """
  arm, limits = config.claims.arm, config.claims
  baseline = distillation.role_reversal_arm(arm).baseline
  missing = [name for name in (arm, baseline) if name not in statistics]

  def claim(
    name: str,
    threshold: float,
    of: Callable[[ArmStatistics, ArmStatistics], _Found],
  ) -> reporting.Claim:
    """The statistic of (arm, baseline) is at most the threshold."""
    estimate, reason = None, f"arms: {', '.join(missing)} was not run"
    if not missing:
      estimate, reason = of(statistics[arm], statistics[baseline])
    return reporting.Claim(
      name=name,
      estimate=estimate,
      relation="at_most",
      threshold=threshold,
      source=_SOURCE,
      reason=reason,
    )

  def distance(of: ArmStatistics) -> _Pair:
    estimate, replicates = of.disparity.mean.over_seeds(drawn)
    floor = of.disparity.floor_mean
    return floor - estimate, floor - replicates

  def removed(part: str):
    """Share of the baseline's absolute value that the arm has removed."""

    def of(arm: ArmStatistics, baseline: ArmStatistics) -> _Found:
      if part not in arm.carry_over:
        return None, "evaluation.carry_over is off"
      one, other = (
        which.carry_over[part].over_seeds(drawn) for which in (arm, baseline)
      )
      # 1 - a / b is (b - a) / b: the same ratio with another numerator.
      above = other[0] - abs(one[0]), other[1] - np.abs(one[1])
      return _ratio(above, other, drawn)

    return of

  yield claim(
    "disparity",
    limits.remaining_distance,
    lambda a, b: _ratio(distance(a), distance(b), drawn),
  )
  yield claim(
    "utility",
    limits.perplexity_cost,
    lambda a, b: (against_baseline(a, b, drawn)["added_perplexity"], ""),
  )
  for name, part in CARRY_OVER.items():
    if part != "bios_gap" or config.evaluation.bios.path:
      yield claim(name, limits.carry_over_margin, removed(part))


def _ratio(above: _Pair, below: _Pair, drawn: np.ndarray) -> _Found:
  """A ratio of two paired statistics."""
  if not np.isfinite([above[0], below[0]]).all():
    return None, _UNDEFINED
  if below[0] <= 0 or np.any(below[1] <= 0):
    return None, "the baseline's own value may be zero: nothing to reduce"
  return (
    _resampling.interval(
      above[0] / below[0], above[1] / below[1], drawn.shape[1]
    ),
    "",
  )
