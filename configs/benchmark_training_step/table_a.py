"""Table A: every engine and arm on a Transformer, a BiLSTM and a mean-pool.

Encoder of 4 layers and width 256, 32 positions, batch 64; BiLSTM of width 100
and mean-pool tagger of width 32, batch 256; 10,000 words, no padding inside a
record. The eager loop is left out where one of its steps takes minutes.

Command: python -m experiments.benchmark_training_step \
  --config=configs/benchmark_training_step/table_a.py --workdir=OUT
"""

import ml_collections

from configs.benchmark_training_step import default

_ENGINES = ("loop", "scan", "vmap", "bookkeeping", "auto")


def get_config() -> ml_collections.ConfigDict:
  """The race behind table A."""
  config = default.get_config()
  config.settings = (
    {
      "model": "transformer",
      "size": "mini",
      "batch_size": 64,
      "engines": (*_ENGINES, "loop_eager"),
    },
    {"model": "bilstm", "batch_size": 256, "engines": _ENGINES},
    {"model": "mean_pool", "batch_size": 256, "engines": _ENGINES},
  )
  config.data.update(
    {
      "vocab_size": 10_000,
      "length": 32,
      "num_intents": 20,
      "num_slots": 70,
    }
  )
  config.chunk_sizes = (8, 16, 32)
  config.group_sizes = (8, 32)
  config.num_lots = 100
  config.drawn = ("dp_sgd_auto", "edp_sgd")
  return config
