"""Crafted canaries: laws, shapes, and an audit of a real noisy sum."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from trustjax import attacks

KEY = jax.random.key(0)
PARAMS = {"kernel": jnp.zeros((30, 20)), "bias": jnp.zeros(20)}


def test_mislabelled_records_are_uniform():
  mask = np.arange(6)[None] < np.arange(1, 2001)[:, None] % 7
  intent, slots = attacks.mislabelled_records(
    KEY, mask, num_intents=5, num_slots=9
  )
  assert intent.shape == (2000,) and slots.shape == mask.shape
  assert (np.asarray(slots)[~mask] == -1).all()
  for values, size in ((intent, 5), (np.asarray(slots)[mask], 9)):
    counts = np.bincount(np.asarray(values), minlength=size)
    assert counts.size == size
    assert stats.chisquare(counts).pvalue > 1e-3


def test_gradient_canaries_are_long_and_nearly_orthogonal():
  canaries = attacks.gradient_canaries(KEY, PARAMS, 50, norm=0.7)
  flat = np.concatenate(
    [np.asarray(x).reshape(50, -1) for x in jax.tree.leaves(canaries)], axis=1
  )
  assert flat.shape == (50, 620)
  gram = flat @ flat.T
  np.testing.assert_allclose(np.diag(gram), 0.49, rtol=1e-5)
  off = gram[~np.eye(50, dtype=bool)] / 0.49
  # Inner products of random unit vectors have standard deviation 1/sqrt(d).
  assert abs(off.std() * 620**0.5 - 1) < 0.1


def test_scores_are_inner_products():
  canaries = attacks.gradient_canaries(KEY, PARAMS, 4, norm=1.0)
  update = jax.tree.map(lambda x: jax.random.normal(KEY, x.shape), PARAMS)
  got = jax.jit(attacks.gradient_canary_scores)(update, canaries)
  for index in range(4):
    want = sum(
      np.vdot(u, c[index])
      for u, c in zip(jax.tree.leaves(update), jax.tree.leaves(canaries))
    )
    np.testing.assert_allclose(got[index], want, rtol=1e-4)


def test_one_run_audit_of_a_noisy_sum():
  # One release of clipped canaries plus noise of multiplier sigma: mu = 1 /
  # sigma exactly. The bound must not exceed it and should see most of it.
  params = jnp.zeros(20_000)
  rng = np.random.default_rng(0)
  canaries = attacks.gradient_canaries(KEY, params, 400, norm=1.0)
  found = []
  for _ in range(20):
    included = rng.random(400) < 0.5
    noisy = included.astype(np.float32) @ np.asarray(canaries)
    noisy = noisy + 0.5 * rng.normal(size=20_000).astype(np.float32)
    scores = attacks.gradient_canary_scores(jnp.asarray(noisy), canaries)
    plan = attacks.OneRunPlan(num_canaries=400, num_guesses=100, method="gdp")
    found.append(plan.audit(np.asarray(scores), included).mu_lower_bound)
  assert max(found) <= 2.0
  assert np.median(found) > 0.7


def test_bad_input():
  with pytest.raises(ValueError, match=r"num_intents: got 0"):
    attacks.mislabelled_records(
      KEY, np.ones((2, 3), bool), num_intents=0, num_slots=3
    )
  with pytest.raises(ValueError, match=r"num_canaries: got 0"):
    attacks.gradient_canaries(KEY, PARAMS, 0, norm=1.0)
  with pytest.raises(ValueError, match=r"canaries: got PyTreeDef"):
    attacks.gradient_canary_scores(PARAMS, {"kernel": jnp.zeros((2, 30, 20))})
