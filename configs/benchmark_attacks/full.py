"""Every race at the sizes that the project's bars name.

Command: python -m experiments.benchmark_attacks \
  --config=configs/benchmark_attacks/full.py --workdir=OUT
"""

from typing import Any

import ml_collections

from configs.benchmark_attacks import default


def get_config() -> ml_collections.ConfigDict:
  """64 shadow models, 64 x 20,000 scores, 50 canary trials; 15 rounds."""
  config: Any = default.get_config()
  config.shadow.update({"rounds": 15, "num_models": 64, "num_steps": 100})
  config.scoring.update({"rounds": 15, "num_records": 20_000})
  config.extraction.update({"rounds": 15, "num_trials": 50})
  return config
