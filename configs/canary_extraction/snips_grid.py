"""Table D on SNIPS, the other cells: ten models for each canary and defence.

Command: python -m experiments.canary_extraction \
  --config=configs/canary_extraction/snips_grid.py \
  --config.data.manual_dir=DIR --workdir=OUT
Planned compute: 3 hours on two CPU cores.
"""

from typing import Any

import ml_collections

from configs.canary_extraction import snips_pin


def get_config() -> ml_collections.ConfigDict:
  """Patterns, lengths and repetitions by every defence; six tokens unranked."""
  config: Any = snips_pin.get_config()
  config.update(
    {
      "arms": (
        "none",
        "dropout",
        "early_stopping",
        "chars",
        "all",
        "deduplicated",
        "dp_sgd",
        "edp_sgd",
      ),
      "attack": {"num_trials": 10, "searches": ("softmax",)},
    }
  )
  config.canaries = (
    ("call", 4, 1),
    ("call", 4, 10),
    ("call", 4, 100),
    ("call", 6, 100),
    ("call", 6, 1000),
    ("pin", 4, 1),
    ("pin", 4, 10),
    ("pin", 4, 500),
    ("pin", 6, 100),
    ("pin", 6, 500),
    ("colour", 4, 10),
    ("colour", 4, 100),
    ("pin", 4, 0),
  )
  return config
