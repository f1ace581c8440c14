"""Claims of a paper, checked against an interval."""

import dataclasses
from typing import Literal

from trustjax.reporting import _intervals

Verdict = Literal["HOLDS", "FAILS", "UNDECIDED"]
Relation = Literal["at_most", "at_least"]
VERDICTS: tuple[Verdict, ...] = ("HOLDS", "FAILS", "UNDECIDED")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Claim:
  """A statement "this number is at most (at least) that threshold".

  Attributes:
    name: Short name, the key `claim/<name>` of the record.
    estimate: The number measured in this run, or None with a reason.
    relation: "at_most" or "at_least".
    threshold: What the claim compares with.
    source: Where it is claimed, such as "Table 2 of the paper".
    reason: Why there is no estimate.
  """

  name: str
  estimate: _intervals.Interval | None
  relation: Relation
  threshold: float
  source: str
  reason: str = ""

  def __post_init__(self):
    if self.relation not in ("at_most", "at_least"):
      raise ValueError(
        f"relation: got {self.relation!r}; allowed are 'at_most' and 'at_least'"
      )
    if self.estimate is None and not self.reason:
      raise ValueError(
        f"claim {self.name!r}: an estimate of None needs a reason"
      )

  @property
  def verdict(self) -> Verdict:
    """HOLDS or FAILS when the whole interval says so, else UNDECIDED."""
    if self.estimate is None:
      return "UNDECIDED"
    low, high = self.estimate.low, self.estimate.high
    if low is None or high is None:
      return "UNDECIDED"
    if self.relation == "at_most":
      return _verdict(high <= self.threshold, low > self.threshold)
    return _verdict(low >= self.threshold, high < self.threshold)


def _verdict(holds: bool, fails: bool) -> Verdict:
  return "HOLDS" if holds else "FAILS" if fails else "UNDECIDED"


def meets_bar(measured: _intervals.Interval, *, at_most: float) -> bool:
  """Whether a speed bar "at most x" is met.

  It is when the lower end of the interval is below x and the estimate is
  below 1.1 x: machine noise may not fail a step that is fast enough, and may
  not pass one that is a tenth too slow. This is weaker than a `Claim`.

  Args:
    measured: A ratio with its interval.
    at_most: The bar x.

  Returns:
    True if the bar is met.
  """
  low = measured.estimate if measured.low is None else measured.low
  return low < at_most and measured.estimate < 1.1 * at_most
