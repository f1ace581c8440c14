"""Record-level privacy inside clients: local training is DP-SGD.

The unit is one record of one client, and the server need not be trusted: what
leaves the device is private already. User-level privacy is another promise
(`UserLevelPlan`); the two can be combined.
"""

import dataclasses
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from trustjax import privacy
from trustjax.federated import _algorithm, _fedavg


def fedavg_local_dp(
  loss_fn: Callable,
  client_optimizer: optax.GradientTransformation,
  *,
  batch_size: int,
  clip_norm: float,
  noise_multiplier: float,
) -> _algorithm.FederatedAlgorithm:
  """Federated averaging whose clients run DP-SGD.

  A local step descends on

    (sum_i clip_C(grad loss_i) + N(0, sigma^2 C^2 I)) / batch_size

  over the records of a batch, with a constant divisor. Batches come from a
  shuffle, each record once an epoch, so no amplification is claimed
  (`local_epsilon`). How many steps a client takes, and its weight under
  "fedavg", are functions of how many records it holds: that number is public.

  Args:
    loss_fn: `(params, example, key) -> (scalar, aux)` for ONE record.
    client_optimizer: Any optax optimiser.
    batch_size: Records of a batch; the divisor.
    clip_norm: C.
    noise_multiplier: sigma.

  Returns:
    The algorithm.

  Raises:
    ValueError: A constant is out of range.
  """
  if batch_size < 1:
    raise ValueError(f"batch_size: got {batch_size}; it must be at least 1")
  if not 0 <= noise_multiplier < math.inf:
    raise ValueError(
      f"noise_multiplier: got {noise_multiplier}; it must be finite and at"
      " least 0"
    )
  rule = privacy.ThresholdClip(clip_norm=clip_norm)
  clipped_grad = privacy.clipped_grad(loss_fn, rule, engine="vmap")
  average = _fedavg.fedavg(loss_fn, client_optimizer)

  def client_step(carry, batch, valid, key):
    if valid.shape[0] != batch_size:
      raise ValueError(
        f"batch_size: got {batch_size}; the cohort's batches hold"
        f" {valid.shape[0]} records"
      )
    record_key, noise_key = jax.random.split(key)
    lot = privacy.Lot(examples=batch, valid=valid, ids=jnp.arange(batch_size))
    clipped = clipped_grad(carry.params, lot, record_key, ())
    leaves, treedef = jax.tree.flatten(clipped.sum)
    normals = privacy.standard_normals(
      noise_key, sum(leaf.size for leaf in leaves)
    )
    noised, start = [], 0
    for leaf in leaves:
      part = jnp.reshape(normals[start : start + leaf.size], leaf.shape)
      scale = noise_multiplier * clip_norm
      noised.append((leaf + scale * part) / batch_size)
      start += leaf.size
    gradient = jax.tree.unflatten(treedef, noised)
    updates, opt_state = client_optimizer.update(
      gradient, carry.opt_state, carry.params
    )
    metrics = carry.metrics
    return carry._replace(
      params=optax.apply_updates(carry.params, updates),
      opt_state=opt_state,
      metrics=_algorithm.LocalMetrics(
        loss=metrics.loss + jnp.sum(clipped.losses),
        num_examples=metrics.num_examples + jnp.sum(valid),
        num_steps=metrics.num_steps + 1,
      ),
    )

  return dataclasses.replace(
    average, name="fedavg_local_dp", client_step=client_step
  )


def local_epsilon(
  noise_multiplier: float,
  *,
  participations: int,
  num_epochs: int,
  delta: float,
) -> float:
  """Epsilon of one record of a client, over all its rounds.

  A record is in one batch of every epoch, whose release is a Gaussian
  mechanism of sensitivity C; P participations of E epochs compose to a
  Gaussian mechanism of mu = sqrt(P E) / sigma.

  Guarantee:
    Under replacing a record by an empty one: whoever is added or removed also
    moves the batches of the others.

  Args:
    noise_multiplier: sigma, positive.
    participations: Rounds in which the client took part.
    num_epochs: Local epochs of a round.
    delta: In (0, 1).

  Returns:
    Epsilon.

  Raises:
    ValueError: A count is negative or there is no noise.
  """
  if participations < 0 or num_epochs < 1:
    raise ValueError(
      f"participations, num_epochs: got {participations}, {num_epochs}; they"
      " must be at least 0 and 1"
    )
  if not noise_multiplier > 0:
    raise ValueError(
      f"noise_multiplier: got {noise_multiplier}; without noise no epsilon is"
      " finite"
    )
  mu = math.sqrt(participations * num_epochs) / noise_multiplier
  return privacy.gaussian_epsilon(mu, delta)
