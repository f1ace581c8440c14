"""ROC curves and metrics: known answers, scikit-learn, resamples by hand."""

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
from scipy import stats as scipy_stats
from sklearn import metrics as sk

from tests.attacks import shadow_data
from trustjax import attacks
from trustjax.attacks import _metrics

MEMBERS = [0.9, 0.8, 0.7, 0.4]
OTHERS = [0.6, 0.5, 0.3, 0.2]
SCORES = np.array(MEMBERS + OTHERS)
TRUTH = np.array([1] * 4 + [0] * 4, bool)


def tied_scores(seed, n=300, levels=12):
  rng = np.random.default_rng(seed)
  member = rng.random(n) < rng.uniform(0.2, 0.8)
  member[:2] = True, False
  return (rng.integers(0, levels, n) + 2 * member) / 4, member


def slow_tpr(scores, member, fpr):
  """Every threshold, one after the other."""
  found = [
    np.mean(scores[member] >= t)
    for t in [np.inf, *scores]
    if np.mean(scores[~member] >= t) <= fpr + 1e-12
  ]
  return max(found)


def test_known_answers():
  curve = attacks.roc_curve(SCORES, TRUTH)
  assert curve.auc == attacks.auc(SCORES, TRUTH) == 0.875
  assert curve.balanced_accuracy == 0.875
  assert curve.advantage == 0.75
  assert attacks.tpr_at_fpr(SCORES, TRUTH, 0.0).value == 0.75
  assert attacks.tpr_at_fpr(SCORES, TRUTH, 0.25).value == 0.75
  assert attacks.tpr_at_fpr(SCORES, TRUTH, 0.5).value == 1.0


@pytest.mark.parametrize("seed", range(5))
def test_equals_scikit_learn(seed):
  scores, member = tied_scores(seed)
  curve = attacks.roc_curve(scores, member)
  fpr, tpr, thresholds = sk.roc_curve(member, scores, drop_intermediate=False)
  np.testing.assert_allclose(curve.fpr, fpr)
  np.testing.assert_allclose(curve.tpr, tpr)
  np.testing.assert_allclose(curve.thresholds, thresholds)
  np.testing.assert_allclose(curve.auc, sk.roc_auc_score(member, scores))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("fpr", [0.0, 0.02, 0.1, 0.5, 1.0])
def test_tpr_equals_a_search_over_thresholds(seed, fpr):
  scores, member = tied_scores(seed)
  got = attacks.tpr_at_fpr(scores, member, fpr)
  np.testing.assert_allclose(got.value, slow_tpr(scores, member, fpr))
  assert got.low <= got.value <= got.high
  assert got.n == member.sum()


def test_a_rate_that_is_an_exact_count_is_reached():
  # 3 * 0.1 and 0.3 * 10 round differently; 3 of 10 must count as 0.3.
  member = np.array([False] * 10 + [True])
  scores = np.append(np.arange(10.0), 6.5)
  assert attacks.tpr_at_fpr(scores, member, 0.3).value == 1.0
  assert attacks.tpr_at_fpr(scores, member, 0.29).value == 0.0


def test_infinite_scores_tie():
  scores = np.array([np.inf, np.inf, 0.0, -np.inf, -np.inf])
  member = np.array([1, 0, 1, 1, 0], bool)
  curve = attacks.roc_curve(scores, member)
  assert curve.false_positives.tolist() == [0, 1, 1, 2]
  assert curve.true_positives.tolist() == [0, 1, 2, 3]
  # Of six pairs two are ties, two are won and two are lost.
  np.testing.assert_allclose(curve.auc, 0.5)
  assert attacks.tpr_at_fpr(scores, member, 0.0).value == 0.0


def test_unresolvable_rates_have_a_reason():
  got = attacks.tpr_at_fpr(SCORES, TRUTH, 0.1)
  assert got.value is None
  assert "below 1 / 4 non-members" in got.reason
  assert got.flat("tpr") == {
    "tpr": None,
    "tpr_n": 4,
    "tpr_reason": got.reason,
  }
  metrics = attacks.attack_metrics(SCORES, TRUTH, fprs=(0.1, 0.25))
  assert metrics.tpr_at_fpr[0.1].value is None
  assert metrics.tpr_at_fpr[0.25].value == 0.75


@pytest.mark.parametrize(
  ("hits", "n", "low", "high"),
  [
    (5, 10, 0.1871, 0.8129),
    (25, 50, 0.3553, 0.6447),
    (0, 50, 0.0, 0.0711),
    (2, 2239, 0.0001, 0.0032),
    (7, 6542, 0.0004, 0.0022),
    (22, 2239, 0.0062, 0.0148),
    (65, 6542, 0.0077, 0.0126),
    (10, 1000, 0.0048, 0.0183),
  ],
)
def test_clopper_pearson_known_answers(hits, n, low, high):
  got = attacks.clopper_pearson(hits, n)
  np.testing.assert_allclose(got, (low, high), atol=1e-4)
  exact = scipy_stats.binomtest(hits, n).proportion_ci(0.95, "exact")
  np.testing.assert_allclose(got, (exact.low, exact.high), rtol=1e-9)


def test_clopper_pearson_covers():
  # Exactly, by summing over all outcomes.
  for p in (0.01, 0.3, 0.77):
    hits = np.arange(41)
    low, high = attacks.clopper_pearson(hits, np.full(41, 40))
    inside = (low <= p) & (p <= high)
    assert scipy_stats.binom.pmf(hits, 40, p)[inside].sum() >= 0.95


@hypothesis.settings(deadline=None, max_examples=40)
@hypothesis.given(seed=st.integers(0, 10**6))
def test_properties_of_curves(seed):
  scores, member = tied_scores(seed, n=60)
  curve = attacks.roc_curve(scores, member)
  assert (np.diff(curve.fpr) >= 0).all() and (np.diff(curve.tpr) >= 0).all()
  assert curve.fpr[-1] == curve.tpr[-1] == 1
  # A strictly increasing map changes nothing; turning scores round mirrors.
  mapped = attacks.roc_curve(np.exp(3 * scores), member)
  np.testing.assert_array_equal(mapped.fpr, curve.fpr)
  np.testing.assert_allclose(attacks.auc(-scores, member), 1 - curve.auc)
  np.testing.assert_allclose(attacks.auc(scores, ~member), 1 - curve.auc)


def several_models(seed=0, models=6, records=80):
  stats, member = shadow_data.gaussian_shadows(seed, models, records)
  return np.round(stats, 1), member


@pytest.mark.parametrize("fpr", [0.0, 0.013, 0.1, 0.4])
@pytest.mark.parametrize("resample", ["both", "models", "records"])
def test_resampled_statistics_equal_repeating_records(resample, fpr):
  scores, member = several_models()
  guesses = scores > 0.5
  weights = list(
    _metrics._multiplicities(
      scores.shape, resample, 20, np.random.default_rng(1)
    )
  )
  draws = _metrics._bootstrap(scores, member, guesses, [fpr], weights)
  for index, (models, records) in enumerate(weights):
    assert models.sum() == 6 and records.sum() == 80
    times = np.outer(models, records).astype(int).ravel()
    pooled = np.repeat(scores.ravel(), times)
    truth = np.repeat(member.ravel(), times)
    np.testing.assert_allclose(
      draws[f"tpr{fpr}"][index], slow_tpr(pooled, truth, fpr), atol=1e-12
    )
    np.testing.assert_allclose(
      draws["auc"][index], sk.roc_auc_score(truth, pooled)
    )
    times = records.astype(int)
    each = [
      sk.balanced_accuracy_score(np.repeat(m, times), np.repeat(g, times))
      for m, g in zip(member, guesses)
    ]
    np.testing.assert_allclose(
      draws["balanced_accuracy"][index], models @ each / 6
    )


def test_a_model_without_a_kind_in_a_resample_is_left_out_of_it():
  member = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1]], bool)
  scores = np.arange(9.0).reshape(3, 3)
  guesses = np.array([[1, 1, 0], [1, 1, 0], [1, 0, 1]], bool)
  # The second record is not drawn, and with it the second model's member.
  weights = [(np.ones(3), np.array([2.0, 0.0, 1.0]))]
  draws = _metrics._bootstrap(scores, member, guesses, [], weights)
  # The first model is right in all, the third in its member only.
  np.testing.assert_allclose(draws["balanced_accuracy"], [(1 + 0.5) / 2])


def test_intervals_where_a_bootstrap_has_no_spread():
  rng = np.random.default_rng(0)
  member = rng.random((4, 30)) < 0.5
  perfect = attacks.attack_metrics(1.0 * member, member, fprs=(0.1,))
  worst = attacks.attack_metrics(-1.0 * member, member, fprs=(0.1,))
  hits, pairs = int(member.sum()), int(min(member.sum(), (~member).sum()))
  for metrics, share in ((perfect, 1), (worst, 0)):
    for estimate, n in (
      (metrics.auc, pairs),
      (metrics.tpr_at_fpr[0.1], hits),
    ):
      exact = attacks.clopper_pearson(share * n, n)
      np.testing.assert_allclose((estimate.low, estimate.high), exact)
  low = attacks.clopper_pearson(pairs, pairs)[0]
  np.testing.assert_allclose(perfect.balanced_accuracy.low, low)
  np.testing.assert_allclose(perfect.advantage.low, 2 * low - 1)
  # Two records of each kind say next to nothing.
  tiny = attacks.attack_metrics(np.arange(4.0), np.arange(4) > 1, fprs=())
  assert tiny.auc.value == 1 and tiny.auc.low < 0.2


def test_resamples_that_lack_a_kind_leave_a_reason():
  found = _metrics._interval(0.7, [np.nan] * 3, 5, n=2, confidence=0.95)
  assert found.value == 0.7 and found.low is None
  assert "both kinds" in found.reason


def test_thresholds_come_from_other_models():
  scores, member = several_models(2)
  guesses = _metrics._held_out_guesses(scores, member, None)
  for model in range(6):
    rest = [m for m in range(6) if m != model]
    curve = attacks.roc_curve(scores[rest], member[rest])
    best = curve.thresholds[np.argmax(curve.tpr - curve.fpr)]
    np.testing.assert_array_equal(guesses[model], scores[model] >= best)
  metrics = attacks.attack_metrics(scores, member)
  np.testing.assert_allclose(
    metrics.balanced_accuracy.value,
    np.mean(
      [sk.balanced_accuracy_score(m, g) for m, g in zip(member, guesses)]
    ),
  )


def test_one_model_chooses_thresholds_on_the_other_half():
  # On pure noise the best threshold looks good on the records that chose it.
  rng = np.random.default_rng(0)
  found = []
  for seed in range(60):
    scores, member = rng.normal(size=60), rng.random(60) < 0.5
    metrics = attacks.attack_metrics(
      scores, member, fprs=(), num_resamples=1, seed=seed
    )
    curve = attacks.roc_curve(scores, member)
    found.append((metrics.balanced_accuracy.value, curve.balanced_accuracy))
  held_out, same = np.mean(found, axis=0)
  # The standard error of the mean is about 0.065 / sqrt(60) = 0.008.
  assert abs(held_out - 0.5) < 0.03
  assert same > 0.56


def test_metrics_of_one_model():
  scores, member = tied_scores(0)
  metrics = attacks.attack_metrics(scores, member, fprs=(0.1,))
  curve = attacks.roc_curve(scores, member)
  assert metrics.auc.value == curve.auc
  np.testing.assert_allclose(
    metrics.advantage.value, 2 * metrics.balanced_accuracy.value - 1
  )
  assert 0 < metrics.advantage.value <= curve.advantage
  assert metrics.tpr_at_fpr[0.1] == attacks.tpr_at_fpr(scores, member, 0.1)
  assert metrics.num_models == 1
  # Hanley and McNeil's standard error is a rough check of the bootstrap's.
  width = metrics.auc.high - metrics.auc.low
  a, m, n = curve.auc, member.sum(), (~member).sum()
  q1, q2 = a / (2 - a), 2 * a * a / (1 + a)
  variance = (a * (1 - a) + (m - 1) * (q1 - a * a) + (n - 1) * (q2 - a * a)) / (
    m * n
  )
  np.testing.assert_allclose(width, 2 * 1.96 * variance**0.5, rtol=0.25)


def test_metrics_of_several_models():
  scores, member = several_models(3, models=12, records=200)
  metrics = attacks.attack_metrics(scores, member, fprs=(0.01, 0.1))
  assert metrics.num_models == 12
  assert metrics.interval == "bootstrap over models and records"
  for estimate in (
    metrics.auc,
    metrics.balanced_accuracy,
    *metrics.tpr_at_fpr.values(),
  ):
    assert estimate.low < estimate.value < estimate.high
  flat = metrics.flat("arm/lira/")
  assert flat["arm/lira/auc"] == metrics.auc.value
  assert flat["arm/lira/tpr_at_fpr_0.01_low"] == metrics.tpr_at_fpr[0.01].low
  assert metrics == attacks.attack_metrics(scores, member, fprs=(0.01, 0.1))
  assert metrics != attacks.attack_metrics(
    scores, member, fprs=(0.01, 0.1), seed=1
  )


@pytest.mark.slow
def test_intervals_cover_when_models_have_leaks_of_their_own():
  # Records of a model stand and fall together. 200 repetitions: 5 % misses are
  # 10 +- 3.1; percentiles of 20 models fall short a little, so up to 30 pass.
  misses = 0
  truth = np.mean(scipy_stats.norm.cdf((1 + 0.5 * np.array([-1, 1])) / 2**0.5))
  for seed in range(200):
    rng = np.random.default_rng(seed)
    member = rng.random((20, 300)) < 0.5
    leak = 1 + 0.5 * rng.choice([-1, 1], (20, 1))
    scores = rng.normal(size=member.shape) + leak * member
    auc = attacks.attack_metrics(scores, member, fprs=(), num_resamples=400).auc
    misses += not auc.low <= truth <= auc.high
  assert misses <= 30


@pytest.mark.slow
def test_intervals_cover_when_models_attack_each_other():
  # Online LiRA on pure noise with independent coins: AUC 1/2.
  held = {"both": 0, "models": 0}
  for seed in range(100):
    rng = np.random.default_rng(seed)
    stats, member = rng.normal(size=(16, 400)), rng.random((16, 400)) < 0.5
    usable = (member.sum(0) > 1) & (member.sum(0) < 15)
    stats, member = stats[:, usable], member[:, usable]
    scores = attacks.lira_scores(stats, member, target=None, online=True)
    for resample in held:
      auc = attacks.attack_metrics(
        scores, member, fprs=(), num_resamples=300, resample=resample
      ).auc
      held[resample] += auc.low <= 0.5 <= auc.high
  # Models alone held it in 77 of 100, both in all.
  assert held["both"] >= 95
  assert held["models"] <= 85


def test_groups_have_their_own_thresholds():
  rng = np.random.default_rng(0)
  member = shadow_data.random_halves(rng, 10, 400)
  rare = np.arange(400) < 100
  # Rare records score higher, members or not, and leak more.
  scores = rng.normal(size=member.shape) + 3 * rare + 2 * (rare & member)
  groups = {"rare": rare, "frequent": ~rare, "all": np.ones(400, bool)}
  found = attacks.group_metrics(scores, member, groups, fprs=(0.1, 1e-4))
  assert found["rare"].auc.low > 0.85
  assert found["frequent"].auc.low < 0.5 < found["frequent"].auc.high
  assert found["rare"].num_members == member[:, rare].sum()
  assert found["rare"].tpr_at_fpr[1e-4].value is None
  assert found["all"] == attacks.attack_metrics(
    scores, member, fprs=(0.1, 1e-4)
  )


def test_bad_input():
  with pytest.raises(ValueError, match=r"scores\[1\].*got nan"):
    attacks.roc_curve(np.array([0.0, np.nan]), np.array([True, False]))
  with pytest.raises(ValueError, match=r"got 2 members among 2"):
    attacks.auc(np.zeros(2), np.ones(2, bool))
  with pytest.raises(ValueError, match=r"fpr: got 1.5"):
    attacks.tpr_at_fpr(SCORES, TRUTH, 1.5)
  with pytest.raises(ValueError, match=r"member\[1\]: got 8 members of 8"):
    attacks.attack_metrics(
      np.stack([SCORES] * 2), np.stack([TRUTH, np.ones(8, bool)])
    )
  with pytest.raises(ValueError, match=r"scores\[3\]: got nan"):
    attacks.attack_metrics(np.where(np.arange(8) == 3, np.nan, SCORES), TRUTH)
  with pytest.raises(ValueError, match=r"groups\['none'\]: got no records"):
    attacks.group_metrics(SCORES, TRUTH, {"none": np.zeros(8, bool)})
  with pytest.raises(ValueError, match=r"confidence: got 1"):
    attacks.attack_metrics(SCORES, TRUTH, confidence=1)
  with pytest.raises(ValueError, match=r"confidence: got 2"):
    attacks.tpr_at_fpr(SCORES, TRUTH, 0.0, confidence=2)
  with pytest.raises(ValueError, match=r"5 of 4"):
    attacks.clopper_pearson(5, 4)
  with pytest.raises(ValueError, match=r"needs a reason"):
    attacks.Estimate(value=None, n=3)
