"""The comparisons, the table and the figure of a canary study."""

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import stats

from experiments._attacks import _canary_data
from experiments._binary import _config_flags
from trustjax import fairness, reporting

if TYPE_CHECKING:
  import matplotlib.figure

# The arm that all others are compared with, and when they differ.
_REFERENCE = "none"
_SIGNIFICANT = 0.05
# Their number has no factor in common with that of the colours, so that a
# colour comes back with another marker.
_MARKERS = ("o", "s", "D", "^", "v")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trials:
  """What was found in the models of one arm and one kind of canary.

  Attributes:
    success: Whether all tokens of the code were found, [trials].
    bits: Exposure of the code, [trials]; None where it is not known.
  """

  success: np.ndarray
  bits: np.ndarray | None


def compare(
  results: reporting.Results,
  config: _config_flags.Config,
  cells: list[_canary_data.Cell],
  trials: Mapping[str, Mapping[str, Trials]],
) -> None:
  """Compares every defence with no defence, paired by trial.

  A trial has the same code, first parameters and seeds in every arm. Successes
  are compared by McNemar's exact test, exposures by Wilcoxon's signed ranks,
  both two-sided; Holm's correction runs over the defences of a kind of canary.

  Args:
    results: The record; gets p_accuracy, p_exposure and their p_*_holm.
    config: The study; without the arm "none" nothing is compared.
    cells: Kinds of canaries.
    trials: Arm to name of a kind of canary to its trials.
  """
  arms = [arm for arm in config.arms if arm != _REFERENCE]
  if _REFERENCE not in config.arms:
    return
  for cell in cells:
    base = trials[_REFERENCE][cell.name]
    p: dict[str, list[float]] = {"accuracy": [], "exposure": []}
    for arm in arms:
      own = trials[arm][cell.name]
      p["accuracy"].append(mcnemar(base.success, own.success))
      if base.bits is not None and own.bits is not None:
        p["exposure"].append(signed_ranks(base.bits, own.bits))
    for name, found in p.items():
      if not found:
        continue
      for arm, raw, adjusted in zip(
        arms, found, fairness.holm(np.array(found))
      ):
        results.set(f"{arm}/{cell.name}/p_{name}", raw)
        results.set(f"{arm}/{cell.name}/p_{name}_holm", float(adjusted))


def mcnemar(one: np.ndarray, other: np.ndarray) -> float:
  """Exact two-sided p-value that paired successes are equally likely.

  Of the pairs that differ, half should favour either side.

  Args:
    one: Successes, [pairs].
    other: Successes of the same trials.

  Returns:
    The p-value; 1 if no pair differs.
  """
  only_one = int((one & ~other).sum())
  differ = int((one != other).sum())
  return float(stats.binomtest(only_one, differ).pvalue) if differ else 1.0


def signed_ranks(one: np.ndarray, other: np.ndarray) -> float:
  """Wilcoxon's two-sided p-value that paired differences are symmetric at 0.

  Args:
    one: Values, [pairs].
    other: Values of the same trials.

  Returns:
    The p-value; pairs without a difference are left out, 1 if none is left.
  """
  difference = one - other
  if not difference.any():
    return 1.0
  found: Any = stats.wilcoxon(difference)
  return float(found.pvalue)


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
        row[column.key] = reporting.cell_of(
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
      *_comparison_notes(results, config, cells),
    ],
  )


def _comparison_notes(results, config, cells):
  """Which defences differ from none, in words."""
  arms = [arm for arm in config.arms if arm != _REFERENCE]
  if _REFERENCE not in config.arms or not arms:
    return []
  notes = []
  for name, column, test in (
    ("accuracy", "accuracy", "McNemar"),
    ("exposure", "exposure_mean", "Wilcoxon"),
  ):
    differ = []
    for cell in cells:
      for arm in arms:
        key = f"{arm}/{cell.name}/p_{name}_holm"
        if results.get(key, 1.0) >= _SIGNIFICANT:
          continue
        base, own = (
          results[f"{a}/{cell.name}/{column}"] for a in (_REFERENCE, arm)
        )
        side = "below" if own < base else "above"
        differ.append(f"{cell.name}: {arm} {side} (p {results[key]:.2g})")
    notes.append(
      f"{name} against no defence ({test} paired by trial, Holm over the"
      f" defences of a canary, 5 %): {'; '.join(differ) or 'none differs'}"
    )
  return notes


def make_figure(
  results: reporting.Results,
  config: _config_flags.Config,
  cells: list[_canary_data.Cell],
) -> "matplotlib.figure.Figure":
  """Accuracy and exposure of every defence, one colour for each canary."""
  styles = reporting.arm_styles([cell.name for cell in cells])
  arms = list(config.arms)
  spread = np.linspace(0.35, -0.35, len(cells)) if len(cells) > 1 else [0.0]
  handles: dict[str, Any] = {}
  markers = {
    cell.name: _MARKERS[i % len(_MARKERS)] for i, cell in enumerate(cells)
  }
  row = max(0.5, 0.12 * len(cells))
  with reporting.style():
    figure, (left, right) = reporting.new_figure(
      panels=2,
      panel_size=(4.4, row * len(arms) + 1.6),
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
            marker=markers[cell.name],
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
    right.set_xlabel("mean exposure in bits (grey: nothing is known)")
    figure.legend(
      list(handles.values()),
      list(handles),
      loc="outside lower left",
      ncols=min(4, max(1, len(handles))),
    )
  return figure
