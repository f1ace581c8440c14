"""Audit on SNIPS, mean-pool tagger, 5,000 canaries.

Command: python -m experiments.audit --config=configs/audit/snips.py \
  --config.data.manual_dir=DIR --workdir=OUT
Planned compute: 20 minutes on two CPU cores.
"""

from typing import Any

import ml_collections

from configs.audit import default


def get_config() -> ml_collections.ConfigDict:
  """The arms of the membership table, with enough canaries for epsilon 4."""
  config: Any = default.get_config()
  config.update(
    {
      "arms": ("non_private", "dp_sgd", "edp_sgd", "edp_sgd_equal_epsilon"),
      "delta": 1e-5,
      "data": {"name": "snips", "min_count": 2},
      "model": {"name": "mean_pool", "dim": 32, "embedding_scale": 0.1},
      "audit": {"num_canaries": 5000, "num_references": 1},
      "non_private": {"batch_size": 64, "num_steps": 1000},
      "private": {"expected_batch_size": 1024, "num_steps": 200},
    }
  )
  return config
