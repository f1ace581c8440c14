"""The activity model of devices."""

import numpy as np
import pytest

from trustjax import federated


def test_lognormal_activity_has_its_known_quantiles():
  counts = federated.lognormal_activity(200_000, np.random.default_rng(0))
  assert counts.min() == 1
  assert np.median(counts) == 7
  # Standard error of the mean of exp(N(ln 7, 1.5)) here: about 0.14.
  assert abs(counts.mean() - 21.6) < 0.6
  assert abs(np.quantile(counts, 0.99) - 226) < 10
  assert abs(np.mean(counts <= 5) - 0.43) < 0.01


def test_zipf_activity_falls_with_rank():
  counts = federated.zipf_activity(100, np.random.default_rng(0), largest=60)
  assert sorted(counts)[::-1][:4] == [60, 30, 20, 15]
  assert counts.min() == 1
  assert not np.array_equal(counts, np.sort(counts)[::-1])


def test_scaling_meets_the_total_and_keeps_the_proportions():
  activity = np.array([1.0, 2.0, 7.0])
  assert federated.scale_to_total(activity, 13).tolist() == [2, 3, 8]
  assert federated.scale_to_total(activity, 3).tolist() == [1, 1, 1]
  many = federated.scale_to_total(np.random.default_rng(0).pareto(1, 999), 5000)
  assert many.sum() == 5000 and many.min() >= 1


def test_deciles_are_equal_in_size_and_ordered():
  activity = np.random.default_rng(0).integers(0, 50, 1000)
  deciles = federated.activity_deciles(activity)
  assert np.bincount(deciles).tolist() == [100] * 10
  for low in range(9):
    assert activity[deciles == low].max() <= activity[deciles == low + 1].min()


@pytest.mark.parametrize(
  ("call", "message"),
  [
    (lambda rng: federated.lognormal_activity(0, rng), "num_clients: got 0"),
    (lambda rng: federated.lognormal_activity(3, rng, median=0), "median"),
    (lambda rng: federated.zipf_activity(3, rng, exponent=0.0), "exponent"),
    (lambda rng: federated.scale_to_total(np.ones(5), 4), "total: got 4"),
    (lambda rng: federated.scale_to_total(np.zeros(2), 4), "activity"),
  ],
)
def test_impossible_activities_are_refused(call, message):
  with pytest.raises(ValueError, match=message):
    call(np.random.default_rng(0))
