"""Tables of which a loss only looks up rows, and sums over these rows.

The clipped sum of an embedding is zero but for the rows that were looked up.
For a large table, writing those zeros costs more than everything else, so a
sum can be kept over the rows alone.
"""

import dataclasses
import typing

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from trustjax.privacy._engines._bookkeeping import _sites, _tape


@typing.no_type_check  # JAX rebuilds records with placeholders of its own.
@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class RowSum:
  """A sum shaped like a table, of which only some rows are held.

  Attributes:
    values: The rows that are held, float32 [places, dim].
    place: Where each row of the table is held; of no meaning for rows that
      are not read, int32 [rows].
  """

  values: Float[Array, "places dim"]
  place: Int[Array, " rows"]


def is_table(node, sites) -> bool:
  """Whether a node looks up rows of a leaf as it is stored, and no more."""
  rules = [sites[i].rule for i in node.sites]
  return node.view.whole and all(
    isinstance(rule, _sites.Rows) and rule.row_axis == 0 for rule in rules
  )


def table_verdicts(program, params, lot, key) -> list[str | None]:
  """Which leaves the loss only looks up rows of, known before it runs.

  Args:
    program: The `TappedLoss`.
    params: Parameters, or their shapes.
    lot: A unit's part of a lot, or its shapes.
    key: The step's key.

  Returns:
    For each leaf None if it is such a table, or why it is not.
  """
  routes = program.routes
  verdicts: list[str | None] = [
    routes.explicit.get(leaf, "the loss does not depend on it")
    for leaf in range(len(program.leaf_shapes))
  ]
  for leaf in set(range(len(verdicts))) - set(routes.explicit):
    nodes = [node for node in routes.nodes if leaf in node.view.leaves]
    if nodes:
      verdicts[leaf] = next(filter(None, map(_verdict(routes), nodes)), None)
  if None in verdicts:
    tables = [i for i, verdict in enumerate(verdicts) if verdict is None]
    traced = jax.make_jaxpr(lambda *args: rows_read(program, tables, *args))(
      params, lot, key
    )
    if any(_tape.needed_inputs(traced.jaxpr)[: len(verdicts)]):
      chosen = "which row is read depends on parameters"
      verdicts = [verdict or chosen for verdict in verdicts]
  return verdicts


def _verdict(routes):
  def of_node(node):
    sites = [routes.sites[i] for i in node.sites]
    for site in sites:
      if not isinstance(site.rule, _sites.Rows):
        return f"read whole, by {site.primitive}"
    if not is_table(node, sites=routes.sites):
      return "read in parts or by columns"
    if any(site.loops for site in sites):
      return "read inside a loop"
    return None

  return of_node


def rows_read(program, tables, params, lot, key) -> dict[int, jax.Array]:
  """Which rows of its tables one unit reads.

  Args:
    program: The `TappedLoss`.
    tables: Leaves of which `table_verdicts` says so.
    params: Parameters; only their shapes matter for these tables.
    lot: The unit's part of the lot.
    key: The step's key.

  Returns:
    Table -> row of each read, int32 [reads]. A row that does not exist counts
    as the nearest one.
  """
  records = program.records(params, lot, key)
  found: dict[int, list] = {}
  for node in program.routes.nodes:
    table = node.view.leaves[0]
    for i in node.sites if table in tables else ():
      last = node.view.shape[0] - 1
      rows = jnp.clip(records[i], 0, last).astype(jnp.int32)
      found.setdefault(table, []).append(jnp.ravel(rows))
  return {table: jnp.concatenate(rows) for table, rows in found.items()}


def is_row_sum(value) -> bool:
  """Whether a node of a sum is a `RowSum`; for `is_leaf`."""
  return isinstance(value, RowSum)


def distinct_rows(
  rows: Int[Array, " reads"], table_rows: int
) -> tuple[Int[Array, " places"], Int[Array, ""], Int[Array, " table"]]:
  """Gives every row that is read one place, without sorting.

  Args:
    rows: Row of each read, with repetitions.
    table_rows: Rows of the table.

  Returns:
    (the distinct rows, padded with `table_rows`; how many there are; the place
    of each row of the table).
  """
  reads = rows.shape[0]
  order = jnp.arange(reads, dtype=jnp.int32)
  # The last read of a row speaks for it. A maximum, because the order of
  # writes to the same place is nobody's promise.
  last = jnp.zeros(table_rows, jnp.int32).at[rows].max(order)
  speaks = last[rows] == order
  rank = jnp.cumsum(speaks, dtype=jnp.int32) - 1
  places = min(reads, table_rows)
  distinct = jnp.full(places, table_rows, jnp.int32)
  distinct = distinct.at[jnp.where(speaks, rank, places)].set(rows, mode="drop")
  place = jnp.zeros(table_rows, jnp.int32).at[rows].set(rank[last[rows]])
  return distinct, jnp.sum(speaks, dtype=jnp.int32), place
