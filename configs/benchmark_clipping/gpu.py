"""BERT-base and GPT-2 small in mixed precision, for one accelerator of 80 GB.

Command: python -m experiments.benchmark_clipping \
  --config=configs/benchmark_clipping/gpu.py --workdir=OUT
"""

import ml_collections
from ml_collections import config_dict

from configs.benchmark_clipping import default


def get_config() -> ml_collections.ConfigDict:
  """The race of the fine-tuning sizes."""
  config = default.get_config()
  bert = {
    "model": "transformer",
    "size": "base",
    "length": 128,
    "vocab_size": 30_522,
    "compute_dtype": "bfloat16",
  }
  gpt2 = {
    "model": "decoder",
    "size": "base",
    "length": 256,
    "vocab_size": 50_257,
    "compute_dtype": "bfloat16",
  }
  config.models = config_dict.ConfigDict(
    {
      "bert_base_b256": bert | {"batch_size": 256, "chunk_sizes": (16,)},
      "bert_base_b1024": bert | {"batch_size": 1024, "chunk_sizes": (256,)},
      "gpt2_small_b64": gpt2 | {"batch_size": 64, "chunk_sizes": (8,)},
    }
  )
  config.engines = ("vmap", "auto")
  config.peers = ()  # They form gradients of 110 M parameters per record.
  config.rounds = 15
  config.num_lots = 10
  return config
