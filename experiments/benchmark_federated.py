r"""Races rounds of federated averaging: backends, the floor, and peers.

  python -m experiments.benchmark_federated
  python -m experiments.benchmark_federated \
      --config=configs/benchmark_federated/grid.py --workdir=OUT

Every method runs whole rounds of the same task (select, fetch, train each
client for an epoch, average), interleaved in one run, on the same data and from
the same parameters. The floor is one loop of as many local steps, without any
clients. A plain PyTorch loop, `pfl` and Flower's simulation are raced where
they are installed, and the losses that they end at stand beside ours.
"""

import datetime
import pathlib
import time
from typing import Any

import jax
import numpy as np

from experiments._benchmarks import _step_record
from experiments._binary import _config_flags, _console
from experiments._federated import _contestants, _settings
from trustjax import reporting, training

_COLUMNS = (
  reporting.Column("setting"),
  reporting.Column("method"),
  reporting.Column("seconds_per_round", "time per round", "s", format=".4f"),
  reporting.Column("ratio_to_floor", "over the floor", "×", format=".2f"),
  reporting.Column("speedup", "auto is faster by", "×", format=".2f"),
  reporting.Column("first_seconds", "first round", "s", format=".1f"),
  reporting.Column("final_loss", "loss at the end", format=".5f"),
)


def check(config: _config_flags.Config) -> None:
  """Raises ValueError if a count or a setting of the config is impossible."""
  if config.rounds < 2:
    raise ValueError(
      f"config.rounds: got {config.rounds}; it must be at least 2"
    )
  if not config.settings:
    raise ValueError("config.settings: got none; at least one is needed")
  for number, fields in enumerate(config.settings):
    missing = [key for key in ("model", "num_clients") if key not in fields]
    if missing:
      raise ValueError(
        f"config.settings[{number}]: got {dict(fields)}; {missing} are missing"
      )


def make_methods(
  config: _config_flags.Config, setting: _settings.Setting
) -> tuple[list[_contestants.Method], dict[str, str]]:
  """The methods of a setting, and the peers that are left out with reason."""
  ours = [_contestants.floor_method(setting)]
  for name in ("auto", *config.backends):
    fields: dict[str, Any] = {"backend": name}
    if name == "vmap" and config.chunk_size is not None:
      fields["chunk_size"] = even_chunk(setting.num_clients, config.chunk_size)
    ours.append(_contestants.our_method(setting, name, **fields))
  for placement in config.placements:
    ours.append(
      _contestants.our_method(
        setting, placement, backend="auto", devices=placement
      )
    )
  peers, skipped = _contestants.make_peers(setting, config.peers)
  return ours + peers, skipped


def even_chunk(num_clients: int, most: int) -> int:
  """The chunk of at most so many clients that leaves the fewest slots empty."""
  return -(-num_clients // -(-num_clients // most))


def race(
  methods: list[_contestants.Method],
  *,
  rounds: int,
  title: str,
) -> tuple[dict[str, list[float]], dict[str, float]]:
  """Times all methods, interleaved; the first round is apart.

  Their order is drawn anew for every round: who comes after a method finds the
  caches and the threads that it left behind.

  Args:
    methods: What is raced.
    rounds: Timed rounds of each.
    title: For the progress bar.

  Returns:
    (seconds of each round, seconds of the first), by method name.
  """
  seconds: dict[str, list[float]] = {method.name: [] for method in methods}
  first = {}
  rng = np.random.default_rng(0)
  with training.progress_bar(title, rounds + 1) as update:
    for r in range(rounds + 1):
      for method in (methods[i] for i in rng.permutation(len(methods))):
        began = time.perf_counter()
        method.run(r)
        elapsed = time.perf_counter() - began
        if r == 0:
          first[method.name] = elapsed
        else:
          seconds[method.name].append(elapsed)
      update(r + 1, "")
  return seconds, first


def record(
  results: reporting.Results,
  prefix: str,
  methods: list[_contestants.Method],
  seconds: dict[str, list[float]],
  first: dict[str, float],
) -> None:
  """Adds a setting's timings under its prefix.

  Args:
    results: The record.
    prefix: Of the keys, such as "mean_pool_m100/"; empty for one setting.
    methods: What was raced.
    seconds: Of each round, by method name.
    first: Seconds of the first round.
  """
  for method in methods:
    key = f"{prefix}{method.name}"
    results.measure(
      f"{key}/seconds_per_round",
      reporting.bootstrap_median(seconds[method.name]),
    )
    results.measure(
      f"{key}/ratio_to_floor",
      reporting.bootstrap_ratio_of_medians(
        seconds[method.name], seconds["floor"]
      ),
    )
    results.set(f"{key}/first_seconds", first[method.name])
    if method.loss is not None:
      results.set(
        f"{key}/final_loss", method.loss(), reason="training diverged"
      )
    if method.name not in ("floor", "auto"):
      results.measure(
        f"{prefix}speedup_vs_{method.name}",
        reporting.bootstrap_ratio_of_medians(
          seconds[method.name], seconds["auto"]
        ),
      )
  ours = {
    name: reporting.bootstrap_median(times).estimate
    for name, times in seconds.items()
    if name in ("auto", "scan", "vmap")
  }
  best = min(ours, key=lambda name: ours[name])
  results.set(f"{prefix}best_backend", best)
  results.measure(
    f"{prefix}auto_over_best",
    reporting.bootstrap_ratio_of_medians(seconds["auto"], seconds[best]),
  )


def make_table(
  results: reporting.Results,
  raced: dict[str, list[str]],
  notes: tuple[str, ...],
) -> reporting.Table:
  """One row for each method of each setting."""
  rows = []
  for prefix, names in raced.items():
    for name in names:
      row: dict[str, Any] = {
        "setting": prefix.rstrip("/") or str(results["setting"]),
        "method": name,
      }
      for column in ("seconds_per_round", "ratio_to_floor"):
        row[column] = results.interval(f"{prefix}{name}/{column}")
      row["first_seconds"] = results[f"{prefix}{name}/first_seconds"]
      if f"{prefix}{name}/final_loss" in results:
        row["final_loss"] = results[f"{prefix}{name}/final_loss"]
      if f"{prefix}speedup_vs_{name}" in results:
        row["speedup"] = results.interval(f"{prefix}speedup_vs_{name}")
      rows.append(row)
  return reporting.Table(
    columns=_COLUMNS,
    rows=rows,
    title="Rounds of federated averaging",
    notes=[str(results["hardware"]), *notes],
  )


def run(config: _config_flags.Config, workdir: pathlib.Path) -> None:
  """Races every setting, writes and prints the record."""
  check(config)
  results = reporting.Results()
  results.set_protocol(
    {
      "data": config.data.to_dict(),
      "settings": [dict(fields) for fields in config.settings],
      "rounds": config.rounds,
    }
  )
  results.set("hardware", _step_record.hardware())
  results.set("jax", jax.__version__)
  results.set("date", datetime.date.today().isoformat())
  raced, notes = {}, {}
  for fields in config.settings:
    fields = dict(fields)
    setting = _settings.make_setting(
      fields.pop("model"),
      fields.pop("num_clients"),
      **(config.data.to_dict() | fields),
    )
    methods, skipped = make_methods(config, setting)
    prefix = "" if len(config.settings) == 1 else f"{setting.key}/"
    notes |= {f"{name}: {why}": None for name, why in skipped.items()}
    for name, why in skipped.items():
      key = f"{prefix}{name}/seconds_per_round"
      results.set(key, None, reason=why)
    try:
      seconds, first = race(methods, rounds=config.rounds, title=setting.key)
      record(results, prefix, methods, seconds, first)
    finally:
      for method in methods:
        method.close()
    raced[prefix] = [method.name for method in methods]
    if not prefix:
      results.set("setting", setting.key)
    print(f"{setting.key}: done", flush=True)
  table = make_table(results, raced, tuple(notes))
  reporting.write_run(workdir, config=config, results=results, table=table)
  reporting.print_table(table)
  print(f"\nFiles: {workdir}/results.json, table.md, table.csv")


if __name__ == "__main__":
  _console.run_binary(
    run,
    default_config="benchmark_federated/default.py",
    keep_compiled=False,
  )
