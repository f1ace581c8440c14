"""Engine `auto`: picks an engine and a chunk size that fit in memory."""

import dataclasses
import math
from typing import Any

import jax

PyTree = Any

# Most records side by side, and bytes of their units' gradients. A CPU gains
# nothing beyond two dozen records, and a padded lot wastes half a chunk on
# average; an accelerator wants more.
_MOST_RECORDS = {"cpu": 24}
_ACCELERATOR_MOST_RECORDS = 4096
_BUDGET_BYTES = {"cpu": 512 * 2**20}
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
  params: PyTree,
  num_units: int,
  *,
  slots_per_unit: int = 1,
  budget_bytes: int | None = None,
) -> EngineChoice:
  """Chooses between `scan` and chunked `vmap` by the memory of gradients.

  Args:
    params: Model parameters, or their shapes.
    num_units: Leading axis of the lot.
    slots_per_unit: Slots of a clip group; 1 for records.
    budget_bytes: Memory for per-unit gradients; None takes 512 MiB on a CPU
      and 4 GiB on an accelerator.

  Returns:
    The choice, with its reason.
  """
  backend = jax.default_backend()
  if budget_bytes is None:
    budget_bytes = _BUDGET_BYTES.get(backend, _ACCELERATOR_BUDGET_BYTES)
  unit_bytes = 4 * sum(
    math.prod(leaf.shape) for leaf in jax.tree.leaves(params)
  )
  most = _MOST_RECORDS.get(backend, _ACCELERATOR_MOST_RECORDS)
  fitting = min(most // slots_per_unit, budget_bytes // max(unit_bytes, 1))
  fitting = max(1, fitting)
  chunk = max(
    d for d in range(1, num_units + 1) if num_units % d == 0 and d <= fitting
  )
  said = (
    f"one unit's gradient takes {unit_bytes / 2**20:.1f} MiB and the budget"
    f" is {budget_bytes / 2**20:.0f} MiB and {most} records"
  )
  if chunk == 1:
    return EngineChoice(
      engine="scan", chunk_size=1, reason=f"{said}: one unit at a time"
    )
  return EngineChoice(
    engine="vmap", chunk_size=chunk, reason=f"{said}: {chunk} units at a time"
  )
