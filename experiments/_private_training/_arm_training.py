"""Trains one arm with one seed: resumable, and finished work is kept."""

import dataclasses
import json
import pathlib
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments._binary import _console
from experiments._private_training import _arms
from trustjax import data, models, privacy, reporting, training

# What the root keys of a run are drawn for.
_INIT, _TRAIN = range(2)
# Rounding differs between engines, and Adam divides by small numbers.
_AGREEMENT = 1e-3


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
  """What all arms share: the data, the model, the loss.

  Attributes:
    corpus: Encoded splits.
    model: The model, the same for every arm.
    loss_fn: Loss of one record.
    initial: Key to the parameters that are trained.
    frozen: Parameters that are not, or None.
    describe: The task as JSON-able data, for the runs' identity.
  """

  corpus: data.PreparedCorpus
  model: models.Model
  loss_fn: Callable
  initial: Callable[[jax.Array], Any]
  frozen: Any = None
  describe: dict[str, Any]


def root_key(seed: int, purpose: int) -> jax.Array:
  """The key of a purpose, addressed by the run's seed."""
  return jax.random.fold_in(jax.random.key(seed), purpose)


def draw_lot(task: Task, arm: _arms.Arm, seed: int, step: int) -> privacy.Lot:
  """The arm's lot of a step, as arrays.

  Without a plan, batches are cut from a fresh permutation of each epoch.
  """
  examples = task.corpus.train
  if arm.plan is not None:
    return arm.plan.draw_lot(
      examples, seed, step, capacity_multiple=arm.chunk_size or 32
    )
  drawn = privacy.shuffled_lot(
    num_records=task.corpus.num_train,
    batch_size=arm.batch_size,
    seed=seed,
    step=step,
  )
  return privacy.Lot(
    examples=data.gather(examples, drawn.indices),
    valid=drawn.valid,
    ids=drawn.indices,
  )


def build_to_run(task: Task, arm: _arms.Arm):
  """The arm's (init, step, settle), for `run_arm`.

  Raises:
    ValueError: Its noise cannot be deferred.
  """
  if arm.noise == "flat" or arm.plan is None:
    return *build(task, arm), training.nothing_to_settle
  return training.make_deferred_step(
    task.loss_fn,
    arm.make_learning_rate(),
    arm.plan,
    task.initial(root_key(0, _INIT)),
    {name: leaf[0] for name, leaf in task.corpus.train.items()},
    chunk_size=arm.chunk_size,
  )


def build(task: Task, arm: _arms.Arm):
  """The arm's (init, step) with noise at every step."""
  if arm.plan is None:
    return training.make_step(
      task.loss_fn,
      arm.make_optimizer(),
      chunk_size=arm.chunk_size,
      frozen=task.frozen,
    )
  return training.make_private_step(
    task.loss_fn,
    arm.make_optimizer(),
    arm.plan,
    engine=arm.engine,
    chunk_size=arm.chunk_size,
    frozen=task.frozen,
  )


def run_arm(
  task: Task,
  arm: _arms.Arm,
  built: tuple[Callable, Callable, Callable],
  seed: int,
  folder: pathlib.Path,
  options: training.LoopOptions,
) -> dict[str, float]:
  """Trains and scores one arm, or reads the scores of a finished run.

  Args:
    task: What all arms share.
    arm: The arm.
    built: From `build_to_run`; seeds share it, so that they compile once.
    seed: Seed of initialisation, lots and noise.
    folder: Where its metrics, checkpoints and scores live.
    options: Of the loop.

  Returns:
    Scores on the test split and times, by name.

  Raises:
    _console.Stopped: Ctrl-C.
    training.CheckpointError: The folder belongs to another run.
  """
  identity = arm.describe() | task.describe | {"seed": seed}
  if arm.noise == "deferred":  # Where it is settled, its draws are cut.
    identity["evaluate_every"] = options.evaluate_every
  finished = folder / "scores.json"
  if finished.exists():
    return _finished_scores(finished, identity)
  init, step, settle = built
  state = init(task.initial(root_key(seed, _INIT)))
  checkpointer = training.Checkpointer(
    folder / "checkpoints", identity=identity
  )
  start = checkpointer.latest_step()
  with training.MetricWriter(
    folder / "metrics.jsonl", resume_at=start
  ) as writer:
    result = training.train(
      state,
      step,
      lambda step: draw_lot(task, arm, seed, step),
      root_key(seed, _TRAIN),
      options,
      settle=settle,
      writer=writer,
      evaluate=lambda params: _scores(task, params, "validation"),
      checkpointer=checkpointer,
    )
  checkpointer.close()
  if not result.completed:
    raise _console.Stopped(
      f"stopped after step {int(result.state.step)} of {options.num_steps} of"
      f" {arm.name}, seed {seed}; all is saved in {folder}"
    )
  scores = _scores(task, result.params, "test") | {
    "seconds_per_step": result.seconds_per_step,
    "train_seconds": result.train_seconds,
    "compile_seconds": result.compile_seconds,
    "num_nonfinite": float(result.num_nonfinite),
  }
  # A session that only ran the last step has no usual step to time.
  scores = {k: v for k, v in scores.items() if np.isfinite(v)}
  reporting.write_atomically(
    finished,
    json.dumps({"identity": identity, "scores": scores}, indent=2) + "\n",
  )
  return scores


def _finished_scores(path, identity):
  saved = json.loads(path.read_text(encoding="utf-8"))
  training.check_identity(path, saved.get("identity"), identity)
  return saved["scores"]


def _scores(task, params, split):
  scores = models.evaluate(
    task.model,
    privacy.merge(params, task.frozen),
    task.corpus.split(split),
    task.corpus.slot_labels,
  )
  return {
    f"{split}/{name}" if split != "test" else name: float(value)
    for name, value in dataclasses.asdict(scores).items()
    if name != "num_records"
  }


def run_loop_steps(
  task: Task, arm: _arms.Arm, twin: _arms.Arm, seed: int, num_steps: int
) -> dict[str, float]:
  """Times a few steps of the per-record loop against the compiled engine.

  Args:
    task: What all arms share.
    arm: The arm with engine "loop".
    twin: The same arm with the engine it is compared with.
    seed: Seed of initialisation, lots and noise.
    num_steps: Steps to run.

  Returns:
    seconds_per_step (median, after compilation) and
    max_difference, the largest relative difference of a parameter leaf.

  Raises:
    RuntimeError: The two disagree, so one of them is wrong.
  """
  key, params = root_key(seed, _TRAIN), task.initial(root_key(seed, _INIT))
  ends, seconds = [], []
  for which in (arm, twin):
    init, step = build(task, which)
    state, times = init(params), []
    # One call on a throw-away state compiles outside the clock.
    jax.block_until_ready(
      step(init(params), draw_lot(task, twin, seed, 0), key)
    )
    for i in range(num_steps):
      lot = draw_lot(task, twin, seed, i)
      state, elapsed = _timed(step, state, lot, key)
      times.append(elapsed)
    ends.append(state.params)
    seconds.append(float(np.median(times)))
  difference = max(jax.tree.leaves(jax.tree.map(_relative_difference, *ends)))
  if not difference < _AGREEMENT:
    raise RuntimeError(
      f"{arm.name} and {twin.name} differ by {difference:.2g} after"
      f" {num_steps} steps (at most {_AGREEMENT:g} is rounding); the engine"
      f" {twin.engine!r} is wrong for this model"
    )
  return {"seconds_per_step": seconds[0], "max_difference": difference}


def _timed(step, state, lot, key):
  began = time.perf_counter()
  state, _ = jax.block_until_ready(step(state, lot, key))
  return state, time.perf_counter() - began


def _relative_difference(one, other):
  scale = jnp.maximum(jnp.linalg.norm(jnp.ravel(other)), 1e-12)
  return float(jnp.linalg.norm(jnp.ravel(one - other)) / scale)
