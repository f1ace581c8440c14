"""The role-reversal binary: its record, its resume, its arms."""

import json
import types

import numpy as np
import pytest

from configs.role_reversal_distillation import all_arms
from experiments import role_reversal_distillation
from experiments._role_reversal import (
  _checks,
  _evaluation,
  _resampling,
  _training,
)
from tests.experiments.tiny_role_reversal import ARMS, tiny_config
from trustjax import distillation, models, reporting, training


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
  """A tiny study, run once: its folder and its record."""
  folder = tmp_path_factory.mktemp("study")
  role_reversal_distillation.run(tiny_config(), folder)
  return folder, reporting.read_results(folder)


def test_the_record_has_the_promised_keys(finished):
  _, results = finished
  for arm in ("teacher", *ARMS):
    for name in ("perplexity", "gender_ratio_mean", "gender_ratio_min"):
      key = f"{arm}/{name}"
      assert results[f"{key}_low"] <= results[key] <= results[f"{key}_high"]
    assert 0 < results[f"{arm}/noise_floor_mean"] <= 1
  assert results.claims() == [
    "disparity",
    "utility",
    "carry_over",
    "carry_over_embedding",
    "carry_over_contexts",
  ]
  assert results["claim/carry_over"] == "UNDECIDED"
  assert "is off" in results["claim/carry_over/estimate_reason"]
  assert results["swapped_texts"] < results["texts"] == 120


def test_the_control_is_the_baseline(finished):
  """With x_cf := x the arm has the baseline's students, step for step."""
  folder, results = finished
  losses = [
    reporting.read_metrics(
      folder / "arms" / arm / "seed_0" / "metrics.jsonl"
    ).series("train/loss")[1]
    for arm in ("D0", "D11")
  ]
  np.testing.assert_allclose(losses[1], losses[0], rtol=1e-5)
  np.testing.assert_allclose(
    results["D11/perplexity"], results["D0/perplexity"], rtol=1e-4
  )
  assert results["D11/changed_positions"] == 0 < results["D3/changed_positions"]


def test_the_control_has_the_baselines_rows_with_longer_partners():
  """Partners of other lengths cut the pairs where texts alone are not cut."""
  config = tiny_config(length=6, swap={"policy": "word_level"})
  text = distillation.CounterfactualText(
    units=(((1,), (1,)), ((2,), (3, 4, 5)), ((6,), (6,)))
  )
  study = types.SimpleNamespace(
    config=config,
    corpus=types.SimpleNamespace(
      pairs=[text] * 4, tokenizer=types.SimpleNamespace(end_of_text=9)
    ),
  )
  baseline, control = (
    _training.make_rows(study, distillation.role_reversal_arm(name), 0)
    for name in ("D0", "D11")
  )
  for name in ("tokens", "mask"):
    np.testing.assert_array_equal(control[name], baseline[name])
    np.testing.assert_array_equal(control[f"{name}_cf"], baseline[name])
  np.testing.assert_array_equal(control["valid"], baseline["mask"])
  aligned = np.take_along_axis(control["tokens"], control["idx"], axis=1)
  np.testing.assert_array_equal(
    aligned[control["mask"]], control["tokens"][control["mask"]]
  )
  assert distillation.alignment_shares(control) == {"valid": 1.0, "changed": 0}


def test_numbers_without_a_value_are_left_out(monkeypatch):
  """As after Ctrl-C in an evaluation: its arm has no step to time."""
  monkeypatch.setattr(
    models,
    "perplexity",
    lambda *_, **__: types.SimpleNamespace(nll=np.ones(2), counts=np.ones(2)),
  )
  monkeypatch.setattr(_evaluation, "_continue", lambda *_: [["left", "ran"]])
  corpus = types.SimpleNamespace(
    held_out=[],
    vectors=None,
    prompts=types.SimpleNamespace(texts=("the nurse ",)),
  )
  found = _evaluation.evaluate(
    tiny_config(),
    corpus,
    None,
    None,
    seed=0,
    extra={"seconds_per_step": float("nan"), "num_sequences": 3.0},
  )
  assert np.isfinite([*found.numbers.values()]).all()
  assert set(found.numbers) == {"distinct_1", "mean_words", "num_sequences"}


def test_files_are_written(finished):
  folder, results = finished
  table = (folder / "table.md").read_text()
  assert "balanced mean" in table and "paired across arms" in table
  for arm in ("teacher", *ARMS):
    assert arm in table
    samples = (folder / "samples" / f"{arm}.txt").read_text()
    assert "## nurse" in samples and "the nurse said that |" in samples
  figure = folder / "figures" / "balance_and_utility.png"
  assert figure.read_bytes().startswith(b"\x89PNG")
  config = json.loads((folder / "config.json").read_text())
  assert config["arms"] == list(ARMS)
  assert len(results.protocol_hash) == 64


def test_a_finished_study_is_read_not_run(finished, monkeypatch, capsys):
  folder, results = finished

  train = training.train

  def only_the_teacher(*args, **kwargs):
    assert args[4].title == "teacher", "an arm was trained again"
    return train(*args, **kwargs)

  def evaluated_again(*_, **__):
    raise AssertionError("the teacher or an arm was evaluated again")

  monkeypatch.setattr(training, "train", only_the_teacher)
  monkeypatch.setattr(_evaluation, "evaluate", evaluated_again)
  role_reversal_distillation.run(tiny_config(), folder)
  again = reporting.read_results(folder)
  for arm in ARMS:
    key = f"{arm}/perplexity"
    assert again[key] == results[key]
  assert "claim disparity" in capsys.readouterr().out


def test_another_config_is_refused(finished):
  folder, _ = finished
  with pytest.raises(ValueError, match="num_steps was 3, is 4"):
    role_reversal_distillation.run(tiny_config(num_steps=4), folder)


def test_claims_rest_on_paired_resamples():
  """Two arms with the same items differ by nothing, with no width."""
  config = tiny_config(num_seeds=2)
  drawn = _resampling.draw_seeds(config)
  rng = np.random.default_rng(0)
  resampled = _resampling.Resampled(
    estimates=np.array([1.0, 2.0]), replicates=rng.normal(1.4, 0.1, (2, 100))
  )
  estimate, replicates = resampled.over_seeds(drawn)
  assert estimate == 1.5 and replicates.shape == (100,)
  np.testing.assert_allclose(replicates.mean(), estimate)
  measured = _resampling.interval(estimate, replicates, 2)
  assert measured.low < 1.5 < measured.high
  again = resampled.over_seeds(drawn)[1]
  np.testing.assert_array_equal(again, replicates)


def test_every_arm_has_a_config():
  config = all_arms.get_config()
  _checks.check(config)
  assert config.arms == tuple(f"{kind}{i}" for kind in "DF" for i in range(12))


@pytest.mark.slow
def test_fine_tuning_arms_and_every_check(tmp_path):
  """The student is the whole teacher; P0 has none, F11 is F0."""
  config = tiny_config(arms=("F0", "F1", "F5", "F11", "P0"), num_seeds=1)
  # Enough to write "she" and "he": without gendered texts there is no ratio.
  config.teacher.num_steps = 200
  config.teacher.batch_size = 16
  config.evaluation.num_samples = 8
  config.claims.arm = "F5"
  config.evaluation.carry_over = True
  biographies = [
    {
      "hard_text": f"{who} wrote {i} .",
      "profession": i % 2,
      "gender": i % 3 % 2,
    }
    for i in range(40)
    for who in ("she", "he")
  ]
  (tmp_path / "bios.jsonl").write_text("\n".join(map(json.dumps, biographies)))
  config.evaluation.bios.path = str(tmp_path / "bios.jsonl")
  vectors = {"she": [1.0, 0.0], "he": [-1.0, 0.0], "nurse": [1.0, 1.0]}
  (tmp_path / "vectors.json").write_text(json.dumps(vectors))
  config.evaluation.vectors.file = str(tmp_path / "vectors.json")
  role_reversal_distillation.run(config, tmp_path / "study")
  results = reporting.read_results(tmp_path / "study")
  for arm in ("teacher", *config.arms):
    assert results[f"{arm}/perplexity"] > 1
    assert results[f"{arm}/probe_gap"] > 0
    for name in ("seat", "ceat", "bios_gap", "gender_ratio_mean_by_vectors"):
      assert np.isfinite(results[f"{arm}/{name}"])
    for name in ("probe_accuracy", "bios_accuracy"):
      assert 0 < results[f"{arm}/{name}"] <= 1
  assert results.claims()[2:] == [
    "carry_over",
    "carry_over_embedding",
    "carry_over_contexts",
    "carry_over_biographies",
  ]
  for claim in results.claims():
    assert results[f"claim/{claim}"] in ("HOLDS", "FAILS", "UNDECIDED")
  assert results["F5/num_sequences"] > results["F0/num_sequences"]
  table = (tmp_path / "study" / "table.md").read_text()
  for column in ("CEAT d", "biographies TPR gap", "Gender-Max"):
    assert column in table
  # Taught by the frozen original, which says the same of both texts.
  metrics = {
    arm: reporting.read_metrics(
      tmp_path / "study" / "arms" / arm / "seed_0" / "metrics.jsonl"
    )
    for arm in ("F0", "F11", "P0")
  }
  losses = {arm: m.series("train/loss")[1] for arm, m in metrics.items()}
  np.testing.assert_allclose(losses["F11"], losses["F0"], rtol=1e-5)
  assert abs(losses["P0"][-1] - losses["F0"][-1]) > 1e-3
