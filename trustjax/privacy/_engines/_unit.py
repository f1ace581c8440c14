"""One clip unit: its gradient, its norm, its clipped gradient.

Every engine is a way to run these functions over a lot. A unit is one record
([...] leading axes of the lot: [slots]) or one clip group ([groups, slots]).
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from trustjax.privacy import _lot, _selection
from trustjax.privacy._engines import _float64

PyTree = Any
LossFn = Callable[..., tuple[Float[Array, ""], PyTree]]


def record_keys(key, ids):
  """`fold_in(key, id)` for ids of any shape: a key belongs to its record."""
  fold = jax.random.fold_in
  for _ in range(ids.ndim):
    fold = jax.vmap(fold, in_axes=(None, 0))
  return fold(key, ids)


def _zero_where_invalid(valid, tree):
  def zero(leaf):
    leaf = jnp.asarray(leaf)
    shape = valid.shape + (1,) * (leaf.ndim - valid.ndim)
    return jnp.where(jnp.reshape(valid, shape), leaf, jnp.zeros_like(leaf))

  return jax.tree.map(zero, tree)


def record_loss(loss_fn: LossFn) -> Callable:
  """Makes `loss(params, lot, key, frozen)` for records.

  Args:
    loss_fn: Loss of one record, `(params, example, key) -> (scalar, aux)`.

  Returns:
    A function of a lot without leading axes; it returns
    (scalar, (losses, aux)).
  """

  def loss(params, lot: _lot.Lot, key, frozen=None):
    params = _selection.merge(params, frozen)
    loss, aux = loss_fn(params, lot.examples, jax.random.fold_in(key, lot.ids))
    return loss, (loss, aux)

  return loss


def group_loss(loss_fn: LossFn) -> Callable:
  """Makes `loss(params, lot, key, frozen)` for groups.

  The scalar is the mean over the group's drawn records, so that its gradient
  is one ordinary batched backward pass. The divisor may depend on the data
  because clipping follows. An empty slot computes on a copy of the group's
  first record, with weight zero, so that garbage in it cannot reach the
  gradient.

  Args:
    loss_fn: Loss of one record, `(params, example, key) -> (scalar, aux)`.

  Returns:
    A function of a lot with the leading axis [slots]; it returns
    (scalar, (losses, aux)).
  """

  def loss(params, lot: _lot.Lot, key, frozen=None):
    params = _selection.merge(params, frozen)
    slots = jnp.arange(lot.valid.shape[0])
    source = jnp.where(lot.valid, slots, jnp.argmax(lot.valid))
    examples = jax.tree.map(lambda leaf: leaf[source], lot.examples)
    keys = record_keys(key, lot.ids[source])
    weights = lot.valid.astype(jnp.float32)
    weights = weights / jnp.maximum(jnp.sum(weights), 1.0)
    losses, aux = jax.vmap(loss_fn, in_axes=(None, 0, 0))(
      params, examples, keys
    )
    mean = jnp.sum(losses * weights.astype(losses.dtype))
    return mean, (losses, aux)

  return loss


def make_loss(loss_fn: LossFn, grouped: bool) -> Callable:
  """The loss of one clip unit: a group's or a record's."""
  checked = _checked(loss_fn)
  return group_loss(checked) if grouped else record_loss(checked)


def make_unit(loss_fn: LossFn, grouped: bool) -> Callable:
  """Makes `unit(params, lot, key, frozen) -> (gradient, losses, aux)`."""
  differentiate = jax.grad(make_loss(loss_fn, grouped), has_aux=True)

  def unit(params, lot: _lot.Lot, key, frozen=None):
    gradient, (losses, aux) = differentiate(params, lot, key, frozen)
    return gradient, losses, aux

  return unit


def _checked(loss_fn):
  """The loss, with what it returns checked while it is traced."""

  def checked(params, example, key):
    returned = loss_fn(params, example, key)
    if not (isinstance(returned, tuple) and len(returned) == 2):
      raise ValueError(
        f"loss_fn: returned a {type(returned).__name__}; it must return"
        " (scalar loss, aux), with aux = None if there is nothing to report"
      )
    loss, aux = returned
    shape, dtype = jnp.shape(loss), jnp.result_type(loss)
    if shape != () or not jnp.issubdtype(dtype, jnp.floating):
      raise ValueError(
        f"loss_fn: returned a loss of shape {shape} and type {dtype}; it sees"
        " ONE record and must return one real number. A loss over a batch, or"
        " one that uses batch statistics, mixes records and has no"
        " per-record gradient to clip"
      )
    return loss, aux

  return checked


def block_norms(
  gradient: PyTree, blocks: Sequence[int]
) -> Float[Array, " blocks"]:
  """L2 norm of each block of one unit's gradient, never too short.

  Args:
    gradient: Pytree of arrays: a record's gradient, or a client's update.
    blocks: Block index of each leaf, from 0 (`ClippingRule.blocks`).

  Returns:
    float32, at least the exact norm and at most 2e-7 of it longer.
  """
  parts: list[list] = [[] for _ in range(max(blocks) + 1)]
  for block, leaf in zip(blocks, jax.tree.leaves(gradient)):
    parts[block].append(leaf[None])
  return jnp.concatenate([_float64.joint_norms(part) for part in parts])


def unit_factors(rule, norms, scales, losses, valid):
  """Clip factors of a unit, and what it may report.

  A unit that holds no record, or whose loss or norm is not finite, gets the
  factor zero in every block.

  Args:
    rule: The clipping rule.
    norms: L2 norm of each block, [blocks].
    scales: Bound of each block, [blocks].
    losses: Loss of each record of the unit, [] or [slots].
    valid: Which of them are drawn records, like `losses`.

  Returns:
    (factors [blocks], norm [], usable [], nonfinite []).
  """
  finite = jnp.all(jnp.isfinite(norms)) & jnp.all(
    jnp.where(valid, jnp.isfinite(losses), True)
  )
  holds = jnp.any(valid)
  usable = finite & holds
  factors = jnp.where(usable, rule.factors(norms, scales), 0.0)
  nonfinite = holds & ~finite
  norm = jnp.where(usable, jnp.sqrt(jnp.sum(jnp.square(norms))), 0.0)
  return factors, jnp.where(nonfinite, jnp.inf, norm), usable, nonfinite


def scale_gradient(
  gradient: PyTree,
  factors: Float[Array, " blocks"],
  usable: Bool[Array, ""],
  blocks: Sequence[int],
) -> PyTree:
  """The clipped gradient in float32; exactly zero if the unit is unusable."""
  leaves, treedef = jax.tree.flatten(gradient)
  return jax.tree.unflatten(
    treedef,
    [
      # A factor of zero is not enough: 0 * nan is nan.
      jnp.where(usable, factors[block] * leaf.astype(jnp.float32), 0.0)
      for block, leaf in zip(blocks, leaves)
    ],
  )


def clip_unit(unit, rule, blocks, params, lot, key, frozen, scales):
  """Runs one unit from data to clipped gradient.

  Args:
    unit: From `make_unit`.
    rule: The clipping rule.
    blocks: Block index of each leaf.
    params: Model parameters.
    lot: The unit's part of the lot: [] or [slots].
    key: The step's key for records.
    frozen: Parameters that are not trained, or None.
    scales: Bound of each block.

  Returns:
    (clipped gradient, norm, losses, aux, nonfinite).
  """
  gradient, losses, aux = unit(params, lot, key, frozen)
  norms = block_norms(gradient, blocks)
  factors, norm, usable, nonfinite = unit_factors(
    rule, norms, scales, losses, lot.valid
  )
  clipped = scale_gradient(gradient, factors, usable, blocks)
  return (clipped, norm, *report(losses, aux, lot.valid), nonfinite)


def report(losses, aux, valid):
  """Losses and auxiliary outputs with invalid slots set to zero."""
  losses = jnp.where(valid, losses.astype(jnp.float32), 0.0)
  return losses, _zero_where_invalid(valid, aux)


def zeros_like_sum(params: PyTree) -> PyTree:
  """The empty clipped sum: float32 whatever the parameters' type."""
  return jax.tree.map(
    lambda leaf: jnp.zeros(jnp.shape(leaf), jnp.float32), params
  )
