"""Bars: step times as ratios to a reference."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from trustjax.reporting import _figures, _intervals

if TYPE_CHECKING:
  import matplotlib.axes
  import matplotlib.figure

# Beyond this factor between the longest and the shortest bar, short ones
# cannot be read on a linear axis.
_LOG_FACTOR = 12.0


def plot_step_time_ratios(
  panels: Mapping[str, Mapping[str, _intervals.Interval]],
  *,
  reference: str = "the non-private step",
  bar: float | Mapping[str, float] | None = None,
  title: str = "Seconds per step, as a ratio",
) -> "matplotlib.figure.Figure":
  """Horizontal bars with intervals; 1 is the reference.

  Args:
    panels: Setting (model, lot size) to method to ratio. The names may be arms
      ("dp_sgd"), which keep their colours, or free text.
    reference: What the ratios are taken to.
    bar: A bar "at most" to mark with a line: one for all, or one for each
      setting that has one.
    title: Title of the figure.

  Returns:
    The figure; see `save_figure`.

  Raises:
    ValueError: If there are no ratios, or one is not positive.
  """
  methods = [name for ratios in panels.values() for name in ratios]
  if not methods:
    raise ValueError("panels: got no ratios; there must be at least one")
  for setting, ratios in panels.items():
    for name, ratio in ratios.items():
      if ratio.estimate <= 0:
        raise ValueError(
          f"panels[{setting!r}][{name!r}]: got {ratio.estimate}; a ratio of"
          " times is positive"
        )
  styles = _figures.arm_styles(methods)
  tallest = max(len(ratios) for ratios in panels.values())
  limits = bar.values() if isinstance(bar, Mapping) else [bar or 1.0]
  low, high = _span(
    [_intervals.Interval(limit) for limit in limits]
    + [ratio for ratios in panels.values() for ratio in ratios.values()]
  )
  log = high / low > _LOG_FACTOR  # The same axis for every panel.
  with _figures.style():
    figure, axes = _figures.new_figure(
      panels=len(panels),
      panel_size=(4.6, 1.25 + 0.34 * tallest),
      title=title,
    )
    for panel, (setting, ratios) in zip(axes, panels.items()):
      limit = bar.get(setting) if isinstance(bar, Mapping) else bar
      _draw_panel(panel, ratios, styles, limit)
      _set_scale(panel, low, high, log)
      panel.set_title(setting)
      panel.set_xlabel(f"time relative to {reference} (×)")
  return figure


def _span(ratios: Iterable[_intervals.Interval]) -> tuple[float, float]:
  """Smallest and largest number among the ends of the intervals and 1."""
  ratios = list(ratios)
  ends = [r.estimate if r.high is None else r.high for r in ratios]
  starts = [r.estimate if r.low is None else r.low for r in ratios]
  return min(*starts, 1.0), max(*ends, 1.0)


def _draw_panel(
  axes: "matplotlib.axes.Axes",
  ratios: Mapping[str, _intervals.Interval],
  styles: Mapping[str, _figures.ArmStyle],
  bar: float | None,
) -> None:
  for row, (name, ratio) in enumerate(ratios.items()):
    # From the reference, not from zero: the length is what the method costs,
    # and means the same on a logarithmic axis.
    axes.barh(
      row,
      ratio.estimate - 1.0,
      left=1.0,
      height=0.62,
      color=styles[name].color,
      alpha=0.85,
    )
    if ratio.low is not None and ratio.high is not None:
      axes.errorbar(
        ratio.estimate,
        row,
        xerr=[[ratio.estimate - ratio.low], [ratio.high - ratio.estimate]],
        color=_figures.BLACK,
        capsize=2.5,
        elinewidth=1.1,
      )
    end = ratio.estimate if ratio.high is None else ratio.high
    axes.annotate(
      f"{ratio.estimate:.3g}×",
      (max(end, 1.0, bar or 1.0), row),
      xytext=(5, 0),
      textcoords="offset points",
      va="center",
      fontsize=8,
    )
  axes.axvline(1.0, color=_figures.BLACK, linewidth=1.0)
  if bar is not None:
    axes.axvline(bar, color=_figures.GREY, linewidth=1.0, linestyle=(0, (4, 2)))
    axes.annotate(
      f"at most {bar:g}",
      (bar, -0.62),
      xytext=(4, 0),
      textcoords="offset points",
      fontsize=7.5,
      color=_figures.GREY,
      va="center",
    )
  axes.set_yticks(range(len(ratios)), [styles[name].label for name in ratios])
  axes.set_ylim(len(ratios) - 0.45, -0.95)
  axes.grid(axis="y", visible=False)
  axes.tick_params(axis="y", length=0)
  axes.spines["left"].set_visible(False)


def _set_scale(
  axes: "matplotlib.axes.Axes", low: float, high: float, log: bool
) -> None:
  """The same scale for every panel, with room for the numbers at the ends."""
  if log:
    axes.set_xscale("log")
    axes.set_xlim(low / 1.2, high * (high / low) ** 0.2)
    _plain_ratios(axes)
  else:
    width = (high - low) or 1.0
    axes.set_xlim(low - 0.06 * width, high + 0.2 * width)


def _plain_ratios(axes: "matplotlib.axes.Axes") -> None:
  from matplotlib import ticker

  low, high = axes.get_xlim()
  # 1, 2, 5, 10 over a narrow span, powers of ten alone over a wide one.
  subs = (1.0, 2.0, 5.0) if high / low < 400 else (1.0,)
  axes.xaxis.set_major_locator(ticker.LogLocator(10, subs=subs))
  axes.xaxis.set_major_formatter(
    ticker.FuncFormatter(lambda value, _: f"{value:g}")
  )
  axes.xaxis.set_minor_locator(ticker.NullLocator())
