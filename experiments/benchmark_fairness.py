"""Times fairness evaluators against the usual way to compute them.

  python -m experiments.benchmark_fairness
  python -m experiments.benchmark_fairness --config.only=ceat --workdir=OUT

CEAT with 10,000 draws against a loop over draws; the bootstrap of group metrics
against fairlearn's; prediction sensitivity of 1,000 sentences against one
backward pass a sentence. Both ways are checked to agree, then run alternately;
the slow ways do a part of the work in a round and their time is scaled.
Compilation is outside the clock and reported beside it.
"""

import datetime
import pathlib
import time

import jax
import numpy as np

from experiments._benchmarks import _step_record
from experiments._binary import _config_flags, _console
from experiments._fairness import _measured, _races
from trustjax import reporting

Config = _config_flags.Config


def time_race(
  race: _races.Race, rounds: int
) -> tuple[list[float], list[float], float]:
  """Seconds of both ways, alternating, and of our first call.

  Args:
    race: The race.
    rounds: Timed runs of each.

  Returns:
    Ours, theirs for the whole work, and the first call's compilation.
  """
  began = time.perf_counter()
  jax.block_until_ready(race.ours())
  first = time.perf_counter() - began
  race.check()  # Also the first call of the other way.
  ours, theirs = [], []
  for _ in range(rounds):
    ours.append(_seconds(race.ours))
    theirs.append(race.scale * _seconds(race.theirs))
  return ours, theirs, max(0.0, first - float(np.median(ours)))


def _seconds(run):
  began = time.perf_counter()
  jax.block_until_ready(run())
  return time.perf_counter() - began


def record(results: reporting.Results, race, ours, theirs, compiling):
  """Adds the times, the speed-up and the claims of a race."""
  results.measure(f"{race.name}/seconds", reporting.bootstrap_median(ours))
  results.measure(
    f"{race.name}/peer_seconds", reporting.bootstrap_median(theirs)
  )
  speedup = reporting.bootstrap_ratio_of_medians(theirs, ours)
  results.measure(f"{race.name}/speedup", speedup)
  results.set(f"{race.name}/compile_seconds", compiling)
  results.set(f"{race.name}/peer", race.peer)
  results.set(f"{race.name}/peer_scaled_by", race.scale)
  results.add_claim(
    reporting.Claim(
      name=f"{race.name}_speedup",
      estimate=speedup,
      relation="at_least",
      threshold=race.at_least,
      source="requirement of this project",
    )
  )
  if race.seconds_at_most is not None:
    results.add_claim(
      reporting.Claim(
        name=f"{race.name}_seconds",
        estimate=reporting.bootstrap_median(ours),
        relation="at_most",
        threshold=race.seconds_at_most,
        source="requirement of this project, on 2 cores",
      )
    )


def make_table(results: reporting.Results, races) -> reporting.Table:
  """One row a race."""
  return reporting.Table(
    columns=[
      reporting.Column("evaluator"),
      reporting.Column("seconds", "ours", "s"),
      reporting.Column("peer_seconds", "the usual way", "s"),
      reporting.Column("speedup", "faster", "×", format=".1f"),
      reporting.Column("at_least", "required", "×", format=".0f"),
      reporting.Column("compile_seconds", "compilation", "s", format=".1f"),
      reporting.Column("peer", "the usual way is"),
    ],
    rows=[
      {
        "evaluator": race.name,
        **{
          name: _measured.cell(results, f"{race.name}/{name}")
          for name in ("seconds", "peer_seconds", "speedup", "compile_seconds")
        },
        "at_least": race.at_least,
        "peer": race.peer,
      }
      for race in races
    ],
    title=f"Fairness evaluators on {results['hardware']}",
  )


def plot(results, races):
  """Speed-ups with intervals and bars to reach, on a logarithmic axis."""
  figure, (axis,) = reporting.new_figure(panel_size=(5.4, 2.2))
  for row, race in enumerate(races[::-1]):
    found = results.interval(f"{race.name}/speedup")
    if found.has_ends:
      axis.plot([found.low, found.high], [row, row], color="#1b6ca8", lw=2)
    axis.plot(found.estimate, row, "o", color="#1b6ca8")
    axis.plot(race.at_least, row, "|", color="#444444", ms=14)
  axis.set_xscale("log")
  axis.set_yticks(range(len(races)), [race.name for race in races[::-1]])
  axis.set_ylim(-0.6, len(races) - 0.4)
  axis.set_xlabel("times as fast as the usual way (bar: required)")
  return figure


def run(config: Config, workdir: pathlib.Path) -> None:
  """Races, writes and prints.

  Args:
    config: The benchmark.
    workdir: Where everything is written.
  """
  if config.rounds < 1:
    raise ValueError(f"rounds: got {config.rounds}; it must be at least 1")
  races = _races.make_races(config)
  results = reporting.Results()
  results.set_protocol(
    {name: config[name].to_dict() for name in (race.name for race in races)}
  )
  results.set("hardware", _step_record.hardware())
  results.set("jax", jax.__version__)
  results.set("date", datetime.date.today().isoformat())
  results.set("rounds", config.rounds)
  for race in races:
    record(results, race, *time_race(race, config.rounds))
    print(f"{race.name}: done", flush=True)
  table = make_table(results, races)
  reporting.write_run(
    workdir,
    config=config,
    results=results,
    table=table,
    figures={"speedups": plot(results, races)},
  )
  _measured.print_finished(workdir, table)


if __name__ == "__main__":
  _console.run_binary(
    run, default_config="benchmark_fairness/default.py", keep_compiled=False
  )
