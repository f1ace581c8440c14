"""Intervals and nulls from counts: coverage, the noise floor, small groups."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from trustjax import fairness
from trustjax.fairness import _gap_noise

KEY = jax.random.key(0)


def rates_of(rng, sizes, selection, tpr=None):
  """Records of groups with the given sizes and selection rates."""
  group = np.repeat(np.arange(len(sizes)), sizes)
  y_true = rng.random(len(group)) < 0.5
  y_pred = rng.random(len(group)) < np.asarray(selection)[group]
  return y_true.astype(int), y_pred.astype(int), group


def run(arrays, **options):
  num_groups = int(arrays[2].max()) + 1
  rates = fairness.group_rates(*arrays, num_groups=num_groups)
  return fairness.group_gaps_test(
    rates, key=KEY, **{"num": 2000, "small": 1, **options}
  )


@pytest.mark.slow
@pytest.mark.parametrize("strata", ["group", "group_and_label"])
def test_counts_resample_like_rows(strata):
  """The same mean and spread as resampling rows within strata.

  4,000 resamples on both sides: standard deviations agree within 8 %, which
  is 5 standard errors.
  """
  arrays = rates_of(np.random.default_rng(0), [60, 40], [0.3, 0.6])
  y_true, _, group = arrays
  by_counts = run(arrays, num=4000, strata=strata).replicates
  rows = fairness.bootstrap(
    row_statistic,
    tuple(jnp.asarray(a) for a in arrays),
    key=KEY,
    num=4000,
    strata=jnp.asarray(group if strata == "group" else 2 * group + y_true),
  ).replicates
  for name in (
    "demographic_parity_difference",
    "equalized_odds_difference",
    "equal_opportunity_ratio",
    "accuracy_difference",
  ):
    one, other = (np.asarray(getattr(r, name)) for r in (by_counts, rows))
    np.testing.assert_allclose(one.std(), other.std(), rtol=0.08)
    assert abs(one.mean() - other.mean()) < 0.09 * one.std()


def row_statistic(arrays):
  rates = fairness.group_rates(*arrays, num_groups=2, on_empty="nan")
  return fairness.group_gaps(rates, on_empty="nan")


@pytest.mark.slow
def test_bca_from_counts_equals_bca_from_rows():
  """The jackknife over cells is the jackknife over records."""
  arrays = rates_of(np.random.default_rng(0), [60, 40], [0.3, 0.6])
  by_counts = run(arrays, num=6000, interval="bca")
  rows = fairness.bootstrap(
    row_statistic,
    tuple(jnp.asarray(a) for a in arrays),
    key=KEY,
    num=6000,
    strata=jnp.asarray(arrays[2]),
    method="bca",
  )
  for end in ("low", "high"):
    one = getattr(by_counts, end).demographic_parity_difference
    other = getattr(rows, end).demographic_parity_difference
    np.testing.assert_allclose(one, other, atol=0.015)


@pytest.mark.slow
def test_interval_covers():
  """A 95 % interval of a clear gap covers it in 182 to 198 of 200 data sets.

  That is 4 standard errors around the nominal 190, and percentile intervals of
  rates are a little short.
  """
  rng = np.random.default_rng(0)
  covered = 0
  for _ in range(200):
    found = run(rates_of(rng, [300, 300], [0.2, 0.5]), num=400)
    low, high = (
      getattr(found, end).demographic_parity_difference
      for end in ("low", "high")
    )
    covered += bool(low <= 0.3 <= high)
  assert 177 <= covered <= 199


@pytest.mark.slow
@pytest.mark.parametrize(
  ("sizes", "floor"),
  [([100] * 2, 0.034), ([30] * 7, 0.144), ([100] * 18, 0.108)],
)
def test_noise_floor_of_equal_rates(sizes, floor):
  """Groups with exactly a tenth selected: the mean shuffled max - min gap."""
  group = np.repeat(np.arange(len(sizes)), sizes)
  within = np.concatenate([np.arange(size) for size in sizes])
  y_pred = (within < np.repeat(sizes, sizes) // 10).astype(int)
  y_true = within % 2
  found = run((y_true, y_pred, group), num=4000)
  assert found.estimate.demographic_parity_difference == 0
  np.testing.assert_allclose(
    found.null_mean.demographic_parity_difference, floor, atol=0.003
  )
  assert found.p_value.demographic_parity_difference == 1


@pytest.mark.slow
def test_null_equals_shuffled_labels():
  """The hypergeometric draw against shuffles of the group labels."""
  arrays = rates_of(np.random.default_rng(0), [40, 30, 20], [0.3, 0.5, 0.6])
  y_true, y_pred, group = map(jnp.asarray, arrays)

  def gaps(data, labels):
    rates = fairness.group_rates(*data, labels, num_groups=3, on_empty="nan")
    return fairness.group_gaps(rates, on_empty="nan")

  found = run(arrays, num=4000)
  plain = fairness.permutation_null(
    gaps, (y_true, y_pred), group, key=KEY, num=4000
  )
  within = fairness.permutation_null(
    gaps, (y_true, y_pred), group, key=KEY, num=4000, strata=y_true
  )
  for name, shuffled in (
    ("demographic_parity_difference", plain),
    ("equal_opportunity_difference", within),
    ("equalized_odds_difference", within),
    ("accuracy_difference", within),
    ("fped", within),
  ):
    # 5 standard errors of a difference of two means of 4,000.
    error = 5 * np.std(getattr(shuffled.replicates, name)) * (2 / 4000) ** 0.5
    np.testing.assert_allclose(
      getattr(found.null_mean, name), getattr(shuffled.mean, name), atol=error
    )
    np.testing.assert_allclose(
      getattr(found.null_high, name),
      getattr(shuffled.high, name),
      atol=4 * error,
    )
    np.testing.assert_allclose(
      getattr(found.p_value, name), getattr(shuffled.p_value, name), atol=0.035
    )


@pytest.mark.slow
def test_null_rejects_at_the_nominal_rate():
  """300 data sets without a gap at level 0.05: at most 30 rejections.

  Expected are at most 15 (ties make the test conservative); 30 is 4 standard
  errors above.
  """
  rng = np.random.default_rng(1)
  rejected = sum(
    bool(
      run(
        rates_of(rng, [50, 50], [0.4, 0.4]), num=200
      ).p_value.equalized_odds_difference
      <= 0.05
    )
    for _ in range(300)
  )
  assert rejected <= 30


def test_a_clear_gap_is_found():
  found = run(rates_of(np.random.default_rng(0), [200, 200], [0.2, 0.6]))
  assert found.p_value.demographic_parity_difference == 1 / 2001
  assert found.p_value.demographic_parity_ratio == pytest.approx(1 / 2001)
  assert found.low.demographic_parity_difference > 0.2


def test_is_seeded():
  arrays = rates_of(np.random.default_rng(0), [60, 40], [0.3, 0.6])
  chex.assert_trees_all_equal(run(arrays, num=50), run(arrays, num=50))


def test_small_groups_are_named():
  arrays = rates_of(np.random.default_rng(0), [100, 12], [0.3, 0.6])
  rates = fairness.group_rates(*arrays, num_groups=2)
  (message,) = fairness.small_groups(rates)
  assert "group 1 has 12 records, fewer than 30" in message
  with pytest.warns(fairness.SmallGroupWarning, match="12 records"):
    fairness.group_gaps_test(rates, key=KEY, num=10)
  messages = fairness.small_groups(rates, minimum=60)
  assert any("with label 1" in m and "true-positive" in m for m in messages)


def test_bad_input():
  arrays = rates_of(np.random.default_rng(0), [60, 40], [0.3, 0.6])
  weighted = fairness.group_rates(
    *arrays, num_groups=2, weights=np.full(100, 0.5)
  )
  with pytest.raises(ValueError, match="weighted counts"):
    fairness.group_gaps_test(weighted, key=KEY)
  with pytest.raises(ValueError, match="strata: got 'rows'"):
    run(arrays, strata="rows")
  with pytest.raises(ValueError, match="interval: got 'normal'"):
    run(arrays, interval="normal")
  with pytest.raises(ValueError, match="confidence: got 95"):
    run(arrays, confidence=95)


def test_left_out_tables():
  counts = np.arange(8).reshape(2, 2, 2)
  tables, stands_for = _gap_noise._left_out(counts)
  assert stands_for.tolist() == [1, 2, 3, 4, 5, 6, 7]
  assert (tables.sum((1, 2, 3)) == 27).all()
  assert (tables >= 0).all()
