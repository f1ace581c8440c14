"""Engine `bookkeeping`: exact clipping with one forward and one backward pass.

For a chunk of units:
  1. one pass forward and back, vmapped, which yields at every site its input
     and the cotangent of its output (`_tape`);
  2. norms of all units from these (`_factors`);
  3. clip factors from the rule;
  4. the clipped sum from the same inputs and cotangents.
"""

import dataclasses
import itertools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from trustjax.privacy import _lot
from trustjax.privacy._engines import _chunked, _float64, _unit
from trustjax.privacy._engines._bookkeeping import (
  _factors,
  _norms,
  _routes,
  _rows,
  _sites,
  _tape,
  _views,
)

# Entries of a leaf whose gradients are worth copying to be handled with others.
_SMALL_LEAF = 1 << 13


def bookkeeping_engine(loss_fn, rule, grouped, chunk_size):
  """Builds the engine that keeps books instead of per-unit gradients.

  Args:
    loss_fn: Loss of one record.
    rule: The clipping rule.
    grouped: Whether units are clip groups.
    chunk_size: Units held at a time; None holds the whole lot.

  Returns:
    `(params, lot, key, clip_state, frozen) -> ClippedGrads`. A table's entry of
    `start` may be a `RowSum`; so is its sum then.
  """
  unit_loss = _unit.make_loss(loss_fn, grouped)

  def add_chunk(total, params, chunk, key, frozen, scales, blocks):
    one = jax.tree.map(lambda leaf: leaf[0], chunk)
    program = TappedLoss(unit_loss, params, one, key, frozen)
    books, losses, aux = jax.vmap(program.run, in_axes=(None, 0, None, None))(
      params, chunk, key, frozen
    )
    ledgers = _open_ledgers(program.routes, books, blocks)
    norms = _block_norms(ledgers, chunk.valid.shape[0], max(blocks) + 1)
    factors, norm, _, nonfinite = jax.vmap(
      lambda *values: _unit.unit_factors(rule, *values),
      in_axes=(0, None, 0, 0),
    )(norms, scales, losses, chunk.valid)
    total = _add_clipped(total, ledgers, norms, factors)
    losses, aux = _unit.report(losses, aux, chunk.valid)
    return total, (norm, losses, aux, nonfinite)

  return _chunked.over_chunks(add_chunk, rule, chunk_size)


class TappedLoss:
  """A unit's loss, rewritten so that sites report input and cotangent."""

  def __init__(self, unit_loss, params, lot: _lot.Lot, key, frozen=None):
    """Traces the loss and decides the route of every leaf.

    Args:
      unit_loss: `(params, lot, key, frozen) -> (scalar, (losses, aux))`.
      params: Parameters, or their shapes.
      lot: A unit's part of a lot, or its shapes.
      key: The step's key.
      frozen: Parameters that are not trained, or None.
    """
    leaves = jax.tree.leaves(params)
    self._closed, shapes = jax.make_jaxpr(unit_loss, return_shape=True)(
      params, lot, key, frozen
    )
    self._outputs = jax.tree.structure(shapes)
    self._rest = jax.tree.map(
      lambda leaf: jax.ShapeDtypeStruct(jnp.shape(leaf), leaf.dtype),
      jax.tree.leaves((lot, key, frozen)),
    )
    self._leaves = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in leaves]
    self.routes = _routes.decide(self._take_stock, self.leaf_shapes)

  @property
  def jaxpr(self):
    """The traced loss."""
    return self._closed.jaxpr

  @property
  def leaf_shapes(self) -> list[tuple[int, ...]]:
    """Shape of every trained parameter."""
    return [leaf.shape for leaf in self._leaves]

  def _interpret(self, tape, explicit, leaves, rest):
    inputs = [
      leaf if i in explicit else _views.leaf_alias(i, leaf)
      for i, leaf in enumerate(leaves)
    ]
    loss, *others = _tape.interpret(
      self._closed.jaxpr, self._closed.consts, [*inputs, *rest], tape
    )
    loss = tape.use(loss, "the loss")
    return loss, [_tape.plain(value) for value in others]

  def _take_stock(self, explicit) -> Sequence[_sites.Site]:
    found: list[_sites.Site] = []

    def walk(leaves, rest):
      tape = _tape.Tape()
      self._interpret(tape, explicit, leaves, rest)
      found.extend(tape.sites)

    jax.eval_shape(walk, self._leaves, self._rest)
    return found

  def records(self, params, lot: _lot.Lot, key) -> list:
    """What the sites record of one unit, by a forward pass alone."""
    tape = _tape.Tape(
      taps=[jnp.zeros(x.tap_shape, x.dtype) for x in self.routes.sites]
    )
    rest = jax.tree.leaves((lot, key))
    self._interpret(tape, self.routes.explicit, jax.tree.leaves(params), rest)
    return tape.records

  def run(self, params, lot: _lot.Lot, key, frozen=None):
    """Runs one unit.

    Args:
      params: Parameters.
      lot: The unit's part of the lot.
      key: The step's key.
      frozen: Parameters that are not trained, or None.

    Returns:
      ((outer products of each node, gradient of each explicit leaf), losses,
      aux).
    """
    leaves = jax.tree.leaves(params)
    rest = jax.tree.leaves((lot, key, frozen))
    sites, routes = self.routes.sites, self.routes

    def forward(taps, explicit):
      tape = _tape.Tape(taps=list(taps))
      mixed = [explicit.get(i, leaf) for i, leaf in enumerate(leaves)]
      loss, others = self._interpret(tape, explicit, mixed, rest)
      return loss, (others, tape.records)

    taps = [jnp.zeros(site.tap_shape, site.dtype) for site in sites]
    loss, pull, (others, records) = jax.vjp(
      forward, taps, {i: leaves[i] for i in routes.explicit}, has_aux=True
    )
    cotangents, explicit = pull(jnp.ones_like(loss))
    _, (losses, aux) = jax.tree.unflatten(self._outputs, [loss, *others])
    books = []
    for node in routes.nodes:
      if node.is_whole:
        books.append(cotangents[node.sites[0]])
      else:
        books.append(_routes.node_factors(node, sites, records, cotangents))
    return (books, explicit), losses, aux


def _open_ledgers(routes, books, blocks):
  """One ledger for every set of leaves that is clipped as one."""
  kept, explicit = books
  ledgers: list[Any] = []
  formed = list(explicit.items())
  for node, parts in zip(routes.nodes, kept):
    of_leaves = {blocks[leaf] for leaf in node.view.leaves}
    if not node.is_whole and len(of_leaves) == 1:
      kind = _GramLedger if node.by_gram else _ExplicitLedger
      kind = _RowsLedger if _rows.is_table(node, routes.sites) else kind
      ledgers.append(kind(node, routes.sites, parts, of_leaves.pop()))
      continue
    # Leaves that are clipped apart: form the gradient and take it apart.
    if node.is_whole:
      gradients = jax.vmap(node.view.put_back)(parts)
    else:
      gradients = jax.vmap(
        lambda g, node=node: _routes.unfold_node(node, routes.sites, g)
      )(_factors.gradients(parts, _routes.dims_of(node, routes.sites)[1]))
    formed.extend(zip(node.view.leaves, gradients))
  return [*ledgers, *_ledgers_of_leaves(formed, blocks)]


def _ledgers_of_leaves(formed, blocks):
  """Ledgers of (leaf, its gradients); biases and scales share one a block.

  A model has dozens of these small leaves, and on each a kernel for the norm
  and one for the sum would cost more than what they compute.
  """
  by_block: dict[int, list] = {}
  ledgers = []
  for leaf, gradients in formed:
    if gradients[0].size <= _SMALL_LEAF:
      by_block.setdefault(blocks[leaf], []).append((leaf, gradients))
    else:
      ledgers.append(_LeavesLedger([(leaf, gradients)], blocks[leaf]))
  return [*ledgers, *(_LeavesLedger(x, block) for block, x in by_block.items())]


class _LeavesLedger:
  """The gradients of some leaves for every unit, laid end to end."""

  def __init__(self, formed, block):
    self._leaves = [(leaf, gradients.shape[1:]) for leaf, gradients in formed]
    self.block = block
    rows = [jnp.reshape(x, (x.shape[0], -1)) for _, x in formed]
    self.arrays = jnp.concatenate(
      [_float64.widen(x, jnp.float32) for x in rows], axis=1
    )

  def norms(self):
    return _float64.norms(self.arrays)

  def weighted_sum(self, arrays, weights):
    total = _weighted(arrays, weights)
    sizes = [math.prod(shape) for _, shape in self._leaves]
    parts = jnp.split(total, list(itertools.accumulate(sizes))[:-1])
    return {
      leaf: jnp.reshape(part, shape)
      for (leaf, shape), part in zip(self._leaves, parts)
    }


class _GramLedger:
  """Outer products, with norms by Gram matrices."""

  def __init__(self, node, sites, parts, block):
    self._node, self._sites, self.block = node, sites, block
    self.arrays = parts

  def norms(self):
    return _norms.norms(self.arrays)

  def weighted_sum(self, arrays, weights):
    zeros = jnp.zeros(_routes.dims_of(self._node, self._sites), jnp.float32)
    total = _factors.add_weighted_sum(zeros, arrays, weights)
    return _put_back(self._node, self._sites, total)


class _RowsLedger(_GramLedger):
  """Rows of a table as it is stored: the sum goes into its place."""

  def add_to(self, total, weights, finite):
    dims = _routes.dims_of(self._node, self._sites)
    parts = [
      dataclasses.replace(part, right=_where_finite(finite, part.right))
      for part in self.arrays
    ]
    if _rows.is_row_sum(total):
      parts = [
        dataclasses.replace(part, left=total.place[part.left]) for part in parts
      ]
      added = _factors.add_weighted_sum(total.values[None], parts, weights)
      return dataclasses.replace(total, values=added[0])
    start = jnp.reshape(total, dims)
    added = _factors.add_weighted_sum(start, parts, weights)
    return jnp.reshape(added, total.shape)

  @property
  def leaf(self):
    return self._node.view.leaves[0]


class _ExplicitLedger:
  """Outer products multiplied out once, for the norm and for the sum."""

  def __init__(self, node, sites, parts, block):
    self._node, self._sites, self.block = node, sites, block
    self.arrays = _factors.gradients(parts, _routes.dims_of(node, sites)[1])

  def norms(self):
    return _float64.norms(self.arrays)

  def weighted_sum(self, arrays, weights):
    return _put_back(self._node, self._sites, _weighted(arrays, weights))


def _put_back(node, sites, gradient):
  back = _routes.unfold_node(node, sites, gradient)
  return dict(zip(node.view.leaves, back))


def _weighted(arrays, weights):
  return jnp.tensordot(
    weights,
    arrays.astype(jnp.float32),
    axes=1,
    precision=jax.lax.Precision.HIGHEST,
  )


def _block_norms(ledgers, num_units, num_blocks):
  """Norm of each unit's gradient in each block, [units, blocks]."""
  found = [[jnp.zeros(num_units, jnp.float32)] for _ in range(num_blocks)]
  for ledger in ledgers:
    found[ledger.block].append(ledger.norms())
  return jnp.stack(
    [_float64.norms(jnp.stack(parts, axis=1)) for parts in found], axis=1
  )


def _add_clipped(total, ledgers, norms, factors):
  """Adds the clipped sum of a chunk to the total."""
  leaves, treedef = jax.tree.flatten(total, is_leaf=_rows.is_row_sum)
  finite = jnp.all(jnp.isfinite(norms), axis=1)
  others = [x for x in ledgers if not isinstance(x, _RowsLedger)]

  def weighted_sums(arrays):
    sums = {}
    for ledger, held in zip(others, arrays):
      found = ledger.weighted_sum(held, factors[:, ledger.block])
      for leaf, part in found.items():
        sums[leaf] = sums[leaf] + part if leaf in sums else part
    return sums

  def of_finite(arrays):
    # A factor of zero is not enough: 0 * nan is nan.
    return weighted_sums(
      jax.tree.map(lambda leaf: _where_finite(finite, leaf), arrays)
    )

  # Only a chunk with a record that is not finite pays for replacing it. The
  # total stays outside: a branch would copy it, and tables are large.
  sums = jax.lax.cond(
    jnp.all(finite), weighted_sums, of_finite, [x.arrays for x in others]
  )
  for leaf, part in sums.items():
    leaves[leaf] = leaves[leaf] + part
  for ledger in ledgers:
    if isinstance(ledger, _RowsLedger):
      weights = factors[:, ledger.block]
      leaves[ledger.leaf] = ledger.add_to(leaves[ledger.leaf], weights, finite)
  return jax.tree.unflatten(treedef, leaves)


def _where_finite(finite, leaf):
  keep = jnp.reshape(finite, finite.shape + (1,) * (leaf.ndim - 1))
  return jnp.where(keep, leaf, jnp.zeros_like(leaf))
