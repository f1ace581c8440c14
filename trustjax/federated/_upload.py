"""The upload: what happens to a client's update on its way to the server.

In this order, for every client: compress, clip, weigh, encode. Compression
comes before clipping, since it may lengthen an update; the clip bounds what is
summed. The server undoes the encoding after the sum.

No block of a contribution is longer than the bound that its noise is scaled to:
norms are taken from above, and a rule that rescales stays 1e-6 below the bound,
where rounding its factor, the weight's product and each entry's can lift a
contribution by 5 times 2^-24, or 3e-7.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from trustjax import privacy
from trustjax.federated import _compression, _secure_sum

PyTree = Any


class Sent(NamedTuple):
  """What of a client reaches the sum.

  Attributes:
    contribution: Weighted update, encoded; zero unless counted.
    norm: L2 norm of the update before clipping; 0 unless counted, nan where
      it was not measured.
    counted: The slot is valid and the update finite.
    clipped: Whether the update was clipped.
  """

  contribution: PyTree
  norm: jax.Array
  counted: jax.Array
  clipped: jax.Array


@dataclasses.dataclass(frozen=True, kw_only=True)
class Upload:
  """How updates travel.

  Attributes:
    compression: Applied in order; `()` sends updates as they are.
    rule: Clipping rule of whole updates, or None.
    secure_sum: Fixed-point encoding of the sum, or None.
    checked: Whether updates are measured and dropped when they are not finite
      without a rule, too. It costs as much as a local step of a small model,
      so rounds only ask for it once a sum was not finite.
  """

  compression: tuple[_compression.Compression, ...] = ()
  rule: privacy.ClippingRule | None = None
  secure_sum: _secure_sum.SecureSum | None = None
  checked: bool = False

  @property
  def measures(self) -> bool:
    """Whether norms are known."""
    # Encoding would hide what is not finite.
    return self.checked or self.rule is not None or self.secure_sum is not None

  def send(self, update, weight, valid, clip_state, key, *, params) -> Sent:
    """The contribution of one client.

    Bounds are functions of the global parameters, as the noise is: taken from
    the update itself they would follow it and exceed what was noised.
    """
    for number, compress in enumerate(self.compression):
      update = compress(update, jax.random.fold_in(key, number))
    if not self.measures:
      # Empty slots took no step: their update is exactly zero.
      return Sent(
        contribution=jax.tree.map(
          lambda leaf: weight * leaf.astype(jnp.float32), update
        ),
        norm=jnp.float32(jnp.nan),
        counted=valid,
        clipped=jnp.zeros((), bool),
      )
    leaves, treedef = jax.tree.flatten(update)
    blocks = (0,) * len(leaves)
    if self.rule is not None:
      blocks = self.rule.blocks(params)
    norms = privacy.block_norms(leaves, blocks)
    # Of one block it is the very number that the bound is compared with.
    norm = norms[0] if len(norms) == 1 else privacy.block_norms(norms, (0,))[0]
    counted = valid & jnp.isfinite(norm)
    factors, clipped = jnp.ones_like(norms), jnp.zeros((), bool)
    if self.rule is not None:
      bounds = self.rule.scales(clip_state, params)
      factors = self.rule.factors(norms, bounds)
      clipped = counted & jnp.any(norms > bounds)
    factors = weight * factors
    parts = [
      # A factor of zero is not enough: 0 * nan is nan.
      jnp.where(counted, factors[block] * leaf.astype(jnp.float32), 0.0)
      for block, leaf in zip(blocks, leaves)
    ]
    if self.secure_sum is not None:
      key = jax.random.fold_in(key, len(self.compression))
      parts = [
        jnp.where(counted, code, jnp.zeros_like(code))
        for code in self.secure_sum.encode(parts, key)
      ]
    return Sent(
      contribution=jax.tree.unflatten(treedef, parts),
      norm=jnp.where(counted, norm, 0.0),
      counted=counted,
      clipped=clipped,
    )

  def receive(self, total: PyTree, num_counted) -> PyTree:
    """The sum of the contributions, decoded."""
    if self.secure_sum is None:
      return total
    return self.secure_sum.decode(total, num_counted)
