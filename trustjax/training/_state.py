"""What one step of training carries to the next."""

import dataclasses
import typing
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from trustjax import privacy

PyTree = Any


@typing.no_type_check  # JAX rebuilds records with placeholders of its own.
@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainState:
  """Parameters and everything else that a resumed run must find again.

  There is no generator state: every draw is addressed by (seed, step).

  Attributes:
    step: Steps taken so far.
    params: Model parameters.
    opt_state: State of the optimiser (and of the noise in front of it).
    clip_state: State of the clipping rule.
  """

  step: Int[Array, ""]
  params: PyTree
  opt_state: PyTree
  clip_state: PyTree


# What the loop carries: parameters, or parameters that lack noise.
State = TrainState | privacy.DeferredState


@typing.no_type_check  # JAX rebuilds records with placeholders of its own.
@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class StepMetrics:
  """What a step saw. Raw statistics of the data: never release them.

  Attributes:
    loss: Mean loss of the finite records in the lot; 0 for an empty lot.
    num_records: Records in the lot.
    num_nonfinite: Clip units dropped because they were not finite.
    mean_norm: Mean gradient norm of the clip units that hold a record.
    clipped_share: Share of those units whose norm exceeded the clip norm.
    clip_norm: The joint clip norm in force.
  """

  loss: Float[Array, ""]
  num_records: Int[Array, ""]
  num_nonfinite: Int[Array, ""]
  mean_norm: Float[Array, ""]
  clipped_share: Float[Array, ""]
  clip_norm: Float[Array, ""]


def init_state(
  params: PyTree,
  optimizer: optax.GradientTransformation,
  clip_state: PyTree = (),
) -> TrainState:
  """The state before the first step."""
  # A copy: steps donate their state, and the caller may train several arms
  # from the same initial parameters.
  params = jax.tree.map(jnp.array, params)
  return TrainState(
    step=jnp.zeros((), jnp.int32),
    params=params,
    opt_state=optimizer.init(params),
    clip_state=clip_state,
  )
