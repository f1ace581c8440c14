"""A federated algorithm as a record of pure functions, and its state."""

import dataclasses
import typing
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Num

PyTree = Any


@typing.no_type_check  # JAX rebuilds records with placeholders of its own.
@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class ServerState:
  """Everything that the server carries from round to round.

  Attributes:
    round: Rounds done.
    params: Global parameters.
    opt_state: State of the server's optimiser.
    control: What the server broadcasts besides the parameters.
    memory: What each client keeps between rounds, leading axis [clients].
    clip_state: State of the clipping rule of a private run.
  """

  round: Int[Array, ""]
  params: PyTree
  opt_state: PyTree = ()
  control: PyTree = ()
  memory: PyTree = ()
  clip_state: PyTree = ()


class Shared(NamedTuple):
  """What the server sends to every client of a round.

  Attributes:
    params: Global parameters.
    control: Anything else; `()` for most algorithms.
  """

  params: PyTree
  control: PyTree = ()


class LocalMetrics(NamedTuple):
  """Sums over a client's local steps.

  Attributes:
    loss: Sum of the records' losses, each at the step that used it.
    num_examples: Records used, with their repetitions.
    num_steps: Local steps.
  """

  loss: Float[Array, ""]
  num_examples: Num[Array, ""]
  num_steps: Int[Array, ""]


class ClientResult(NamedTuple):
  """What a client sends back.

  Attributes:
    update: global minus local parameters, so that its mean is a gradient for
      the server's optimiser; summed with the cohort's weights.
    metrics: Sums for the log.
    side: Anything else, summed without weights.
    memory: What the client keeps; shaped like its row of the server's memory.
  """

  update: PyTree
  metrics: LocalMetrics
  side: PyTree = ()
  memory: PyTree = ()


class RoundSums(NamedTuple):
  """Sums over the clients of a round: the server's only view of them.

  Attributes:
    update: Weighted sum of the updates, float32.
    side: Plain sum of the clients' side results.
  """

  update: PyTree
  side: PyTree = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class FederatedAlgorithm:
  """Five pure functions; everything about clients is written for ONE client.

  Attributes:
    name: For tables.
    init: params -> ServerState.
    client_init: (shared, memory, key) -> carry.
    client_step: (carry, batch, valid, key) -> carry: one local step on
      examples [batch, ...] of which `valid` [batch] are real. A step without
      one is never taken: backends keep the old carry.
    client_final: (shared, carry) -> ClientResult.
    server_update: (state, RoundSums) -> ServerState; it need not advance the
      round.
  """

  name: str
  init: Callable[[PyTree], ServerState]
  client_init: Callable[[Shared, PyTree, Array], PyTree]
  client_step: Callable[[PyTree, PyTree, Array, Array], PyTree]
  client_final: Callable[[Shared, PyTree], ClientResult]
  server_update: Callable[[ServerState, RoundSums], ServerState]


def new_state(params: PyTree, **fields) -> ServerState:
  """A state before the first round, with a copy of the parameters."""
  params = jax.tree.map(jnp.array, params)
  return ServerState(round=jnp.zeros((), jnp.int32), params=params, **fields)
