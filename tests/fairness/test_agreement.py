"""Agreement of a metric with labels: SciPy, scikit-learn, nulls."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as sk

from trustjax import fairness

KEY = jax.random.key(0)


def records(seed=0, n=300):
  rng = np.random.default_rng(seed)
  labels = (rng.random(n) < 0.4).astype(int)
  strong = (labels + rng.normal(size=n)).round(1)
  weak = (0.2 * labels + rng.normal(size=n)).round(1)
  return strong, weak, labels


def test_equals_scipy_and_sklearn():
  strong, _, labels = records()
  got = fairness.label_agreement(strong, labels)
  np.testing.assert_allclose(
    got.point_biserial, stats.pointbiserialr(labels, strong)[0], rtol=1e-5
  )
  np.testing.assert_allclose(
    got.spearman, stats.spearmanr(strong, labels)[0], rtol=1e-4
  )
  np.testing.assert_allclose(
    got.auc, sk.roc_auc_score(labels, strong), rtol=1e-5
  )


def test_negated_scores_mirror():
  strong, _, labels = records()
  one = fairness.label_agreement(strong, labels)
  other = fairness.label_agreement(-strong, labels)
  np.testing.assert_allclose(one.spearman, -other.spearman, rtol=1e-4)
  np.testing.assert_allclose(one.auc, 1 - other.auc, rtol=1e-5)


def test_constant_sides_are_nan():
  got = fairness.label_agreement(np.ones(7), np.arange(7) % 2)
  assert np.isnan(got.point_biserial)
  assert np.isnan(got.spearman)
  assert got.auc == 0.5
  # The mean of this constant is rounded, and differs from it.
  for scores in (np.full(7, 0.1), jnp.full(7, 0.1)):
    rounded = fairness.label_agreement(scores, np.arange(7) % 2)
    assert np.isnan(rounded.point_biserial)
  empty = fairness.label_agreement(np.arange(7.0), np.zeros(7, int))
  assert np.isnan(empty.auc)


def test_order_survives_32_bits():
  """These scores are one number in float32, and need not be for SciPy."""
  labels = np.array([0, 1, 0, 1, 1, 0, 1])
  scores = 1 - np.arange(7, 0, -1) * 1e-10
  got = fairness.label_agreement(scores, labels)
  np.testing.assert_allclose(got.auc, sk.roc_auc_score(labels, scores))
  np.testing.assert_allclose(
    got.spearman, stats.spearmanr(scores, labels)[0], rtol=1e-5
  )
  np.testing.assert_allclose(
    got.point_biserial, stats.pearsonr(scores, labels)[0], rtol=1e-5
  )


def test_steiger_of_certain_correlations():
  assert fairness.steiger_test(1.0, 0.3, 0.3, 20) == (np.inf, 0)
  assert fairness.steiger_test(0.3, 1.0, 0.3, 20) == (-np.inf, 0)
  assert fairness.steiger_test(1.0, 1.0, 1.0, 20) == (0, 1)


@pytest.mark.slow
def test_constant_and_perfect_metrics_compare():
  strong, _, labels = records(n=40)
  constant = np.full(40, 0.1)
  got = fairness.compare_agreement(constant, strong, labels, key=KEY, num=20)
  assert np.isnan([got.steiger_z, got.steiger_p]).all()
  assert np.isnan(got.difference.estimate.point_biserial)
  exact = fairness.compare_agreement(labels, strong, labels, key=KEY, num=20)
  assert exact.steiger_p == 0


@pytest.mark.slow
def test_the_better_metric_is_found():
  strong, weak, labels = records()
  got = fairness.compare_agreement(strong, weak, labels, key=KEY, num=500)
  assert got.difference.low.auc > 0
  assert got.difference.low.point_biserial > 0
  assert got.steiger_p < 0.01
  np.testing.assert_allclose(
    got.difference.replicates.auc,
    got.first.replicates.auc - got.second.replicates.auc,
    atol=1e-5,
  )


@pytest.mark.slow
def test_a_metric_does_not_beat_itself():
  strong, _, labels = records()
  got = fairness.compare_agreement(strong, strong, labels, key=KEY, num=50)
  assert (got.steiger_z, got.steiger_p) == (0, 1)
  np.testing.assert_allclose(got.difference.replicates.auc, 0, atol=1e-6)


@pytest.mark.slow
def test_steiger_rejects_at_the_nominal_rate():
  """2,000 nulls at level 0.05: 100 expected, 51 to 149 is 5 errors."""
  rng = np.random.default_rng(0)
  shared = rng.normal(size=(2000, 60))
  both = rng.normal(size=(2000, 60))
  one = 0.5 * shared + both + rng.normal(size=(2000, 60))
  other = 0.5 * shared + both + rng.normal(size=(2000, 60))
  rejected = 0
  for y, a, b in zip(shared, one, other):
    r = np.corrcoef([y, a, b])
    _, p = fairness.steiger_test(r[0, 1], r[0, 2], r[1, 2], 60)
    rejected += p <= 0.05
  assert 51 <= rejected <= 149


def test_steiger_of_independent_predictors_is_fishers_test():
  """With r_between = 0 and r = 0 the variance is that of two z values."""
  z, _ = fairness.steiger_test(0.1, -0.1, 0.0, 103)
  np.testing.assert_allclose(
    z, 2 * np.arctanh(0.1) * np.sqrt(100 / 2), rtol=1e-12
  )
  with pytest.raises(ValueError, match="r_between: got 1.5"):
    fairness.steiger_test(0.1, 0.1, 1.5, 10)
  with pytest.raises(ValueError, match="n: got 3"):
    fairness.steiger_test(0.1, 0.1, 0.5, 3)
