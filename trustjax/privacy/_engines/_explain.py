"""`explain`: how each parameter is clipped, and what that costs."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from trustjax.privacy import _lot
from trustjax.privacy._engines import _bookkeeping, _choose, _costs


@dataclasses.dataclass(frozen=True, kw_only=True)
class LeafRoute:
  """How book-keeping handles one parameter.

  Attributes:
    path: Keys of the leaf, joined by "/".
    shape: Its shape.
    route: "gram" (norm from Gram matrices), "multiplied" (gradient multiplied
      out from the same factors and used twice), "rows" (embedding), "direct"
      (its cotangent is the gradient: bias, scale, positions), "fallback" (a
      gradient for every record by differentiation) or "unused".
    uses: Places where the loss uses it.
    operations: Multiply-adds of one record beyond the backward pass.
    bytes: What is held for one record.
    reason: Why this route.
  """

  path: str
  shape: tuple[int, ...]
  route: str
  uses: int
  operations: float
  bytes: float
  reason: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Explanation:
  """What clipping costs for a loss; `str()` is a table.

  Attributes:
    leaves: One entry per parameter.
    costs: Costs of one record, with `step_bytes(engine, chunk_size)`.
  """

  leaves: tuple[LeafRoute, ...]
  costs: _costs.UnitCosts

  def choice(
    self, num_records: int, budget_bytes: int | None = None
  ) -> _choose.EngineChoice:
    """What `auto` would choose for a lot of so many slots."""
    return _choose.choose_by_costs(
      self.costs, num_records, budget_bytes=budget_bytes
    )

  def __str__(self) -> str:
    header = ("parameter", "shape", "route", "uses", "operations", "KiB", "why")
    rows = [
      (
        leaf.path,
        "x".join(map(str, leaf.shape)) or "scalar",
        leaf.route,
        str(leaf.uses),
        f"{leaf.operations:.3g}",
        f"{leaf.bytes / 2**10:.1f}",
        leaf.reason,
      )
      for leaf in self.leaves
    ]
    widths = [max(map(len, column)) for column in zip(header, *rows)]
    lines = [
      "  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip()
      for row in (header, tuple("-" * width for width in widths), *rows)
    ]
    sizes = (1, 16, 64, 256)
    lines.append("")
    lines.append("predicted temporary memory of a clipped sum, MiB")
    lines.append(f"{'engine':<13}" + "".join(f"{n:>10}" for n in sizes))
    for engine in ("scan", "vmap", "bookkeeping"):
      held = [
        self.costs.step_bytes(engine, 1 if engine == "scan" else n) / 2**20
        for n in sizes
      ]
      lines.append(f"{engine:<13}" + "".join(f"{n:>10.1f}" for n in held))
    lines.append(f"auto, 64 records: {self.choice(64).reason}")
    return "\n".join(lines)


def explain(
  loss_fn: Callable,
  params: Any,
  example: Any,
  key: Any = None,
  *,
  frozen: Any = None,
) -> Explanation:
  """Shows the route of every parameter and what each engine would take.

  Nothing is computed: arguments may be arrays or shapes.

  Args:
    loss_fn: `(params, example, key) -> (scalar loss, aux)` for ONE record.
    params: Parameters.
    example: One record, without a leading axis.
    key: The key a record sees; None takes a default key.
    frozen: Parameters that are not trained, as from `partition`.

  Returns:
    The explanation; print it.

  Raises:
    ValueError: The loss is not that of one record.

  Example:
    >>> print(explain(loss_fn, params, example))
  """
  key = jax.random.key(0) if key is None else key
  lot = _lot.Lot(
    examples=jax.tree.map(
      lambda leaf: jax.ShapeDtypeStruct(
        (1, *jnp.shape(leaf)), jnp.result_type(leaf)
      ),
      example,
    ),
    valid=jnp.ones(1, bool),
    ids=jnp.zeros(1, jnp.int32),
  )
  program = _costs.trace(loss_fn, params, lot, key, frozen)
  named = jax.tree_util.tree_leaves_with_path(params)
  return Explanation(
    leaves=tuple(
      _leaf_route(
        program.routes,
        index,
        jax.tree_util.keystr(path, simple=True, separator="/"),
        jnp.shape(leaf),
      )
      for index, (path, leaf) in enumerate(named)
    ),
    costs=_costs.unit_costs(program),
  )


def _leaf_route(routes, index, path, shape):
  common: dict[str, Any] = {"path": path, "shape": tuple(shape)}
  size = 1
  for n in shape:
    size *= n
  if index in routes.explicit:
    return LeafRoute(
      **common,
      route="fallback",
      uses=routes.uses[index],
      operations=size * _bookkeeping.memory_cost(),
      bytes=4.0 * size,
      reason=routes.explicit[index],
    )
  if index in routes.unused:
    return LeafRoute(
      **common,
      route="unused",
      uses=0,
      operations=0.0,
      bytes=0.0,
      reason="the loss does not depend on it",
    )
  nodes = [node for node in routes.nodes if index in node.view.leaves]
  costs = [_bookkeeping.node_cost(node, routes.sites) for node in nodes]
  # A node of joined leaves is shared out evenly.
  shares = [1 / len(node.view.leaves) for node in nodes]
  return LeafRoute(
    **common,
    route=" + ".join(sorted({cost.route for cost in costs})),
    uses=sum(len(node.sites) for node in nodes),
    operations=sum(c.operations * share for c, share in zip(costs, shares)),
    bytes=sum(c.bytes * share for c, share in zip(costs, shares)),
    reason="; ".join(dict.fromkeys(node.reason for node in nodes)),
  )
