"""Decides, from how a loss uses each leaf, how its gradient is handled."""

import dataclasses
import itertools
import math
import operator
from collections.abc import Callable, Collection, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from trustjax.privacy._engines._bookkeeping import _sites, _views

# What a float of an explicit gradient costs, in multiply-adds of a matrix
# product: it is written, read for the norm and read for the sum, at memory
# speed. Measured on a CPU. An accelerator multiplies far faster than it reads:
# 12 bytes at 4 TB/s are 500 multiply-adds in TF32 and 1,000 in bfloat16.
_CPU_MEMORY_COST = 24
_ACCELERATOR_MEMORY_COST = 500


def memory_cost() -> int:
  """Cost of a float of an explicit gradient on the default backend."""
  on_cpu = jax.default_backend() == "cpu"
  return _CPU_MEMORY_COST if on_cpu else _ACCELERATOR_MEMORY_COST


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Node:
  """Leaves whose gradient follows from the same sites.

  Attributes:
    view: What the sites use; the first of them if they use several.
    sites: Positions in the list of all sites.
    swapped: Whether a site's rows are the first one's columns, per site.
    by_gram: Whether norms come from Gram matrices, not from the gradient.
    reason: Why it is handled this way, for explanations.
    is_whole: Whether the tap sits on the view: its cotangent is the gradient.
  """

  view: _views.View
  sites: tuple[int, ...]
  swapped: tuple[bool, ...]
  by_gram: bool
  reason: str
  is_whole: bool = False


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Routes:
  """The plan for all leaves.

  Attributes:
    sites: Uses of the leaves that have a node, in order of execution.
    nodes: What is computed from sites.
    explicit: Leaf to the reason why its gradient is formed for every unit by
      differentiation.
    unused: Leaves that the loss does not depend on.
    uses: How often the loss uses each leaf.
  """

  sites: tuple[_sites.Site, ...]
  nodes: tuple[Node, ...]
  explicit: dict[int, str]
  unused: tuple[int, ...]
  uses: tuple[int, ...]


def decide(
  take_stock: Callable[[Collection[int]], Sequence[_sites.Site]],
  shapes: Sequence[tuple[int, ...]],
) -> Routes:
  """Chooses a route for every leaf.

  Args:
    take_stock: Leaves that are explicit to the uses of all others, in order of
      execution. An explicit leaf counts as data and may open a better route
      for the leaves it meets, so stock is taken until nothing changes.
    shapes: Shape of each leaf.

  Returns:
    The routes; each leaf is in a node, explicit, or unused.
  """
  explicit: dict[int, str] = {}
  uses = [0] * len(shapes)
  while True:
    sites = take_stock(explicit)
    for leaf in range(len(shapes)):
      if leaf not in explicit:
        uses[leaf] = sum(leaf in site.view.leaves for site in sites)
    nodes, failed = [], _leaves_used_whole_in_loops(sites)
    for members in () if failed else _group(sites, shapes):
      node = _make_node(sites, members, shapes)
      if isinstance(node, Node):
        nodes.append(node)
      else:
        leaves = {leaf for m in members for leaf in sites[m].view.leaves}
        failed.update(dict.fromkeys(leaves, node))
    if not failed:
      break
    explicit.update(failed)
  return Routes(
    sites=tuple(sites),
    nodes=tuple(nodes),
    explicit=explicit,
    unused=tuple(leaf for leaf, count in enumerate(uses) if count == 0),
    uses=tuple(uses),
  )


def _leaves_used_whole_in_loops(sites):
  """Leaves whose cotangent would be kept once for every iteration."""
  return {
    leaf: f"used by {site.primitive} inside a loop"
    for site in sites
    if site.loops and isinstance(site.rule, _sites.Whole)
    for leaf in site.view.leaves
  }


def _group(sites, shapes):
  """Positions of sites that share parameters, which must be one node.

  Sites may share a leaf and still see different parts of it, such as the two
  directions of a recurrent kernel; these are nodes of their own, whose squared
  norms add up.
  """
  leaves = [np.isin(np.arange(len(shapes)), s.view.leaves) for s in sites]
  for members in _components(leaves):
    # Counting the entries of a large table takes seconds: not where each site
    # sees every one of them.
    if len(members) == 1 or all(sites[m].view.is_complete for m in members):
      yield members
      continue
    starts = _starts(shapes)
    shown = []
    for member in members:
      mask = np.zeros(starts[-1], bool)
      mask[np.ravel(sites[member].view.positions(starts))] = True
      shown.append(mask)
    for parts in _components(shown):
      yield [members[part] for part in parts]


def _components(masks):
  """Indices of masks that overlap, as connected components."""
  groups: list[tuple[np.ndarray, list[int]]] = []
  for index, mask in enumerate(masks):
    members = [index]
    apart = []
    for other, others in groups:
      if np.any(mask & other):
        mask, members = mask | other, others + members
      else:
        apart.append((other, others))
    groups = [*apart, (mask, members)]
  return [sorted(members) for _, members in groups]


def _starts(shapes):
  """Number of the first entry of each leaf, all leaves laid end to end."""
  sizes = [math.prod(shape) for shape in shapes]
  return list(itertools.accumulate(sizes, initial=0))


def _make_node(sites, members, shapes):
  """A node, or the reason why there is none."""
  whole = [isinstance(sites[m].rule, _sites.Whole) for m in members]
  if any(whole):
    primitive = sites[members[whole.index(True)]].primitive
    if len(members) > 1:
      return f"used by {primitive}, and {len(members)} times"
    return Node(
      view=sites[members[0]].view,
      sites=tuple(members),
      swapped=(False,),
      by_gram=False,
      reason=f"used by {primitive}: its cotangent is the gradient",
      is_whole=True,
    )
  # Rows have one orientation, so that other uses of a table follow them.
  is_rows = [isinstance(sites[m].rule, _sites.Rows) for m in members]
  members = [m for _, m in sorted(zip(map(operator.not_, is_rows), members))]
  swapped = (False,)
  if len(members) > 1:
    swapped = _orientations([sites[m] for m in members], shapes)
    if swapped is None:
      return "used several times with different axes contracted"
  by_gram, reason = _cheaper([sites[m] for m in members])
  return Node(
    view=sites[members[0]].view,
    sites=tuple(members),
    swapped=swapped,
    by_gram=by_gram,
    reason=reason,
  )


def _orientations(sites, shapes) -> tuple[bool, ...] | None:
  """Whether each site sees the first one's matrix, or its transpose."""
  starts = _starts(shapes)
  maps = [_matrix_of_positions(site, starts) for site in sites]
  swapped = []
  for site, positions in zip(sites, maps):
    is_rows = isinstance(site.rule, _sites.Rows)
    if np.array_equal(positions, maps[0]):
      swapped.append(False)
    elif not is_rows and np.array_equal(positions.swapaxes(1, 2), maps[0]):
      swapped.append(True)
    else:
      return None
  return tuple(swapped)


def _matrix_of_positions(site, starts):
  """Which parameter sits at [block, row, col] of a site's matrix."""
  blocks, _, rows, cols = site.rule.dims(site)
  positions = site.view.positions(starts)
  # The unfolding is a permutation, so its transpose is its inverse. float64
  # holds whole numbers to 2^53.
  with jax.ensure_compile_time_eval(), jax.enable_x64(True):
    fold = jax.linear_transpose(
      lambda gradient: site.rule.unfold(gradient, site),
      jax.ShapeDtypeStruct((blocks, rows, cols), jnp.float64),
    )
    (matrix,) = fold(jnp.asarray(positions, jnp.float64))
  return np.asarray(matrix)


def _cheaper(sites):
  """Gram matrices or explicit gradients, by multiply-adds."""
  blocks, positions, rows, cols = _joint_dims(sites)
  if positions == 1:
    return True, "one position: the norm of an outer product"
  if all(isinstance(site.rule, _sites.Rows) for site in sites):
    return True, "rows: positions with the same index are added up"
  gram = blocks * positions**2 * (rows + cols)
  explicit = blocks * rows * cols * memory_cost()
  said = f"Gram {gram:.2g} against gradient {explicit:.2g} multiply-adds"
  return gram <= explicit, said


def _joint_dims(sites):
  """(blocks, positions of all uses, rows, cols)."""
  blocks, _, rows, cols = sites[0].rule.dims(sites[0])
  return blocks, sum(s.rule.dims(s)[1] for s in sites), rows, cols


@dataclasses.dataclass(frozen=True, kw_only=True)
class NodeCost:
  """What a node costs for one unit.

  Attributes:
    route: Name of the route, as `explain` shows it.
    operations: Multiply-adds beyond the backward pass.
    bytes: Records, cotangents, Gram matrices and gradients that are held.
    positions: At how many positions the parameters are used.
  """

  route: str
  operations: float
  bytes: float
  positions: int


def node_cost(node: Node, sites: Sequence[_sites.Site]) -> NodeCost:
  """Estimates the cost of a node for one unit."""
  used = [sites[i] for i in node.sites]
  held = sum(
    jnp.dtype(site.dtype).itemsize
    * (
      math.prod(site.tap_shape)
      + math.prod(n for _, n in site.loops) * math.prod(site.record_shape)
    )
    for site in used
  )
  if node.is_whole:
    size = math.prod(used[0].tap_shape)
    return NodeCost(
      route="direct", operations=2.0 * size, bytes=held, positions=1
    )
  blocks, positions, rows, cols = _joint_dims(used)
  grams = 4.0 * blocks * positions**2
  if node.by_gram and all(isinstance(s.rule, _sites.Rows) for s in used):
    return NodeCost(
      route="rows",
      operations=float(blocks * positions * (cols + positions)),
      bytes=held + 4.0 * blocks * positions * cols + grams / 4,
      positions=positions,
    )
  if node.by_gram:
    return NodeCost(
      route="gram",
      operations=float(blocks * positions**2 * (rows + cols)),
      bytes=held + 2 * grams,
      positions=positions,
    )
  return NodeCost(
    route="multiplied",
    operations=float(blocks * rows * cols * memory_cost()),
    bytes=held + 4.0 * blocks * rows * cols,
    positions=positions,
  )


def node_factors(
  node: Node, sites: Sequence[_sites.Site], records: Sequence, cotangents
) -> list[_sites.Factors]:
  """The outer products of a node, for one unit."""
  parts = []
  for position, swapped in zip(node.sites, node.swapped):
    site = sites[position]
    part = site.rule.factors(records[position], cotangents[position], site)
    if swapped:
      part = dataclasses.replace(part, left=part.right, right=part.left)
    parts.append(part)
  return parts


def unfold_node(
  node: Node, sites: Sequence[_sites.Site], gradient: Any
) -> list[Float[Array, "..."]]:
  """Moves [blocks, rows, cols] to the leaves of a node."""
  first = sites[node.sites[0]]
  return node.view.put_back(first.rule.unfold(gradient, first))


def dims_of(node: Node, sites: Sequence[_sites.Site]) -> tuple[int, int, int]:
  """(blocks, rows, cols) of a node's matrix."""
  first = sites[node.sites[0]]
  blocks, _, rows, cols = first.rule.dims(first)
  return blocks, rows, cols
