r"""Races exact per-record clipping against non-private steps and peers.

  python -m experiments.benchmark_clipping
  python -m experiments.benchmark_clipping \
      --config=configs/benchmark_clipping/grid.py --workdir=OUT

Every engine, the non-private step (whole, chunked, and with noise), and the
peers that are installed (extra `[peers]`) take the same step on the same model:
gradients, clipping and noise, Adam; interleaved in one run. Ratios are to the
fastest non-private step of TrustJAX. Peers that are missing are skipped by
name. With `--config=configs/benchmark_clipping/deferred.py` the optimiser is
SGD and the private step that defers the noise of unread rows is raced, too.
"""

import pathlib

from experiments._benchmarks import (
  _clipping_peers,
  _clipping_settings,
  _clock,
  _step_record,
)
from experiments._binary import _config_flags, _console


def check(config: _config_flags.Config) -> None:
  """Raises ValueError if a count or a setting of the config is impossible."""
  for field, least in (("rounds", 2), ("host_rounds", 2), ("num_lots", 0)):
    if config[field] < least:
      raise ValueError(
        f"config.{field}: got {config[field]}; it must be at least {least}"
      )
  _clipping_settings.chosen_models(config)
  unknown = sorted(set(config.peers) - set(_clipping_peers.NAMES))
  if unknown:
    raise ValueError(
      f"config.peers: got {unknown}; allowed are {list(_clipping_peers.NAMES)}"
    )


def run(config: _config_flags.Config, workdir: pathlib.Path) -> None:
  """Races every model, writes and prints the record."""
  check(config)
  chosen = _clipping_settings.chosen_models(config)
  results = _step_record.new_results(
    config, {"models": chosen, "optimizer": config.optimizer}
  )
  notes = []
  for label, fields in chosen.items():
    chunk_sizes = fields.pop("chunk_sizes", config.chunk_sizes)
    setting = _clipping_settings.make_setting(
      label,
      optimizer=config.optimizer,
      **(config.data.to_dict() | fields),
    )
    methods = _clipping_settings.make_methods(
      setting,
      chunk_sizes=chunk_sizes,
      engines=config.engines,
      drawn=config.drawn,
      deferred=config.deferred_noise,
    )
    peers, skipped = _clipping_peers.make_methods(
      setting, config.peers, chunk_sizes[:1]
    )
    timings = _clock.race_with_progress(
      setting,
      [*methods, *peers],
      rounds=config.rounds,
      host_rounds=config.host_rounds,
      num_lots=config.num_lots,
    )
    _step_record.record(results, setting, timings)
    for name, reason in skipped.items():
      results.set(f"{label}/{name}/seconds_per_step", None, reason=reason)
      notes.append(f"{label}: {name} skipped ({reason})")
  _step_record.write(workdir, config, results, tuple(notes))


if __name__ == "__main__":
  _console.run_binary(
    run,
    default_config="benchmark_clipping/default.py",
    keep_compiled=False,
  )
