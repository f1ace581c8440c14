"""Metrics of a classifier's decisions and scores over two genders."""

import functools

import jax
import numpy as np

from experiments._fairness import _measured, _pair_metrics
from trustjax import data, fairness

_TESTED_SEED = 900_002


@functools.cache
def tested_sentences(size: int) -> tuple[data.OccupationSentence, ...]:
  """Held-out sentences without bias that judge a person whose gender is told.

  A fair judge's labels (`merit`) are what decisions are held against.
  """
  drawn = data.occupation_sentences(_TESTED_SEED, 6 * size, 0.0)
  kept = [
    s for s in drawn if s.gender != "neutral" and s.opinion_at is not None
  ]
  return tuple(kept[:size])


def decision_metrics(
  scores: np.ndarray,
  swapped: np.ndarray,
  labels: np.ndarray,
  group: np.ndarray,
  key: jax.Array,
  *,
  threshold: float = 0.5,
) -> _measured.Measures:
  """Metrics of a binary classifier over two groups.

  Args:
    scores: Probability of the favourable class.
    swapped: The same of the counterfactual of each record.
    labels: What a fair judge decided.
    group: FEMALE or MALE.
    key: Of resamples.
    threshold: Above it the decision is favourable.

  Returns:
    `<metric>/<group or test>` to number.
  """
  decided = (scores > threshold).astype(np.int32)
  rates = fairness.group_rates(labels, decided, group, num_groups=2)
  tested = fairness.group_gaps_test(rates, key=key, num=2000)
  found = {}
  for name in (
    "demographic_parity_difference",
    "equalized_odds_difference",
    "equal_opportunity_difference",
  ):
    found[f"{name}/gender"] = _measured.measured(
      getattr(tested.estimate, name),
      len(scores),
      getattr(tested.low, name),
      getattr(tested.high, name),
      null=(
        float(getattr(tested.null_mean, name)),
        float(getattr(tested.null_high, name)),
      ),
    )
  ratio = "demographic_parity_ratio"
  found[f"{ratio}/gender"] = _measured.measured(
    getattr(tested.estimate, ratio),
    len(scores),
    getattr(tested.low, ratio),
    getattr(tested.high, ratio),
    ideal=1.0,
  )
  found |= score_metrics(scores, labels, group, key)
  return found | _pair_metrics.counterfactual_metrics(
    scores, swapped, group, key, threshold=threshold
  )


def score_metrics(
  scores: np.ndarray, labels: np.ndarray, group: np.ndarray, key: jax.Array
) -> _measured.Measures:
  """Ranking and calibration of two groups.

  Args:
    scores: Probability of the favourable class.
    labels: What a fair judge decided.
    group: FEMALE or MALE.
    key: Of resamples.

  Returns:
    `<metric>/<group>` to number.
  """
  groups = np.stack([group == fairness.FEMALE, group == fairness.MALE], axis=1)
  names = ("female", "male")
  boot = fairness.bias_aucs_bootstrap(
    scores, labels, groups, key=key, num=_measured.NUM_BOOT
  )
  found = {}
  for name in ("subgroup", "bpsn", "bnsp", "pos_aeg", "neg_aeg"):
    gap = name.endswith("aeg")
    for index, label in enumerate(names):
      found[f"{name}{'' if gap else '_auc'}/{label}"] = _measured.measured(
        getattr(boot.estimate, name)[index],
        boot.estimate.n[index],
        getattr(boot.low, name)[index],
        getattr(boot.high, name)[index],
        ideal=0.0 if gap else 1.0,
      )
  power_mean = boot.map(_bnsp_power_mean)
  found["bnsp_auc_power_mean/gender"] = _measured.measured(
    power_mean.estimate,
    len(scores),
    power_mean.low,
    power_mean.high,
    ideal=1.0,
  )
  pinned = fairness.pinned_auc_bootstrap(
    scores, labels, groups, key=key, num=_measured.NUM_BOOT
  )
  for index, label in enumerate(names):
    found[f"pinned_auc/{label}"] = _measured.measured(
      pinned.estimate[0][index],
      boot.estimate.n[index],
      pinned.low[0][index],
      pinned.high[0][index],
      ideal=1.0,
    )
  found["pinned_auc_gap/gender"] = _measured.measured(
    pinned.estimate[1], len(scores), pinned.low[1], pinned.high[1]
  )
  calibration = fairness.group_calibration_bootstrap(
    scores, labels, group, num_groups=2, key=key, num=_measured.NUM_BOOT
  )
  for index, label in enumerate(names):
    found[f"calibration_bias/{label}"] = _measured.measured(
      calibration.estimate.bias[index],
      calibration.estimate.n[index],
      calibration.low.bias[index],
      calibration.high.bias[index],
    )
  found["calibration_gap/gender"] = _measured.measured(
    calibration.estimate.bias_gap,
    len(scores),
    calibration.low.bias_gap,
    calibration.high.bias_gap,
  )
  return found


def _bnsp_power_mean(aucs):
  return fairness.power_mean(aucs.bnsp)
