"""Record, tables and figure of predicted steps; all say that they predict."""

import datetime
import math
import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import jax

from experiments._benchmarks import (
  _clock,
  _gpu_targets,
  _methods,
  _predictions,
  _roofline,
  _step_record,
)
from experiments._binary import _config_flags
from trustjax import reporting

if TYPE_CHECKING:
  import matplotlib.figure

_COLUMNS = (
  reporting.Column("setting"),
  reporting.Column("method"),
  reporting.Column("chunk_size", "records at a time", format="d"),
  reporting.Column(
    "predicted_milliseconds", "PREDICTED time per step", "ms", format=".1f"
  ),
  reporting.Column(
    "predicted_ratio_to_non_private", "PREDICTED ratio", format=".2f"
  ),
  reporting.Column("temp_gib", "temporary memory", "GiB", format=".2f"),
  reporting.Column("tflop", "products", "TFLOP", format=".2f"),
  reporting.Column("moved_gib", "moved", "GiB", format=".1f"),
  reporting.Column("kernels", format=",d"),
  reporting.Column("compile_seconds", "compile here", "s", format=".1f"),
)
_KERNEL_COLUMNS = (
  reporting.Column("milliseconds", "PREDICTED", "ms", format=".3f"),
  reporting.Column("count", "runs", format=",d"),
  reporting.Column("moved_gib", "moved", "GiB", format=".2f"),
  reporting.Column("tflop", "TFLOP", format=".2f"),
  reporting.Column("kind"),
  reporting.Column("what", "kernel"),
  reporting.Column("shape", "result"),
  reporting.Column("label", "where"),
)
_SHOWN_KERNELS = 25
_LONGEST_SHAPE = 60
_TITLE = "PREDICTED training steps, {gpu}, by roofline: nothing was measured"
# Pairs of a hue for forward and backward; colours that people with a
# colour-vision deficiency tell apart.
_COLORS = dict(
  zip(
    _roofline.KINDS,
    (
      "#0072B2",
      "#7FBCE3",
      "#D55E00",
      "#E69F00",
      "#009E73",
      "#8ED3BC",
      "#CC79A7",
      "#9A9A9A",
      "#222222",
    ),
    strict=True,
  )
)


def new_results(
  config: _config_flags.Config, gpu: _gpu_targets.Gpu, models: dict[str, Any]
) -> reporting.Results:
  """A record that knows its protocol, and where it was compiled."""
  results = reporting.Results()
  results.set_protocol(
    {
      "gpu": config.gpu,
      "models": models,
      "methods": config.methods,
      "optimizer": config.optimizer,
      "data": config.data.to_dict(),
    }
  )
  results.set("gpu", gpu.name)
  results.set("assumed_bandwidth", gpu.bandwidth)
  results.set("assumed_launch_seconds", gpu.launch_seconds)
  for dtype, rate in gpu.rates.items():
    results.set(f"assumed_rate/{dtype}", rate)
  results.set("compiled_on", _step_record.hardware())
  results.set("jax", jax.__version__)
  results.set("date", datetime.date.today().isoformat())
  return results


def record(
  results: reporting.Results,
  setting: _methods.Setting,
  predicted: Sequence[_predictions.Predicted],
  gpu: _gpu_targets.Gpu,
) -> None:
  """Adds the predictions of a setting to the record."""
  fitting = {
    x.plan.name: [x.prediction.seconds]
    for x in predicted
    if x.plan.engine == "non_private" and x.step.temp_bytes < gpu.memory_bytes
  }
  best = _clock.best_non_private(fitting) if fitting else None
  missing = (
    "no non-private step that fits the GPU's memory is among the methods"
  )
  results.set(
    f"{setting.key}/best_non_private", best, reason="" if best else missing
  )
  for item in predicted:
    key, prediction = f"{setting.key}/{item.plan.name}", item.prediction
    results.set(f"{key}/predicted_seconds_per_step", prediction.seconds)
    ratio = prediction.seconds / fitting[best][0] if best else None
    results.set(f"{key}/predicted_ratio_to_non_private", ratio, reason=missing)
    results.set(f"{key}/temp_bytes", item.step.temp_bytes)
    results.set(f"{key}/compile_seconds", item.step.compile_seconds)
    results.set(f"{key}/kernels", prediction.kernels)
    results.set(f"{key}/tflop", prediction.flops / 1e12)
    results.set(f"{key}/moved_bytes", prediction.bytes)
    results.set(f"{key}/chunk_size", item.chunk_size)
    for kind, seconds in prediction.by_kind.items():
      results.set(f"{key}/predicted_seconds/{_slug(kind)}", seconds)


def _slug(kind):
  return kind.replace(", ", "_").replace(" ", "_")


def _methods_of(results):
  """(setting, method) of all predictions, in their order."""
  suffix = "/predicted_seconds_per_step"
  for key in results:
    if key.endswith(suffix):
      setting, _, method = key.removesuffix(suffix).rpartition("/")
      yield setting, method


def make_table(results: reporting.Results) -> reporting.Table:
  """One row for each method of each setting."""
  rows = []
  for setting, method in _methods_of(results):
    prefix = f"{setting}/{method}"
    row: dict[str, Any] = {"setting": setting, "method": method}
    for column in ("chunk_size", "tflop", "kernels", "compile_seconds"):
      row[column] = results[f"{prefix}/{column}"]
    key = f"{prefix}/predicted_ratio_to_non_private"
    row["predicted_ratio_to_non_private"] = reporting.cell_of(results, key)
    row |= {
      "predicted_milliseconds": 1e3
      * _number(results, f"{prefix}/predicted_seconds_per_step"),
      "temp_gib": _number(results, f"{prefix}/temp_bytes") / 2**30,
      "moved_gib": _number(results, f"{prefix}/moved_bytes") / 2**30,
    }
    rows.append(row)
  bandwidth = _number(results, "assumed_bandwidth") / 1e12
  launch = 1e6 * _number(results, "assumed_launch_seconds")
  rates = ", ".join(
    f"{key.rpartition('/')[2]} {_number(results, key) / 1e12:g}"
    for key in results
    if key.startswith("assumed_rate/")
  )
  return reporting.Table(
    columns=_COLUMNS,
    rows=rows,
    title=_TITLE.format(gpu=results["gpu"]),
    notes=[
      "PREDICTED: each kernel takes the longer of its bytes at"
      f" {bandwidth:g} TB/s and its products at {rates} TFLOP/s, and"
      f" {launch:g} µs; ratios are to the fastest non-private step that fits"
      " the memory",
      "temporary memory is the compiler's plan",
      f"compiled with jax {results['jax']} on {results['date']} on"
      f" {results['compiled_on']}",
    ],
  )


def _number(results, key) -> float:
  value = results[key]
  assert isinstance(value, int | float)
  return value


def make_figure(results: reporting.Results) -> "matplotlib.figure.Figure":
  """Predicted time of each method as a bar, stacked by kind of kernel."""
  panels: dict[str, list[str]] = {}
  for setting, method in _methods_of(results):
    panels.setdefault(setting, []).append(method)
  tallest = max(map(len, panels.values()))
  columns = 2 if len(panels) == 1 else 5
  legend = 0.25 * math.ceil(len(_roofline.KINDS) / columns)
  with reporting.style():
    figure, all_axes = reporting.new_figure(
      panels=len(panels),
      panel_size=(5.2, 1.5 + legend + 0.36 * tallest),
      title=_TITLE.format(gpu=results["gpu"]).replace(", by", "\nby"),
    )
    for axes, (setting, methods) in zip(all_axes, panels.items(), strict=True):
      for row, method in enumerate(methods):
        _draw_bar(axes, row, results, f"{setting}/{method}")
      axes.set_yticks(
        range(len(methods)), [method.replace("_", " ") for method in methods]
      )
      axes.set_ylim(len(methods) - 0.4, -0.6)
      axes.set_xlim(0, 1.4 * axes.dataLim.x1)
      axes.set_title(setting)
      axes.set_xlabel("PREDICTED milliseconds per step")
      axes.grid(axis="y", visible=False)
      axes.tick_params(axis="y", length=0)
    handles, labels = all_axes[0].get_legend_handles_labels()
    unique = dict(zip(labels, handles))
    figure.legend(
      list(unique.values()),
      list(unique),
      loc="outside lower left",
      ncols=columns,
    )
  return figure


def _draw_bar(axes, row, results, prefix):
  left = 0.0
  for kind in _roofline.KINDS:
    width = 1e3 * _number(results, f"{prefix}/predicted_seconds/{_slug(kind)}")
    axes.barh(
      row, width, left=left, height=0.68, color=_COLORS[kind], label=kind
    )
    left += width
  ratio = results[f"{prefix}/predicted_ratio_to_non_private"]
  text = f"{left:.3g} ms" + (f", {ratio:.2f}×" if ratio is not None else "")
  axes.annotate(
    text,
    (left, row),
    xytext=(4, 0),
    textcoords="offset points",
    va="center",
    fontsize=7.5,
  )


def kernels_page(
  label: str, predicted: Sequence[_predictions.Predicted]
) -> str:
  """The most expensive kernels of each method of a setting, as Markdown."""
  tables = []
  for item in predicted:
    prediction = item.prediction
    shown = prediction.costliest[:_SHOWN_KERNELS]
    rows = [
      {
        "milliseconds": 1e3 * seconds,
        "count": kernel.count,
        "moved_gib": kernel.count * kernel.bytes / 2**30,
        "tflop": kernel.count * kernel.flops / 1e12,
        "kind": _roofline.kind(kernel),
        "what": kernel.what,
        "shape": _shortened(kernel.shape),
        "label": kernel.label,
      }
      for kernel, seconds in shown
    ]
    rest = prediction.seconds - sum(seconds for _, seconds in shown)
    table = reporting.Table(
      columns=_KERNEL_COLUMNS,
      rows=rows,
      title=f"{label}, {item.plan.name}: PREDICTED"
      f" {1e3 * prediction.seconds:.1f} ms",
      notes=[f"{1e3 * rest:.1f} ms in kernels that are not shown"],
    )
    tables.append(table.to_markdown())
  return "\n".join(tables)


def _shortened(text):
  if len(text) <= _LONGEST_SHAPE:
    return text
  return f"{text[:_LONGEST_SHAPE]}…"


def write(
  workdir: pathlib.Path,
  config: _config_flags.Config,
  results: reporting.Results,
  pages: Sequence[str],
) -> None:
  """Writes and prints record, tables and figure."""
  reporting.write_atomically(workdir / "kernels.md", "\n".join(pages))
  table = make_table(results)
  reporting.write_run(
    workdir,
    config=config,
    results=results,
    table=table,
    figures={"predicted_step_times": make_figure(results)},
  )
  reporting.print_table(table)
  files = "results.json, table.md, table.csv, kernels.md, figures/"
  print(f"\nFiles: {workdir}/{files}")
