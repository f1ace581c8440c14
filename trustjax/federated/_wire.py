"""Bytes on the wire: what a round costs a device's connection."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from trustjax.federated import _compression, _secure_sum

PyTree = Any
# A weight and the bit of adaptive clipping travel as one word each.
_WEIGHT_BYTES, _CLIP_BYTES = 4, 4


class WireBytes(NamedTuple):
  """Bytes of one client in one round.

  Attributes:
    down: From the server.
    up: To the server.
  """

  down: int
  up: int


def wire_bytes(
  params: PyTree,
  *,
  control: PyTree = (),
  side: PyTree = (),
  frozen: PyTree = (),
  frozen_every_round: bool = False,
  compression: Sequence[_compression.Compression] = (),
  secure_sum: _secure_sum.SecureSum | None = None,
  adaptive_clip: bool = False,
) -> WireBytes:
  """Counts what one client receives and sends in a round.

  Args:
    params: Trained parameters (arrays or shapes): sent down whole, and up as
      an update of the same shape, compressed.
    control: What else the server broadcasts.
    side: What else a client sends.
    frozen: Parameters that are not trained.
    frozen_every_round: Whether they travel every round; else devices keep
      them, and they cost nothing after the first time (`tree_bytes`).
    compression: As in `run_round`.
    secure_sum: As in `run_round`; entries then travel modulo 2^modulus_bits.
    adaptive_clip: Whether a client sends the bit of adaptive clipping.

  Returns:
    The bytes.
  """
  leaves = jax.tree.leaves(params)
  payload = _compression.Payload(
    values=sum(int(np.prod(leaf.shape)) for leaf in leaves),
    bits=8 * max((leaf.dtype.itemsize for leaf in leaves), default=4),
  )
  for compress in compression:
    payload = compress.payload(payload, len(leaves))
  if secure_sum is not None:
    # Positions must not leak either: every entry is sent.
    payload = _compression.Payload(
      values=sum(int(np.prod(leaf.shape)) for leaf in leaves),
      bits=secure_sum.modulus_bits,
    )
  extra = _CLIP_BYTES if adaptive_clip else 0
  return WireBytes(
    down=tree_bytes(params)
    + tree_bytes(control)
    + (tree_bytes(frozen) if frozen_every_round else 0),
    up=payload.num_bytes + tree_bytes(side) + _WEIGHT_BYTES + extra,
  )


def tree_bytes(tree: PyTree) -> int:
  """Bytes of all arrays of a tree."""
  return sum(
    int(np.prod(leaf.shape)) * leaf.dtype.itemsize
    for leaf in jax.tree.leaves(tree)
  )
