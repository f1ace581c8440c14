"""The training loop: draw, step, log, evaluate, save, repeat."""

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from trustjax import privacy
from trustjax.training import (
  _checkpoint,
  _interrupt,
  _metrics,
  _progress,
  _state,
  _step,
)

PyTree = Any


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
    params: Its parameters, settled; None unless completed.
    completed: Whether `num_steps` were reached.
    train_seconds: Time in steps and in settling over all sessions, less the
      first of each, which is mostly compilation.
    seconds_per_step: Median over this session's steps but its first; nan when
      there were none.
    compile_seconds: Time of this session's first step, beyond a usual one.
    num_nonfinite: Clip units dropped in this session.
  """

  state: _state.State
  params: PyTree
  completed: bool
  train_seconds: float
  seconds_per_step: float
  compile_seconds: float
  num_nonfinite: int


def train(
  state: _state.State,
  step_fn: _step.StepFn,
  draw_lot: Callable[[int], Any],
  key: jax.Array,
  options: LoopOptions,
  *,
  settle: _step.SettleFn = _step.nothing_to_settle,
  writer: _metrics.MetricWriter | None = None,
  evaluate: Callable[[Any], dict[str, float]] | None = None,
  checkpointer: _checkpoint.Checkpointer | None = None,
) -> TrainResult:
  """Trains to `options.num_steps`, resuming from the newest checkpoint.

  Guarantee:
    That of the step. Where noise is deferred, only settled parameters are
    evaluated or returned, and the settled state is saved before they leave, so
    that a resumed run never draws their noise anew. It settles where it
    evaluates and at its end: another `evaluate_every` is the same in
    distribution, but not bit for bit.

  Args:
    state: Initial state; replaced by the checkpoint's if there is one.
    step_fn: From `make_step`, `make_private_step` or `make_deferred_step`.
    draw_lot: Step to lot, a pure function, so that a resumed run draws what
      the uninterrupted one would have drawn.
    key: Root key of the run.
    options: How long, and how often to log, evaluate and save.
    settle: From `make_deferred_step`; other steps need none.
    writer: Where metrics go.
    evaluate: Parameters to named numbers, which only the writer sees.
    checkpointer: Where checkpoints go; without it Ctrl-C still stops between
      steps, but nothing is kept.

  Returns:
    The result; `completed` is False after Ctrl-C, with everything saved.

  Raises:
    ValueError: The state's noise is deferred and there is no `settle`.
    CheckpointError: The checkpoint belongs to another run, or is damaged.
  """
  _check_settle(state, settle)
  session = _Session(step_fn, settle, key, checkpointer)
  state, params, nonfinite = session.restore(state), None, 0
  start, saved_at = int(state.step), time.monotonic()
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
      lot, params = draw_lot(step), None
      state, seen = session.step(state, lot)
      nonfinite += int(seen["num_nonfinite"])
      done = step + 1
      progress(done, f"loss {seen['loss']:.3f}")
      if writer and _due(done, options.log_every, options):
        writer.write(done, {f"train/{k}": v for k, v in seen.items()})
      if evaluate and writer and _due(done, options.evaluate_every, options):
        before = state
        params, state = session.settle(state)
        values = evaluate(params)
        if state is not before:  # What was drawn stands before it is seen.
          session.save(state)
        writer.write(done, values)
      if stop.requested:
        break
      if time.monotonic() - saved_at > options.save_every_seconds:
        session.save(state)
        saved_at = time.monotonic()
    # After Ctrl-C in the last step there is nothing left to do here, but the
    # caller was told to stop.
    completed = int(state.step) >= options.num_steps and not stop.requested
    if completed and params is None:
      params, state = session.settle(state)
    session.save(state)
  return TrainResult(
    state=state,
    params=params if completed else None,
    completed=completed,
    num_nonfinite=nonfinite,
    **session.times(),
  )


def _check_settle(state, settle):
  deferred = isinstance(state, privacy.DeferredState)
  if deferred and settle is _step.nothing_to_settle:
    raise ValueError(
      "settle: got none for a state with deferred noise; give the one that"
      " came with its step"
    )


class _Session:
  """Steps, settles and saves, and knows how long that took."""

  def __init__(self, step_fn, settle, key, checkpointer):
    self._step_fn, self._settle, self._key = step_fn, settle, key
    self._checkpointer = checkpointer
    self._before = 0.0  # Seconds of earlier sessions.
    self._steps: list[float] = []
    self._settling: list[float] = []

  def restore(self, state):
    """The newest checkpoint's state, or this one if there is none."""
    restored = self._checkpointer and self._checkpointer.restore(state)
    if restored:
      state, self._before = restored
    return state

  def step(self, state, lot):
    """The next state, and the step's metrics by name, on the host."""
    began = time.perf_counter()
    state, metrics = self._step_fn(state, lot, self._key)
    seen = jax.device_get(
      {
        field.name: getattr(metrics, field.name)
        for field in dataclasses.fields(metrics)
      }
    )
    self._steps.append(time.perf_counter() - began)
    return state, seen

  def settle(self, state):
    """Parameters that may be looked at, and the state to go on from."""
    began = time.perf_counter()
    params, state = self._settle(state, self._key)
    jax.block_until_ready(params)
    self._settling.append(time.perf_counter() - began)
    return params, state

  def save(self, state) -> None:
    """Writes a checkpoint, if checkpoints are kept."""
    if self._checkpointer is not None:
      self._checkpointer.save(state, self._elapsed())

  def _elapsed(self):
    return self._before + sum(self._steps[1:]) + sum(self._settling[1:])

  def times(self) -> dict[str, float]:
    """The times of a `TrainResult`."""
    first, rest = (self._steps or [0.0])[0], self._steps[1:]
    usual = float(np.median(rest)) if rest else float("nan")
    return {
      "train_seconds": self._elapsed(),
      "seconds_per_step": usual,
      "compile_seconds": max(0.0, first - (usual if rest else 0.0)),
    }


def _due(done, every, options):
  """Every so many steps, and after the last, however few there are."""
  return done == options.num_steps or (every and done % every == 0)
