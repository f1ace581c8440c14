"""Exhaustive scores: known answers, sorting, chance, bounds."""

import itertools

import hypothesis
import hypothesis.strategies as st
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from trustjax import attacks

CODE = jnp.array([3, 1, 4, 1])


def hamming_loss(tokens, code):
  return jnp.mean(tokens != code)


def table_loss(tokens, table):
  """A loss that tells every completion apart."""
  return jnp.sum(table[jnp.arange(tokens.shape[0]), tokens])


def test_planted_code():
  losses = attacks.score_completions(hamming_loss, 4, 10, args=(CODE,))
  assert losses.shape == (10_000,)
  found = attacks.exposure(losses, attacks.completion_index(CODE, 10))
  assert found.rank == 1 and found.is_best and found.best == 3141
  np.testing.assert_allclose(found.exposure, 13.288, atol=1e-3)
  other = attacks.score_completions(
    hamming_loss, 6, 10, args=(jnp.arange(6),), batch_size=50_000
  )
  found = attacks.exposure(other, 12_345)
  np.testing.assert_allclose(found.exposure, 19.932, atol=1e-3)


@pytest.mark.parametrize("batch_size", [1, 7, 81, 1000])
def test_scores_equal_a_loop(batch_size):
  table = jnp.asarray(np.random.default_rng(0).normal(size=(4, 3)), jnp.float32)
  got = attacks.score_completions(
    table_loss, 4, 3, args=(table,), batch_size=batch_size
  )
  want = [
    sum(float(table[i, t]) for i, t in enumerate(tokens))
    for tokens in itertools.product(range(3), repeat=4)
  ]
  np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)
  for index, tokens in enumerate(itertools.product(range(3), repeat=4)):
    assert attacks.completion_index(np.array(tokens), 3) == index


def test_one_compilation_serves_all_models():
  traces = []

  def counted(tokens, code):
    traces.append(1)
    return hamming_loss(tokens, code)

  for code in (CODE, CODE[::-1], CODE * 0):
    attacks.score_completions(counted, 4, 10, args=(code,))
  first = len(traces)
  attacks.score_completions(counted, 4, 10, args=(CODE + 1,))
  assert len(traces) == first


@hypothesis.settings(deadline=None, max_examples=50)
@hypothesis.given(
  losses=st.lists(st.integers(0, 6), min_size=2, max_size=30), data=st.data()
)
def test_rank_equals_scipy(losses, data):
  losses = np.array(losses, float)
  index = data.draw(st.integers(0, losses.size - 1))
  found = attacks.exposure(losses, index)
  assert found.rank == stats.rankdata(losses)[index]
  np.testing.assert_allclose(
    found.exposure, np.log2(losses.size) - np.log2(found.rank)
  )
  # Any increasing map of the loss changes nothing.
  mapped = attacks.exposure(np.exp(losses) + 3, index)
  assert mapped.rank == found.rank and mapped.is_best == found.is_best


def test_trials_are_ranked_apart():
  losses = np.array([[0.0, 1.0, 2.0], [2.0, 1.0, 1.0]])
  found = attacks.exposure(losses, np.array([2, 2]))
  assert found.rank.tolist() == [3, 1.5]
  assert found.best.tolist() == [0, 1]
  assert found.is_best.tolist() == [False, False]


def test_models_without_the_canary_are_at_chance():
  # Over all codes the mean is exact: that of a uniform rank, 1.4419 for 10^4.
  ranks = np.arange(1, 10_001)
  np.testing.assert_allclose(
    np.log2(10_000) - np.log2(ranks).mean(), 1.4419, atol=2e-3
  )
  rng = np.random.default_rng(0)
  losses = np.broadcast_to(rng.normal(size=500), (500, 500))
  found = attacks.exposure(losses, np.arange(500))
  uniform = np.log2(500) - np.log2(np.arange(1, 501)).mean()
  np.testing.assert_allclose(found.exposure.mean(), uniform)
  assert found.is_best.sum() == 1
  # Models that know nothing, a fresh code each.
  codes = rng.integers(0, 10, (400, 4))
  guesses = [
    np.unravel_index(rng.normal(size=10_000).argmin(), (10,) * 4) for _ in codes
  ]
  metrics = attacks.extraction_metrics(
    np.array(guesses), codes, num_candidates=10
  )
  assert metrics.accuracy.low <= 1e-4 <= metrics.accuracy.high
  # The standard error of the mean is sqrt(0.9 * 0.1 / 1600) = 0.0075.
  assert abs(metrics.hamming.value - 0.9) < 4 * 0.0075
  assert metrics.chance_hamming == 0.9
  np.testing.assert_allclose(metrics.chance_accuracy, 1e-4)


def test_metrics_known_answers():
  metrics = attacks.extraction_metrics(
    np.array([[1, 2, 4, 3]]), np.array([[1, 2, 3, 4]]), num_candidates=10
  )
  assert metrics.accuracy.value == 0 and metrics.hamming.value == 0.5
  assert "one trial" in metrics.hamming.reason
  guesses = np.zeros((50, 4), int)
  codes = guesses.copy()
  codes[25:, 0] = 1
  metrics = attacks.extraction_metrics(guesses, codes, num_candidates=10)
  assert metrics.accuracy.value == 0.5
  np.testing.assert_allclose(
    (metrics.accuracy.low, metrics.accuracy.high), (0.3553, 0.6447), atol=1e-4
  )
  assert metrics.hamming.value == 0.125
  sampled = stats.bootstrap(
    ((guesses != codes).mean(1),), np.mean, method="percentile", rng=0
  ).confidence_interval
  np.testing.assert_allclose(
    (metrics.hamming.low, metrics.hamming.high), sampled, atol=0.006
  )


def test_bad_input():
  with pytest.raises(ValueError, match=r"10 \*\* 7 = 10000000 completions"):
    attacks.score_completions(hamming_loss, 7, 10, args=(CODE,))
  with pytest.raises(ValueError, match=r"batch_size: got 0"):
    attacks.score_completions(hamming_loss, 2, 10, batch_size=0)
  with pytest.raises(ValueError, match=r"tokens\[1\]: got 10"):
    attacks.completion_index(np.array([1, 10]), 10)
  with pytest.raises(ValueError, match=r"tokens: got 19 positions of 10"):
    attacks.completion_index(np.full(19, 9), 10)
  with pytest.raises(ValueError, match=r"losses: got nan"):
    attacks.exposure(np.array([1.0, np.nan]), 0)
  with pytest.raises(ValueError, match=r"true_index\[\]: got 2"):
    attacks.exposure(np.array([1.0, 2.0]), 2)
  with pytest.raises(ValueError, match=r"guesses: got no trials"):
    attacks.extraction_metrics(
      np.zeros((0, 4), int), np.zeros((0, 4), int), num_candidates=10
    )
  with pytest.raises(ValueError, match=r"codes\[0, 0\]: got 10"):
    attacks.extraction_metrics(
      np.zeros((1, 2), int), np.full((1, 2), 10), num_candidates=10
    )
  with pytest.raises(ValueError, match=r"values: got none"):
    attacks.bootstrap_mean([])
