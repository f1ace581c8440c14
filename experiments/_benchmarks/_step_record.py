"""The record, the table and the figure of a step benchmark."""

import datetime
import pathlib
import platform
from typing import Any

import jax
import numpy as np

from experiments._benchmarks import _clock, _methods
from experiments._binary import _config_flags
from trustjax import reporting

# The per-record loops, and the measure of how much faster a method is.
_LOOPS = {
  "dp_sgd_loop": "speedup_over_loop",
  "dp_sgd_loop_eager": "speedup_over_loop_eager",
}
_COLUMNS = (
  reporting.Column("setting"),
  reporting.Column("method"),
  reporting.Column("seconds_per_step", "time per step", "s"),
  reporting.Column("tokens_per_second", "tokens/s", format=".3g"),
  reporting.Column("ratio_to_non_private", "ratio, full slots"),
  reporting.Column("ratio_drawn_lots", "ratio, drawn lots"),
  reporting.Column("padding_share", "padding", format=".0%"),
  reporting.Column("compile_seconds", "compile", "s", format=".1f"),
  reporting.Column("temp_mib", "temporary memory", "MiB", format=".0f"),
  reporting.Column("speedup_over_loop", "faster than loop", "×"),
  reporting.Column("speedup_over_loop_eager", "than eager loop", "×"),
)


def hardware() -> str:
  """Processor, cores and devices, in one line."""
  name = platform.processor() or platform.machine()
  cpuinfo = pathlib.Path("/proc/cpuinfo")
  cores = 0
  if cpuinfo.exists():
    lines = cpuinfo.read_text(encoding="utf-8").splitlines()
    models = [x.partition(":")[2].strip() for x in lines if "model name" in x]
    name, cores = (models[0] if models else name), len(models)
  devices = jax.devices()
  return (
    f"{name}, {cores or 'unknown number of'} cores; {len(devices)}"
    f" {devices[0].device_kind} device(s)"
  )


def new_results(
  config: _config_flags.Config, protocol: dict[str, Any]
) -> reporting.Results:
  """A record that knows its protocol, hardware and date."""
  results = reporting.Results()
  results.set_protocol(protocol | {"data": config.data.to_dict()})
  results.set("hardware", hardware())
  results.set("jax", jax.__version__)
  results.set("date", datetime.date.today().isoformat())
  for count in ("rounds", "host_rounds", "num_lots"):
    results.set(count, config[count])
  return results


def record(
  results: reporting.Results,
  setting: _methods.Setting,
  timings: dict[str, _clock.Timing],
) -> None:
  """Adds a setting's timings to the record."""
  seconds = {name: timing.seconds for name, timing in timings.items()}
  best = _clock.best_non_private(seconds)
  results.set(f"{setting.key}/best_non_private", best)
  for name, timing in timings.items():
    key = f"{setting.key}/{name}"
    results.measure(
      f"{key}/seconds_per_step", reporting.bootstrap_median(timing.seconds)
    )
    tokens = setting.batch_size * setting.examples["tokens"].shape[1]
    results.set(
      f"{key}/tokens_per_second", tokens / float(np.median(timing.seconds))
    )
    # A slow method ran in the first rounds only: pair it with those.
    reference = seconds[best][: len(timing.seconds)]
    results.measure(
      f"{key}/ratio_to_non_private",
      reporting.bootstrap_ratio_of_medians(timing.seconds, reference),
    )
    if timing.drawn_ratios:
      results.measure(
        f"{key}/ratio_drawn_lots",
        reporting.mean_interval(timing.drawn_ratios),
      )
      results.set(f"{key}/padding_share", timing.padding_share)
    for loop, measure in _LOOPS.items():
      if loop in seconds:
        results.measure(
          f"{key}/{measure}",
          reporting.bootstrap_ratio_of_medians(
            seconds[loop], timing.seconds, paired=name == loop
          ),
        )
    host = "the step runs on the host and is not compiled as one program"
    results.set(f"{key}/compile_seconds", timing.compile_seconds, reason=host)
    results.set(f"{key}/temp_bytes", timing.temp_bytes, reason=host)


def make_table(
  results: reporting.Results, notes: tuple[str, ...] = ()
) -> reporting.Table:
  """One row for each method of each setting."""
  rows = []
  suffix = "/ratio_to_non_private"
  for key in [k for k in results if k.endswith(suffix)]:
    prefix = key.removesuffix(suffix)
    setting, _, method = prefix.rpartition("/")
    row: dict[str, Any] = {"setting": setting, "method": method}
    for column in _COLUMNS[2:]:
      if f"{prefix}/{column.key}" in results:
        row[column.key] = _cell(results, f"{prefix}/{column.key}")
    memory = results[f"{prefix}/temp_bytes"]
    if isinstance(memory, int | float):
      row["temp_mib"] = memory / 2**20
    rows.append(row)
  # Measures that nobody has, such as the loop's factor without a loop.
  columns = [c for c in _COLUMNS if any(c.key in row for row in rows)]
  return reporting.Table(
    columns=columns,
    rows=rows,
    title="Training steps against the best non-private step",
    notes=[
      str(results["hardware"]),
      f"jax {results['jax']}, measured {results['date']}",
      *notes,
    ],
  )


def _cell(results, key):
  if results[key] is None:
    return None
  return results.interval(key)


def make_figure(results: reporting.Results):
  """Ratios on full slots as bars; the per-record loops are left to the table.

  Args:
    results: The record.

  Returns:
    The figure.
  """
  panels: dict[str, dict[str, reporting.Interval]] = {}
  for key in results:
    setting, _, rest = key.partition("/")
    method, _, measure = rest.partition("/")
    if measure != "ratio_to_non_private" or method in _LOOPS:
      continue
    ratio = results.interval(key)
    assert ratio is not None
    panels.setdefault(setting, {})[method] = ratio
  return reporting.plot_step_time_ratios(
    panels, reference="the best non-private step"
  )


def write(
  workdir: pathlib.Path,
  config: _config_flags.Config,
  results: reporting.Results,
  notes: tuple[str, ...] = (),
) -> None:
  """Writes and prints record, table and figure."""
  table = make_table(results, notes)
  reporting.write_run(
    workdir,
    config=config,
    results=results,
    table=table,
    figures={"step_time_ratios": make_figure(results)},
  )
  reporting.print_table(table)
  print(f"\nFiles: {workdir}/results.json, table.md, table.csv, figures/")
