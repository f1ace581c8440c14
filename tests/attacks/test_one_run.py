"""One-run audits: the published table, peers, coverage, validity."""

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
from jax_privacy import auditing
from scipy import special, stats

from trustjax import attacks

# m, r, v, bound at delta 1e-5, bound at delta 0.
TABLE = [
  (1000, 100, 100, 3.465, 3.493),
  (1000, 100, 95, 2.165, 2.172),
  (1000, 200, 200, 4.167, 4.194),
  (1000, 200, 180, 1.796, 1.799),
  (5000, 500, 475, 2.590, 2.600),
  (1000, 1000, 1000, 5.782, 5.809),
  (1000, 1000, 750, 0.976, 0.977),
  (1000, 1000, 600, 0.297, 0.298),
  (5000, 500, 500, 4.978, 5.114),
  (5000, 1000, 900, 2.018, 2.021),
]


def slow_p_value(m, r, v, epsilon, delta):
  """The formula, one sum after the other."""
  q = np.exp(epsilon) / (1 + np.exp(epsilon))
  pmf = [stats.binom.pmf(k, r, q) for k in range(r + 1)]
  at_least = sum(pmf[v:])
  alpha = max(
    (sum(pmf[max(v - i, 0) : v]) / i for i in range(1, m + 1)), default=0
  )
  return min(1.0, at_least + 2 * m * delta * alpha)


@pytest.mark.parametrize(("m", "r", "v", "some", "none"), TABLE)
def test_known_answers(m, r, v, some, none):
  for delta, bound in ((1e-5, some), (0.0, none)):
    got = attacks.one_run_epsilon_lower_bound(m, r, v, delta=delta)
    assert abs(got - bound) < 1e-3


def test_another_known_answer():
  got = attacks.one_run_epsilon_lower_bound(2000, 2000, 1800, delta=1e-5)
  assert abs(got - 2.0727) < 1e-4


@pytest.mark.parametrize("delta", [0.0, 1e-5, 1e-2])
@pytest.mark.parametrize(
  ("m", "r", "v"), [(10, 10, 7), (30, 12, 12), (40, 20, 0), (25, 5, 3)]
)
def test_p_value_equals_the_sums(m, r, v, delta):
  for epsilon in (0.0, 0.7, 3.0):
    got = attacks.one_run_p_value(m, r, v, epsilon=epsilon, delta=delta)
    want = slow_p_value(m, r, v, epsilon, delta)
    np.testing.assert_allclose(got, want, rtol=1e-9)


@pytest.mark.parametrize(("m", "r", "v", "some", "none"), TABLE)
def test_equals_jax_privacy(m, r, v, some, none):
  del some, none
  np.testing.assert_allclose(
    attacks.one_run_epsilon_lower_bound(m, r, v, delta=1e-5),
    auditing._epsilon_one_run(0.0, m, r, v, 0.05, 1e-5),
    atol=1e-5,
  )


@pytest.mark.parametrize(
  ("m", "r", "v"),
  [(1000, 100, 95), (500, 500, 400), (200, 40, 40), (1000, 1000, 600)],
)
def test_gaussian_bound_equals_jax_privacy(m, r, v):
  mu = attacks.one_run_mu_lower_bound(m, r, v)
  np.testing.assert_allclose(
    attacks.gdp_epsilon(mu, 1e-5),
    auditing._epsilon_one_run_fdp(0.0, m, r, v, 0.05, 1e-5),
    atol=1e-3,
  )


def test_fdp_of_pure_epsilon_is_close_to_the_direct_bound():
  # Two analyses of one claim: the tail bound and the trade-off recursion.
  m, r, v = 1000, 200, 180
  direct = attacks.one_run_epsilon_lower_bound(m, r, v)

  def rejected(epsilon):
    return attacks.one_run_fdp_rejected(
      m, r, v, least_other=lambda x: np.exp(-epsilon) * x
    )

  assert rejected(0.8 * direct)
  assert not rejected(1.2 * direct)


@hypothesis.settings(deadline=None, max_examples=60)
@hypothesis.given(data=st.data())
def test_properties(data):
  m = data.draw(st.integers(1, 300))
  r = data.draw(st.integers(1, m))
  v = data.draw(st.integers(0, r))
  delta = data.draw(st.sampled_from([0.0, 1e-6, 1e-3]))
  p = [
    attacks.one_run_p_value(m, r, v, epsilon=e, delta=delta)
    for e in (0.0, 0.5, 1.0, 2.0, 4.0)
  ]
  assert min(p) >= 0 and max(p) <= 1
  assert (np.diff(p) >= -1e-12).all()
  bound = attacks.one_run_epsilon_lower_bound(m, r, v, delta=delta)
  assert bound <= attacks.one_run_epsilon_lower_bound(m, r, v)
  if bound:
    inside = attacks.one_run_p_value(m, r, v, epsilon=bound - 1e-6, delta=delta)
    outside = attacks.one_run_p_value(
      m, r, v, epsilon=bound + 1e-6, delta=delta
    )
    assert inside < 0.05 <= outside
    # The bound never exceeds the log-odds of the observed share.
    assert v == r or bound < special.logit(v / r)
  if v < r:
    better = attacks.one_run_epsilon_lower_bound(m, r, v + 1, delta=delta)
    assert better >= bound
    assert attacks.one_run_mu_lower_bound(
      m, r, v + 1
    ) >= attacks.one_run_mu_lower_bound(m, r, v)


def randomised_response(rng, epsilon, m):
  """Coins, and answers that are right with probability e^eps / (1 + e^eps)."""
  included = rng.random(m) < 0.5
  right = rng.random(m) < special.expit(epsilon)
  return np.where(included == right, 1.0, -1.0), included


def gaussian_scores(rng, m, separation):
  """Scores N(0, 1) out and N(separation, 1) in, and the coins."""
  included = rng.random(m) < 0.5
  return rng.normal(size=m) + separation * included, included


@pytest.mark.parametrize(("epsilon", "repeats"), [(0.0, 500), (1.0, 300)])
def test_coverage_and_power(epsilon, repeats):
  # Exceeding the truth has probability at most 5 %; a Clopper-Pearson lower
  # end above that would be met by chance in less than 2.5 % of seeds.
  rng = np.random.default_rng(0)
  plan = attacks.OneRunPlan(num_canaries=1000, num_guesses=1000, delta=0.0)
  bounds = np.array(
    [
      plan.audit(*randomised_response(rng, epsilon, 1000)).epsilon_lower_bound
      for _ in range(repeats)
    ]
  )
  exceeded = int((bounds > epsilon).sum())
  assert attacks.clopper_pearson(exceeded, repeats)[0] <= 0.05
  if epsilon:
    assert np.median(bounds) >= epsilon / 2


def test_gaussian_coverage_and_power():
  # Independent Gaussian scores: each canary alone is mu-GDP.
  rng = np.random.default_rng(1)
  plan = attacks.OneRunPlan(num_canaries=500, num_guesses=200, method="gdp")
  found = [plan.audit(*gaussian_scores(rng, 500, 1.0)) for _ in range(60)]
  mu = np.array([result.mu_lower_bound for result in found])
  assert attacks.clopper_pearson(int((mu > 1).sum()), 60)[0] <= 0.05
  assert np.median(mu) >= 0.5
  for result in found[:3]:
    assert result.epsilon_lower_bound == attacks.gdp_epsilon(
      result.mu_lower_bound, 1e-5
    )


def test_choosing_the_number_after_the_fact_is_optimistic():
  # Why the plan is written before: the best of several bounds is not a bound.
  rng = np.random.default_rng(2)
  exceeded = 0
  for _ in range(200):
    scores, included = gaussian_scores(rng, 300, 0.0)
    exceeded += any(
      attacks.one_run_epsilon_lower_bound(
        300,
        r,
        attacks.count_correct_guesses(scores, included, num_guesses=r),
      )
      > 0
      for r in range(15, 301, 15)
    )
  assert attacks.clopper_pearson(exceeded, 200)[0] > 0.05


def test_guesses():
  scores = np.array([0.1, 0.9, 0.5, 0.7, 0.3])
  included = np.array([False, True, True, False, True])
  # Two "out": 0.1 right, 0.3 wrong; two "in": 0.9 right, 0.7 wrong.
  count = attacks.count_correct_guesses
  assert count(scores, included, num_guesses=4) == 2
  assert count(scores, included, num_guesses=1) == 1
  # An attack on nothing must not profit from a list sorted by coin.
  coins = np.arange(1000) < 500
  tied = [
    count(np.zeros(1000), coins, num_guesses=200, seed=s) for s in range(50)
  ]
  # 10,000 fair guesses: four standard errors of the mean are 4.
  assert abs(np.mean(tied) - 100) < 4


def test_coins_from_the_same_seed_do_not_break_the_ties():
  # Half of the canaries, chosen by a permutation that the ties must not share.
  correct = [
    attacks.count_correct_guesses(
      np.zeros(200),
      np.random.default_rng(seed).permutation(200) >= 100,
      num_guesses=100,
      seed=seed,
    )
    for seed in range(100)
  ]
  # 10,000 guesses at a half: four standard errors of the mean are 2.
  assert abs(np.mean(correct) - 50) < 2


@pytest.mark.parametrize(
  ("m", "mu", "r", "v", "bound"),
  [
    (1000, 1, 100, 90, 1.63),
    (1000, 2, 200, 197, 3.21),
    (5000, 1, 250, 231, 2.08),
    (5000, 2, 500, 497, 4.11),
    (20000, 1, 400, 379, 2.47),
    (20000, 2, 1000, 997, 4.64),
  ],
)
def test_planning(m, mu, r, v, bound):
  expected = attacks.expected_correct_guesses(m, r, separation=mu)
  assert int(expected) == v
  got = attacks.one_run_epsilon_lower_bound(m, r, v, delta=1e-5)
  assert abs(got - bound) < 0.006
  chosen = attacks.choose_num_guesses(m, separation=mu)
  best = attacks.one_run_epsilon_lower_bound(
    m,
    chosen,
    int(attacks.expected_correct_guesses(m, chosen, separation=mu)),
    delta=1e-5,
  )
  assert best >= got


def test_expected_guesses_equal_a_simulation():
  rng = np.random.default_rng(3)
  correct = [
    attacks.count_correct_guesses(
      *gaussian_scores(rng, 2000, 1.5), num_guesses=300
    )
    for _ in range(100)
  ]
  expected = attacks.expected_correct_guesses(2000, 300, separation=1.5)
  assert abs(np.mean(correct) - expected) < 2


def test_bad_input():
  with pytest.raises(ValueError, match=r"num_guesses: got 11; .* = 10\]"):
    attacks.OneRunPlan(num_canaries=10, num_guesses=11)
  with pytest.raises(ValueError, match=r"num_correct: got 6"):
    attacks.one_run_epsilon_lower_bound(10, 5, 6)
  with pytest.raises(ValueError, match=r"method: got 'renyi'"):
    attacks.OneRunPlan(num_canaries=10, num_guesses=5, method="renyi")
  with pytest.raises(ValueError, match=r"no epsilon at delta 0"):
    attacks.OneRunPlan(num_canaries=9, num_guesses=5, method="gdp", delta=0)
  plan = attacks.OneRunPlan(num_canaries=10, num_guesses=5)
  with pytest.raises(ValueError, match=r"scores: got shape \(9,\)"):
    plan.audit(np.zeros(9), np.zeros(9, bool))
  with pytest.raises(ValueError, match=r"scores\[0\]: got nan"):
    plan.audit(np.full(10, np.nan), np.zeros(10, bool))
