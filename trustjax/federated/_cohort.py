"""A cohort: who takes part in a round, and with what weight."""

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
class ClientBatches:
  """The local batches of a cohort, in padded arrays of fixed shape.

  Attributes:
    examples: Pytree of arrays [slots, steps, batch, ...]. An empty place
      repeats a record of the client (in an empty slot, of the cohort), so that
      no loss sees what is no record, or what is another client's.
    valid: bool [slots, steps, batch]; a client's live steps come first.
  """

  examples: PyTree
  valid: Bool[Array | np.ndarray, "slots steps batch"]


@typing.no_type_check  # JAX rebuilds records with placeholders of its own.
@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Cohort:
  """The clients of a round, in padded slots.

  Attributes:
    ids: Client in each slot; its randomness is addressed by it.
    valid: Which slots hold a client. What others hold never matters.
    weights: Weight of each client's update in the round's update, which is
      their weighted sum: the weighting has divided already. 0 where invalid.
    inclusion: Probability that the client was selected, or None where no
      closed form exists (`successive_inclusion` computes small cases).
    data: The clients' batches, once fetched (`ClientStore.fetch`).
    weighting: Name of the weighting, for records.
  """

  ids: Int[Array | np.ndarray, " slots"]
  valid: Bool[Array | np.ndarray, " slots"]
  weights: Float[Array | np.ndarray, " slots"]
  inclusion: Float[Array | np.ndarray, " slots"] | None = None
  data: ClientBatches | None = None
  weighting: str = dataclasses.field(
    default="fedavg", metadata=dict(static=True)
  )

  @property
  def num_clients(self) -> int:
    """Clients that take part."""
    return int(np.sum(np.asarray(self.valid)))

  def replace(self, **changes) -> "Cohort":
    """The same cohort with some fields changed."""
    return dataclasses.replace(self, **changes)
