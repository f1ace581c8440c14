"""Engines `scan` and `vmap`: one program, a bounded chunk of units at a time.

The clipped sum is carried from chunk to chunk, so memory holds one chunk of
per-unit gradients whatever the lot. Padding is skipped where it is known to
hold nothing: chunks behind the last drawn record are not run (the trip count is
traced), and clip groups without a record in their last slots run on fewer.
"""

import functools
import math

import jax
import jax.numpy as jnp

from trustjax.privacy import _lot
from trustjax.privacy._engines import _float64, _unit

# Up to so many units are added to the sum in one fused pass, not contracted.
_FEW_UNITS = 16


def scan_engine(loss_fn, rule, grouped, chunk_size):
  """Builds the engine that runs one unit at a time inside one program.

  Args:
    loss_fn: Loss of one record.
    rule: The clipping rule.
    grouped: Whether units are clip groups.
    chunk_size: None or 1.

  Returns:
    `(params, lot, key, clip_state, frozen) -> ClippedGrads`.
  """
  if chunk_size not in (None, 1):
    raise ValueError(
      f"chunk_size: got {chunk_size}; engine 'scan' holds one unit at a time,"
      " so only None or 1 is allowed"
    )

  unit = _unit.make_unit(loss_fn, grouped)
  if grouped:
    unit = _on_filled_slots(unit, axis=0)

  def add_chunk(total, params, chunk, key, frozen, scales, blocks):
    part = jax.tree.map(lambda leaf: leaf[0], chunk)
    clipped, *rest = _unit.clip_unit(
      unit, rule, blocks, params, part, key, frozen, scales
    )
    total = jax.tree.map(jnp.add, total, clipped)
    return total, jax.tree.map(lambda leaf: leaf[None], tuple(rest))

  return over_chunks(add_chunk, rule, 1)


def vmap_engine(loss_fn, rule, grouped, chunk_size):
  """Builds the engine that runs `chunk_size` units side by side.

  Args:
    loss_fn: Loss of one record.
    rule: The clipping rule.
    grouped: Whether units are clip groups.
    chunk_size: Units held at a time; None holds the whole lot.

  Returns:
    `(params, lot, key, clip_state, frozen) -> ClippedGrads`.
  """
  units = jax.vmap(
    _unit.make_unit(loss_fn, grouped), in_axes=(None, 0, None, None)
  )
  if grouped:
    # Outside of vmap, which would turn the choice into running both.
    units = _on_filled_slots(units, axis=1)

  def add_chunk(total, params, chunk, key, frozen, scales, blocks):
    gradients, losses, aux = units(params, chunk, key, frozen)
    norms = jax.vmap(lambda g: _unit.block_norms(g, blocks))(gradients)
    factors, norm, _, nonfinite = jax.vmap(
      lambda *values: _unit.unit_factors(rule, *values),
      in_axes=(0, None, 0, 0),
    )(norms, scales, losses, chunk.valid)
    total = _add_clipped(total, gradients, norms, factors, blocks)
    losses, aux = _unit.report(losses, aux, chunk.valid)
    return total, (norm, losses, aux, nonfinite)

  return over_chunks(add_chunk, rule, chunk_size)


def _on_filled_slots(run, *, axis):
  """Spares `run` the last slots of clip groups if no record sits there.

  Groups are filled from the front, and their capacity is about 1.4 standard
  deviations above their mean: more than half of them fit into `slots -
  sqrt(slots)`. Two sizes catch most of what could be saved; each is a copy of
  the backward pass for the compiler.

  Args:
    run: `(params, lot, key, frozen) -> (gradient, losses, aux)`.
    axis: Which axis of the lot, the losses and the aux are the slots.

  Returns:
    A function like `run`, equal to it up to rounding.
  """

  def on_front(size, params, lot, key, frozen):
    front = jax.tree.map(
      lambda leaf: jax.lax.slice_in_dim(leaf, 0, size, axis=axis), lot
    )
    gradient, *rest = run(params, front, key, frozen)
    empty = lot.valid.shape[axis] - size

    def pad(leaf):
      widths = [(0, 0)] * leaf.ndim
      widths[axis] = (0, empty)
      return jnp.pad(leaf, widths)

    return gradient, *jax.tree.map(pad, rest)

  def run_filled(params, lot, key, frozen):
    slots = lot.valid.shape[axis]
    fewer = slots - math.ceil(math.sqrt(slots))
    if fewer < 1:
      return run(params, lot, key, frozen)
    behind = jax.lax.slice_in_dim(lot.valid, fewer, slots, axis=axis)
    return jax.lax.cond(
      jnp.any(behind),
      run,
      functools.partial(on_front, fewer),
      *(params, lot, key, frozen),
    )

  return run_filled


def _add_clipped(total, gradients, norms, factors, blocks):
  """Adds factor * gradient of every unit, [chunk, ...], to the sum [...]."""
  leaves, treedef = jax.tree.flatten(gradients)
  finite = jnp.all(jnp.isfinite(norms), axis=-1)
  add = _add_one_by_one if finite.shape[0] <= _FEW_UNITS else _add_contracted
  return jax.tree.unflatten(
    treedef, add(jax.tree.leaves(total), leaves, finite, factors, blocks)
  )


def _add_one_by_one(totals, leaves, finite, factors, blocks):
  """Unrolled, so that it is one pass over memory, the running sum included."""
  sums = []
  for total, leaf, block in zip(totals, leaves, blocks):
    for k in range(finite.shape[0]):
      clipped = factors[k, block] * _float64.widen(leaf[k], jnp.float32)
      # A factor of zero is not enough: 0 * nan is nan.
      total = total + jnp.where(finite[k], clipped, 0.0)
    sums.append(total)
  return sums


def _add_contracted(totals, leaves, finite, factors, blocks):
  """One contraction for each leaf.

  Only a chunk with a non-finite gradient pays for replacing it.
  """

  def contract(leaves):
    return [
      jnp.tensordot(
        factors[:, block],
        _float64.widen(leaf, jnp.float32),
        axes=1,
        precision=jax.lax.Precision.HIGHEST,
      )
      for block, leaf in zip(blocks, leaves)
    ]

  def replace_then_contract(leaves):
    def replace(leaf):
      keep = jnp.reshape(finite, finite.shape + (1,) * (leaf.ndim - 1))
      return jnp.where(keep, leaf, jnp.zeros_like(leaf))

    return contract([replace(leaf) for leaf in leaves])

  clipped = jax.lax.cond(
    jnp.all(finite), contract, replace_then_contract, leaves
  )
  return [total + leaf for total, leaf in zip(totals, clipped)]


def over_chunks(add_chunk, rule, chunk_size):
  """Carries the clipped sum through `add_chunk` along the lot's first axis.

  Its result takes `start`, what the sum begins with; None begins with zeros
  shaped like the parameters.
  """

  def run(params, lot: _lot.Lot, key, clip_state, frozen, start=None):
    size = _checked_chunk_size(chunk_size, lot)
    blocks = rule.blocks(params)
    scales = rule.scales(clip_state, params)

    def add_at(i, total):
      chunk = jax.tree.map(
        lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, i * size, size), lot
      )
      return add_chunk(total, params, chunk, key, frozen, scales, blocks)

    def body(i, carry):
      total, seen = carry
      total, rest = add_at(i, total)
      seen = jax.tree.map(
        lambda whole, part: jax.lax.dynamic_update_slice_in_dim(
          whole, part, i * size, 0
        ),
        seen,
        rest,
      )
      return total, seen

    # What the skipped chunks would report: zeros, like any padded record.
    num_units = lot.valid.shape[0]
    start = _unit.zeros_like_sum(params) if start is None else start
    seen = jax.tree.map(
      lambda leaf: jnp.zeros((num_units, *leaf.shape[1:]), leaf.dtype),
      jax.eval_shape(add_at, 0, start)[1],
    )
    total, (norms, losses, aux, nonfinite) = jax.lax.fori_loop(
      0, _num_chunks(lot, size), body, (start, seen)
    )
    return _lot.ClippedGrads(
      sum=total,
      norms=norms,
      losses=losses,
      aux=aux,
      num_nonfinite=jnp.sum(nonfinite),
    )

  return run


def _checked_chunk_size(chunk_size, lot):
  num_units = lot.valid.shape[0]
  size = num_units if chunk_size is None else chunk_size
  if size < 1 or num_units % size:
    units = "groups" if lot.valid.ndim > 1 else "slots"
    raise ValueError(
      f"chunk_size: got {size}, which does not divide the lot's"
      f" {num_units} {units}; choose a divisor"
    )
  return size


def _num_chunks(lot, size):
  """Chunks up to the last unit that holds a record (traced)."""
  holds = jnp.reshape(lot.valid, (lot.valid.shape[0], -1)).any(axis=1)
  units = jnp.arange(1, holds.shape[0] + 1)
  return (jnp.max(jnp.where(holds, units, 0)) + size - 1) // size
