"""Bias AUCs: known answers, scikit-learn, pairs counted one by one."""

import chex
import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import metrics as sk

from trustjax import fairness
from trustjax.fairness import _bias_aucs, _pinned_auc

KEY = jax.random.key(0)
# Subgroup positives, subgroup negatives, background positives, negatives.
SCORES = np.array([0.9, 0.6, 0.7, 0.2, 0.8, 0.5, 0.4, 0.1])
LABELS = np.array([1, 1, 0, 0, 1, 1, 0, 0])
GROUPS = np.array([1, 1, 1, 1, 0, 0, 0, 0], bool)[:, None]


def records(seed, n=400, num_groups=3, decimals=2):
  """Scores with ties, overlapping groups, some records without a group."""
  rng = np.random.default_rng(seed)
  groups = rng.random((n, num_groups)) < np.linspace(0.2, 0.5, num_groups)
  labels = (rng.random(n) < 0.4).astype(int)
  scores = (0.3 * labels + 0.2 * groups[:, 0] + rng.random(n)).round(decimals)
  return scores, labels, groups


def auc_of_pairs(positive, negative):
  """Pr[p > n] + Pr[p = n] / 2, one pair at a time."""
  won = [(p > n) + 0.5 * (p == n) for p in positive for n in negative]
  return np.mean(won) if won else np.nan


def naive(scores, labels, groups, background):
  out = {
    name: [] for name in ("subgroup", "bpsn", "bnsp", "pos_aeg", "neg_aeg")
  }
  for g in range(groups.shape[1]):
    inside = groups[:, g]
    outside = ~inside
    if background == "identified":
      outside = outside & groups.any(1)
    pos_g, neg_g, pos_b, neg_b = (
      scores[where & (labels == y)]
      for where in (inside, outside)
      for y in (1, 0)
    )
    out["subgroup"].append(auc_of_pairs(pos_g, neg_g))
    out["bpsn"].append(auc_of_pairs(pos_b, neg_g))
    out["bnsp"].append(auc_of_pairs(pos_g, neg_b))
    out["pos_aeg"].append(auc_of_pairs(pos_g, pos_b) - 0.5)
    out["neg_aeg"].append(auc_of_pairs(neg_g, neg_b) - 0.5)
  return out


def test_known_answers():
  got = fairness.bias_aucs(SCORES, LABELS, GROUPS)
  for name, value in (
    ("subgroup", 0.75),
    ("bpsn", 0.75),
    ("bnsp", 1.0),
    ("pos_aeg", 0.25),
    ("neg_aeg", 0.25),
  ):
    np.testing.assert_allclose(getattr(got, name), [value], atol=1e-6)
  assert (float(got.n[0]), float(got.n_positive[0])) == (4, 2)


def test_ties_count_half():
  got = fairness.auc(np.array([0.5, 0.5, 0.5, 0.2]), np.array([1, 0, 0, 0]))
  np.testing.assert_allclose(got, 2 / 3, rtol=1e-6)


@pytest.mark.parametrize("background", ["all", "identified"])
@pytest.mark.parametrize("seed", range(3))
def test_equals_counted_pairs(seed, background):
  arrays = records(seed)
  got = fairness.bias_aucs(*arrays, background=background)
  for name, values in naive(*arrays, background).items():
    np.testing.assert_allclose(getattr(got, name), values, atol=2e-6)
  assert got.variant == f"background={background}"


def test_the_background_matters():
  arrays = records(0)
  one = fairness.bias_aucs(*arrays, background="all")
  other = fairness.bias_aucs(*arrays, background="identified")
  assert np.abs(one.bpsn - other.bpsn).max() > 1e-3
  np.testing.assert_array_equal(one.subgroup, other.subgroup)
  with pytest.raises(ValueError, match="variant"):
    fairness.check_comparable(one, other)


@pytest.mark.parametrize("weighted", [False, True])
def test_auc_equals_sklearn(weighted):
  scores, labels, _ = records(0, n=1000)
  weights = np.random.default_rng(0).integers(0, 4, 1000) if weighted else None
  np.testing.assert_allclose(
    fairness.auc(scores, labels, weights=weights),
    sk.roc_auc_score(labels, scores, sample_weight=weights),
    rtol=1e-5,
  )


@hypothesis.given(st.integers(0, 2**32 - 1))
@hypothesis.settings(max_examples=15, deadline=None)
def test_increasing_maps_and_order_change_nothing(seed):
  scores, labels, groups = records(seed)
  order = np.random.default_rng(seed).permutation(len(scores))
  one = fairness.bias_aucs(scores, labels, groups, on_empty="nan")
  other = fairness.bias_aucs(
    np.exp(3 * scores)[order] - 7, labels[order], groups[order], on_empty="nan"
  )
  chex.assert_trees_all_close(one, other, atol=2e-6)


def test_confident_scores_are_not_ties():
  """Probabilities of the host that are all 1 in float32."""
  near_one = 1 - 10.0 ** -np.arange(9, 17).astype(np.float64)
  near_one = near_one[np.argsort(np.argsort(SCORES, kind="stable"))]
  want = fairness.bias_aucs(np.argsort(np.argsort(SCORES)), LABELS, GROUPS)
  got = fairness.bias_aucs(near_one, LABELS, GROUPS)
  chex.assert_trees_all_close(got, want)
  mask = np.arange(8) > 0
  np.testing.assert_allclose(
    fairness.auc(near_one, LABELS, mask=mask),
    sk.roc_auc_score(LABELS[mask], near_one[mask]),
    rtol=1e-6,
  )


def test_constant_scores_are_chance():
  _, labels, groups = records(0)
  got = fairness.bias_aucs(np.full(400, 0.3), labels, groups)
  for name in ("subgroup", "bpsn", "bnsp"):
    np.testing.assert_allclose(getattr(got, name), 0.5, atol=1e-6)
  for name in ("pos_aeg", "neg_aeg"):
    np.testing.assert_allclose(getattr(got, name), 0, atol=1e-6)


def test_negated_scores_and_labels_mirror():
  """AUC is symmetric: positives and negatives change places."""
  scores, labels, groups = records(0)
  one = fairness.bias_aucs(scores, labels, groups)
  other = fairness.bias_aucs(-scores, 1 - labels, groups)
  np.testing.assert_allclose(one.subgroup, other.subgroup, atol=2e-6)
  np.testing.assert_allclose(one.bpsn, other.bnsp, atol=2e-6)
  np.testing.assert_allclose(one.pos_aeg, -other.neg_aeg, atol=2e-6)


def test_masked_records_are_inert():
  scores, labels, groups = records(0)
  mask = np.arange(400) < 300
  garbage = np.where(mask, scores, np.nan)
  got = fairness.bias_aucs(garbage, labels, groups, mask=mask)
  want = fairness.bias_aucs(scores[:300], labels[:300], groups[:300])
  assert int(got.n_dropped) == 100
  for name in ("overall", "subgroup", "bpsn", "bnsp", "pos_aeg", "n"):
    np.testing.assert_allclose(
      getattr(got, name), getattr(want, name), atol=1e-6
    )


def test_rises_with_planted_bias():
  """Shifting the scores of a group's negatives lowers its BPSN."""
  scores, labels, groups = records(0)
  harm = groups[:, 1] & (labels == 0)
  bpsn = [
    float(fairness.bias_aucs(scores + shift * harm, labels, groups).bpsn[1])
    for shift in (0, 0.1, 0.2, 0.4, 0.8)
  ]
  assert bpsn == sorted(bpsn, reverse=True)
  assert bpsn[0] - bpsn[-1] > 0.3


@pytest.mark.slow
def test_jit_equals_eager():
  arrays = records(0)
  eager = fairness.bias_aucs(*arrays)
  compiled = jax.jit(fairness.bias_aucs)(*map(jnp.asarray, arrays))
  chex.assert_trees_all_close(eager, compiled, atol=1e-6)


def test_missing_class():
  groups = np.stack([GROUPS[:, 0], np.arange(8) == 0], axis=1)
  with pytest.raises(ValueError, match="subgroup AUC of group 1 is undefined"):
    fairness.bias_aucs(SCORES, LABELS, groups)
  got = fairness.bias_aucs(SCORES, LABELS, groups, on_empty="nan")
  assert np.isnan(got.subgroup[1])
  assert float(got.n[1]) == 1
  np.testing.assert_allclose(got.subgroup[0], 0.75)
  empty = fairness.bias_aucs(
    SCORES, LABELS, np.zeros((8, 1), bool), on_empty="nan"
  )
  assert float(empty.n[0]) == 0
  assert np.isnan(empty.bnsp[0])


def test_bad_input():
  with pytest.raises(ValueError, match=r"scores\[2\]: got nan"):
    fairness.bias_aucs(
      np.where(np.arange(8) == 2, np.nan, SCORES), LABELS, GROUPS
    )
  for weight in (-1.0, np.nan):
    weights = np.where(np.arange(8) == 3, weight, 1.0)
    message = r"weights\[3\]: got (-1.0, a negative|nan)"
    with pytest.raises(ValueError, match=message):
      fairness.bias_aucs(SCORES, LABELS, GROUPS, weights=weights)
    with pytest.raises(ValueError, match=message):
      fairness.auc(SCORES, LABELS, weights=weights)
    # A record that does not count may have any.
    fairness.auc(SCORES, LABELS, weights=weights, mask=np.arange(8) != 3)
  with pytest.raises(ValueError, match="background: got 'none'"):
    fairness.bias_aucs(SCORES, LABELS, GROUPS, background="none")
  with pytest.raises(ValueError, match=r"labels\[0\]: got 3"):
    fairness.bias_aucs(SCORES, LABELS + 2, GROUPS)


class TestBootstrap:
  @pytest.mark.slow
  def test_replicates_are_aucs_of_resampled_records(self):
    scores, labels, groups = records(0, n=60)

    def plain(data):
      return fairness.bias_aucs(*data, on_empty="nan").bpsn

    fast = fairness.bias_aucs_bootstrap(
      scores, labels, groups, key=KEY, num=1500, strata="label"
    )
    slow = fairness.bootstrap(
      plain, (scores, labels, groups), key=KEY, num=1500, strata=labels
    )
    np.testing.assert_allclose(fast.estimate.bpsn, slow.estimate, atol=1e-6)
    ours, theirs = np.asarray(fast.replicates.bpsn), np.asarray(slow.replicates)
    np.testing.assert_allclose(
      np.nanstd(ours, 0), np.nanstd(theirs, 0), rtol=0.12
    )
    np.testing.assert_allclose(
      np.nanmean(ours, 0), np.nanmean(theirs, 0), atol=0.02
    )

  @pytest.mark.slow
  def test_no_subgroup_loses_a_class(self):
    scores, labels, groups = records(0, n=60)
    got = fairness.bias_aucs_bootstrap(scores, labels, groups, key=KEY, num=200)
    assert all(np.isfinite(a).all() for a in jax.tree.leaves(got.replicates))
    sizes = np.asarray(got.replicates.n)
    np.testing.assert_array_equal(
      sizes, np.broadcast_to(groups.sum(0), sizes.shape)
    )
    assert (got.low.subgroup <= got.estimate.subgroup).all()
    assert (got.high.subgroup >= got.estimate.subgroup).all()

  @pytest.mark.slow
  def test_interval_covers(self):
    """95 % intervals of a true AUC of 0.5: at least 86 of 100 cover."""
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(100):
      labels = np.arange(200) % 2
      groups = (np.arange(200) % 4 < 2)[:, None]
      found = fairness.bias_aucs_bootstrap(
        rng.random(200), labels, groups, key=KEY, num=200
      )
      covered += bool(found.low.bpsn[0] <= 0.5 <= found.high.bpsn[0])
    assert covered >= 86

  @pytest.mark.slow
  def test_is_seeded(self):
    arrays = records(0)
    one, other = (
      fairness.bias_aucs_bootstrap(*arrays, key=KEY, num=20) for _ in range(2)
    )
    chex.assert_trees_all_equal(one, other)


class TestPinned:
  @pytest.mark.slow
  def test_is_the_limit_of_sampling(self):
    """Mean of 300 samplings of the authors' recipe."""
    scores, labels, groups = records(0)
    each, total = fairness.pinned_auc_gaps(scores, labels, groups)
    rng = np.random.default_rng(0)
    for g in range(3):
      inside = np.flatnonzero(groups[:, g])
      sampled = []
      for _ in range(300):
        rows = np.concatenate([inside, rng.choice(400, len(inside), False)])
        sampled.append(sk.roc_auc_score(labels[rows], scores[rows]))
      np.testing.assert_allclose(each[g], np.mean(sampled), atol=0.004)
    overall = sk.roc_auc_score(labels, scores)
    np.testing.assert_allclose(
      total, np.abs(overall - np.asarray(each)).sum(), rtol=1e-4
    )

  @pytest.mark.slow
  def test_the_whole_data_as_a_group_has_no_gap(self):
    scores, labels, _ = records(0)
    _, total = fairness.pinned_auc_gaps(scores, labels, np.ones((400, 2), bool))
    np.testing.assert_allclose(total, 0, atol=1e-6)

  def test_bootstrap(self):
    """A multiplicity of 2 is a record twice; the estimate is the metric."""
    scores, labels, groups = records(0, n=60)
    got = fairness.pinned_auc_bootstrap(scores, labels, groups, key=KEY, num=40)
    each, total = fairness.pinned_auc_gaps(scores, labels, groups)
    np.testing.assert_allclose(got.estimate[0], each, rtol=1e-5)
    np.testing.assert_allclose(got.estimate[1], total, rtol=1e-4)
    assert (got.low[0] < each).all()
    assert (got.high[0] > each).all()
    drawn = np.random.default_rng(0).integers(0, 60, 60)
    weights = np.bincount(drawn, minlength=60)
    rows = np.repeat(np.arange(60), weights)
    repeated = fairness.pinned_auc_gaps(
      scores[rows], labels[rows], groups[rows]
    )
    ranked = _bias_aucs.in_order(scores, labels, groups)
    weighted = _pinned_auc._gaps_in_order(
      ranked, jnp.asarray(weights, jnp.float32)[ranked[0].order]
    )
    chex.assert_trees_all_close(weighted, repeated, rtol=1e-5)
    with pytest.raises(ValueError, match="strata: got 'rows'"):
      fairness.pinned_auc_bootstrap(
        scores, labels, groups, key=KEY, strata="rows"
      )

  def test_every_record_needs_a_row_of_groups(self):
    with pytest.raises((ValueError, TypeError)):
      fairness.pinned_auc_gaps(SCORES, LABELS, np.ones((9, 1), bool))

  def test_empty_group_is_nan(self):
    each, _ = fairness.pinned_auc_gaps(SCORES, LABELS, np.zeros((8, 1), bool))
    assert np.isnan(each[0])


class TestPowerMean:
  VALUES = np.array([0.9, 0.8, 0.6])

  def test_known_answer(self):
    np.testing.assert_allclose(
      fairness.power_mean(self.VALUES), 0.701932, atol=1e-6
    )
    np.testing.assert_allclose(
      fairness.power_mean(self.VALUES, 1.0), 0.766667, atol=1e-6
    )

  @pytest.mark.parametrize("p", [-np.inf, -5.0, -1.0, 0.0, 2.0, np.inf])
  def test_equal_inputs_return_themselves(self, p):
    np.testing.assert_allclose(
      fairness.power_mean(np.full(4, 0.37), p), 0.37, rtol=1e-6
    )

  def test_rises_with_p_between_minimum_and_maximum(self):
    means = [
      float(fairness.power_mean(self.VALUES, p))
      for p in (-np.inf, -50.0, -5.0, 0.0, 1.0, 5.0, np.inf)
    ]
    assert means == sorted(means)
    np.testing.assert_allclose((means[0], means[-1]), (0.6, 0.9), rtol=1e-6)

  def test_interval_comes_from_the_replicates_of_the_aucs(self):
    scores, labels, groups = records(0, n=60)
    boot = fairness.bias_aucs_bootstrap(scores, labels, groups, key=KEY, num=40)
    got = boot.map(lambda aucs: fairness.power_mean(aucs.bnsp))
    each = (np.asarray(boot.replicates.bnsp) ** -5.0).mean(1) ** (-1 / 5)
    np.testing.assert_allclose(got.replicates, each, rtol=1e-4)
    np.testing.assert_allclose(
      (got.low, got.high), np.quantile(each, (0.025, 0.975)), rtol=1e-4
    )
    np.testing.assert_allclose(
      got.estimate, fairness.power_mean(boot.estimate.bnsp), rtol=1e-6
    )

  def test_groups_that_do_not_count(self):
    got = fairness.power_mean(
      np.array([0.9, np.nan, 0.8, 0.6]), where=np.array([1, 0, 1, 1], bool)
    )
    np.testing.assert_allclose(got, 0.701932, atol=1e-6)
    assert np.isnan(fairness.power_mean(np.array([0.9, np.nan])))
    assert np.isnan(fairness.power_mean(np.ones(2), where=np.zeros(2, bool)))
    assert fairness.power_mean(np.array([0.0, 0.5])) == 0
    with pytest.raises(ValueError, match="negative value"):
      fairness.power_mean(np.array([-0.1, 0.5]))
