"""Many models as one program: shadow models, canary trials, seeds.

Every model is trained by the same step on its own part of the same records.
A model's lots, first parameters and noise are functions of (seed or key,
model, step) alone, so a model of an ensemble is the model that would have been
trained by itself, whatever trains beside it and however the work is cut.
"""

import dataclasses
import math
import pathlib
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, Int, Key

from trustjax import privacy
from trustjax.training import (
  _checkpoint,
  _interrupt,
  _member_lots,
  _progress,
  _state,
  _step,
)

PyTree = Any

# What an ensemble's keys are drawn for.
_INIT, _TRAIN = range(2)
# Share of a device's memory for the states of models that train together;
# the rest is for activations and per-record gradients.
_STATE_SHARE = 0.25
_DEFAULT_MEMORY = 8 * 2**30


@dataclasses.dataclass(frozen=True, kw_only=True)
class EnsembleOptions:
  """How an ensemble is cut into work. No field changes the models.

  Attributes:
    num_steps: Steps of each model.
    steps_per_call: Steps between looks at the clock, Ctrl-C and the bar.
    chunk_size: Models whose states are in device memory together; None takes
      as many as a quarter of that memory holds.
    models_at_a_time: Models that are one batch dimension (`jax.vmap`); the
      rest of a chunk follows inside the same program. None takes all, but 1
      on a CPU, whose caches hold one model.
    save_every_seconds: Seconds between checkpoints.
    title: Name shown on the progress bar.
    show_progress: None shows the bar on a terminal only.
  """

  num_steps: int
  steps_per_call: int = 50
  chunk_size: int | None = None
  models_at_a_time: int | None = None
  save_every_seconds: float = 60.0
  title: str = "models"
  show_progress: bool | None = None

  def __post_init__(self):
    for field in (
      "num_steps",
      "steps_per_call",
      "chunk_size",
      "models_at_a_time",
    ):
      value = getattr(self, field)
      if value is not None and value < 1:
        raise ValueError(f"{field}: got {value}; it must be at least 1")


@dataclasses.dataclass(frozen=True, kw_only=True)
class EnsembleResult:
  """Where a session of ensemble training ended.

  Attributes:
    params: Parameters, host arrays with leading axis [models]; None when the
      session was stopped before all models were trained.
    completed: Whether all steps of all models were taken.
    train_seconds: Time of this session, compilation excluded.
    compile_seconds: Time to trace and compile the program.
    chunk_size: Models that were in memory together.
    models_at_a_time: Models that were one batch dimension.
    num_nonfinite: Clip units (or records) dropped in this session.
  """

  params: PyTree
  completed: bool
  train_seconds: float
  compile_seconds: float
  chunk_size: int
  models_at_a_time: int
  num_nonfinite: int


def train_ensemble(
  init: Callable[[PyTree], _state.TrainState],
  step: _step.StepFn,
  initial: Callable[[Key[Array, ""]], PyTree],
  examples: PyTree,
  lots: _member_lots.MemberLots,
  key: Key[Array, ""],
  options: EnsembleOptions,
  *,
  mesh: jax.sharding.Mesh | None = None,
  directory: str | pathlib.Path | None = None,
  identity: Mapping[str, Any] | None = None,
) -> EnsembleResult:
  """Trains models on their own records, all in one compiled program.

  Model i starts from `initial(ensemble_keys(key, i)[0])` and takes the steps
  that `train` would take with `lots.draw_lot(examples, i, step)` and the root
  key `ensemble_keys(key, i)[1]`. The program runs `steps_per_call` steps of a
  whole chunk of models, one model after the other or side by side; only the
  places of the records cross from the host, which draws the next lots
  meanwhile.

  Guarantee:
    Under a plan each model satisfies `plan.epsilon` with respect to its own
    records. Releasing several models of overlapping records composes; an
    attacker's shadow models are not released.

  Args:
    init: From `make_step` or `make_private_step`; `make_deferred_step` has
      noise to settle, which an ensemble does not do.
    step: Likewise; not of a host engine.
    initial: Key to first parameters.
    examples: Pytree of host arrays with leading axis [records].
    lots: Memberships, and how lots are drawn.
    key: Root key of the ensemble.
    options: How the work is cut.
    mesh: Devices that share each chunk's models; None runs on one.
    directory: Where checkpoints live; None keeps nothing.
    identity: JSON-able description of the run besides its lots and size.

  Returns:
    The result; `completed` is False after Ctrl-C, with everything saved.

  Raises:
    ValueError: The examples are not the memberships' records, or the step
      defers noise.
    CheckpointError: The directory belongs to another run.

  Example:
    >>> lots = MemberLots(keep=keep, seed=0, batch_size=64)
    >>> options = EnsembleOptions(num_steps=500)
    >>> result = train_ensemble(
    ...   init, step, model.init, train, lots, jax.random.key(0), options
    ... )
    >>> jax.tree.leaves(result.params)[0].shape[0] == len(keep)
    True
  """
  _check_records(examples, lots)

  def first_state(key):
    return init(initial(key))

  shapes = jax.eval_shape(first_state, key)
  _check_state(shapes)
  chunks = _Chunks.make(shapes, lots, options, mesh)
  program = _Program(step, first_state, examples, chunks, mesh)
  about = dict(identity or {}) | lots.describe()
  about |= {"num_steps": options.num_steps, "key": _key_words(key)}
  began = time.perf_counter()
  finished, nonfinite = _train_chunks(
    program, chunks, lots, key, options, directory, about
  )
  completed = len(finished) == math.ceil(lots.num_models / chunks.size)
  seconds = time.perf_counter() - began - program.compile_seconds
  return EnsembleResult(
    params=jax.tree.map(lambda *leaves: np.concatenate(leaves), *finished)
    if completed
    else None,
    completed=completed,
    train_seconds=seconds,
    compile_seconds=program.compile_seconds,
    chunk_size=chunks.size,
    models_at_a_time=chunks.together,
    num_nonfinite=nonfinite,
  )


def _train_chunks(program, chunks, lots, key, options, directory, about):
  """Parameters of the chunks that were finished, and units dropped."""
  finished, nonfinite = [], 0
  with (
    _interrupt.StopOnInterrupt() as stop,
    _progress.progress_bar(
      options.title,
      options.num_steps * lots.num_models,
      enabled=options.show_progress,
    ) as progress,
  ):
    for first in range(0, lots.num_models, chunks.size):
      models = np.minimum(np.arange(chunks.size) + first, lots.num_models - 1)
      count = min(chunks.size, lots.num_models - first)
      worker = _Worker(
        models=models,
        lots=lots,
        options=options,
        keys=jax.vmap(lambda i: ensemble_keys(key, i))(jnp.asarray(models)),
        checkpointer=_open(directory, about, first, count),
        report=lambda step, first=first, count=count: progress(
          first * options.num_steps + step * count, ""
        ),
      )
      params, dropped = worker.run(program, stop)
      nonfinite += int(dropped[:count].sum())
      if params is None:
        break
      finished.append(_first(params, count))
  return finished, nonfinite


def ensemble_keys(
  key: Key[Array, ""], model: int | Int[Array, ""]
) -> tuple[Key[Array, ""], Key[Array, ""]]:
  """The keys of one model: for its first parameters, and for its steps.

  Args:
    key: Root key of the ensemble.
    model: Model, from 0.

  Returns:
    (key of the first parameters, root key of training).
  """
  own = jax.random.fold_in(key, model)
  return jax.random.fold_in(own, _INIT), jax.random.fold_in(own, _TRAIN)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Chunks:
  """How many models are in memory, and how many of them side by side."""

  size: int
  together: int

  @classmethod
  def make(cls, state, lots, options, mesh) -> "_Chunks":
    """From the shapes of one model's state."""
    num_models = lots.num_models
    devices = 1 if mesh is None else mesh.size
    device = jax.devices()[0] if mesh is None else mesh.devices.flat[0]
    size = options.chunk_size
    if size is None:
      leaves = jax.tree.leaves(state)
      each = sum(leaf.size * leaf.dtype.itemsize for leaf in leaves)
      memory = (device.memory_stats() or {}).get("bytes_limit", _DEFAULT_MEMORY)
      size = devices * max(1, int(_STATE_SHARE * memory // each))
    together = options.models_at_a_time
    if together is None:
      together = 1 if device.platform == "cpu" else num_models
    # Equal chunks of equal parts: one shape, so one compilation.
    count = math.ceil(num_models / min(size, num_models))
    share = math.ceil(math.ceil(num_models / count) / devices)
    parts = math.ceil(share / min(together, share))
    together = math.ceil(share / parts)
    return cls(size=parts * together * devices, together=together)


class _Program:
  """Steps of a chunk of models, compiled once."""

  def __init__(self, step, first_state, examples, chunks, mesh):
    def one_model(own, examples, count):
      state, key, ids, valid = own

      def advance(t, carry):
        state, dropped = carry
        lot = privacy.Lot(
          examples=jax.tree.map(lambda leaf: leaf[ids[t]], examples),
          valid=valid[t],
          ids=ids[t],
        )
        state, metrics = step(state, lot, key)
        return state, dropped + metrics.num_nonfinite.astype(jnp.int32)

      start = (state, jnp.zeros((), jnp.int32))
      # A traced trip count: the last, shorter call needs no other program.
      return jax.lax.fori_loop(0, count, advance, start)

    def chunk(states, keys, ids, valid, examples, count):
      def models(args):
        return one_model(args, examples, count)

      args = (states, keys, ids, valid)
      if chunks.together == 1:
        return jax.lax.map(models, args)
      if chunks.together == ids.shape[0]:
        return jax.vmap(models)(args)
      return jax.lax.map(models, args, batch_size=chunks.together)

    self._split = self._whole = None
    if mesh is not None:
      mesh = jax.sharding.Mesh(mesh.devices, mesh.axis_names)
      split, whole = PartitionSpec(mesh.axis_names), PartitionSpec()
      self._split = NamedSharding(mesh, split)
      self._whole = NamedSharding(mesh, whole)
      chunk = jax.shard_map(
        chunk,
        mesh=mesh,
        in_specs=(*(split,) * 4, whole, whole),
        out_specs=split,
        # Engines' loops carry sums that start equal and then differ.
        check_vma=False,
      )
    self._jitted = jax.jit(chunk, donate_argnums=0)
    self._first = jax.jit(jax.vmap(first_state))
    self._compiled = {}
    self._examples = jax.device_put(examples, self._whole)
    self.compile_seconds = 0.0

  def place(self, tree: PyTree) -> PyTree:
    """Puts arrays with a leading axis of models on their devices."""
    return jax.device_put(tree, self._split)

  def first_states(self, keys: jax.Array) -> _state.TrainState:
    """States before the first step."""
    began = time.perf_counter()
    if "first" not in self._compiled:
      self._compiled["first"] = self._first.lower(keys).compile()
      self.compile_seconds += time.perf_counter() - began
    return self._compiled["first"](keys)

  def __call__(self, states, keys, drawn, count):
    args = (
      states,
      keys,
      *self.place(drawn),
      self._examples,
      jax.device_put(np.int32(count), self._whole),
    )
    shape = drawn[0].shape
    if shape not in self._compiled:
      began = time.perf_counter()
      self._compiled[shape] = self._jitted.lower(*args).compile()
      self.compile_seconds += time.perf_counter() - began
    return self._compiled[shape](*args)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Worker:
  """Trains one chunk of models to the end, or to Ctrl-C."""

  models: np.ndarray
  lots: _member_lots.MemberLots
  options: EnsembleOptions
  keys: tuple[jax.Array, jax.Array]
  checkpointer: _checkpoint.Checkpointer | None
  report: Callable[[int], None]

  def run(self, program, stop):
    """Final parameters, or None if stopped, and dropped units by model."""
    states = program.first_states(self.keys[0])
    done, dropped = 0, np.zeros(len(self.models), np.int64)
    restored = self._restore(states)
    if restored is not None:
      states, done = restored
    states, keys = map(program.place, (states, self.keys[1]))
    drawn, saved_at = self._draw(done), time.monotonic()
    num_steps = self.options.num_steps
    while done < num_steps and not stop.requested:
      count = min(self.options.steps_per_call, num_steps - done)
      states, bad = program(states, keys, drawn, count)
      done += count
      drawn = self._draw(done)  # While the devices work.
      dropped += np.asarray(bad)
      self.report(done)
      if time.monotonic() - saved_at > self.options.save_every_seconds:
        self._save(states, done)
        saved_at = time.monotonic()
    self._save(states, done)
    if self.checkpointer is not None:
      self.checkpointer.close()
    if done < num_steps:
      return None, dropped
    return jax.device_get(states.params), dropped

  def _draw(self, first):
    """Lots of one call, [models, steps, slots]; empty beyond the last step."""
    steps = range(
      first, min(first + self.options.steps_per_call, self.options.num_steps)
    )
    if not steps:
      return ()
    drawn = {
      model: [self.lots.draw(model, step) for step in steps]
      for model in set(self.models.tolist())
    }
    shapes = [lot.indices.shape for lots in drawn.values() for lot in lots]
    # Groups are alike; lots of single records are padded to those of the
    # largest model, so that all chunks share a program.
    slots = max(self.lots.usual_slots, *(shape[0] for shape in shapes))
    size = (len(self.models), self.options.steps_per_call, slots)
    size += shapes[0][1:]
    ids, valid = np.zeros(size, np.int32), np.zeros(size, bool)
    for place, model in enumerate(self.models.tolist()):
      for t, lot in enumerate(drawn[model]):
        ids[place, t, : len(lot.indices)] = lot.indices
        valid[place, t, : len(lot.indices)] = lot.valid
    return ids, valid

  def _save(self, states, done):
    if self.checkpointer is not None:
      whole = dataclasses.replace(states, step=np.asarray(done, np.int32))
      self.checkpointer.save(jax.device_get(whole), 0.0)

  def _restore(self, states):
    if self.checkpointer is None:
      return None
    template = dataclasses.replace(states, step=jnp.zeros((), jnp.int32))
    restored = self.checkpointer.restore(template)
    if restored is None:
      return None
    whole, done = restored[0], int(restored[0].step)
    steps = jnp.full(len(self.models), done, jnp.int32)
    return dataclasses.replace(whole, step=steps), done


def _open(directory, identity, first, count):
  if directory is None:
    return None
  name = f"models_{first}_{first + count - 1}"
  return _checkpoint.Checkpointer(
    pathlib.Path(directory) / name, identity=identity, keep=1
  )


def _first(tree, count):
  """The first entries of every leaf."""
  return jax.tree.map(lambda leaf: leaf[:count], tree)


def _key_words(key):
  return np.asarray(jax.random.key_data(key)).ravel().tolist()


def _check_state(state):
  if isinstance(state, privacy.DeferredState):
    raise ValueError(
      "init: got that of make_deferred_step; an ensemble never settles"
      " deferred noise, so its models would lack it. Give the init and step of"
      " make_private_step, whose noise has the same distribution, or of"
      " make_step; or train each model alone with train and its settle"
    )


def _check_records(examples, lots):
  records = lots.keep.shape[1]
  for path, leaf in jax.tree_util.tree_leaves_with_path(examples):
    if np.shape(leaf)[:1] != (records,):
      raise ValueError(
        f"examples{jax.tree_util.keystr(path)}: got shape {np.shape(leaf)};"
        f" the leading axis must be the memberships' {records} records"
      )
