"""The noise: the hash, the normals, the optax transformation."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.stats
from jax.extend import random as jax_random

from trustjax import privacy
from trustjax.privacy import _normals


def make_plan(**changes):
  fields = dict(
    num_records=1000,
    expected_batch_size=100,
    rule=privacy.ThresholdClip(clip_norm=0.5),
    num_steps=3,
    noise_multiplier=2.0,
  )
  return privacy.DpSgdPlan.make(**(fields | changes))


def release(plan, total, key, steps=1):
  """The averages that `steps` calls return for the same sum."""
  noise = privacy.add_noise(plan)
  state, out = noise.init(total), []
  for i in range(steps):
    average, state = noise.update(
      total,
      state,
      total,
      key=jax.random.fold_in(key, i),
      clip_state=plan.rule.init(),
    )
    out.append(average)
  return out


class TestNormals:
  @pytest.mark.parametrize("count", [2, 7, 1000])
  def test_the_hash_is_jaxs(self, count):
    """Bit for bit, with JAX's counter layout."""
    data = jax.random.key_data(jax.random.key(42))
    half = (count + 1) // 2
    low = jnp.arange(half, dtype=jnp.uint32)
    words = _normals.threefry_2x32(data, low, low + jnp.uint32(half))
    want = jax_random.threefry_2x32(
      data, jnp.arange(2 * half, dtype=jnp.uint32)
    )
    np.testing.assert_array_equal(jnp.concatenate(words), want)

  def test_they_are_standard_normals(self):
    """Kolmogorov-Smirnov on 200,000: rejects a true null once in 10^4."""
    draws = np.asarray(privacy.standard_normals(jax.random.key(0), 200_000))
    assert scipy.stats.kstest(draws, "norm").pvalue > 1e-4
    assert np.all(np.isfinite(draws))
    # Tails of both signs, not only the bulk: 3 sigma has mass 0.0027.
    share = np.mean(np.abs(draws) > 3)
    assert 0.0022 < share < 0.0032

  def test_neighbours_are_uncorrelated(self):
    """|r| < 5 / sqrt(n) fails for independent draws once in 10^6."""
    draws = np.asarray(privacy.standard_normals(jax.random.key(3), 100_001))
    half = (draws.size + 1) // 2
    for lag in (1, 2, half):
      r = np.corrcoef(draws[:-lag], draws[lag:])[0, 1]
      assert abs(r) < 5 / np.sqrt(draws.size - lag)

  def test_another_generator_is_respected(self):
    key = jax.random.key(0, impl="rbg")
    np.testing.assert_array_equal(
      privacy.standard_normals(key, 10), jax.random.normal(key, (10,))
    )

  @pytest.mark.parametrize("count", [0, 1, 5])
  def test_any_count(self, count):
    assert privacy.standard_normals(jax.random.key(0), count).shape == (count,)


class TestAddNoise:
  @pytest.mark.parametrize(
    ("changes", "std"),
    [
      ({}, 2.0 * 0.5 / 100),
      ({"clip_group_size": 10}, 2.0 * 0.5 / 10),
      ({"rule": privacy.AutoClip()}, 2.0 / 100),
      (
        {"rule": privacy.QuantileClip(clip_norm=0.5)},
        (2.0**-2 - 10.0**-2) ** -0.5 * 0.5 / 100,
      ),
    ],
  )
  def test_std_on_the_average(self, changes, std):
    """Over 40,000 values: within 2 % with probability above 0.9999."""
    plan = make_plan(**changes)
    total = {"w": jnp.full((200, 200), 7.0)}
    (average,) = release(plan, total, jax.random.key(1))
    noise = np.asarray(average["w"]) - 7.0 / plan.expected_units
    np.testing.assert_allclose(np.std(noise), std, rtol=0.02)
    np.testing.assert_allclose(np.mean(noise), 0, atol=5 * std / 200)

  def test_each_layer_gets_its_share(self):
    rule = privacy.PerLayerClip(scale="dimension")
    plan = make_plan(rule=rule)
    total = {"a": jnp.zeros((300, 100)), "b": jnp.zeros((100, 100))}
    (average,) = release(plan, total, jax.random.key(1))
    want = 2.0 * np.asarray(rule.noise_scales((), total)) / 100
    got = [np.std(average["a"]), np.std(average["b"])]
    np.testing.assert_allclose(got, want, rtol=0.03)

  def test_follows_the_schedule_and_ends_with_the_budget(self):
    schedule = privacy.NoiseSchedule(kind="exponential", decay=0.5, period=1)
    plan = make_plan(schedule=schedule)
    total = {"w": jnp.zeros(40_000)}
    stds = [np.std(a["w"]) for a in release(plan, total, jax.random.key(0), 4)]
    np.testing.assert_allclose(stds[:3], [0.01, 0.005, 0.0025], rtol=0.03)
    assert np.isnan(stds[3])

  def test_leaves_do_not_share_noise(self):
    total = {"a": jnp.zeros(1000), "b": jnp.zeros(1000)}
    (average,) = release(make_plan(), total, jax.random.key(0))
    r = np.corrcoef(average["a"], average["b"])[0, 1]
    assert abs(r) < 5 / np.sqrt(1000)

  def test_is_a_function_of_the_key(self):
    total = {"w": jnp.zeros(50)}
    one, again, other = (
      release(make_plan(), total, jax.random.key(k))[0]["w"] for k in (0, 0, 1)
    )
    np.testing.assert_array_equal(one, again)
    assert np.all(one != other)

  @pytest.mark.parametrize(
    "optimizer",
    [
      optax.sgd(0.1, momentum=0.9),
      optax.adam(1e-3),
      optax.adamw(1e-3),
      optax.lamb(1e-3),
      optax.chain(optax.scale_by_rms(), optax.scale(-0.1)),
    ],
    ids=["momentum", "adam", "adamw", "lamb", "chain"],
  )
  def test_composes_with_any_optimizer(self, optimizer):
    plan = make_plan(noise_multiplier=0.0)
    params = {"w": jnp.arange(1.0, 5.0)}
    total = {"w": jnp.array([1.0, -2.0, 3.0, -4.0])}
    chained = optax.chain(privacy.add_noise(plan), optimizer)
    got, _ = chained.update(
      total,
      chained.init(params),
      params,
      key=jax.random.key(0),
      clip_state=(),
    )
    average = jax.tree.map(lambda leaf: leaf / 100, total)
    want, _ = optimizer.update(average, optimizer.init(params), params)
    np.testing.assert_allclose(got["w"], want["w"], rtol=1e-6)

  def test_an_empty_lot_releases_pure_noise(self):
    """KAT-18."""
    plan = make_plan()
    fn = plan.clipped_grad(lambda p, e, k: (jnp.sum(p["w"] * e), ()))
    params = {"w": jnp.ones(40_000)}
    lot = privacy.Lot(
      examples=jnp.ones((8, 40_000)),
      valid=jnp.zeros(8, bool),
      ids=jnp.zeros(8, jnp.int32),
    )
    clipped = fn(params, lot, jax.random.key(0), ())
    (average,) = release(plan, clipped.sum, jax.random.key(1))
    assert average["w"].shape == params["w"].shape
    np.testing.assert_allclose(np.std(average["w"]), 0.01, rtol=0.03)

  def test_needs_params(self):
    noise = privacy.add_noise(make_plan())
    total = {"w": jnp.zeros(2)}
    with pytest.raises(ValueError, match="params: got None"):
      noise.update(total, noise.init(total), key=jax.random.key(0))
