"""Measured fairness metrics: from their results to record, table, figure."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from trustjax import reporting

# Resamples behind an interval.
NUM_BOOT = 1000


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measured:
  """One number about one model.

  Attributes:
    value: The estimate; nan where it is undefined.
    n: Items behind it.
    low: Lower end of its interval, or None.
    high: Upper end, or None.
    ideal: What a fair model would get.
    null: What chance alone gives at these sizes, where that is not the ideal:
      its mean, and what it stays within in 95 of 100 cases.
    reason: Why the value is undefined.
  """

  value: float
  n: int
  low: float | None = None
  high: float | None = None
  ideal: float = 0.0
  null: tuple[float, float] | None = None
  reason: str = ""

  def cell(self) -> reporting.Interval | reporting.Missing:
    """For a table."""
    if not math.isfinite(self.value):
      return reporting.Missing(self.reason or "undefined for these records")
    ends = (self.low, self.high)
    if any(end is None or not math.isfinite(end) for end in ends):
      return reporting.Interval(self.value, n=max(1, self.n))
    low, high = ends
    assert low is not None and high is not None  # Checked above.
    return reporting.Interval(
      self.value,
      # A percentile interval of a folded gap may miss its own estimate.
      min(low, self.value),
      max(high, self.value),
      max(1, self.n),
    )


Measures = dict[str, Measured]


def measured(
  value: Any, n: Any, low: Any = None, high: Any = None, **more: Any
) -> Measured:
  """A `Measured` of array scalars."""
  return Measured(
    value=float(value),
    n=int(n),
    low=None if low is None else float(low),
    high=None if high is None else float(high),
    **more,
  )


def record(results: reporting.Results, measures: Mapping[str, Measured]):
  """Sets `<metric>/<test>/value` with its ends, `/n` and `/ideal`.

  Args:
    results: The record.
    measures: Name to number.
  """
  for name, one in measures.items():
    cell = one.cell()
    if isinstance(cell, reporting.Missing):
      results.set(f"{name}/value", None, reason=cell.reason)
    else:
      results.measure(f"{name}/value", cell)
    results.set(f"{name}/n", one.n)
    results.set(f"{name}/ideal", one.ideal)
    if one.null is not None and all(map(math.isfinite, one.null)):
      results.set(f"{name}/null_mean", one.null[0])
      results.set(f"{name}/null_95", one.null[1])


def table(
  measures: Mapping[str, Measured], *, title: str, notes: Sequence[str] = ()
) -> reporting.Table:
  """One row a metric: value, interval, noise floor, ideal, items."""
  rows = []
  for name, one in measures.items():
    row: dict[str, Any] = {
      "metric": name,
      "value": one.cell(),
      "ideal": one.ideal,
      "n": one.n,
    }
    if one.null is not None and all(map(math.isfinite, one.null)):
      row["null"] = one.null[1]
    rows.append(row)
  return reporting.Table(
    columns=[
      reporting.Column("metric"),
      reporting.Column("value"),
      reporting.Column("null", "95 % of chance", format=".3f"),
      reporting.Column("ideal", format=".3g"),
      reporting.Column("n", format=",d"),
    ],
    rows=rows,
    title=title,
    notes=notes,
  )


def plot(measures: Mapping[str, Measured], *, title: str):
  """Every metric with its interval against its ideal, one panel a scale.

  Args:
    measures: Name to number.
    title: Above the figure.

  Returns:
    The figure.
  """
  groups: dict[str, Measures] = {}
  for name, one in measures.items():
    if math.isfinite(one.value):
      groups.setdefault(_scale(one), {})[name] = one
  longest = max(map(len, groups.values()))
  figure, panels = reporting.new_figure(
    panels=len(groups), panel_size=(5.2, 0.9 + 0.24 * longest), title=title
  )
  for axis, (scale, shown) in zip(panels, groups.items()):
    names = list(shown)[::-1]
    for row, name in enumerate(names):
      one, cell = shown[name], shown[name].cell()
      if isinstance(cell, reporting.Interval) and cell.has_ends:
        ends = np.array([cell.low, cell.high], float)
        axis.plot(ends, [row, row], color="#1b6ca8", lw=1.6)
      axis.plot(one.value, row, "o", color="#1b6ca8", ms=4)
      axis.plot(one.ideal, row, "|", color="#444444", ms=9)
      if one.null is not None and math.isfinite(one.null[1]):
        axis.plot(one.null[1], row, "x", color="#c2571a", ms=4)
    axis.set_yticks(np.arange(len(names)), names)
    axis.set_ylim(-0.6, len(names) - 0.4)
    axis.set_xlabel(scale)
    axis.grid(axis="y", visible=False)
  return figure


def _scale(one):
  if one.ideal == 50 or one.ideal == 100:
    return "per cent (bar: ideal)"
  if one.ideal == 1:
    return "AUC or ratio (bar: ideal)"
  if one.null is not None or 0 <= one.value <= 1:
    return "gap (bar: ideal; cross: 95 % of chance)"
  return "effect (bar: ideal)"


def cell(
  results: reporting.Results, key: str
) -> reporting.Interval | reporting.Missing | None:
  """An entry of a record, for a table."""
  if key not in results:
    return None
  found = results.interval(key)
  return reporting.Missing(results.reason(key)) if found is None else found


def print_finished(workdir: Any, table: reporting.Table) -> None:
  """Shows the table, and where the files are."""
  reporting.print_table(table)
  print(f"\nFiles: {workdir}/results.json, table.md, table.csv, figures/")
