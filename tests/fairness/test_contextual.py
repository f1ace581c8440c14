"""CEAT: degenerate cases, a loop over draws, and how it draws."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from trustjax import fairness

KEY = jax.random.key(0)


def contexts(seed=0, words=(4, 4, 3, 5), depth=6, dim=8, shift=0.0):
  """Padded contexts and their counts; padding holds nan."""
  rng = np.random.default_rng(seed)
  vectors, counts = [], []
  for i, size in enumerate(words):
    array = rng.normal(size=(size, depth, dim)).astype(np.float32)
    array[..., 0] += shift * (-1) ** i
    count = rng.integers(1, depth + 1, size)
    array[np.arange(depth)[None] >= count[:, None]] = np.nan
    vectors.append(array)
    counts.append(count)
  return (*vectors, *counts)


def loop_over_draws(args, draws):
  """Effect and variance of each draw by `weat` on the drawn vectors."""
  es, v = [], []
  for i in range(len(draws[0])):
    sets = [
      vectors[np.arange(len(vectors)), np.asarray(chosen[i])]
      for vectors, chosen in zip(args[:4], draws, strict=True)
    ]
    one = fairness.weat(*sets)
    es.append(float(one.effect_size))
    v.append(float(one.variance))
  return np.array(es), np.array(v)


class TestCeat:
  def test_equals_a_loop_over_draws(self):
    args = contexts()
    draws = fairness.context_draws(
      args[4:], key=KEY, num_draws=40, max_contexts=6
    )
    got = fairness.ceat(*args, draws=draws)
    es, v = loop_over_draws(args, draws)
    np.testing.assert_allclose(got.es, es, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(got.v, v, rtol=1e-4)
    pooled = fairness.random_effects(es, v)
    np.testing.assert_allclose(got.ces, pooled.ces, rtol=1e-4)
    np.testing.assert_allclose(got.se, pooled.se, rtol=1e-4)
    assert (got.n, got.n_dropped) == (40, 0)

  @pytest.mark.slow
  def test_a_key_draws_what_context_draws_draws(self):
    args = contexts()
    draws = fairness.context_draws(
      args[4:], key=KEY, num_draws=30, max_contexts=6
    )
    one = fairness.ceat(*args, key=KEY, num_draws=30)
    other = fairness.ceat(*args, draws=draws)
    np.testing.assert_array_equal(one.es, other.es)

  def test_one_context_a_word(self):
    vectors, counts = contexts()[:4], contexts()[4:]
    args = (*vectors, *map(np.ones_like, counts))
    got = fairness.ceat(*args, key=KEY, num_draws=40)
    one = fairness.weat(*(vectors[:, 0] for vectors in args[:4]))
    np.testing.assert_allclose(got.es, float(one.effect_size), rtol=1e-5)
    assert got.q < 1e-6
    assert got.tau2 == 0
    np.testing.assert_allclose(got.ces, one.effect_size, rtol=1e-5)
    np.testing.assert_allclose(
      got.se, np.sqrt(float(one.variance) / 40), rtol=1e-5
    )

  def test_hedges_weights(self):
    args = contexts()
    std2 = fairness.ceat(*args, key=KEY, num_draws=40)
    hedges = fairness.ceat(*args, key=KEY, num_draws=40, variance="hedges")
    np.testing.assert_array_equal(std2.es, hedges.es)
    np.testing.assert_allclose(hedges.v, 8 / 16 + std2.es**2 / 16, rtol=1e-5)
    with pytest.raises(ValueError, match="variant"):
      fairness.check_comparable(std2, hedges)

  @pytest.mark.slow
  def test_standard_error_measures_effort(self):
    args = contexts(shift=1.0)
    few = fairness.ceat(*args, key=KEY, num_draws=500)
    many = fairness.ceat(*args, key=KEY, num_draws=8000)
    np.testing.assert_allclose(few.se / many.se, 4, rtol=0.1)
    np.testing.assert_allclose(few.ces, many.ces, atol=5 * few.se)
    np.testing.assert_allclose(
      few.high - few.low, many.high - many.low, rtol=0.2
    )

  @pytest.mark.slow
  def test_swaps_negate(self):
    x, y, a, b, *n = contexts(shift=0.5)
    draws = fairness.context_draws(
      tuple(n), key=KEY, num_draws=50, max_contexts=6
    )
    one = fairness.ceat(x, y, a, b, *n, draws=draws)
    swapped = fairness.ceat(
      y, x, a, b, n[1], n[0], n[2], n[3], draws=(draws[1], draws[0], *draws[2:])
    )
    np.testing.assert_allclose(swapped.ces, -one.ces, rtol=1e-4)
    other = fairness.ceat(
      x, y, b, a, n[0], n[1], n[3], n[2], draws=(*draws[:2], draws[3], draws[2])
    )
    np.testing.assert_allclose(other.ces, -one.ces, rtol=1e-4)
    np.testing.assert_allclose(
      (other.low, other.high), (-one.high, -one.low), rtol=1e-3
    )

  @pytest.mark.slow
  def test_rises_with_planted_bias(self):
    sizes = [
      fairness.ceat(*contexts(shift=shift, dim=16), key=KEY, num_draws=300).ces
      for shift in (0.0, 0.5, 1.0, 2.0, 4.0)
    ]
    assert sizes == sorted(sizes)

  def test_draws_without_spread_are_counted_not_scored(self):
    x, y, a, _, *n = contexts(depth=1)
    got = fairness.ceat(
      x, y, a, a, n[0], n[1], n[2], n[2], key=KEY, num_draws=5
    )
    assert (got.n, got.n_dropped) == (0, 5)
    assert np.isnan(got.ces)
    assert np.isnan(got.low)

  @pytest.mark.slow
  def test_the_draws_are_traced_once(self):
    args = [jnp.asarray(arg) for arg in contexts()]

    @jax.jit
    @chex.assert_max_traces(n=1)
    def draws(key, counts):
      return fairness.context_draws(
        counts, key=key, num_draws=20, max_contexts=6
      )

    for seed in range(3):
      draws(jax.random.key(seed), tuple(args[4:]))

  def test_bad_input(self):
    args = contexts()
    with pytest.raises(ValueError, match="got 4 and 3 words"):
      fairness.ceat(
        args[0], args[1][:3], *args[2:5], args[5][:3], *args[6:], key=KEY
      )
    with pytest.raises(ValueError, match=r"num_ctx_b\[0\]: got 7"):
      fairness.ceat(*args[:7], np.full(5, 7), key=KEY)
    with pytest.raises(ValueError, match="replace: got 'script'"):
      fairness.ceat(*args, key=KEY, replace="script")
    with pytest.raises(ValueError, match="variance: got 'sd'"):
      fairness.ceat(*args, key=KEY, variance="sd")
    with pytest.raises(ValueError, match="key: got None"):
      fairness.ceat(*args)
    draws = tuple(np.zeros((2, len(count)), int) for count in args[4:])
    outside = draws[0].copy()
    outside[1, 2] = -1
    with pytest.raises(ValueError, match=r"draws of x\[1, 2\]: got -1"):
      fairness.ceat(*args, draws=(outside, *draws[1:]))
    for wrong in (draws[0][:, :1], draws[0][:0]):
      with pytest.raises(ValueError, match=r"draws of x: got shape \["):
        fairness.ceat(*args, draws=(wrong, *draws[1:]))
    with pytest.raises((ValueError, TypeError)):
      fairness.ceat(args[0][..., :1], *args[1:], key=KEY)
    broken = args[1].copy()
    broken[2, 0] = 0
    with pytest.raises(ValueError, match=r"ctx_y\[2, 0\]: got a zero vector"):
      fairness.ceat(args[0], broken, *args[2:], key=KEY)


class TestDraws:
  COUNTS = (np.array([1, 3, 50, 80]),)

  def draw(self, replace, num_draws=50):
    (drawn,) = fairness.context_draws(
      self.COUNTS,
      key=KEY,
      num_draws=num_draws,
      max_contexts=80,
      replace=replace,
    )
    return np.asarray(drawn)

  @pytest.mark.slow
  def test_every_draw_is_a_context_of_its_word(self):
    for replace in ("paper", "always"):
      drawn = self.draw(replace)
      assert drawn.shape == (50, 4)
      assert (drawn >= 0).all()
      assert (drawn < self.COUNTS[0]).all()

  def test_paper_repeats_only_words_with_few_contexts(self):
    drawn = self.draw("paper")
    unique = [len(set(column)) for column in drawn.T]
    assert unique[2:] == [50, 50]
    assert unique[0] == 1
    assert unique[1] == 3
    # Chance that 50 draws of 50 have no repeat: below 1e-20.
    assert len(set(self.draw("always")[:, 2])) < 50

  @pytest.mark.slow
  def test_draws_are_uniform(self):
    """Chi-square of 3 cells over 6,000 draws, at 1e-6."""
    drawn = self.draw("always", 6000)
    counts = np.bincount(drawn[:, 1], minlength=3)
    assert np.sum((counts - 2000) ** 2 / 2000) < 27.6
    kept = self.draw("paper", 40)[:, 3]
    assert len(set(kept)) == 40
    assert kept.max() > 40
