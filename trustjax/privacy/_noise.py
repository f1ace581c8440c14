"""Noise and averaging as an optax transformation."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int, Key

from trustjax.privacy import _normals, _plan

PyTree = Any


class NoiseState(NamedTuple):
  """State of `add_noise`: how many releases were made.

  Attributes:
    step: Number of noisy sums released so far.
  """

  step: Int[Array, ""]


def add_noise(plan: "_plan.DpSgdPlan") -> optax.GradientTransformationExtraArgs:
  """Turns the clipped sum into the private average gradient.

  At step t, block j of the sum S becomes

    (S^j + sigma_t a_j N(0, I)) / divisor,

  where sigma_t follows the plan's schedule, a_j is the rule's noise scale and
  the divisor is the constant expected number of units, never the realised one.
  It composes with any optax optimiser:

    optimizer = optax.chain(add_noise(plan), optax.adam(1e-3))
    updates, state = optimizer.update(
        clipped.sum, state, params, key=key, clip_state=clip_state)

  Guarantee:
    With a sum from `plan.clipped_grad` over lots from `plan.lot_indices` and a
    fresh key for each step, all releases together satisfy `plan.epsilon`.
    Everything behind it in the chain is post-processing. A key used twice, or
    a sum from elsewhere, voids it. A step beyond the plan's last returns nan,
    since no budget was set aside for it.

  Args:
    plan: The plan that also built the clipped gradient.

  Returns:
    A transformation whose update needs `params` and the extra arguments `key`
    (typed, one per step) and, for rules that learn, `clip_state`.
  """
  multipliers = plan.gradient_noise_multipliers().astype("float32")
  divisor = float(plan.expected_units)

  def init(params: PyTree) -> NoiseState:
    del params
    return NoiseState(step=jnp.zeros((), jnp.int32))

  def update(
    updates: PyTree,
    state: optax.OptState,
    params: PyTree | None = None,
    *,
    key: Key[Array, ""],
    clip_state: Any = (),
    **extra,
  ) -> tuple[PyTree, NoiseState]:
    del extra
    assert isinstance(state, NoiseState)
    if params is None:
      raise ValueError("params: got None; the noise scale may depend on them")
    multiplier = (
      jnp.asarray(multipliers)
      .at[state.step]
      .get(mode="fill", fill_value=jnp.nan)
    )
    scales = multiplier * plan.rule.noise_scales(clip_state, params)
    noised = add_to_blocks(key, updates, plan.rule.blocks(params), scales)
    average = jax.tree.map(lambda leaf: leaf / divisor, noised)
    return average, NoiseState(step=state.step + 1)

  # Its type does not know that extra arguments may be required.
  return optax.GradientTransformationExtraArgs(init, update)  # pyright: ignore


def add_to_blocks(key, tree, blocks, scales):
  """Adds scales[block] * N(0, I) to every leaf, from one flat draw.

  One draw for all leaves: a draw per leaf costs a compiled kernel each.
  """
  leaves, treedef = jax.tree.flatten(tree)
  normals = _normals.standard_normals(key, sum(leaf.size for leaf in leaves))
  # Without the barrier the draw is fused into every leaf's slice, where the
  # index arithmetic of its shape undoes the vectorised hash.
  normals = jax.lax.optimization_barrier(normals)
  noised, start = [], 0
  for block, leaf in zip(blocks, leaves):
    part = jnp.reshape(normals[start : start + leaf.size], leaf.shape)
    noised.append(leaf.astype(jnp.float32) + scales[block] * part)
    start += leaf.size
  return jax.tree.unflatten(treedef, noised)
