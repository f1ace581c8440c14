"""Checkpoints that resume exactly, and only the run they belong to.

Orbax stores the state; beside it stand the run's identity (the plan's
description among it) and a digest of the state. A checkpoint of another plan
is refused, because the epsilon of a run spliced from two plans would be wrong;
one whose bytes changed is refused, because it would train on silently.
"""

import dataclasses
import hashlib
import os
import pathlib
from typing import Any, TypeVar

import jax
import numpy as np
import orbax.checkpoint as ocp

from trustjax.training import _state

_State = TypeVar("_State", bound=_state.State)


class CheckpointError(Exception):
  """A checkpoint that cannot be used, and what to do about it."""


class Checkpointer:
  """Saves and restores states under one folder.

  Attributes:
    directory: The folder; one sub-folder per saved step.
  """

  def __init__(
    self,
    directory: str | os.PathLike[str],
    *,
    identity: dict[str, Any],
    keep: int = 2,
  ):
    """Opens the folder, which need not exist.

    Args:
      directory: Where the checkpoints live.
      identity: JSON-able description of the run: `plan.describe()`, model,
        optimiser, data. A restore is refused when it differs.
      keep: How many checkpoints to keep.
    """
    self.directory = pathlib.Path(directory).absolute()
    self._identity = identity
    self._manager = ocp.CheckpointManager(
      self.directory,
      options=ocp.CheckpointManagerOptions(
        max_to_keep=keep, enable_async_checkpointing=False
      ),
    )

  def save(self, state: _state.State, elapsed_seconds: float) -> None:
    """Writes the state; one that is saved already is left alone.

    Another state of the same step, whose noise was settled since, takes its
    place.

    Args:
      state: The state after some step.
      elapsed_seconds: Training time so far, over all sessions.
    """
    step = int(state.step)
    digest = _digest(state)
    if step in self._manager.all_steps():
      if self._read_about(step).get("digest") == digest:
        return
      self._manager.delete(step)
    about = {
      "identity": self._identity,
      "digest": digest,
      "elapsed_seconds": elapsed_seconds,
    }
    self._manager.save(
      step,
      args=ocp.args.Composite(
        state=ocp.args.StandardSave(_as_tree(state)),
        about=ocp.args.JsonSave(about),
      ),
    )
    self._manager.wait_until_finished()

  def latest_step(self) -> int:
    """Step of the newest checkpoint; 0 when there is none."""
    return self._manager.latest_step() or 0

  def restore(self, template: _State) -> tuple[_State, float] | None:
    """Reads the newest checkpoint.

    Args:
      template: A state of the same structure, such as the initial one.

    Returns:
      (state, elapsed seconds), or None when there is no checkpoint.

    Raises:
      CheckpointError: It belongs to another run, or cannot be read whole.
    """
    step = self._manager.latest_step()
    if step is None:
      return None
    where = self.directory / str(step)
    about = self._read_about(step)
    check_identity(where, about.get("identity"), self._identity)
    abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, _as_tree(template))
    tree = self._read(step, state=ocp.args.StandardRestore(abstract))["state"]
    state = type(template)(**tree)
    if _digest(state) != about.get("digest"):
      raise CheckpointError(_unusable(where, "its contents changed on disk"))
    return state, float(about["elapsed_seconds"])

  def _read_about(self, step) -> dict[str, Any]:
    about = self._read(step, about=ocp.args.JsonRestore())["about"]
    return about if isinstance(about, dict) else {}

  def _read(self, step, **items):
    where = self.directory / str(step)
    try:
      return self._manager.restore(step, args=ocp.args.Composite(**items))
    except Exception as error:  # Orbax raises whatever its storage raises.
      raise CheckpointError(
        _unusable(where, f"{type(error).__name__}: {error}")
      ) from error

  def close(self) -> None:
    """Releases the folder."""
    self._manager.close()


def check_identity(
  where: str | os.PathLike[str],
  saved: dict[str, Any] | None,
  current: dict[str, Any],
) -> None:
  """Raises CheckpointError unless saved work belongs to this run.

  Args:
    where: Path of the saved work, for the message.
    saved: The identity it was saved under.
    current: The identity of this run.
  """
  differing = differences(saved, current)
  if differing:
    raise CheckpointError(
      f"checkpoint {where} belongs to another run; continuing it under this"
      " plan would make the reported guarantee wrong. Differing fields: "
      + "; ".join(differing)
      + ". Use another workdir, or restore the old settings."
    )


def _unusable(where, why):
  reason = " ".join(str(why).split())[:300]
  return (
    f"checkpoint {where} cannot be restored ({reason})."
    " Delete that folder to continue from the checkpoint before it, or from"
    " the start if there is none."
  )


def _as_tree(state):
  """The state as a plain dict, less its empty parts' ambiguity."""
  return {
    field.name: getattr(state, field.name)
    for field in dataclasses.fields(state)
  }


def _digest(state) -> str:
  """SHA-256 over every leaf's path, shape, type and bytes."""
  digest = hashlib.sha256()
  for path, leaf in jax.tree_util.tree_leaves_with_path(_as_tree(state)):
    array = np.asarray(leaf)
    header = (jax.tree_util.keystr(path), array.shape, str(array.dtype))
    digest.update(repr(header).encode())
    digest.update(np.ascontiguousarray(array).tobytes())
  return digest.hexdigest()


def differences(saved: Any, current: Any, path: str = "") -> list[str]:
  """Says in which fields two JSON values differ, a phrase for each."""
  if isinstance(saved, dict) and isinstance(current, dict):
    found = []
    for name in sorted(saved.keys() | current.keys()):
      here = f"{path}.{name}" if path else name
      found += differences(saved.get(name), current.get(name), here)
    return found
  if saved == current:
    return []
  return [f"{path or 'identity'} was {saved!r}, is {current!r}"]
