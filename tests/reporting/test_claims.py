"""Verdicts follow from where the interval lies."""

import dataclasses

import pytest

from trustjax import reporting


def _claim(low, estimate, high, relation, threshold=1.0):
  return reporting.Claim(
    name="ratio",
    estimate=reporting.Interval(estimate, low, high, 15),
    relation=relation,
    threshold=threshold,
    source="Table 2",
  )


@pytest.mark.parametrize(
  "low,estimate,high,at_most,at_least",
  [
    (0.7, 0.8, 0.9, "HOLDS", "FAILS"),
    (0.8, 0.9, 1.0, "HOLDS", "UNDECIDED"),
    (0.9, 0.95, 1.1, "UNDECIDED", "UNDECIDED"),
    (1.0, 1.1, 1.2, "UNDECIDED", "HOLDS"),
    (1.1, 1.2, 1.3, "FAILS", "HOLDS"),
    (1.0, 1.0, 1.0, "HOLDS", "HOLDS"),
  ],
)
def test_verdicts(low, estimate, high, at_most, at_least):
  assert _claim(low, estimate, high, "at_most").verdict == at_most
  assert _claim(low, estimate, high, "at_least").verdict == at_least


def test_a_mirrored_claim_has_the_same_verdict():
  for low, estimate, high in ((0.7, 0.8, 0.9), (0.9, 1, 1.1), (2, 3, 4)):
    mirrored = _claim(-high, -estimate, -low, "at_least", threshold=-1.0)
    assert mirrored.verdict == _claim(low, estimate, high, "at_most").verdict


def test_one_measurement_decides_nothing():
  claim = dataclasses.replace(
    _claim(0.1, 0.2, 0.3, "at_most"), estimate=reporting.Interval(0.2)
  )
  assert claim.verdict == "UNDECIDED"
  exact = dataclasses.replace(claim, estimate=reporting.Interval.exact(0.2))
  assert exact.verdict == "HOLDS"


def test_no_estimate_is_undecided_and_has_a_reason():
  claim = _claim(0.1, 0.2, 0.3, "at_most")
  with pytest.raises(ValueError, match=r"'ratio'.* needs a reason"):
    dataclasses.replace(claim, estimate=None)
  missing = dataclasses.replace(claim, estimate=None, reason="no GPU")
  assert missing.verdict == "UNDECIDED"


@pytest.mark.parametrize(
  "low,estimate,high,met",
  [
    (1.05, 1.1, 1.14, True),
    (1.14, 1.2, 1.25, True),  # Undecided as a claim, within a tenth here.
    (1.1, 1.27, 1.4, False),  # Beyond a tenth.
    (1.16, 1.2, 1.25, False),  # Surely above.
  ],
)
def test_speed_bar(low, estimate, high, met):
  measured = reporting.Interval(estimate, low, high, 15)
  assert reporting.meets_bar(measured, at_most=1.15) is met
