"""FedOPT: the mean update is a gradient for an optimiser on the server.

References:
  Reddi et al., Adaptive Federated Optimization, ICLR 2021 (arXiv 2003.00295).
  Hsu et al., arXiv 1909.06335, 2019 (FedAvgM).
"""

import dataclasses
from collections.abc import Callable

import optax

from trustjax.federated import _algorithm, _fedavg


def fedopt(
  loss_fn: Callable,
  client_optimizer: optax.GradientTransformation,
  server_optimizer: optax.GradientTransformation,
  *,
  name: str = "fedopt",
) -> _algorithm.FederatedAlgorithm:
  """Federated averaging with any optimiser on the server.

  The pseudo-gradient sum_k w_k (theta - theta_k) goes through the server's
  optimiser: Adam makes it FedAdam, Yogi FedYogi, SGD with momentum FedAvgM, and
  SGD with learning rate 1 is FedAvg. The server's state lives on between
  rounds; the clients' is new in each.

  FedNLP's code calls AdamW on the clients with plain averaging "FedOPT"; here
  that is `fedavg(loss_fn, optax.adamw(...))`.

  Args:
    loss_fn: `(params, example, key) -> (scalar, aux)` for ONE record.
    client_optimizer: Any optax optimiser.
    server_optimizer: Any optax optimiser.
    name: For tables.

  Returns:
    The algorithm.

  Example:
    >>> algorithm = fedopt(loss_fn, optax.adam(1e-3), optax.sgd(1.0))
  """
  average = _fedavg.fedavg(loss_fn, client_optimizer)

  def init(params):
    return _algorithm.new_state(params, opt_state=server_optimizer.init(params))

  def server_update(state, sums):
    updates, opt_state = server_optimizer.update(
      sums.update, state.opt_state, state.params
    )
    return dataclasses.replace(
      state,
      params=optax.apply_updates(state.params, updates),
      opt_state=opt_state,
    )

  return dataclasses.replace(
    average, name=name, init=init, server_update=server_update
  )


def fedadam(
  loss_fn: Callable,
  client_optimizer: optax.GradientTransformation,
  *,
  learning_rate: float,
  b1: float = 0.9,
  b2: float = 0.99,
  eps: float = 1e-3,
) -> _algorithm.FederatedAlgorithm:
  """FedOPT with Adam on the server, with the paper's constants.

  Args:
    loss_fn: `(params, example, key) -> (scalar, aux)` for ONE record.
    client_optimizer: Any optax optimiser.
    learning_rate: Of the server.
    b1: Decay of the first moment.
    b2: Decay of the second moment.
    eps: The paper's tau: how adaptive the server is; far above what is usual
      for Adam.

  Returns:
    The algorithm.
  """
  server = optax.adam(learning_rate, b1=b1, b2=b2, eps=eps)
  return fedopt(loss_fn, client_optimizer, server, name="fedadam")


def fedyogi(
  loss_fn: Callable,
  client_optimizer: optax.GradientTransformation,
  *,
  learning_rate: float,
  b1: float = 0.9,
  b2: float = 0.99,
  eps: float = 1e-3,
) -> _algorithm.FederatedAlgorithm:
  """FedOPT with Yogi on the server, with the paper's constants.

  Args:
    loss_fn: `(params, example, key) -> (scalar, aux)` for ONE record.
    client_optimizer: Any optax optimiser.
    learning_rate: Of the server.
    b1: Decay of the first moment.
    b2: Decay of the second moment.
    eps: The paper's tau.

  Returns:
    The algorithm.
  """
  server = optax.yogi(learning_rate, b1=b1, b2=b2, eps=eps)
  return fedopt(loss_fn, client_optimizer, server, name="fedyogi")


def fedavgm(
  loss_fn: Callable,
  client_optimizer: optax.GradientTransformation,
  *,
  learning_rate: float = 1.0,
  momentum: float = 0.9,
) -> _algorithm.FederatedAlgorithm:
  """FedOPT with momentum on the server.

  Args:
    loss_fn: `(params, example, key) -> (scalar, aux)` for ONE record.
    client_optimizer: Any optax optimiser.
    learning_rate: Of the server; momentum 0.9 makes a steady step ten times as
      long.
    momentum: Decay of the velocity.

  Returns:
    The algorithm.
  """
  server = optax.sgd(learning_rate, momentum=momentum)
  return fedopt(loss_fn, client_optimizer, server, name="fedavgm")
