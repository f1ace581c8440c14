"""Correlations over models: known answers, SciPy, error rates."""

import jax
import numpy as np
import pytest
from scipy import stats

from trustjax import fairness

KEY = jax.random.key(0)


def study(x, y, **options):
  x, y = (np.asarray(a, float) for a in (x, y))
  x = x[:, None] if x.ndim == 1 else x
  y = y[:, None] if y.ndim == 1 else y
  return fairness.correlation_study(
    x, y, key=KEY, **{"num_perm": 999, "num_boot": 200, **options}
  )


def models(seed=0, m=19, i=2, e=3):
  rng = np.random.default_rng(seed)
  shared = rng.normal(size=(m, 1))
  return shared + rng.normal(size=(m, i)), shared + rng.normal(size=(m, e))


class TestKnownAnswers:
  def test_five_models(self):
    got = study([1, 2, 3, 4, 5], [2, 1, 4, 3, 10])
    np.testing.assert_allclose(got.pearson, [[0.804984]], atol=1e-6)
    np.testing.assert_allclose(got.spearman, [[0.8]], rtol=1e-12)
    assert got.p_pearson[0, 0] == 10 / 120
    assert got.p_spearman[0, 0] == 16 / 120
    assert got.n[0, 0] == 5

  def test_holm(self):
    np.testing.assert_allclose(
      fairness.holm(np.array([0.01, 0.04, 0.03, 0.005])),
      [0.03, 0.06, 0.06, 0.02],
      rtol=1e-12,
    )
    assert fairness.holm(np.array([0.9, 0.8])).tolist() == [1, 1]
    with pytest.raises(ValueError, match="outside"):
      fairness.holm(np.array([0.5, np.nan]))

  @pytest.mark.parametrize(
    ("tests", "want"),
    [(1, 0.4555), (9, 0.610), (27, 0.666), (36, 0.679)],
  )
  def test_power_of_nineteen_models(self, tests, want):
    got = fairness.critical_correlation(19, num_tests=tests)
    np.testing.assert_allclose(got, want, atol=6e-4)
    # At that correlation the t-test is exactly at its level.
    t = got * np.sqrt(17 / (1 - got**2))
    np.testing.assert_allclose(2 * stats.t.sf(t, 17), 0.05 / tests, rtol=1e-9)


def test_equals_scipy():
  x, y = models()
  got = study(x, y)
  for i in range(2):
    for e in range(3):
      np.testing.assert_allclose(
        got.pearson[i, e], stats.pearsonr(x[:, i], y[:, e])[0], rtol=1e-10
      )
      np.testing.assert_allclose(
        got.spearman[i, e], stats.spearmanr(x[:, i], y[:, e])[0], rtol=1e-10
      )


def test_permutation_p_agrees_with_the_t_test():
  """Normal data: both are valid; 9,999 permutations."""
  x, y = models(1, i=1, e=1)
  got = study(x, y, num_perm=9_999)
  want = stats.pearsonr(x[:, 0], y[:, 0]).pvalue
  np.testing.assert_allclose(got.p_pearson[0, 0], want, atol=0.02)


@pytest.mark.slow
def test_interval_is_the_bootstrap_over_models():
  x, y = models(2, i=1, e=1)
  got = study(x, y, num_boot=4000)
  reference = stats.bootstrap(
    (x[:, 0], y[:, 0]),
    lambda a, b: stats.pearsonr(a, b)[0],
    paired=True,
    vectorized=False,
    n_resamples=2000,
    method="percentile",
    random_state=0,
  ).confidence_interval
  np.testing.assert_allclose(got.pearson_low, reference.low, atol=0.05)
  np.testing.assert_allclose(got.pearson_high, reference.high, atol=0.05)


def test_missing_values_are_left_out_pair_by_pair():
  x, y = models()
  x[3, 0], y[[5, 6], 1] = np.nan, np.nan
  got = study(x, y)
  assert got.n.tolist() == [[18, 16, 18], [19, 17, 19]]
  keep = np.setdiff1d(np.arange(19), [3, 5, 6])
  np.testing.assert_allclose(
    got.pearson[0, 1], stats.pearsonr(x[keep, 0], y[keep, 1])[0]
  )


def test_a_constant_up_to_rounding_is_constant():
  assert np.isnan(study([0.3, 0.1 + 0.2, 0.3, 0.3], [1, 2, 4, 3]).pearson).all()


def test_constant_columns_and_few_models_are_nan():
  got = study([1, 1, 1, 1], [1, 2, 3, 4])
  for name in ("pearson", "spearman", "p_pearson", "p_holm", "pearson_low"):
    assert np.isnan(getattr(got, name)[0, 0]), name
  assert np.isnan(study([1, 2], [1, 2]).pearson[0, 0])
  assert study([1, 2], [1, 2]).n[0, 0] == 2


def test_spearman_sees_only_order():
  x, y = models()
  one, other = study(x, y), study(np.exp(3 * x), y**3)
  np.testing.assert_allclose(one.spearman, other.spearman, rtol=1e-12)
  np.testing.assert_allclose(one.p_spearman, other.p_spearman)


def test_order_of_models_and_sign():
  x, y = models()
  order = np.random.default_rng(0).permutation(19)
  np.testing.assert_allclose(
    study(x, y).pearson, study(x[order], y[order]).pearson, rtol=1e-10
  )
  np.testing.assert_allclose(study(x, y).pearson, -study(-x, y).pearson)


def test_holm_covers_only_declared_cells():
  x, y = models()
  declared = np.array([[1, 0, 0], [0, 1, 0]], bool)
  got = study(x, y, declared=declared)
  assert np.isnan(got.p_holm[~declared]).all()
  np.testing.assert_allclose(
    got.p_holm[declared], fairness.holm(got.p_pearson[declared])
  )
  np.testing.assert_allclose(
    study(x, y).p_holm.ravel(),
    fairness.holm(study(x, y).p_pearson.ravel()),
  )


def test_families_and_sizes():
  rng = np.random.default_rng(0)
  size = np.repeat([1.0, 2.0, 3.0], 6) + 0.1 * rng.normal(size=18)
  family = np.tile([0, 1, 2], 6)
  x = size + 0.1 * rng.normal(size=18)
  y = size + 0.1 * rng.normal(size=18)
  got = study(x, y, family=family, log_size=size)
  left_out = [
    np.corrcoef(x[family != f], y[family != f])[0, 1] for f in range(3)
  ]
  np.testing.assert_allclose(got.family_low, min(left_out))
  np.testing.assert_allclose(got.family_high, max(left_out))
  # Both follow size; given size little is left.
  assert got.pearson[0, 0] > 0.9
  residuals = [v - np.polyval(np.polyfit(size, v, 1), size) for v in (x, y)]
  np.testing.assert_allclose(
    got.partial, np.corrcoef(*residuals)[0, 1], rtol=1e-8
  )


def test_attenuation():
  x, y = models(i=1, e=1)
  got = study(x, y, reliability_intrinsic=[0.8], reliability_extrinsic=[0.5])
  np.testing.assert_allclose(got.disattenuated, got.pearson / np.sqrt(0.4))
  assert np.isnan(study(x, y).disattenuated).all()
  with pytest.raises(ValueError, match="reliability_intrinsic"):
    study(x, y, reliability_intrinsic=[0], reliability_extrinsic=[1])


class TestErrorRates:
  """300 simulated studies of 19 models at level 0.05 (standard error .013)."""

  def rejections(self, rho):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(19, 300))
    noise = rng.normal(size=(19, 300))
    y = rho * x + np.sqrt(1 - rho**2) * noise
    p = [
      study(x[:, k], y[:, k], num_perm=199, num_boot=2).p_pearson[0, 0]
      for k in range(300)
    ]
    return np.mean(np.array(p) <= 0.05)

  @pytest.mark.slow
  def test_null(self):
    assert abs(self.rejections(0.0) - 0.05) < 0.05

  @pytest.mark.slow
  def test_power(self):
    """A true 0.5 is detected with probability 0.59, 0.9 almost always."""
    assert abs(self.rejections(0.5) - 0.59) < 0.12
    assert self.rejections(0.9) > 0.97


class TestOrient:
  def test_kinds(self):
    values = np.array([30.0, 60.0])
    np.testing.assert_array_equal(fairness.orient(values, "per_cent"), [20, 10])
    np.testing.assert_array_equal(
      fairness.orient(values, "per_cent", fold=False), [-20, 10]
    )
    np.testing.assert_array_equal(
      fairness.orient(np.array([-1.0, 2.0]), "signed"), [1, 2]
    )
    np.testing.assert_allclose(
      fairness.orient(np.array([0.9, 0.5]), "auc"), [0.1, 0.5]
    )
    np.testing.assert_allclose(
      fairness.orient(np.array([0.9, 0.5]), "ratio"), [0.1, 0.5]
    )
    np.testing.assert_array_equal(fairness.orient(values, "gap"), values)

  def test_icat_is_refused(self):
    with pytest.raises(ValueError, match="mixes language quality with bias"):
      fairness.orient(np.ones(2), "icat")
    with pytest.raises(ValueError, match="kind: got 'score'"):
      fairness.orient(np.ones(2), "score")

  def test_folding_costs_correlation(self):
    """Spread 0.3, noise 0.1: 0.949 signed, 0.877 folded."""
    rng = np.random.default_rng(0)
    truth = rng.normal(0, 0.3, 200_000)
    estimate = truth + rng.normal(0, 0.1, 200_000)
    for fold, want in ((False, 0.949), (True, 0.877)):
      pair = [
        fairness.orient(v, "signed", fold=fold) for v in (truth, estimate)
      ]
      np.testing.assert_allclose(np.corrcoef(*pair)[0, 1], want, atol=0.004)


def test_bad_input():
  with pytest.raises((ValueError, TypeError)):
    study(np.ones((3, 1)), np.ones((4, 1)))
  with pytest.raises(ValueError, match="infinite"):
    study([1, 2, np.inf], [1, 2, 3])
  with pytest.raises((ValueError, TypeError)):
    study([1, 2, 4], [1, 2, 3], family=np.zeros(2, int))
  with pytest.raises((ValueError, TypeError)):
    study([1, 2, 4], [1, 2, 3], declared=np.ones((2, 2), bool))
