"""The figure of a role-reversal study: an arm a row."""

from typing import TYPE_CHECKING, Any

from trustjax import distillation, reporting

if TYPE_CHECKING:
  import matplotlib.axes
  import matplotlib.figure

TEACHER = "teacher"
# What the arms of a letter are; filled, hollow, and a cross.
_KINDS = {
  "D": "distilled",
  "F": "fine-tuned, original as teacher",
  "P": "fine-tuned, no teacher",
}
_BLACK, _GREY = "#222222", "#767676"
# Colours that people with a colour-vision deficiency tell apart.
_COLORS = {
  "original": "#0072B2",
  "augmented": "#D55E00",
  "coin_flip": "#009E73",
}
_TEXTS = {
  "original": "texts as they are",
  "augmented": "augmented texts",
  "coin_flip": "coin flip",
}
_GAP = 0.27  # Between the arms of a row.
_PANELS = (
  ("gender_ratio_mean", "mean gender ratio (1 is balanced)"),
  ("added_perplexity", "perplexity added to the baseline's"),
  ("probe_gap", "TPR gap of the occupation probe"),
)


def plot(results: reporting.Results) -> "matplotlib.figure.Figure":
  """Balance, utility and carry-over of every arm, with intervals.

  Args:
    results: The record.

  Returns:
    The figure.
  """
  arms = [arm for arm in results.arms() if f"{arm}/perplexity" in results]
  numbers = sorted({int(arm[1:]) for arm in arms if arm != TEACHER})
  kinds = [kind for kind in _KINDS if any(arm[0] == kind for arm in arms)]
  row = {number: i + 1 for i, number in enumerate(numbers)}
  panels = [
    (key, title)
    for key, title in _PANELS
    if any(_measured(results, arm, key) is not None for arm in arms)
  ]
  with reporting.style():
    figure, all_axes = reporting.new_figure(
      panels=len(panels),
      panel_size=(3.5, 1.3 + 0.29 * (1 + len(numbers))),
      title="Gender balance of continuations, and what it costs",
    )
    for axes, (key, title) in zip(all_axes, panels, strict=True):
      _mark_reference(axes, key, results, arms)
      for arm in arms:
        measured = _measured(results, arm, key)
        if measured is None:
          continue
        at = 0.0
        if arm != TEACHER:
          place = kinds.index(arm[0]) - (len(kinds) - 1) / 2
          at = row[int(arm[1:])] + place * _GAP
        axes.errorbar(
          measured.estimate,
          at,
          xerr=_errors(measured),
          markersize=5.5,
          **_looks(arm),
          linestyle="none",
          elinewidth=1.0,
          capsize=2,
        )
      axes.set_xlabel(title)
      axes.set_ylim(len(numbers) + 0.6, -0.6)
      axes.set_yticks(range(1 + len(numbers)), [""] * (1 + len(numbers)))
      axes.grid(visible=False, axis="y")
    all_axes[0].set_yticklabels([TEACHER, *map(_row_label, numbers)])
    handles, labels = _legend(kinds, arms)
    figure.legend(handles, labels, loc="outside lower left", ncols=3)
  return figure


def _measured(results, arm, key):
  """What was measured of an arm; None where it was not, or is undefined."""
  name = f"{arm}/{key}"
  return results.interval(name) if name in results else None


def _mark_reference(axes, key, results, arms):
  """What a fair, or an unchanged, model would have."""
  if key == "gender_ratio_mean":
    found = [results.interval(f"{arm}/noise_floor_mean") for arm in arms]
    floors = [floor.estimate for floor in found if floor is not None]
    if floors:
      axes.axvspan(
        min(floors) - 0.002, max(floors) + 0.002, color="#888888", alpha=0.5
      )
      axes.annotate(
        "balanced texts",
        ((min(floors) + max(floors)) / 2, 1.0),
        xycoords=("data", "axes fraction"),
        textcoords="offset points",
        xytext=(0, 2),
        ha="center",
        va="bottom",
        fontsize=8,
        color="#555555",
      )
    axes.set_xlim(0, 1.02)
    return
  axes.axvline(0, color="#888888", linewidth=0.8)
  if key == "added_perplexity":
    from matplotlib import ticker

    axes.xaxis.set_major_formatter(ticker.PercentFormatter(1))
    axes.xaxis.set_major_locator(ticker.MaxNLocator(5))


def _row_label(number):
  about = distillation.role_reversal_arm(f"D{number}").about
  return f"{about.replace('augmented texts', 'augmented')}   {number}"


def _looks(name) -> dict[str, Any]:
  """Texts give the colour, the letter the marker."""
  if name == TEACHER:
    return {"color": _BLACK, "marker": "*"}
  arm = distillation.role_reversal_arm(name)
  color = _GREY if arm.control else _COLORS[arm.texts]
  looks = {"color": color, "markeredgecolor": color}
  if name[0] == "P":
    return looks | {"marker": "x"}
  hollow = {"markerfacecolor": "white"} if name[0] == "F" else {}
  return looks | {"marker": "o"} | hollow


def _legend(kinds, arms):
  """Handles and labels: kinds of arms in black, texts in their colours."""
  from matplotlib import lines

  def handle(**looks):
    return lines.Line2D([], [], linestyle="none", markersize=5.5, **looks)

  faces = {"D": _BLACK, "F": "white", "P": _BLACK}
  handles = [
    handle(
      marker="x" if kind == "P" else "o",
      color=_BLACK,
      markerfacecolor=faces[kind],
    )
    for kind in kinds
  ]
  labels = [f"{kind}: {_KINDS[kind]}" for kind in kinds]
  used = {distillation.role_reversal_arm(a).texts for a in arms if a != TEACHER}
  for texts, color in _COLORS.items():
    if texts in used:
      handles.append(handle(marker="s", color=color))
      labels.append(_TEXTS[texts])
  return handles, labels


def _errors(measured):
  if measured.low is None:
    return None
  return [
    [measured.estimate - measured.low],
    [measured.high - measured.estimate],
  ]
