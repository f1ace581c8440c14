"""Clipping rules: known answers, bounds, noise shares, bad input."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from trustjax import privacy

PARAMS = {
  "dense": {"bias": jnp.zeros(4), "kernel": 2.0 * jnp.ones((3, 4))},
  "table": jnp.ones((10, 3)),
}
LAYERED = [
  privacy.PerLayerClip(clip_norm=2.0, scale=scale, allocation=allocation)
  for scale in ("weight_relative", "equal", "dimension")
  for allocation in ("least_noise", "uniform", "proportional")
]


def both(rule):
  state = rule.init()
  return rule.scales(state, PARAMS), rule.noise_scales(state, PARAMS)


class TestPerLayer:
  @pytest.mark.parametrize("rule", LAYERED, ids=repr)
  def test_bounds_and_noise_keep_the_joint_sensitivity(self, rule):
    scales, noise = (np.asarray(x, np.float64) for x in both(rule))
    assert scales.shape == noise.shape == (3,)
    np.testing.assert_allclose(np.sum(scales**2), rule.clip_norm**2, rtol=1e-6)
    np.testing.assert_allclose(np.sum((scales / noise) ** 2), 1.0, rtol=1e-6)

  def test_scales_by_kind(self):
    """Leaves in order: bias (4), kernel (12), table (30)."""
    by_kind = {
      "equal": [1, 1, 1],
      "dimension": [4, 12, 30],
      "weight_relative": [0.01**2, 4 * 12, 30],
    }
    for kind, squares in by_kind.items():
      got, _ = both(privacy.PerLayerClip(scale=kind))
      want = np.sqrt(np.array(squares) / np.sum(squares))
      np.testing.assert_allclose(got, want, rtol=1e-5)

  @pytest.mark.parametrize("scale", ["weight_relative", "equal", "dimension"])
  def test_least_noise_is_least(self, scale):
    dims = np.array([4, 12, 30])
    total = {
      allocation: float(
        dims
        @ np.square(
          both(privacy.PerLayerClip(scale=scale, allocation=allocation))[1]
        )
      )
      for allocation in ("least_noise", "uniform", "proportional")
    }
    assert total["least_noise"] <= total["uniform"] * (1 + 1e-6)
    assert total["least_noise"] <= total["proportional"] * (1 + 1e-6)
    bounds, _ = both(privacy.PerLayerClip(scale=scale))
    np.testing.assert_allclose(
      total["least_noise"], np.sum(bounds * np.sqrt(dims)) ** 2, rtol=1e-5
    )

  def test_depth_gathers_a_layer(self):
    rule = privacy.PerLayerClip(depth=1)
    assert rule.blocks(PARAMS) == (0, 0, 1)
    assert privacy.PerLayerClip().blocks(PARAMS) == (0, 1, 2)

  def test_clips_by_layer(self):
    """a = [3, 4] at 1 gives [.6, .8]; b = [0, 10] at 15 is unchanged."""
    rule = privacy.PerLayerClip()
    factors = rule.factors(jnp.array([5.0, 10.0]), jnp.array([1.0, 15.0]))
    np.testing.assert_allclose(factors, [0.2, 1.0], rtol=2e-6)

  def test_joint_sensitivity(self):
    """KAT-17: layer bounds 1, 2, 2 are 3 together, 6 in clip groups."""
    rule = privacy.PerLayerClip(clip_norm=3.0, scale="weight_relative")
    params = {
      "a": jnp.array([1.0]),
      "b": jnp.array([2.0]),
      "c": jnp.array([2.0]),
    }
    np.testing.assert_allclose(rule.scales((), params), [1, 2, 2], rtol=1e-6)
    assert rule.sensitivity((), 1, "add_remove") == 3
    assert rule.sensitivity((), 8, "add_remove") == 6


class TestQuantile:
  def test_step(self):
    """KAT-11."""
    rule = privacy.QuantileClip(expected_units=1)

    def step(b):
      return float(rule.step(jnp.float32(1), jnp.float32(b)))

    np.testing.assert_allclose(
      [step(0.8), step(0.2)], [0.941765, 1.061837], rtol=1e-6
    )

  def test_budget_split(self):
    """KAT-11: the gradient's share of sigma 1."""
    for sigma_b, want in ((1.0, 1.154701), (12.8, 1.000764)):
      rule = privacy.QuantileClip(count_noise=sigma_b, expected_units=256)
      got = rule.gradient_noise_multipliers(np.array([1.0]))
      np.testing.assert_allclose(got, want, rtol=1e-6)

  def test_the_two_queries_compose_to_the_budget(self):
    """1 / sigma^2 = 1 / sigma_g^2 + 1 / (2 sigma_b)^2."""
    rule = privacy.QuantileClip(count_noise=2.0, expected_units=64)
    sigma = np.array([0.5, 1.0, 3.9])
    gradient = rule.gradient_noise_multipliers(sigma)
    np.testing.assert_allclose(gradient**-2 + 4.0**-2, sigma**-2, rtol=1e-12)

  def test_default_count_noise_is_a_twentieth(self):
    rule = privacy.QuantileClip().for_units(256)
    explicit = privacy.QuantileClip(count_noise=12.8, expected_units=256)
    np.testing.assert_allclose(
      rule.gradient_noise_multipliers(np.array([1.0])),
      explicit.gradient_noise_multipliers(np.array([1.0])),
    )

  def test_update_counts_units_over_the_expected_number(self):
    """Without noise: 3 of 4 units unclipped, 8 expected."""
    rule = privacy.QuantileClip(count_noise=1e-9, expected_units=8)
    new = rule.update(
      rule.init(),
      jnp.array([0.1, 0.2, 0.3, 5.0, 0.0]),
      jnp.array([True] * 4 + [False]),
      jax.random.key(0),
    )
    share = (3 * 0.5 - 0.5) / 8 + 0.5
    np.testing.assert_allclose(new, np.exp(-0.2 * (share - 0.5)), rtol=1e-6)

  def test_finds_the_median(self):
    rule = privacy.QuantileClip(clip_norm=5.0, expected_units=200)
    norms = jnp.asarray(
      np.random.default_rng(0).lognormal(0, 1, 200), jnp.float32
    )
    state = rule.init()
    for i in range(60):
      state = rule.update(state, norms, jnp.ones(200, bool), jax.random.key(i))
    np.testing.assert_allclose(state, np.median(norms), rtol=0.2)

  def test_noise_on_the_count_has_the_stated_size(self):
    """Std over 4,000 draws: within 5 % with probability above 0.9999."""
    rule = privacy.QuantileClip(count_noise=3.0, expected_units=10)
    states = jax.vmap(
      lambda k: rule.update(rule.init(), jnp.zeros(1), jnp.zeros(1, bool), k)
    )(jax.random.split(jax.random.key(0), 4000))
    noise = np.log(states) / -0.2 * 10
    np.testing.assert_allclose(np.std(noise), 3.0, rtol=0.05)

  def test_one_record_moves_the_count_by_half_a_unit(self):
    rule = privacy.QuantileClip(count_noise=1e-9, expected_units=10)

    def run(valid, norm):
      return float(
        -jnp.log(
          rule.update(
            rule.init(),
            jnp.array([norm, 0.2]),
            jnp.asarray(valid),
            jax.random.key(0),
          )
        )
        / 0.2
        * 10
      )

    for norm in (0.1, 100.0):
      moved = abs(run([True, True], norm) - run([False, True], norm))
      np.testing.assert_allclose(moved, 0.5, rtol=1e-4)

  def test_refuses_more_noise_than_the_count_can_pay(self):
    rule = privacy.QuantileClip(count_noise=1.0, expected_units=20)
    with pytest.raises(ValueError, match="count_noise: got 1.0.*exceed 1.5"):
      rule.gradient_noise_multipliers(np.array([3.0]))

  def test_refuses_a_different_number_of_units(self):
    with pytest.raises(ValueError, match="expected_units: got 5; the plan's"):
      privacy.QuantileClip(expected_units=5).for_units(6)

  def test_needs_the_number_of_units(self):
    with pytest.raises(ValueError, match="expected_units: got None"):
      privacy.QuantileClip().gradient_noise_multipliers(np.array([1.0]))


@pytest.mark.parametrize(
  ("group", "adjacency", "factor"),
  [
    (1, "add_remove", 1),
    (1, "zero_out", 1),
    (1, "replace_one", 2),
    (8, "add_remove", 2),
    (8, "zero_out", 2),
    (8, "replace_one", 2),
  ],
)
def test_sensitivity_in_clip_norms(group, adjacency, factor):
  assert privacy.sensitivity_in_clip_norms(group, adjacency) == factor
  rule = privacy.ThresholdClip(clip_norm=0.5)
  assert rule.sensitivity((), group, adjacency) == 0.5 * factor


@chex.all_variants(with_pmap=False)
def _check_factors(self):
  rule = privacy.ThresholdClip(clip_norm=2.0)
  factors = self.variant(rule.factors)(
    jnp.array([[1.0], [2.0], [8.0]]), jnp.array([2.0])
  )
  np.testing.assert_allclose(factors, [[1.0], [1.0], [0.25]], rtol=2e-6)


class TestVariants(chex.TestCase):
  test_factors = _check_factors


@pytest.mark.parametrize(
  ("make", "message"),
  [
    (lambda: privacy.ThresholdClip(clip_norm=0), "clip_norm: got 0"),
    (lambda: privacy.ThresholdClip(clip_norm=np.nan), "clip_norm: got nan"),
    (lambda: privacy.AutoClip(gamma=-1.0), "gamma: got -1.0"),
    (lambda: privacy.PerLayerClip(floor=0.0), "floor: got 0.0"),
    (lambda: privacy.PerLayerClip(depth=0), "depth: got 0"),
    (lambda: privacy.PerLayerClip(gamma=-1.0), "gamma: got -1.0"),
    (lambda: privacy.QuantileClip(quantile=1.5), "quantile: got 1.5"),
    (
      lambda: privacy.QuantileClip(learning_rate=0.0),
      "learning_rate: got 0.0",
    ),
    (
      lambda: privacy.make_rule("norm"),
      r"rule: got 'norm'; allowed are \['auto', 'per_layer'",
    ),
    (
      lambda: privacy.make_rule("threshold", gamma=0.1),
      r"rule 'threshold': got unknown fields \['gamma'\]; allowed are"
      r" \['clip_norm'\]",
    ),
  ],
)
def test_bad_input(make, message):
  with pytest.raises(ValueError, match=message):
    make()
