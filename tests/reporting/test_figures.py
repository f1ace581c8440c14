"""Figures: what they draw, checked on the artists; files, on their bytes."""

import struct
import subprocess
import sys

import matplotlib.colors
import numpy as np
import pytest

from trustjax import reporting

_ARMS = (
  "non_private",
  "dp_sgd",
  "dp_sgd_eps3",
  "dp_sgd_eps1",
  "edp_sgd",
  "edp_sgd_equal_epsilon",
  "dp_sgd_loop",
)


def _labels(figure):
  return [text.get_text() for text in figure.legends[0].get_texts()]


def _line(axes, color):
  """The y values of the solid lines of a colour."""
  return [
    np.asarray(line.get_ydata())
    for line in axes.lines
    if matplotlib.colors.same_color(line.get_color(), color)
  ]


def test_arms_look_the_same_whatever_they_are_drawn_with():
  together = reporting.arm_styles(_ARMS)
  for arm in ("non_private", "dp_sgd", "edp_sgd", "dp_sgd_loop"):
    assert reporting.arm_styles([arm])[arm] == together[arm]
  looks = {(s.color, str(s.linestyle)) for s in together.values()}
  assert len(looks) == len(_ARMS)
  assert together["dp_sgd_eps3"].label == "DP-SGD, ε = 3"
  free = reporting.arm_styles(["scan", "vmap", *_ARMS])
  known = {together[arm].color for arm in _ARMS if "eps" not in arm}
  assert not {free["scan"].color, free["vmap"].color} & known


def _luminance(color):
  rgb = np.array(matplotlib.colors.to_rgb(color))
  linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
  return float(linear @ np.array([0.2126, 0.7152, 0.0722]))


def test_colours_stand_out_from_white():
  for style in reporting.arm_styles(_ARMS).values():
    assert 1.05 / (_luminance(style.color) + 0.05) > 2.0, style


def test_mean_curve_is_the_t_interval_at_each_shared_step():
  curves = [
    reporting.Curve([0, 10, 20], [0.1, 0.5, 0.9]),
    reporting.Curve([0, 10], [0.3, 0.6]),  # Cut off after step 10.
    reporting.Curve([0, 10, 20], [0.2, 0.4, 0.8]),
  ]
  mean = reporting.mean_curve(curves)
  np.testing.assert_array_equal(mean.x, [0, 10])
  expected = reporting.mean_interval([0.5, 0.6, 0.4])
  assert mean.y[1] == pytest.approx(expected.estimate)
  assert (mean.low[1], mean.high[1]) == (expected.low, expected.high)
  single = reporting.mean_curve(curves[:1])
  assert single.low is None
  with pytest.raises(ValueError, match="needs at least one"):
    reporting.mean_curve([])


def test_smoothing_equals_a_loop():
  values = np.random.default_rng(0).normal(size=23)
  expected = [values[max(0, i - 4) : i + 1].mean() for i in range(23)]
  np.testing.assert_allclose(reporting.smoothed(values, window=5), expected)
  np.testing.assert_allclose(reporting.smoothed(values, window=1), values)
  with pytest.raises(ValueError, match="window: got 0"):
    reporting.smoothed(values, window=0)


def test_curves_of_unequal_length_are_refused():
  with pytest.raises(ValueError, match="they must be equal lists"):
    reporting.Curve([0, 1], [0.5])
  with pytest.raises(ValueError, match="both of low and high"):
    reporting.Curve([0, 1], [0.5, 0.6], low=[0.4, 0.5])


def test_learning_curves_show_every_arm_in_its_colour():
  curve = reporting.Curve(
    [0, 50, 100], [0.1, 0.6, 0.9], [0, 0.5, 0.8], [1, 1, 1]
  )
  plain = reporting.Curve([0, 50, 100], [0.2, 0.3, 0.4])
  figure = reporting.plot_learning_curves(
    {
      "intent accuracy (validation)": {"dp_sgd": curve, "edp_sgd": plain},
      "loss (nats)": {"dp_sgd": plain},
    },
    log_y=["loss (nats)"],
  )
  first, second = figure.axes
  assert first.get_ylabel() == "intent accuracy (validation)"
  assert first.get_xlabel() == "training step"
  assert (first.get_yscale(), second.get_yscale()) == ("linear", "log")
  styles = reporting.arm_styles(["dp_sgd", "edp_sgd"])
  (drawn,) = _line(first, styles["dp_sgd"].color)
  np.testing.assert_array_equal(drawn, curve.y)
  assert len(first.collections) == 1  # One band, for the arm that has one.
  assert _labels(figure) == ["DP-SGD", "eDP-SGD"]
  with pytest.raises(ValueError, match="got no curves"):
    reporting.plot_learning_curves({})


def _record():
  results = reporting.Results()
  for arm, value, epsilon, naive in (
    ("dp_sgd", 0.95, 8.0, 8.0),
    ("dp_sgd_eps3", 0.93, 3.0, 3.0),
    ("edp_sgd", 0.94, 22.4, 8.0),
  ):
    results.measure(
      f"{arm}/acc", reporting.Interval(value, value - 0.01, value + 0.01, 3)
    )
    results.set(f"{arm}/epsilon", epsilon)
    results.set(f"{arm}/epsilon_naive", naive)
  results.measure("non_private/acc", reporting.Interval(0.98, 0.97, 0.99, 3))
  results.set("non_private/epsilon", None, reason="no mechanism was run")
  results.set("failed/acc", None, reason="diverged")
  return results


def test_utility_points_come_from_the_record():
  points = {p.arm: p for p in reporting.utility_points(_record(), "acc")}
  assert set(points) == {"dp_sgd", "dp_sgd_eps3", "edp_sgd", "non_private"}
  assert points["edp_sgd"].epsilon == 22.4
  assert points["edp_sgd"].epsilon_naive == 8.0
  assert points["dp_sgd"].epsilon_naive is None  # It is the correct one.
  assert points["non_private"].epsilon is None
  assert points["dp_sgd"].utility == reporting.Interval(0.95, 0.94, 0.96, 3)


def test_utility_marks_the_naive_epsilon_as_no_guarantee():
  points = reporting.utility_points(_record(), "acc")
  figure = reporting.plot_utility_against_epsilon(
    {"intent accuracy (test)": points}, delta=1e-5
  )
  (axes,) = figure.axes
  assert axes.get_xscale() == "log"
  assert axes.get_xlabel() == "ε at δ = $10^{-5}$ (log scale)"
  hollow = [
    line
    for line in axes.lines
    if line.get_marker() not in ("None", "", None, "_", "|", 2, 3)
    and matplotlib.colors.same_color(line.get_markerfacecolor(), "white")
  ]
  assert [list(line.get_xdata()) for line in hollow] == [[8.0]]
  assert "naive (not a guarantee)" in _labels(figure)
  # The family DP-SGD is one line from its lowest to its highest epsilon.
  blue = reporting.arm_styles(["dp_sgd"])["dp_sgd"].color
  assert any(list(y) == [0.93, 0.95] for y in _line(axes, blue))
  black = reporting.arm_styles(["non_private"])["non_private"].color
  assert any(list(y) == [0.98, 0.98] for y in _line(axes, black))
  low, high = axes.get_xlim()
  assert low < 3 and high > 22.4


def test_utility_without_naive_epsilons_does_not_mention_them():
  points = [
    p
    for p in reporting.utility_points(_record(), "acc")
    if p.epsilon_naive is None
  ]
  figure = reporting.plot_utility_against_epsilon({"acc": points}, delta=2e-6)
  assert "naive (not a guarantee)" not in _labels(figure)
  assert "2 × $10^{-6}$" in figure.axes[0].get_xlabel()
  with pytest.raises(ValueError, match="got no points"):
    reporting.plot_utility_against_epsilon({}, delta=1e-5)


def test_epsilon_against_steps_labels_the_naive_curve():
  steps = np.arange(100, 1001, 100)
  figure = reporting.plot_epsilon_against_steps(
    {
      "PLD": reporting.Curve(steps, np.sqrt(steps)),
      "RDP": reporting.Curve(steps, np.sqrt(steps) + 1),
    },
    delta=1e-5,
    naive={"PLD": reporting.Curve(steps, np.sqrt(steps) / 2)},
  )
  (axes,) = figure.axes
  assert [text.get_text() for text in axes.get_legend().get_texts()] == [
    "PLD",
    "RDP",
    "PLD, naive (not a guarantee)",
  ]
  assert axes.get_ylim()[0] == 0
  assert axes.lines[2].get_linestyle() == "--"
  with pytest.raises(ValueError, match="at least one"):
    reporting.plot_epsilon_against_steps({}, delta=1e-5)


@pytest.mark.parametrize("slowest,scale", [(3.0, "linear"), (90.0, "log")])
def test_ratios_are_bars_from_the_reference(slowest, scale):
  figure = reporting.plot_step_time_ratios(
    {
      "BiLSTM": {
        "edp_sgd": reporting.Interval(1.1, 1.0, 1.2, 15),
        "dp_sgd_loop": reporting.Interval(slowest, slowest - 1, slowest + 1),
      },
      "Transformer": {"edp_sgd": reporting.Interval(0.9)},
    },
    bar=1.15,
  )
  first, second = figure.axes
  assert [t.get_text() for t in first.get_yticklabels()] == [
    "eDP-SGD",
    "DP-SGD, loop",
  ]
  assert first.get_xscale() == second.get_xscale() == scale
  assert first.get_xlim() == second.get_xlim()
  assert first.patches[1].get_width() == pytest.approx(slowest - 1)
  texts = [text.get_text() for text in first.texts]
  assert texts == ["1.1×", f"{slowest:g}×", "at most 1.15"]
  assert "non-private step (×)" in first.get_xlabel()
  # The first bar is on top.
  assert first.get_ylim()[0] > first.get_ylim()[1]


def test_ratios_that_cannot_be_are_refused():
  with pytest.raises(ValueError, match="got no ratios"):
    reporting.plot_step_time_ratios({})
  with pytest.raises(ValueError, match=r"\['m'\]\['x'\]: got 0.0; a ratio"):
    reporting.plot_step_time_ratios({"m": {"x": reporting.Interval(0.0)}})


def test_saved_figures_are_fine_enough_and_reproducible(tmp_path):
  curve = reporting.Curve([0, 1], [0, 1])
  paths = []
  for name in ("one", "two"):
    figure = reporting.plot_learning_curves({"accuracy": {"dp_sgd": curve}})
    path = tmp_path / "new" / f"{name}.png"
    assert reporting.save_figure(figure, path) == path
    paths.append(path)
  one, two = (path.read_bytes() for path in paths)
  assert one == two
  assert one.startswith(b"\x89PNG\r\n\x1a\n")
  width = struct.unpack(">I", one[16:20])[0]
  assert width == round(figure.get_size_inches()[0] * 200)
  assert sorted(p.name for p in path.parent.iterdir()) == ["one.png", "two.png"]
  with pytest.raises(ValueError, match=r"must end in '\.png'"):
    reporting.save_figure(figure, tmp_path / "figure.pdf")


def test_importing_does_not_load_matplotlib():
  # Programs that draw nothing do not pay for it.
  code = (
    "import sys, trustjax.reporting;"
    "sys.exit('matplotlib' in sys.modules or 'jax' in sys.modules)"
  )
  assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_drawing_leaves_the_global_style_alone():
  import matplotlib

  before = dict(matplotlib.rcParams)
  reporting.plot_learning_curves(
    {"accuracy": {"dp_sgd": reporting.Curve([0, 1], [0, 1])}}
  )
  assert dict(matplotlib.rcParams) == before
  assert "matplotlib.pyplot" not in sys.modules or (
    not sys.modules["matplotlib.pyplot"].get_fignums()
  )
