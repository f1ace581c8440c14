"""FedProx: local training that does not stray far from the global model.

References:
  Li et al., Federated Optimization in Heterogeneous Networks, MLSys 2020
  (arXiv 1812.06127).
"""

import math
from collections.abc import Callable

import jax
import optax

from trustjax.federated import _algorithm, _fedavg, _local


def fedprox(
  loss_fn: Callable,
  client_optimizer: optax.GradientTransformation,
  *,
  mu: float,
) -> _algorithm.FederatedAlgorithm:
  """Federated averaging with a proximal term.

  A client descends on

    F_k(theta_k) + mu / 2 ||theta_k - theta||^2,

  whose second part adds mu (theta_k - theta) to the gradient; the server
  averages as in FedAvg, and mu = 0 is FedAvg.

  Args:
    loss_fn: `(params, example, key) -> (scalar, aux)` for ONE record.
    client_optimizer: Any optax optimiser.
    mu: Strength of the proximal term, at least 0.

  Returns:
    The algorithm.

  Raises:
    ValueError: mu is negative or not finite.
  """
  if not 0 <= mu < math.inf:
    raise ValueError(f"mu: got {mu}; it must be finite and at least 0")
  average = _fedavg.fedavg(loss_fn, client_optimizer)

  def client_init(shared, memory, key):
    del memory, key
    return _local.start_local(
      shared.params, client_optimizer, extra=shared.params
    )

  def pull_back(gradient, carry):
    return jax.tree.map(
      lambda g, local, start: g + mu * (local - start),
      gradient,
      carry.params,
      carry.extra,
    )

  def client_step(carry, batch, valid, key):
    return _local.local_step(
      carry,
      batch,
      valid,
      key,
      loss_fn=loss_fn,
      optimizer=client_optimizer,
      correct=pull_back,
    )

  return _algorithm.FederatedAlgorithm(
    name="fedprox",
    init=average.init,
    client_init=client_init,
    client_step=client_step,
    client_final=average.client_final,
    server_update=average.server_update,
  )
