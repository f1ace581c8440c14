"""Placement: a round's clients spread over devices, one code path for all.

A backend sums the clients of one block. Several devices take a block each,
every D-th client of the cohort, which is sorted by work; what they sum is added
and what they report is put back into the cohort's order. The mapper, `pmap` or
`shard_map`, is the only thing that differs.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from trustjax.federated import _backends

PyTree = Any
PLACEMENTS = (None, "pmap", "shard_map")
_AXIS = "clients"


def devices_for(placement: str | None, num_devices: int | None) -> list[Any]:
  """The devices of a placement.

  Args:
    placement: None, "pmap" or "shard_map".
    num_devices: How many; None takes all, and one without a placement.

  Returns:
    The devices. `pmap` sees those of this process, `shard_map` all.

  Raises:
    ValueError: Unknown placement, or more devices than there are.
  """
  if placement not in PLACEMENTS:
    raise ValueError(
      f"devices: got {placement!r}; allowed are {list(PLACEMENTS)}"
    )
  if placement is None:
    if num_devices not in (None, 1):
      raise ValueError(
        f"num_devices: got {num_devices} with devices=None, which uses one;"
        " choose 'pmap' or 'shard_map'"
      )
    return jax.local_devices()[:1]
  seen = jax.local_devices() if placement == "pmap" else jax.devices()
  count = len(seen) if num_devices is None else num_devices
  if not 1 <= count <= len(seen):
    raise ValueError(
      f"num_devices: got {num_devices}; {len(seen)} are visible to {placement}"
    )
  return list(seen[:count])


def place(
  run: Callable[..., _backends.BlockSums],
  placement: str | None,
  devices: list[Any],
) -> Callable[..., _backends.BlockSums]:
  """Runs a backend on its devices.

  Args:
    run: `(shared, block, clip_state, key) -> BlockSums`, compilable.
    placement: None, "pmap" or "shard_map".
    devices: From `devices_for`.

  Returns:
    A function like `run` of whole cohorts, whose slots the number of devices
    must divide. Its sums are the same on every device.
  """
  if placement is None:
    return jax.jit(run)
  if placement == "pmap":
    mapped = jax.pmap(
      functools.partial(_sum_over_devices, run),
      axis_name=_AXIS,
      in_axes=(None, 0, None, None),
      devices=devices,
    )
    return functools.partial(_run_pmapped, mapped, len(devices))
  mesh = jax.sharding.Mesh(np.asarray(devices), (_AXIS,))
  split, whole = PartitionSpec(_AXIS), PartitionSpec()
  specs: Any = dict(update=whole, side=whole, memory=split, reports=split)
  mapped = jax.shard_map(
    functools.partial(_sum_over_devices, run),
    mesh=mesh,
    in_specs=(whole, split, whole, whole),
    out_specs=_backends.BlockSums(**specs),
    # The loops carry sums that start equal and then differ.
    check_vma=False,
  )
  everywhere = NamedSharding(mesh, whole)
  parts = NamedSharding(mesh, split)

  @functools.partial(jax.jit, out_shardings=everywhere)
  def compiled(shared, dealt, clip_state, key_data):
    key = jax.random.wrap_key_data(key_data)
    sums = mapped(shared, dealt, clip_state, key)
    return _in_cohort_order(sums, mesh.size)

  def run_sharded(shared, block, clip_state, key):
    dealt = jax.tree.map(
      lambda leaf: _put(_deal(np.asarray(leaf), mesh.size), parts), block
    )
    shared, clip_state, key_data = jax.tree.map(
      lambda leaf: _put(leaf, everywhere),
      (shared, clip_state, jax.random.key_data(key)),
    )
    sums = compiled(shared, dealt, clip_state, key_data)
    # The same on every device: what follows runs on one, in every process.
    return jax.tree.map(lambda leaf: leaf.addressable_data(0), sums)

  return run_sharded


def _sum_over_devices(run, shared, block, clip_state, key):
  sums = run(shared, block, clip_state, key)
  update, side = jax.lax.psum((sums.update, sums.side), _AXIS)
  return sums._replace(update=update, side=side)


def _run_pmapped(mapped, count, shared, block, clip_state, key):
  def split(leaf):
    dealt = _deal(np.asarray(leaf), count)
    return np.reshape(dealt, (count, -1, *leaf.shape[1:]))

  sums = mapped(shared, jax.tree.map(split, block), clip_state, key)
  update, side = jax.tree.map(lambda leaf: leaf[0], (sums.update, sums.side))
  flat = functools.partial(
    jax.tree.map, lambda leaf: jnp.reshape(leaf, (-1, *leaf.shape[2:]))
  )
  return _in_cohort_order(
    sums._replace(
      update=update,
      side=side,
      memory=flat(sums.memory),
      reports=flat(sums.reports),
    ),
    count,
  )


def _deal(leaf, count):
  """Deals slots like cards: device d gets d, d + count, d + 2 count, ..."""
  rows = leaf.reshape(-1, count, *leaf.shape[1:])
  return rows.swapaxes(0, 1).reshape(leaf.shape)


def _in_cohort_order(sums, count):
  def undeal(leaf):
    rows = jnp.reshape(leaf, (count, -1, *leaf.shape[1:]))
    return jnp.reshape(jnp.swapaxes(rows, 0, 1), leaf.shape)

  return sums._replace(
    memory=jax.tree.map(undeal, sums.memory),
    reports=jax.tree.map(undeal, sums.reports),
  )


def _put(leaf, sharding):
  """Places an array that every process holds whole."""
  if jax.process_count() == 1:
    return jax.device_put(leaf, sharding)
  # A device of another process cannot be written to: each hands over its part.
  host = np.asarray(leaf)
  return jax.make_array_from_callback(
    host.shape, sharding, lambda index: host[index]
  )
