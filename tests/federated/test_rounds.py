"""Rounds: one contract for every backend, known answers, refusals."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.federated import federated_task as task
from trustjax import federated

ALGORITHMS = {
  "fedavg": federated.fedavg(task.loss_fn, optax.adam(0.1)),
  "scaffold": federated.scaffold(
    task.loss_fn, num_clients=task.NUM_CLIENTS, client_learning_rate=0.1
  ),
}
EXECUTIONS = (
  ("scaffold", {"backend": "scan"}),
  ("scaffold", {"backend": "scan", "devices": "pmap"}),
)
MORE_EXECUTIONS = (
  ("scaffold", {"backend": "vmap", "devices": "pmap", "chunk_size": 2}),
  ("scaffold", {"backend": "scan", "devices": "shard_map"}),
  ("fedavg", {"backend": "vmap", "chunk_size": 2}),
  ("fedavg", {"backend": "scan", "devices": "pmap"}),
  ("scaffold", {"backend": "vmap", "chunk_size": 2}),
  ("scaffold", {"backend": "vmap"}),
  ("scaffold", {"backend": "auto"}),
  ("scaffold", {"backend": "auto", "devices": "pmap", "num_devices": 1}),
  ("fedavg", {"backend": "auto"}),
  ("fedavg", {"backend": "vmap", "devices": "shard_map"}),
  ("fedavg", {"backend": "vmap", "devices": "pmap"}),
  ("fedavg", {"backend": "scan", "devices": "shard_map", "num_devices": 1}),
)


SGD = federated.fedavg(task.loss_fn, optax.sgd(0.1))


def run(algorithm, rounds=2, cohorts=task.cohort, **execution):
  state = algorithm.init(task.params())
  metrics = None
  for r in range(rounds):
    state, metrics = federated.run_round(
      algorithm, state, cohorts(r), task.KEY, **execution
    )
  return state, metrics


@functools.cache
def oracle(name):
  return run(ALGORITHMS[name], backend="loop")


def case(name, execution, marks=()):
  label = "-".join([name, *map(str, execution.values())])
  return pytest.param(name, execution, id=label, marks=marks)


@pytest.mark.parametrize(
  "name, execution",
  [
    *(case(*c) for c in EXECUTIONS),
    *(case(*c, marks=pytest.mark.slow) for c in MORE_EXECUTIONS),
  ],
)
def test_every_execution_gives_what_the_loop_gives(name, execution):
  state, metrics = run(ALGORITHMS[name], **execution)
  want_state, want_metrics = oracle(name)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=5e-6, atol=1e-6),
    (state, metrics),
    (want_state, want_metrics),
  )


def test_scaffold_remembers_only_who_took_part():
  state, _ = run(ALGORITHMS["scaffold"], 1, backend="loop")
  moved = np.flatnonzero(np.any(np.asarray(state.memory["w"]) != 0, axis=1))
  assert 0 < moved.size < task.NUM_CLIENTS
  assert sorted(moved) == sorted(task.cohort().ids[task.cohort().valid])


def test_the_loop_is_what_a_person_would_write():
  """Two rounds of FedAvg with SGD, without a line of the room's machinery."""
  state, metrics = run(SGD, backend="loop")
  params, losses = task.params(), []
  for r in range(2):
    cohort, total, losses = task.cohort(r), None, []
    round_key = jax.random.fold_in(jax.random.fold_in(task.KEY, 0x7A1817), r)
    for slot in np.flatnonzero(cohort.valid):
      local = params
      keys = jax.random.split(
        jax.random.fold_in(round_key, cohort.ids[slot]), 3
      )
      for i, live in enumerate(cohort.data.valid[slot]):
        if not live.any():
          continue
        records = [j for j in range(live.size) if live[j]]

        def mean_loss(
          p, slot=slot, i=i, records=records, cohort=cohort, keys=keys
        ):
          key = jax.random.fold_in(keys[1], i)
          each = [
            task.loss_fn(
              p,
              jax.tree.map(lambda x: x[slot, i, j], cohort.data.examples),  # noqa: B023
              jax.random.fold_in(key, j),
            )[0]
            for j in records
          ]
          return sum(each) / len(each)

        loss, gradient = jax.value_and_grad(mean_loss)(local)
        losses.append(float(loss) * len(records))
        local = jax.tree.map(lambda p, g: p - 0.1 * g, local, gradient)
      part = jax.tree.map(lambda p: cohort.weights[slot] * p, local)  # noqa: B023
      total = part if total is None else jax.tree.map(jnp.add, total, part)
    params = total
  np.testing.assert_allclose(
    task.flat(state.params), task.flat(params), rtol=1e-5
  )
  used = cohort.data.valid.sum()
  np.testing.assert_allclose(metrics.loss, sum(losses) / used, rtol=1e-5)
  assert int(metrics.num_examples) == used
  assert int(metrics.num_clients) == 5 and int(metrics.num_nonfinite) == 0


@pytest.mark.parametrize(
  "backend", ["scan", pytest.param("vmap", marks=pytest.mark.slow)]
)
def test_order_and_filler_slots_do_not_matter(backend):
  algorithm = ALGORITHMS["scaffold"]

  def shuffled(r):
    cohort = task.cohort(r)
    order = np.array([3, 0, 4, 1, 2, 1, 0])
    moved = jax.tree.map(lambda leaf: np.asarray(leaf)[order], cohort)
    # Two slots, one in the middle, are copies that do not count.
    return moved.replace(valid=np.isin(np.arange(7), [0, 1, 2, 4, 5]))

  ours, _ = run(algorithm, cohorts=shuffled, backend=backend)
  theirs, _ = oracle("scaffold")
  np.testing.assert_allclose(task.flat(ours), task.flat(theirs), atol=1e-6)


def test_a_cohort_without_clients_only_counts_the_round():
  algorithm = federated.fedadam(task.loss_fn, optax.sgd(0.1), learning_rate=0.1)
  cohort = task.cohort()
  empty = cohort.replace(valid=np.zeros(5, bool))
  state = algorithm.init(task.params())
  after, metrics = federated.run_round(algorithm, state, empty, task.KEY)
  assert int(after.round) == 1 and int(metrics.num_clients) == 0
  assert np.isnan(metrics.loss)
  np.testing.assert_array_equal(
    task.flat(dataclasses.replace(after, round=state.round)), task.flat(state)
  )


@pytest.mark.parametrize(
  "backend",
  [
    "scan",
    *(pytest.param(b, marks=pytest.mark.slow) for b in ("loop", "vmap")),
  ],
)
def test_a_client_that_diverges_is_dropped_and_counted(backend):
  algorithm, cohort = SGD, task.cohort()
  broken = jax.tree.map(np.array, cohort)
  broken.data.examples["y"][1] = np.inf
  state = algorithm.init(task.params())
  got, metrics = federated.run_round(
    algorithm, state, broken, task.KEY, backend=backend
  )
  assert int(metrics.num_nonfinite) == 1 and int(metrics.num_clients) == 4
  without = cohort.replace(valid=np.arange(5) != 1)
  want, _ = federated.run_round(
    algorithm, state, without, task.KEY, backend="scan"
  )
  np.testing.assert_allclose(task.flat(got), task.flat(want), rtol=1e-5)


# A client after the other takes its own steps only; side by side all go on.
@pytest.mark.parametrize(
  "backend", ["vmap", pytest.param("scan", marks=pytest.mark.slow)]
)
def test_steps_that_nobody_takes_leave_the_optimiser_alone(backend):
  """Momentum moves on a zero gradient; a client of one step must not."""
  optimizer = optax.sgd(0.01, momentum=0.9)
  algorithm = federated.fedavg(task.loss_fn, optimizer)
  small = task.store((3, 20))
  alone = federated.ClientStore(
    examples=task.examples(23),
    indices=np.arange(3),
    offsets=np.array([0, 3], np.int64),
  )

  def one_client(r, clients):
    cohort = clients.fetch(
      federated.select_clients(
        task.KEY, 0, clients.activity, size=clients.num_clients
      ),
      batch_size=4,
      seed=0,
      round=r,
    )
    return cohort.replace(weights=(cohort.ids == 0).astype(np.float32))

  theirs, _ = run(algorithm, 1, lambda r: one_client(r, alone), backend="loop")
  ours, _ = run(algorithm, 1, lambda r: one_client(r, small), backend=backend)
  np.testing.assert_allclose(
    task.flat(ours.params), task.flat(theirs.params), rtol=1e-6
  )


def test_randomness_depends_on_seed_round_and_client():
  algorithm = SGD
  state = algorithm.init(task.params())
  cohort = task.cohort()

  def update(state, cohort, key):
    after, _ = federated.run_round(
      algorithm, state, cohort, key, backend="scan"
    )
    return task.flat(after.params)

  base = update(state, cohort, task.KEY)
  np.testing.assert_array_equal(base, update(state, cohort, task.KEY))
  later = dataclasses.replace(state, round=state.round + 1)
  renamed = cohort.replace(ids=(cohort.ids + 1) % task.NUM_CLIENTS)
  others = (
    update(state, cohort, jax.random.key(1)),
    update(later, cohort, task.KEY),
    update(state, renamed, task.KEY),
  )
  assert all(np.max(np.abs(base - other)) > 1e-4 for other in others)


def test_one_program_serves_all_cohorts_of_a_shape():
  traces = []

  def counting_loss(params, example, key):
    traces.append(1)
    return task.loss_fn(params, example, key)

  algorithm = federated.fedavg(counting_loss, optax.sgd(0.1))
  run(algorithm, 1, backend="scan")
  first = len(traces)
  run(algorithm, 3, backend="scan")
  assert len(traces) == first


REFUSED = {
  "backend: got 'fast'": {"backend": "fast"},
  "chunk_size: got 0": {"chunk_size": 0},
  "chunk_size: got 2 with backend 'scan'": {
    "backend": "scan",
    "chunk_size": 2,
  },
  "devices: got 'pmap' with backend 'loop'": {
    "backend": "loop",
    "devices": "pmap",
  },
  "devices: got 'tpu'": {"devices": "tpu"},
  "num_devices: got 3; 2 are visible": {"devices": "pmap", "num_devices": 3},
  "num_devices: got 0; 2 are visible": {
    "devices": "shard_map",
    "num_devices": 0,
  },
  "num_devices: got 2 with devices=None": {"num_devices": 2},
}


@pytest.mark.parametrize("message", list(REFUSED))
def test_impossible_executions_are_refused(message):
  with pytest.raises(ValueError, match=message):
    run(ALGORITHMS["fedavg"], 1, **REFUSED[message])


def test_cohorts_that_do_not_fit_are_refused():
  cohort = task.cohort()
  cases = {
    "cohort.data: got None": cohort.replace(data=None),
    r"cohort.weights: got shape \(4,\)": cohort.replace(
      weights=cohort.weights[:4]
    ),
    "cohort.weights: each must be finite": cohort.replace(
      weights=-cohort.weights
    ),
    r"cohort.data: got leading axes": cohort.replace(
      data=dataclasses.replace(cohort.data, valid=cohort.data.valid[:, :1])
    ),
    "cohort.ids: got .* to 7; the algorithm keeps": cohort.replace(
      ids=np.where(np.arange(5) == 2, 7, cohort.ids)
    ),
  }
  for message, bad in cases.items():
    with pytest.raises(ValueError, match=message):
      run(ALGORITHMS["scaffold"], 1, lambda r, bad=bad: bad)
  state = ALGORITHMS["fedavg"].init(task.params())
  with pytest.raises(ValueError, match="key: got one of rbg"):
    federated.run_round(
      ALGORITHMS["fedavg"], state, cohort, jax.random.key(0, impl="rbg")
    )


def test_the_loop_says_where_it_failed():
  def fails(params, example, key):
    raise RuntimeError("no")

  algorithm = federated.fedavg(fails, optax.sgd(0.1))
  with pytest.raises(RuntimeError) as caught:
    run(algorithm, 1, backend="loop")
  notes = " ".join(caught.value.__notes__)
  assert "in local step 0 of client" in notes


def test_the_chosen_backend_fits_its_memory():
  algorithm, params = ALGORITHMS["fedavg"], task.params()
  # Adam: two moments and a count beside four copies of four numbers, and the
  # metrics of a client.
  choose = functools.partial(federated.choose_backend, algorithm, params, 100)
  assert choose(platform="cpu").backend == "scan"
  assert choose(platform="gpu", budget_bytes=1 << 20).chunk_size == 100
  tight = choose(platform="gpu", budget_bytes=1000)
  assert tight.backend == "vmap" and 1 < tight.chunk_size < 10
  assert choose(platform="gpu", budget_bytes=10).backend == "scan"
