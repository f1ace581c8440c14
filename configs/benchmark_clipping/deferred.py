"""Deferred noise against one flat draw, on classifiers that are all embedding.

Command: python -m experiments.benchmark_clipping \
  --config=configs/benchmark_clipping/deferred.py --workdir=OUT
"""

import ml_collections
from ml_collections import config_dict

from configs.benchmark_clipping import default


def get_config() -> ml_collections.ConfigDict:
  """Mean-pool classifiers with 10,000 and 50,000 rows of 128, plain SGD."""
  config = default.get_config()
  classifier = {
    "model": "mean_pool",
    "batch_size": 64,
    "length": 64,
    "dim": 128,
    "intent_only": True,
    "chunk_sizes": (),
  }
  config.models = config_dict.ConfigDict(
    {
      "rows_10k": classifier | {"vocab_size": 10_000},
      "rows_50k": classifier | {"vocab_size": 50_000},
    }
  )
  config.optimizer = "sgd"
  config.deferred_noise = True
  config.engines = ("auto",)
  config.peers = ()
  config.drawn = ("auto", "deferred_noise")
  config.num_lots = 100
  return config
