"""Intervals: scipy as the second opinion, known answers, coverage."""

import dataclasses

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from scipy import stats

from trustjax import reporting


def test_mean_interval_equals_scipy():
  values = [0.95, 0.96, 0.985, 0.91]
  found = reporting.mean_interval(values)
  low, high = stats.t.interval(
    0.95, 3, loc=np.mean(values), scale=stats.sem(values)
  )
  assert found.estimate == pytest.approx(0.95125)
  assert (found.low, found.high) == pytest.approx((low, high))
  assert found.n == 4


def test_mean_interval_of_three_seeds_by_hand():
  # t_{0.975, 2} = 4.302653, s = 0.01, half-width 4.302653 * 0.01 / sqrt(3).
  found = reporting.mean_interval([0.96, 0.97, 0.98])
  assert found.low == pytest.approx(0.97 - 0.0248414, abs=1e-7)


def test_one_seed_has_an_estimate_and_no_ends():
  found = reporting.mean_interval([0.97])
  assert (found.estimate, found.low, found.high) == (0.97, None, None)
  assert not found.has_ends
  assert not reporting.bootstrap_median([3.0]).has_ends


@pytest.mark.parametrize(
  ("successes", "trials", "low", "high"),
  # Clopper-Pearson: 0 of n has the closed form 1 - 0.025^(1/n).
  [
    (0, 10, 0.0, 0.3084971),
    (10, 10, 0.6915029, 1.0),
    (5, 10, 0.187086, 0.812914),
  ],
)
def test_clopper_pearson_known_answers(successes, trials, low, high):
  found = reporting.clopper_pearson(successes, trials)
  assert (found.low, found.high) == pytest.approx((low, high), abs=1e-6)


@pytest.mark.parametrize("method", ["exact", "wilson"])
@pytest.mark.parametrize("counts", [(0, 7), (3, 7), (7, 7), (650, 700)])
@pytest.mark.parametrize("confidence", [0.9, 0.99])
def test_proportions_equal_scipy(method, counts, confidence):
  ours = {
    "exact": reporting.clopper_pearson,
    "wilson": reporting.wilson,
  }[method](*counts, confidence=confidence)
  theirs = stats.binomtest(*counts).proportion_ci(confidence, method)
  assert (ours.low, ours.high) == pytest.approx(
    (theirs.low, theirs.high), abs=1e-9
  )
  assert ours.n == counts[1]


@hypothesis.given(st.integers(1, 300), st.data())
@hypothesis.settings(max_examples=60, deadline=None)
def test_clopper_pearson_is_wider_than_wilson_in_the_middle(trials, data):
  successes = data.draw(st.integers(0, trials))
  for method in (reporting.clopper_pearson, reporting.wilson):
    found = method(successes, trials)
    mirrored = method(trials - successes, trials)
    assert 0 <= found.low <= found.estimate <= found.high <= 1
    assert found.low == pytest.approx(1 - mirrored.high, abs=1e-9)


def test_clopper_pearson_never_undercovers():
  trials, p = 20, 0.13
  covered = sum(
    stats.binom.pmf(k, trials, p)
    for k in range(trials + 1)
    if (found := reporting.clopper_pearson(k, trials)).low <= p <= found.high
  )
  assert covered >= 0.95


def test_bootstrap_median_equals_scipy_up_to_resampling():
  values = np.random.default_rng(0).lognormal(size=41)
  ours = reporting.bootstrap_median(values)
  theirs = stats.bootstrap(
    (values,), np.median, method="percentile", rng=np.random.default_rng(1)
  ).confidence_interval
  assert ours.estimate == np.median(values)
  # The bootstrap distribution sits on a few order statistics.
  assert (ours.low, ours.high) == pytest.approx(
    (theirs.low, theirs.high), abs=0.1
  )


def test_bootstrap_is_reproducible_and_addressed_by_its_seed():
  values = np.random.default_rng(0).normal(1.0, 0.1, 15)
  assert reporting.bootstrap_median(values) == reporting.bootstrap_median(
    values
  )
  assert reporting.bootstrap_median(
    values, num_resamples=200
  ) != reporting.bootstrap_median(values, num_resamples=200, seed=1)


def test_paired_ratio_cancels_what_slows_whole_rounds():
  generator = np.random.default_rng(0)
  mood = generator.uniform(0.5, 2.0, 25)
  below = mood * 0.1
  above = mood * 0.13
  paired = reporting.bootstrap_ratio_of_medians(above, below)
  apart = reporting.bootstrap_ratio_of_medians(above, below, paired=False)
  assert (paired.low, paired.high) == pytest.approx((1.3, 1.3))
  assert apart.high - apart.low > 0.2


def test_ratio_interval_covers_at_the_nominal_rate():
  # 200 experiments at 95 %: fewer than 180 successes has probability < 0.002,
  # and the percentile bootstrap of a median errs on the wide side.
  generator = np.random.default_rng(3)
  covered = 0
  for _ in range(200):
    above = 1.2 * generator.lognormal(0, 0.1, 15)
    below = generator.lognormal(0, 0.1, 15)
    found = reporting.bootstrap_ratio_of_medians(
      above, below, num_resamples=400
    )
    covered += found.low <= 1.2 <= found.high
  assert covered >= 180


@pytest.mark.parametrize(
  ("call", "message"),
  [
    (lambda: reporting.mean_interval([]), "one or more"),
    (lambda: reporting.mean_interval([1.0, np.nan]), r"values\[1\]: got nan"),
    (
      lambda: reporting.mean_interval([1.0, 2.0], confidence=1.0),
      "strictly between 0 and 1",
    ),
    (lambda: reporting.wilson(3, 2), "got 3 of 2"),
    (lambda: reporting.clopper_pearson(0, 0), "at least one trial"),
    (
      lambda: reporting.bootstrap_ratio_of_medians([1.0, 2.0], [1.0]),
      "got 2 and 1 rounds",
    ),
    (
      lambda: reporting.bootstrap_ratio_of_medians([1.0], [0.0]),
      "must be positive",
    ),
    (lambda: reporting.Interval(float("nan")), "finite"),
    (lambda: reporting.Interval(1.0, 0.5), "both or neither"),
    (lambda: reporting.Interval(1.0, 2.0, 3.0), "in this order"),
    (lambda: reporting.Interval(1.0, 1.0, float("inf")), "finite"),
    (lambda: reporting.Interval(1.0, n=0), "at least 1"),
  ],
)
def test_bad_input_is_named(call, message):
  with pytest.raises(ValueError, match=message):
    call()


def test_interval_is_frozen_and_plain():
  found = reporting.Interval(np.float64(0.5), np.float64(0.4), np.float64(0.6))
  assert type(found.estimate) is type(found.low) is float
  with pytest.raises(dataclasses.FrozenInstanceError):
    found.estimate = 1.0
  assert reporting.Interval.exact(2.0) == reporting.Interval(2.0, 2.0, 2.0, 1)
