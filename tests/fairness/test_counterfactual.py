"""Counterfactual gaps and Wasserstein distances."""

import jax
import numpy as np
import pytest
from scipy import stats

from trustjax import fairness

P = np.array([0.2, 0.6, 0.9])
P_CF = np.array([[0.3, 0.6], [0.4, 0.7], [0.1, 0.0]])
VALID = np.array([[1, 1], [1, 0], [0, 0]], bool)


class TestGap:
  def test_known_answer(self):
    got = fairness.counterfactual_gap(P, P_CF, VALID)
    np.testing.assert_allclose(got.mean, (0.1 + 0.4 + 0.2) / 3, rtol=1e-6)
    np.testing.assert_allclose(got.signed, (0.1 + 0.4 - 0.2) / 3, rtol=1e-5)
    np.testing.assert_allclose(got.maximum, (0.4 + 0.2) / 2, rtol=1e-6)
    np.testing.assert_allclose(got.flip_rate, 2 / 3, rtol=1e-6)
    np.testing.assert_allclose(got.per_item[:2], [0.25, 0.2], rtol=1e-6)
    assert np.isnan(got.per_item[2])
    np.testing.assert_allclose(got.coverage, 2 / 3, rtol=1e-6)
    assert (int(got.n), int(got.n_dropped)) == (3, 3)

  def test_invalid_swaps_are_inert(self):
    garbage = np.where(VALID, P_CF, np.nan)
    one = fairness.counterfactual_gap(P, P_CF, VALID)
    other = fairness.counterfactual_gap(P, garbage, VALID)
    for name in ("mean", "signed", "maximum", "flip_rate"):
      assert getattr(one, name) == getattr(other, name)

  def test_equal_scores_are_zero_and_scale_scales(self):
    same = fairness.counterfactual_gap(P, np.tile(P[:, None], 2), VALID)
    assert (same.mean, same.maximum, same.flip_rate) == (0, 0, 0)
    one = fairness.counterfactual_gap(P, P_CF, VALID)
    other = fairness.counterfactual_gap(10 * P, 10 * P_CF, VALID)
    np.testing.assert_allclose(other.mean, 10 * one.mean, rtol=1e-6)

  def test_nothing_valid_is_nan_with_n_0(self):
    got = fairness.counterfactual_gap(P, P_CF, np.zeros((3, 2), bool))
    assert np.isnan(got.mean)
    assert int(got.n) == 0
    assert got.coverage == 0

  def test_bad_input(self):
    with pytest.raises(ValueError, match=r"p_cf\[0, 1\]: got nan"):
      fairness.counterfactual_gap(P, np.full((3, 2), [0.1, np.nan]), VALID)
    with pytest.raises((ValueError, TypeError)):
      fairness.counterfactual_gap(P[:2], P_CF, VALID)


class TestBootstraps:
  KEY = jax.random.key(0)

  def many(self, substitutions=1):
    rng = np.random.default_rng(0)
    p = rng.random(200)
    p_cf = np.repeat(rng.random((200, 1)), substitutions, axis=1)
    return p, p_cf, np.ones(p_cf.shape, bool)

  def test_flip_rate(self):
    """The estimate is the metric, its spread that of a share of items."""
    arrays = self.many()
    gap = fairness.counterfactual_gap(*arrays, threshold=0.3)
    got = fairness.counterfactual_gap_bootstrap(
      *arrays, key=self.KEY, num=500, threshold=0.3
    )
    for name, estimate in got.estimate.items():
      np.testing.assert_allclose(estimate, getattr(gap, name), rtol=1e-5)
      assert got.low[name] < estimate < got.high[name]
    rate = float(gap.flip_rate)
    np.testing.assert_allclose(
      got.replicates["flip_rate"].std(),
      np.sqrt(rate * (1 - rate) / 200),
      rtol=0.15,
    )

  def test_substitutions_of_an_item_stay_together(self):
    """Fifty copies of a substitution tell no more than one."""
    one, fifty = (
      fairness.counterfactual_gap_bootstrap(
        *self.many(number), key=self.KEY, num=50
      )
      for number in (1, 50)
    )
    for name in one.low:
      np.testing.assert_allclose(one.low[name], fifty.low[name], atol=1e-5)
      np.testing.assert_allclose(one.high[name], fifty.high[name], atol=1e-5)

  def test_template_gap(self):
    rng = np.random.default_rng(0)
    p, valid = rng.random((30, 4)), rng.random((30, 4)) < 0.8
    gap = fairness.template_gap(p, valid)
    got = fairness.template_gap_bootstrap(p, valid, key=self.KEY, num=200)
    for name in ("mean", "maximum", "flip_rate"):
      np.testing.assert_allclose(
        got.estimate[name], getattr(gap, name), rtol=1e-5
      )
      assert got.low[name] < got.estimate[name] < got.high[name]
    assert np.isnan(got.estimate["signed"])
    with pytest.raises(ValueError, match="method: got 'basic'"):
      fairness.template_gap_bootstrap(p, valid, key=self.KEY, method="basic")


class TestTemplate:
  def test_equals_a_loop_over_pairs(self):
    rng = np.random.default_rng(0)
    p, valid = rng.random((6, 4)), rng.random((6, 4)) < 0.8
    pairs, per_item, largest = [], [], []
    for row, keep in zip(p, valid):
      kept = row[keep]
      apart = [abs(a - b) for i, a in enumerate(kept) for b in kept[i + 1 :]]
      pairs += apart
      per_item.append(np.mean(apart))
      largest.append(max(apart))
    got = fairness.template_gap(p, valid)
    np.testing.assert_allclose(got.mean, np.mean(pairs), rtol=1e-5)
    np.testing.assert_allclose(got.maximum, np.mean(largest), rtol=1e-5)
    np.testing.assert_allclose(got.per_item, per_item, rtol=1e-5)
    assert int(got.n) == len(pairs)
    assert np.isnan(got.signed)

  def test_order_of_groups_does_not_matter(self):
    rng = np.random.default_rng(0)
    p, valid = rng.random((6, 4)), rng.random((6, 4)) < 0.8
    order = rng.permutation(4)
    one = fairness.template_gap(p, valid)
    other = fairness.template_gap(p[:, order], valid[:, order])
    np.testing.assert_allclose(one.mean, other.mean, rtol=1e-6)
    np.testing.assert_allclose(one.flip_rate, other.flip_rate, rtol=1e-6)

  def test_one_group_is_refused(self):
    with pytest.raises(ValueError, match="at least 2"):
      fairness.template_gap(np.ones((2, 1)), np.ones((2, 1), bool))


class TestWasserstein:
  def test_known_answers(self):
    for one, other, distance in (
      ([0, 1], [0.5, 0.5], 0.5),
      ([0.1, 0.2, 0.9], [0.3, 0.4], 0.283333),
    ):
      got = fairness.wasserstein(np.array(one), np.array(other))
      np.testing.assert_allclose(got, distance, atol=1e-6)

  @pytest.mark.parametrize("seed", range(4))
  def test_equals_scipy(self, seed):
    rng = np.random.default_rng(seed)
    one, other = rng.normal(size=17), rng.exponential(size=5)
    np.testing.assert_allclose(
      fairness.wasserstein(one, other),
      stats.wasserstein_distance(one, other),
      rtol=1e-5,
    )

  @pytest.mark.slow
  def test_masks_are_inert(self):
    rng = np.random.default_rng(0)
    one, other = rng.normal(size=8), rng.normal(size=6)
    keep = np.arange(8) < 5
    got = jax.jit(fairness.wasserstein)(
      np.where(keep, one, 1e6), other, first_mask=keep
    )
    np.testing.assert_allclose(
      got, stats.wasserstein_distance(one[:5], other), rtol=1e-4
    )
    assert np.isnan(
      fairness.wasserstein(one, other, first_mask=np.zeros(8, bool))
    )

  def test_distributional_fairness(self):
    scores = np.array([[0, 1.0], [0.2, 0.2]])
    other = np.array([[0.5, 0.5], [0.3, 0.5]])
    np.testing.assert_allclose(
      fairness.distributional_fairness(scores, other),
      (0.5 + 0.2) / 2,
      rtol=1e-6,
    )
    assert fairness.distributional_fairness(scores, scores) == 0

  @pytest.mark.slow
  def test_groups(self):
    """{.2, .4} and {.6, .8}: individual .4, group .2."""
    scores, group = np.array([0.2, 0.4, 0.6, 0.8]), np.array([0, 0, 1, 1])
    got = fairness.distributional_group_fairness(scores, group, num_groups=2)
    np.testing.assert_allclose(got, 0.2, rtol=1e-6)
    between = fairness.distributional_fairness(
      scores[None, :2], scores[None, 2:]
    )
    np.testing.assert_allclose(between, 0.4, rtol=1e-6)
