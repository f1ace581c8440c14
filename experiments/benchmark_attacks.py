r"""Times shadow training, attack scores and canary extraction.

  python -m experiments.benchmark_attacks

Everything is interleaved in one run: shadow models as one program against a
host loop and against the arithmetic floor; LiRA and RMIA on statistics of many
models, and LiRA record by record as published; attacks on canaries in one
program against run by run; all completions of a code.
"""

import pathlib
from typing import Any

from experiments import (
  _attack_races,
  _benchmark_record,
  _config_flags,
  _console,
)
from trustjax import reporting

# Method, what it is compared with, and the bar: at most so many times.
_BARS = {
  "shadow/ensemble": ("shadow/floor", 1.2),
  "extraction/together": ("extraction/separate", 0.5),
}
# Seconds that a single piece of work may take.
_LIMITS = {
  "scoring/lira_online_one_target": 2.0,
  "scoring/rmia_one_target": 2.0,
  "extraction/exhaustive": 2.0,
}


def check(config: _config_flags.Config) -> None:
  """Raises ValueError if a count of the config is impossible."""
  counts = {
    "rounds": (config.rounds, 2),
    "shadow.num_models": (config.shadow.num_models, 1),
    "shadow.num_steps": (config.shadow.num_steps, 1),
    "shadow.sequential_models": (config.shadow.sequential_models, 1),
    "scoring.num_models": (config.scoring.num_models, 8),
    "scoring.num_records": (config.scoring.num_records, 1),
    "extraction.num_trials": (config.extraction.num_trials, 1),
  }
  for field, (value, least) in counts.items():
    if value < least:
      raise ValueError(
        f"config.{field}: got {value}; it must be at least {least}"
      )


def run(config: _config_flags.Config, workdir: pathlib.Path) -> None:
  """Times everything, writes and prints the record."""
  check(config)
  results = reporting.Results()
  results.set_protocol(
    {
      "shadow": config.shadow.to_dict(),
      "scoring": config.scoring.to_dict(),
      "search": config.extraction.search.to_dict(),
    }
  )
  results.set("hardware", _benchmark_record.hardware())
  seconds, found = _attack_races.shadow_training(config)
  for name, value in found.items():
    results.set(f"shadow/ensemble/{name}", value)
  races = {"shadow": seconds}
  races["scoring"] = _attack_races.scoring(config)
  races["extraction"] = _attack_races.extraction(config)
  flat = {
    f"{race}/{name}": times
    for race, methods in races.items()
    for name, times in methods.items()
  }
  for key, times in flat.items():
    results.measure(f"{key}/seconds", reporting.bootstrap_median(times))
  for key, (other, bar) in _BARS.items():
    ratio = reporting.bootstrap_ratio_of_medians(flat[key], flat[other])
    results.measure(f"{key}/ratio", ratio)
    results.set(f"{key}/compared_with", other)
    met = reporting.meets_bar(ratio, at_most=bar)
    results.set(f"{key}/bar", f"at most {bar:g}: {'met' if met else 'missed'}")
  results.measure(
    "shadow/ensemble/speedup_over_sequential",
    reporting.bootstrap_ratio_of_medians(
      flat["shadow/sequential"], flat["shadow/ensemble"]
    ),
  )
  for key, limit in _LIMITS.items():
    median = results[f"{key}/seconds"]
    assert isinstance(median, float)
    met = "met" if median < limit else "missed"
    results.set(f"{key}/bar", f"under {limit:g} s: {met}")
  table = make_table(results, list(flat))
  reporting.write_run(workdir, config=config, results=results, table=table)
  reporting.print_table(table)
  print(f"\nFiles: {workdir}/results.json, table.md, table.csv")


def make_table(results: reporting.Results, keys: list[str]) -> reporting.Table:
  """One row for each method."""
  rows: list[dict[str, Any]] = []
  for key in keys:
    row: dict[str, Any] = {"work": key}
    row["seconds"] = results.interval(f"{key}/seconds")
    for name in ("ratio", "compared_with", "bar"):
      full = f"{key}/{name}"
      if full in results:
        value = results[full]
        row[name] = value if isinstance(value, str) else results.interval(full)
    rows.append(row)
  speedup = results.interval("shadow/ensemble/speedup_over_sequential")
  assert speedup is not None
  return reporting.Table(
    columns=[
      reporting.Column("work"),
      reporting.Column("seconds", "time", "s"),
      reporting.Column("ratio"),
      reporting.Column("compared_with", "to"),
      reporting.Column("bar"),
    ],
    rows=rows,
    title="Attacks: shadow models, scores, canary extraction",
    notes=[
      str(results["hardware"]),
      "shadow: of one step of one model; the ensemble is"
      f" {speedup.estimate:.2f} times as fast as the host loop and compiled"
      f" once, in {results['shadow/ensemble/compile_seconds']:.1f} s, for"
      f" {results['shadow/ensemble/models']} models",
      "extraction: of one trial; exhaustive: 10,000 completions of one model",
    ],
  )


if __name__ == "__main__":
  _console.run_binary(
    run, default_config="benchmark_attacks/default.py", keep_compiled=False
  )
