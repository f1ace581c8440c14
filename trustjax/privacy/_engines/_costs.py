"""What a unit costs under each engine: memory, and work beyond the backward.

Read off the traced loss, without running it. The figures steer choices and are
shown by `explain`; they are estimates, within a factor of two of what the
compiler allocates on the models of the test suite.
"""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp

from trustjax.privacy._engines import _bookkeeping, _unit

# Share of all intermediate values that is alive at once: the rest is fused
# away or freed. Fitted to XLA's buffers for the taggers of `trustjax.models`,
# and for BERT-base and GPT-2 small compiled for an H200.
_LIVE_SHARE = {"cpu": 0.4}
_ACCELERATOR_LIVE_SHARE = 0.1
# Bytes of a per-unit gradient: written, read for the norm, read for the sum.
_FEW_UNITS = 16


@dataclasses.dataclass(frozen=True, kw_only=True)
class UnitCosts:
  """Costs of one clip unit.

  Attributes:
    gradient_bytes: A gradient of all trained parameters, float32.
    activation_bytes: Intermediate values of a forward and backward pass.
    book_bytes: What book-keeping holds besides them.
    gradient_operations: Multiply-adds' worth of handling one gradient.
    book_operations: Multiply-adds of book-keeping's norms and sums beyond the
      backward pass.
    positions: Most positions at which one parameter is used.
  """

  gradient_bytes: float
  activation_bytes: float
  book_bytes: float
  gradient_operations: float
  book_operations: float
  positions: int

  def step_bytes(self, engine: str, chunk_size: int) -> float:
    """Predicted temporary memory of a clipped sum.

    Args:
      engine: "loop", "scan", "vmap" or "bookkeeping".
      chunk_size: Units held at a time; 1 for loop and scan.

    Returns:
      Bytes, with the clipped sum itself.

    Raises:
      ValueError: Unknown engine.
    """
    total = self.gradient_bytes
    if engine in ("loop", "scan", "loop_eager"):
      return total + self.activation_bytes + self.gradient_bytes
    if engine == "vmap":
      # Larger chunks are contracted, which copies the gradients once.
      copies = 1 if chunk_size <= _FEW_UNITS else 2
      each = self.activation_bytes + copies * self.gradient_bytes
      return total + chunk_size * each
    if engine == "bookkeeping":
      return total + chunk_size * (self.activation_bytes + self.book_bytes)
    raise ValueError(
      f"engine: got {engine!r}; allowed are 'loop', 'scan', 'vmap' and"
      " 'bookkeeping'"
    )


def trace(loss_fn, params, lot, key, frozen=None) -> "_bookkeeping.TappedLoss":
  """Traces the loss of a lot's first unit.

  Args:
    loss_fn: Loss of one record.
    params: Parameters, or their shapes.
    lot: A lot, or its shapes.
    key: The step's key.
    frozen: Parameters that are not trained, or None.

  Returns:
    The traced loss with the route of every leaf.
  """
  grouped = len(lot.valid.shape) > 1
  one = jax.tree.map(
    lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), lot
  )
  return _bookkeeping.TappedLoss(
    _unit.make_loss(loss_fn, grouped), params, one, key, frozen
  )


def unit_costs(program: "_bookkeeping.TappedLoss") -> UnitCosts:
  """Estimates the costs of one unit from its traced loss."""
  sizes = [math.prod(shape) for shape in program.leaf_shapes]
  routes = program.routes
  book_bytes = sum(4 * sizes[leaf] for leaf in routes.explicit)
  operations = sum(
    sizes[leaf] * _bookkeeping.memory_cost() for leaf in routes.explicit
  )
  positions = 1
  live_share = _LIVE_SHARE.get(jax.default_backend(), _ACCELERATOR_LIVE_SHARE)
  for node in routes.nodes:
    cost = _bookkeeping.node_cost(node, routes.sites)
    book_bytes += cost.bytes
    operations += cost.operations
    positions = max(positions, cost.positions)
  return UnitCosts(
    gradient_bytes=4.0 * sum(sizes),
    activation_bytes=live_share * _intermediate_bytes(program.jaxpr),
    book_bytes=float(book_bytes),
    gradient_operations=float(sum(sizes) * _bookkeeping.memory_cost()),
    book_operations=float(operations),
    positions=positions,
  )


def _intermediate_bytes(jaxpr: Any) -> float:
  """Bytes of all floating-point values that a jaxpr computes."""
  total = 0.0
  for eqn in jaxpr.eqns:
    inner = [
      getattr(value, "jaxpr", value)
      for value in eqn.params.values()
      if hasattr(getattr(value, "jaxpr", value), "eqns")
    ]
    repeats = eqn.params["length"] if eqn.primitive.name == "scan" else 1
    branches = eqn.params.get("branches", ())
    if branches:  # One of them runs.
      total += max(_intermediate_bytes(branch.jaxpr) for branch in branches)
      continue
    if inner:
      total += repeats * sum(map(_intermediate_bytes, inner))
      continue
    total += sum(
      out.aval.size * out.aval.dtype.itemsize
      for out in eqn.outvars
      if jnp.issubdtype(out.aval.dtype, jnp.floating)
    )
  return total
