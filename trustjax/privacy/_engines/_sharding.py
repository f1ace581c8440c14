"""One lot over several devices: each clips its part, sums are added."""

from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import PartitionSpec

from trustjax.privacy import _lot

# Engines that run on the host: no part of a compiled step, on no mesh.
HOST_ENGINES = frozenset({"loop", "loop_eager"})


def over_devices(
  run: Callable[..., _lot.ClippedGrads], mesh: jax.sharding.Mesh, engine: str
) -> Callable[..., _lot.ClippedGrads]:
  """Runs an engine on equal parts of a lot.

  A record's gradient and key do not depend on where it sits, so clipping by
  parts and adding is clipping the whole. Noise is added once, afterwards.

  Args:
    run: `(params, lot, key, clip_state, frozen) -> ClippedGrads`.
    mesh: Devices; the lot's leading axis is split over all of its axes.
    engine: Name of the engine, for the message.

  Returns:
    A function like `run`, whose sum is the same on every device.

  Raises:
    ValueError: A host engine, or (from the function) a lot that cannot be
      split evenly.
  """
  if engine in HOST_ENGINES:
    raise ValueError(
      f"engine: got {engine!r} with a mesh; it runs on the host. Use 'scan',"
      " 'vmap', 'bookkeeping' or 'auto'"
    )
  # With axes that the compiler places: lots come from the host, unsharded.
  mesh = jax.sharding.Mesh(mesh.devices, mesh.axis_names)
  axes = mesh.axis_names
  split, whole = PartitionSpec(axes), PartitionSpec()

  def part(params, lot, key, clip_state, frozen):
    clipped = run(params, lot, key, clip_state, frozen)
    total, dropped = jax.lax.psum((clipped.sum, clipped.num_nonfinite), axes)
    return _lot.ClippedGrads(
      sum=total,
      norms=clipped.norms,
      losses=clipped.losses,
      aux=clipped.aux,
      num_nonfinite=dropped,
    )

  specs: Any = dict(
    sum=whole, norms=split, losses=split, aux=split, num_nonfinite=whole
  )
  sharded = jax.shard_map(
    part,
    mesh=mesh,
    in_specs=(whole, split, whole, whole, whole),
    out_specs=_lot.ClippedGrads(**specs),
    # The engines' loops carry sums that start equal and then differ.
    check_vma=False,
  )

  def fn(params, lot, key, clip_state, frozen):
    units = lot.valid.shape[0]
    if units % mesh.size:
      raise ValueError(
        f"mesh: got {mesh.size} devices, which do not divide the lot's {units}"
        " slots or groups; draw lots with a capacity_multiple that they divide"
      )
    return sharded(params, lot, key, clip_state, frozen)

  return fn
