"""Epsilon against known answers, one row of a family by default."""

import math

import numpy as np
import pytest

from trustjax import privacy
from trustjax.privacy import _accounting

SNIPS, ATIS, NLU = 13_084, 4_478, 9_960


def mechanism(rate, sigma, steps, **fields):
  return privacy.Mechanism(
    sampling_rate=rate, noise_multiplier=sigma, num_steps=steps, **fields
  )


def rows(*cases):
  """The first case runs by default, the others with -m slow."""
  first, *rest = cases
  return [first, *(pytest.param(*c, marks=pytest.mark.slow) for c in rest)]


@pytest.mark.parametrize(
  ("rate", "sigma", "steps", "delta", "rdp", "pld"),
  rows(
    (0.01, 4, 10_000, 1e-5, 1.035490, 0.946999),
    (0.01, 1, 1000, 1e-5, 2.101367, 1.828244),
    (0.01, 1.1, 14_040, 1e-5, 6.824809, 6.307346),
    (256 / 60_000, 1.1, 14_062, 1e-5, 2.596556, 2.381686),
    (256 / 60_000, 1.3, 3515, 1e-5, 0.954430, 0.864459),
    (0.004, 0.7, 10_000, 1e-5, 5.772957, 5.121064),
    (0.04, 1.5, 2250, 1e-5, 7.329335, 6.768787),
    (0.01, 0.8, 10_000, 1e-6, 12.049626, 11.183190),
    (0.001, 0.6, 100_000, 1e-6, 7.756428, 6.961157),
    (0.1, 3, 512, 1e-6, 4.050970, 3.769687),
    (4096 / 50_000, 2, 1000, 1e-5, 7.080941, 6.540468),
    (0.02, 2, 5000, 1e-5, 3.483400, 3.208776),
    (150 / 60_000, 1.3, 6000, 1e-5, 0.7242234026, 0.640111),
    (100 / 100_000, 1.0, 30_000, 1e-7, 1.4154988495, 1.098200),
    (1.0, 10, 100, 1e-5, 4.728507, 4.377178),
  ),
)
def test_poisson(rate, sigma, steps, delta, rdp, pld):
  got = mechanism(rate, sigma, steps).epsilon(delta)
  np.testing.assert_allclose(got.rdp, rdp, rtol=1e-6)
  np.testing.assert_allclose(got.pld, pld, rtol=1e-6)


# Data size, batch, steps, sigma, then RDP / PLD by sensitivity: naive, clip
# groups, twelve per-layer noises. Printed to the digits of the source.
TABLE = [
  (SNIPS, 256, 511, 2.0, (1.002, 0.909), (3.104, 2.737), (13.12, 11.38)),
  (SNIPS, 32, 4089, 0.5, (8.96, 7.51), (109.1, 97.1), (764.9, 488.3)),
  (SNIPS, 32, 4089, 1.0, (1.07, 0.79), (8.96, 7.51), (66.9, 58.8)),
  (SNIPS, 32, 4089, 2.0, (0.31, 0.28), (1.07, 0.79), (5.34, 4.38)),
  (SNIPS, 256, 511, 1.0, (3.104, 2.737), (20.01, 17.42), (108.1, 89.4)),
  (SNIPS, 256, 511, 1.5, (1.494, 1.352), (6.291, 5.457), (30.79, 26.83)),
  (ATIS, 32, 1399, 1.0, (1.75, 1.49), (13.58, 11.66), (84.7, 73.6)),
  (ATIS, 32, 1399, 2.0, (0.57, 0.52), (1.75, 1.49), (8.45, 7.19)),
  (ATIS, 256, 175, 1.0, (5.80, 5.15), (29.7, 26.0), (193.0, 107.3)),
  (ATIS, 256, 175, 2.0, (1.86, 1.69), (5.80, 5.15), (20.5, 18.0)),
  (NLU, 256, 389, 1.0, (3.65, 3.22), (22.2, 19.3), None),
  (NLU, 256, 389, 2.0, (1.17, 1.06), (3.65, 3.22), None),
]


@pytest.mark.parametrize(
  ("records", "batch", "steps", "sigma", "naive", "groups", "layers"),
  rows(*TABLE),
)
def test_table_of_naive_and_correct(
  records, batch, steps, sigma, naive, groups, layers
):
  factors = ((1.0, naive), (2.0, groups), (math.sqrt(12), layers))
  for factor, want in factors:
    if want is None:
      continue
    run = mechanism(batch / records, sigma, steps, sensitivity_factor=factor)
    bounds = run.epsilon(1e-5)
    for got, printed in zip((bounds.rdp, bounds.pld), want):
      half_a_unit = 0.5 * 10.0 ** -_decimals(printed)
      np.testing.assert_allclose(
        got, printed, rtol=0.01, atol=half_a_unit * (1 + 1e-9)
      )


def _decimals(number):
  return len(str(number).partition(".")[2])


@pytest.mark.parametrize(
  ("decay", "naive", "groups"),
  rows(
    (0.0, (1.49, 1.35), (6.29, 5.45)),
    (0.05, (2.24, 1.96), (12.7, 11.0)),
    (0.1, (3.78, 3.16), (24.7, 21.2)),
    (0.2, (9.79, 8.25), (74.5, 57.1)),
  ),
)
def test_noise_decay(decay, naive, groups):
  schedule = privacy.NoiseSchedule(kind="inverse", decay=decay, period=51)
  for factor, want in ((1.0, naive), (2.0, groups)):
    got = mechanism(
      256 / SNIPS, 1.5, 510, schedule=schedule, sensitivity_factor=factor
    ).epsilon(1e-5)
    np.testing.assert_allclose((got.rdp, got.pld), want, rtol=0.01)


@pytest.mark.parametrize(
  ("sigma", "naive", "groups"),
  [(1, 17.86, 46.21), (1.5, 10.67, 26.18), (2, 7.51, 17.86), (4, 3.34, 7.51)],
)
def test_shuffled_without_amplification(sigma, naive, groups):
  for factor, want in ((1.0, naive), (2.0, groups)):
    got = mechanism(
      256 / SNIPS,
      sigma,
      510,
      sampler="shuffled",
      adjacency="zero_out",
      num_records=SNIPS,
      sensitivity_factor=factor,
    ).epsilon(1e-5)
    np.testing.assert_allclose(got.pld, want, atol=0.0051)
    assert got.rdp > got.pld


def test_shuffled_charges_the_least_noise_of_each_epoch():
  """Within an epoch a record may meet the quietest step; never the average."""
  rising = privacy.NoiseSchedule(kind="step", decay=2.0, period=1)
  got = mechanism(
    0.25,
    1.0,
    4,
    sampler="shuffled",
    adjacency="zero_out",
    num_records=100,
    schedule=rising,
  ).epsilon(1e-5)
  np.testing.assert_allclose(got.pld, privacy.gaussian_epsilon(1.0, 1e-5))


def test_shuffled_replace_one_is_twice_zero_out():
  fields = dict(sampler="shuffled", num_records=100)
  replace = mechanism(0.1, 2.0, 20, adjacency="replace_one", **fields)
  zero_out = mechanism(0.1, 1.0, 20, adjacency="zero_out", **fields)
  np.testing.assert_allclose(
    replace.epsilon(1e-5).pld, zero_out.epsilon(1e-5).pld, rtol=1e-9
  )


@pytest.mark.parametrize(
  ("capacity", "epsilon"),
  rows((304, 4.451), (384, 2.737), (320, 2.830), (288, 6.377), (256, 14.208)),
)
def test_truncated_snips(capacity, epsilon):
  got = mechanism(
    256 / SNIPS,
    1.0,
    511,
    sampler="truncated_poisson",
    adjacency="zero_out",
    capacity=capacity,
    num_records=SNIPS,
  ).epsilon(1e-5)
  np.testing.assert_allclose(got.pld, epsilon, atol=0.0006)
  assert got.rdp is None and "truncated" in got.rdp_reason


@pytest.mark.slow
@pytest.mark.parametrize(
  ("capacity", "epsilon"),
  [(640, 5.994161), (700, 1.879227), (800, 1.828244)],
)
def test_truncated_60000(capacity, epsilon):
  got = mechanism(
    0.01,
    1.0,
    1000,
    sampler="truncated_poisson",
    adjacency="zero_out",
    capacity=capacity,
    num_records=60_000,
  ).epsilon(1e-5)
  np.testing.assert_allclose(got.pld, epsilon, rtol=1e-6)


@pytest.mark.parametrize(
  ("adjacency", "epsilon"),
  [
    ("add_remove", 1.828244),
    ("zero_out", 1.828244),
    ("replace_one", 2.843446),
  ],
)
def test_adjacencies(adjacency, epsilon):
  got = mechanism(0.01, 1.0, 1000, adjacency=adjacency).epsilon(1e-5)
  np.testing.assert_allclose(got.pld, epsilon, rtol=1e-6)
  assert (got.rdp is None) == (adjacency == "replace_one")


@pytest.mark.slow
@pytest.mark.parametrize(("sigma", "epsilon"), [(1.0, 4.161), (2.0, 1.746)])
def test_replace_one_snips(sigma, epsilon):
  got = mechanism(256 / SNIPS, sigma, 511, adjacency="replace_one")
  np.testing.assert_allclose(got.epsilon(1e-5).pld, epsilon, atol=0.0006)


def test_replace_one_without_sampling_doubles_the_sensitivity():
  got = mechanism(1.0, 2.0, 10, adjacency="replace_one").epsilon(1e-5)
  np.testing.assert_allclose(got.pld, 17.857, atol=0.0006)


@pytest.mark.parametrize(
  ("mu", "epsilon"), [(0.5, 1.9931), (1, 4.377178), (2, 9.9973)]
)
def test_gaussian_curve(mu, epsilon):
  np.testing.assert_allclose(
    privacy.gaussian_epsilon(mu, 1e-5), epsilon, atol=6e-5
  )


def test_gaussian_curve_is_calibrated():
  """(eps 1, delta 1e-6) needs sigma 4.224678889."""
  got = privacy.gaussian_epsilon(1 / 4.224678889, 1e-6)
  np.testing.assert_allclose(got, 1.0, rtol=1e-8)
  assert privacy.gaussian_epsilon(0.0, 1e-5) == 0
  assert privacy.gaussian_epsilon(1e-9, 0.1) == 0


def test_ten_pieces_equal_one():
  pieces = privacy.NoiseSchedule(kind="exponential", decay=1.0, period=51)
  got = mechanism(256 / SNIPS, 1.0, 510, schedule=pieces).epsilon(1e-5)
  np.testing.assert_allclose(got.pld, 2.7344, atol=5e-5)
  assert got == mechanism(256 / SNIPS, 1.0, 510).epsilon(1e-5)


def test_a_schedule_with_many_values_is_rounded_to_the_safe_side():
  """Less noise than was added, never more, in few distinct pieces."""
  values = np.random.default_rng(0).uniform(0.5, 2.0, 1000)
  pieces = _accounting.merge_pieces(values)
  assert len(pieces) == 64
  assert sum(piece.num_steps for piece in pieces) == 1000
  rounded = np.concatenate(
    [np.full(p.num_steps, p.noise_multiplier) for p in pieces]
  )
  exact = np.sort(values)[::-1]
  assert np.all(rounded <= exact)
  assert np.all(rounded >= 0.977 * exact)


def test_no_noise_has_no_finite_epsilon():
  assert mechanism(0.01, 0.0, 10).epsilon(1e-5).pld == math.inf


def test_epsilon_grows_with_everything_it_should():
  base = mechanism(0.01, 1.0, 100).epsilon(1e-5).pld
  assert mechanism(0.01, 1.0, 200).epsilon(1e-5).pld > base
  assert mechanism(0.02, 1.0, 100).epsilon(1e-5).pld > base
  assert mechanism(0.01, 0.9, 100).epsilon(1e-5).pld > base
  assert mechanism(0.01, 1.0, 100).epsilon(1e-6).pld > base


@pytest.mark.parametrize("delta", [0.0, 1.0, -1e-5, 2.0])
def test_delta_out_of_range(delta):
  with pytest.raises(ValueError, match=r"delta: got .* strictly in"):
    mechanism(0.01, 1.0, 10).epsilon(delta)


@pytest.mark.parametrize("rate", [0.0, -0.1, 1.01])
def test_sampling_rate_out_of_range(rate):
  with pytest.raises(ValueError, match=r"sampling_rate: got .* in \(0, 1\]"):
    mechanism(rate, 1.0, 10)


def test_prefix():
  run = mechanism(0.01, 1.0, 100)
  assert run.prefix(40) == mechanism(0.01, 1.0, 40)
  with pytest.raises(ValueError, match="num_steps: got 101; it must lie"):
    run.prefix(101)
  linear = privacy.NoiseSchedule(kind="linear", final=0.5)
  with pytest.raises(ValueError, match=r"schedule.kind: got 'linear'"):
    mechanism(0.01, 1.0, 100, schedule=linear).prefix(10)
