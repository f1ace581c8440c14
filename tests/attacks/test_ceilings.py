"""What DP allows: known answers, the definition itself, Gaussian DP."""

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
from dp_accounting import get_epsilon_gaussian
from scipy import integrate, stats

from trustjax import attacks


def test_ceilings_known_answers():
  for epsilon, tpr, accuracy in (
    (2.737, 0.0155, 0.939),
    (0.909, 0.0025, 0.713),
  ):
    options = {"epsilon": epsilon, "delta": 1e-5}
    got = attacks.tpr_ceiling(0.001, **options)
    np.testing.assert_allclose(got, tpr, atol=5e-5)
    got = attacks.balanced_accuracy_ceiling(**options)
    np.testing.assert_allclose(got, accuracy, atol=5e-4)


def test_extraction_ceiling_known_answers():
  for epsilon, ceiling in ((2.737, 0.001554), (0.909, 0.000258)):
    got = attacks.extraction_ceiling(10, 4, epsilon=epsilon, delta=1e-5)
    np.testing.assert_allclose(got, ceiling, atol=1e-6)
  assert attacks.extraction_ceiling(10, 4, epsilon=9.22, delta=0) == 1
  assert attacks.extraction_ceiling(10, 4, epsilon=9.20, delta=0) < 1
  assert attacks.extraction_ceiling(10, 6, epsilon=1600.0, delta=0) == 1


@pytest.mark.parametrize(
  ("copies", "delta"), [(3, 1.11e-4), (10, 0.128), (12, 0.947)]
)
def test_group_privacy_known_answers(copies, delta):
  got = attacks.group_privacy(copies, epsilon=1.0, delta=1e-5)
  assert got[0] == copies
  np.testing.assert_allclose(got[1], delta, rtol=0.01)
  # The recursion that the closed form sums up.
  total = 0.0
  for _ in range(copies):
    total = np.exp(1.0) * total + 1e-5
  np.testing.assert_allclose(got[1], total, rtol=1e-9)


def test_group_privacy_edges():
  assert attacks.group_privacy(13, epsilon=1.0, delta=1e-5)[1] > 1
  assert attacks.group_privacy(7, epsilon=0.0, delta=1e-5) == (0.0, 7 * 1e-5)
  assert attacks.group_privacy(7, epsilon=2.0, delta=0.0) == (14.0, 0.0)
  assert np.isfinite(attacks.group_privacy(1000, epsilon=9.0, delta=1e-5)[1])


@hypothesis.settings(deadline=None, max_examples=60)
@hypothesis.given(
  p=st.lists(st.floats(0.01, 1), min_size=2, max_size=6),
  epsilon=st.floats(0, 4),
  delta=st.floats(0, 0.2),
  data=st.data(),
)
def test_no_private_pair_of_laws_beats_the_ceilings(p, epsilon, delta, data):
  # Any law q, mixed towards p until (p, q) is (epsilon, delta)-DP both ways.
  p = np.array(p) / np.sum(p)
  q = np.array(data.draw(st.permutations(list(p))))
  for share in np.linspace(1, 0, 21):
    mixed = share * q + (1 - share) * p
    excess = [
      np.maximum(a - np.exp(epsilon) * b, 0).sum()
      for a, b in ((p, mixed), (mixed, p))
    ]
    if max(excess) <= delta:
      break
  subsets = np.array(
    [[i >> k & 1 for k in range(p.size)] for i in range(2**p.size)], bool
  )
  fpr, tpr = subsets @ mixed, subsets @ p
  options = {"epsilon": epsilon, "delta": delta}
  assert (tpr <= attacks.tpr_ceiling(fpr, **options) + 1e-12).all()
  accuracy = (1 + tpr - fpr).max() / 2
  assert accuracy <= attacks.balanced_accuracy_ceiling(**options) + 1e-12


def test_accuracy_ceiling_is_the_best_point_of_the_tpr_ceiling():
  fpr = np.linspace(0, 1, 200_001)
  for epsilon, delta in ((0.0, 0.0), (1.0, 1e-5), (3.0, 0.1), (0.0, 0.3)):
    tpr = attacks.tpr_ceiling(fpr, epsilon=epsilon, delta=delta)
    np.testing.assert_allclose(
      attacks.balanced_accuracy_ceiling(epsilon=epsilon, delta=delta),
      (1 + tpr - fpr).max() / 2,
      atol=1e-5,
    )


def test_profile_of_gaussian_dp_gives_its_curve():
  epsilons = np.linspace(0, 12, 4_001)
  fpr = np.array([1e-4, 0.01, 0.2, 0.7])
  for mu in (0.5, 1.0, 2.0):
    ceiling = attacks.tpr_ceiling_from_profile(
      fpr, epsilons=epsilons, deltas=attacks.gdp_delta(mu, epsilons)
    )
    curve = attacks.gdp_tpr(mu, fpr)
    np.testing.assert_allclose(ceiling, curve, atol=1e-5)
    assert (ceiling >= curve - 1e-12).all()


@pytest.mark.parametrize(
  ("mu", "epsilon"), [(1, 4.377), (2, 9.997), (1.556, 7.37), (1.807, 8.83)]
)
def test_gdp_epsilon_known_answers(mu, epsilon):
  assert abs(attacks.gdp_epsilon(mu, 1e-5) - epsilon) < 6e-3
  # Sensitivity 1 at noise 1 / mu is mu-GDP.
  np.testing.assert_allclose(
    attacks.gdp_epsilon(mu, 1e-5),
    get_epsilon_gaussian(1 / mu, 1e-5),
    rtol=1e-6,
  )
  np.testing.assert_allclose(
    attacks.gdp_mu(attacks.gdp_epsilon(mu, 1e-5), 1e-5), mu, rtol=1e-6
  )


@pytest.mark.parametrize("mu", [0.3, 1.0, 3.0])
def test_gdp_delta_equals_the_integral(mu):
  for epsilon in (0.0, 0.5, 2.0):

    def excess(x, epsilon=epsilon):
      gap = stats.norm.pdf(x - mu) - np.exp(epsilon) * stats.norm.pdf(x)
      return max(gap, 0.0)

    start = epsilon / mu + mu / 2
    want, _ = integrate.quad(excess, start, start + 12, epsabs=1e-12)
    np.testing.assert_allclose(attacks.gdp_delta(mu, epsilon), want, atol=1e-9)


def test_gdp_edges():
  assert attacks.gdp_delta(1e-300, np.array([0.5, 1.0])).tolist() == [0, 0]
  assert attacks.gdp_epsilon(0.0, 1e-5) == 0
  assert attacks.gdp_delta(0.0, 0.0) == 0
  np.testing.assert_allclose(attacks.gdp_tpr(0.0, 0.3), 0.3)
  # Far out both terms underflow; the difference of logarithms does not.
  assert 0 < attacks.gdp_delta(0.5, 15.0) < 1e-190


def test_bad_input():
  with pytest.raises(ValueError, match=r"epsilon: got -1"):
    attacks.tpr_ceiling(0.1, epsilon=-1, delta=0)
  with pytest.raises(ValueError, match=r"fpr: got -0.1"):
    attacks.tpr_ceiling(-0.1, epsilon=1.0, delta=0.0)
  with pytest.raises(ValueError, match=r"fpr\[1\]: got nan"):
    attacks.tpr_ceiling(np.array([0, np.nan]), epsilon=1.0, delta=0.0)
  with pytest.raises(ValueError, match=r"delta: got 2"):
    attacks.balanced_accuracy_ceiling(epsilon=1, delta=2)
  with pytest.raises(ValueError, match=r"allowed are one or more points"):
    attacks.tpr_ceiling_from_profile(
      0.1, epsilons=np.array([-1.0]), deltas=np.array([0.0])
    )
  with pytest.raises(ValueError, match=r"copies: got 0"):
    attacks.group_privacy(0, epsilon=1, delta=0)
  with pytest.raises(ValueError, match=r"num_positions: got 0"):
    attacks.extraction_ceiling(10, 0, epsilon=1, delta=0)
  with pytest.raises(ValueError, match=r"delta: got 0"):
    attacks.gdp_epsilon(1.0, 0.0)
  with pytest.raises(ValueError, match=r"mu: got 100"):
    attacks.gdp_epsilon(100.0, 1e-5)
