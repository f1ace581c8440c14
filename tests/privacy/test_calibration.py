"""The missing quantity for a target epsilon, against known answers."""

import numpy as np
import pytest

from trustjax import privacy


def mechanism(rate, steps, sigma=1.0, **fields):
  return privacy.Mechanism(
    sampling_rate=rate, noise_multiplier=sigma, num_steps=steps, **fields
  )


def rows(*cases):
  first, *rest = cases
  return [first, *(pytest.param(*c, marks=pytest.mark.slow) for c in rest)]


@pytest.mark.parametrize(
  ("rate", "steps", "epsilon", "delta", "pld", "rdp"),
  rows(
    (256 / 13_084, 511, 3, 1e-5, 0.958, 1.016),
    (256 / 13_084, 511, 1, 1e-5, 1.861, 2.004),
    (256 / 13_084, 511, 8, 1e-5, 0.653, 0.687),
    (256 / 4_478, 175, 1, 1e-5, 3.023, 3.276),
    (256 / 4_478, 175, 3, 1e-5, 1.351, 1.442),
    (256 / 4_478, 175, 8, 1e-5, 0.812, 0.858),
    (0.01, 1000, 1, 1e-5, 1.41463, 1.51312),
    (0.01, 1000, 2, 1e-5, 0.95910, 1.02229),
    (0.01, 1000, 8, 1e-5, 0.58626, 0.61585),
    (256 / 50_000, 9765, 3, 1e-5, 0.97168, 1.01793),
    (4096 / 50_000, 1000, 8, 1e-5, 1.73078, 1.83043),
    (0.1, 512, 1, 1e-6, 9.66183, 10.36413),
  ),
)
def test_noise_multiplier(rate, steps, epsilon, delta, pld, rdp):
  for accountant, want in (("pld", pld), ("rdp", rdp)):
    got = privacy.calibrate_noise_multiplier(
      mechanism(rate, steps), epsilon, delta, accountant=accountant
    )
    np.testing.assert_allclose(got.noise_multiplier, want, rtol=1e-3)
    reached = getattr(got.epsilon(delta), accountant)
    assert 0.998 * epsilon <= reached <= epsilon


def test_clip_groups_need_exactly_twice_the_noise():
  alone = privacy.calibrate_noise_multiplier(mechanism(0.02, 200), 3.0, 1e-5)
  groups = privacy.calibrate_noise_multiplier(
    mechanism(0.02, 200, sensitivity_factor=2.0), 3.0, 1e-5
  )
  assert groups.noise_multiplier == 2 * alone.noise_multiplier
  np.testing.assert_allclose(groups.epsilon(1e-5).pld, alone.epsilon(1e-5).pld)


@pytest.mark.parametrize(
  ("decay", "epsilon", "first"),
  [
    (0.05, 3.0, 2.443),
    pytest.param(0.1, 3.0, 3.064, marks=pytest.mark.slow),
    pytest.param(0.2, 3.0, 4.375, marks=pytest.mark.slow),
    pytest.param(0.05, 8.0, 1.676, marks=pytest.mark.slow),
    pytest.param(0.1, 8.0, 2.115, marks=pytest.mark.slow),
    pytest.param(0.2, 8.0, 3.033, marks=pytest.mark.slow),
  ],
)
@pytest.mark.slow
def test_the_whole_schedule_is_calibrated(decay, epsilon, first):
  schedule = privacy.NoiseSchedule(kind="inverse", decay=decay, period=51)
  got = privacy.calibrate_noise_multiplier(
    mechanism(256 / 13_084, 510, schedule=schedule, sensitivity_factor=2.0),
    epsilon,
    1e-5,
  )
  np.testing.assert_allclose(got.noise_multiplier, first, rtol=1.5e-3)


@pytest.mark.parametrize("factor", [1.0, 2.0, 12**0.5])
@pytest.mark.parametrize(
  "epsilon", [0.5, pytest.param(50.0, marks=pytest.mark.slow)]
)
def test_what_is_handed_out_never_exceeds_the_target(factor, epsilon):
  """Whatever the rounding of sigma times the factor did."""
  found = privacy.calibrate_noise_multiplier(
    mechanism(0.05, 20, sensitivity_factor=factor), epsilon, 1e-5
  )
  assert 0.998 * epsilon <= found.epsilon(1e-5).pld <= epsilon


def test_num_steps():
  """sigma 3, q .1, eps 2, delta 1e-6 allows 155 steps, and not 156."""
  got = privacy.calibrate_num_steps(mechanism(0.1, 1, 3.0), 2.0, 1e-6)
  assert got.num_steps == 155


def test_batch_size_is_the_largest_that_fits():
  run = mechanism(0.5, 50, 2.0)
  got = privacy.calibrate_batch_size(run, 500, 2.0, 1e-5)
  batch = round(got.sampling_rate * 500)
  assert got.epsilon(1e-5).pld <= 2.0
  assert mechanism((batch + 1) / 500, 50, 2.0).epsilon(1e-5).pld > 2.0


def test_shuffled_noise():
  run = mechanism(
    0.1, 30, sampler="shuffled", adjacency="zero_out", num_records=100
  )
  got = privacy.calibrate_noise_multiplier(run, 4.377178, 1e-5)
  np.testing.assert_allclose(got.noise_multiplier, np.sqrt(3), rtol=2e-4)


@pytest.mark.parametrize(
  ("call", "message"),
  [
    (
      lambda: privacy.calibrate_noise_multiplier(
        mechanism(1.0, 10**6), 1e-6, 1e-12
      ),
      r"target_epsilon: got 1e-06; at delta 1e-12 even a noise multiplier"
      r" of .* gives",
    ),
    (
      lambda: privacy.calibrate_num_steps(mechanism(1.0, 1, 0.3), 1.0, 1e-5),
      "target_epsilon: got 1.0; one step at noise multiplier 0.3 already gives",
    ),
    (
      lambda: privacy.calibrate_batch_size(
        mechanism(0.1, 100, 0.4), 100, 0.1, 1e-5
      ),
      "an expected batch of one record already gives",
    ),
    (
      lambda: privacy.calibrate_noise_multiplier(
        mechanism(0.1, 10), -1.0, 1e-5
      ),
      "target_epsilon: got -1.0",
    ),
    (
      lambda: privacy.calibrate_noise_multiplier(
        mechanism(0.1, 10), 1.0, 1e-5, accountant="prv"
      ),
      "accountant: got 'prv'; allowed are 'pld' and 'rdp'",
    ),
    (
      lambda: privacy.calibrate_noise_multiplier(
        mechanism(0.1, 10, adjacency="replace_one"),
        1.0,
        1e-5,
        accountant="rdp",
      ),
      "accountant: got 'rdp'; RDP has no bound for replace-one",
    ),
    (
      lambda: privacy.calibrate_batch_size(
        mechanism(
          0.1,
          10,
          sampler="shuffled",
          adjacency="zero_out",
          num_records=10,
        ),
        10,
        1.0,
        1e-5,
      ),
      "sampler: got 'shuffled'; without amplification",
    ),
  ],
)
def test_bad_input(call, message):
  with pytest.raises(ValueError, match=message):
    call()
