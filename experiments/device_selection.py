r"""Compares device selection by activity, on static and on continual data.

  python -m experiments.device_selection
  python -m experiments.device_selection \
      --config=configs/device_selection/clinc150.py \
      --config.data.manual_dir=DIR --workdir=OUT

Devices of heavy-tailed activity hold the utterances. In the static setting all
data is there from the start; in the continual one it arrives in periods and is
deleted again. Selecting active devices buys more local steps a round, so every
comparison is made at equal rounds and again at equal examples. Beside the final
accuracy stand that on the mixture of each period and of each tenth of the
devices by activity, backward transfer and forgetting. Ctrl-C saves; the same
command goes on from there.
"""

import json
import pathlib
import time

from experiments._binary import _config_flags, _console
from experiments._federated import _device_record, _device_study, _setup
from trustjax import reporting


def run(config: _config_flags.Config, workdir: pathlib.Path) -> None:
  """Runs the study: every seed, every arm, then the record of all.

  Args:
    config: The study.
    workdir: Where everything is written.

  Raises:
    ValueError: A field is impossible.
    _console.Stopped: Ctrl-C, with everything saved.
  """
  if config.num_seeds < 1:
    raise ValueError(
      f"config.num_seeds: got {config.num_seeds}; it must be at least 1"
    )
  arms = _device_study.make_arms(config)
  task = _setup.make_task(config)
  partition = _setup.make_partition(task, config.population, config.seed)
  print(
    f"{task.name}: {task.num_train} records on"
    f" {partition.num_clients} devices; {len(arms)} arms,"
    f" {config.num_seeds} seeds",
    flush=True,
  )
  algorithm = _setup.make_algorithm(
    task.loss_fn, config.algorithm, partition.num_clients
  )
  reporting.write_config(workdir, json.loads(json.dumps(config.to_dict())))
  scores = {arm.name: [] for arm in arms}
  for seed in range(config.seed, config.seed + config.num_seeds):
    world = _device_study.World(task, config, seed)
    for arm in arms:
      began = time.perf_counter()
      folder = workdir / "arms" / arm.name / f"seed_{seed}"
      found = _device_study.run_arm(world, arm, algorithm, folder)
      scores[arm.name].append(found)
      print(
        f"seed {seed}, {arm.name}: accuracy {found['accuracy']:.3f},"
        f" {time.perf_counter() - began:.1f} s",
        flush=True,
      )
  _device_record.write(workdir, config, task, partition, arms, scores)


if __name__ == "__main__":
  _console.run_binary(
    run, default_config="device_selection/default.py", keep_compiled=True
  )
