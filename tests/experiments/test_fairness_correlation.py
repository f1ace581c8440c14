"""The correlation study: its axes, its grids, its record, on made-up models."""

import json
import zlib

import numpy as np
import pytest

from configs.fairness_correlation import default, planted_levels
from experiments import fairness_correlation
from experiments._fairness import (
  _correlation_axes,
  _model_family,
  _planted_levels,
  _planted_models,
)
from trustjax import reporting


@pytest.fixture
def made_up(monkeypatch):
  """Models whose metrics are their planted levels, plus a little noise."""

  def measure(config, member, folder):
    del config
    rng = np.random.default_rng(zlib.crc32(folder.name.encode()))
    found = {}
    for axis in (*_correlation_axes.INTRINSIC, *_correlation_axes.EXTRINSIC):
      causal_only = "causal" in axis.key or axis.what == "generation"
      masked_only = axis.key.startswith(
        ("intrinsic/lpbs", "intrinsic/stereoset", "intrinsic/crows")
      )
      if member.shape.objective == "masked" and causal_only:
        continue
      if member.shape.objective == "causal" and masked_only:
        continue
      level = (
        member.bias if axis.notion == "occupations" else member.opinion_bias
      )
      level = 0.4 * level + 0.002 * rng.random()
      found[axis.key] = {
        "signed": level,
        "per_cent": 50 + 100 * level,
        "gap": level,
        "auc": 1 - level,
        "ratio": 1 - level,
      }[axis.kind]
    return found

  monkeypatch.setattr(_model_family, "measure", measure)


def small_config():
  config = default.get_config()
  config.num_perm = 99
  config.num_boot = 50
  return config


def test_the_default_family_has_sixteen_models():
  family = _model_family.members(default.get_config())
  assert len(family) == 16 >= 12
  assert len({member.name for member in family}) == 16
  assert {m.shape.objective for m in family} == {"masked", "causal"}
  levels = np.array([(m.bias, m.opinion_bias) for m in family])
  # The notions are not aligned, or other-notion cells would say nothing.
  assert abs(np.corrcoef(levels.T)[0, 1]) < 0.4
  planted = _model_family.members(planted_levels.get_config())
  assert len(planted) == 5 * 5 * 2
  assert {m.bias for m in planted} == {0.0, 0.25, 0.5, 0.75, 1.0}


def test_the_record_of_a_study(made_up, tmp_path):
  fairness_correlation.run(small_config(), tmp_path)
  results = reporting.read_results(tmp_path / "results.json")
  same = "lpbs_opinions__frozen_counterfactual_gap_gender"
  assert results[f"{same}/pearson"] > 0.95
  assert results[f"{same}/spearman"] > 0.8
  assert results[f"{same}/n"] == 8
  assert 0 < results[f"{same}/p_holm"] <= 1
  across = "weat_occupations__tuned_counterfactual_gap_gender"
  assert abs(results[f"{across}/pearson"]) < 0.5
  # No model has both a masked likelihood and generated text.
  none = "lpbs_occupations__gender_ratio_mean_occupations"
  assert results[f"{none}/pearson"] is None
  assert results[f"{none}/n"] == 0
  for name in ("all", "same_notion", "other_notion", "frozen", "tuned"):
    assert results[f"ablation/{name}/cells"] > 0
  assert (
    results["ablation/same_notion/median_size"]
    > results["ablation/other_notion/median_size"]
  )
  for axis in (*_correlation_axes.INTRINSIC, *_correlation_axes.EXTRINSIC):
    found = [
      results[f"planted/{axis.name}/{objective}/spearman"]
      for objective in ("masked", "causal")
    ]
    known = [one for one in found if one is not None]
    assert known, axis
    assert min(known) > 0.9, axis
  assert results["planted/below"] == "none"
  # One seed at level zero says nothing.
  assert results["zero/misses"] is None
  assert "seeds at level zero" in results.reason("zero/misses")
  assert (
    "frozen_bnsp_auc_female"
    in (tmp_path / "planted_levels/table.md").read_text()
  )
  for figure in ("heat_map", "planted_levels"):
    assert (tmp_path / f"figures/{figure}.png").stat().st_size > 10_000
  assert "same_notion" in (tmp_path / "table.md").read_text()


def test_level_zero_is_judged_over_seeds():
  """Centred noise covers, a shift misses; gaps are held against their null."""
  config = planted_levels.get_config()
  family = _model_family.members(config)
  noise = dict(enumerate((-0.2, -0.1, 0.0, 0.1, 0.2)))
  measures = [
    {
      "intrinsic/weat/occupations": member.bias + noise[member.seed],
      "intrinsic/seat/occupations": member.bias + 1 + noise[member.seed],
      "intrinsic/lpbs/opinions": member.opinion_bias * (1 - member.bias),
      # Two of ten leave the null: by chance in 9 of 100 cases.
      "extrinsic/sentiment_gap/negative": 0.2 if member.seed == 3 else 0.0,
      "extrinsic/sentiment_gap/negative/null_95": 0.1,
      "extrinsic/regard_gap/negative": 0.2 if member.seed < 2 else 0.0,
      "extrinsic/regard_gap/negative/null_95": 0.1,
      "extrinsic/gender_ratio_mean/occupations": 0.8,
      "extrinsic/gender_ratio_mean/occupations/null_95": 0.7,
    }
    for member in family
  ]
  axes, _ = _correlation_axes.oriented(measures, _correlation_axes.INTRINSIC)
  results = reporting.Results()
  _planted_levels.record(results, config, family, axes, measures)
  covers = {
    key.split("/")[1]: results[key] for key in results if "/covers" in key
  }
  assert covers == {
    "weat_occupations": "yes",
    "seat_occupations": "no",
    "lpbs_opinions": "yes",
    "sentiment_gap_negative": "yes",
    "regard_gap_negative": "no",
    "gender_ratio_mean_occupations": "yes",
  }
  assert (results["zero/misses"], results["zero/misses_allowed"]) == (2, 1)
  assert results["zero/weat_occupations/mean"] == pytest.approx(0)
  assert results["zero/regard_gap_negative/outside"] == 4
  # A metric that falls again is below the bar, for both objectives.
  assert results["planted/below"] == (
    "lpbs_opinions (masked), lpbs_opinions (causal)"
  )
  key = "planted/weat_occupations/causal/spearman"
  assert results[f"{key}_low"] <= results[key] <= results[f"{key}_high"]
  assert "2 of 6 metrics miss" in (
    _planted_levels.make_table(results, axes, family).to_markdown()
  )


def test_grids_hold_what_they_say():
  grids = _correlation_axes.ablations(
    _correlation_axes.INTRINSIC, _correlation_axes.EXTRINSIC
  )
  assert (grids["same_notion"] ^ grids["other_notion"]).all()
  kinds = grids["frozen"].astype(int) + grids["tuned"] + grids["generation"]
  assert (kinds == 1).all()
  inner = grids["tuned_same_notion"]
  assert (inner == (grids["tuned"] & grids["same_notion"])).all()


def test_saturating_metrics_have_a_reason():
  axes = (*_correlation_axes.INTRINSIC, *_correlation_axes.EXTRINSIC)
  assert len({axis.name for axis in axes}) == len(axes)
  for axis in axes:
    assert not axis.saturates or len(axis.saturates) > 20
    assert axis.notion in ("occupations", "judgement")


def test_bad_configs():
  config = small_config()
  config.objectives = ("masked", "prefix")
  with pytest.raises(ValueError, match=r"sizes\.prefix: got no size"):
    _model_family.members(config)
  config.objectives = ()
  with pytest.raises(ValueError, match="each must name at least one"):
    _model_family.members(config)
  config.objectives = ("masked",)
  config.sizes.masked = ()
  with pytest.raises(ValueError, match=r"sizes\.masked: got no size"):
    _model_family.members(config)


def test_a_measured_model_is_read_and_another_refused(tmp_path, monkeypatch):
  config = small_config()
  member = _model_family.members(config)[0]
  calls = []

  def fake(config, member):
    del config, member
    calls.append(0)
    return {}

  monkeypatch.setattr(_model_family, "_measure", fake)
  for _ in range(2):
    assert _model_family.measure(config, member, tmp_path) == {}
  assert len(calls) == 1
  saved = json.loads((tmp_path / "measures.json").read_text())
  assert saved["identity"]["member"]["bias"] == member.bias
  config.corpus_size = 7
  with pytest.raises(Exception, match="corpus_size"):
    _model_family.measure(config, member, tmp_path)


@pytest.mark.slow  # Trains two tiny models and measures everything.
def test_a_real_family(tmp_path):
  config = small_config()
  config.update(
    {
      "sizes": {"masked": ((1, 32),), "causal": ((1, 32),)},
      "levels": ((0.0, 0.0), (1.0, 1.0)),
      "corpus_size": 300,
      "masked_steps": 2,
      "causal_steps": 2,
      "num_draws": 20,
      "num_samples": 1,
      "downstream": {"size": 200, "steps": 2, "num_tested": 150},
    }
  )
  fairness_correlation.run(config, tmp_path)
  results = reporting.read_results(tmp_path / "results.json")
  assert results["num_models"] == 4
  assert results["seat_occupations__frozen_bnsp_auc_female/n"] == 4


def test_shapes_are_checked():
  with pytest.raises(ValueError, match="objective: got 'x'"):
    _planted_models.Shape(objective="x")
