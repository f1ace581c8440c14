"""Backend `auto`: which way of running clients is fastest here."""

import math
from typing import Any, NamedTuple

import jax

from trustjax.federated import _algorithm

PyTree = Any

# Copies of the parameters that a client in training holds: its own, the
# gradient, the new ones, and its update.
_COPIES = 4
_CPU_BUDGET = 256 * 2**20
_SHARE_OF_DEVICE = 0.25
_MOST_AT_A_TIME = 1024


class BackendChoice(NamedTuple):
  """What `auto` decided.

  Attributes:
    backend: "scan" or "vmap".
    chunk_size: Clients side by side; 1 for "scan".
    reason: Why, in words.
  """

  backend: str
  chunk_size: int
  reason: str


def choose_backend(
  algorithm: _algorithm.FederatedAlgorithm,
  params: PyTree,
  num_slots: int,
  *,
  platform: str | None = None,
  budget_bytes: int | None = None,
) -> BackendChoice:
  """Chooses how to run a cohort.

  On a CPU one client at a time is fastest: a client's parameters stay in cache,
  while side by side every step walks through all copies. An accelerator wants
  as many clients at once as its memory holds.

  Args:
    algorithm: Its local state is part of a client's memory.
    params: Parameters.
    num_slots: Slots of a device's part of the cohort.
    platform: "cpu", "gpu" or "tpu"; None asks JAX.
    budget_bytes: Memory for clients side by side; None takes a quarter of the
      device's.

  Returns:
    The choice.
  """
  platform = platform or jax.default_backend()
  if platform == "cpu":
    return BackendChoice("scan", 1, "one client at a time stays in cache")
  if budget_bytes is None:
    budget_bytes = device_budget()
  each = training_bytes(algorithm, params)
  size = min(num_slots, _MOST_AT_A_TIME, max(1, budget_bytes // max(each, 1)))
  if size == 1:
    return BackendChoice(
      "scan", 1, f"a client takes {each / 2**20:.0f} MiB of the budget"
    )
  return BackendChoice(
    "vmap", size, f"{size} clients of {each / 2**20:.1f} MiB at a time"
  )


def training_bytes(
  algorithm: _algorithm.FederatedAlgorithm, params: PyTree
) -> int:
  """Bytes that a client in training holds, activations left out."""
  state = jax.eval_shape(algorithm.init, params)
  shared = _algorithm.Shared(params=state.params, control=state.control)
  memory = jax.tree.map(
    lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), state.memory
  )
  key = jax.eval_shape(lambda: jax.random.key(0))
  carry = jax.eval_shape(algorithm.client_init, shared, memory, key)
  return _bytes(carry) + (_COPIES - 1) * _bytes(params)


def device_budget() -> int:
  """Bytes that clients side by side may take."""
  stats = jax.devices()[0].memory_stats()
  if not stats or "bytes_limit" not in stats:
    return _CPU_BUDGET
  return int(_SHARE_OF_DEVICE * stats["bytes_limit"])


def _bytes(tree):
  return sum(
    math.prod(leaf.shape) * jax.numpy.dtype(leaf.dtype).itemsize
    for leaf in jax.tree.leaves(tree)
  )
