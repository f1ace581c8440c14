"""The table and the figure of a canary study."""

from typing import TYPE_CHECKING, Any

import numpy as np

from experiments import _canary_data, _config_flags
from trustjax import reporting

if TYPE_CHECKING:
  import matplotlib.figure


def make_table(
  results: reporting.Results,
  config: _config_flags.Config,
  cells: list[_canary_data.Cell],
) -> reporting.Table:
  """One row for each canary and defence."""
  columns = [
    reporting.Column("canary"),
    reporting.Column("defence"),
    reporting.Column("trials"),
    reporting.Column("accuracy", "all tokens right"),
    reporting.Column("hamming", "Hamming distance"),
    reporting.Column("exposure_mean", "exposure", "bits"),
    reporting.Column("rank_median", "median rank"),
    reporting.Column("exhaustive_top1", "exhaustive top 1"),
    reporting.Column("intent_accuracy", "intent accuracy"),
    reporting.Column("slot_f1", "slot F1"),
    reporting.Column("epsilon", "epsilon", format=".2f"),
    reporting.Column("epsilon_group", "of all copies", format=".1f"),
  ]
  rows = []
  for cell in cells:
    for arm in config.arms:
      row: dict[str, Any] = {"canary": cell.name, "defence": arm}
      for column in columns[2:]:
        key = f"{arm}/{cell.name}/{column.key}"
        row[column.key] = _cell(
          results, key if key in results else f"{arm}/{column.key}"
        )
      rows.append(row)
  return reporting.Table(
    columns=columns,
    rows=rows,
    title=(
      f"Canary extraction, {config.data.name}, {config.model.name},"
      f" {config.attack.pool_size} utterances, delta {config.delta:g}"
    ),
    notes=[
      "accuracy: exact 95 % intervals; chance is candidates^-n",
      "of all copies: epsilon of the group of R copies, which is what bounds"
      " the extraction of the code",
    ],
  )


def _cell(results, key):
  value = results[key]
  if value is None:
    return reporting.Missing(results.reason(key))
  measured = results.interval(key)
  return measured if measured and measured.has_ends else value


def make_figure(
  results: reporting.Results,
  config: _config_flags.Config,
  cells: list[_canary_data.Cell],
) -> "matplotlib.figure.Figure":
  """Accuracy and exposure of every defence, one colour for each canary."""
  styles = reporting.arm_styles([cell.name for cell in cells])
  arms = list(config.arms)
  spread = np.linspace(0.25, -0.25, len(cells)) if len(cells) > 1 else [0.0]
  handles: dict[str, Any] = {}
  with reporting.style():
    figure, (left, right) = reporting.new_figure(
      panels=2,
      panel_size=(4.4, 0.5 * len(arms) + 1.6),
      title="Codes extracted from trained models",
    )
    for axes, name in ((left, "accuracy"), (right, "exposure_mean")):
      for offset, cell in zip(spread, cells):
        for place, arm in enumerate(reversed(arms)):
          measured = results.interval(f"{arm}/{cell.name}/{name}")
          if measured is None:
            continue
          low = measured.estimate if measured.low is None else measured.low
          high = measured.estimate if measured.high is None else measured.high
          handles[cell.name] = axes.errorbar(
            measured.estimate,
            place + offset,
            xerr=[[measured.estimate - low], [high - measured.estimate]],
            color=styles[cell.name].color,
            marker=styles[cell.name].marker,
            markersize=5,
            linewidth=1.1,
          )
      axes.set_yticks(
        range(len(arms)), [arm.replace("_", " ") for arm in reversed(arms)]
      )
      axes.set_ylim(-0.6, len(arms) - 0.4)
    left.set_xlim(-0.03, 1.03)
    left.set_xlabel("share of codes with all tokens right")
    right.axvline(1 / np.log(2), color="#999999", linewidth=0.8)
    right.set_xlim(left=0)
    right.set_xlabel("mean exposure in bits (grey: a model that knows nothing)")
    figure.legend(
      list(handles.values()),
      list(handles),
      loc="outside lower left",
      ncols=min(4, max(1, len(handles))),
    )
  return figure
