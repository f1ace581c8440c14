"""Noise schedules: their formulas, and what they refuse."""

import numpy as np
import pytest

from trustjax import privacy


@pytest.mark.parametrize(
  ("fields", "want"),
  [
    ({"kind": "constant"}, [1, 1, 1, 1, 1, 1]),
    (
      {"kind": "exponential", "decay": 0.5, "period": 2},
      [1, 1, 0.5, 0.5, 0.25, 0.25],
    ),
    (
      {"kind": "inverse", "decay": 1.0, "period": 2},
      [1, 1, 1 / 2, 1 / 2, 1 / 3, 1 / 3],
    ),
    (
      {"kind": "linear", "final": 0.5, "period": 2},
      [1, 1, 0.75, 0.75, 0.5, 0.5],
    ),
    (
      {"kind": "step", "decay": 0.1, "period": 1, "every": 3},
      [1, 1, 1, 0.1, 0.1, 0.1],
    ),
  ],
  ids=lambda x: x["kind"] if isinstance(x, dict) else "",
)
def test_factors(fields, want):
  got = privacy.NoiseSchedule(**fields).factors(6)
  np.testing.assert_allclose(got, want)
  assert got.dtype == np.float64


@pytest.mark.parametrize(
  ("fields", "message"),
  [
    ({"kind": "cosine"}, "schedule.kind: got 'cosine'; allowed are"),
    ({"period": 0}, "schedule.period: got 0"),
    ({"every": 0}, "schedule.every: got 0"),
    ({"kind": "exponential", "decay": 0.0}, "schedule.decay: got 0.0"),
    ({"kind": "inverse", "decay": -0.1}, "schedule.decay: got -0.1"),
    ({"final": 0.0}, "schedule.final: got 0.0"),
  ],
)
def test_bad_input(fields, message):
  with pytest.raises(ValueError, match=message):
    privacy.NoiseSchedule(**fields)


def test_linear_over_one_epoch_is_constant():
  schedule = privacy.NoiseSchedule(kind="linear", final=0.5, period=10)
  np.testing.assert_allclose(schedule.factors(4), 1.0)
