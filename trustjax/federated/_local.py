"""Local training: what the clients of all averaging algorithms have in common.

The loss is one record's, `loss_fn(params, example, key) -> (scalar, aux)`; a
step descends on its mean over the valid records of a batch.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Key

from trustjax import privacy
from trustjax.federated import _algorithm

PyTree = Any


class LocalState(NamedTuple):
  """The carry of a client between two local steps.

  Attributes:
    params: Local parameters.
    opt_state: State of the local optimiser, new in every round.
    metrics: Sums so far.
    extra: What the algorithm adds.
  """

  params: PyTree
  opt_state: PyTree
  metrics: _algorithm.LocalMetrics
  extra: PyTree = ()


def start_local(
  params: PyTree, optimizer: optax.GradientTransformation, extra: PyTree = ()
) -> LocalState:
  """The carry before the first local step."""
  return LocalState(
    params=params,
    opt_state=optimizer.init(params),
    metrics=_algorithm.LocalMetrics(
      loss=jnp.float32(0),
      num_examples=jnp.int32(0),
      num_steps=jnp.int32(0),
    ),
    extra=extra,
  )


def local_step(
  state: LocalState,
  batch: PyTree,
  valid: Bool[Array | np.ndarray, " batch"],
  key: Key[Array, ""],
  *,
  loss_fn: Callable,
  optimizer: optax.GradientTransformation,
  correct: Callable[[PyTree, LocalState], PyTree] | None = None,
) -> LocalState:
  """One step of the local optimiser on the mean loss of a batch.

  Args:
    state: The carry.
    batch: Pytree of arrays [batch, ...].
    valid: Which records are real.
    key: Key of the step; record i sees `fold_in(key, i)`.
    loss_fn: Loss of one record.
    optimizer: Local optimiser.
    correct: (gradient, state) -> gradient, what the algorithm adds to it.

  Returns:
    The carry.
  """
  keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(
    jnp.arange(valid.shape[0])
  )
  count = jnp.sum(valid)

  def mean_loss(params):
    losses, _ = jax.vmap(loss_fn, in_axes=(None, 0, 0))(params, batch, keys)
    total = jnp.sum(jnp.where(valid, losses, 0.0))
    return total / jnp.maximum(count, 1).astype(total.dtype), total

  gradient, total = jax.grad(mean_loss, has_aux=True)(state.params)
  if correct is not None:
    gradient = correct(gradient, state)
  updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
  metrics = state.metrics
  return state._replace(
    params=optax.apply_updates(state.params, updates),
    opt_state=opt_state,
    metrics=_algorithm.LocalMetrics(
      loss=metrics.loss + total.astype(jnp.float32),
      num_examples=metrics.num_examples + count,
      num_steps=metrics.num_steps + 1,
    ),
  )


def difference(first: PyTree, second: PyTree) -> PyTree:
  """First - second, leaf by leaf."""
  return jax.tree.map(jnp.subtract, first, second)


def partial_loss(loss_fn: Callable, frozen: PyTree) -> Callable:
  """The loss as a function of the trained parameters only.

  Clients then train, send and receive nothing else (`wire_bytes` counts it).

  Args:
    loss_fn: `(params, example, key) -> (scalar, aux)` of all parameters.
    frozen: The frozen part, from `privacy.partition`.

  Returns:
    `(trained, example, key) -> (scalar, aux)`.

  Example:
    >>> trained, frozen = privacy.partition(params, "head")
    >>> algorithm = fedavg(partial_loss(loss_fn, frozen), optax.sgd(0.1))
    >>> state = algorithm.init(trained)
  """

  def loss_of_trained(trained, example, key):
    return loss_fn(privacy.merge(trained, frozen), example, key)

  return loss_of_trained
