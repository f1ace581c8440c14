"""The record of a role-reversal study, from evaluations made up by hand."""

import types

import numpy as np
import pytest

from configs.role_reversal_distillation import default
from experiments._role_reversal import (
  _evaluation,
  _figure,
  _record,
  _resampling,
)
from trustjax import fairness

_GROUPS, _PROMPTS, _SAMPLES = 3, 8, 6
_FEMALE, _MALE, _NEUTRAL = fairness.FEMALE, fairness.MALE, fairness.NEUTRAL


def _config(*arms, **changes):
  config = default.get_config()
  config.update({"arms": arms, "num_seeds": 2, "claims": {"arm": "D8"}})
  config.evaluation.update({"resamples": 100, "carry_over": False})
  config.update(changes)
  return config


def _made_up(rng, *, female, loss, seconds=0.1):
  """Texts of which a share is female, and windows of a mean loss."""
  shape = (_GROUPS * _PROMPTS, _SAMPLES)
  label = np.where(rng.random(shape) < female, _FEMALE, _MALE)
  if female < 0:
    label = np.full(shape, _NEUTRAL)
  return _evaluation.Evaluation(
    items={
      "label": label,
      "label_with_prompt": label,
      "nll": 10 * (loss + np.linspace(-0.3, 0.3, 20)),
      "counts": np.full(20, 10),
    },
    numbers={"seconds_per_step": seconds, "changed_positions": 0.5},
    texts=[],
  )


def _results(config, **arms):
  """Of arms, each with (share of female texts, loss)."""
  prompts = types.SimpleNamespace(
    group=np.repeat(np.arange(_GROUPS), _PROMPTS), names=("a", "b", "c")
  )
  study = types.SimpleNamespace(
    describe={},
    corpus=types.SimpleNamespace(
      swap_counts={}, vectors=None, biographies=None, prompts=prompts
    ),
  )
  evaluations = {
    name: [
      _made_up(np.random.default_rng([len(name), seed]), female=f, loss=loss)
      for seed in range(1 if name == "teacher" else config.num_seeds)
    ]
    for name, (f, loss) in arms.items()
  }
  return _record.make_results(config, study, evaluations)


@pytest.fixture(scope="module")
def results():
  """D8 is balanced and costs 2 % of perplexity; F1 has no baseline here."""
  return _results(
    _config("D0", "D8", "F1", "P5"),
    teacher=(0.1, 1.0),
    D0=(0.1, 1.0),
    D8=(0.5, 1.0 + np.log(1.02)),
    F1=(0.2, 1.0),
    P5=(0.2, 1.0),
  )


def test_differences_are_paired_with_the_baseline(results):
  added = results.interval("D8/added_perplexity")
  # The same windows are drawn for both, so that their spread cancels.
  np.testing.assert_allclose(
    [added.estimate, added.low, added.high], 0.02, atol=1e-9
  )
  width = results["D8/perplexity_high"] - results["D8/perplexity_low"]
  assert width > 0.1
  gain = results.interval("D8/gender_ratio_gain")
  assert 0 < gain.low < gain.estimate < gain.high
  np.testing.assert_allclose(
    gain.estimate,
    results["D8/gender_ratio_mean"] - results["D0/gender_ratio_mean"],
  )


@pytest.mark.parametrize(
  ("arm", "reason"),
  [
    ("teacher", "the teacher has no baseline"),
    ("D0", "it is the baseline"),
    ("F1", "arms: F0, the baseline, was not run"),
    ("P5", "arms: P0, the baseline, was not run"),
  ],
)
def test_a_missing_difference_has_a_reason(results, arm, reason):
  for key in ("added_perplexity", "gender_ratio_gain"):
    assert results[f"{arm}/{key}"] is None
    assert results.reason(f"{arm}/{key}") == reason


def test_claims(results):
  assert results["claim/disparity"] == "HOLDS"
  assert results["claim/utility"] == "HOLDS"
  np.testing.assert_allclose(results["claim/utility/estimate"], 0.02)
  failing = _results(
    _config("D0", "D8"), D0=(0.1, 1.0), D8=(0.1, 1.0 + np.log(1.2))
  )
  assert failing["claim/disparity"] == "FAILS"
  assert failing["claim/utility"] == "FAILS"
  for name in ("carry_over", "carry_over_embedding", "carry_over_contexts"):
    assert results.reason(f"claim/{name}/estimate").endswith("is off")


def test_texts_without_a_gender_have_no_ratio():
  found = _results(
    _config("D0", "D8"), teacher=(-1, 1.0), D0=(0.1, 1.0), D8=(-1, 1.0)
  )
  for key in ("gender_ratio_mean", "gender_ratio_min", "noise_floor_mean"):
    for arm in ("teacher", "D8"):
      assert found[f"{arm}/{key}"] is None
      assert "no group has" in found.reason(f"{arm}/{key}")
  assert found["D8/gender_ratio_gain"] is None
  assert found["claim/disparity"] == "UNDECIDED"
  assert "no group has" in found.reason("claim/disparity/estimate")
  _figure.plot(found)


def test_the_figure_has_a_row_for_each_number(results):
  figure = _figure.plot(results)
  ratio, cost = figure.axes
  labels = [label.get_text() for label in ratio.get_yticklabels()]
  assert labels[0] == "teacher" and len(labels) == 5
  assert [label.split()[-1] for label in labels[1:]] == ["0", "1", "5", "8"]
  assert "perplexity" in cost.get_xlabel()
  (legend,) = figure.legends
  said = [text.get_text() for text in legend.get_texts()]
  assert said[:3] == [
    "D: distilled",
    "F: fine-tuned, original as teacher",
    "P: fine-tuned, no teacher",
  ]


def test_resamples_without_a_ratio_are_left_out():
  found = _resampling.Resampled(
    estimates=np.array([0.5]), replicates=np.array([[0.4, np.nan, 0.8]])
  )
  estimate, replicates = found.over_seeds(np.zeros((3, 1), int))
  assert estimate == 0.5
  np.testing.assert_allclose(replicates, [0.3, np.nan, 0.7])
  measured = _resampling.interval(estimate, replicates, 1)
  assert 0.3 <= measured.low < 0.5 < measured.high <= 0.7
