"""The training loop: draw, step, log, evaluate, save, repeat."""

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from trustjax.training import (
  _checkpoint,
  _interrupt,
  _metrics,
  _progress,
  _state,
  _step,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoopOptions:
  """How often the loop looks up from its work.

  Attributes:
    num_steps: Step to train to, counted from the run's beginning.
    log_every: Steps between rows of training metrics.
    evaluate_every: Steps between evaluations; 0 evaluates at the end only.
    save_every_seconds: Seconds between checkpoints.
    title: Name shown on the progress bar.
    show_progress: None shows the bar on a terminal only.
  """

  num_steps: int
  log_every: int = 10
  evaluate_every: int = 0
  save_every_seconds: float = 60.0
  title: str = "training"
  show_progress: bool | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainResult:
  """Where a session of training ended.

  Attributes:
    state: The last state.
    completed: Whether `num_steps` were reached.
    train_seconds: Time in steps over all sessions, less the first step of
      each, which is mostly compilation.
    seconds_per_step: Median over this session's steps but its first; nan when
      there were none.
    compile_seconds: Time of this session's first step, beyond a usual one.
    num_nonfinite: Clip units dropped in this session.
  """

  state: _state.TrainState
  completed: bool
  train_seconds: float
  seconds_per_step: float
  compile_seconds: float
  num_nonfinite: int


def train(
  state: _state.TrainState,
  step_fn: _step.StepFn,
  draw_lot: Callable[[int], Any],
  key: jax.Array,
  options: LoopOptions,
  *,
  writer: _metrics.MetricWriter | None = None,
  evaluate: Callable[[Any], dict[str, float]] | None = None,
  checkpointer: _checkpoint.Checkpointer | None = None,
) -> TrainResult:
  """Trains to `options.num_steps`, resuming from the newest checkpoint.

  Args:
    state: Initial state; replaced by the checkpoint's if there is one.
    step_fn: From `make_step` or `make_private_step`.
    draw_lot: Step to lot, a pure function, so that a resumed run draws what
      the uninterrupted one would have drawn.
    key: Root key of the run.
    options: How long, and how often to log, evaluate and save.
    writer: Where metrics go.
    evaluate: Parameters to named numbers.
    checkpointer: Where checkpoints go; without it Ctrl-C still stops between
      steps, but nothing is kept.

  Returns:
    The result; `completed` is False after Ctrl-C, with everything saved.
  """
  restored = checkpointer.restore(state) if checkpointer else None
  elapsed = 0.0
  if restored is not None:
    state, elapsed = restored
  start = int(state.step)
  seconds, nonfinite, saved_at = [], 0, time.monotonic()
  with (
    _interrupt.StopOnInterrupt() as stop,
    _progress.progress_bar(
      options.title,
      options.num_steps,
      start=start,
      enabled=options.show_progress,
    ) as progress,
  ):
    for step in range(start, options.num_steps):
      lot = draw_lot(step)
      began = time.perf_counter()
      state, metrics = step_fn(state, lot, key)
      seen = jax.device_get(_by_name(metrics))
      seconds.append(time.perf_counter() - began)
      nonfinite += int(seen["num_nonfinite"])
      done = step + 1
      progress(done, f"loss {seen['loss']:.3f}")
      if writer and _due(done, options.log_every, options):
        writer.write(done, {f"train/{k}": v for k, v in seen.items()})
      if evaluate and writer and _due(done, options.evaluate_every, options):
        writer.write(done, evaluate(state.params))
      if stop.requested:
        break
      if time.monotonic() - saved_at > options.save_every_seconds:
        _save(checkpointer, state, elapsed + sum(seconds[1:]))
        saved_at = time.monotonic()
    elapsed += sum(seconds[1:])
    _save(checkpointer, state, elapsed)
  usual = float(np.median(seconds[1:])) if len(seconds) > 1 else float("nan")
  first = seconds[0] if seconds else 0.0
  return TrainResult(
    state=state,
    # After Ctrl-C in the last step there is nothing left to do here, but the
    # caller was told to stop.
    completed=int(state.step) >= options.num_steps and not stop.requested,
    train_seconds=elapsed,
    seconds_per_step=usual,
    compile_seconds=max(0.0, first - (0.0 if np.isnan(usual) else usual)),
    num_nonfinite=nonfinite,
  )


def _due(done, every, options):
  """Every so many steps, and after the last, however few there are."""
  return done == options.num_steps or (every and done % every == 0)


def _save(checkpointer, state, elapsed):
  if checkpointer is not None:
    checkpointer.save(state, elapsed)


def _by_name(metrics):
  return {
    field.name: getattr(metrics, field.name)
    for field in dataclasses.fields(metrics)
  }
