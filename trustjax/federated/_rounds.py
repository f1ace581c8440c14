"""One round: the cohort trains, its updates are summed, the server moves."""

import dataclasses
import functools
import typing
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from trustjax.federated import (
  _algorithm,
  _backends,
  _choose,
  _cohort,
  _compression,
  _placement,
  _secure_sum,
  _upload,
  _user_level,
)

PyTree = Any
BACKENDS = ("loop", "scan", "vmap", "auto")
# Purposes keep the streams of one root key apart.
_TRAIN = 0x7A1817


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


def run_round(
  algorithm: _algorithm.FederatedAlgorithm,
  state: _algorithm.ServerState,
  cohort: _cohort.Cohort,
  key: Key[Array, ""],
  *,
  backend: str = "auto",
  chunk_size: int | None = None,
  devices: str | None = None,
  num_devices: int | None = None,
  compression: Sequence[_compression.Compression] = (),
  secure_sum: _secure_sum.SecureSum | None = None,
) -> tuple[_algorithm.ServerState, RoundMetrics]:
  """Runs one round of federated training.

  The update is sum_k w_k Delta_k with the cohort's weights. A client's
  randomness is addressed by (key, round, client, local step), so a cohort gives
  the same update, to float tolerance, under every backend and on any number of
  devices. A cohort without a client changes nothing but the round.

  Args:
    algorithm: Such as `fedavg(...)`.
    state: From `algorithm.init` or the last round.
    cohort: From `select_clients`, with data from `ClientStore.fetch`.
    key: Root key of the run, typed, the same in every round.
    backend: "loop" (from Python, the oracle), "scan" (one client at a time),
      "vmap" (chunks side by side) or "auto".
    chunk_size: Clients side by side under "vmap"; None takes what memory
      allows.
    devices: None (one device), "pmap", or "shard_map" (also over several
      processes, each of which passes the same arguments).
    num_devices: How many; None takes all.
    compression: What clients do to their updates, in order.
    secure_sum: Numeric effect of secure aggregation.

  Returns:
    The state after the round, and what was seen.

  Raises:
    ValueError: The cohort has no data, its arrays do not fit each other, a
      client is unknown to the algorithm, or the execution is impossible.

  Example:
    >>> state = algorithm.init(params)
    >>> cohort = select_clients(key, 0, store.activity, size=10)
    >>> cohort = store.fetch(cohort, batch_size=10, seed=0, round=0)
    >>> state, metrics = run_round(algorithm, state, cohort, key)
  """
  upload = _upload.Upload(compression=tuple(compression), secure_sum=secure_sum)
  execution = Execution(
    backend=backend,
    chunk_size=chunk_size,
    devices=devices,
    num_devices=num_devices,
  )
  sums, metrics = sum_clients(
    algorithm, upload, state, cohort, key, execution=execution
  )
  if not cohort.num_clients:
    return _next_round(state), metrics
  return _server_step(algorithm, state, sums), metrics


def run_private_round(
  algorithm: _algorithm.FederatedAlgorithm,
  state: _algorithm.ServerState,
  cohort: _cohort.Cohort,
  key: Key[Array, ""],
  plan: _user_level.UserLevelPlan,
  *,
  backend: str = "auto",
  chunk_size: int | None = None,
  devices: str | None = None,
  num_devices: int | None = None,
  compression: Sequence[_compression.Compression] = (),
) -> tuple[_algorithm.ServerState, RoundMetrics]:
  """Runs one round with user-level privacy.

  Every update is clipped, the sum is noised and divided by the plan's constant,
  and the server's optimiser sees nothing else. A cohort without a user is
  noised all the same. The first round sets up the clipping state.

  Guarantee:
    With cohorts from `plan.select_clients`, the same root key in all rounds and
    each round run once, the parameters of all rounds together satisfy
    `plan.epsilon`. The metrics are not private. A round beyond the plan's last
    returns nan.

  Args:
    algorithm: One whose clients send updates only and keep nothing.
    state: From `algorithm.init` or the last round.
    cohort: From `plan.select_clients`, with data.
    key: Root key of the run.
    plan: The plan.
    backend: As in `run_round`, like the rest.
    chunk_size: Clients side by side.
    devices: Placement.
    num_devices: How many.
    compression: Before clipping.

  Returns:
    The state after the round, and what was seen.

  Raises:
    ValueError: The cohort was not drawn by this plan, a weight exceeds 1, the
      algorithm sends what is not clipped, or as in `run_round`.
  """
  if cohort.weighting != plan.mark():
    raise ValueError(
      f"cohort.weighting: got {cohort.weighting!r}; a private round needs a"
      f" cohort from select_clients of this plan ({plan.mark()!r}), whose"
      " sampling and weights the epsilon is about"
    )
  if np.any(np.asarray(cohort.weights)[np.asarray(cohort.valid)] > 1):
    raise ValueError(
      "cohort.weights: got one above 1; a user would move the sum by more than"
      " the clip norm"
    )
  _check_sends_updates_only(algorithm, (state.memory, state.control))
  if isinstance(state.clip_state, tuple):
    state = dataclasses.replace(state, clip_state=plan.rule.init())
  sums, metrics = sum_clients(
    algorithm,
    _upload.Upload(compression=tuple(compression), rule=plan.rule),
    state,
    cohort,
    key,
    execution=Execution(
      backend=backend,
      chunk_size=chunk_size,
      devices=devices,
      num_devices=num_devices,
    ),
  )
  _check_sends_updates_only(algorithm, sums.side)
  mean, clip_state = _user_level.release(
    plan,
    state.params,
    state.clip_state,
    sums.update,
    sums.norms,
    sums.counted,
    jnp.asarray(cohort.valid),
    state.round,
    key,
  )
  sums = dataclasses.replace(sums, update=mean)
  after = _server_step(algorithm, state, sums)
  return dataclasses.replace(after, clip_state=clip_state), metrics


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
  check_cohort(state, cohort, key)
  secure = upload.secure_sum
  if secure is not None and cohort.num_clients > secure.largest_cohort():
    raise ValueError(
      f"secure_sum.modulus_bits: got {secure.modulus_bits}; a sum of"
      f" {cohort.num_clients} clients of {secure.bits} bits may wrap around"
      f" (at most {secure.largest_cohort()} clients)"
    )
  devices = _placement.devices_for(execution.devices, execution.num_devices)
  slots = np.shape(cohort.valid)[0]
  backend, chunk = _resolve(algorithm, state, slots, len(devices), execution)
  block = _make_block(state, cohort, slots, len(devices) * chunk)
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

  sums, metrics = run(upload)
  if upload.measures or bool(jnp.isfinite(metrics.update_norm)):
    return sums, metrics
  return run(dataclasses.replace(upload, checked=True))


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
def _server_step(algorithm, state, sums):
  moved = algorithm.server_update(
    state, _algorithm.RoundSums(update=sums.update, side=sums.side)
  )
  return dataclasses.replace(moved, round=state.round + 1, memory=sums.memory)


def _next_round(state):
  return dataclasses.replace(state, round=state.round + 1)


def _check_sends_updates_only(algorithm, others):
  if jax.tree.leaves(others):
    raise ValueError(
      f"algorithm: got {algorithm.name!r}, whose clients send or keep more than"
      " their update; nothing bounds what that gives away"
    )


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
  if backend == "scan":
    run = functools.partial(_backends.scan_clients, work)
  else:
    run = functools.partial(_backends.vmap_clients, work, chunk_size=chunk)
  return _placement.place(run, placement, list(devices))


def _make_block(state, cohort, slots, multiple):
  """The cohort's arrays, padded to a multiple of devices and chunk."""
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
    memory=jax.tree.map(lambda leaf: leaf[pad(ids)], state.memory),
    examples=jax.tree.map(pad, data.examples),
    live=pad(data.valid),
  )


def check_cohort(state, cohort, key) -> None:
  """Raises ValueError unless the cohort can be run from this state."""
  if jax.random.key_impl(key) != "threefry2x32":
    raise ValueError(
      f"key: got one of {jax.random.key_impl(key)}; rounds need a Threefry key"
      " (jax.random.key), whose draws are the same under every backend"
    )
  if cohort.data is None:
    raise ValueError(
      "cohort.data: got None; fetch it with ClientStore.fetch first"
    )
  valid = np.asarray(cohort.valid)
  for field in ("ids", "weights"):
    shape = np.shape(getattr(cohort, field))
    if shape != valid.shape:
      raise ValueError(
        f"cohort.{field}: got shape {shape}; the cohort has"
        f" {valid.shape[0]} slots"
      )
  live = cohort.data.valid
  leading = {np.shape(leaf)[:3] for leaf in jax.tree.leaves(cohort.data)}
  if leading != {np.shape(live)} or np.shape(live)[0] != valid.shape[0]:
    raise ValueError(
      f"cohort.data: got leading axes {sorted(leading)}; all must be"
      f" [slots, steps, batch] with the cohort's {valid.shape[0]} slots"
    )
  weights = np.asarray(cohort.weights)[valid]
  if not np.all(np.isfinite(weights) & (weights >= 0)):
    raise ValueError("cohort.weights: each must be finite and at least 0")
  ids = np.asarray(cohort.ids)[valid]
  for leaf in jax.tree.leaves(state.memory)[:1]:
    if ids.size and not (ids.min() >= 0 and ids.max() < leaf.shape[0]):
      raise ValueError(
        f"cohort.ids: got {ids.min()} to {ids.max()}; the algorithm keeps a"
        f" memory of {leaf.shape[0]} clients"
      )
