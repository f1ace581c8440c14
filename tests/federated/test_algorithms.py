"""The algorithms of the papers, on problems that can be done by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.federated import federated_task as task
from trustjax import federated

# Two clients with one quadratic each; one batch holds all of a client's data,
# so that an epoch is a step.
STORE = task.scalar_task((1.0, 3.0), (1, 3))
SGD = optax.sgd(0.5)
LOSS = task.scalar_loss


def optimum_path(algorithm, rounds, *, steps=1, weighting="fedavg"):
  """w after each round, from 0."""
  state = algorithm.init({"w": jnp.float32(0)})
  path = []
  for r in range(rounds):
    cohort = federated.select_clients(
      task.KEY, r, STORE.activity, size=2, weighting=weighting
    )
    cohort = STORE.fetch(
      cohort, batch_size=4, num_epochs=steps, seed=0, round=r
    )
    state, _ = federated.run_round(algorithm, state, cohort, task.KEY)
    path.append(float(state.params["w"]))
  return path


def test_averaging_by_hand():
  average = federated.fedavg(LOSS, SGD)
  np.testing.assert_allclose(optimum_path(average, 1), [1.25])
  np.testing.assert_allclose(
    optimum_path(average, 1, weighting="uniform"), [1.0]
  )
  np.testing.assert_allclose(optimum_path(average, 1, steps=2), [1.875])
  np.testing.assert_allclose(
    optimum_path(average, 1, steps=2, weighting="uniform"), [1.5]
  )


def test_fedprox_by_hand():
  near = federated.fedprox(LOSS, SGD, mu=1.0)
  np.testing.assert_allclose(optimum_path(near, 1, steps=2), [1.25])
  free = federated.fedprox(LOSS, SGD, mu=0.0)
  np.testing.assert_allclose(optimum_path(free, 1, steps=2), [1.875])


def test_server_momentum_by_hand():
  momentum = federated.fedavgm(LOSS, SGD)
  np.testing.assert_allclose(
    optimum_path(momentum, 3), [1.25, 3.0, 4.325], rtol=1e-6
  )


def test_server_sgd_of_rate_one_is_averaging():
  server = federated.fedopt(LOSS, SGD, optax.sgd(1.0))
  np.testing.assert_allclose(
    optimum_path(server, 3, steps=2),
    optimum_path(federated.fedavg(LOSS, SGD), 3, steps=2),
  )


def test_server_adam_and_yogi_by_hand():
  """One round from 0, where the pseudo-gradient is -1.25."""
  gradient, rate, eps = -1.25, 0.1, 1e-3
  adam = federated.fedadam(LOSS, SGD, learning_rate=rate)
  np.testing.assert_allclose(
    optimum_path(adam, 1), [-rate * gradient / (abs(gradient) + eps)], rtol=1e-5
  )
  yogi = federated.fedyogi(LOSS, SGD, learning_rate=rate)
  want = optax.yogi(rate, b1=0.9, b2=0.99, eps=eps)
  update, _ = want.update(
    jnp.float32(gradient), want.init(jnp.float32(0)), jnp.float32(0)
  )
  np.testing.assert_allclose(optimum_path(yogi, 1), [update], rtol=1e-6)
  # The server's moments live on: a second step is not the first again.
  first, second = optimum_path(adam, 2)
  assert 0 < second - first != pytest.approx(first, rel=1e-4)


def scaffold_by_hand(points, rounds, steps, rate):
  """Option II in three lines a client, everybody taking part."""
  w, c = 0.0, 0.0
  variates = np.zeros(len(points))
  for _ in range(rounds):
    locals_, new = [], []
    for k, point in enumerate(points):
      here = w
      for _ in range(steps):
        here -= rate * ((here - point) - variates[k] + c)
      locals_.append(here)
      new.append(variates[k] - c + (w - here) / (steps * rate))
    c += np.mean(np.array(new) - variates)
    w, variates = float(np.mean(locals_)), np.array(new)
  return w, c, variates


def test_scaffold_by_hand():
  algorithm = federated.scaffold(LOSS, num_clients=2, client_learning_rate=0.3)
  state = algorithm.init({"w": jnp.float32(0)})
  for r in range(3):
    cohort = federated.select_clients(
      task.KEY, r, STORE.activity, size=2, weighting="uniform"
    )
    cohort = STORE.fetch(cohort, batch_size=4, num_epochs=2, seed=0, round=r)
    state, _ = federated.run_round(algorithm, state, cohort, task.KEY)
  w, c, variates = scaffold_by_hand((1.0, 3.0), 3, 2, 0.3)
  np.testing.assert_allclose(state.params["w"], w, rtol=1e-5)
  np.testing.assert_allclose(state.control["w"], c, rtol=1e-5, atol=1e-6)
  np.testing.assert_allclose(state.memory["w"], variates, rtol=1e-5)


def quadratic_loss(params, example, key):
  """Curvature a and minimum c of a client: averaging converges elsewhere."""
  del key
  gap = params["w"] - example["c"]
  return 0.5 * example["a"] * jnp.square(gap), {}


def test_scaffold_finds_the_optimum_where_averaging_drifts():
  store = federated.ClientStore(
    examples={
      "a": np.array([0.1, 2.0], np.float32),
      "c": np.array([-1.0, 1.0], np.float32),
    },
    indices=np.arange(2),
    offsets=np.arange(3),
  )
  optimum = (0.1 * -1 + 2 * 1) / 2.1
  ends = {}
  for algorithm in (
    federated.fedavg(quadratic_loss, optax.sgd(0.3)),
    federated.scaffold(quadratic_loss, num_clients=2, client_learning_rate=0.3),
  ):
    state = algorithm.init({"w": jnp.float32(0)})
    for r in range(60):
      cohort = federated.select_clients(
        task.KEY, r, store.activity, size=2, weighting="uniform"
      )
      cohort = store.fetch(cohort, batch_size=1, num_epochs=8, seed=0, round=r)
      state, _ = federated.run_round(
        algorithm, state, cohort, task.KEY, backend="scan"
      )
    ends[algorithm.name] = abs(float(state.params["w"]) - optimum)
  assert ends["scaffold"] < 1e-3 < 0.1 < ends["fedavg"]


@pytest.mark.slow
def test_one_client_with_all_data_is_central_training():
  """FedAvg with one client for one epoch is that epoch of plain SGD."""
  store = task.store((24,))
  algorithm = federated.fedavg(task.loss_fn, optax.sgd(0.1))
  cohort = federated.select_clients(task.KEY, 0, store.activity, size=1)
  cohort = store.fetch(cohort, batch_size=8, seed=0, round=0)
  state, _ = federated.run_round(
    algorithm, algorithm.init(task.params()), cohort, task.KEY
  )
  carry = federated.start_local(task.params(), optax.sgd(0.1))
  round_key = jax.random.fold_in(jax.random.fold_in(task.KEY, 0x7A1817), 0)
  step_key = jax.random.split(jax.random.fold_in(round_key, 0), 3)[1]
  for i in range(3):
    carry = federated.local_step(
      carry,
      jax.tree.map(lambda leaf: leaf[0, i], cohort.data.examples),  # noqa: B023
      cohort.data.valid[0, i],
      jax.random.fold_in(step_key, i),
      loss_fn=task.loss_fn,
      optimizer=optax.sgd(0.1),
    )
  np.testing.assert_allclose(
    task.flat(state.params), task.flat(carry.params), rtol=1e-5
  )


def test_impossible_constants_are_named():
  with pytest.raises(ValueError, match="mu: got -1"):
    federated.fedprox(LOSS, SGD, mu=-1)
  for field in ("num_clients", "client_learning_rate", "server_learning_rate"):
    fields = {"num_clients": 2, "client_learning_rate": 0.1} | {field: 0}
    with pytest.raises(ValueError, match=f"{field}: got 0"):
      federated.scaffold(LOSS, **fields)
