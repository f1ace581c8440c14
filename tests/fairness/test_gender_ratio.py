"""Ratios per profession: known answers, noise floor, bootstrap."""

import jax
import numpy as np
import pytest

from trustjax import fairness

KEY = jax.random.key(0)


def texts(*counts):
  """Labels and groups with these numbers of female, male, neutral, tie."""
  label = np.concatenate([np.repeat(np.arange(4), c) for c in counts])
  group = np.repeat(np.arange(len(counts)), [sum(c) for c in counts])
  return label, group


def test_known_answers():
  label, group = texts(
    (30, 10, 5, 1), (10, 30, 0, 0), (0, 5, 2, 0), (5, 5, 0, 0), (0, 0, 4, 2)
  )
  got = fairness.gender_ratio(label, group, num_groups=5)
  np.testing.assert_allclose(got.ratio, [1 / 3, 1 / 3, 0, 1, np.nan], rtol=1e-6)
  np.testing.assert_allclose(got.mean, (2 / 3 + 1) / 4, rtol=1e-6)
  assert got.minimum == 0
  assert int(got.num_undefined) == 1
  assert got.counts.tolist() == [
    [30, 10, 5],
    [10, 30, 0],
    [0, 5, 2],
    [5, 5, 0],
    [0, 0, 4],
  ]
  assert got.ties.tolist() == [1, 0, 0, 0, 2]


def test_options():
  label, group = texts((0, 5, 0, 0), (5, 5, 0, 0), (0, 0, 3, 0))
  strict = fairness.gender_ratio(label, group, num_groups=3, zero_policy="nan")
  assert np.isnan(strict.ratio[0])
  assert int(strict.num_undefined) == 2
  assert strict.minimum == 1
  smooth = fairness.gender_ratio(label, group, num_groups=3, smoothing=1.0)
  np.testing.assert_allclose(smooth.ratio, [1 / 6, 1, np.nan], rtol=1e-6)
  with pytest.raises(ValueError, match="variant"):
    fairness.check_comparable(strict, smooth)


@pytest.mark.slow
def test_swapping_genders_and_order_change_nothing():
  rng = np.random.default_rng(0)
  label, group = rng.integers(0, 4, 500), rng.integers(0, 6, 500)
  one = fairness.gender_ratio(label, group, num_groups=6)
  swapped = np.array([1, 0, 2, 3])[label]
  other = fairness.gender_ratio(swapped, group, num_groups=6)
  np.testing.assert_array_equal(one.ratio, other.ratio)
  order = rng.permutation(500)
  again = fairness.gender_ratio(label[order], group[order], num_groups=6)
  np.testing.assert_array_equal(one.ratio, again.ratio)


@pytest.mark.slow
def test_falls_with_planted_imbalance():
  ratios = [
    float(
      fairness.gender_ratio(*texts((50 + d, 50 - d, 0, 0)), num_groups=1).mean
    )
    for d in (0, 10, 20, 30, 50)
  ]
  assert ratios == sorted(ratios, reverse=True)
  assert (ratios[0], ratios[-1]) == (1, 0)


@pytest.mark.slow
def test_jit_equals_eager():
  label, group = texts((30, 10, 5, 1), (10, 30, 0, 0))
  compiled = jax.jit(
    lambda label, group: fairness.gender_ratio(label, group, num_groups=2).ratio
  )(label, group)
  np.testing.assert_allclose(
    compiled, fairness.gender_ratio(label, group, num_groups=2).ratio
  )


def test_bad_input():
  with pytest.raises(ValueError, match=r"label\[0\]: got 4"):
    fairness.gender_ratio(np.array([4]), np.array([0]), num_groups=1)
  with pytest.raises(ValueError, match="zero_policy: got 'one'"):
    fairness.gender_ratio(
      np.array([0]), np.array([0]), num_groups=1, zero_policy="one"
    )
  with pytest.raises(ValueError, match=r"weights\[0\]: got -1.0, a negative"):
    fairness.gender_ratio(
      np.array([0]), np.array([0]), num_groups=1, weights=-np.ones(1)
    )
  with pytest.raises(ValueError, match="smoothing: got -1"):
    fairness.gender_ratio(
      np.array([0]), np.array([0]), num_groups=1, smoothing=-1.0
    )


@pytest.mark.parametrize(
  ("size", "mean", "minimum"),
  [
    (50, 0.808, 0.545),
    (100, 0.858, 0.653),
    (620, 0.939, 0.844),
    (2000, 0.965, 0.909),
  ],
)
def test_noise_floor(size, mean, minimum):
  """Balanced texts in 18 professions; 20,000 simulations."""
  got = fairness.gender_ratio_noise(np.full(18, size), key=KEY)
  np.testing.assert_allclose(got.mean, mean, atol=0.0012)
  np.testing.assert_allclose(got.minimum, minimum, atol=0.002)
  assert got.minimum_low < got.minimum < got.mean
  np.testing.assert_allclose(got.ratio, got.mean, atol=0.005)
  assert got.mean_low < got.mean


def test_noise_floor_has_the_options_of_the_ratio():
  """Five texts: r is 0, 1/4 or 2/3 with weights 1, 5 and 10 of 16."""
  sizes = np.array([5, 1])
  for zero_policy, smoothing, want in (
    ("zero", 0.0, [(1.25 + 20 / 3) / 16, 0]),
    ("nan", 0.0, [(1.25 + 20 / 3) / 15, np.nan]),
    ("zero", 1.0, [(1 / 6 + 5 * 2 / 5 + 10 * 3 / 4) / 16, 1 / 2]),
  ):
    got = fairness.gender_ratio_noise(
      sizes, key=KEY, zero_policy=zero_policy, smoothing=smoothing
    )
    np.testing.assert_allclose(got.ratio, want, atol=0.006)
    # A ratio of nan is left out of mean and minimum.
    mean = want[0] if zero_policy == "nan" else np.mean(want)
    np.testing.assert_allclose(got.mean, mean, atol=0.006)
  none = fairness.gender_ratio_noise(
    np.array([1]), key=KEY, num=10, zero_policy="nan"
  )
  assert np.isnan([none.mean, none.mean_low, none.minimum]).all()
  assert none.n == 1


def test_noise_floor_without_gendered_texts_is_nan_with_n_0():
  none = fairness.gender_ratio_noise(np.zeros(3, int), key=KEY)
  assert none.n == 0
  assert none.ratio.shape == (3,)
  numbers = [none.mean, none.mean_low, none.minimum, none.minimum_low]
  assert np.isnan([*numbers, *none.ratio]).all()
  # One profession without gendered texts leaves the others alone.
  one, other = (
    fairness.gender_ratio_noise(np.array(sizes), key=KEY, num=100)
    for sizes in ([100, 0], [100])
  )
  assert (one.n, one.mean, one.minimum) == (100, other.mean, other.minimum)
  np.testing.assert_array_equal(one.ratio, [other.ratio[0], np.nan])
  with pytest.raises(ValueError, match="num_gendered: got -1"):
    fairness.gender_ratio_noise(np.array([5, -1]), key=KEY)


class TestBootstrap:
  def many(self, seed=0):
    """Three professions, 20 prompts each, 5 texts a prompt."""
    rng = np.random.default_rng(seed)
    group = np.repeat(np.arange(3), 100)
    prompt = np.repeat(np.arange(60), 5)
    share = np.array([0.5, 0.3, 0.7])[group]
    return (rng.random(300) > share).astype(int), group, prompt

  @pytest.mark.slow
  def test_equals_resampling_prompts_in_a_loop(self):
    label, group, prompt = self.many()
    got = fairness.gender_ratio_bootstrap(
      label, group, prompt, num_groups=3, key=KEY, num=2000
    )
    rng = np.random.default_rng(1)
    female = np.add.reduceat(label == 0, np.arange(0, 300, 5))
    rows = np.stack(
      [rng.integers(20 * g, 20 * g + 20, (2000, 20)) for g in range(3)], 1
    )
    f = female[rows].sum(-1)
    ratio = np.minimum(f, 100 - f) / np.maximum(f, 100 - f)
    np.testing.assert_allclose(
      got.replicates.ratio.std(0), ratio.std(0), rtol=0.1
    )
    np.testing.assert_allclose(
      got.low.ratio, np.quantile(ratio, 0.025, 0), atol=0.04
    )
    np.testing.assert_array_equal(
      got.estimate.ratio,
      fairness.gender_ratio(label, group, num_groups=3).ratio,
    )
    assert got.n == 60

  @pytest.mark.slow
  def test_one_key_pairs_two_models(self):
    label, group, prompt = self.many()
    one, other = (
      fairness.gender_ratio_bootstrap(
        label, group, prompt, num_groups=3, key=KEY, num=50
      )
      for _ in range(2)
    )
    np.testing.assert_array_equal(one.replicates.mean, other.replicates.mean)

  def test_a_prompt_of_two_professions_is_refused(self):
    label, group, prompt = self.many()
    with pytest.raises(ValueError, match="more than one stratum"):
      fairness.gender_ratio_bootstrap(
        label, group, prompt % 20, num_groups=3, key=KEY, num=10
      )
