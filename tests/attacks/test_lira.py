"""LiRA: known answers, one record at a time, closed-form ROC, properties."""

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
from scipy import stats as scipy_stats

from tests.attacks import shadow_data
from trustjax import attacks

norm = scipy_stats.norm


def slow_lira(stats, member, target, *, online, variance, center):
  """One record at a time, by the formulas of the paper."""
  others = [m for m in range(len(stats)) if m != target]
  mean = np.mean if center == "mean" else np.median
  sides = {}
  for side in (True, False):
    values = [
      np.array([stats[m, r] for m in others if member[m, r] == side])
      for r in range(stats.shape[1])
    ]
    if variance == "per_record":
      spread = [v.std(ddof=1) for v in values]
    elif variance == "global":
      spread = [np.concatenate(values).std()] * len(values)
    else:
      squares = sum(((v - v.mean()) ** 2).sum() for v in values)
      spread = [(squares / sum(len(v) - 1 for v in values)) ** 0.5] * len(
        values
      )
    sides[side] = [(mean(v), s) for v, s in zip(values, spread)]
  scores = []
  for r in range(stats.shape[1]):
    phi = stats[target, r]
    out = norm(*sides[False][r])
    if online:
      scores.append(norm(*sides[True][r]).logpdf(phi) - out.logpdf(phi))
    else:
      scores.append(-np.log(out.sf(phi)))
  return np.array(scores)


def authors_online(scores, keep, check_score, *, fix_variance):
  """The published script's formula, for one target without augmentation."""
  dat_in = np.array([scores[keep[:, j], j] for j in range(scores.shape[1])])
  dat_out = np.array([scores[~keep[:, j], j] for j in range(scores.shape[1])])
  axis = None if fix_variance else 1
  std_in, std_out = np.std(dat_in, axis), np.std(dat_out, axis)
  return norm.logpdf(check_score, np.median(dat_in, 1), std_in) - norm.logpdf(
    check_score, np.median(dat_out, 1), std_out
  )


def two_point(mean, std):
  """Two values with this mean and this standard deviation (n - 1)."""
  return [mean - std / 2**0.5, mean + std / 2**0.5]


@pytest.mark.parametrize(
  ("phi", "within", "out", "expected"),
  [(2, (2, 1), (0, 1), 2.0), (1, (3, 2), (0, 1), -0.69315)],
)
def test_online_known_answer(phi, within, out, expected):
  stats = np.array([[phi, *two_point(*within), *two_point(*out)]]).T
  member = np.array([[0, 1, 1, 0, 0]]).T
  for variance in ("per_record", "fixed"):
    got = attacks.lira_scores(
      stats, member.astype(bool), target=0, online=True, variance=variance
    )
    np.testing.assert_allclose(got, expected, atol=1e-5)


def test_offline_known_answer():
  stats = np.array([[2, *two_point(0, 1)]]).T
  got = attacks.lira_scores(
    stats, np.zeros((3, 1), bool), target=0, online=False
  )
  np.testing.assert_allclose(1 - np.exp(-got), 0.97725, atol=1e-5)


@pytest.mark.parametrize("center", ["mean", "median"])
@pytest.mark.parametrize("variance", ["per_record", "fixed", "global"])
@pytest.mark.parametrize("online", [True, False])
def test_equals_one_record_at_a_time(online, variance, center):
  stats, member = shadow_data.gaussian_shadows(models=9, records=30)
  options = {"online": online, "variance": variance, "center": center}
  every = attacks.lira_scores(stats, member, target=None, **options)
  assert every.shape == stats.shape
  for target in (0, 8):
    got = attacks.lira_scores(stats, member, target=target, **options)
    want = slow_lira(stats, member, target, **options)
    np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-12)
    np.testing.assert_array_equal(every[target], got)


def test_agrees_with_the_published_script_where_that_is_right():
  # Equal numbers of shadows in and out, as the script silently enforces.
  stats, member = shadow_data.gaussian_shadows(models=12, records=50)
  target_stat, target_member = stats[:1] + 0.3, member[:1]
  got = attacks.lira_scores(
    np.concatenate([target_stat, stats]),
    np.concatenate([target_member, member]),
    target=0,
    online=True,
    variance="global",
    center="median",
  )
  want = authors_online(stats, member, target_stat[0], fix_variance=True)
  np.testing.assert_allclose(got, want, rtol=1e-9)
  got = attacks.lira_scores(
    np.concatenate([target_stat, stats]),
    np.concatenate([target_member, member]),
    target=0,
    online=True,
    variance="per_record",
    center="median",
  )
  want = authors_online(stats, member, target_stat[0], fix_variance=False)
  # Their deviations divide by n instead of n - 1: the order can hardly change.
  assert scipy_stats.spearmanr(got, want).statistic > 0.99


def test_closed_form_roc():
  # With many shadows the score is monotone in N(0, 1) against N(gain, 1).
  gain = 1.5
  stats, member = shadow_data.gaussian_shadows(
    seed=3, models=200, records=400, gain=gain
  )
  scores = attacks.lira_scores(
    stats, member, target=None, online=True, variance="fixed"
  )
  curve = attacks.roc_curve(scores, member)
  # 40,000 members: four standard errors of the AUC are below 0.007; centres
  # from 100 shadows cost another 0.003.
  assert abs(curve.auc - norm.cdf(gain / 2**0.5)) < 0.01
  for fpr in (0.01, 0.1, 0.5):
    tpr = curve.tpr[curve.at_fpr(fpr)]
    assert abs(tpr - norm.cdf(norm.ppf(fpr) + gain)) < 0.02


def test_unequal_variances_beat_the_mean_shift():
  # No shift at all, only a spread: a threshold on phi sees nothing.
  stats, member = shadow_data.gaussian_shadows(
    seed=4, models=64, records=500, gain=0.0, std_in=0.3
  )
  by_ratio = attacks.lira_scores(
    stats, member, target=None, online=True, variance="per_record"
  )
  by_threshold = attacks.lira_scores(
    stats, member, target=None, online=False, variance="per_record"
  )
  assert attacks.auc(by_ratio, member) > 0.75
  assert abs(attacks.auc(by_threshold, member) - 0.5) < 0.03


def test_auto_is_fixed_below_64_models():
  for models, variance in ((63, "fixed"), (64, "per_record")):
    stats, member = shadow_data.gaussian_shadows(models=models, records=5)
    np.testing.assert_array_equal(
      attacks.lira_scores(stats, member, target=0, online=True),
      attacks.lira_scores(
        stats, member, target=0, online=True, variance=variance
      ),
    )


def test_the_far_tail_is_not_tied():
  stats = np.array([[9.0, 12.0], *[[v, v] for v in two_point(0, 1)]])
  low, high = attacks.lira_scores(
    stats, np.zeros((3, 2), bool), target=0, online=False
  )
  assert norm.cdf(9.0) == norm.cdf(12.0)
  assert low < high


@hypothesis.settings(deadline=None, max_examples=40)
@hypothesis.given(
  seed=st.integers(0, 10**6),
  shift=st.floats(-5, 5),
  scale=st.floats(0.1, 10),
  online=st.booleans(),
  variance=st.sampled_from(["per_record", "fixed", "global"]),
)
def test_properties(seed, shift, scale, online, variance):
  stats, member = shadow_data.gaussian_shadows(seed, models=8, records=12)
  options = {"target": 2, "online": online, "variance": variance}
  scores = attacks.lira_scores(stats, member, **options)
  moved = attacks.lira_scores(scale * stats + shift, member, **options)
  np.testing.assert_allclose(moved, scores, rtol=1e-6, atol=1e-7)
  rng = np.random.default_rng(seed)
  order = rng.permutation(12)
  np.testing.assert_allclose(
    attacks.lira_scores(stats[:, order], member[:, order], **options),
    scores[order],
    rtol=1e-9,
  )
  # The target's own membership is not looked at.
  lie = member.copy()
  lie[2] = ~lie[2]
  np.testing.assert_array_equal(
    attacks.lira_scores(stats, lie, **options), scores
  )
  if online:
    # Swapping in and out turns the ratio around.
    np.testing.assert_allclose(
      attacks.lira_scores(stats, ~member, **options), -scores, atol=1e-9
    )


@pytest.mark.parametrize("online", [True, False])
def test_chance_when_memberships_are_independent_coins(online):
  rng = np.random.default_rng(5)
  stats = rng.normal(size=(24, 400))
  member = rng.random(stats.shape) < 0.5
  scores = attacks.lira_scores(stats, member, target=None, online=online)
  metrics = attacks.attack_metrics(
    scores, member, fprs=(0.01, 0.1), num_resamples=300
  )
  for estimate, chance in (
    (metrics.auc, 0.5),
    (metrics.balanced_accuracy, 0.5),
    (metrics.tpr_at_fpr[0.01], 0.01),
    (metrics.tpr_at_fpr[0.1], 0.1),
  ):
    assert estimate.low < chance < estimate.high


def test_exact_halves_push_an_attack_on_nothing_below_chance():
  # A member of the target has one shadow less on its own side, so that its
  # "in" law fits worse: nothing leaks and yet the AUC is not 1/2.
  found = {"halves": [], "coins": []}
  for seed in range(25):
    rng = np.random.default_rng(seed)
    stats = rng.normal(size=(8, 400))
    coins = rng.random(stats.shape) < 0.5
    usable = (coins.sum(0) > 1) & (coins.sum(0) < 7)
    halves = shadow_data.random_halves(rng, *stats.shape)
    for name, values, member in (
      ("halves", stats, halves),
      ("coins", stats[:, usable], coins[:, usable]),
    ):
      scores = attacks.lira_scores(values, member, target=None, online=True)
      found[name].append(attacks.auc(scores, member))
  means = {name: np.mean(areas) for name, areas in found.items()}
  error = np.std(found["halves"]) / 5
  assert means["halves"] < 0.5 - 5 * error
  assert means["halves"] < means["coins"] - 5 * error


def slow_vector(stats, member, target, *, covariance, ridge):
  others = [m for m in range(len(stats)) if m != target]
  log_density = {}
  for side in (True, False):
    values = [
      np.array([stats[m, r] for m in others if member[m, r] == side])
      for r in range(stats.shape[1])
    ]
    each = [np.cov(v.T) for v in values]
    if covariance == "fixed":
      freedom = [len(v) - 1 for v in values]
      pooled = sum(c * f for c, f in zip(each, freedom)) / sum(freedom)
      each = [pooled] * len(each)
    log_density[side] = [
      scipy_stats.multivariate_normal(
        v.mean(0), c + ridge * np.eye(c.shape[0])
      ).logpdf(stats[target, r])
      for r, (v, c) in enumerate(zip(values, each))
    ]
  return np.subtract(log_density[True], log_density[False])


@pytest.mark.parametrize("covariance", ["per_record", "fixed"])
def test_vector_equals_scipy(covariance):
  rng = np.random.default_rng(0)
  member = shadow_data.random_halves(rng, 10, 20)
  stats = rng.normal(size=(10, 20, 2)) + member[..., None] * [0.5, 2.0]
  got = attacks.lira_vector_scores(
    stats, member, target=None, covariance=covariance
  )
  for target in (0, 7):
    want = slow_vector(stats, member, target, covariance=covariance, ridge=1e-2)
    np.testing.assert_allclose(got[target], want, rtol=1e-8, atol=1e-10)


def test_vector_of_one_feature_is_the_scalar():
  stats, member = shadow_data.gaussian_shadows(models=10)
  np.testing.assert_allclose(
    attacks.lira_vector_scores(
      stats[..., None], member, target=1, covariance="per_record", ridge=0.0
    ),
    attacks.lira_scores(
      stats, member, target=1, online=True, variance="per_record"
    ),
    rtol=1e-9,
  )


def test_vector_weighs_the_heads():
  # The second statistic alone leaks: the vector finds it, the sum drowns it.
  rng = np.random.default_rng(1)
  member = shadow_data.random_halves(rng, 32, 400)
  noisy = 5 * rng.normal(size=member.shape)
  leaky = rng.normal(size=member.shape) + 1.5 * member
  both = attacks.lira_vector_scores(
    np.stack([noisy, leaky], axis=-1), member, target=None
  )
  total = attacks.lira_scores(noisy + leaky, member, target=None, online=True)
  assert attacks.auc(both, member) > attacks.auc(total, member) + 0.1


def test_bad_input():
  stats, member = shadow_data.gaussian_shadows(models=6, records=4)
  options = {"target": 0, "online": True}
  nan = stats.copy()
  nan[2, 3] = np.nan
  with pytest.raises(ValueError, match=r"stats\[2, 3\]: got nan"):
    attacks.lira_scores(nan, member, **options)
  always = member.copy()
  always[:, 1] = True
  with pytest.raises(ValueError, match=r"member\[:, 1\].* out for 0 models"):
    attacks.lira_scores(stats, always, **options)
  never = member.copy()
  never[:, 1] = False
  with pytest.raises(ValueError, match=r"member\[:, 1\].* in for 0 models"):
    attacks.lira_scores(stats, never, **options)
  # Offline, a record that no shadow was trained on is fine.
  attacks.lira_scores(stats, never, target=0, online=False)
  with pytest.raises(ValueError, match=r"needs at least 2"):
    attacks.lira_scores(
      stats[:3],
      np.array([[1], [1], [0]]).repeat(4, 1).astype(bool),
      target=0,
      online=True,
      variance="per_record",
    )
  with pytest.raises(ValueError, match=r"no variance can be learned"):
    attacks.lira_scores(
      stats[:2], np.zeros((2, 4), bool), target=0, online=False
    )
  with pytest.raises(ValueError, match=r"target: got 6"):
    attacks.lira_scores(stats, member, target=6, online=True)
  with pytest.raises(ValueError, match=r"variance: got 'pooled'"):
    attacks.lira_scores(stats, member, variance="pooled", **options)
  with pytest.raises(ValueError, match=r"center: got 'mode'"):
    attacks.lira_scores(stats, member, center="mode", **options)
  with pytest.raises(ValueError, match=r"min_std: got 0"):
    attacks.lira_scores(stats, member, min_std=0, **options)
  with pytest.raises(ValueError, match=r"ridge: got 0.0; .* is singular"):
    attacks.lira_vector_scores(
      np.ones((6, 4, 2)), member, target=0, covariance="fixed", ridge=0.0
    )
  with pytest.raises(ValueError, match=r"ridge: got -1"):
    attacks.lira_vector_scores(stats[..., None], member, target=0, ridge=-1)


def test_the_bias_of_few_shadows_is_the_one_that_is_documented():
  """Attacks on nothing; records without three models on a side left out."""
  for models, low, high in ((8, 0.46, 0.495), (16, 0.49, 0.51)):
    rng = np.random.default_rng(models)
    member = rng.random((models, 4000)) < 0.5
    inside = member.sum(axis=0)
    usable = (inside >= 3) & (models - inside >= 3)
    stats = rng.normal(size=member.shape)[:, usable]
    scores = attacks.lira_scores(
      stats, member[:, usable], target=None, online=True
    )
    # Standard error about 0.002 for 8 models, as records share shadows.
    assert low < attacks.auc(scores, member[:, usable]) < high
