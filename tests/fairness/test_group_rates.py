"""Rates and gaps: known answers, fairlearn, properties, bad input."""

import dataclasses

import chex
import fairlearn.metrics as fl
import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import metrics as sk

from trustjax import fairness

Y_TRUE = np.array([1, 1, 0, 0, 1, 1, 0, 0])
Y_PRED = np.array([1, 1, 1, 0, 1, 0, 0, 0])
GROUP = np.array([0, 0, 0, 0, 1, 1, 1, 1])


def records(seed, n=300, num_groups=4):
  rng = np.random.default_rng(seed)
  group = rng.integers(0, num_groups, n)
  y_true = rng.random(n) < 0.3 + 0.1 * group
  y_pred = np.where(rng.random(n) < 0.7, y_true, rng.random(n) < 0.4)
  return y_true.astype(int), y_pred.astype(int), group


def known(name):
  rates = fairness.group_rates(Y_TRUE, Y_PRED, GROUP, num_groups=2)
  return np.asarray(getattr(rates, name))


def test_known_rates():
  np.testing.assert_allclose(known("selection_rate"), [0.75, 0.25])
  np.testing.assert_allclose(known("tpr"), [1, 0.5])
  np.testing.assert_allclose(known("fpr"), [0.5, 0])
  np.testing.assert_allclose(known("fnr"), [0, 0.5])
  np.testing.assert_allclose(known("tnr"), [0.5, 1])
  np.testing.assert_allclose(known("accuracy"), [0.75, 0.75])
  np.testing.assert_allclose(known("precision"), [2 / 3, 1], rtol=1e-6)
  np.testing.assert_allclose(known("base_rate"), [0.5, 0.5])
  assert known("n").tolist() == [4, 4]


def test_known_gaps():
  gaps = fairness.group_gaps(
    fairness.group_rates(Y_TRUE, Y_PRED, GROUP, num_groups=2)
  )
  want = {
    "demographic_parity_difference": 0.5,
    "demographic_parity_ratio": 1 / 3,
    "equal_opportunity_difference": 0.5,
    "equal_opportunity_ratio": 0.5,
    "predictive_equality_difference": 0.5,
    "predictive_equality_ratio": 0,
    "equalized_odds_difference": 0.5,
    "equalized_odds_difference_mean": 0.5,
    "equalized_odds_ratio": 0,
    "equalized_odds_ratio_mean": 0.25,
    "accuracy_difference": 0,
    "fped": 0.5,
    "fned": 0.5,
  }
  assert want.keys() == {f.name for f in dataclasses.fields(gaps)}
  for name, value in want.items():
    np.testing.assert_allclose(getattr(gaps, name), value, atol=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_rates_equal_fairlearn_and_sklearn(seed):
  y_true, y_pred, group = records(seed)
  weights = np.random.default_rng(seed).uniform(0.1, 2, len(group))
  frame = fl.MetricFrame(
    metrics={
      "selection_rate": fl.selection_rate,
      "tpr": fl.true_positive_rate,
      "fpr": fl.false_positive_rate,
      "fnr": fl.false_negative_rate,
      "accuracy": sk.accuracy_score,
      "precision": sk.precision_score,
    },
    y_true=y_true,
    y_pred=y_pred,
    sensitive_features=group,
    sample_params={
      name: {"sample_weight": weights}
      for name in (
        "selection_rate",
        "tpr",
        "fpr",
        "fnr",
        "accuracy",
        "precision",
      )
    },
  )
  rates = fairness.group_rates(
    y_true, y_pred, group, num_groups=4, weights=weights
  )
  for name in frame.by_group.columns:
    np.testing.assert_allclose(
      getattr(rates, name), frame.by_group[name], rtol=1e-5
    )
    np.testing.assert_allclose(
      getattr(rates.overall, name)[0], frame.overall[name], rtol=1e-5
    )


@pytest.mark.parametrize("method", ["between_groups", "to_overall"])
@pytest.mark.parametrize("seed", range(3))
def test_gaps_equal_fairlearn(seed, method):
  y_true, y_pred, group = records(seed)
  gaps = fairness.group_gaps(
    fairness.group_rates(y_true, y_pred, group, num_groups=4), method=method
  )
  options = {"sensitive_features": group, "method": method}
  peers = {
    "demographic_parity_difference": fl.demographic_parity_difference,
    "demographic_parity_ratio": fl.demographic_parity_ratio,
    "equal_opportunity_difference": fl.equal_opportunity_difference,
    "equal_opportunity_ratio": fl.equal_opportunity_ratio,
    "equalized_odds_difference": fl.equalized_odds_difference,
    "equalized_odds_ratio": fl.equalized_odds_ratio,
  }
  for name, peer in peers.items():
    np.testing.assert_allclose(
      getattr(gaps, name), peer(y_true, y_pred, **options), rtol=1e-5
    )
  for name, peer in (
    ("equalized_odds_difference_mean", fl.equalized_odds_difference),
    ("equalized_odds_ratio_mean", fl.equalized_odds_ratio),
  ):
    np.testing.assert_allclose(
      getattr(gaps, name),
      peer(y_true, y_pred, agg="mean", **options),
      rtol=1e-5,
    )


def test_a_ratio_of_zeros_is_nan_whichever_it_is():
  """fairlearn's minimum of a number and nan depends on their order."""
  y_true, group = np.array([1, 1, 0, 0] * 2), np.repeat([0, 1], 4)
  options = {"sensitive_features": group}
  for y_pred, theirs in (
    (y_true, 1.0),  # FPR 0 / 0.
    (np.array([0, 0, 1, 0, 0, 0, 1, 1]), np.nan),  # TPR 0 / 0, FPR 1/2.
  ):
    gaps = fairness.group_gaps(
      fairness.group_rates(y_true, y_pred, group, num_groups=2)
    )
    assert np.isnan(gaps.equalized_odds_ratio)
    peer = fl.equalized_odds_ratio(y_true, y_pred, **options)
    np.testing.assert_equal(float(peer), theirs)


def test_fped_is_the_sum_of_distances():
  y_true, y_pred, group = records(0)
  rates = fairness.group_rates(y_true, y_pred, group, num_groups=4)
  fpr = y_pred[y_true == 0].mean()
  want = sum(
    abs(y_pred[(y_true == 0) & (group == g)].mean() - fpr) for g in range(4)
  )
  np.testing.assert_allclose(fairness.group_gaps(rates).fped, want, rtol=1e-5)


@hypothesis.given(st.integers(0, 2**32 - 1))
@hypothesis.settings(max_examples=20, deadline=None)
def test_order_of_records_and_names_of_groups_do_not_matter(seed):
  y_true, y_pred, group = records(seed)
  rng = np.random.default_rng(seed)
  order, names = rng.permutation(300), rng.permutation(4)
  one, other = (
    fairness.group_gaps(
      fairness.group_rates(*arrays, num_groups=4), on_empty="nan"
    )
    for arrays in (
      (y_true, y_pred, group),
      (y_true[order], y_pred[order], names[group[order]]),
    )
  )
  chex.assert_trees_all_close(one, other, rtol=1e-5)


def test_equal_groups_are_at_parity():
  y_true, y_pred, _ = records(0)
  rates = fairness.group_rates(
    np.tile(y_true, 2), np.tile(y_pred, 2), np.repeat([0, 1], 300), num_groups=2
  )
  for field in dataclasses.fields(fairness.GroupGaps):
    value = float(getattr(fairness.group_gaps(rates), field.name))
    assert value == (1 if "ratio" in field.name else 0), field.name


def test_masked_records_are_inert():
  y_true, y_pred, group = records(0)
  mask = np.arange(300) < 200
  garbage = [np.where(mask, values, 77) for values in (y_true, y_pred, group)]
  one = fairness.group_rates(*garbage, num_groups=4, mask=mask)
  other = fairness.group_rates(
    y_true[:200], y_pred[:200], group[:200], num_groups=4
  )
  np.testing.assert_array_equal(one.counts, other.counts)
  assert (int(one.n_dropped), int(other.n_dropped)) == (100, 0)


@pytest.mark.slow
def test_jit_vmap_and_traces():
  @jax.jit
  @chex.assert_max_traces(n=1)
  def gaps(y_true, y_pred, group):
    rates = fairness.group_rates(y_true, y_pred, group, num_groups=4)
    return fairness.group_gaps(rates)

  many = [records(seed) for seed in range(3)]
  alone = [gaps(*map(jnp.asarray, arrays)) for arrays in many]
  eager = [
    fairness.group_gaps(fairness.group_rates(*arrays, num_groups=4))
    for arrays in many
  ]
  chex.assert_trees_all_close(alone, eager, rtol=1e-6)
  stacked = [jnp.asarray(np.stack(column)) for column in zip(*many)]
  together = jax.vmap(
    lambda *arrays: fairness.group_gaps(
      fairness.group_rates(*arrays, num_groups=4)
    )
  )(*stacked)
  chex.assert_trees_all_close(
    together, jax.tree.map(lambda *x: jnp.stack(x), *eager), rtol=1e-6
  )


def test_an_empty_group_is_an_error_or_nan_never_zero():
  with pytest.raises(ValueError, match="group 2 of 3 has no records"):
    fairness.group_rates(Y_TRUE, Y_PRED, GROUP, num_groups=3)
  rates = fairness.group_rates(
    Y_TRUE, Y_PRED, GROUP, num_groups=3, on_empty="nan"
  )
  assert np.isnan(rates.tpr[2])
  assert rates.n[2] == 0
  with pytest.raises(ValueError, match="group 2 has no records with label 0"):
    fairness.group_gaps(rates)
  gaps = fairness.group_gaps(rates, on_empty="nan")
  assert np.isnan(gaps.equalized_odds_difference)
  assert np.isnan(gaps.demographic_parity_difference)


def test_one_class_only():
  rates = fairness.group_rates(np.ones(8, int), Y_PRED, GROUP, num_groups=2)
  with pytest.raises(ValueError, match="group 0 has no records with label 0"):
    fairness.group_gaps(rates)
  gaps = fairness.group_gaps(rates, on_empty="nan")
  assert np.isnan(gaps.predictive_equality_difference)
  np.testing.assert_allclose(gaps.equal_opportunity_difference, 0.5)


def test_bad_input():
  with pytest.raises(ValueError, match=r"y_true\[0\]: got 2; it must be 0"):
    fairness.group_rates(Y_TRUE + 1, Y_PRED, GROUP, num_groups=2)
  with pytest.raises(ValueError, match=r"group\[4\]: got 1; it must lie"):
    fairness.group_rates(Y_TRUE, Y_PRED, GROUP, num_groups=1)
  with pytest.raises((ValueError, TypeError)):
    fairness.group_rates(Y_TRUE[:3], Y_PRED, GROUP, num_groups=2)
  with pytest.raises(ValueError, match="negative weight"):
    fairness.group_rates(
      Y_TRUE, Y_PRED, GROUP, num_groups=2, weights=-np.ones(8)
    )
  fairness.group_rates(
    Y_TRUE,
    Y_PRED,
    GROUP,
    num_groups=2,
    weights=np.where(np.arange(8) == 3, -1.0, 1.0),
    mask=np.arange(8) != 3,
  )
  rates = fairness.group_rates(Y_TRUE, Y_PRED, GROUP, num_groups=2)
  with pytest.raises(ValueError, match="method: got 'max'"):
    fairness.group_gaps(rates, method="max")


class TestClassGaps:
  def test_equals_recalls_of_sklearn(self):
    rng = np.random.default_rng(0)
    y_true = rng.integers(0, 5, 2000)
    group = (rng.random(2000) < 0.2 + 0.1 * y_true).astype(int)
    y_pred = np.where(
      rng.random(2000) < 0.6 + 0.2 * group, y_true, rng.integers(0, 5, 2000)
    )
    got = fairness.class_gaps(y_true, y_pred, group, num_classes=5)
    recalls = [
      sk.recall_score(y_true[group == g], y_pred[group == g], average=None)
      for g in (0, 1)
    ]
    np.testing.assert_allclose(got.gap, recalls[1] - recalls[0], atol=1e-6)
    share = [group[y_true == y].mean() for y in range(5)]
    np.testing.assert_allclose(got.share, share, rtol=1e-6)
    np.testing.assert_allclose(
      got.rms, np.sqrt(np.mean((recalls[1] - recalls[0]) ** 2)), rtol=1e-5
    )
    np.testing.assert_allclose(
      got.correlation,
      np.corrcoef(recalls[1] - recalls[0], share)[0, 1],
      rtol=1e-4,
    )

  def test_swapping_groups_negates(self):
    y_true, y_pred, group = records(0, num_groups=2)
    one = fairness.class_gaps(y_true, y_pred, group, num_classes=2)
    other = fairness.class_gaps(y_true, y_pred, 1 - group, num_classes=2)
    np.testing.assert_allclose(one.gap, -other.gap, atol=1e-7)

  def test_a_class_without_one_group_is_left_out(self):
    got = fairness.class_gaps(
      np.array([0, 0, 1]),
      np.array([0, 1, 1]),
      np.array([0, 1, 1]),
      num_classes=2,
    )
    assert got.gap[0] == -1
    assert np.isnan(got.gap[1])
    assert got.rms == 1
