"""Early stopping as part of the step: pure, so that an ensemble can map it."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from trustjax import training

PyTree = Any


def with_early_stopping(
  built: tuple[Callable, Callable],
  validation_loss: Callable[[PyTree], jax.Array],
  *,
  every: int,
  start: int,
) -> tuple[Callable, Callable]:
  """Stops a model when its validation loss rises, and takes it back there.

  Every `every` steps the loss of clean held-out records is compared with the
  last one. If it has risen, the parameters return to those of the last
  comparison and stay there for the rest of the run.

  Args:
    built: (init, step) of any step.
    validation_loss: Parameters to the loss of the held-out records.
    every: Steps between comparisons.
    start: Step from which on a rise counts.

  Returns:
    (init, step); the state's `opt_state` holds the last comparison.

  Raises:
    ValueError: `every` or `start` is out of range.
  """
  init, step = built
  if every < 1 or start < 0:
    raise ValueError(
      f"early_stopping: got every {every}, start {start}; they must be at"
      " least 1 and 0"
    )

  def stopping_init(params):
    state = init(params)
    kept = {
      "inner": state.opt_state,
      # A copy: the step donates its parameters.
      "params": jax.tree.map(jnp.array, state.params),
      "loss": jnp.float32(jnp.inf),
      "stopped": jnp.zeros((), bool),
    }
    return _with(state, state.params, kept)

  def stopping_step(state, lot, key):
    kept = state.opt_state
    moved, metrics = step(_with(state, state.params, kept["inner"]), lot, key)

    def compare(kept):
      loss = validation_loss(moved.params).astype(jnp.float32)
      rose = (loss > kept["loss"]) & (moved.step >= start)
      stopped = kept["stopped"] | rose
      best = jax.tree.map(
        lambda old, new: jnp.where(stopped, old, new),
        kept["params"],
        moved.params,
      )
      return {
        "params": best,
        "loss": jnp.where(stopped, kept["loss"], loss),
        "stopped": stopped,
      }

    held = {k: v for k, v in kept.items() if k != "inner"}
    held = jax.lax.cond(
      moved.step % every == 0, compare, lambda kept: kept, held
    )
    params = jax.tree.map(
      lambda old, new: jnp.where(held["stopped"], old, new),
      held["params"],
      moved.params,
    )
    return _with(moved, params, held | {"inner": moved.opt_state}), metrics

  return stopping_init, stopping_step


def _with(state, params, opt_state):
  return training.TrainState(
    step=state.step,
    params=params,
    opt_state=opt_state,
    clip_state=state.clip_state,
  )
