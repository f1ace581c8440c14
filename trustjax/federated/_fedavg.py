"""FedAvg: average the models that clients trained from the global one.

References:
  McMahan et al., Communication-Efficient Learning of Deep Networks from
  Decentralized Data, AISTATS 2017 (arXiv 1602.05629).
"""

import dataclasses
from collections.abc import Callable

import optax

from trustjax.federated import _algorithm, _local


def fedavg(
  loss_fn: Callable, client_optimizer: optax.GradientTransformation
) -> _algorithm.FederatedAlgorithm:
  """Federated averaging.

  Every client k of the cohort starts from the global parameters theta and runs
  its local optimiser; the server moves to the weighted mean,

    theta <- theta - sum_k w_k (theta - theta_k).

  Args:
    loss_fn: `(params, example, key) -> (scalar, aux)` for ONE record.
    client_optimizer: Any optax optimiser; the paper uses SGD.

  Returns:
    The algorithm.

  Example:
    >>> algorithm = fedavg(loss_fn, optax.sgd(0.1))
    >>> state = algorithm.init(params)
  """

  def client_init(shared, memory, key):
    del memory, key
    return _local.start_local(shared.params, client_optimizer)

  def client_step(carry, batch, valid, key):
    return _local.local_step(
      carry, batch, valid, key, loss_fn=loss_fn, optimizer=client_optimizer
    )

  def client_final(shared, carry):
    return _algorithm.ClientResult(
      update=_local.difference(shared.params, carry.params),
      metrics=carry.metrics,
    )

  def server_update(state, sums):
    params = _local.difference(state.params, sums.update)
    return dataclasses.replace(state, params=params)

  return _algorithm.FederatedAlgorithm(
    name="fedavg",
    init=_algorithm.new_state,
    client_init=client_init,
    client_step=client_step,
    client_final=client_final,
    server_update=server_update,
  )
