"""What the device-selection study leaves behind: record, table, curves."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from experiments._binary import _config_flags
from experiments._federated import _device_study, _setup
from trustjax import federated, reporting

Scores = Mapping[str, Sequence[Mapping[str, Any]]]
_SOURCE = "Dupuy et al., ICASSP 2022, abstract"
_CLAIMS = {
  "static": "non-uniform beats uniform selection when all data is there",
  "continual": "the gain is larger when data arrives and is deleted",
  "catch_up": "continual non-uniform beats static uniform selection",
}
_COLUMNS = (
  reporting.Column("arm"),
  reporting.Column("final_accuracy", "final accuracy", format=".3f"),
  reporting.Column("rounds_to_target", "rounds to target", format=".1f"),
  reporting.Column("examples_to_target", "examples to target", format=",.0f"),
  reporting.Column("bytes_to_target", "uploaded MB to target", format=",.1f"),
  reporting.Column("examples", "examples in all", format=",.0f"),
  reporting.Column("decile_0", "least active tenth", format=".3f"),
  reporting.Column("decile_9", "most active tenth", format=".3f"),
  reporting.Column("backward_transfer", "backward transfer", format="+.3f"),
  reporting.Column("forgetting", "forgetting", format=".3f"),
)


def make_results(
  config: _config_flags.Config, task: _setup.Task, scores: Scores
) -> reporting.Results:
  """Gathers the record of a study.

  Args:
    config: The study.
    task: What its arms share.
    scores: Arm name to the scores of its seeds, in the same order.

  Returns:
    The record.
  """
  results = reporting.Results()
  protocol = {
    name: config[name].to_dict()
    for name in ("population", "stream", "algorithm", "selection")
  }
  results.set_protocol(
    task.describe
    | protocol
    | {
      "seeds": list(range(config.seed, config.seed + config.num_seeds)),
      "num_rounds": config.num_rounds,
      "max_examples": config.max_examples,
    }
  )
  results.set("device", f"{jax.default_backend()} ({jax.devices()[0]})")
  targets = _targets(config, scores)
  for name, seeds in scores.items():
    finals = [seed["accuracy"] for seed in seeds]
    results.measure(f"{name}/final_accuracy", reporting.mean_interval(finals))
    results.measure(
      f"{name}/examples",
      reporting.mean_interval([seed["examples"][-1] for seed in seeds]),
    )
    for axis in ("rounds", "examples", "bytes_up"):
      key = f"{name}/{axis.removesuffix('_up')}_to_target"
      _set_to_target(results, key, seeds, targets, axis)
    _set_deciles(results, name, seeds)
    _set_periods(results, name, seeds)
  for claim in _CLAIMS:
    for suffix in ("", f"_{_device_study.EQUAL}"):
      results.add_claim(_claim(config, scores, claim, suffix))
  return results


def _targets(config, scores):
  """Final accuracy of the static (or only) baseline, seed by seed."""
  setting = "static" if "static" in config.settings else config.settings[0]
  seeds = scores[f"{setting}/{config.strategies[0]}"]
  return [seed["accuracy"] for seed in seeds]


def _set_to_target(results, key, seeds, targets, axis):
  """First evaluated place at which an arm has its seed's target."""
  found = []
  for seed, target in zip(seeds, targets, strict=True):
    reached = np.flatnonzero(np.asarray(seed["accuracies"]) >= target)
    if reached.size:
      found.append(float(seed[axis][reached[0]]))
  if len(found) == len(seeds):
    results.measure(key, reporting.mean_interval(found))
    return
  results.set(
    key,
    None,
    reason=(
      f"{len(seeds) - len(found)} of {len(seeds)} seeds never reach the final"
      " accuracy of the baseline"
    ),
  )


def _set_deciles(results, name, seeds):
  """Final accuracy on the mixture of each tenth of the devices."""
  for decile in range(10):
    values = [seed.get("deciles", [None] * 10)[decile] for seed in seeds]
    _set_mean(
      results,
      f"{name}/decile_{decile}",
      values,
      "the test set has no records like those of these devices",
    )


def _set_periods(results, name, seeds):
  """Accuracy by period, and what became of it later."""
  matrices = [np.array(seed.get("periods", [[None]]), float) for seed in seeds]
  for period in range(matrices[0].shape[0]):
    _set_mean(
      results,
      f"{name}/period_{period}",
      [matrix[period, period] for matrix in matrices],
      "the test set has no records like those of this period",
    )
  fields = ("final_earlier", "backward", "forgetting")
  keys = ("earlier_periods", "backward_transfer", "forgetting")
  if matrices[0].shape[0] < 2:
    for key in keys:
      results.set(f"{name}/{key}", None, reason="there is one period only")
    return
  found = [federated.transfer(matrix) for matrix in matrices]
  for field, key in zip(fields, keys):
    _set_mean(
      results,
      f"{name}/{key}",
      [getattr(transfer, field) for transfer in found],
      "the test set has no records like those of a period",
    )


def _set_mean(results, key, values, reason):
  numbers = np.array(values, float)
  if np.all(np.isfinite(numbers)):
    results.measure(key, reporting.mean_interval(numbers))
  else:
    results.set(key, None, reason=reason)


def _claim(config, scores, name, suffix):
  """A difference over seeds, paired; it holds if the interval is above 0."""
  baseline, other = config.strategies[0], f"{config.strategies[1]}{suffix}"

  def finals(setting, strategy):
    seeds = scores.get(f"{setting}/{strategy}")
    return None if seeds is None else np.array([s["accuracy"] for s in seeds])

  parts = {
    "static": (("static", other, 1), ("static", baseline, -1)),
    "continual": (
      ("continual", other, 1),
      ("continual", baseline, -1),
      ("static", other, -1),
      ("static", baseline, 1),
    ),
    "catch_up": (("continual", other, 1), ("static", baseline, -1)),
  }[name]
  columns = [finals(setting, strategy) for setting, strategy, _ in parts]
  missing = [p[:2] for p, c in zip(parts, columns) if c is None]
  fields: dict[str, Any] = dict(
    name=name + suffix,
    relation="at_least",
    threshold=0.0,
    source=f"{_SOURCE}: {_CLAIMS[name]}",
  )
  if missing:
    return reporting.Claim(
      estimate=None, reason=f"not run: {missing[0][0]}", **fields
    )
  difference = sum(sign * c for (_, _, sign), c in zip(parts, columns))
  return reporting.Claim(
    estimate=reporting.mean_interval(np.asarray(difference)), **fields
  )


def make_table(
  config: _config_flags.Config, results: reporting.Results, arms
) -> reporting.Table:
  """One row for each arm, and the claims below."""
  rows = []
  for arm in arms:
    row: dict[str, Any] = {"arm": arm.name}
    for column in _COLUMNS[1:]:
      key = f"{arm.name}/{column.key}"
      if results[key] is None:
        row[column.key] = reporting.Missing(str(results[f"{key}_reason"]))
        continue
      value = results.interval(key)
      assert value is not None
      if column.key == "bytes_to_target":
        value = _scaled(value, 1e-6)
      row[column.key] = value
    rows.append(row)
  notes = [
    "Target: the final accuracy of the baseline in the same seed."
    " Equal-examples arms stop, in each period, at the examples that the"
    " baseline used in it.",
    "Tenths of the devices and periods: the accuracy of each intent on the test"
    " set, weighted by their mixture of intents. Backward transfer: the"
    " accuracy on all periods but the last at the end, minus that right after"
    " each; forgetting: the best since then, minus that at the end.",
  ]
  for claim in _CLAIMS:
    for suffix in ("", f"_{_device_study.EQUAL}"):
      key = f"claim/{claim}{suffix}"
      estimate = results[f"{key}/estimate"]
      shown = "" if estimate is None else f" ({estimate:+.3f})"
      notes.append(f"{key}: {results[key]}{shown}")
  return reporting.Table(
    columns=_COLUMNS,
    rows=rows,
    title=f"Device selection, {config.num_seeds} seeds",
    notes=notes,
  )


def _scaled(interval, factor):
  if not interval.has_ends:
    return reporting.Interval(interval.estimate * factor)
  return reporting.Interval(
    interval.estimate * factor,
    interval.low * factor,
    interval.high * factor,
    interval.n,
  )


def make_figures(scores: Scores) -> dict[str, Any]:
  """Accuracy against rounds, examples and uploaded bytes, one figure each."""
  figures = {}
  for axis, label in (
    ("rounds", "round"),
    ("examples", "examples, thousands"),
    ("bytes_up", "uploaded, MB"),
  ):
    divisor = {"rounds": 1.0, "examples": 1e3, "bytes_up": 1e6}[axis]
    panels: dict[str, dict[str, reporting.Curve]] = {}
    for name, seeds in scores.items():
      setting, _, strategy = name.partition("/")
      curves = _on_one_grid(seeds, axis, divisor)
      title = f"Test accuracy, {setting}"
      if setting == "central":
        for other in ("static", "continual"):
          if any(key.startswith(other) for key in scores):
            panel = panels.setdefault(f"Test accuracy, {other}", {})
            panel["central"] = curves
        continue
      panels.setdefault(title, {})[strategy] = curves
    figures[f"accuracy_against_{axis}"] = reporting.plot_learning_curves(
      panels, x_label=label, title="Device selection by activity"
    )
  return figures | _decile_figure(scores)


def _decile_figure(scores):
  """Who pays: final accuracy on the mixture of each tenth of the devices."""
  panels: dict[str, dict[str, reporting.Curve]] = {}
  for name, seeds in scores.items():
    setting, _, strategy = name.partition("/")
    rows = [seed.get("deciles", [None]) for seed in seeds]
    if setting == "central" or any(None in row for row in rows):
      continue
    curves = [reporting.Curve(np.arange(10), row) for row in rows]
    panel = panels.setdefault(f"Test accuracy, {setting}", {})
    panel[strategy] = reporting.mean_curve(curves)
  if not panels:
    return {}
  figure = reporting.plot_learning_curves(
    panels, x_label="tenth by activity", title="Device selection by activity"
  )
  return {"accuracy_by_decile": figure}


def _on_one_grid(seeds, axis, divisor):
  """The mean curve; seeds evaluate at the same rounds, not examples."""
  x = np.mean([seed[axis] for seed in seeds], axis=0) / divisor
  same = [reporting.Curve(x, seed["accuracies"]) for seed in seeds]
  return reporting.mean_curve(same)


def make_heat_map(
  task: _setup.Task, partition: federated.Partition, most: int = 100
):
  """How unlike the devices are: divergences of every pair, in bits.

  Args:
    task: Its groups are the labels.
    partition: Which device holds what.
    most: Devices shown: the most active ones.

  Returns:
    The figure.
  """
  shares = federated.label_shares(task.groups, partition)
  shown = np.argsort(-partition.sizes, kind="stable")[:most]
  shares = shares[shown[partition.sizes[shown] > 0]]
  matrix = federated.jensen_shannon_matrix(shares)
  order = federated.heat_map_order(matrix)
  with reporting.style():
    figure, axes = reporting.new_figure(
      panels=1, panel_size=(4.6, 3.8), title="How unlike devices are"
    )
    image = axes[0].imshow(
      matrix[order][:, order], vmin=0, vmax=1, cmap="viridis"
    )
    axes[0].grid(False)
    axes[0].set_xlabel(f"{len(shares)} most active devices")
    axes[0].set_ylabel("the same")
    figure.colorbar(image, label="Jensen-Shannon divergence (bits)")
  return figure


def write(
  workdir: pathlib.Path,
  config: _config_flags.Config,
  task: _setup.Task,
  partition: federated.Partition,
  arms: Sequence[_device_study.Arm],
  scores: Scores,
) -> None:
  """Writes results.json, table and figures, and prints the table."""
  results = make_results(config, task, scores)
  table = make_table(config, results, arms)
  reporting.write_run(
    workdir,
    config=config,
    results=results,
    table=table,
    figures=make_figures(scores) | {"heat_map": make_heat_map(task, partition)},
  )
  print()
  reporting.print_table(table)
  print(f"\nFiles: {workdir}/results.json, table.md, table.csv, figures/")
