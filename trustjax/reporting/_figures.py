"""How figures look: one style, one colour for each arm everywhere.

matplotlib is imported inside functions and without pyplot: no global state, no
display, and no cost for those who draw nothing.
"""

import contextlib
import dataclasses
import io
import os
import pathlib
import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
  import matplotlib.axes
  import matplotlib.figure

# Okabe and Ito's palette, told apart with any kind of colour vision.
BLACK = "#222222"
BLUE = "#0072B2"
SKY = "#56B4E9"
GREEN = "#009E73"
ORANGE = "#E69F00"
VERMILION = "#D55E00"
PURPLE = "#CC79A7"
GREY = "#767676"

_STYLE = {
  "font.family": "DejaVu Sans",
  "font.size": 9,
  "axes.titlesize": 9.5,
  "axes.titleweight": "bold",
  "axes.titlelocation": "left",
  "axes.labelsize": 9,
  "axes.edgecolor": "#555555",
  "axes.linewidth": 0.8,
  "axes.spines.top": False,
  "axes.spines.right": False,
  "axes.grid": True,
  "axes.axisbelow": True,
  "grid.color": "#E4E4E4",
  "grid.linewidth": 0.6,
  "xtick.labelsize": 8,
  "ytick.labelsize": 8,
  "xtick.color": "#444444",
  "ytick.color": "#444444",
  "legend.fontsize": 8,
  "legend.frameon": False,
  "lines.linewidth": 1.6,
  "lines.markersize": 6,
  "figure.titlesize": 10.5,
  "figure.titleweight": "bold",
  "savefig.facecolor": "white",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ArmStyle:
  """How an arm is drawn, in every figure alike."""

  label: str
  color: str
  marker: str
  linestyle: str | tuple[int, tuple[float, ...]] = "-"


_KNOWN = {
  "non_private": ArmStyle(label="non-private", color=BLACK, marker="s"),
  "dp_sgd": ArmStyle(label="DP-SGD", color=BLUE, marker="o"),
  "edp_sgd": ArmStyle(label="eDP-SGD", color=VERMILION, marker="^"),
  "edp_sgd_equal_epsilon": ArmStyle(
    label="eDP-SGD, equal ε",
    color=ORANGE,
    marker="v",
    linestyle=(0, (5, 1)),
  ),
  "dp_sgd_loop": ArmStyle(
    label="DP-SGD, loop", color=GREEN, marker="D", linestyle=(0, (1, 1))
  ),
}
_EPSILON = re.compile(r"(?P<family>.+)_eps(?P<target>[0-9]+(?:[._p][0-9]+)?)")
_SHADES = {BLUE: (SKY, "#004B75", "#8FA8C9"), VERMILION: (PURPLE, "#8C3D00")}
_DASHES = ((0, (4, 1.5)), (0, (1.5, 1)), (0, (6, 1.5, 1.5, 1.5)))
_SPARE = (GREEN, PURPLE, SKY, ORANGE, VERMILION, BLUE, GREY)
_SPARE_MARKERS = ("P", "X", "D", "<", ">", "p", "h")


def arm_family(arm: str) -> str:
  """The arm without its target: "dp_sgd_eps3" belongs to "dp_sgd"."""
  match = _EPSILON.fullmatch(arm)
  return match["family"] if match else arm


def arm_label(arm: str) -> str:
  """The arm's name as figures and tables show it."""
  if arm in _KNOWN:
    return _KNOWN[arm].label
  match = _EPSILON.fullmatch(arm)
  if match and match["family"] in _KNOWN:
    target = re.sub("[_p]", ".", match["target"])
    return f"{_KNOWN[match['family']].label}, ε = {target}"
  return arm.replace("_", " ")


def arm_styles(arms: Iterable[str]) -> dict[str, ArmStyle]:
  """A style for each arm; known arms look the same in every figure.

  Args:
    arms: Names such as "non_private", "dp_sgd", "dp_sgd_eps3"; others get
      what is left of the palette, in order.

  Returns:
    Arm to style.
  """
  arms = list(dict.fromkeys(arms))
  styles: dict[str, ArmStyle] = {}
  taken: dict[str, int] = {}
  spare = 0
  used = {_KNOWN[arm].color for arm in arms if arm in _KNOWN}
  free = [color for color in _SPARE if color not in used] or [GREY]
  for arm in arms:
    if arm in _KNOWN:
      styles[arm] = _KNOWN[arm]
      continue
    base = _KNOWN.get(arm_family(arm))
    if base is not None and base.color in _SHADES:
      shades = _SHADES[base.color]
      turn = taken.get(base.color, 0)
      taken[base.color] = turn + 1
      styles[arm] = ArmStyle(
        label=arm_label(arm),
        color=shades[turn % len(shades)],
        marker=base.marker,
        linestyle=_DASHES[turn % len(_DASHES)],
      )
      continue
    styles[arm] = ArmStyle(
      label=arm_label(arm),
      color=free[spare % len(free)],
      marker=_SPARE_MARKERS[spare % len(_SPARE_MARKERS)],
      linestyle="-" if spare < len(free) else "--",
    )
    spare += 1
  return styles


@contextlib.contextmanager
def style():
  """The style of the house, for figures of one's own."""
  import matplotlib

  with matplotlib.rc_context(_STYLE):  # pyright: ignore[reportArgumentType]
    yield


def new_figure(
  *, panels: int = 1, panel_size: Sequence[float] = (3.6, 2.8), title: str = ""
) -> "tuple[matplotlib.figure.Figure, list[matplotlib.axes.Axes]]":
  """A figure with panels side by side, at most three in a row.

  Args:
    panels: Number of panels.
    panel_size: Width and height of one, in inches.
    title: Title above all of them.

  Returns:
    The figure and its axes.

  Raises:
    ValueError: If there are no panels.
  """
  if panels < 1:
    raise ValueError(f"panels: got {panels}; there must be at least one")
  import matplotlib.figure
  from matplotlib.backends import backend_agg

  columns = min(panels, 3) if panels != 4 else 2
  rows = -(-panels // columns)
  figure = matplotlib.figure.Figure(
    figsize=(panel_size[0] * columns, panel_size[1] * rows),
    layout="constrained",
  )
  backend_agg.FigureCanvasAgg(figure)
  padding = {"w_pad": 0.08, "h_pad": 0.08, "wspace": 0.04}
  figure.get_layout_engine().set(**padding)  # pyright: ignore
  grid = figure.subplots(rows, columns, squeeze=False)
  axes = list(grid.flat)
  for unused in axes[panels:]:
    unused.remove()
  if title:
    figure.suptitle(title, x=0.012, ha="left")
  return figure, axes[:panels]


def legend_below(
  figure: "matplotlib.figure.Figure",
  handles: Sequence[Any],
  labels: Sequence[str],
) -> None:
  """One legend for all panels, under them.

  Args:
    figure: The figure.
    handles: What is drawn beside each label.
    labels: The labels.
  """
  width = figure.get_size_inches()[0]
  # A letter of the legend is about 0.065 inches wide, a handle with its
  # surroundings 0.75.
  needed = sum(0.065 * len(label) + 0.75 for label in labels)
  rows = max(1, -(-int(needed * 100) // int(width * 100)))
  figure.legend(
    handles,
    labels,
    loc="outside lower left",
    ncols=-(-len(labels) // rows),
    handlelength=2.6,
    columnspacing=1.6,
  )


def delta_text(delta: float) -> str:
  """A small probability as mathematical text: 10^-5 with a raised exponent."""
  mantissa, exponent = f"{delta:.2e}".split("e")
  mantissa = mantissa.rstrip("0").rstrip(".")
  power = f"$10^{{{int(exponent)}}}$"
  return power if mantissa == "1" else f"{mantissa} × {power}"


def png_bytes(figure: "matplotlib.figure.Figure", *, dpi: int = 200) -> bytes:
  """The figure as a PNG file in memory."""
  stream = io.BytesIO()
  with style():
    # No date and no version: the same figure gives the same bytes.
    figure.savefig(stream, format="png", dpi=dpi, metadata={"Software": None})
  return stream.getvalue()


def save_figure(
  figure: "matplotlib.figure.Figure",
  path: str | os.PathLike[str],
  *,
  dpi: int = 200,
) -> pathlib.Path:
  """Saves a figure as PNG; the folder is made.

  Args:
    figure: The figure.
    path: File that ends in .png.
    dpi: Dots per inch.

  Returns:
    The path.

  Raises:
    ValueError: If the file does not end in .png.
  """
  path = pathlib.Path(path)
  if path.suffix != ".png":
    raise ValueError(f"path: got {str(path)!r}; it must end in '.png'")
  path.parent.mkdir(parents=True, exist_ok=True)
  partial = path.with_name(f".{path.name}.partial")
  partial.write_bytes(png_bytes(figure, dpi=dpi))
  partial.replace(path)
  return path
