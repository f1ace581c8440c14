"""RMIA: known answers, all pairs one by one, properties."""

import fractions

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from tests.attacks import shadow_data
from trustjax import attacks


def probabilities(seed=0, models=8, records=20, population=30):
  """log p of records and of a population, with members more probable."""
  stats, member = shadow_data.gaussian_shadows(
    seed, models=models, records=records + population, gain=1.5
  )
  log_p = -np.log1p(np.exp(-stats))
  split = np.split(log_p, [records], axis=1), np.split(member, [records], 1)
  (x, z), (x_member, z_member) = split
  return x, x_member, z, z_member


def slow_rmia(x, x_member, z, z_member, target, *, online, a, gamma):
  """All pairs, by the formulas of the paper, in probabilities."""
  others = [m for m in range(len(x)) if m != target]

  def ratio(log_p, member, r, with_in):
    p_out = np.mean([np.exp(log_p[m, r]) for m in others if not member[m, r]])
    if not online:
      p = ((1 + a) * p_out + (1 - a)) / 2
    elif with_in:
      p_in = np.mean([np.exp(log_p[m, r]) for m in others if member[m, r]])
      p = (p_in + p_out) / 2
    else:
      p = p_out
    return np.exp(log_p[target, r]) / p

  in_for_z = z_member.any()
  z_ratios = [
    ratio(z, z_member, r, in_for_z)
    for r in range(z.shape[1])
    if not z_member[target, r]
  ]
  return np.array(
    [
      np.mean(
        [ratio(x, x_member, r, True) / other >= gamma for other in z_ratios]
      )
      for r in range(x.shape[1])
    ]
  )


@pytest.mark.parametrize(("a", "p"), [(0.0, 0.75), (0.3, 0.675), (1.0, 0.5)])
def test_offline_mean_known_answer(a, p):
  # A population point at ratio r is dominated iff p(x) <= p(x | theta) / r.
  log_p = np.log([[0.4], [0.5]])
  for ratio, dominated in ((0.4 / p * 0.999, 1.0), (0.4 / p * 1.001, 0.0)):
    # At p_out = 1 the population's own mean is 1 whatever a is.
    got = attacks.rmia_scores(
      log_p,
      np.zeros((2, 1), bool),
      np.log([[ratio], [1.0]]),
      target=0,
      online=False,
      a=a,
    )
    assert got.tolist() == [dominated]


@pytest.mark.parametrize(("gamma", "score"), [(1.0, 0.75), (2.5, 0.25)])
def test_score_known_answer(gamma, score):
  # Offline with a = 1 the mean is the out-mean itself: p(x) = 0.675.
  got = attacks.rmia_scores(
    np.log([[0.9], [0.675]]),
    np.zeros((2, 1), bool),
    np.log([[0.8, 0.6, 0.95, 0.2], [0.8, 0.9, 0.5, 0.4]]),
    target=0,
    online=False,
    a=1.0,
    gamma=gamma,
  )
  assert got.tolist() == [score]


@pytest.mark.parametrize("gamma", [0.8, 1.0, 1.7])
@pytest.mark.parametrize("with_population", [True, False])
@pytest.mark.parametrize("online", [True, False])
def test_equals_all_pairs(online, with_population, gamma):
  x, x_member, z, z_member = probabilities()
  if not with_population:
    z_member = np.zeros_like(z_member)
  options = {"online": online, "a": 0.4, "gamma": gamma}
  every = attacks.rmia_scores(
    x,
    x_member,
    z,
    target=None,
    population_member=z_member if with_population else None,
    **options,
  )
  for target in (0, 5):
    want = slow_rmia(x, x_member, z, z_member, target, **options)
    np.testing.assert_allclose(every[target], want, atol=1e-12)


def exact_rmia(p, member, z, target, *, online, gamma):
  """All pairs in fractions, of probabilities in quarters; a = 3/10."""
  others = [m for m in range(len(p)) if m != target]

  def ratio(p, inside, r):
    sides = [
      [fractions.Fraction(int(p[m, r]), 4) for m in others if inside[m] == side]
      for side in (True, False)
    ]
    means = [sum(side) / len(side) for side in sides if side]
    if not online:
      reference = (13 * means[-1] + 7) / 20
    else:
      reference = sum(means) / len(means)
    return fractions.Fraction(int(p[target, r]), 4) / reference

  nobody = np.zeros(len(p), bool)
  z_ratios = [ratio(z, nobody, r) for r in range(z.shape[1])]
  return [
    np.mean([ratio(p, member[:, r], r) >= gamma * other for other in z_ratios])
    for r in range(p.shape[1])
  ]


@pytest.mark.parametrize("target", [1, None])
@pytest.mark.parametrize("online", [True, False])
def test_equal_ratios_count_as_dominated(online, target):
  # Models that are equally sure of everything: all ratios are equal.
  _, member, _, _ = probabilities()
  constant = np.full(member.shape, np.log(0.7))
  scores = attacks.rmia_scores(
    constant, member, constant[:, :5], target=target, online=online
  )
  np.testing.assert_array_equal(scores, np.ones_like(scores))
  # Few values, so that a quarter of all pairs tie.
  rng = np.random.default_rng(4)
  p, z = rng.integers(1, 5, member.shape), rng.integers(1, 5, (8, 40))
  for gamma in (1.0, 1.5):
    scores = attacks.rmia_scores(
      np.log(p / 4),
      member,
      np.log(z / 4),
      target=target,
      online=online,
      gamma=gamma,
    )
    want = exact_rmia(
      p, member, z, 1, online=online, gamma=fractions.Fraction(gamma)
    )
    np.testing.assert_allclose(scores if target else scores[1], want)


def test_a_record_that_only_the_target_memorised_keeps_its_digits():
  # p = 1 under the target and 1e-20 elsewhere: a subtraction would leave 0.
  log_p = np.full((4, 1), np.log(1e-20))
  log_p[1] = 0.0
  population = np.zeros((4, 3))
  population[1] = np.log([1e19, 1e20 * 1.01, 1e21]) - np.log(1e22)
  population[[0, 2, 3]] = np.log(1e-22)
  member = np.zeros((4, 1), bool)
  for target in (1, None):
    scores = attacks.rmia_scores(
      log_p, member, population, target=target, online=False, a=1.0
    )
    # Ratio 1e20 against 1e19, 1.01e20 and 1e21.
    assert np.ravel(scores if target else scores[1]).tolist() == [1 / 3]


def test_a_population_point_without_shadows_only_matters_where_it_is_used():
  x, member, z, z_member = probabilities()
  z_member[:, 0] = np.arange(8) != 5
  options = {"population_member": z_member, "online": False}
  # Every other target was trained on it and leaves it out.
  attacks.rmia_scores(x, member, z, target=0, **options)
  place = r"population_member\[:, 0\].* target 5"
  with pytest.raises(ValueError, match=place):
    attacks.rmia_scores(x, member, z, target=5, **options)
  with pytest.raises(ValueError, match=place):
    attacks.rmia_scores(x, member, z, target=None, **options)


def test_finds_members():
  x, member, z, _ = probabilities(1, models=16, records=300, population=500)
  for online in (True, False):
    scores = attacks.rmia_scores(x, member, z, target=None, online=online)
    assert attacks.auc(scores, member) > 0.75
    assert attacks.auc(scores, member) > attacks.auc(x, member)


@hypothesis.settings(deadline=None, max_examples=30)
@hypothesis.given(
  seed=st.integers(0, 10**6), online=st.booleans(), a=st.floats(0, 1)
)
def test_properties(seed, online, a):
  x, member, z, z_member = probabilities(seed)
  options = {"target": 3, "online": online, "a": a}
  scores = attacks.rmia_scores(
    x, member, z, population_member=z_member, **options
  )
  assert ((scores >= 0) & (scores <= 1)).all()
  # A stricter gamma cannot dominate more of the population.
  stricter = attacks.rmia_scores(
    x, member, z, population_member=z_member, gamma=1.3, **options
  )
  assert (stricter <= scores).all()
  # The target's membership of the attacked records is not looked at.
  lie = member.copy()
  lie[3] = ~lie[3]
  np.testing.assert_array_equal(
    attacks.rmia_scores(x, lie, z, population_member=z_member, **options),
    scores,
  )
  order = np.random.default_rng(seed).permutation(x.shape[1])
  np.testing.assert_array_equal(
    attacks.rmia_scores(
      x[:, order],
      member[:, order],
      z,
      population_member=z_member,
      **options,
    ),
    scores[order],
  )


def test_tuning_takes_the_best_of_the_grid():
  x, member, z, _ = probabilities(2, models=6, records=200, population=200)
  grid = (0.0, 0.5, 1.0)
  best = attacks.tune_rmia_a(x, member, z, reference=1, grid=grid)
  found = {
    a: attacks.auc(
      attacks.rmia_scores(x, member, z, target=1, online=False, a=a),
      member[1],
    )
    for a in grid
  }
  assert found[best] == max(found.values())
  assert len(set(found.values())) > 1


def test_taylor_softmax():
  logits = np.array([[1.0, -0.5, 2.0], [0.2, 0.0, -3.0]])
  labels = np.array([2, 0])
  got = attacks.taylor_softmax_log_probability(
    logits, labels, temperature=2.0, margin=0.6, order=4
  )

  def e(u):
    return 1 + u + u**2 / 2 + u**3 / 6 + u**4 / 24

  for row, label, value in zip(logits, labels, got):
    own = e(row[label] / 2 - 0.6)
    others = [e(row[j] / 2) for j in range(3) if j != label]
    np.testing.assert_allclose(value, np.log(own / (own + sum(others))))
  # Of high order and without margin it is the softmax.
  soft = attacks.taylor_softmax_log_probability(
    logits, labels, temperature=1.0, margin=0.0, order=30
  )
  exact = logits - np.log(np.exp(logits).sum(1, keepdims=True))
  np.testing.assert_allclose(soft, exact[[0, 1], labels], rtol=1e-9)


def test_bad_input():
  x, member, z, z_member = probabilities()
  options = {"target": 0, "online": True}
  with pytest.raises(ValueError, match=r"log_p: got 0.5"):
    attacks.rmia_scores(np.full_like(x, 0.5), member, z, **options)
  always = member.copy()
  always[:, 2] = True
  with pytest.raises(ValueError, match=r"member\[:, 2\].* out for 0 models"):
    attacks.rmia_scores(x, always, z, **options)
  everywhere = z_member.copy()
  everywhere[0] = True
  with pytest.raises(ValueError, match=r"trained on every population point"):
    attacks.rmia_scores(x, member, z, population_member=everywhere, **options)
  with pytest.raises(ValueError, match=r"population_log_p: got no points"):
    attacks.rmia_scores(x, member, z[:, :0], **options)
  with pytest.raises(ValueError, match=r"a: got 2"):
    attacks.rmia_scores(x, member, z, a=2, **options)
  with pytest.raises(ValueError, match=r"gamma: got 0"):
    attacks.rmia_scores(x, member, z, gamma=0, **options)
  with pytest.raises(ValueError, match=r"order: got 3"):
    attacks.taylor_softmax_log_probability(x, np.zeros(8, int), order=3)
