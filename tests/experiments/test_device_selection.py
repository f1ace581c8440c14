"""The device-selection study: names, claims, budgets, resume, refusals."""

import json

import numpy as np
import pytest

from configs.device_selection import default
from experiments import device_selection as binary
from experiments._federated import _device_record, _device_study, _setup
from trustjax import reporting, training


def small_config(**changes):
  config = default.get_config()
  config.update(
    {
      "num_seeds": 2,
      "num_rounds": 4,
      "evaluate_every": 1,
      "data": {"num_train": 150, "max_length": 8},
      "model": {"dim": 4},
      "population": {"num_devices": 12, "kind": "activity"},
      "stream": {"num_periods": 2},
      "selection": {"size": 3},
      # One step a client, so that all rounds share a program.
      "batch_size": 20,
      "max_examples": 20,
      "execution": {"backend": "scan"},
    }
  )
  config.update(changes)
  return config


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
  """A small study, run once: its folder and its record."""
  folder = tmp_path_factory.mktemp("study")
  binary.run(small_config(), folder)
  return folder, reporting.read_results(folder / "results.json")


ARMS = (
  "central/all_data",
  "static/uniform",
  "static/proportional",
  "static/proportional_equal_examples",
  "continual/uniform",
  "continual/proportional",
  "continual/proportional_equal_examples",
)


def test_the_record_has_the_names_that_others_rely_on(finished):
  _, results = finished
  for arm in ARMS:
    assert 0 <= results[f"{arm}/final_accuracy"] <= 1
    assert results[f"{arm}/final_accuracy_n"] == 2
    for field in ("rounds_to_target", "examples_to_target", "bytes_to_target"):
      assert f"{arm}/{field}" in results
  for claim in ("static", "continual", "catch_up"):
    for suffix in ("", "_equal_examples"):
      verdict = results[f"claim/{claim}{suffix}"]
      assert verdict in ("HOLDS", "FAILS", "UNDECIDED")
  # The baseline reaches its own final accuracy.
  assert results["static/uniform/rounds_to_target"] is not None


def scores_of(folder, arm, seed):
  path = folder / "arms" / arm / f"seed_{seed}" / "scores.json"
  return json.loads(path.read_text())["scores"]


def test_numbers_are_those_of_the_seeds(finished):
  folder, results = finished
  finals = {
    arm: np.array([scores_of(folder, arm, s)["accuracy"] for s in range(2)])
    for arm in ARMS
  }
  for arm in ARMS:
    np.testing.assert_allclose(
      results[f"{arm}/final_accuracy"], finals[arm].mean()
    )
  gains = {
    setting: finals[f"{setting}/proportional"] - finals[f"{setting}/uniform"]
    for setting in ("static", "continual")
  }
  np.testing.assert_allclose(
    results["claim/static/estimate"], gains["static"].mean(), atol=1e-12
  )
  np.testing.assert_allclose(
    results["claim/continual/estimate"],
    (gains["continual"] - gains["static"]).mean(),
    atol=1e-12,
  )


def test_periods_and_deciles_are_scored(finished):
  folder, results = finished
  for arm in ARMS:
    seeds = [scores_of(folder, arm, s) for s in range(2)]
    matrices = np.array([seed["periods"] for seed in seeds])
    np.testing.assert_allclose(
      [results[f"{arm}/period_{t}"] for t in range(2)],
      np.diagonal(matrices.mean(axis=0)),
    )
    change = matrices[:, 1, 0] - matrices[:, 0, 0]
    np.testing.assert_allclose(
      results[f"{arm}/backward_transfer"], change.mean(), atol=1e-12
    )
    np.testing.assert_allclose(
      results[f"{arm}/forgetting"], np.maximum(-change, 0).mean(), atol=1e-12
    )
    np.testing.assert_allclose(
      [results[f"{arm}/decile_{d}"] for d in range(10)],
      np.mean([seed["deciles"] for seed in seeds], axis=0),
    )
  assert (folder / "figures" / "accuracy_by_decile.png").exists()
  assert "backward transfer" in (folder / "table.md").read_text()


def test_class_accuracies_add_up_to_the_accuracy():
  config = small_config()
  task = _setup.make_task(config)
  assert task.by_class is not None
  params = _setup.first_params(task, 0)
  by_class = task.by_class(params)
  world = _device_study.World(task, config, 0)
  scores = world.scores(params)
  # Everybody's mixture lies between the extremes of the classes.
  for d in range(10):
    value = scores[f"test/decile_{d}"]
    assert np.nanmin(by_class) <= value <= np.nanmax(by_class)
  hits = np.nan_to_num(by_class)
  assert (hits.max() > 0) == (scores["test/intent_accuracy"] > 0)


def test_equal_examples_arms_keep_to_the_budget(finished):
  folder, _ = finished
  for setting in ("static", "continual"):
    for seed in range(2):
      used = {
        strategy: scores_of(folder, f"{setting}/{strategy}", seed)["examples"]
        for strategy in (
          "uniform",
          "proportional",
          "proportional_equal_examples",
        )
      }
      # The first round of each of two periods is always run: at most 3
      # devices of 20 examples.
      most = used["uniform"][-1] + 2 * 60
      assert used["proportional_equal_examples"][-1] <= most
      assert used["proportional_equal_examples"] <= used["proportional"]


def test_examples_are_known_before_training(finished):
  """What the budget reckons with is what training then uses."""
  folder, _ = finished
  config = small_config()
  world = _device_study.World(_setup.make_task(config), config, 0)
  for arm in _device_study.make_arms(config):
    if arm.setting == "central" or arm.budgeted:
      continue
    np.testing.assert_array_equal(
      np.cumsum(world.examples(arm)),
      scores_of(folder, arm.name, 0)["examples"],
    )


def test_files_and_figures(finished):
  folder, _ = finished
  for name in ("config.json", "table.md", "table.csv"):
    assert (folder / name).stat().st_size > 0
  for name in ("rounds", "examples", "bytes_up"):
    figure = folder / "figures" / f"accuracy_against_{name}.png"
    assert figure.read_bytes().startswith(b"\x89PNG")
  assert (folder / "figures" / "heat_map.png").exists()
  assert "claim/static" in (folder / "table.md").read_text()


def test_finished_arms_are_kept_and_others_refused(finished):
  folder, before = finished
  stamp = (folder / "arms/static/uniform/seed_0/metrics.jsonl").stat()
  binary.run(small_config(), folder)
  again = (folder / "arms/static/uniform/seed_0/metrics.jsonl").stat()
  assert again.st_mtime_ns == stamp.st_mtime_ns
  after = reporting.read_results(folder / "results.json")
  assert dict(after) == dict(before)
  with pytest.raises(training.CheckpointError, match="selection.size was 3"):
    binary.run(small_config(selection={"size": 4}), folder)


def scores_with(**finals):
  """Made-up scores: arm to the final accuracies of its seeds."""
  return {
    name.replace("__", "/"): [
      {
        "accuracy": value,
        "rounds": [1, 2],
        "examples": [10.0, 20.0],
        "bytes_up": [1.0, 2.0],
        "accuracies": [value / 2, value],
      }
      for value in values
    ]
    for name, values in finals.items()
  }


def test_claims_hold_fail_or_stay_open():
  scores = scores_with(
    static__uniform=[0.50, 0.52, 0.51, 0.50],
    static__proportional=[0.60, 0.61, 0.62, 0.60],
    static__proportional_equal_examples=[0.40, 0.41, 0.42, 0.40],
    continual__uniform=[0.30, 0.31, 0.32, 0.30],
    continual__proportional=[0.60, 0.61, 0.62, 0.60],
    continual__proportional_equal_examples=[0.3, 0.4, 0.2, 0.3],
  )
  config = small_config(num_seeds=4)
  task = _setup.make_task(config)
  results = _device_record.make_results(config, task, scores)
  verdicts = {
    name: results[f"claim/{name}"]
    for name in (
      "static",
      "static_equal_examples",
      "continual",
      "catch_up",
      "catch_up_equal_examples",
    )
  }
  assert verdicts == {
    "static": "HOLDS",
    "static_equal_examples": "FAILS",
    "continual": "HOLDS",
    "catch_up": "HOLDS",
    "catch_up_equal_examples": "FAILS",
  }
  assert results["claim/continual_equal_examples"] == "UNDECIDED"
  # Half of the seeds' first evaluation: the target is met at the second.
  assert results["static/proportional/rounds_to_target"] == 2
  assert results["continual/uniform/rounds_to_target"] is None
  assert "4 of 4" in results["continual/uniform/rounds_to_target_reason"]
  del scores["continual/proportional"]
  results = _device_record.make_results(config, task, scores)
  assert results["claim/continual"] == "UNDECIDED"


@pytest.mark.parametrize(
  "message, changes",
  [
    ("num_seeds: got 0", {"num_seeds": 0}),
    (r"settings: got \('dynamic',\)", {"settings": ("dynamic",)}),
    ("strategies: got", {"strategies": ("uniform", "uniform")}),
    ("stream.num_periods: got 3", {"stream": {"num_periods": 3}}),
    ("stream.drift: got 'wind'", {"stream": {"drift": "wind"}}),
    ("population.kind: got 'city'", {"population": {"kind": "city"}}),
    ("population.activity: got", {"population": {"activity": "none"}}),
    ("algorithm.name: got 'fed'", {"algorithm": {"name": "fed"}}),
    (
      "client_optimizer: got 'lion'",
      {"algorithm": {"client_optimizer": "lion"}},
    ),
    ("size: got 13", {"selection": {"size": 13}}),
  ],
)
def test_impossible_fields_are_named(tmp_path, message, changes):
  with pytest.raises(ValueError, match=message):
    binary.run(small_config(**changes), tmp_path)
