"""The bars of eDP-SGD: clip groups against the best non-private step.

Command: python -m experiments.benchmark_training_step \
  --config=configs/benchmark_training_step/clip_groups.py --workdir=OUT
"""

import ml_collections

from configs.benchmark_training_step import table_a


def get_config() -> ml_collections.ConfigDict:
  """Table A without the per-record loops and the engines nobody would pick."""
  config = table_a.get_config()
  config.settings = tuple(
    dict(fields) | {"engines": ("auto",)} for fields in config.settings[:2]
  )
  config.num_lots = 20
  return config
