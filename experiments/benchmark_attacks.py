r"""Times shadow training, attack scores and canary extraction.

  python -m experiments.benchmark_attacks

Everything is interleaved in one run: shadow models as one program against a
host loop and against the arithmetic floor; LiRA and RMIA on statistics of many
models, and as published, record by record and pair by pair; the same work by
the installed ones of the peers that the config names, whose values are
compared, too; attacks on canaries in one program against run by run; all
completions of a code. Peers that are missing are skipped by name.

Without flags the sizes are small, so that all of it ends in two minutes; the
project's bars are for the sizes of configs/benchmark_attacks/full.py, and only
there, or above, a number is held against its bar.
"""

import dataclasses
import pathlib
from typing import Any

import numpy as np

from experiments._attacks import _peers, _races
from experiments._benchmarks import _step_record
from experiments._binary import _config_flags, _console
from trustjax import reporting

_RACES = ("shadow", "scoring", "peers", "extraction")


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Bar:
  """What a piece of work is compared with.

  Attributes:
    other: Work that it is compared with; None judges its seconds.
    limit: At most so many times the other's seconds, or under so many seconds.
    sizes: Config fields and the least sizes that the limit is meant for.
  """

  other: str | None
  limit: float
  sizes: dict[str, int]

  def verdict(self, config, met: bool) -> tuple[str | None, str]:
    """The result, or None and the reason why there is none."""
    for field, least in self.sizes.items():
      race, name = field.split(".")
      if config[race][name] < least:
        return None, f"the bar is for config.{field} = {least}"
    limit = (
      f"at most {self.limit:g}" if self.other else f"under {self.limit:g} s"
    )
    return f"{limit}: {'met' if met else 'missed'}", ""


_SCORES = {"scoring.num_models": 64, "scoring.num_records": 20_000}
_BARS = {
  "shadow/ensemble": _Bar(
    other="shadow/floor", limit=1.2, sizes={"shadow.num_models": 64}
  ),
  "extraction/together": _Bar(
    other="extraction/separate", limit=0.5, sizes={"extraction.num_trials": 50}
  ),
  "scoring/lira_online_one_target": _Bar(other=None, limit=2.0, sizes=_SCORES),
  "scoring/rmia_one_target": _Bar(other=None, limit=2.0, sizes=_SCORES),
  "extraction/exhaustive": _Bar(other=None, limit=2.0, sizes={}),
}


def check(config: _config_flags.Config) -> None:
  """Raises ValueError if a count of the config is impossible."""
  counts = {
    "shadow.rounds": (config.shadow.rounds, 2),
    "scoring.rounds": (config.scoring.rounds, 2),
    "extraction.rounds": (config.extraction.rounds, 2),
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
  unknown = sorted(set(config.races) - set(_RACES))
  if unknown or not config.races:
    raise ValueError(
      f"config.races: got {list(config.races)}; allowed are {list(_RACES)}"
    )
  unknown = sorted(set(config.peers) - set(_peers.NAMES))
  if unknown:
    raise ValueError(
      f"config.peers: got {unknown}; allowed are {list(_peers.NAMES)}"
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
  results.set("hardware", _step_record.hardware())
  races, notes = _race(results, config)
  flat = {
    f"{race}/{name}": times
    for race, methods in races.items()
    for name, times in methods.items()
  }
  for key, times in flat.items():
    results.measure(f"{key}/seconds", reporting.bootstrap_median(times))
  for key in flat:
    if key.startswith("peers/") and key.endswith("/ours"):
      _compare(results, flat, key, key.replace("/ours", "/peer"))
  for key, bar in _BARS.items():
    if key not in flat:
      continue
    if bar.other:
      ratio = _compare(results, flat, key, bar.other)
      met = reporting.meets_bar(ratio, at_most=bar.limit)
    else:
      met = np.median(flat[key]) < bar.limit
    verdict, reason = bar.verdict(config, bool(met))
    results.set(f"{key}/bar", verdict, reason=reason)
  table = make_table(results, list(flat), notes)
  reporting.write_run(workdir, config=config, results=results, table=table)
  reporting.print_table(table)
  print(f"\nFiles: {workdir}/results.json, table.md, table.csv")


def _compare(results, flat, key, other):
  """Records how many times the other's seconds one takes."""
  ratio = reporting.bootstrap_ratio_of_medians(flat[key], flat[other])
  results.measure(f"{key}/ratio", ratio)
  results.set(f"{key}/compared_with", other)
  return ratio


def _race(results, config):
  """Seconds by race, method and round, and notes; the races of the config."""
  races: dict[str, dict[str, list[float]]] = {}
  notes = [str(results["hardware"])]
  if "shadow" in config.races:
    races["shadow"], found = _races.shadow_training(config)
    for name, value in found.items():
      results.set(f"shadow/ensemble/{name}", value)
    speedup = reporting.bootstrap_ratio_of_medians(
      races["shadow"]["sequential"], races["shadow"]["ensemble"]
    )
    results.measure("shadow/ensemble/speedup_over_sequential", speedup)
    notes.append(
      "shadow: of one step of one model; the ensemble is"
      f" {speedup.estimate:.2f} times as fast as the host loop and compiled"
      f" once, in {found['compile_seconds']:.1f} s, for {found['models']}"
      " models"
    )
  if "scoring" in config.races:
    races["scoring"] = _races.scoring(config)
  if "peers" in config.races:
    races["peers"], compared = _race_peers(results, config)
    notes += compared
  if "extraction" in config.races:
    races["extraction"] = _races.extraction(config)
    notes.append(
      "extraction: of one trial; exhaustive: 10,000 completions of one model"
    )
  return races, notes


def _race_peers(results, config):
  """Times the peers and records where their values differ from ours."""
  seconds, made, skipped = _peers.race(config, _races.timed)
  notes = []
  for name, rivals in made.items():
    difference = float(rivals.difference())
    results.set(f"peers/{name}/difference", difference)
    notes.append(f"{name}: values differ by {difference:.2g} ({rivals.note})")
  for name, reason in skipped.items():
    results.set(f"peers/{name}/peer/seconds", None, reason=reason)
    notes.append(f"{name} skipped ({reason})")
  return seconds, notes


def make_table(
  results: reporting.Results, keys: list[str], notes: list[str]
) -> reporting.Table:
  """One row for each method."""
  rows: list[dict[str, Any]] = []
  for key in keys:
    row: dict[str, Any] = {"work": key}
    row["seconds"] = results.interval(f"{key}/seconds")
    if f"{key}/ratio" in results:
      row["ratio"] = results.interval(f"{key}/ratio")
    for name in ("compared_with", "bar"):
      # A bar that is not for this size is not in the table.
      if results.get(f"{key}/{name}") is not None:
        row[name] = results[f"{key}/{name}"]
    rows.append(row)
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
    notes=notes,
  )


if __name__ == "__main__":
  _console.run_binary(
    run, default_config="benchmark_attacks/default.py", keep_compiled=False
  )
