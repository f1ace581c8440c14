"""Running a cohort: one program for a whole round, or sums piece by piece."""

import dataclasses
import functools
import math
import typing
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from trustjax.federated import (
  _algorithm,
  _backends,
  _choose,
  _cohort,
  _placement,
  _upload,
)

PyTree = Any
BACKENDS = ("loop", "scan", "vmap", "auto")
# Purposes keep the streams of one root key apart.
_TRAIN = 0x7A1817


@dataclasses.dataclass(frozen=True, kw_only=True)
class Execution:
  """How a cohort is run; it never changes the result beyond rounding.

  Attributes:
    backend: "loop", "scan", "vmap" or "auto".
    chunk_size: Clients side by side under "vmap".
    devices: None, "pmap" or "shard_map".
    num_devices: How many; None takes all.

  Raises:
    ValueError: An option is unknown or contradicts another.
  """

  backend: str = "auto"
  chunk_size: int | None = None
  devices: str | None = None
  num_devices: int | None = None

  def __post_init__(self):
    if self.backend not in BACKENDS:
      raise ValueError(
        f"backend: got {self.backend!r}; allowed are {list(BACKENDS)}"
      )
    if self.chunk_size is not None and self.chunk_size < 1:
      raise ValueError(
        f"chunk_size: got {self.chunk_size}; it must be at least 1"
      )
    if self.chunk_size is not None and self.backend in ("loop", "scan"):
      raise ValueError(
        f"chunk_size: got {self.chunk_size} with backend {self.backend!r},"
        " which runs one client at a time; use 'vmap'"
      )
    if self.backend == "loop" and self.devices is not None:
      raise ValueError(
        f"devices: got {self.devices!r} with backend 'loop', which runs on the"
        " host; use 'scan', 'vmap' or 'auto'"
      )
    _placement.devices_for(self.devices, self.num_devices)


@typing.no_type_check  # JAX rebuilds records with placeholders of its own.
@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class RoundMetrics:
  """What was seen in a round. None of it is private.

  Attributes:
    loss: Mean loss of the records that clients trained on; nan without any.
    num_examples: Records used, with repetitions.
    num_steps: Local steps.
    num_clients: Clients that were summed.
    num_nonfinite: Clients dropped because their update was not finite.
    update_norm: L2 norm of the weighted sum of the updates, before noise.
    client_norm: Mean L2 norm of the clients' updates, before clipping; nan in
      rounds that have no use for it.
    clipped_share: Share of the clients whose update was clipped.
    ids: Client in each slot.
    client_loss: Sum of each client's losses, zero in invalid slots.
    client_examples: Records that each client used.
  """

  loss: Float[Array, ""]
  num_examples: Int[Array, ""]
  num_steps: Int[Array, ""]
  num_clients: Int[Array, ""]
  num_nonfinite: Int[Array, ""]
  update_norm: Float[Array, ""]
  client_norm: Float[Array, ""]
  clipped_share: Float[Array, ""]
  ids: Int[Array, " slots"]
  client_loss: Float[Array, " slots"]
  client_examples: Int[Array, " slots"]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class CohortSums:
  """Sums over a cohort, decoded.

  Attributes:
    update: Weighted sum of the updates.
    side: Plain sum of the side results.
    norms: Norm of each slot's update before clipping.
    counted: Which slots were summed.
    memory: New memory of all clients.
  """

  update: PyTree
  side: PyTree
  norms: Array
  counted: Array
  memory: PyTree


def sum_clients(
  algorithm: _algorithm.FederatedAlgorithm,
  upload: _upload.Upload,
  state: _algorithm.ServerState,
  cohort: _cohort.Cohort,
  key: Array,
  *,
  execution: Execution,
) -> tuple[CohortSums, RoundMetrics]:
  """Trains the cohort's clients and sums up what they send.

  Args:
    algorithm: The algorithm.
    upload: Compression, clipping and encoding.
    state: The state; its round addresses the clients' randomness.
    cohort: With data.
    key: Root key of the run.
    execution: How.

  Returns:
    (sums, metrics).
  """
  devices = _placement.devices_for(execution.devices, execution.num_devices)
  slots = np.shape(cohort.valid)[0]
  backend, chunk = _resolve(algorithm, state, slots, len(devices), execution)
  block = _make_block(cohort, slots, len(devices) * chunk)
  block = block._replace(memory=_rows(state.memory, block.ids))
  shared = _algorithm.Shared(params=state.params, control=state.control)
  round_key = _round_key(key, state.round)

  def run(upload):
    reduce = _compiled_reduce(
      _backends.Work(algorithm, upload),
      backend,
      chunk,
      execution.devices,
      tuple(devices),
    )
    out = reduce(shared, block, state.clip_state, round_key)
    return _collect(upload, state.memory, cohort.ids, cohort.valid, out)

  return _run_checked(run, upload)


def whole_round(algorithm, upload, state, cohort, key, *, execution):
  """A round on one device, compiled as a whole: (state, metrics).

  A small cohort trains in milliseconds, and each call from the host would
  take a tenth of that.
  """
  slots = np.shape(cohort.valid)[0]
  backend, chunk = _resolve(algorithm, state, slots, 1, execution)
  block = _make_block(cohort, slots, chunk)

  def run(upload):
    work = _backends.Work(algorithm, upload)
    return _compiled_round(work, backend, chunk, slots)(state, block, key)

  return _run_checked(run, upload)


def _run_checked(run, upload):
  """Runs once more, measuring every client, if the sum is not finite."""
  result, metrics = run(upload)
  if upload.measures or math.isfinite(metrics.update_norm):
    return result, metrics
  return run(dataclasses.replace(upload, checked=True))


@functools.lru_cache(maxsize=32)
def _compiled_round(work, backend, chunk, slots):
  """A round as one program; remembered, so that rounds share it."""
  reduce = _one_device(work, backend, chunk)

  @jax.jit
  def whole(state, block, key):
    block = block._replace(memory=_rows(state.memory, block.ids))
    shared = _algorithm.Shared(params=state.params, control=state.control)
    out = reduce(shared, block, state.clip_state, _round_key(key, state.round))
    sums, metrics = _collect(
      work.upload, state.memory, block.ids[:slots], block.valid[:slots], out
    )
    return server_step(work.algorithm, state, sums), metrics

  return whole


def _rows(memory, ids):
  return jax.tree.map(lambda leaf: leaf[ids], memory)


@jax.jit
def _round_key(key, round):
  return jax.random.fold_in(jax.random.fold_in(key, _TRAIN), round)


@functools.partial(jax.jit, static_argnums=0)
def _collect(upload, memory, ids, valid, out):
  """Decodes the sums and writes the clients' memory back."""
  slots = valid.shape[0]
  reports = jax.tree.map(lambda leaf: leaf[:slots], out.reports)
  counted = jnp.sum(reports.counted, dtype=jnp.int32)
  update = upload.receive(out.update, counted)
  # An invalid slot's id means nothing: its row falls off the end.
  rows = jax.tree.map(
    lambda every, new: every.at[jnp.where(valid, ids, every.shape[0])].set(
      new[:slots], mode="drop"
    ),
    memory,
    out.memory,
  )
  examples = jnp.sum(reports.num_examples, dtype=jnp.int32)
  clients = jnp.maximum(counted, 1).astype(jnp.float32)
  used = jnp.where(examples > 0, examples, 1).astype(jnp.float32)
  loss = jnp.sum(reports.loss) / used
  metrics = RoundMetrics(
    loss=jnp.where(examples > 0, loss, jnp.nan),
    num_examples=examples,
    num_steps=jnp.sum(reports.num_steps, dtype=jnp.int32),
    num_clients=counted,
    num_nonfinite=jnp.sum(valid, dtype=jnp.int32) - counted,
    update_norm=_norm(update),
    client_norm=jnp.sum(reports.norm) / clients,
    clipped_share=jnp.sum(reports.clipped) / clients,
    ids=jnp.asarray(ids),
    client_loss=reports.loss,
    client_examples=reports.num_examples.astype(jnp.int32),
  )
  sums = CohortSums(
    update=update,
    side=out.side,
    norms=reports.norm,
    counted=reports.counted,
    memory=rows,
  )
  return sums, metrics


def _norm(tree):
  flat = [jnp.ravel(leaf) for leaf in jax.tree.leaves(tree)]
  squares = [jnp.vdot(part, part, precision="highest") for part in flat]
  return jnp.sqrt(sum(squares, jnp.float32(0)))


@functools.partial(jax.jit, static_argnums=0)
def server_step(algorithm, state, sums):
  """The state after the server's step on the sums."""
  moved = algorithm.server_update(
    state, _algorithm.RoundSums(update=sums.update, side=sums.side)
  )
  return dataclasses.replace(moved, round=state.round + 1, memory=sums.memory)


def next_round(state):
  """The state after a round that changed nothing."""
  return dataclasses.replace(state, round=state.round + 1)


def _resolve(algorithm, state, slots, num_devices, execution):
  """Backend and chunk size; a chunk of 1 for those that have none."""
  backend, chunk = execution.backend, execution.chunk_size
  each = -(-slots // num_devices)
  if backend in ("loop", "scan"):
    return backend, 1
  if backend == "vmap" and chunk is not None:
    return backend, min(chunk, each)
  platform = None if backend == "auto" else "any accelerator"
  choice = _choose.choose_backend(
    algorithm, state.params, each, platform=platform
  )
  if backend == "vmap" or chunk is not None:
    return "vmap", min(chunk or choice.chunk_size, each)
  return choice.backend, choice.chunk_size


@functools.lru_cache(maxsize=32)
def _compiled_reduce(work, backend, chunk, placement, devices):
  """The compiled sum over clients; remembered, so that rounds share it."""
  if backend == "loop":
    return functools.partial(_backends.loop_clients, work)
  run = _one_device(work, backend, chunk)
  return _placement.place(run, placement, list(devices))


def _one_device(work, backend, chunk):
  """The sum over the clients of one device, to be compiled."""
  if backend == "scan":
    return functools.partial(_backends.scan_clients, work)
  return functools.partial(_backends.vmap_clients, work, chunk_size=chunk)


def _make_block(cohort, slots, multiple):
  """The cohort's arrays, padded to a multiple; memory is yet to be read."""
  total = -(-slots // multiple) * multiple
  ids = np.asarray(cohort.ids)

  def pad(leaf):
    if total == slots:
      return leaf
    leaf = np.asarray(leaf)
    # Copies of the first slot: an invented record might divide by zero.
    return np.concatenate([leaf, np.repeat(leaf[:1], total - slots, axis=0)])

  valid = np.zeros(total, bool)
  valid[:slots] = np.asarray(cohort.valid)
  data = cohort.data
  return _backends.Block(
    ids=pad(ids),
    valid=valid,
    weights=pad(np.asarray(cohort.weights, np.float32)),
    memory=(),
    examples=jax.tree.map(pad, data.examples),
    live=pad(data.valid),
  )
