"""Engine `loop`: a Python loop over units. Slow, plain, and the oracle."""

import functools

import jax
import jax.numpy as jnp

from trustjax.privacy import _lot
from trustjax.privacy._engines import _unit


def loop_engine(loss_fn, rule, grouped, chunk_size, *, compiled: bool = True):
  """Builds the per-unit loop.

  Args:
    loss_fn: Loss of one record.
    rule: The clipping rule.
    grouped: Whether units are clip groups.
    chunk_size: Must be None or 1: the loop holds one unit at a time.
    compiled: Compile the work on one unit, as a careful user would; False
      dispatches every operation by itself, as DP-SGD was first written.

  Returns:
    The engine's function; it runs on the host and must not be traced.
  """
  if chunk_size not in (None, 1):
    raise ValueError(
      f"chunk_size: got {chunk_size}; engine 'loop' holds one unit at a time,"
      " so only None or 1 is allowed"
    )

  one = _make_one(loss_fn, rule, grouped, compiled)

  def run(params, lot: _lot.Lot, key, clip_state, frozen):
    lot = jax.tree.map(jnp.asarray, lot)  # A host lot's rows are scalars.
    blocks = rule.blocks(params)
    scales = rule.scales(clip_state, params)
    total = _unit.zeros_like_sum(params)
    seen = []
    for i in range(lot.valid.shape[0]):
      part = jax.tree.map(lambda leaf, i=i: leaf[i], lot)
      clipped, *rest = one(blocks, params, part, key, frozen, scales)
      total = jax.tree.map(jnp.add, total, clipped)
      seen.append(rest)
    norms, losses, aux, nonfinite = jax.tree.map(
      lambda *leaves: jnp.stack(leaves), *map(tuple, seen)
    )
    return _lot.ClippedGrads(
      sum=total,
      norms=norms,
      losses=losses,
      aux=aux,
      num_nonfinite=jnp.sum(nonfinite),
    )

  return run


# Kept, because the engine is built anew for every lot: a loop that compiled its
# unit in each step would be slower than any loop that somebody has written.
@functools.lru_cache(maxsize=16)
def _make_one(loss_fn, rule, grouped, compiled):
  """Makes `(blocks, params, part, key, frozen, scales) -> ...`."""
  unit = _unit.make_unit(loss_fn, grouped)

  def one(blocks, *arguments):
    return _unit.clip_unit(unit, rule, blocks, *arguments)

  return jax.jit(one, static_argnums=0) if compiled else one
