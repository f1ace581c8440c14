"""The budget binary, as it is called from a shell and from Python."""

import csv
import json
import math
import pathlib

import ml_collections
import numpy as np
import pytest

from configs.privacy_budget import default, snips
from experiments import privacy_budget
from experiments._binary import _config_flags
from tests.experiments import binaries
from trustjax import reporting

_ROOT = pathlib.Path(__file__).parents[2]
_DEFAULT = str(_ROOT / "configs/privacy_budget/default.py")


def _config(**plan) -> ml_collections.ConfigDict:
  """A mechanism that is quick to account for."""
  config = default.get_config()
  config.num_points = 2
  config.target_epsilons = ()
  fields = dict(sampling_rate=0.01, num_steps=100, noise_multiplier=1.0)
  config.plan.update(fields | plan)
  return config


def _run(config, workdir):
  privacy_budget.run(config, workdir)
  return reporting.read_results(workdir / "results.json")


def test_the_command_line_of_the_interface(tmp_path):
  done = binaries.call(
    "privacy_budget",
    "--config.plan.sampling_rate=0.01",
    "--config.plan.noise_multiplier=1.0",
    "--config.plan.num_steps=1000",
    "--config.delta=1e-5",
    "--config.num_points=2",
    "--config.target_epsilons=(1.0,)",
    "--workdir=out",
    cwd=tmp_path,
  )
  assert done.returncode == 0, done.stderr
  results = reporting.read_results(tmp_path / "out/results.json")
  np.testing.assert_allclose(results["epsilon_pld"], 1.828244, rtol=1e-6)
  np.testing.assert_allclose(results["epsilon_rdp"], 2.101367, rtol=1e-6)
  np.testing.assert_allclose(
    results["target_1/noise_multiplier_pld"], 1.41463, rtol=1e-3
  )
  assert results["delta"] == 1e-5
  config = json.loads((tmp_path / "out/config.json").read_text())
  assert config["plan"]["num_steps"] == 1000
  figure = (tmp_path / "out/figures/epsilon_against_steps.png").read_bytes()
  assert figure.startswith(b"\x89PNG")
  assert "1.8282" in (tmp_path / "out/table.md").read_text()
  assert "1.8282" in done.stdout and "Poisson sampling" in done.stdout


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    (["--config.plan.nosie=3"], "config.plan.nosie: unknown field 'nosie'; "),
    (["--config.delta=0"], "delta: got 0.0; it must lie strictly in"),
  ],
)
def test_bad_calls_end_with_one_clear_message(arguments, message, tmp_path):
  """Of the flags and of the work; more messages need no process."""
  done = binaries.call(
    "privacy_budget", *arguments, "--workdir=out", cwd=tmp_path
  )
  assert done.returncode != 0
  assert message in done.stderr
  assert "Traceback" not in done.stderr
  assert not (tmp_path / "out/results.json").exists()


@pytest.mark.parametrize(
  ("arguments", "problem"),
  [
    (["--config.delta=1", "--workdir=x"], None),
    (["--config", _DEFAULT, "--config.plan.schedule.kind=linear"], None),
    (["--config.plan.delta=1"], "unknown field 'delta'"),
    (["--config.delta.x=1"], "'delta' has no fields"),
    (["--config", "nowhere.py"], "config: there is no file 'nowhere.py'"),
    (["--configuration.x=1"], None),
  ],
)
def test_config_arguments_are_checked_by_name(arguments, problem):
  got = _config_flags.find_problem(arguments, _DEFAULT)
  if problem is None:
    assert got is None
  else:
    assert problem in got


def test_the_naive_epsilon_of_clip_groups_is_labelled(tmp_path, capsys):
  results = _run(_config(clip_group_size=8), tmp_path)
  assert results["sensitivity_factor"] == 2
  assert results["epsilon_naive_pld"] < results["epsilon_pld"]
  assert results["epsilon_naive_is_a_guarantee"] == "no"
  for text in (capsys.readouterr().out, (tmp_path / "table.md").read_text()):
    assert "naive epsilon (not a guarantee)" in text


def test_per_layer_noises_cost_the_root_of_their_number(tmp_path):
  layers = _run(_config(per_layer_noises=4), tmp_path / "layers")
  groups = _run(_config(clip_group_size=8), tmp_path / "groups")
  assert layers["epsilon_pld"] == groups["epsilon_pld"]


def test_without_noise_epsilon_is_null_with_a_reason(tmp_path):
  results = _run(_config(noise_multiplier=0.0), tmp_path)
  assert results["epsilon_pld"] is None
  assert results["epsilon_pld_reason"] == "without noise no epsilon is finite"
  assert "Infinity" not in (tmp_path / "results.json").read_text()


def test_replace_one_has_no_rdp_and_says_why(tmp_path):
  config = _config(adjacency="replace_one")
  config.target_epsilons = (3.0,)
  results = _run(config, tmp_path)
  assert results["epsilon_pld"] > 0
  assert results["epsilon_rdp"] is None
  assert "replace-one" in results["epsilon_rdp_reason"]
  assert "replace-one" in results["target_3/noise_multiplier_rdp_reason"]


def test_truncated_lots_report_how_often_they_overflow(tmp_path):
  results = _run(
    _config(
      sampler="truncated_poisson",
      num_records=1000,
      capacity=20,
      adjacency="zero_out",
    ),
    tmp_path,
  )
  assert results["capacity"] == 20
  assert 1e-4 < results["overflow_probability"] < 1e-2
  assert results["epsilon_rdp"] is None


def test_shuffled_batches_are_not_amplified(tmp_path):
  """Ten epochs at sigma 2: mu^2 = 10 / 4, whatever the batch size."""
  results = _run(
    _config(
      sampler="shuffled",
      adjacency="zero_out",
      num_records=100,
      sampling_rate=0.1,
      noise_multiplier=2.0,
    ),
    tmp_path,
  )
  np.testing.assert_allclose(results["epsilon_pld"], 7.51, atol=0.005)


def test_further_mechanisms_are_tabulated(tmp_path):
  config = _config()
  config.comparison.per_layer_noises = 4
  config.comparison.mechanisms = (
    {"name": "small", "noise_multiplier": 1.0},
    {"name": "large", "noise_multiplier": 2.0},
  )
  results = _run(config, tmp_path)
  with (tmp_path / "table.csv").open() as file:
    rows = list(csv.reader(file))
  assert len(rows) == 3
  naive = [heading for heading in rows[0] if "naive" in heading]
  assert len(naive) == 2
  assert all("not_a_guarantee" in heading for heading in naive)
  assert "naive (not a guarantee), PLD" in (tmp_path / "table.md").read_text()
  assert results["small/epsilon_naive_is_a_guarantee"] == "no"
  # Twice the noise at twice the sensitivity; four layers are two groups.
  assert (
    results["large/epsilon_clip_groups_pld"]
    == (results["small/epsilon_naive_pld"])
  )
  assert (
    results["large/epsilon_per_layer_noises_pld"]
    == (results["small/epsilon_naive_pld"])
  )


def test_a_schedule_that_depends_on_the_length_has_one_point(tmp_path):
  config = _config()
  config.plan.schedule.kind = "linear"
  config.plan.schedule.final = 0.9
  config.plan.schedule.period = 50
  results = _run(config, tmp_path)
  assert [key for key in results if key.startswith("steps_")] == [
    "steps_100/epsilon_pld",
    "steps_100/epsilon_rdp",
  ]


def test_an_impossible_rate_is_named(tmp_path):
  with pytest.raises(ValueError, match="sampling_rate: got 2.0; it must lie"):
    privacy_budget.run(_config(sampling_rate=2.0), tmp_path)
  assert not (tmp_path / "results.json").exists()


@pytest.mark.parametrize("num_points", [0, -1])
def test_no_points_are_refused(num_points, tmp_path):
  config = _config()
  config.num_points = num_points
  with pytest.raises(ValueError, match=r"num_points: got"):
    privacy_budget.run(config, tmp_path)


def test_the_table_of_snips_lists_what_the_docstring_says():
  mechanisms = snips.get_config().comparison.mechanisms
  assert len(mechanisms) == 12
  assert math.isclose(mechanisms[3]["sampling_rate"], 256 / 13_084)
