"""The study of prediction sensitivity: its labels, its agreement, its files."""

import jax
import numpy as np
import pytest

from configs.prediction_sensitivity import default, hatexplain
from experiments import prediction_sensitivity
from experiments._fairness import _community_aucs, _measured, _sensitivity_data
from trustjax import reporting


def small_config(name="occupations"):
  config = (default if name == "occupations" else hatexplain).get_config()
  config.update({"data": {"size": 200, "num_tested": 120}, "num_boot": 50})
  config.steps = 2
  return config


HATE = (
  "split,label,text,label_gender,label_religion,label_race,label_economic,"
  "label_minority\n"
  + "train,0,he likes a kind word,0,0,0,0,0\n" * 20
  + "train,2,she said a hateful word,1,0,1,0,0\n" * 20
  + "test,0,he likes her kind word,1,0,0,0,0\n" * 8
  + "test,0,a kind word,0,0,1,0,0\n" * 8
  + "test,1,a hateful word,1,0,1,0,0\n" * 8
)


def test_planted_labels_are_where_gender_decides():
  """Strength below what the judge adds for gender, and a gender told."""
  config = small_config()
  task = _sensitivity_data.load(config)
  assert 0.7 < task.community.mean() < 0.9
  labels, rows = _sensitivity_data.fairness_labels(
    task, np.zeros(len(task.tested_target), int)
  )["planted"]
  assert rows.all()
  unfair = labels == 1
  # 1.5 x 0.8 = 1.2: strengths of -1, 0 and 1.
  assert set(np.abs(task.strength[unfair])) == {0, 1}
  assert (np.abs(task.strength[task.community & ~unfair]) == 2).all()
  assert not unfair[~task.community].any()
  changed = (task.tested["tokens"] != task.swapped["tokens"]).any(1)
  np.testing.assert_array_equal(changed, task.valid)


def test_labels_of_posts_are_errors_about_a_community(tmp_path):
  (tmp_path / "hatexplain_groups.csv").write_text(HATE)
  config = small_config("hatexplain")
  config.data.manual_dir = str(tmp_path)
  task = _sensitivity_data.load(config)
  assert (len(task.target), len(task.tested_target)) == (40, 24)
  predicted = np.ones(24, int)
  found = _sensitivity_data.fairness_labels(task, predicted)
  labels, rows = found["group_errors"]
  assert rows.sum() == 24
  np.testing.assert_array_equal(labels, [1] * 16 + [0] * 8)
  assert found["group_false_positives"][1].sum() == 16
  # "he likes her" has a counterfactual, "a kind word" none.
  np.testing.assert_array_equal(task.valid, [True] * 8 + [False] * 16)
  assert task.num_status == 3


def test_madlibs_are_tested_and_comments_trained_on(tmp_path):
  (tmp_path / "bias_madlibs_77k.csv").write_text(
    "Text,Label,Template\n"
    + "I love gay and jewish cats,NOT_BAD,t1\nI hate cats,BAD,t2\n" * 10
  )
  (tmp_path / "toxicity_nonfuzzed_testset.csv").write_text(
    "rev_id,comment,toxic\n" + "1,a kind word,False\n2,so black,True\n" * 5
  )
  config = small_config()
  config.update(
    {"data": {"name": "madlibs", "manual_dir": str(tmp_path), "num_tested": 10}}
  )
  task = _sensitivity_data.load(config)
  np.testing.assert_array_equal(task.target, [0, 1] * 5)
  # Every second of twenty templates.
  assert len(task.tested_target) == 10 and not task.tested_target.any()
  about = [task.group_names[i] for i in np.flatnonzero(task.groups[0])]
  assert about == ["gay", "jewish"]
  assert set(task.status) == {
    0,
    _sensitivity_data.MADLIBS_TERMS.index("black") + 1,
  }


def test_aucs_by_community():
  """Harmless texts about one community score high: its BPSN tells."""
  rng = np.random.default_rng(0)
  labels = np.arange(600) % 2
  groups = np.zeros((600, 3), bool)
  groups[:200, 0] = groups[200:400, 1] = groups[400:405, 2] = True
  scores = 0.3 + 0.4 * labels + 0.1 * rng.random(600)
  scores[:200] += 0.35 * (labels[:200] == 0)
  names = ("hit", "spared", "tiny")
  found = _community_aucs.community_aucs(
    scores, labels, groups, names, jax.random.key(0), num=50
  )
  assert found["bpsn_auc/hit"].high < 0.9 < found["bpsn_auc/spared"].low
  assert np.isnan(found["bpsn_auc/tiny"].value)
  mean = found["bpsn_auc/power_mean"]
  assert mean.low < mean.value < mean.high < found["bpsn_auc/spared"].value
  assert mean.n == 400
  results = reporting.Results()
  _measured.record(results, found)
  text = _community_aucs.table(results, names, "t").to_markdown()
  assert "fewer than 10 texts of either class" in text


@pytest.mark.slow
def test_agreement_finds_the_metric_that_knows_the_label():
  """A metric made from the label beats noise, and both are on one scale."""
  config = small_config()
  task = _sensitivity_data.load(config)
  n = len(task.tested_target)
  rng = np.random.default_rng(0)
  labels, _ = _sensitivity_data.fairness_labels(task, np.zeros(n, int))[
    "planted"
  ]
  metrics = {
    "sensitivity_prob": labels + 0.1 * rng.random(n),
    "counterfactual_gap": rng.random(n),
  }
  metrics["counterfactual_gap"][~task.valid] = np.nan
  results = prediction_sensitivity.make_results(
    config, task, metrics, np.zeros(n, int)
  )
  assert results["sensitivity_prob/planted/auc"] == 1.0
  assert results["sensitivity_prob/planted/point_biserial"] > 0.95
  assert results["difference/planted/point_biserial_low"] > 0.3
  assert results["difference/planted/steiger_p"] < 1e-6
  assert results["planted/n"] == n
  assert results["planted/counterfactual_coverage"] == task.valid.mean()


def test_a_constant_metric_is_null_with_a_reason():
  config = small_config()
  task = _sensitivity_data.load(config)
  n = len(task.tested_target)
  metrics = {
    "sensitivity_prob": np.ones(n),
    "counterfactual_gap": np.arange(n) / n,
  }
  results = prediction_sensitivity.make_results(
    config, task, metrics, np.zeros(n, int)
  )
  assert results["sensitivity_prob/planted/auc"] is None
  assert results["difference/planted/point_biserial"] is None


def test_bad_configs():
  config = small_config()
  config.data.name = "jigsaw"
  with pytest.raises(ValueError, match=r"data.name: got 'jigsaw'; allowed"):
    _sensitivity_data.load(config)
  with pytest.raises(ValueError, match=r"data\.manual_dir: got ''"):
    _sensitivity_data.load(small_config("hatexplain"))


@pytest.mark.slow  # Trains both models.
def test_planted_dependence_is_found(tmp_path):
  config = default.get_config()
  prediction_sensitivity.run(config, tmp_path)
  results = reporting.read_results(tmp_path / "results.json")
  # The planted label is a counterfactual, so the counterfactual gap is the
  # better metric here; sensitivity agrees with it, far more weakly.
  assert results["counterfactual_gap/planted/auc_low"] > 0.8
  assert results["sensitivity_prob/planted/auc_low"] > 0.5
  assert results["difference/planted/point_biserial_high"] < 0


@pytest.mark.slow  # Compiles both models.
@pytest.mark.parametrize("name", ["occupations", "hatexplain"])
def test_the_whole_binary(name, tmp_path):
  config = small_config(name)
  if name == "hatexplain":
    (tmp_path / "hatexplain_groups.csv").write_text(HATE)
    config.data.manual_dir = str(tmp_path)
  prediction_sensitivity.run(config, tmp_path / "out")
  results = reporting.read_results(tmp_path / "out/results.json")
  assert 0 <= results["accuracy"] <= 1
  assert (tmp_path / "out/figures/metrics.png").exists()
