"""The main binary: its record, its resume, and how it refuses."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from configs.private_training import default, deferred_noise
from experiments import private_training
from experiments._binary import _console
from experiments._private_training import _arm_training, _arms
from tests.experiments import binaries
from trustjax import reporting, training

_ROOT = pathlib.Path(__file__).parents[2]
ARMS = (
  "non_private",
  "dp_sgd",
  "edp_sgd",
  "edp_sgd_equal_epsilon",
  "dp_sgd_loop",
)


def tiny_config(**changes):
  """All arms, a few steps each, on the embedded corpus."""
  config = default.get_config()
  config.update(
    {
      "model": {"dim": 4},
      "non_private": {"num_steps": 4, "batch_size": 16},
      "private": {"num_steps": 4, "expected_batch_size": 16},
      "edp": {"clip_group_size": 4},
      "data": {"max_length": 12},
      "loop_steps": 2,
      "log_every": 1,
      "evaluate_every": 2,
      "num_seeds": 1,
      "target_epsilons": (3.0, 8.0),
    }
  )
  for name, value in changes.items():
    config[name] = value
  return config


@pytest.fixture(scope="module", autouse=True)
def shared_programs():
  """Studies of one task share it, and arms of one plan their program.

  Compiling is most of a tiny run.
  """
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(
      private_training,
      "make_task",
      binaries.once(private_training.make_task, task_of),
    )
    for name in ("build", "build_to_run"):
      made = binaries.once(
        getattr(_arm_training, name),
        lambda task, arm: (id(task), json.dumps(arm.describe())),
      )
      patch.setattr(_arm_training, name, made)
    yield


def task_of(config):
  fields = ("data", "model", "loss", "trainable", "seed")
  return repr([config.to_dict()[field] for field in fields])


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
  """A small study, run once: its folder and its record."""
  folder = tmp_path_factory.mktemp("study")
  private_training.run(tiny_config(), folder)
  return folder, reporting.read_results(folder / "results.json")


def test_the_record_has_the_promised_keys(finished):
  _, results = finished
  trained = ("non_private", "dp_sgd", "dp_sgd_eps3", "edp_sgd")
  for arm in (*trained, "edp_sgd_equal_epsilon"):
    for name in ("intent_accuracy", "slot_f1"):
      key = f"{arm}/{name}"
      assert 0 <= results[key] <= 1
    assert results[f"{arm}/seconds_per_step"] > 0
    assert results[f"{arm}/train_seconds"] > 0
  assert results["dp_sgd_loop/max_difference"] < 1e-3


def test_several_seeds_give_intervals(tmp_path):
  config = tiny_config(arms=("non_private",), num_seeds=3)
  private_training.run(config, tmp_path)
  results = reporting.read_results(tmp_path / "results.json")
  for name in ("intent_accuracy", "slot_f1", "train_seconds"):
    key = f"non_private/{name}"
    assert results[f"{key}_low"] <= results[key] <= results[f"{key}_high"]
    assert results[f"{key}_n"] == 3


def test_epsilons_are_those_of_the_plans_that_ran(finished):
  _, results = finished
  arms = {arm.name: arm for arm in _arms.make_arms(tiny_config(), _num_train())}
  for name in ("dp_sgd", "dp_sgd_eps3", "edp_sgd", "edp_sgd_equal_epsilon"):
    plan = arms[name].plan
    assert results[f"{name}/epsilon"] == plan.epsilon(1e-4).pld
    assert results[f"{name}/plan"] == plan.fingerprint()
    assert results[f"{name}/delta"] == 1e-4
    assert plan.mechanism.num_steps == results[f"{name}/steps"]
  assert 7.9 < results["dp_sgd/epsilon"] <= 8.0
  assert 2.95 < results["dp_sgd_eps3/epsilon"] <= 3.0
  assert 7.9 < results["edp_sgd_equal_epsilon/epsilon"] <= 8.0
  # Clip groups at the sigma of dp_sgd: the naive epsilon understates.
  sigma = results["dp_sgd/noise_multiplier"]
  assert results["edp_sgd/noise_multiplier"] == sigma
  assert results["edp_sgd/epsilon_naive"] == results["dp_sgd/epsilon"]
  assert results["edp_sgd/epsilon"] > 1.5 * results["dp_sgd/epsilon"]


def _num_train():
  return private_training.make_task(tiny_config()).corpus.num_train


def test_no_epsilon_where_no_mechanism_ran(finished):
  _, results = finished
  assert results["non_private/epsilon"] is None
  assert results["non_private/epsilon_reason"] == "no mechanism was run"
  assert results["dp_sgd_loop/epsilon"] is None
  assert "not the whole mechanism" in results["dp_sgd_loop/epsilon_reason"]


def test_tables_and_figures_are_written(finished):
  folder, _ = finished
  table = (folder / "table.md").read_text()
  assert "not a guarantee" in table
  for arm in ARMS:
    assert arm in table
    assert arm in (folder / "table.csv").read_text()
  for name in ("learning_curves", "utility_against_epsilon"):
    figure = (folder / f"figures/{name}.png").read_bytes()
    assert figure.startswith(b"\x89PNG")


@pytest.fixture(scope="module")
def deferred(tmp_path_factory):
  """A study whose arms draw noise when rows are read: folder and record."""
  folder = tmp_path_factory.mktemp("deferred")
  private_training.run(deferred_config(), folder)
  return folder, reporting.read_results(folder / "results.json")


def deferred_config():
  config = tiny_config(arms=("dp_sgd", "edp_sgd"), target_epsilons=(8.0,))
  for section in (config.private, config.edp):
    section.noise = "deferred"
    section.rule.name = "auto"
    section.rule.scale = None
    section.optimizer.name = "sgd"
  config.num_seeds = 1
  return config


def test_noise_may_be_deferred(finished, deferred):
  """The same plans, so the same epsilons; the record says which noise."""
  folder, results = deferred
  _, flat = finished
  for arm in ("dp_sgd", "edp_sgd"):
    assert results[f"{arm}/noise"] == "deferred"
    assert flat[f"{arm}/noise"] == "flat"
    assert 0 <= results[f"{arm}/intent_accuracy"] <= 1
    assert results[f"{arm}/train_seconds"] > 0
  for field in ("epsilon", "noise_multiplier", "plan"):
    assert results[f"dp_sgd/{field}"] == flat[f"dp_sgd/{field}"]
  assert (
    "dp_sgd, edp_sgd: the noise of a table's row is drawn when"
    in (folder / "table.md").read_text()
  )


def test_finished_scores_of_other_settling_are_refused(deferred, tmp_path):
  """Where noise is settled belongs to the run, as its plan does."""
  folder, _ = deferred
  target = tmp_path / "arms/dp_sgd/seed_0"
  target.mkdir(parents=True)
  source = folder / "arms/dp_sgd/seed_0/scores.json"
  (target / "scores.json").write_text(source.read_text())
  for field, value, message in (
    ("evaluate_every", 3, "evaluate_every was 2, is 3"),
    ("private.noise", "flat", "noise was 'deferred', is None"),
  ):
    config = deferred_config()
    config.arms = ("dp_sgd",)
    config.update_from_flattened_dict({field: value})
    with pytest.raises(training.CheckpointError, match=message):
      private_training.run(config, tmp_path)
    (tmp_path / "config.json").unlink()


def test_a_finished_study_is_read_not_repeated(finished, capsys):
  folder, results = finished
  before = (folder / "arms/dp_sgd/seed_0/metrics.jsonl").stat().st_mtime_ns
  private_training.run(tiny_config(), folder)
  again = reporting.read_results(folder / "results.json")
  for key in results:
    if not key.startswith("dp_sgd_loop/seconds"):
      assert again[key] == results[key]
  after = (folder / "arms/dp_sgd/seed_0/metrics.jsonl").stat().st_mtime_ns
  assert before == after


def test_a_folder_of_another_study_is_refused(finished):
  folder, _ = finished
  other = tiny_config()
  other.private.optimizer.learning_rate = 0.5
  with pytest.raises(
    ValueError,
    match=r"another config: private.optimizer.learning_rate was 0.06, is 0.5",
  ):
    private_training.run(other, folder)


def test_scores_of_another_plan_are_refused(finished, tmp_path):
  """Even where config.json was tampered with, the arms know their plan."""
  folder, _ = finished
  target = tmp_path / "arms/non_private/seed_0"
  target.mkdir(parents=True)
  source = folder / "arms/non_private/seed_0/scores.json"
  (target / "scores.json").write_text(source.read_text())
  other = tiny_config(arms=("non_private",))
  other.non_private.num_steps = 5
  with pytest.raises(training.CheckpointError, match="num_steps was 4, is 5"):
    private_training.run(other, tmp_path)


@pytest.mark.parametrize("noise", ["flat", "deferred"])
def test_ctrl_c_pauses_and_the_same_call_finishes(
  noise, request, tmp_path, monkeypatch
):
  """In this process: the signal comes at the third drawn lot of dp_sgd."""
  study = "finished" if noise == "flat" else "deferred"
  _, expected = request.getfixturevalue(study)
  draw, calls = _arm_training.draw_lot, []

  def draw_and_interrupt(task, arm, seed, step):
    calls.append((arm.name, step))
    if calls.count(("dp_sgd", 2)) == 1 and calls[-1] == ("dp_sgd", 2):
      os.kill(os.getpid(), signal.SIGINT)
    return draw(task, arm, seed, step)

  monkeypatch.setattr(_arm_training, "draw_lot", draw_and_interrupt)
  config = tiny_config(arms=("dp_sgd",), target_epsilons=(8.0,))
  if noise == "deferred":
    config = deferred_config()
    config.arms = ("dp_sgd",)
  with pytest.raises(_console.Stopped, match="after step 3 of 4 of dp_sgd"):
    private_training.run(config, tmp_path)
  assert not (tmp_path / "results.json").exists()
  private_training.run(config, tmp_path)
  results = reporting.read_results(tmp_path / "results.json")
  same = [
    key
    for key in expected
    if key.startswith("dp_sgd/") and "seconds" not in key
  ]
  assert len(same) > 10
  for key in same:
    assert results[key] == expected[key], key


@pytest.mark.parametrize(
  ("path", "value", "message"),
  [
    ("arms", ("dp_sdg",), r"config.arms: got \['dp_sdg'\]; allowed are"),
    ("target_epsilons", (), "config.target_epsilons: got none"),
    ("num_seeds", 0, "config.num_seeds: got 0; it must be at least 1"),
    ("delta", 2.0, "delta: got 2.0; it must lie strictly in"),
    ("target_epsilons", (-1.0,), "target_epsilon: got -1.0"),
    ("private.expected_batch_size", 10**6, "expected_batch_size: got 1000000"),
    ("private.expected_batch_size", 0, "expected_batch_size: got 0"),
    ("private.rule.name", "clip", "rule: got 'clip'; allowed are"),
    ("private.sampler", "random", "sampler: got 'random'; allowed are"),
    ("private.adjacency", "add", "adjacency: got 'add'; allowed are"),
    ("edp.clip_group_size", 5, "clip_group_size: got 5; it must divide"),
    ("data.name", "snaps", "unknown dataset 'snaps'; it must be one of"),
    ("model.name", "rnn", "model.name: got 'rnn'; allowed are"),
    ("model.hidden_dim", 8, r"got unknown fields \['hidden_dim'\]"),
    ("loss.unknown_rate", 1.5, "unknown_rate: got 1.5; it must lie in"),
    ("loss.compute_dtype", "half", "compute_dtype: got 'half'; allowed are"),
    ("private.optimizer.name", "lion", "optimizer.name: got 'lion'"),
    ("private.schedule.kind", "cubic", "schedule.kind: got 'cubic'"),
  ],
)
def test_bad_fields_are_named_before_anything_is_written(
  path, value, message, tmp_path
):
  config = tiny_config()
  binaries.set_field(config, path, value)
  with pytest.raises(ValueError, match=message):
    private_training.run(config, tmp_path)
  assert not (tmp_path / "results.json").exists()


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"private.noise": "late"}, r"noise: got 'late'; allowed are \['flat', "),
    (
      {"private.optimizer.name": "adam"},
      "config.private.noise: got 'deferred' with private.optimizer.name 'adam'",
    ),
    (
      {"private.optimizer.name": "adamw"},
      "name 'adamw'; it is exact for plain",
    ),
    (
      {"private.optimizer.momentum": 0.9},
      "private.optimizer.momentum 0.9; it is exact for plain SGD only, since",
    ),
    (
      {"edp.optimizer.weight_decay": 0.1},
      "config.edp.noise: got 'deferred' with edp.optimizer.weight_decay 0.1",
    ),
    ({"private.engine": "vmap"}, "private.engine 'vmap'; allowed are 'auto'"),
    ({"trainable": "heads"}, "trainable 'heads'; it takes no frozen param"),
    ({"arms": ("dp_sgd", "dp_sgd_loop")}, "the arm 'dp_sgd_loop', whose"),
  ],
)
def test_noise_that_cannot_be_deferred(changes, message):
  config = deferred_config()
  config.update_from_flattened_dict(changes)
  with pytest.raises(ValueError, match=message):
    _arms.make_arms(config, 2000)


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    (
      {"private.rule.name": "quantile", "private.rule.count_noise": 50.0},
      "plan.rule: got QuantileClip.* which learns its threshold from the data",
    ),
    (
      {"edp.rule.name": "per_layer", "edp.rule.scale": "weight_relative"},
      "plan.rule: got PerLayerClip.* which scales its thresholds by the param",
    ),
  ],
)
def test_rules_that_forbid_it_are_named_before_training(
  changes, message, tmp_path
):
  config = deferred_config()
  config.update_from_flattened_dict(changes)
  config.num_seeds = 1
  with pytest.raises(ValueError, match=message):
    private_training.run(config, tmp_path)
  assert not any(tmp_path.iterdir())


def test_the_config_of_deferred_noise_is_allowed():
  config = deferred_noise.get_config()
  assert config.private.noise == "deferred"
  _arms._check(config)


def test_an_unreachable_target_says_what_is_reached(tmp_path):
  config = tiny_config(target_epsilons=(1e-9,), delta=1e-15)
  config.private.num_steps = 100_000
  with pytest.raises(ValueError, match="target_epsilon: got 1e-09; at delta"):
    private_training.run(config, tmp_path)


def test_missing_files_are_named_with_how_to_get_them(tmp_path):
  config = tiny_config()
  config.data.name = "snips"
  config.data.manual_dir = str(tmp_path)
  with pytest.raises(FileNotFoundError, match=r"(?s)seq\.in.*SlotGated"):
    private_training.run(config, tmp_path / "out")


@pytest.mark.slow
def test_missing_files_end_the_binary_in_one_line(tmp_path):
  empty = tmp_path / "empty"
  empty.mkdir()
  done = binaries.call(
    "private_training",
    "--config.data.name=snips",
    f"--config.data.manual_dir={empty}",
    "--workdir=out",
    cwd=tmp_path,
  )
  assert done.returncode == 1
  assert "Traceback" not in done.stderr
  assert "train/seq.in" in done.stderr or "seq.in" in done.stderr
  assert "SlotGated" in done.stderr


def test_unequal_token_counts_name_file_and_line(tmp_path):
  for split in ("train", "valid", "test"):
    folder = tmp_path / "snips" / split
    folder.mkdir(parents=True)
    (folder / "seq.in").write_text("play a song\nplay it\n")
    (folder / "seq.out").write_text("O O O\nO\n")
    (folder / "label").write_text("PlayMusic\nPlayMusic\n")
  config = tiny_config()
  config.data.name = "snips"
  config.data.manual_dir = str(tmp_path / "snips")
  config.data.data_dir = str(tmp_path / "prepared")
  with pytest.raises(ValueError, match=r"seq\.\w+.*2.*2 tokens but 1 tags"):
    private_training.run(config, tmp_path / "out")


@pytest.mark.slow
def test_a_real_ctrl_c_exits_130_and_the_same_command_finishes(tmp_path):
  arguments = [
    "--workdir=out",
    "--config.private.num_steps=30",
    "--config.non_private.num_steps=3000",
    "--config.non_private.batch_size=256",
    "--config.arms=('non_private',)",
  ]
  process = subprocess.Popen(
    [sys.executable, "-m", "experiments.private_training", *arguments],
    cwd=tmp_path,
    env=os.environ | {"PYTHONPATH": str(_ROOT)},
    stdout=subprocess.PIPE,
    text=True,
  )
  metrics = tmp_path / "out/arms/non_private/seed_0/metrics.jsonl"
  deadline = time.monotonic() + 120
  while time.monotonic() < deadline:
    if metrics.exists() and len(metrics.read_text().splitlines()) > 20:
      break
    time.sleep(0.1)
  process.send_signal(signal.SIGINT)
  output, _ = process.communicate(timeout=120)
  assert process.returncode == 130
  assert "all is saved in" in output
  assert "Run the same command to continue." in output
  done = binaries.call("private_training", *arguments, cwd=tmp_path)
  assert done.returncode == 0, done.stderr
  rows = [json.loads(line) for line in metrics.read_text().splitlines()]
  steps = [row["step"] for row in rows if "train/loss" in row]
  assert steps == list(range(10, 3001, 10))
  results = reporting.read_results(tmp_path / "out/results.json")
  assert np.isfinite(results["non_private/intent_accuracy"])
