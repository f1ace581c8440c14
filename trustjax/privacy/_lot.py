"""What goes into a clipping engine and what comes out of it."""

import dataclasses
import typing
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Bool, Float, Int

PyTree = Any


@typing.no_type_check  # JAX rebuilds records with placeholders of its own.
@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Lot:
  """The records drawn for one step, in padded slots of fixed shape.

  The leading axes are [slots] when every record is clipped by itself, and
  [groups, slots] when clip groups are averaged first.

  Attributes:
    examples: Pytree of arrays, each with the leading axes.
    valid: Which slots hold a drawn record. What an invalid slot holds never
      reaches the result.
    ids: Index of the record in the data set. Two things follow from it, and
      neither depends on the slot: the record's key is `fold_in(key, id)`, and
      a record may be found again in the losses.
  """

  examples: PyTree
  valid: Bool[Array | np.ndarray, "*slots"]
  ids: Int[Array | np.ndarray, "*slots"]


@typing.no_type_check  # JAX rebuilds records with placeholders of its own.
@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class ClippedGrads:
  """The clipped sum over a lot and what was seen on the way.

  Only `sum` has bounded sensitivity, and only with noise is it private; every
  other field is raw and must not be released.

  Attributes:
    sum: Sum of clipped unit gradients, float32, shaped like the parameters.
    norms: L2 norm of each unit's gradient before clipping; 0 for units that
      hold no record, inf for units dropped because they are not finite.
    losses: Loss of each record, zero in invalid slots.
    aux: Auxiliary output of the loss per record, zero in invalid slots.
    num_nonfinite: Number of units that hold a record but were dropped because
      their loss or their gradient norm was not finite.
  """

  sum: PyTree
  norms: Float[Array, " units"]
  losses: Float[Array, "*slots"]
  aux: PyTree
  num_nonfinite: Int[Array, ""]
