"""Curves over steps: learning curves, and the privacy budget spent."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float64

from trustjax.reporting import _figures, _intervals

if TYPE_CHECKING:
  import matplotlib.axes
  import matplotlib.figure


@dataclasses.dataclass(frozen=True)
class Curve:
  """A line, with a band where its spread is known.

  Attributes:
    x: Positions, such as steps.
    y: Values at these positions.
    low: Lower edge of the band, or None.
    high: Upper edge of the band, or None.
  """

  x: _intervals.Numbers
  y: _intervals.Numbers
  low: _intervals.Numbers | None = None
  high: _intervals.Numbers | None = None

  def __post_init__(self):
    for name in ("x", "y", "low", "high"):
      value = getattr(self, name)
      if value is not None:
        object.__setattr__(self, name, np.asarray(value, np.float64))
    sizes = {
      name: np.shape(getattr(self, name))
      for name in ("x", "y", "low", "high")
      if getattr(self, name) is not None
    }
    if len(set(sizes.values())) > 1 or len(np.shape(self.x)) != 1:
      raise ValueError(f"Curve: got shapes {sizes}; they must be equal lists")
    if (self.low is None) != (self.high is None):
      raise ValueError("Curve: give both of low and high, or neither")


def mean_curve(curves: Sequence[Curve], *, confidence: float = 0.95) -> Curve:
  """The mean of the curves of several seeds, with a t-interval as band.

  Only positions that all curves have are kept (a run may have been cut off).

  Args:
    curves: One curve a seed.
    confidence: Coverage of the band at each position.

  Returns:
    The mean curve; without a band for a single seed.

  Raises:
    ValueError: If there are no curves.
  """
  if not curves:
    raise ValueError("curves: got none; the mean needs at least one")
  lines = [dict(zip(map(float, c.x), map(float, c.y))) for c in curves]
  shared = sorted(set.intersection(*(set(line) for line in lines)))
  points = [
    _intervals.mean_interval([line[x] for line in lines], confidence=confidence)
    for x in shared
  ]
  y = [point.estimate for point in points]
  if len(curves) == 1:
    return Curve(shared, y)
  low = np.array([point.low for point in points], np.float64)
  high = np.array([point.high for point in points], np.float64)
  return Curve(shared, y, low, high)


def smoothed(
  values: _intervals.Numbers, *, window: int
) -> Float64[np.ndarray, " rows"]:
  """Mean over the last `window` values: for losses of single lots.

  Args:
    values: The values in order.
    window: How many to average; the first few have fewer.

  Returns:
    As many values.

  Raises:
    ValueError: If the window is not positive.
  """
  if window < 1:
    raise ValueError(f"window: got {window}; it must be at least 1")
  array = np.asarray(values, np.float64)
  total = np.concatenate([[0.0], np.cumsum(array)])
  ends = np.arange(1, array.size + 1)
  starts = np.maximum(ends - window, 0)
  return (total[ends] - total[starts]) / (ends - starts)


def _draw(axes: "matplotlib.axes.Axes", curve: Curve, **looks) -> None:
  axes.plot(curve.x, curve.y, **looks)
  if curve.low is not None and curve.high is not None:
    axes.fill_between(
      np.asarray(curve.x),
      np.asarray(curve.low),
      np.asarray(curve.high),
      color=looks["color"],
      alpha=0.16,
      linewidth=0,
    )


def plot_learning_curves(
  panels: Mapping[str, Mapping[str, Curve]],
  *,
  x_label: str = "training step",
  title: str = "Learning curves",
  log_y: Sequence[str] = (),
) -> "matplotlib.figure.Figure":
  """One panel a metric, one line an arm, bands over seeds.

  Args:
    panels: Axis label of the metric (with its unit) to arm to curve.
    x_label: Label of the horizontal axis.
    title: Title of the figure.
    log_y: Metrics whose axis is logarithmic.

  Returns:
    The figure; see `save_figure`.

  Raises:
    ValueError: If there is nothing to draw.
  """
  arms = [arm for curves in panels.values() for arm in curves]
  if not arms:
    raise ValueError("panels: got no curves; there must be at least one")
  styles = _figures.arm_styles(arms)
  with _figures.style():
    figure, axes = _figures.new_figure(
      panels=len(panels), panel_size=(3.6, 3.1), title=title
    )
    for panel, (metric, curves) in zip(axes, panels.items()):
      # The non-private reference lies on top: it is thin and dark.
      for arm, curve in sorted(
        curves.items(), key=lambda item: item[0] == "non_private"
      ):
        _draw(
          panel,
          curve,
          color=styles[arm].color,
          linestyle=styles[arm].linestyle,
          linewidth=1.2 if arm == "non_private" else 1.7,
          marker=styles[arm].marker if len(np.asarray(curve.x)) < 3 else None,
          markersize=4,
        )
      panel.set_ylabel(metric)
      panel.set_xlabel(x_label)
      panel.margins(x=0.02)
      if metric in log_y:
        panel.set_yscale("log")
      _thousands(panel)
    from matplotlib import lines

    handles = [
      lines.Line2D([], [], color=s.color, linestyle=s.linestyle)  # pyright: ignore
      for s in styles.values()
    ]
    _figures.legend_below(figure, handles, [s.label for s in styles.values()])
  return figure


def plot_epsilon_against_steps(
  curves: Mapping[str, Curve],
  *,
  delta: float,
  naive: Mapping[str, Curve] | None = None,
  x_label: str = "training step",
  title: str = "Privacy budget spent",
) -> "matplotlib.figure.Figure":
  """Epsilon after each number of steps, by accountant.

  Args:
    curves: Name ("PLD", "RDP", ...) to epsilon over steps; the first is the
      headline.
    delta: The delta of all of them.
    naive: The same for a sensitivity that is too small; drawn dashed and
      labelled as not a guarantee.
    x_label: Label of the horizontal axis.
    title: Title of the figure.

  Returns:
    The figure; see `save_figure`.

  Raises:
    ValueError: If there are no curves.
  """
  if not curves:
    raise ValueError("curves: got none; there must be at least one")
  looks = [(_figures.BLUE, "-"), (_figures.VERMILION, (0, (5, 1.2)))]
  looks += [(_figures.GREEN, (0, (1.5, 1))), (_figures.PURPLE, "-.")]
  with _figures.style():
    figure, (axes,) = _figures.new_figure(panel_size=(4.8, 3.4), title=title)
    for number, (name, curve) in enumerate(curves.items()):
      color, linestyle = looks[number % len(looks)]
      _draw(axes, curve, color=color, linestyle=linestyle, label=name)
    for number, (name, curve) in enumerate((naive or {}).items()):
      axes.plot(
        curve.x,
        curve.y,
        color=(_figures.GREY, "#A0A0A0")[number % 2],
        linestyle=(0, (3, 2)),
        linewidth=1.2,
        marker="o",
        markersize=4.5,
        markerfacecolor="white",
        markevery=max(1, np.asarray(curve.x).size // 8),
        label=f"{name}, naive (not a guarantee)",
      )
    axes.set_xlabel(x_label)
    axes.set_ylabel(f"ε at δ = {_figures.delta_text(delta)}")
    axes.set_ylim(bottom=0)
    axes.margins(x=0.02)
    _thousands(axes)
    _last_values(axes)
    axes.legend(loc="best", handlelength=2.8)
  return figure


def _last_values(axes: "matplotlib.axes.Axes") -> None:
  """Writes each line's last value beside it, none on top of another."""
  gap = 0.05 * axes.get_ylim()[1]
  ends = [
    (float(np.asarray(line.get_ydata())[-1]), line.get_color())
    for line in axes.lines
  ]
  right = axes.dataLim.x1
  above = -gap
  for value, color in sorted(ends, key=lambda end: end[0]):
    if not np.isfinite(value):
      continue
    # Accountants often agree, and their labels would print on each other.
    above = max(value, above + gap)
    axes.annotate(
      f"{value:.3g}",
      (right, above),
      xytext=(7, 0),
      textcoords="offset points",
      va="center",
      fontsize=8.5,
      color=color,
      annotation_clip=False,
    )


def _thousands(axes: "matplotlib.axes.Axes") -> None:
  """Writes 10,000 on the horizontal axis rather than 1e4."""
  from matplotlib import ticker

  axes.xaxis.set_major_locator(ticker.MaxNLocator(6, integer=True))
  axes.xaxis.set_major_formatter(ticker.StrMethodFormatter("{x:,.0f}"))
