r"""Races training steps: time, compilation and memory of engines and arms.

  python -m experiments.benchmark_training_step
  python -m experiments.benchmark_training_step \
      --config=configs/benchmark_training_step/table_a.py --workdir=OUT

All methods take the same step (gradients, clipping and noise where they are
private, Adam) on the same synthetic records, interleaved in one run. Ratios are
to the fastest non-private step, whole or accumulated, with a bootstrap
interval; once on full slots, and once averaged over lots drawn by the plan's
sampler, whose padding is part of the price of privacy.
"""

import datetime
import pathlib
import platform
from typing import Any

import jax

from experiments import (
  _benchmark_clock,
  _benchmark_methods,
  _config_flags,
  _console,
)
from trustjax import reporting, training

# The per-record loops, and the measure of how much faster a method is.
_LOOPS = {
  "dp_sgd_loop": "speedup_over_loop",
  "dp_sgd_loop_eager": "speedup_over_loop_eager",
}
_COLUMNS = (
  reporting.Column("setting"),
  reporting.Column("method"),
  reporting.Column("seconds_per_step", "time per step", "s"),
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


def check(config: _config_flags.Config) -> None:
  """Raises ValueError if a count or a setting of the config is impossible."""
  for field, least in (("rounds", 2), ("host_rounds", 2), ("num_lots", 0)):
    if config[field] < least:
      raise ValueError(
        f"config.{field}: got {config[field]}; it must be at least {least}"
      )
  if not config.settings:
    raise ValueError("config.settings: got none; at least one is needed")
  for number, fields in enumerate(config.settings):
    missing = [key for key in ("model", "batch_size") if key not in fields]
    if missing:
      raise ValueError(
        f"config.settings[{number}]: got {dict(fields)}; {missing} are missing"
      )
  names = [fields["model"] for fields in config.settings]
  if config.only and config.only not in names:
    raise ValueError(
      f"config.only: got {config.only!r}; the models of config.settings are"
      f" {names}"
    )


def chosen_settings(config: _config_flags.Config) -> list[dict[str, Any]]:
  """The fields of the settings to race, in the config's order."""
  return [
    dict(fields)
    for fields in config.settings
    if config.only in ("", fields["model"])
  ]


def make_settings(
  config: _config_flags.Config,
) -> list[_benchmark_methods.Setting]:
  """The models and batch sizes of a config, built in its order."""
  data = config.data.to_dict()
  settings = []
  for fields in chosen_settings(config):
    fields = {k: v for k, v in fields.items() if k != "engines"}
    name, batch_size = fields.pop("model"), fields.pop("batch_size")
    settings.append(
      _benchmark_methods.make_setting(name, batch_size, **(data | fields))
    )
  return settings


def record(
  results: reporting.Results,
  setting: _benchmark_methods.Setting,
  timings: dict[str, _benchmark_clock.Timing],
) -> None:
  """Adds a setting's timings to the record."""
  seconds = {name: timing.seconds for name, timing in timings.items()}
  best = _benchmark_clock.best_non_private(seconds)
  results.set(f"{setting.key}/best_non_private", best)
  for name, timing in timings.items():
    key = f"{setting.key}/{name}"
    results.measure(
      f"{key}/seconds_per_step", reporting.bootstrap_median(timing.seconds)
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


def make_table(results: reporting.Results) -> reporting.Table:
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
  return reporting.Table(
    columns=_COLUMNS,
    rows=rows,
    title="Training steps against the best non-private step",
    notes=[str(results["hardware"]), f"measured {results['date']}"],
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


def run(config: _config_flags.Config, workdir: pathlib.Path) -> None:
  """Races every setting, writes and prints the record."""
  check(config)
  settings = make_settings(config)
  races = [
    _benchmark_methods.make_methods(
      setting,
      engines=fields.get("engines", config.engines),
      chunk_sizes=config.chunk_sizes,
      group_sizes=config.group_sizes,
      drawn=config.drawn,
    )
    for setting, fields in zip(settings, chosen_settings(config), strict=True)
  ]
  results = reporting.Results()
  results.set_protocol(
    {
      "settings": chosen_settings(config),
      "data": config.data.to_dict(),
      "optimizer": "adam",
    }
  )
  results.set("hardware", hardware())
  results.set("jax", jax.__version__)
  results.set("date", datetime.date.today().isoformat())
  results.set("rounds", config.rounds)
  results.set("host_rounds", config.host_rounds)
  results.set("num_lots", config.num_lots)
  for setting, methods in zip(settings, races, strict=True):
    total = len(methods) + config.rounds + config.num_lots
    with training.progress_bar(setting.key, total) as update:
      done = iter(range(1, total + 1))
      timings = _benchmark_clock.race(
        setting,
        methods,
        rounds=config.rounds,
        host_rounds=config.host_rounds,
        num_lots=config.num_lots,
        progress=lambda note, done=done, update=update: update(
          next(done), note
        ),
      )
    record(results, setting, timings)
    print(f"{setting.key}: done", flush=True)
  table = make_table(results)
  reporting.write_run(
    workdir,
    config=config,
    results=results,
    table=table,
    figures={"step_time_ratios": make_figure(results)},
  )
  reporting.print_table(table)
  print(f"\nFiles: {workdir}/results.json, table.md, table.csv, figures/")


if __name__ == "__main__":
  _console.run_binary(
    run,
    default_config="benchmark_training_step/default.py",
    keep_compiled=False,
  )
