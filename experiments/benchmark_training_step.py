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

import pathlib
from typing import Any

from experiments._benchmarks import _clock, _methods, _step_record
from experiments._binary import _config_flags, _console


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
) -> list[_methods.Setting]:
  """The models and batch sizes of a config, built in its order."""
  data = config.data.to_dict()
  settings = []
  for fields in chosen_settings(config):
    fields = {k: v for k, v in fields.items() if k != "engines"}
    name, batch_size = fields.pop("model"), fields.pop("batch_size")
    settings.append(_methods.make_setting(name, batch_size, **(data | fields)))
  return settings


def run(config: _config_flags.Config, workdir: pathlib.Path) -> None:
  """Races every setting, writes and prints the record."""
  check(config)
  settings = make_settings(config)
  races = [
    _methods.make_methods(
      setting,
      engines=fields.get("engines", config.engines),
      chunk_sizes=config.chunk_sizes,
      group_sizes=config.group_sizes,
      drawn=config.drawn,
    )
    for setting, fields in zip(settings, chosen_settings(config), strict=True)
  ]
  results = _step_record.new_results(
    config, {"settings": chosen_settings(config), "optimizer": "adam"}
  )
  for setting, methods in zip(settings, races, strict=True):
    _step_record.record(
      results,
      setting,
      _clock.race_with_progress(
        setting,
        methods,
        rounds=config.rounds,
        host_rounds=config.host_rounds,
        num_lots=config.num_lots,
      ),
    )
  _step_record.write(workdir, config, results)


if __name__ == "__main__":
  _console.run_binary(
    run,
    default_config="benchmark_training_step/default.py",
    keep_compiled=False,
  )
