"""Table D on SNIPS: pin codes of four digits, 100 copies, 50 models an arm.

Command: python -m experiments.canary_extraction \
  --config=configs/canary_extraction/snips_pin.py \
  --config.data.manual_dir=DIR --workdir=OUT
Planned compute: 10 minutes on two CPU cores; an arm at a time with
--config.arms="('none',)", whose records may be compared.
Result (codes with all four digits right, chance 0.0001; mean exposure of at
most 13.3 bits; codes ranked first among all):
  no defence  0.58 [0.43, 0.72]  12.8  0.64 [0.49, 0.77]
  all three   0.26 [0.15, 0.40]  12.1  0.24 [0.13, 0.38]
  DP-SGD      0.72 [0.58, 0.84]  13.2  0.90 [0.78, 0.97]
Epsilon 8 is for one record; for the 100 copies together it is 7,760.
"""

from typing import Any

import ml_collections

from configs.canary_extraction import default


def get_config() -> ml_collections.ConfigDict:
  """No defence, all three, and DP-SGD at epsilon 8 for one record."""
  config: Any = default.get_config()
  config.update(
    {
      "arms": ("none", "all", "dp_sgd"),
      "delta": 1e-5,
      "data": {"name": "snips"},
      "model": {"name": "bilstm", "dim": 32, "hidden_dim": 32},
      "attack": {
        "num_trials": 50,
        "pool_size": 500,
        "search": {"steps": 150, "patience": 50, "restarts": 2},
      },
      "non_private": {"batch_size": 32, "num_steps": 150},
      "private": {"expected_batch_size": 64, "num_steps": 60},
    }
  )
  return config
