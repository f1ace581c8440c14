"""The generic bootstrap: SciPy, strata, clusters, BCa, the null."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from trustjax import fairness

KEY = jax.random.key(0)


def mean(data):
  return jnp.mean(data)


def weighted_mean(data, weights):
  return jnp.sum(weights * data) / jnp.sum(weights)


def sums(data):
  """Sums of a pytree, to look into a resample."""
  return jax.tree.map(lambda leaf: jnp.sum(leaf, axis=0), data)


def skewed(n=60):
  return np.random.default_rng(0).lognormal(0, 1, n).astype(np.float32)


@pytest.mark.parametrize("method", ["percentile", "bca"])
def test_equals_scipy(method):
  """Ends within 4 % of the width, several Monte-Carlo errors of 20,000."""
  x = skewed()
  got = fairness.bootstrap(
    jnp.std, jnp.asarray(x), key=KEY, num=20_000, method=method
  )
  reference = stats.bootstrap(
    (x,),
    np.std,
    n_resamples=20_000,
    method=method.replace("bca", "BCa"),
    random_state=0,
  ).confidence_interval
  width = reference.high - reference.low
  assert abs(got.low - reference.low) < 0.04 * width
  assert abs(got.high - reference.high) < 0.04 * width
  assert got.n == 60


def test_a_function_of_a_statistic_shares_its_resamples():
  """The spread of squares, from the replicates of the mean and anew."""
  x = jnp.asarray(skewed())
  boot = fairness.bootstrap(mean, x, key=KEY, num=100)
  mapped = boot.map(lambda found: {"square": found**2})
  anew = fairness.bootstrap(lambda d: mean(d) ** 2, x, key=KEY, num=100)
  for field in ("estimate", "low", "high", "replicates", "num_undefined"):
    np.testing.assert_allclose(
      getattr(mapped, field)["square"], getattr(anew, field), rtol=1e-5
    )
  assert (mapped.n, mapped.confidence) == (60, 0.95)
  bca = dataclasses.replace(boot, method="bca")
  with pytest.raises(ValueError, match="method: got 'bca'"):
    bca.map(jnp.square)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["percentile", "bca"])
def test_rows_and_weights_agree(method):
  x = jnp.asarray(skewed())
  one = fairness.bootstrap(mean, x, key=KEY, num=200, method=method)
  other = fairness.bootstrap(
    weighted_mean, x, key=KEY, num=200, by="weights", method=method
  )
  np.testing.assert_allclose(one.replicates, other.replicates, rtol=1e-5)
  np.testing.assert_allclose(one.low, other.low, rtol=1e-3)
  np.testing.assert_allclose(one.high, other.high, rtol=1e-3)


@pytest.mark.slow
def test_strata_keep_their_sizes():
  strata = np.array([2, 0, 1, 0, 2, 2, 0])
  onehot = jax.nn.one_hot(strata, 3)
  got = fairness.bootstrap(sums, (onehot,), key=KEY, num=300, strata=strata)
  np.testing.assert_array_equal(
    got.replicates[0], np.broadcast_to([3, 1, 3], (300, 3))
  )


@pytest.mark.slow
def test_draws_are_uniform_within_strata():
  """Each record of a stratum of 4 is drawn once on average: 5 errors."""
  strata = np.array([0, 0, 0, 0, 1, 1])
  got = fairness.bootstrap(
    sums, (jnp.eye(6),), key=KEY, num=4000, strata=strata
  )
  counts = np.asarray(got.replicates[0])
  np.testing.assert_allclose(counts.mean(0), 1, atol=5 * np.sqrt(0.75 / 4000))
  # Binomial(4, 1/4) has variance 3/4, Binomial(2, 1/2) has 1/2.
  np.testing.assert_allclose(counts[:, :4].var(0), 0.75, atol=0.12)
  np.testing.assert_allclose(counts[:, 4:].var(0), 0.5, atol=0.12)


@pytest.mark.slow
def test_large_strata_are_drawn_too():
  """Above 2^16 records another generator is used."""
  n = 1 << 16
  got = fairness.bootstrap(
    mean, jnp.arange(n, dtype=jnp.float32) / n, key=KEY, num=20
  )
  assert np.abs(got.replicates - 0.5).max() < 6 * np.sqrt(1 / 12 / n)
  assert np.asarray(got.replicates).std() > 0


@pytest.mark.slow
def test_clusters_are_drawn_together():
  clusters = np.array([7, 7, 7, 3, 3, 9])
  onehot = jax.nn.one_hot(np.array([0, 0, 0, 1, 1, 2]), 3)

  def counts(data, weights):
    return weights @ data

  got = fairness.bootstrap(
    counts, onehot, key=KEY, num=200, clusters=clusters, by="weights"
  )
  drawn = np.asarray(got.replicates) / np.array([3, 2, 1])
  np.testing.assert_array_equal(drawn, drawn.round())
  np.testing.assert_array_equal(drawn.sum(1), 3)
  assert got.n == 3


@pytest.mark.slow
def test_cluster_interval_is_wider_for_correlated_records():
  rng = np.random.default_rng(0)
  prompts = np.repeat(np.arange(40), 10)
  x = jnp.asarray(rng.normal(size=40)[prompts] + 0.1 * rng.normal(size=400))

  def width(**options):
    found = fairness.bootstrap(
      weighted_mean, x, key=KEY, num=500, by="weights", **options
    )
    return float(found.high - found.low)

  # Ten copies of a number are one number: sqrt(10) = 3.2 times as wide.
  assert 2.2 < width(clusters=prompts) / width() < 4.2


def test_pytrees_and_nan_replicates():
  def stat(data):
    return {"mean": mean(data), "fragile": jnp.where(data[0] > 1, 1.0, jnp.nan)}

  got = fairness.bootstrap(stat, jnp.asarray(skewed()), key=KEY, num=100)
  undefined = int(got.num_undefined["fragile"])
  assert 0 < undefined < 100
  assert got.num_undefined["mean"] == 0
  assert got.low["fragile"] == 1
  chex.assert_tree_all_finite(got.low)


@pytest.mark.slow
def test_seeded_and_chunks_do_not_matter(monkeypatch):
  x = jnp.asarray(skewed())
  one = fairness.bootstrap(mean, x, key=KEY, num=101)
  monkeypatch.setattr(fairness._resampling, "_CHUNK", 7 * 60)
  other = fairness.bootstrap(mean, x, key=KEY, num=101)
  np.testing.assert_allclose(one.replicates, other.replicates, rtol=1e-6)


def test_compiles_once():
  @chex.assert_max_traces(n=3)
  def stat(data):
    return jnp.mean(data)

  x = jnp.asarray(skewed())
  for seed in range(4):
    fairness.bootstrap(stat, x, key=jax.random.key(seed), num=50)


def test_bad_input():
  x = jnp.ones(6)
  with pytest.raises(ValueError, match="cluster 1 lies in more than one"):
    fairness.bootstrap(
      weighted_mean,
      x,
      key=KEY,
      num=5,
      by="weights",
      clusters=np.array([0, 0, 1, 1, 2, 2]),
      strata=np.array([0, 0, 0, 1, 1, 1]),
    )
  with pytest.raises(ValueError, match="by: got 'rows'; clusters"):
    fairness.bootstrap(mean, x, key=KEY, clusters=np.arange(6))
  with pytest.raises(ValueError, match="method: got 'normal'"):
    fairness.bootstrap(mean, x, key=KEY, method="normal")
  with pytest.raises(ValueError, match="at least one"):
    fairness.bootstrap(mean, jnp.ones(0), key=KEY)
  with pytest.raises(ValueError, match="all arrays need the same"):
    fairness.bootstrap(sums, (jnp.ones(3), jnp.ones(2)), key=KEY)
  with pytest.raises(ValueError, match="strata: got 2 for 6 records"):
    fairness.bootstrap(mean, x, key=KEY, strata=np.zeros(2, int))


class TestPermutationNull:
  @staticmethod
  def gap(x, labels):
    means = [
      jnp.sum(jnp.where(labels == k, x, 0)) / jnp.sum(labels == k, dtype=float)
      for k in (0, 1)
    ]
    return jnp.abs(means[1] - means[0])

  def test_equals_scipy(self):
    rng = np.random.default_rng(0)
    x = rng.normal(size=24).astype(np.float32)
    labels = np.repeat([0, 1], 12)
    x[12:] += 0.7
    got = fairness.permutation_null(self.gap, x, labels, key=KEY, num=8000)
    reference = stats.permutation_test(
      (x[:12], x[12:]),
      lambda a, b, axis: np.abs(a.mean(axis) - b.mean(axis)),
      alternative="greater",
      n_resamples=8000,
      vectorized=True,
      random_state=0,
    )
    np.testing.assert_allclose(got.estimate, reference.statistic, rtol=1e-5)
    np.testing.assert_allclose(got.p_value, reference.pvalue, atol=0.02)

  @pytest.mark.slow
  def test_labels_stay_in_their_stratum(self):
    strata = np.array([1, 0, 1, 0, 1, 1])
    labels = np.array([5, 2, 6, 3, 7, 8])

    def look(data, labels):
      del data
      return labels

    got = fairness.permutation_null(
      look, jnp.zeros(6), labels, key=KEY, num=200, strata=strata
    )
    shuffled = np.asarray(got.replicates)
    assert (np.sort(shuffled[:, strata == 0], 1) == [2, 3]).all()
    assert (np.sort(shuffled[:, strata == 1], 1) == [5, 6, 7, 8]).all()
    assert len({tuple(row) for row in shuffled}) == 48

  def test_an_undefined_statistic_is_not_extreme(self):
    def undefined(x, labels):
      return jnp.stack(
        [self.gap(x, labels) * jnp.nan, jnp.where(labels[0] == 0, 1, jnp.nan)]
      )

    got = fairness.permutation_null(
      undefined, jnp.ones(4), np.repeat([0, 1], 2), key=KEY, num=50
    )
    # The second is 1 wherever it is defined.
    np.testing.assert_array_equal(got.p_value, [np.nan, 1])

  def test_ties_count(self):
    got = fairness.permutation_null(
      self.gap, jnp.full(8, 0.3), np.repeat([0, 1], 4), key=KEY, num=50
    )
    assert got.p_value == 1
