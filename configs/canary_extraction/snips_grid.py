"""Table D on SNIPS, the other cells: ten models for each canary and defence.

Command: python -m experiments.canary_extraction \
  --config=configs/canary_extraction/snips_grid.py \
  --config.data.manual_dir=DIR --workdir=OUT
Planned compute: 5 to 10 minutes an arm on two CPU cores that were shared with
other work; an arm at a time with --config.arms="('none',)". A pool of 500
utterances; the 10^6 completions of six tokens are not ranked.
Result (mean exposure, at most 13.3 bits; a model that knows nothing has 1.44):
                     pin, 1 copy   pin, 10 copies   pin, 500   control
  no defence          9.2          12.3             12.9       1.7
  dropout             4.0          12.0             12.4       1.4
  early stopping      7.8          12.7             12.9       1.5
  character CNN       9.5          12.3             13.1       1.7
  all three           3.5          10.6             12.7       1.4
  deduplicated        9.2          10.5             10.6       1.7
  DP-SGD, epsilon 8   1.7           4.5             13.1       1.3
Ten models cannot tell rates of whole codes apart (McNemar, Holm); the exposures
of codes with 1 and 10 copies they can (Wilcoxon, Holm): see the table's notes.
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
