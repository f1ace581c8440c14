"""Calibration by group: a loop over bins, nulls, bad input."""

import chex
import jax
import numpy as np
import pytest
from sklearn import metrics as sk

from trustjax import fairness


def records(seed=0, n=2000):
  rng = np.random.default_rng(seed)
  scores = rng.random(n)
  group = rng.integers(0, 3, n)
  labels = rng.random(n) < scores + np.array([0, 0.1, -0.2])[group]
  return scores, labels.astype(int), group


def test_equals_a_loop_over_bins():
  scores, labels, group = records()
  got = fairness.group_calibration(scores, labels, group, num_groups=3)
  for g in range(3):
    s, y = scores[group == g], labels[group == g]
    error = 0
    for b in range(10):
      inside = (s >= b / 10) & (s < (b + 1) / 10)
      error += inside.mean() * abs(s[inside].mean() - y[inside].mean())
      np.testing.assert_allclose(
        got.bin_rate[g, b], y[inside].mean(), rtol=1e-5
      )
      np.testing.assert_allclose(
        got.bin_score[g, b], s[inside].mean(), rtol=1e-5
      )
    np.testing.assert_allclose(got.error[g], error, rtol=1e-4)
    np.testing.assert_allclose(got.bias[g], s.mean() - y.mean(), atol=1e-6)
    np.testing.assert_allclose(
      got.brier[g], sk.brier_score_loss(y, s), rtol=1e-5
    )
  np.testing.assert_allclose(
    got.bias_gap, np.ptp(np.asarray(got.bias)), rtol=1e-5
  )
  np.testing.assert_allclose(
    got.error_gap, np.ptp(np.asarray(got.error)), rtol=1e-5
  )
  spread = np.ptp(np.asarray(got.bin_rate), axis=0)
  weight = np.asarray(got.bin_n).sum(0)
  np.testing.assert_allclose(
    got.sufficiency_gap, (spread * weight).sum() / weight.sum(), rtol=1e-5
  )


def test_known_answer():
  got = fairness.group_calibration(
    np.array([0.25, 0.25, 0.75, 1.0]),
    np.array([0, 1, 1, 1]),
    np.array([0, 0, 1, 1]),
    num_groups=2,
    num_bins=2,
  )
  np.testing.assert_allclose(got.error, [0.25, 0.125])
  np.testing.assert_allclose(got.bias, [-0.25, -0.125])
  np.testing.assert_allclose(got.bin_n, [[2, 0], [0, 2]])
  assert np.isnan(got.bin_rate[0, 1])
  # No bin is shared.
  assert np.isnan(got.sufficiency_gap)


@pytest.mark.slow
def test_exact_scores_are_calibrated():
  scores = np.tile([0.25, 0.75], 40)
  labels = np.concatenate([np.tile([0, 1, 0, 1, 0, 1, 1, 0], 5)] * 2)
  got = fairness.group_calibration(
    scores, labels, np.repeat([0, 1], 40), num_groups=2, num_bins=4
  )
  np.testing.assert_allclose(got.error, 0, atol=1e-6)
  np.testing.assert_allclose(got.sufficiency_gap, 0, atol=1e-6)


@pytest.mark.slow
def test_order_and_weights():
  scores, labels, group = records()
  order = np.random.default_rng(1).permutation(2000)
  one = fairness.group_calibration(scores, labels, group, num_groups=3)
  other = fairness.group_calibration(
    scores[order], labels[order], group[order], num_groups=3
  )
  np.testing.assert_allclose(one.error, other.error, rtol=1e-4)
  doubled = fairness.group_calibration(
    np.tile(scores, 2), np.tile(labels, 2), np.tile(group, 2), num_groups=3
  )
  weighted = fairness.group_calibration(
    scores, labels, group, num_groups=3, weights=np.full(2000, 2.0)
  )
  np.testing.assert_allclose(weighted.error, doubled.error, rtol=1e-4)
  np.testing.assert_allclose(weighted.n, doubled.n)


@pytest.mark.slow
def test_masked_records_are_inert():
  scores, labels, group = records()
  mask = np.arange(2000) < 1500
  got = fairness.group_calibration(
    np.where(mask, scores, np.nan), labels, group, num_groups=3, mask=mask
  )
  want = fairness.group_calibration(
    scores[:1500], labels[:1500], group[:1500], num_groups=3
  )
  np.testing.assert_allclose(got.error, want.error, rtol=1e-5)
  assert int(got.n_dropped) == 500


def test_bad_input():
  with pytest.raises(ValueError, match=r"weights\[1\]: got nan"):
    fairness.group_calibration(
      np.array([0.2, 0.3]),
      np.array([0, 1]),
      np.array([0, 0]),
      num_groups=1,
      weights=np.array([1.0, np.nan]),
    )
  scores, labels, group = records(n=20)
  with pytest.raises(ValueError, match=r"scores\[3\]: got 1.5; it must lie"):
    fairness.group_calibration(
      np.where(np.arange(20) == 3, 1.5, scores), labels, group, num_groups=3
    )
  with pytest.raises(ValueError, match=r"scores\[0\]: got nan"):
    fairness.group_calibration(np.full(20, np.nan), labels, group, num_groups=3)
  with pytest.raises(ValueError, match="group 3 of 4 has no records"):
    fairness.group_calibration(scores, labels, group, num_groups=4)
  got = fairness.group_calibration(
    scores, labels, group, num_groups=4, on_empty="nan"
  )
  assert np.isnan(got.error[3])


def test_bootstrap():
  """A multiplicity of 2 is a record twice; the estimate is the metric."""
  scores, labels, group = records(n=200)
  plain = fairness.group_calibration(scores, labels, group, num_groups=3)
  got = fairness.group_calibration_bootstrap(
    scores, labels, group, num_groups=3, key=jax.random.key(0), num=60
  )
  chex.assert_trees_all_close(got.estimate, plain, rtol=1e-5)
  for name in ("bias", "brier"):
    assert (getattr(got.low, name) < getattr(plain, name)).all()
    assert (getattr(got.high, name) > getattr(plain, name)).all()
  # Records are drawn within groups, so that none changes its size.
  assert (np.asarray(got.replicates.n) == np.asarray(plain.n)).all()
  # The standard error of a mean, group by group; 60 resamples.
  apart = [(scores - labels)[group == g] for g in range(3)]
  want = [each.std() / np.sqrt(len(each)) for each in apart]
  np.testing.assert_allclose(got.replicates.bias.std(0), want, rtol=0.35)
  drawn = np.random.default_rng(1).integers(0, 200, 200)
  weights = np.bincount(drawn, minlength=200)
  rows = np.repeat(np.arange(200), weights)
  chex.assert_trees_all_close(
    fairness.group_calibration(
      scores, labels, group, num_groups=3, weights=weights
    ),
    fairness.group_calibration(
      scores[rows], labels[rows], group[rows], num_groups=3
    ),
    rtol=1e-5,
    atol=1e-6,
  )
