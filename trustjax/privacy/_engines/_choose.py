"""Engine `auto`: picks an engine and a chunk size, and says why."""

import dataclasses

import jax

from trustjax.privacy._engines import _costs

_CPU_BUDGET_BYTES = 512 * 2**20
# Of an accelerator's memory, beside parameters and the optimiser's state; where
# a device does not tell its memory, little is assumed.
_BUDGET_SHARE = 0.4
_ACCELERATOR_BUDGET_BYTES = 4 * 2**30
# A chunk should give the matrix products enough positions to work on, and not
# more than that, since a CPU then leaves its cache and a padded lot wastes half
# a chunk on average. Small units share a chunk as long as they fit in cache.
_POSITIONS = {"cpu": 512}
_ACCELERATOR_POSITIONS = 2**17
_CACHE_BYTES = {"cpu": 24 * 2**20}
_ACCELERATOR_CACHE_BYTES = 256 * 2**20
# Clip groups: slots side by side, and how much cheaper than forming their
# gradients book-keeping must be. Forming them can skip the empty slots of a
# group, book-keeping cannot.
_GROUP_SLOTS = {"cpu": 24}
_ACCELERATOR_GROUP_SLOTS = 4096
_GROUP_ADVANTAGE = 0.5


@dataclasses.dataclass(frozen=True, kw_only=True)
class EngineChoice:
  """An engine, its chunk size, and why.

  Attributes:
    engine: "bookkeeping", "vmap" or "scan".
    chunk_size: Units at a time.
    reason: One sentence for the log.
  """

  engine: str
  chunk_size: int
  reason: str


def choose_engine(
  loss_fn,
  params,
  lot,
  key,
  *,
  frozen=None,
  budget_bytes: int | None = None,
) -> EngineChoice:
  """Chooses engine and chunk size by the costs of the traced loss.

  Args:
    loss_fn: Loss of one record.
    params: Parameters, or their shapes.
    lot: A lot, or its shapes; with clip groups if it has [groups, slots].
    key: A key, as the step will see it.
    frozen: Parameters that are not trained, or None.
    budget_bytes: Temporary memory for the clipped sum; None takes 512 MiB on a
      CPU and 40 % of an accelerator's memory.

  Returns:
    The choice, with its reason.

  Raises:
    ValueError: `budget_bytes` is below what one unit takes.
  """
  program = _costs.trace(loss_fn, params, lot, key, frozen)
  slots = lot.valid.shape[1] if len(lot.valid.shape) > 1 else 1
  return choose_by_costs(
    _costs.unit_costs(program),
    lot.valid.shape[0],
    slots_per_unit=slots,
    budget_bytes=budget_bytes,
  )


def choose_by_costs(
  costs: "_costs.UnitCosts",
  num_units: int,
  *,
  slots_per_unit: int = 1,
  budget_bytes: int | None = None,
) -> EngineChoice:
  """Chooses engine and chunk size by the costs of one unit.

  Args:
    costs: Of one unit.
    num_units: Leading axis of the lot.
    slots_per_unit: Slots of a clip group; 1 for records.
    budget_bytes: As in `choose_engine`.

  Returns:
    The choice, with its reason.

  Raises:
    ValueError: `budget_bytes` is below what one unit takes.
  """
  backend = jax.default_backend()
  if budget_bytes is None:
    budget_bytes = _default_budget(backend)
    least = min(costs.step_bytes(name, 1) for name in ("scan", "bookkeeping"))
    budget_bytes = max(budget_bytes, int(least) + 1)
  engine, why = _engine(costs, slots_per_unit)
  if slots_per_unit > 1 and engine == "vmap":
    side_by_side = _GROUP_SLOTS.get(backend, _ACCELERATOR_GROUP_SLOTS)
    wanted = max(1, side_by_side // slots_per_unit)
  else:
    cache = _CACHE_BYTES.get(backend, _ACCELERATOR_CACHE_BYTES)
    positions = _POSITIONS.get(backend, _ACCELERATOR_POSITIONS)
    each = max(costs.activation_bytes + costs.book_bytes, 1.0)
    wanted = max(1, int(cache / each), positions // costs.positions)
  fitting = [
    size
    for size in range(1, num_units + 1)
    if num_units % size == 0
    and size <= wanted
    and costs.step_bytes(engine, size) <= budget_bytes
  ]
  if fitting and (engine == "bookkeeping" or fitting[-1] > 1):
    return EngineChoice(
      engine=engine,
      chunk_size=fitting[-1],
      reason=f"{why}; {fitting[-1]} units at a time"
      f" ({costs.step_bytes(engine, fitting[-1]) / 2**20:.0f} MiB of a budget"
      f" of {budget_bytes / 2**20:.0f} MiB)",
    )
  least = costs.step_bytes("scan", 1)
  if least > budget_bytes:
    raise ValueError(
      f"budget_bytes: got {budget_bytes}; one unit at a time takes about"
      f" {least:.0f} bytes"
    )
  return EngineChoice(
    engine="scan",
    chunk_size=1,
    reason=f"one gradient takes {costs.gradient_bytes / 2**20:.1f} MiB: one"
    f" unit at a time ({least / 2**20:.0f} MiB of a budget of"
    f" {budget_bytes / 2**20:.0f} MiB)",
  )


def _default_budget(backend):
  if backend == "cpu":
    return _CPU_BUDGET_BYTES
  stats = jax.local_devices()[0].memory_stats() or {}
  if "bytes_limit" not in stats:
    return _ACCELERATOR_BUDGET_BYTES
  return int(_BUDGET_SHARE * stats["bytes_limit"])


def _engine(costs, slots_per_unit):
  """Book-keeping unless clip groups make gradients about as cheap."""
  ratio = costs.book_operations / max(costs.gradient_operations, 1.0)
  said = f"book-keeping costs {ratio:.0%} of forming gradients"
  if slots_per_unit > 1 and ratio > _GROUP_ADVANTAGE:
    return "vmap", f"{said}, which may skip empty slots"
  return "bookkeeping", said
