"""Utility against epsilon: what privacy costs, and what it is not."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from trustjax.reporting import _figures, _intervals, _results

if TYPE_CHECKING:
  import matplotlib.axes
  import matplotlib.figure

NAIVE_LABEL = "naive (not a guarantee)"


@dataclasses.dataclass(frozen=True, kw_only=True)
class UtilityPoint:
  """What an arm reached, and at which epsilon.

  Attributes:
    arm: Name of the arm.
    utility: The metric, with its interval over seeds.
    epsilon: The correct epsilon; None for an arm without a mechanism.
    epsilon_naive: Epsilon of a sensitivity that is too small, where it
      differs; None otherwise.
  """

  arm: str
  utility: _intervals.Interval
  epsilon: float | None = None
  epsilon_naive: float | None = None


def utility_points(
  results: _results.Results,
  metric: str,
  *,
  arms: Sequence[str] | None = None,
) -> list[UtilityPoint]:
  """The points of a record: `<arm>/<metric>`, `/epsilon`, `/epsilon_naive`.

  Args:
    results: The record.
    metric: Name of the metric, such as "intent_accuracy".
    arms: The arms to take; all that have the metric by default. Arms whose
      metric is null or absent are left out.

  Returns:
    One point an arm.
  """
  points = []
  for arm in results.arms() if arms is None else arms:
    key = f"{arm}/{metric}"
    utility = results.interval(key) if key in results else None
    if utility is None:
      continue
    epsilon = _number(results, f"{arm}/epsilon")
    naive = _number(results, f"{arm}/epsilon_naive")
    points.append(
      UtilityPoint(
        arm=arm,
        utility=utility,
        epsilon=epsilon,
        epsilon_naive=None if naive == epsilon else naive,
      )
    )
  return points


def _number(results: _results.Results, key: str) -> float | None:
  value = results.get(key)
  return float(value) if isinstance(value, int | float) else None


def plot_utility_against_epsilon(
  panels: Mapping[str, Sequence[UtilityPoint]],
  *,
  delta: float,
  title: str = "Utility against privacy",
) -> "matplotlib.figure.Figure":
  """One panel a metric; epsilon on a logarithmic axis.

  Filled markers stand at the correct epsilon. A hollow marker, joined to its
  arm by a dashed line, stands at the naive epsilon. Arms of one family
  ("dp_sgd", "dp_sgd_eps3") are joined. An arm without epsilon is a horizontal
  band.

  Args:
    panels: Axis label of the metric to its points.
    delta: The delta of every epsilon.
    title: Title of the figure.

  Returns:
    The figure; see `save_figure`.

  Raises:
    ValueError: If there are no points.
  """
  points = [point for group in panels.values() for point in group]
  if not points:
    raise ValueError("panels: got no points; there must be at least one")
  families = dict.fromkeys(_figures.arm_family(point.arm) for point in points)
  styles = _figures.arm_styles(families)
  with _figures.style():
    figure, axes = _figures.new_figure(
      panels=len(panels), panel_size=(4.0, 3.1), title=title
    )
    for panel, (metric, group) in zip(axes, panels.items()):
      panel.set_xscale("log")
      for family in families:
        members = [p for p in group if _figures.arm_family(p.arm) == family]
        _draw_family(panel, members, styles[family])
      panel.set_ylabel(metric)
      panel.set_xlabel(f"ε at δ = {_figures.delta_text(delta)} (log scale)")
      _plain_epsilons(panel, group)
    handles, labels = _legend(points, styles)
    _figures.legend_below(figure, handles, labels)
  return figure


def _draw_family(
  axes: "matplotlib.axes.Axes",
  points: Sequence[UtilityPoint],
  style: _figures.ArmStyle,
) -> None:
  private = sorted(
    (p for p in points if p.epsilon is not None), key=lambda p: p.epsilon or 0
  )
  for point in points:
    if point.epsilon is None:
      _draw_band(axes, point.utility, style)
  axes.plot(
    [p.epsilon or 0.0 for p in private],
    [p.utility.estimate for p in private],
    color=style.color,
    linewidth=1.2,
    zorder=2,
  )
  for point in private:
    if point.epsilon_naive is not None:
      _draw_naive(axes, point, style)
    axes.errorbar(
      point.epsilon or 0.0,
      point.utility.estimate,
      yerr=_errors(point.utility),
      color=style.color,
      marker=style.marker,
      markersize=7,
      markeredgecolor="white",
      markeredgewidth=0.7,
      capsize=3,
      elinewidth=1.2,
      zorder=4,
    )


def _errors(measured: _intervals.Interval) -> list[list[float]] | None:
  """Lengths of the two error bars, as matplotlib wants them."""
  if measured.low is None or measured.high is None:
    return None
  return [
    [measured.estimate - measured.low],
    [measured.high - measured.estimate],
  ]


def _draw_naive(
  axes: "matplotlib.axes.Axes",
  point: UtilityPoint,
  style: _figures.ArmStyle,
) -> None:
  """A hollow marker at the naive epsilon, tied to the correct one."""
  height, naive = point.utility.estimate, point.epsilon_naive or 0.0
  axes.plot(
    [naive, point.epsilon or naive],
    [height, height],
    color=style.color,
    linestyle=(0, (2, 2)),
    linewidth=1.0,
    zorder=2,
  )
  axes.plot(
    [naive],
    [height],
    color=style.color,
    marker=style.marker,
    # A ring around, and below, a filled marker that stands at its place.
    markersize=11,
    markerfacecolor="white",
    markeredgewidth=1.3,
    linestyle="",
    zorder=3,
  )


def _draw_band(
  axes: "matplotlib.axes.Axes",
  measured: _intervals.Interval,
  style: _figures.ArmStyle,
) -> None:
  axes.axhline(measured.estimate, color=style.color, linewidth=1.1, zorder=1)
  if measured.low is not None and measured.high is not None:
    axes.axhspan(
      measured.low,
      measured.high,
      color=style.color,
      alpha=0.10,
      linewidth=0,
      zorder=0,
    )


def _plain_epsilons(
  axes: "matplotlib.axes.Axes", points: Sequence[UtilityPoint]
) -> None:
  """Ticks at 0.5, 1, 2, 4, 8, ... rather than powers of ten."""
  from matplotlib import ticker

  shown = [
    epsilon
    for point in points
    for epsilon in (point.epsilon, point.epsilon_naive)
    if epsilon
  ]
  if not shown:
    axes.set_xticks([])
    return
  low, high = min(shown) / 1.35, max(shown) * 1.35
  axes.set_xlim(low, high)
  ticks = [2.0**k for k in range(-20, 21) if low <= 2.0**k <= high]
  step = -(-len(ticks) // 7)
  axes.xaxis.set_major_locator(ticker.FixedLocator(ticks[::step] or shown))
  axes.xaxis.set_major_formatter(
    ticker.FuncFormatter(lambda value, _: f"{value:.3g}")
  )
  axes.xaxis.set_minor_locator(ticker.NullLocator())


def _legend(
  points: Sequence[UtilityPoint], styles: Mapping[str, _figures.ArmStyle]
) -> tuple[list, list[str]]:
  from matplotlib import lines

  handles, labels = [], []
  for family, style in styles.items():
    private = any(
      p.epsilon is not None
      for p in points
      if _figures.arm_family(p.arm) == family
    )
    handles.append(
      lines.Line2D(
        [],
        [],
        color=style.color,
        linewidth=1.2,
        marker=style.marker if private else None,
        markersize=6,
      )
    )
    labels.append(style.label)
  if any(point.epsilon_naive is not None for point in points):
    handles.append(
      lines.Line2D(
        [],
        [],
        color=_figures.GREY,
        linestyle=(0, (2, 2)),
        linewidth=1.0,
        marker="o",
        markerfacecolor="white",
        markersize=6,
      )
    )
    labels.append(NAIVE_LABEL)
  return handles, labels
