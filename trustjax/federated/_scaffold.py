"""SCAFFOLD: control variates against the drift of local training.

References:
  Karimireddy et al., SCAFFOLD: Stochastic Controlled Averaging for Federated
  Learning, ICML 2020 (arXiv 1910.06378).
"""

import dataclasses
import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from trustjax.federated import _algorithm, _local


def scaffold(
  loss_fn: Callable,
  *,
  num_clients: int,
  client_learning_rate: float,
  server_learning_rate: float = 1.0,
) -> _algorithm.FederatedAlgorithm:
  """Federated averaging with control variates (option II of the paper).

  With server variate c and client variates c_k, a client runs

    theta_k <- theta_k - eta (grad F_k(theta_k) - c_k + c)        T_k times,
    c_k+     = c_k - c + (theta - theta_k) / (T_k eta),

  and the server moves by

    theta <- theta - eta_s sum_k w_k (theta - theta_k)
    c     <- c + (1 / K) sum_k (c_k+ - c_k),                 K clients in all.

  The paper weighs clients uniformly. Memory: one variate per registered
  client; a client that was never selected has c_k = 0.

  Args:
    loss_fn: `(params, example, key) -> (scalar, aux)` for ONE record.
    num_clients: Registered clients K.
    client_learning_rate: eta.
    server_learning_rate: eta_s.

  Returns:
    The algorithm.

  Raises:
    ValueError: A learning rate or the number of clients is not positive.
  """
  _check_positive(
    num_clients=num_clients,
    client_learning_rate=client_learning_rate,
    server_learning_rate=server_learning_rate,
  )
  # The variates' formula holds for plain SGD only.
  optimizer = optax.sgd(client_learning_rate)
  return _algorithm.FederatedAlgorithm(
    name="scaffold",
    init=functools.partial(_init, num_clients),
    client_init=functools.partial(_start, optimizer),
    client_step=functools.partial(
      _local.local_step,
      loss_fn=loss_fn,
      optimizer=optimizer,
      correct=_add_correction,
    ),
    client_final=functools.partial(_finish, client_learning_rate),
    server_update=functools.partial(_move, num_clients, server_learning_rate),
  )


def _init(num_clients, params):
  """A state whose variates are zero."""
  return _algorithm.new_state(
    params,
    control=jax.tree.map(jnp.zeros_like, params),
    memory=jax.tree.map(
      lambda leaf: jnp.zeros((num_clients, *leaf.shape), leaf.dtype), params
    ),
  )


def _start(optimizer, shared, memory, key):
  """The carry holds c - c_k and c_k."""
  del key
  correction = _local.difference(shared.control, memory)
  return _local.start_local(
    shared.params, optimizer, extra=(correction, memory)
  )


def _add_correction(gradient, carry):
  return jax.tree.map(jnp.add, gradient, carry.extra[0])


def _move(num_clients, learning_rate, state, sums):
  """The server's step, on parameters and variate."""
  return dataclasses.replace(
    state,
    params=jax.tree.map(
      lambda leaf, moved: leaf - learning_rate * moved,
      state.params,
      sums.update,
    ),
    control=jax.tree.map(
      lambda leaf, change: leaf + change / num_clients,
      state.control,
      sums.side,
    ),
  )


def _finish(learning_rate, shared, carry):
  """The update and the change of the client's variate."""
  _, old = carry.extra
  update = _local.difference(shared.params, carry.params)
  steps = jnp.maximum(carry.metrics.num_steps, 1).astype(jnp.float32)
  # c_k+ - c_k, the same for whatever c_k the client came with.
  change = jax.tree.map(
    lambda moved, control: moved / (steps * learning_rate) - control,
    update,
    shared.control,
  )
  return _algorithm.ClientResult(
    update=update,
    metrics=carry.metrics,
    side=change,
    memory=jax.tree.map(jnp.add, old, change),
  )


def _check_positive(**fields):
  for field, value in fields.items():
    if not 0 < value < math.inf:
      raise ValueError(f"{field}: got {value}; it must be finite and positive")
