"""User-level privacy: accounting, sampling, clipping, noise, refusals."""

import dataclasses
import functools

import dp_accounting
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from dp_accounting import pld

from tests.federated import federated_task as task
from trustjax import federated, privacy

CLIP = privacy.ThresholdClip(clip_norm=0.05)
AVERAGE = federated.fedavg(task.loss_fn, optax.sgd(0.1))


def plan(**changes):
  fields = dict(
    num_users=task.NUM_CLIENTS,
    cohort_size=4,
    num_rounds=3,
    noise_multiplier=1.0,
    rule=CLIP,
  )
  return federated.UserLevelPlan.make(**(fields | changes))


def test_epsilon_is_that_of_dp_accounting():
  here = plan(num_users=1000, cohort_size=50, num_rounds=60)
  event = dp_accounting.SelfComposedDpEvent(
    dp_accounting.PoissonSampledDpEvent(
      0.05, dp_accounting.GaussianDpEvent(1.0)
    ),
    60,
  )
  want = pld.PLDAccountant().compose(event).get_epsilon(1e-5)
  np.testing.assert_allclose(here.epsilon(1e-5).pld, want, rtol=2e-3)
  np.testing.assert_allclose(want, 2.86, atol=0.01)  # The spec's table.


def test_selection_by_activity_is_charged_at_the_largest_rate():
  by_activity = dict(
    num_users=1000,
    cohort_size=20,
    num_rounds=60,
    strategy="proportional",
    rate_factor=0.001,
  )
  here = plan(q_max=0.1, **by_activity)
  activity = np.arange(1000)
  rates = here.rates(activity)
  np.testing.assert_allclose(
    rates, np.minimum(0.1, 0.001 * activity), rtol=1e-6
  )
  assert here.epsilon(1e-5).pld == pytest.approx(
    plan(num_users=1000, cohort_size=100, num_rounds=60).epsilon(1e-5).pld
  )
  assert "Activity steers selection" in here.statement()
  # A user's rate must not depend on anybody else.
  alone = here.rates(np.where(np.arange(1000) == 70, activity, 0))
  assert alone[70] == rates[70]


def test_users_are_drawn_by_their_rates():
  activity = np.array([1, 2, 3, 4, 100, 0, 8])
  here = plan(
    strategy="proportional", q_max=0.5, rate_factor=0.05, cohort_size=1
  )
  rounds = 600
  counts = np.zeros(7)
  for r in range(rounds):
    cohort = here.select_clients(task.KEY, r, activity)
    counts[cohort.ids[cohort.valid]] += 1
  rates = np.array([0.05, 0.1, 0.15, 0.2, 0.5, 0.0, 0.4])
  np.testing.assert_allclose(here.rates(activity), rates, rtol=1e-6)
  deviation = np.sqrt(rounds * rates * (1 - rates))
  assert np.all(np.abs(counts - rounds * rates) <= 4 * deviation)
  gone = here.select_clients(task.KEY, 0, activity, available=np.zeros(7, bool))
  assert gone.num_clients == 0


def test_weights_are_capped_functions_of_one_user():
  here = plan(cohort_size=7, activity_cap=9)
  activity = np.array(task.SIZES)
  cohort = here.select_clients(task.KEY, 0, activity)
  np.testing.assert_allclose(
    cohort.weights[cohort.valid],
    np.minimum(1, activity[cohort.ids[cohort.valid]] / 9),
    rtol=1e-6,
  )
  assert plan().select_clients(task.KEY, 0, activity).weights.max() == 1


def private_step(plan_, round=0, state=None, backend="loop"):
  store = task.store()
  cohort = plan_.select_clients(task.KEY, round, store.activity)
  cohort = store.fetch(cohort, batch_size=4, seed=0, round=round)
  state = state or AVERAGE.init(task.params())
  return cohort, *federated.run_private_round(
    AVERAGE, state, cohort, task.KEY, plan_, backend=backend
  )


def test_without_noise_it_is_the_clipped_sum_over_a_constant():
  here = plan(noise_multiplier=0.0, cohort_size=7)
  cohort, state, metrics = private_step(here)
  assert cohort.num_clients == 7
  sums = np.zeros(4)
  for slot in np.flatnonzero(cohort.valid):
    single = cohort.replace(
      valid=np.arange(cohort.valid.size) == slot,
      weights=np.ones(cohort.valid.size, np.float32),
    )
    alone, _ = federated.run_round(
      AVERAGE, AVERAGE.init(task.params()), single, task.KEY, backend="loop"
    )
    update = task.flat(task.params()) - task.flat(alone.params)
    sums += update * min(1, 0.05 / np.linalg.norm(update))
  np.testing.assert_allclose(
    task.flat(task.params()) - task.flat(state.params), sums / 7, atol=1e-6
  )
  assert float(metrics.clipped_share) > 0.5


LONG = 500_000


def hard_updates():
  """Updates of half a million entries whose float32 norm may fall short."""
  rng = np.random.default_rng(0)
  # Every term of the sum rounds the same way.
  equal = np.full(LONG, 0.3, np.float32)
  # Squares that are too small to move the sum once the first is in it.
  one_large = np.full(LONG, 0.99, np.float32)
  one_large[0] = 4096
  # Squares whose sum is no float32 number.
  opposed = np.float32(1e17) * rng.choice([-1, 1], LONG).astype(np.float32)
  # Longer than the clip norm by less than a float32 number can tell.
  low, high = np.float32(LONG**-0.5 * np.array([1 - 1e-6, 1 + 1e-6]))
  at_bound = np.full(LONG, low)
  missing = 1 - LONG * np.float64(low) ** 2
  step = np.float64(high) ** 2 - np.float64(low) ** 2
  at_bound[: int(missing / step) + 5000] = high
  excess = np.linalg.norm(at_bound.astype(np.float64)) - 1
  assert 0 < excess < 2**-25
  return np.stack([equal, one_large, opposed, at_bound])


@pytest.fixture(scope="module")
def hard_cohort():
  """(plan without noise, a cohort of four users with these updates)."""
  here = plan(
    num_users=4,
    cohort_size=4,
    noise_multiplier=0.0,
    rule=privacy.ThresholdClip(clip_norm=1.0),
  )
  store = federated.ClientStore(
    examples={"g": hard_updates()}, indices=np.arange(4), offsets=np.arange(5)
  )
  cohort = here.select_clients(task.KEY, 0, store.activity)
  return here, store.fetch(cohort, batch_size=1, seed=0, round=0)


def execution(*marks, **fields):
  return pytest.param(
    fields, id="-".join(map(str, fields.values())), marks=marks
  )


@pytest.mark.parametrize(
  "execution",
  [
    execution(backend="loop"),
    execution(backend="vmap", chunk_size=2),
    execution(backend="scan", devices="pmap", num_devices=2),
    execution(pytest.mark.slow, backend="scan"),
    execution(
      pytest.mark.slow, backend="vmap", devices="shard_map", num_devices=2
    ),
  ],
)
def test_what_a_user_adds_is_never_longer_than_the_clip_norm(
  hard_cohort, execution
):
  here, cohort = hard_cohort
  algorithm = federated.fedavg(
    lambda params, example, key: (jnp.vdot(params["w"], example["g"]), {}),
    optax.sgd(1.0),
  )
  state = algorithm.init({"w": jnp.zeros(LONG)})
  for slot in np.flatnonzero(cohort.valid):
    alone = cohort.replace(valid=np.arange(cohort.valid.size) == slot)
    after, metrics = federated.run_private_round(
      algorithm, state, alone, task.KEY, here, **execution
    )
    # From zero, over four users: all of it exact.
    added = 4 * np.asarray(after.params["w"], np.float64)
    assert 1 - 3e-6 < np.linalg.norm(added) <= 1.0
    assert int(metrics.num_nonfinite) == 0
    assert float(metrics.clipped_share) == 1


def test_noise_has_its_standard_deviation_and_a_round_of_its_own():
  """An empty cohort releases noise alone: z C / M a coordinate."""
  here = plan(noise_multiplier=2.0, num_rounds=2)
  params = {"w": jnp.zeros(20_000)}

  def noise(round, key=task.KEY):
    mean, _ = federated._user_level.release(
      here,
      params,
      (),
      params,
      jnp.zeros(3),
      jnp.zeros(3, bool),
      jnp.zeros(3, bool),
      jnp.int32(round),
      key,
    )
    return np.asarray(mean["w"])

  first, second = noise(0), noise(1)
  for sample in (first, second):
    # The standard error of a standard deviation of 20,000 draws is 0.5 %.
    np.testing.assert_allclose(sample.std(), 2 * 0.05 / 4, rtol=0.02)
  assert abs(np.corrcoef(first, second)[0, 1]) < 0.03
  np.testing.assert_array_equal(first, noise(0))
  assert not np.array_equal(first, noise(0, jax.random.key(1)))
  assert np.all(np.isnan(noise(2)))  # Beyond the plan's last round.


def test_a_simulated_cohort_gets_its_own_noise_and_says_so():
  here = plan(
    num_users=10_000, cohort_size=10, simulated_cohort_size=100, num_rounds=60
  )
  np.testing.assert_allclose(here.noise_multipliers(), 0.1)
  deployed = plan(num_users=10_000, cohort_size=100, num_rounds=60)
  assert here.epsilon(1e-5).pld == deployed.epsilon(1e-5).pld
  assert here.statement().startswith("SIMULATED")
  assert here.rates(np.ones(10_000)).sum() == pytest.approx(10)


def adapt(start, *, sign=1, rounds=100, count_noise=5.0):
  """Clip norms over rounds of 100 log-normal(0, 1) updates."""
  here = plan(
    num_users=100,
    cohort_size=100,
    num_rounds=rounds,
    noise_multiplier=0.5,
    rule=privacy.QuantileClip(clip_norm=start, count_noise=count_noise),
  )
  rng = np.random.default_rng(0)
  state, path = jnp.float32(start), []
  params = {"w": jnp.zeros(1)}
  everybody = jnp.ones(100, bool)
  for r in range(rounds):
    norms = np.exp(rng.normal(size=100)).astype(np.float32)
    if sign < 0:  # The released defect: the clipped share is fed in.
      norms = np.where(norms <= state, np.inf, 0).astype(np.float32)
    _, state = federated._user_level.release(
      here, params, state, params, norms, everybody, everybody, r, task.KEY
    )
    path.append(float(state))
  return path


@pytest.mark.parametrize("start", [0.1, 3.0])
def test_adaptive_clipping_finds_the_median_from_both_sides(start):
  assert 0.85 < adapt(start)[-1] < 1.18


@pytest.mark.parametrize("start, away", [(0.1, 1e-2), (3.0, 100.0)])
def test_fed_with_the_wrong_share_it_would_run_away(start, away):
  """What a known implementation does; the test above tells it apart."""
  end = adapt(start, sign=-1, rounds=50)[-1]
  assert end < away if start < 1 else end > away


def test_noise_follows_the_clip_norm_before_it_is_updated():
  here = plan(
    num_users=100,
    cohort_size=100,
    noise_multiplier=1.0,
    rule=privacy.QuantileClip(clip_norm=2.0, count_noise=5.0),
  )
  params = {"w": jnp.zeros(20_000)}
  everybody = jnp.ones(100, bool)
  mean, after = federated._user_level.release(
    here,
    params,
    jnp.float32(2.0),
    params,
    jnp.zeros(100),
    everybody,
    everybody,
    jnp.int32(0),
    task.KEY,
  )
  share = (1 - (2 * 5.0) ** -2) ** -0.5  # What the count leaves.
  np.testing.assert_allclose(here.noise_multipliers(), share)
  np.testing.assert_allclose(
    np.std(np.asarray(mean["w"])), 2.0 * share / 100, rtol=0.02
  )
  assert after < 1.9  # Nobody was clipped, so the bound falls.


def test_a_private_run_keeps_its_clip_state():
  here = plan(rule=privacy.QuantileClip(clip_norm=0.05, count_noise=5.0))
  _, state, _ = private_step(here)
  _, later, _ = private_step(here, 1, state)
  assert int(later.round) == 2
  assert 0.02 < float(state.clip_state) != float(later.clip_state)


def test_an_empty_cohort_is_noised_all_the_same():
  here = plan()
  cohort = task.store().fetch(
    here.select_clients(
      task.KEY, 0, np.array(task.SIZES), available=np.zeros(7, bool)
    ),
    batch_size=4,
    seed=0,
    round=0,
  )
  assert cohort.num_clients == 0
  state = AVERAGE.init(task.params())
  after, _ = federated.run_private_round(
    AVERAGE, state, cohort, task.KEY, here, backend="loop"
  )
  assert np.all(task.flat(after.params) != task.flat(state.params))


def test_bounds_follow_the_parameters_as_the_noise_does():
  """An update of one layer must not claim the whole bound for itself."""
  rule = privacy.PerLayerClip(clip_norm=0.05)
  here = plan(noise_multiplier=0.0, cohort_size=7, rule=rule)
  state = AVERAGE.init(task.params())
  first = task.store((4, 0, 0, 0, 0, 0, 0)).fetch(
    here.select_clients(task.KEY, 0, np.array([4] + 6 * [0])),
    batch_size=4,
    seed=0,
    round=0,
  )
  after, _ = federated.run_private_round(
    AVERAGE, state, first, task.KEY, here, backend="loop"
  )
  moved = jax.tree.map(lambda a, b: 7 * (a - b), state.params, after.params)
  norms = np.array([np.linalg.norm(leaf) for leaf in jax.tree.leaves(moved)])
  bounds = rule.scales((), state.params)
  np.testing.assert_array_less(0.0, norms)
  np.testing.assert_array_less(norms, bounds * (1 + 1e-4))


def test_a_record_that_is_not_finite_costs_no_other_user():
  """Its copies used to fill the last batches of all the others."""
  store = task.store()
  store.examples["x"][: task.SIZES[0]] = np.nan
  here = plan(cohort_size=7)
  cohort = here.select_clients(task.KEY, 0, store.activity)
  cohort = store.fetch(cohort, batch_size=4, num_epochs=2, seed=0, round=0)
  state = AVERAGE.init(task.params())
  _, metrics = federated.run_private_round(
    AVERAGE, state, cohort, task.KEY, here, backend="scan"
  )
  assert int(metrics.num_nonfinite) == 1
  assert int(metrics.num_clients) == 6


REFUSED = {
  "strategy: got 'mixture'": {
    "strategy": "mixture",
    "q_max": 0.5,
    "rate_factor": 1.0,
  },
  "strategy: got 'top'": {"strategy": "top", "q_max": 0.5, "rate_factor": 1.0},
  "q_max: got None": {"strategy": "proportional", "rate_factor": 1.0},
  "rate_factor: got None": {"strategy": "proportional", "q_max": 0.5},
  "q_max: got 0.5; 'uniform'": {"q_max": 0.5},
  "rate_factor: got 1.0; 'uniform'": {"rate_factor": 1.0},
  "cohort_size: got 8": {"cohort_size": 8},
  "activity_cap: got 0": {"activity_cap": 0.0},
  "simulated_cohort_size: got 2": {"simulated_cohort_size": 2},
  "count_noise: got 0.2": {"rule": privacy.QuantileClip()},
}


@pytest.mark.parametrize("message", list(REFUSED))
def test_plans_without_a_guarantee_are_refused(message):
  with pytest.raises(ValueError, match=message):
    plan(**REFUSED[message])


def test_other_samplers_are_refused():
  shuffled = privacy.Mechanism(
    sampling_rate=4 / 8,
    num_steps=2,
    noise_multiplier=1.0,
    sampler="shuffled",
    adjacency="zero_out",
    num_records=8,
  )
  with pytest.raises(ValueError, match="users are drawn by 'poisson'"):
    dataclasses.replace(plan(), mechanism=shuffled)


def test_cohorts_and_algorithms_that_void_the_guarantee_are_refused():
  state = AVERAGE.init(task.params())
  with pytest.raises(ValueError, match="cohort.weighting: got 'fedavg'"):
    federated.run_private_round(AVERAGE, state, task.cohort(), task.KEY, plan())
  cohort, _, _ = private_step(plan(noise_multiplier=0.0, cohort_size=7))
  with pytest.raises(ValueError, match="cohort.weighting: got 'user_level"):
    federated.run_private_round(AVERAGE, state, cohort, task.KEY, plan())
  scaffold = federated.scaffold(
    task.loss_fn, num_clients=7, client_learning_rate=0.1
  )
  with pytest.raises(ValueError, match="algorithm: got 'scaffold'"):
    federated.run_private_round(
      scaffold,
      scaffold.init(task.params()),
      cohort,
      task.KEY,
      plan(noise_multiplier=0.0, cohort_size=7),
    )
  here = plan(noise_multiplier=0.0, cohort_size=7)
  with pytest.raises(ValueError, match="cohort.weights: got one above 1"):
    federated.run_private_round(
      AVERAGE, state, cohort.replace(weights=2 * cohort.weights), task.KEY, here
    )

  def tells(shared, carry):
    return AVERAGE.client_final(shared, carry)._replace(side=jnp.ones(()))

  telltale = dataclasses.replace(AVERAGE, name="telltale", client_final=tells)
  with pytest.raises(ValueError, match="algorithm: got 'telltale'"):
    federated.run_private_round(
      telltale, state, cohort, task.KEY, here, backend="loop"
    )


@pytest.mark.slow
def test_record_level_privacy_inside_clients():
  """One step of one client, by hand; and its epsilon."""
  fields = dict(batch_size=4, clip_norm=0.1)
  quiet = federated.fedavg_local_dp(
    task.loss_fn, optax.sgd(1.0), noise_multiplier=0.0, **fields
  )
  cohort = task.store((4,)).fetch(
    federated.select_clients(task.KEY, 0, np.array([4]), size=1),
    batch_size=4,
    seed=0,
    round=0,
  )
  state, _ = federated.run_round(
    quiet, quiet.init(task.params()), cohort, task.KEY, backend="loop"
  )
  moved = task.flat(task.params()) - task.flat(state.params)
  assert 0.02 < np.linalg.norm(moved) <= 0.1 * (1 + 1e-6)
  loud = federated.fedavg_local_dp(
    task.loss_fn, optax.sgd(1.0), noise_multiplier=50.0, **fields
  )
  noisy, _ = federated.run_round(
    loud, loud.init(task.params()), cohort, task.KEY, backend="loop"
  )
  noise = task.flat(noisy.params) - task.flat(state.params)
  assert 0.2 < np.std(noise) / (50 * 0.1 / 4) < 2.5
  epsilon = functools.partial(federated.local_epsilon, num_epochs=2, delta=1e-5)
  np.testing.assert_allclose(
    epsilon(2.0, participations=8), privacy.gaussian_epsilon(2.0, 1e-5)
  )
  assert epsilon(2.0, participations=0) == 0.0
  with pytest.raises(ValueError, match="noise_multiplier: got 0"):
    epsilon(0.0, participations=1)
