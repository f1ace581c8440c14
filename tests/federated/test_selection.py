"""Selection: known inclusion probabilities, addressing, weights, refusals."""

import jax
import numpy as np
import pytest
import scipy.stats

from trustjax import federated

KEY = jax.random.key(0)
ACTIVITY = np.array([1, 2, 3, 4])
# Exactly, by enumeration of the ordered pairs.
SUCCESSIVE = np.array([0.234524, 0.441270, 0.608333, 0.715873])
HEAVY = federated.lognormal_activity(400, np.random.default_rng(0))


def select(round=0, activity=ACTIVITY, key=KEY, **options):
  options = {"size": 2, **options}
  return federated.select_clients(key, round, activity, **options)


def chosen(cohort):
  return cohort.ids[cohort.valid]


def frequencies(rounds, activity=ACTIVITY, **options):
  counts = np.zeros(len(activity))
  for r in range(rounds):
    counts[chosen(select(r, activity, **options))] += 1
  return counts


def assert_inclusion(counts, rounds, expected):
  """Each count is binomial: at most 4 standard deviations off (error 6e-5)."""
  deviation = np.sqrt(rounds * expected * (1 - expected))
  assert np.all(np.abs(counts - rounds * expected) <= 4 * deviation + 1e-9)


def test_inclusion_by_quadrature_has_the_known_values():
  got = federated.successive_inclusion(ACTIVITY, 2)
  np.testing.assert_allclose(got, SUCCESSIVE, atol=6e-7)
  np.testing.assert_allclose(got.sum(), 2, atol=1e-9)
  got = federated.successive_inclusion(np.array([1e-3, 1.0, 50.0]), 1)
  np.testing.assert_allclose(got, np.array([1e-3, 1, 50]) / 51.001, atol=1e-9)
  assert federated.successive_inclusion(ACTIVITY, 4).tolist() == [1.0] * 4


def test_gumbel_draws_follow_their_inclusion_probabilities():
  rounds = 2000
  counts = frequencies(rounds, strategy="proportional")
  assert counts.sum() == 2 * rounds
  assert_inclusion(counts, rounds, SUCCESSIVE)
  # The test tells them from size x p, which they are often taken for.
  naive = 2 * ACTIVITY / 10
  deviation = np.sqrt(rounds * naive * (1 - naive))
  assert np.max(np.abs(counts - rounds * naive) / deviation) > 6


@pytest.mark.parametrize(
  "strategy",
  [
    federated.Strategy(kind="uniform"),
    federated.Strategy(kind="tempered", gamma=0.5),
    federated.Strategy(kind="softmax", temperature=2.0),
    federated.Strategy(kind="mixture", epsilon=0.3),
    federated.Strategy(kind="threshold", min_activity=2),
  ],
  ids=lambda s: s.kind,
)
def test_each_strategy_selects_by_its_scores(strategy):
  scores = np.exp(np.asarray(federated.log_scores(ACTIVITY, strategy)))
  want = {
    "uniform": [1, 1, 1, 1],
    "tempered": np.sqrt(ACTIVITY),
    "softmax": np.exp(ACTIVITY / 2),
    "mixture": 0.3 / 4 + 0.7 * ACTIVITY / 10,
    "threshold": [0, 1, 1, 1],
  }[strategy.kind]
  np.testing.assert_allclose(scores, want, rtol=1e-5)
  possible = scores > 0
  expected = np.zeros(4)
  expected[possible] = federated.successive_inclusion(scores[possible], 2)
  assert_inclusion(frequencies(500, strategy=strategy), 500, expected)


def test_fixed_size_draws_pass_a_chi_square_test_on_whole_cohorts():
  # Probability of the unordered pairs, by enumeration.
  p = ACTIVITY / 10
  pairs = {
    (i, j): p[i] * p[j] / (1 - p[i]) + p[j] * p[i] / (1 - p[j])
    for i in range(4)
    for j in range(i + 1, 4)
  }
  rounds = 1500
  seen = dict.fromkeys(pairs, 0)
  for r in range(rounds):
    seen[
      tuple(sorted(chosen(select(r, strategy="proportional")).tolist()))
    ] += 1
  result = scipy.stats.chisquare(
    list(seen.values()), [rounds * q for q in pairs.values()]
  )
  assert result.pvalue > 1e-3


@pytest.mark.parametrize(
  ("activity", "size", "rates", "factor"),
  [
    ([1, 2, 3, 14], 2, [1 / 6, 1 / 3, 1 / 2, 1], 1 / 6),
    ([1, 1, 2], 2, [0.5, 0.5, 1.0], 0.5),
    ([0, 1, 1], 2, [0, 1, 1], None),
  ],
)
def test_poisson_rates_fill_like_water(activity, size, rates, factor):
  got, scale = federated.poisson_rates(np.array(activity), size)
  np.testing.assert_allclose(got, rates, rtol=1e-12)
  if factor is not None:
    np.testing.assert_allclose(scale, factor, rtol=1e-12)


def test_poisson_rates_respect_the_cap():
  rates, _ = federated.poisson_rates(HEAVY, 20, cap=0.2)
  assert rates.max() == pytest.approx(0.2)
  assert rates.sum() == pytest.approx(20)
  with pytest.raises(ValueError, match="at most 80"):
    federated.poisson_rates(HEAVY, 81, cap=0.2)


def test_poisson_draws_are_independent_coin_flips():
  activity = np.array([1, 2, 3, 14])
  rounds = 2000
  sizes, pairs = [], 0
  counts = np.zeros(4)
  for r in range(rounds):
    ids = chosen(
      select(r, activity, strategy="proportional", sampling="poisson")
    )
    counts[ids] += 1
    sizes.append(ids.size)
    pairs += 1 in ids and 2 in ids
  expected = np.array([1 / 6, 1 / 3, 1 / 2, 1])
  assert_inclusion(counts, rounds, expected)
  assert_inclusion(np.array([pairs]), rounds, np.array([1 / 6]))
  variance = np.sum(expected * (1 - expected))
  assert abs(np.mean(sizes) - 2) < 4 * np.sqrt(variance / rounds)


def test_draws_with_replacement_count_the_repeats():
  rounds = 400
  counts = np.zeros(4)
  for r in range(rounds):
    cohort = select(
      r,
      strategy="proportional",
      sampling="with_replacement",
      weighting="uniform",
      size=4,
    )
    assert cohort.weights.sum() == pytest.approx(1.0)
    np.add.at(counts, cohort.ids, cohort.weights)
  result = scipy.stats.chisquare(counts * 4, ACTIVITY / 10 * 4 * rounds)
  assert result.pvalue > 1e-3


def test_top_takes_the_most_active_and_breaks_ties_at_random():
  activity = np.array([5, 9, 5, 5, 1])
  others = set()
  for r in range(40):
    ids = chosen(select(r, activity, strategy="top"))
    assert 1 in ids
    others |= set(ids.tolist()) - {1}
  assert others == {0, 2, 3}
  probabilities = federated.inclusion_probabilities(
    activity, strategy="top", size=2
  )
  np.testing.assert_allclose(probabilities, [1 / 3, 1, 1 / 3, 1 / 3, 0])


def test_inclusion_probabilities_exist_only_where_they_are_known():
  known = federated.inclusion_probabilities(
    np.array([1, 2, 0, 4]), strategy="uniform", size=2
  )
  np.testing.assert_allclose(known, [2 / 3, 2 / 3, 0, 2 / 3])
  assert (
    federated.inclusion_probabilities(ACTIVITY, strategy="proportional", size=2)
    is None
  )
  replaced = federated.inclusion_probabilities(
    ACTIVITY, strategy="proportional", size=2, sampling="with_replacement"
  )
  np.testing.assert_allclose(replaced, 1 - (1 - ACTIVITY / 10) ** 2)
  assert select(strategy="proportional").inclusion is None
  poisson = select(strategy="proportional", sampling="poisson", size=1)
  np.testing.assert_allclose(
    poisson.inclusion[poisson.valid], ACTIVITY[chosen(poisson)] / 10, rtol=1e-6
  )


def test_selection_is_a_function_of_key_round_and_activity():
  first, again = (select(3, HEAVY, size=30) for _ in range(2))
  np.testing.assert_array_equal(first.ids, again.ids)
  assert not np.array_equal(first.ids, select(4, HEAVY, size=30).ids)
  other = select(3, HEAVY, key=jax.random.key(1), size=30)
  assert not np.array_equal(first.ids, other.ids)


@pytest.mark.parametrize("sampling", ["gumbel", "poisson"])
def test_a_new_device_never_changes_the_draw_of_another(sampling):
  options = dict(strategy="uniform", sampling=sampling)
  rounds = 50
  for r in range(rounds):
    # The expected rate stays the same: 40 of 400, and 41 of 410.
    few = set(chosen(select(r, HEAVY, size=40, **options)).tolist())
    grown = np.concatenate([HEAVY, np.ones(10, int)])
    many = set(chosen(select(r, grown, size=41, **options)).tolist())
    kept = {k for k in many if k < 400}
    if sampling == "poisson":
      assert kept == few
    else:
      # At the margin a place may open or close, but nobody else moves.
      assert kept <= few or few <= kept


def test_inactive_and_unavailable_devices_are_never_selected():
  activity = np.array([0, 5, 0, 7, 9])
  available = np.array([True, True, True, False, True])
  for sampling in federated.SAMPLINGS:
    for r in range(10):
      cohort = select(
        r, activity, available=available, sampling=sampling, size=4
      )
      assert set(chosen(cohort)) <= {1, 4}
      assert np.all(cohort.weights[~cohort.valid] == 0)
  everyone = select(0, activity, available=available, size=4)
  assert everyone.num_clients == 2 and everyone.ids.shape == (4,)


def test_weights_of_the_four_weightings():
  cohort = select(size=4)
  np.testing.assert_allclose(cohort.weights, ACTIVITY[cohort.ids] / 10)
  np.testing.assert_allclose(select(weighting="uniform").weights, [0.5, 0.5])
  cohort = select(weighting="ht")
  np.testing.assert_allclose(
    cohort.weights, ACTIVITY[cohort.ids] / (0.5 * 10), rtol=1e-6
  )
  cohort = select(
    weighting="hajek", strategy="proportional", sampling="poisson"
  )
  if cohort.num_clients:
    assert cohort.weights.sum() == pytest.approx(1.0)


def test_proportional_poisson_makes_horvitz_thompson_weights_equal():
  cohort = select(
    0,
    HEAVY,
    strategy="proportional",
    sampling="poisson",
    weighting="ht",
    size=5,
  )
  weights = cohort.weights[cohort.valid]
  rates, factor = federated.poisson_rates(HEAVY, 5)
  assert rates.max() < 1
  np.testing.assert_allclose(weights, 1 / (factor * HEAVY.sum()), rtol=1e-5)


def test_horvitz_thompson_is_unbiased_over_many_draws():
  values = np.array([2.0, -1.0, 0.5, 3.0])
  activity = np.array([1, 2, 3, 14])
  want = np.sum(activity * values) / 20
  got = []
  for r in range(1500):
    cohort = select(
      r, activity, strategy="proportional", sampling="poisson", weighting="ht"
    )
    got.append(np.sum(cohort.weights * values[cohort.ids] * cohort.valid))
  error = np.std(got) / np.sqrt(len(got))
  assert abs(np.mean(got) - want) < 4 * error < 0.3


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    (
      {"size": 5},
      "size: got 5; a cohort holds between 1 and the population's 4",
    ),
    ({"size": 0}, "size: got 0"),
    ({"round": -1}, "round: got -1"),
    ({"activity": np.array([1, -1])}, "negative"),
    ({"activity": np.array([1, np.nan])}, "finite"),
    ({"strategy": "best"}, "strategy: got 'best'; allowed are"),
    ({"sampling": "dice"}, "sampling: got 'dice'"),
    ({"weighting": "mean"}, "weighting: got 'mean'"),
    ({"available": np.ones(3, bool)}, r"available: got shape \(3,\)"),
    ({"weighting": "ht", "strategy": "proportional"}, "no closed form"),
    ({"weighting": "hajek", "strategy": "top"}, "never selects"),
    ({"weighting": "ht", "sampling": "with_replacement"}, "with replacement"),
    ({"strategy": "top", "sampling": "poisson"}, "fixed size"),
    ({"key": jax.random.key(0, impl="rbg")}, "Threefry"),
  ],
)
def test_impossible_selections_are_refused(changes, message):
  with pytest.raises(ValueError, match=message):
    select(**changes)


@pytest.mark.parametrize(
  "fields",
  [
    {"gamma": -1.0},
    {"temperature": 0.0},
    {"epsilon": 1.5},
    {"min_activity": float("nan")},
  ],
)
def test_impossible_strategies_are_refused(fields):
  with pytest.raises(ValueError, match=f"{next(iter(fields))}: got"):
    federated.Strategy(**fields)


@pytest.mark.slow
@pytest.mark.parametrize(
  ("strategy", "per_round", "deviation", "distinct"),
  [
    (federated.Strategy(kind="uniform"), 2159, 101, 3513),
    (federated.Strategy(kind="tempered", gamma=0.5), 6398, 880, 3027),
    (federated.Strategy(kind="mixture", epsilon=0.5), 9323, 2051, 3078),
    (federated.Strategy(kind="proportional"), 14_669, 2490, 2132),
    (federated.Strategy(kind="tempered", gamma=2.0), 25_234, 3235, 1002),
    (federated.Strategy(kind="threshold", min_activity=20), 6948, 331, 1238),
    (federated.Strategy(kind="top"), 31_132, 3190, 100),
  ],
  ids=lambda value: getattr(value, "kind", None),
)
def test_examples_per_round_of_the_heavy_tailed_population(
  strategy, per_round, deviation, distinct
):
  examples, devices = [], []
  for seed in range(5):
    population = federated.lognormal_activity(
      5000, np.random.default_rng(100 + seed)
    )
    seen, total = set(), 0
    for r in range(60):
      ids = chosen(
        select(
          r,
          population,
          key=jax.random.key(seed),
          strategy=strategy,
          size=100,
        )
      )
      total += population[ids].sum()
      seen |= set(ids.tolist())
    examples.append(total / 60)
    devices.append(len(seen))
  # The mean of five populations against the mean of twenty others.
  allowed = 4 * deviation * np.sqrt(1 / 5 + 1 / 20)
  assert abs(np.mean(examples) - per_round) < allowed
  # The count varies by 3.3 % between populations under gamma 2 (20 of them), so
  # 4 standard errors of the difference are 6.6 %. Under "top", only ties vary.
  slack = 12 if strategy.kind == "top" else 0.066 * distinct
  assert abs(np.mean(devices) - distinct) < slack
