"""One federated run: record, privacy, resume, refusals."""

import dataclasses

import jax
import pytest

from configs.device_selection import default as device_selection
from configs.federated_learning import default
from experiments import federated_learning as binary
from experiments._federated import _setup
from trustjax import reporting, training


def small_config(**changes):
  config = default.get_config()
  config.update(
    {
      "num_rounds": 4,
      "evaluate_every": 2,
      "data": {"num_train": 150, "max_length": 8},
      "model": {"dim": 4},
      "population": {"num_devices": 12},
      "stream": {"num_periods": 2, "window": 1},
      "selection": {"size": 3},
      # One step a client, so that all rounds share a program.
      "batch_size": 20,
      "max_examples": 20,
      "execution": {"backend": "scan"},
    }
  )
  config.update(changes)
  return config


PRIVATE = {
  "privacy": {
    "enabled": True,
    "target_epsilon": 8.0,
    "adaptive_quantile": 0.5,
    "count_noise": 3.0,
  },
  "selection": {"strategy": "uniform", "size": 6},
  "upload": {"top_k": 0.5},
}


def run(folder, **changes):
  binary.run(small_config(**changes), folder)
  return reporting.read_results(folder / "results.json")


def test_a_run_and_its_record(tmp_path):
  results = run(tmp_path)
  assert 0 <= results["intent_accuracy"] <= 1
  assert results["rounds"] == 4 and results["examples"] > 0
  assert results["epsilon"] is None
  assert results["epsilon_reason"] == "no mechanism was run"
  assert results["bytes_down"] % 12 == 0  # Four rounds of three devices.
  assert results["partition/num_clients"] == 12
  assert (tmp_path / "figures/learning_curves.png").exists()
  metrics = reporting.read_metrics(tmp_path / "metrics.jsonl")
  steps, _ = metrics.series("validation/intent_accuracy")
  assert list(steps) == [2, 4]
  # The finished run is found again, not trained again.
  again = run(tmp_path)
  assert again["intent_accuracy"] == results["intent_accuracy"]
  with pytest.raises(training.CheckpointError, match="batch_size was 20"):
    run(tmp_path, batch_size=5)


@pytest.mark.slow
def test_a_private_run_reports_its_epsilon(tmp_path, capsys):
  results = run(tmp_path, **PRIVATE)
  assert 7.5 < results["epsilon"] <= 8.0
  assert results["noise_multiplier"] > 0
  assert "Unit: one user" in capsys.readouterr().out


@pytest.mark.slow
def test_a_simulated_deployment_claims_no_epsilon(tmp_path):
  results = run(
    tmp_path,
    privacy={"enabled": True, "simulated_cohort_size": 10},
    selection={"strategy": "uniform", "size": 4},
  )
  assert results["epsilon"] is None
  assert results["simulated_epsilon"] > 0
  assert results["simulated_noise"] == "true"


@pytest.mark.parametrize(
  "message, changes",
  [
    ("q_max: got None", {"privacy": {"enabled": True}}),
    ("stream.num_periods: got 3", {"stream": {"num_periods": 3}}),
    ("population.kind: got 'x'", {"population": {"kind": "x"}}),
    ("retention: got 'none'", {"stream": {"retention": "none"}}),
    ("backend: got 'fast'", {"execution": {"backend": "fast"}}),
    ("error_feedback: got True", {"upload": {"error_feedback": True}}),
  ],
)
def test_impossible_fields_are_named(tmp_path, message, changes):
  with pytest.raises(ValueError, match=message):
    run(tmp_path, **changes)


@pytest.mark.parametrize("defaults", [default, device_selection])
def test_another_model_is_one_flag(defaults):
  config = defaults.get_config()
  config.data.update({"num_train": 50, "max_length": 8})
  config.model.name = "logistic"
  task = _setup.make_task(config)
  assert sorted(_setup.first_params(task, 0)) == ["bias", "words"]


def test_error_feedback_gives_every_device_a_memory():
  config = small_config(upload={"top_k": 0.1, "error_feedback": True})
  task = _setup.make_task(config)
  algorithm = binary.make_algorithm(config, task, 12)
  state = algorithm.init(_setup.first_params(task, 0))
  for leaf, kept in zip(
    jax.tree.leaves(state.params), jax.tree.leaves(state.memory), strict=True
  ):
    assert kept.shape == (12, *leaf.shape)


def test_every_kind_of_population_holds_all_records():
  config = small_config()
  task = _setup.make_task(config)
  for kind in ("activity", "dirichlet", "uniform", "domain", "user"):
    config.population.kind = kind
    partition = _setup.make_partition(task, config.population, 0)
    assert partition.num_records == 150
  silent = dataclasses.replace(task, users=None)
  with pytest.raises(ValueError, match="do not say who spoke"):
    _setup.make_partition(silent, config.population, 0)
