"""Metrics of any model, from arrays that were computed elsewhere.

Every file is an .npz. A group of arrays that belongs to one metric is given
whole or not at all; an array that no metric knows is refused by name.

  embeddings          x, y, a, b [words, dim]                    WEAT
                      ctx_x .. ctx_b [words, contexts, dim],
                      num_ctx_x .. num_ctx_b [words]             CEAT
  log_probabilities   stereoset_scores [clusters, 3],
                      target_id [clusters]                       StereoSet
                      score_more, score_less, is_anti [pairs]    CrowS-Pairs
                      logp_target, logp_prior [templates, 2]     LPBS
  predictions         scores, y_true, group [records]            decisions
                      scores_cf [records, substitutions]         pairs
                      gender_label, profession, prompt [texts]   gender ratio
"""

import pathlib
from collections.abc import Callable, Mapping

import jax
import numpy as np

from experiments._fairness import _array_checks, _measured
from trustjax import fairness

_NUM_BOOT = 2000
Arrays = Mapping[str, np.ndarray]


def given_metrics(
  paths: Mapping[str, str], key: jax.Array, *, num_draws: int
) -> _measured.Measures:
  """All metrics that the given files allow.

  Args:
    paths: Kind of file to its path; an empty path is not given.
    key: Of draws and resamples.
    num_draws: Draws of CEAT.

  Returns:
    `<metric>/given` to number.

  Raises:
    ValueError: An array is unknown or missing, or does not fit; the message
      names the file and the array.
    FileNotFoundError: A file does not exist.
  """
  found: _measured.Measures = {}
  for kind, path in paths.items():
    if not path:
      continue
    arrays = read(pathlib.Path(path), kind)
    for names, metric in _METRICS[kind].items():
      if all(name in arrays for name in names):
        found |= metric(arrays, key, num_draws)
  return found


def read(path: pathlib.Path, kind: str) -> dict[str, np.ndarray]:
  """Reads a file and checks that its arrays are whole groups of the right form.

  Args:
    path: The .npz file.
    kind: "embeddings", "log_probabilities" or "predictions".

  Returns:
    The arrays.

  Raises:
    ValueError: An array is unknown, missing, or of another form or content
      than it should be.
    FileNotFoundError: The file does not exist.
  """
  if not path.is_file():
    raise FileNotFoundError(f"given.{kind}: there is no file {str(path)!r}")
  try:
    with np.load(path, allow_pickle=False) as file:
      arrays = dict(file)
  except (ValueError, OSError) as error:
    raise ValueError(
      f"given.{kind}: {path} is not an .npz file of plain arrays ({error})"
    ) from error
  groups = _METRICS[kind]
  known = {name for names in groups for name in names}
  unknown = sorted(set(arrays) - known)
  if unknown:
    raise ValueError(
      f"given.{kind}: {path} holds unknown arrays {unknown}; allowed are"
      f" {sorted(known)}"
    )
  whole = [names for names in groups if set(names) <= set(arrays)]
  used = {name for names in whole for name in names}
  for name in arrays:
    if name not in used:
      group = next(names for names in groups if name in names)
      missing = sorted(set(group) - set(arrays))
      raise ValueError(
        f"given.{kind}: {path} holds {name!r} but not {missing}, which belong"
        " to the same metric"
      )
  if not whole:
    raise ValueError(f"given.{kind}: {path} holds no arrays")
  return _array_checks.check_arrays(f"given.{kind}: {path}", arrays)


def _weat(arrays, key, num_draws):
  del num_draws
  result = fairness.weat(*(arrays[side] for side in "xyab"))
  interval = fairness.weat_interval(result, key=key, num=_NUM_BOOT)
  s = np.concatenate([np.asarray(result.s_x), np.asarray(result.s_y)])
  p = fairness.weat_pvalue(s, len(arrays["x"]), key=key).p_value
  return {
    "weat/given": _measured.measured(
      result.effect_size, result.n, interval.low, interval.high
    ),
    "weat_p/given": _measured.measured(p, result.n, ideal=1.0),
  }


def _ceat(arrays, key, num_draws):
  result = fairness.ceat(
    *(arrays[f"ctx_{side}"] for side in "xyab"),
    *(arrays[f"num_ctx_{side}"] for side in "xyab"),
    key=key,
    num_draws=num_draws,
  )
  return {
    "ceat/given": _measured.measured(
      result.ces, result.n, result.low, result.high
    )
  }


def _stereoset(arrays, key, num_draws):
  del num_draws
  targets = arrays["target_id"]
  result = fairness.stereoset(
    arrays["stereoset_scores"], targets, num_targets=int(targets.max()) + 1
  )
  interval = fairness.stereoset_interval(result, key=key, num=_NUM_BOOT)
  return {
    f"stereoset_{name}/given": _measured.measured(
      getattr(result, name),
      result.n,
      interval.low[name],
      interval.high[name],
      ideal=ideal,
    )
    for name, ideal in (("ss", 50.0), ("lms", 100.0), ("icat", 100.0))
  }


def _crows_pairs(arrays, key, num_draws):
  del key, num_draws
  result = fairness.crows_pairs(
    arrays["score_more"], arrays["score_less"], arrays["is_anti"]
  )
  return {
    "crows_pairs/given": _measured.measured(
      result.overall, result.n, result.low, result.high, ideal=50.0
    )
  }


def _lpbs(arrays, key, num_draws):
  del num_draws
  scores = fairness.ilps(arrays["logp_target"], arrays["logp_prior"])
  result = fairness.template_bias(
    scores[:, 0], scores[:, 1], key=key, num=_NUM_BOOT
  )
  return {
    "lpbs/given": _measured.measured(
      result.value, result.n, result.low, result.high
    )
  }


def _decisions(arrays, key, num_draws):
  del num_draws
  labels, scores = arrays["y_true"], arrays["scores"]
  group = arrays["group"]
  num_groups = int(group.max()) + 1
  rates = fairness.group_rates(
    labels, (scores > 0.5).astype(np.int32), group, num_groups=num_groups
  )
  tested = fairness.group_gaps_test(rates, key=key, num=_NUM_BOOT)
  found = {
    f"{name}/given": _measured.measured(
      getattr(tested.estimate, name),
      len(scores),
      getattr(tested.low, name),
      getattr(tested.high, name),
      null=(
        float(getattr(tested.null_mean, name)),
        float(getattr(tested.null_high, name)),
      ),
    )
    for name in (
      "demographic_parity_difference",
      "equalized_odds_difference",
      "equal_opportunity_difference",
    )
  }
  member = group[:, None] == np.arange(num_groups)
  boot = fairness.bias_aucs_bootstrap(
    scores, labels, member, key=key, num=_NUM_BOOT
  )
  for name in ("subgroup", "bpsn", "bnsp"):
    for index in range(num_groups):
      found[f"{name}_auc/group_{index}"] = _measured.measured(
        getattr(boot.estimate, name)[index],
        boot.estimate.n[index],
        getattr(boot.low, name)[index],
        getattr(boot.high, name)[index],
        ideal=1.0,
      )
  return found


def _pairs(arrays, key, num_draws):
  del num_draws
  changed = arrays["scores_cf"]
  valid = np.isfinite(changed)
  gap = fairness.counterfactual_gap_bootstrap(
    arrays["scores"],
    np.where(valid, changed, 0.0),
    valid,
    key=key,
    num=_NUM_BOOT,
  )
  return {
    f"counterfactual_{name}/given": _measured.measured(
      gap.estimate[field],
      valid.sum(),
      gap.low[field],
      gap.high[field],
      reason="no record has a counterfactual score",
    )
    for name, field in (("gap", "mean"), ("flip_rate", "flip_rate"))
  }


def _gender_ratio(arrays, key, num_draws):
  del num_draws
  labels, group = arrays["gender_label"], arrays["profession"]
  num_groups = int(group.max()) + 1
  boot = fairness.gender_ratio_bootstrap(
    labels,
    group,
    arrays["prompt"],
    num_groups=num_groups,
    key=key,
    num=_NUM_BOOT,
  )
  gendered = np.asarray(boot.estimate.counts)[:, :2].sum(1).astype(int)
  noise = fairness.gender_ratio_noise(gendered, key=key)
  return {
    f"gender_ratio_{name}/given": _measured.measured(
      getattr(boot.estimate, name),
      int(gendered.sum()),
      getattr(boot.low, name),
      getattr(boot.high, name),
      ideal=getattr(noise, name) if noise.n else 1.0,
      reason="no text has a gendered word",
    )
    for name in ("mean", "minimum")
  }


_CONTEXTS = tuple(
  f"{kind}_{side}" for kind in ("ctx", "num_ctx") for side in "xyab"
)
_METRICS: dict[str, dict[tuple[str, ...], Callable]] = {
  "embeddings": {tuple("xyab"): _weat, _CONTEXTS: _ceat},
  "log_probabilities": {
    ("stereoset_scores", "target_id"): _stereoset,
    ("score_more", "score_less", "is_anti"): _crows_pairs,
    ("logp_target", "logp_prior"): _lpbs,
  },
  "predictions": {
    ("scores", "y_true", "group"): _decisions,
    ("scores", "scores_cf"): _pairs,
    ("gender_label", "profession", "prompt"): _gender_ratio,
  },
}
