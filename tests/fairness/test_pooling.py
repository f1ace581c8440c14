"""Random-effects pooling: the table of known answers, properties."""

import numpy as np
import pytest
from scipy import optimize, stats

from trustjax import fairness

V = np.array([0.04, 0.01, 0.09])
TABLE = [
  # ES, Q, c, tau2, CES, SE, p two-sided, one-sided sf(z)
  (
    (0.2, 0.5, 0.9),
    (3.9591837, 57.1428571, 0.0342857, 0.4813993, 0.1506049),
    (0.0013914, 0.0006957),
  ),
  (
    (-0.2, -0.5, -0.9),
    (3.9591837, 57.1428571, 0.0342857, -0.4813993, 0.1506049),
    (0.0013914, 0.9993043),
  ),
  (
    (-1.0, 0.5, 1.5),
    (62.2448980, 57.1428571, 1.0542857, 0.3178265, 0.6055223),
    (0.5996666, 0.2998333),
  ),
  (
    (0.30, 0.31, 0.29),
    (0.0053061, 57.1428571, 0.0, 0.3065306, 0.0857143),
    (0.0003486, 0.0001743),
  ),
]


@pytest.mark.parametrize(("es", "sizes", "p"), TABLE)
def test_known_answers(es, sizes, p):
  got = fairness.random_effects(np.array(es), V)
  found = (got.q, got.c, got.tau2, got.ces, got.se)
  np.testing.assert_allclose(found, sizes, atol=5.1e-8, rtol=1e-7)
  np.testing.assert_allclose((got.p_two_sided, got.p_greater), p, atol=5.1e-8)
  np.testing.assert_allclose(np.exp(got.log_p_two_sided), got.p_two_sided)
  np.testing.assert_allclose(got.high - got.ces, 1.959964 * got.se, rtol=1e-6)


def test_negated_effects_negate():
  rng = np.random.default_rng(0)
  es, v = rng.normal(size=20), rng.uniform(0.1, 1, 20)
  one, other = (fairness.random_effects(sign * es, v) for sign in (1, -1))
  assert one.ces == -other.ces
  assert one.p_two_sided == other.p_two_sided
  np.testing.assert_allclose(one.p_greater + other.p_greater, 1, rtol=1e-12)


def test_order_does_not_matter():
  rng = np.random.default_rng(0)
  es, v = rng.normal(size=50), rng.uniform(0.1, 1, 50)
  order = rng.permutation(50)
  one = fairness.random_effects(es, v)
  other = fairness.random_effects(es[order], v[order])
  np.testing.assert_allclose(one.ces, other.ces, rtol=1e-12)
  np.testing.assert_allclose(one.tau2, other.tau2, rtol=1e-12)


def test_moment_equation():
  """tau2 solves E[Q(tau2 = 0 weights)] = Q: a root found numerically."""
  rng = np.random.default_rng(2)
  v = rng.uniform(0.1, 1, 30)
  es = rng.normal(0.3, np.sqrt(v + 0.5))
  got = fairness.random_effects(es, v)
  w = 1 / v

  def expected_q(tau2):
    variance = v + tau2
    mean_variance = (w**2 @ variance) / w.sum() ** 2
    shared = w * variance / w.sum()
    return w @ (variance - 2 * shared + mean_variance) - got.q

  np.testing.assert_allclose(
    got.tau2, optimize.brentq(expected_q, 0, 100), rtol=1e-8
  )


def test_small_p_does_not_underflow_to_nothing():
  got = fairness.random_effects(np.full(4, 30.0), np.full(4, 1.0))
  assert got.z == 60
  np.testing.assert_allclose(
    got.log_p_two_sided, np.log(2) + stats.norm.logsf(60)
  )
  assert np.isfinite(got.log_p_two_sided)


def test_one_effect_is_itself():
  got = fairness.random_effects(np.array([0.7]), np.array([0.25]))
  assert (got.ces, got.se, got.q, got.tau2, got.n) == (0.7, 0.5, 0, 0, 1)


def test_bad_input():
  with pytest.raises(ValueError, match=r"v\[1\]: got 0.0; must be positive"):
    fairness.random_effects(np.ones(2), np.array([1.0, 0.0]))
  with pytest.raises(ValueError, match="got 0 and 0"):
    fairness.random_effects(np.ones(0), np.ones(0))
  with pytest.raises(ValueError, match=r"es\[0\]: got nan"):
    fairness.random_effects(np.array([np.nan]), np.ones(1))
