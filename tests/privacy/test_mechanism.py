"""Mechanisms: what they refuse, what they say, what they leave unsaid."""

import logging as python_logging
import math

import hypothesis
import numpy as np
import pytest
from absl import logging as absl_logging
from hypothesis import strategies as st

from trustjax import privacy
from trustjax.privacy import _accounting, _loss_grid, _mechanism


def mechanism(**changes):
  fields = dict(sampling_rate=0.01, num_steps=100, noise_multiplier=1.0)
  return privacy.Mechanism(**(fields | changes))


SHUFFLED = dict(
  sampler="shuffled", adjacency="zero_out", num_records=100, sampling_rate=0.1
)
TRUNCATED = dict(sampler="truncated_poisson", num_records=1000, capacity=20)


class TestBadInput:
  @pytest.mark.parametrize(
    ("changes", "message"),
    [
      ({"sampling_rate": math.nan}, r"sampling_rate: got nan"),
      ({"num_steps": 0}, r"num_steps: got 0; it must be a whole number"),
      ({"num_steps": -3}, r"num_steps: got -3"),
      ({"noise_multiplier": math.nan}, r"noise_multiplier: got nan"),
      ({"noise_multiplier": math.inf}, r"noise_multiplier: got inf"),
      ({"num_records": -5}, r"num_records: got -5"),
      ({"adjacency": "swap"}, r"adjacency: got 'swap'; allowed are"),
      ({"sampler": "cyclic"}, r"sampler: got 'cyclic'; allowed are"),
      (TRUNCATED | {"capacity": 0}, r"capacity: got 0"),
      (TRUNCATED | {"capacity": None}, r"capacity: got None"),
      (TRUNCATED | {"num_records": None}, r"num_records: got None"),
      (SHUFFLED | {"num_records": None}, r"num_records: got None"),
      (
        SHUFFLED | {"adjacency": "add_remove"},
        r"'add_remove' with the sampler",
      ),
      (SHUFFLED | {"sampling_rate": 0.109}, r"means a batch of 10\.9"),
      (SHUFFLED | {"sampling_rate": 1e-9}, r"whole batch size over 100"),
    ],
  )
  def test_is_refused_by_name(self, changes, message):
    with pytest.raises(ValueError, match=message):
      mechanism(**changes)

  @pytest.mark.parametrize("factor", [0.0, 0.5, math.inf, math.nan])
  def test_a_sensitivity_below_the_clip_norm_is_refused(self, factor):
    """It would buy a smaller epsilon by a typing error."""
    with pytest.raises(ValueError, match=r"sensitivity_factor: got .* least 1"):
      mechanism(sensitivity_factor=factor)

  def test_truncated_lots_of_clip_groups_are_refused(self):
    with pytest.raises(ValueError, match=r"sensitivity_factor: got 2.0.*4C"):
      mechanism(**TRUNCATED, sensitivity_factor=2.0)


class TestNaive:
  def test_says_that_it_is_not_a_guarantee(self):
    groups = mechanism(sensitivity_factor=2.0)
    assert groups.naive().statement().startswith("NOT A GUARANTEE")
    assert "NOT A GUARANTEE" not in groups.statement()

  def test_is_smaller_and_that_of_a_single_record(self):
    groups = mechanism(sensitivity_factor=2.0)
    assert groups.naive().epsilon(1e-5) == mechanism().epsilon(1e-5)
    assert groups.naive().epsilon(1e-5).pld < groups.epsilon(1e-5).pld

  def test_is_the_mechanism_itself_when_nothing_is_understated(self):
    assert mechanism().naive() == mechanism()

  def test_never_equals_an_honest_mechanism(self):
    assert mechanism(sensitivity_factor=2.0).naive() != mechanism()


class TestStatement:
  @pytest.mark.parametrize(
    ("changes", "parts"),
    [
      ({}, ["one record is added or removed", "probability 0.01", "Poisson"]),
      ({"num_steps": 1}, ["enters the one lot independently"]),
      ({"sensitivity_factor": 2.0}, ["sum of sensitivity 2 clip norms"]),
      (
        {"adjacency": "replace_one"},
        ["one record is replaced by another", "sensitivity one clip norm"],
      ),
      (TRUNCATED, ["a lot of more than 20 keeps a uniformly random subset"]),
      (SHUFFLED, ["batches of 10", "no amplification by sampling is claimed"]),
      (
        {
          "schedule": privacy.NoiseSchedule(
            kind="inverse", decay=0.1, period=10
          )
        },
        ["1 at first, 0.526316 at last", "schedule: inverse"],
      ),
    ],
  )
  def test_says_what_protects(self, changes, parts):
    text = mechanism(**changes).statement()
    for part in [*parts, "not cryptographic", "floating-point", "vocabulary"]:
      assert part in text

  def test_without_noise_nothing_is_promised(self):
    text = mechanism(noise_multiplier=0.0).statement()
    assert text.startswith("No privacy")
    assert "Unit" not in text


class TestNoNoise:
  @pytest.mark.parametrize("changes", [{}, SHUFFLED, TRUNCATED])
  @pytest.mark.parametrize("sigma", [0.0, 1e-200])
  def test_epsilon_is_infinite(self, changes, sigma):
    got = mechanism(**changes, noise_multiplier=sigma).epsilon(1e-5)
    assert got.pld == math.inf
    assert got.rdp in (None, math.inf)

  def test_a_single_silent_step_undoes_the_run(self):
    fading = privacy.NoiseSchedule(kind="exponential", decay=1e-10)
    assert mechanism(schedule=fading).epsilon(1e-5).pld == math.inf


class TestExtremes:
  """Bounds stay bounds where dp-accounting, left alone, runs out of memory."""

  @pytest.mark.parametrize(
    ("rate", "sigma", "steps"),
    [(1.0, 1.0, 10**6), (0.5, 1.0, 10**5), (0.02, 0.02, 511)],
  )
  def test_a_huge_epsilon_is_finite_and_below_the_unamplified_one(
    self, rate, sigma, steps
  ):
    run = mechanism(sampling_rate=rate, noise_multiplier=sigma, num_steps=steps)
    most = privacy.gaussian_epsilon(math.sqrt(steps) / sigma, 1e-5)
    assert 1000 < run.epsilon(1e-5).pld <= most

  def test_a_delta_below_the_accountants_rounding_has_a_bound(self):
    got = mechanism().epsilon(1e-18)
    assert math.isfinite(got.pld)
    assert got.pld > mechanism().epsilon(1e-12).pld

  @hypothesis.given(
    st.floats(1e-3, 50), st.integers(1, 10**7), st.floats(1e-6, 1 - 1e-6)
  )
  @hypothesis.settings(max_examples=60, deadline=None)
  def test_the_grid_fits_in_memory(self, sigma, steps, rate):
    got = _loss_grid.affordable_interval([sigma], [steps], rate, 1e-4)
    width, mean, variance = _loss_grid._step_loss(sigma, rate)
    assert width / got <= 2**20
    spread = steps * mean + 24 * math.sqrt(steps * variance)
    assert spread / got <= 2**23
    assert got >= 1e-4 and math.log2(got / 1e-4).is_integer()

  @pytest.mark.parametrize("distance", [1.0, 2.0, 4.0])
  @pytest.mark.parametrize(
    ("rate", "steps"), [(256 / 13_084, 511), (0.01, 1000)]
  )
  def test_the_grid_of_an_ordinary_run_is_the_accountants(
    self, distance, rate, steps
  ):
    """Or its value would not be dp-accounting's to six digits.

    The distances are those of add-remove, replace-one and truncated lots.
    """
    got = _loss_grid.affordable_interval([1 / distance], [steps], rate, 1e-4)
    assert got == 1e-4

  def test_a_wider_grid_is_looser_and_never_tighter(self):
    pieces = (_accounting.GaussianPiece(noise_multiplier=1.0, num_steps=200),)
    bounds = [
      _accounting.poisson_epsilon(pieces, 0.02, "add_remove", 1e-5, width).pld
      for width in (1e-4, 1e-3, 1e-2)
    ]
    assert bounds == sorted(bounds)
    np.testing.assert_allclose(bounds[1], bounds[0], rtol=1e-3)


class TestRenyi:
  UNSTABLE = dict(sampling_rate=0.01, num_steps=10**6, noise_multiplier=1e7)

  @pytest.mark.parametrize("level", ["warning", "fatal"])
  def test_a_lost_precision_is_never_an_epsilon_of_zero(self, level):
    """dp-accounting answers 0 and logs a line, which not everyone sees."""
    before = absl_logging.get_verbosity()
    absl_logging.set_verbosity(level)
    try:
      _mechanism.epsilon_bounds.cache_clear()
      got = mechanism(**self.UNSTABLE).epsilon(1e-5)
    finally:
      absl_logging.set_verbosity(before)
    assert got.rdp is None
    assert "precision" in got.rdp_reason

  def test_is_quiet_about_orders_and_only_about_them(self, caplog):
    """At this noise several orders do not converge, which is harmless."""
    pieces = (_accounting.GaussianPiece(noise_multiplier=0.3, num_steps=100),)
    with caplog.at_level(python_logging.DEBUG, logger="absl"):
      got = _accounting.poisson_epsilon(pieces, 0.1, "zero_out", 1e-5, 1e-2)
      absl_logging.warning("something else")
    assert got.rdp > got.pld
    assert [record.getMessage() for record in caplog.records] == [
      "something else"
    ]

  @pytest.mark.parametrize("changes", [{}, SHUFFLED])
  def test_is_looser_than_loss_distributions(self, changes):
    got = mechanism(**changes).epsilon(1e-5)
    assert got.rdp >= got.pld == got.best


class TestChanges:
  def test_replace_checks_anew(self):
    assert mechanism().replace(num_steps=7).num_steps == 7
    with pytest.raises(ValueError, match=r"num_steps: got 0"):
      mechanism().replace(num_steps=0)

  def test_effective_noise_is_noise_over_sensitivity(self):
    schedule = privacy.NoiseSchedule(kind="step", decay=0.5, every=50)
    run = mechanism(schedule=schedule, sensitivity_factor=2.0)
    np.testing.assert_array_equal(
      run.effective_noise_multipliers(), np.repeat([0.5, 0.25], 50)
    )

  @hypothesis.given(st.integers(1, 99))
  @hypothesis.settings(max_examples=5, deadline=None)
  def test_epsilon_so_far_never_exceeds_that_of_the_run(self, steps):
    run = mechanism(num_steps=100)
    assert run.prefix(steps).epsilon(1e-5).pld <= run.epsilon(1e-5).pld
