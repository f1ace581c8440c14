"""WEAT and its permutation test: known answers, a naive loop, properties."""

import itertools
import math

import chex
import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from trustjax import fairness


def on_circle(*degrees):
  angles = np.deg2rad(np.array(degrees))
  return np.stack([np.cos(angles), np.sin(angles)], axis=1)


CIRCLE = (
  on_circle(0, 30),
  on_circle(60, 90),
  on_circle(0),
  on_circle(90),
)
CIRCLE_S = np.array([1, 0.3660254037844386, -0.3660254037844386, -1])


def random_sets(seed=0, n=5, attributes=(4, 6), dim=7):
  rng = np.random.default_rng(seed)
  sizes = (n, n, *attributes)
  return tuple(rng.normal(size=(size, dim)) for size in sizes)


def naive_leanings(words, a, b):
  """s(w, A, B) from the definition, one cosine at a time."""

  def cosine(u, v):
    return sum(u * v) / math.sqrt(sum(u * u)) / math.sqrt(sum(v * v))

  return np.array(
    [
      np.mean([cosine(w, u) for u in a]) - np.mean([cosine(w, u) for u in b])
      for w in words
    ]
  )


def naive_effect(x, y, a, b, ddof):
  s_x, s_y = naive_leanings(x, a, b), naive_leanings(y, a, b)
  both = np.concatenate([s_x, s_y])
  return (s_x.mean() - s_y.mean()) / both.std(ddof=ddof)


class TestWeat:
  def test_known_answer(self):
    result = fairness.weat(*CIRCLE)
    np.testing.assert_allclose(result.s_x, CIRCLE_S[:2], atol=1e-6)
    np.testing.assert_allclose(result.s_y, CIRCLE_S[2:], atol=1e-6)
    np.testing.assert_allclose(result.statistic, 2.7320508, rtol=1e-6)
    np.testing.assert_allclose(result.effect_size, 1.5710961, rtol=1e-6)
    by_n = fairness.weat(*CIRCLE, ddof=0)
    np.testing.assert_allclose(by_n.effect_size, 1.8141455, rtol=1e-6)
    assert result.n == 4
    assert (result.variant, by_n.variant) == ("ddof=1", "ddof=0")

  @pytest.mark.parametrize("ddof", [0, 1])
  @pytest.mark.parametrize("seed", range(3))
  def test_equals_the_definition(self, ddof, seed):
    sets = random_sets(seed)
    result = fairness.weat(*sets, ddof=ddof)
    np.testing.assert_allclose(
      result.effect_size, naive_effect(*sets, ddof), rtol=2e-5
    )
    np.testing.assert_allclose(
      result.s_x, naive_leanings(sets[0], *sets[2:]), atol=1e-6
    )

  def test_float64_is_kept_where_it_is_on(self):
    sets = random_sets()
    with jax.enable_x64(True):
      result = fairness.weat(*sets)
    assert result.effect_size.dtype == np.float64
    np.testing.assert_allclose(
      result.effect_size, naive_effect(*sets, 1), rtol=1e-12
    )

  def test_swaps_negate(self):
    x, y, a, b = random_sets()
    d = fairness.weat(x, y, a, b).effect_size
    np.testing.assert_allclose(
      fairness.weat(y, x, a, b).effect_size, -d, rtol=1e-5
    )
    np.testing.assert_allclose(
      fairness.weat(x, y, b, a).effect_size, -d, rtol=1e-5
    )

  def test_equal_attributes_are_exactly_zero(self):
    x, y, a, _ = random_sets()
    result = fairness.weat(x, y, a, a)
    assert result.effect_size == 0
    assert result.statistic == 0

  def test_invariant_to_scale_rotation_and_order(self):
    sets = random_sets()
    d = fairness.weat(*sets).effect_size
    rng = np.random.default_rng(1)
    rotation, _ = np.linalg.qr(rng.normal(size=(7, 7)))
    changed = [
      (s * rng.lognormal(0, 3, size=(len(s), 1)))[rng.permutation(len(s))]
      @ rotation
      for s in sets
    ]
    np.testing.assert_allclose(
      fairness.weat(*changed).effect_size, d, rtol=1e-4
    )

  @pytest.mark.slow
  @hypothesis.given(
    st.integers(2, 12), st.integers(0, 2**32 - 1), st.sampled_from([0, 1])
  )
  @hypothesis.settings(max_examples=30, deadline=None)
  def test_bound(self, n, seed, ddof):
    d = fairness.weat(*random_sets(seed, n), ddof=ddof).effect_size
    bound = 2 * math.sqrt((2 * n - ddof) / (2 * n))
    assert abs(float(d)) <= bound * (1 + 1e-5)

  @pytest.mark.parametrize(
    ("n", "bound"), [(2, 1.7321), (8, 1.9365), (25, 1.9799)]
  )
  def test_bound_is_attained(self, n, bound):
    x, y = on_circle(*[0] * n), on_circle(*[90] * n)
    d = fairness.weat(x, y, on_circle(0), on_circle(90)).effect_size
    np.testing.assert_allclose(d, bound, atol=5e-5)

  def test_jit_and_vmap(self):
    many = [random_sets(seed) for seed in range(4)]
    stacked = [jnp.asarray(np.stack(s), jnp.float32) for s in zip(*many)]
    together = jax.jit(jax.vmap(fairness.weat))(*stacked)
    alone = [fairness.weat(*sets).effect_size for sets in many]
    np.testing.assert_allclose(together.effect_size, alone, rtol=1e-5)
    assert together.metric == "weat"

  @pytest.mark.slow
  def test_gradients_are_finite_without_spread(self):
    x, y, a, _ = (jnp.asarray(s, jnp.float32) for s in random_sets())
    gradient = jax.grad(lambda x: fairness.weat(x, y, a, a).effect_size)(x)
    chex.assert_tree_all_finite(gradient)

  @pytest.mark.slow
  def test_null_is_centred(self):
    """Mean d of 400 random tests: within 4 standard errors of 0."""
    many = [random_sets(seed) for seed in range(400)]
    stacked = [jnp.asarray(np.stack(s), jnp.float32) for s in zip(*many)]
    d = np.asarray(jax.vmap(fairness.weat)(*stacked).effect_size)
    assert abs(d.mean()) < 4 * d.std() / 20

  def test_bad_input(self):
    x, y, a, b = random_sets()
    with pytest.raises(ValueError, match="got 5 and 4 words"):
      fairness.weat(x, y[:4], a, b)
    with pytest.raises(ValueError, match="ddof: got 2"):
      fairness.weat(x, y, a, b, ddof=2)
    with pytest.raises(ValueError, match="b: got no words"):
      fairness.weat(x, y, a, b[:0])
    broken = a.copy()
    broken[1] = 0
    with pytest.raises(ValueError, match=r"a\[1\]: got a zero vector"):
      fairness.weat(x, y, broken, b)
    broken[1, 2] = np.nan
    with pytest.raises(ValueError, match=r"a\[1, 2\]: got nan"):
      fairness.weat(x, y, broken, b)

  def test_different_protocols_do_not_compare(self):
    sets = random_sets()
    lists = [fairness.Protocol(word_lists=name).digest for name in "ab"]
    one, other = (fairness.weat(*sets, protocol=digest) for digest in lists)
    fairness.check_comparable(one, one)
    with pytest.raises(ValueError, match="protocol"):
      fairness.check_comparable(one, other)
    fairness.check_comparable(one, other, allow_different_protocols=True)
    with pytest.raises(ValueError, match="variant"):
      fairness.check_comparable(
        one,
        fairness.weat(*sets, ddof=0, protocol=lists[0]),
        allow_different_protocols=True,
      )


class TestProtocol:
  def test_digest_sees_every_field(self):
    digests = {
      fairness.Protocol().digest,
      fairness.Protocol(data="x").digest,
      fairness.Protocol(word_lists="x").digest,
      fairness.Protocol(templates="x").digest,
      fairness.Protocol(extraction="x").digest,
      fairness.Protocol(decoding="x").digest,
      fairness.Protocol(seed=0).digest,
      fairness.Protocol(extra={"x": 1}).digest,
    }
    assert len(digests) == 8
    one = fairness.Protocol(extra={"a": 1, "b": 2})
    assert one.digest == fairness.Protocol(extra={"b": 2, "a": 1}).digest


class TestHedges:
  def test_known_answer(self):
    assert float(fairness.hedges_variance(jnp.float32(0.5), 8, 8)) == 0.2578125


class TestInterval:
  @pytest.mark.slow
  def test_covers_and_resamples_words_within_sets(self):
    rng = np.random.default_rng(0)
    a, b = on_circle(0), on_circle(90)
    x = on_circle(*rng.normal(40, 10, 30))
    y = on_circle(*rng.normal(50, 10, 30))
    result = fairness.weat(x, y, a, b)
    found = fairness.weat_interval(result, key=jax.random.key(0), num=2000)
    assert found.low < result.effect_size < found.high
    # Against an independent bootstrap of the same size.
    s = np.concatenate([result.s_x, result.s_y])
    draws = []
    for _ in range(2000):
      s_x = s[rng.integers(0, 30, 30)]
      s_y = s[30 + rng.integers(0, 30, 30)]
      spread = np.concatenate([s_x, s_y]).std(ddof=1)
      draws.append((s_x.mean() - s_y.mean()) / spread)
    low, high = np.quantile(draws, [0.025, 0.975])
    np.testing.assert_allclose([found.low, found.high], [low, high], atol=0.05)

  @pytest.mark.slow
  def test_is_seeded(self):
    result = fairness.weat(*random_sets())

    def run(seed):
      return fairness.weat_interval(result, key=jax.random.key(seed), num=50)

    chex.assert_trees_all_equal(run(1), run(1))
    assert not np.array_equal(run(1).replicates, run(2).replicates)


def naive_pvalue(s, n_x, tie, alternative):
  """Every partition, its statistic from the definition."""
  total = round(sum(s), 9)
  words = range(len(s))
  observed = round(sum(s[:n_x]) - sum(s[n_x:]), 9)
  extreme = count = 0
  for subset in itertools.combinations(words, n_x):
    inside = sum(s[list(subset)])
    statistic = round(inside - (total - inside), 9)
    if alternative == "two_sided":
      statistic, against = abs(statistic), abs(observed)
    else:
      against = observed
    extreme += statistic > against or (
      tie == "conservative" and statistic == against
    )
    count += 1
  return extreme / count


class TestPvalue:
  def test_known_answer(self):
    strict = fairness.weat_pvalue(CIRCLE_S, 2)
    assert (strict.p_value, strict.n_partitions, strict.exact) == (0, 6, True)
    np.testing.assert_allclose(strict.statistic, 2.7320508, rtol=1e-7)
    loose = fairness.weat_pvalue(CIRCLE_S, 2, tie="conservative")
    assert loose.p_value == 1 / 6
    assert (loose.low, loose.high) == (1 / 6, 1 / 6)

  @pytest.mark.parametrize("tie", ["strict", "conservative"])
  @pytest.mark.parametrize("alternative", ["greater", "two_sided"])
  @pytest.mark.parametrize("decimals", [1, 6])
  def test_exact_equals_enumeration(self, tie, alternative, decimals):
    """With one decimal there are many ties."""
    rng = np.random.default_rng(3)
    s = rng.normal(size=8).round(decimals)
    got = fairness.weat_pvalue(s, 4, tie=tie, alternative=alternative)
    assert got.p_value == naive_pvalue(s, 4, tie, alternative)
    assert got.n_partitions == 70

  def test_ties_of_float32_are_found(self):
    s = np.array([0.1, 0.2, 0.3, 0.4] * 2, np.float32)
    loose = fairness.weat_pvalue(s, 4, tie="conservative").p_value
    strict = fairness.weat_pvalue(s, 4, tie="strict").p_value
    exact = np.array([1, 2, 3, 4] * 2)
    assert loose == naive_pvalue(exact, 4, "conservative", "greater")
    assert strict == naive_pvalue(exact, 4, "strict", "greater")

  def test_equal_to_scipy(self):
    """SciPy's exact permutation test of a difference in means."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(0.5, 1, 6), rng.normal(0, 1, 6)
    reference = stats.permutation_test(
      (x, y),
      lambda x, y, axis: x.mean(axis) - y.mean(axis),
      alternative="greater",
      n_resamples=np.inf,
      vectorized=True,
    )
    got = fairness.weat_pvalue(
      np.concatenate([x, y]), 6, tie="conservative"
    ).p_value
    np.testing.assert_allclose(got, reference.pvalue, rtol=1e-12)

  def test_sampled_agrees_with_exact(self):
    """5 standard errors of 20,000 draws."""
    rng = np.random.default_rng(1)
    s = np.concatenate([rng.normal(0.4, 1, 8), rng.normal(0, 1, 8)])
    for tie in ("strict", "conservative"):
      exact = fairness.weat_pvalue(s, 8, tie=tie)
      assert exact.exact
      assert exact.n_partitions == 12_870
      sampled = fairness.weat_pvalue(
        s, 8, tie=tie, max_exact=100, num_samples=20_000, key=jax.random.key(0)
      )
      assert not sampled.exact
      p = exact.p_value
      error = math.sqrt(p * (1 - p) / 20_000)
      assert abs(sampled.p_value - p) < 5 * error
      assert sampled.low < p < sampled.high

  def test_sampled_conservative_is_never_zero(self):
    s = np.concatenate([np.full(20, 1.0), np.full(20, -1.0)])
    key = jax.random.key(0)
    loose = fairness.weat_pvalue(s, 20, tie="conservative", key=key)
    assert loose.p_value == 1e-5
    assert loose.n_partitions == 99_999
    strict = fairness.weat_pvalue(s, 20, key=key, num_samples=1000)
    assert strict.p_value == 0
    np.testing.assert_allclose(strict.high, 1 - 0.025 ** (1 / 1000))

  def test_given_partitions(self):
    rows = fairness.equal_partitions(4, 2)
    assert rows.tolist() == [[0, 1], [0, 2], [0, 3], [1, 2], [1, 3], [2, 3]]
    got = fairness.weat_pvalue(CIRCLE_S, 2, partitions=rows, tie="conservative")
    assert got.p_value == 1 / 6
    with pytest.raises(ValueError, match="a word repeats"):
      fairness.weat_pvalue(CIRCLE_S, 2, partitions=np.array([[1, 1]]))
    with pytest.raises(ValueError, match=r"must lie in \[0, 4\)"):
      fairness.weat_pvalue(CIRCLE_S, 2, partitions=np.array([[1, 4]]))

  def test_two_sided_compares_absolute_values(self):
    """A library compares |S_i| with a signed S: p would be 1 here."""
    s = -CIRCLE_S
    one = fairness.weat_pvalue(s, 2, tie="conservative")
    both = fairness.weat_pvalue(
      s, 2, tie="conservative", alternative="two_sided"
    )
    assert one.p_value == 1
    assert both.p_value == 2 / 6

  @pytest.mark.slow
  def test_null_rejects_at_the_nominal_rate(self):
    """400 nulls at level 0.05: 5 to 37 rejections (5 standard errors)."""
    rng = np.random.default_rng(0)
    rejected = sum(
      fairness.weat_pvalue(rng.normal(size=10), 5, tie="conservative").p_value
      <= 0.05
      for _ in range(400)
    )
    assert 1 <= rejected <= 41

  def test_bad_input(self):
    with pytest.raises(ValueError, match="tie: got 'loose'"):
      fairness.weat_pvalue(CIRCLE_S, 2, tie="loose")
    with pytest.raises(ValueError, match="n_x: got 4 of 4"):
      fairness.weat_pvalue(CIRCLE_S, 4)
    with pytest.raises(ValueError, match="key: got None"):
      fairness.weat_pvalue(CIRCLE_S, 2, max_exact=3)
    with pytest.raises(ValueError, match="partitions: got none"):
      fairness.weat_pvalue(CIRCLE_S, 2, partitions=np.zeros((0, 2), int))
    with pytest.raises(ValueError, match=r"s\[0\]: got nan"):
      fairness.weat_pvalue(np.array([np.nan, 1.0]), 1)
