"""The model grid: encoders, decoders, BiLSTMs, an embedding classifier.

Command: python -m experiments.benchmark_clipping \
  --config=configs/benchmark_clipping/grid.py --workdir=OUT
"""

import ml_collections
from ml_collections import config_dict

from configs.benchmark_clipping import default

_DECODER = {
  "model": "decoder",
  "batch_size": 16,
  "length": 128,
  "num_layers": 4,
  "dim": 256,
  "num_heads": 4,
  "ff_dim": 1024,
  "chunk_sizes": (4, 8),
}


def get_config() -> ml_collections.ConfigDict:
  """The race behind the clipping table."""
  config = default.get_config()
  encoder = {
    "model": "transformer",
    "size": "mini",
    "batch_size": 64,
    "chunk_sizes": (8, 16),
  }
  bilstm = {"model": "bilstm", "length": 32, "chunk_sizes": (16, 32)}
  config.models = config_dict.ConfigDict(
    {
      "encoder_t32": encoder | {"length": 32},
      "encoder_t128": encoder | {"length": 128},
      "decoder_tied": _DECODER | {"tied": True},
      "decoder_untied": _DECODER | {"tied": False},
      "bilstm_b256": bilstm | {"batch_size": 256},
      "bilstm_b64": bilstm | {"batch_size": 64},
      "mean_pool": {
        "model": "mean_pool",
        "batch_size": 64,
        "length": 64,
        "dim": 128,
        "intent_only": True,
        "chunk_sizes": (8, 32),
      },
    }
  )
  config.data.vocab_size = 10_000
  config.engines = ("vmap", "bookkeeping", "auto")
  config.num_lots = 100
  return config
