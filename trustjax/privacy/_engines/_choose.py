"""Engine `auto`: picks an engine and a chunk size that fit in memory."""

import dataclasses
import math
from typing import Any

import jax

PyTree = Any

# Per-unit gradients held at a time. Larger chunks stop paying long before
# this on a CPU, where they leave the cache; an accelerator wants more.
_BUDGET_BYTES = {"cpu": 64 * 2**20}
_ACCELERATOR_BUDGET_BYTES = 4 * 2**30


@dataclasses.dataclass(frozen=True, kw_only=True)
class EngineChoice:
  """An engine, its chunk size, and why.

  Attributes:
    engine: "scan" or "vmap".
    chunk_size: Units at a time.
    reason: One sentence for the log.
  """

  engine: str
  chunk_size: int
  reason: str


def choose_engine(
  params: PyTree, num_units: int, *, budget_bytes: int | None = None
) -> EngineChoice:
  """Chooses between `scan` and chunked `vmap` by the memory of gradients.

  Args:
    params: Model parameters, or their shapes.
    num_units: Leading axis of the lot.
    budget_bytes: Memory for per-unit gradients; None takes 64 MiB on a CPU
      and 4 GiB on an accelerator.

  Returns:
    The choice, with its reason.
  """
  if budget_bytes is None:
    budget_bytes = _BUDGET_BYTES.get(
      jax.default_backend(), _ACCELERATOR_BUDGET_BYTES
    )
  unit_bytes = 4 * sum(
    math.prod(leaf.shape) for leaf in jax.tree.leaves(params)
  )
  fitting = max(1, budget_bytes // max(unit_bytes, 1))
  chunk = max(
    d for d in range(1, num_units + 1) if num_units % d == 0 and d <= fitting
  )
  said = (
    f"one unit's gradient takes {unit_bytes / 2**20:.1f} MiB and the budget"
    f" is {budget_bytes / 2**20:.0f} MiB"
  )
  if chunk == 1:
    return EngineChoice(
      engine="scan", chunk_size=1, reason=f"{said}: one unit at a time"
    )
  return EngineChoice(
    engine="vmap", chunk_size=chunk, reason=f"{said}: {chunk} units at a time"
  )
