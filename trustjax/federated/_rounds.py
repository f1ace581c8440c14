"""One round: the cohort trains, its updates are summed, the server moves."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

from trustjax.federated import (
  _algorithm,
  _cohort,
  _compression,
  _execution,
  _secure_sum,
  _upload,
  _user_level,
)

PyTree = Any


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
) -> tuple[_algorithm.ServerState, _execution.RoundMetrics]:
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
  execution = _execution.Execution(
    backend=backend,
    chunk_size=chunk_size,
    devices=devices,
    num_devices=num_devices,
  )
  check_cohort(state, cohort, key)
  _check_secure_sum(upload, cohort)
  if backend == "loop" or devices is not None:
    sums, metrics = _execution.sum_clients(
      algorithm, upload, state, cohort, key, execution=execution
    )
    after = _execution.server_step(algorithm, state, sums)
  else:
    after, metrics = _execution.whole_round(
      algorithm, upload, state, cohort, key, execution=execution
    )
  if not cohort.num_clients:
    return _execution.next_round(state), metrics
  return after, metrics


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
) -> tuple[_algorithm.ServerState, _execution.RoundMetrics]:
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
  check_cohort(state, cohort, key)
  sums, metrics = _execution.sum_clients(
    algorithm,
    _upload.Upload(compression=tuple(compression), rule=plan.rule),
    state,
    cohort,
    key,
    execution=_execution.Execution(
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
  after = _execution.server_step(algorithm, state, sums)
  return dataclasses.replace(after, clip_state=clip_state), metrics


def _check_sends_updates_only(algorithm, others):
  if jax.tree.leaves(others):
    raise ValueError(
      f"algorithm: got {algorithm.name!r}, whose clients send or keep more than"
      " their update; nothing bounds what that gives away"
    )


def _check_secure_sum(upload, cohort):
  secure = upload.secure_sum
  if secure is not None and cohort.num_clients > secure.largest_cohort():
    raise ValueError(
      f"secure_sum.modulus_bits: got {secure.modulus_bits}; a sum of"
      f" {cohort.num_clients} clients of {secure.bits} bits may wrap around"
      f" (at most {secure.largest_cohort()} clients)"
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
