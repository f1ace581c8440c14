r"""Sampling with GPT-2's vocabulary of 50,257; few rounds, no step.

Command: python -m experiments.benchmark_distillation \
    --config=configs/benchmark_distillation/gpt2_vocabulary.py
"""

import ml_collections

from configs.benchmark_distillation import default


def get_config() -> ml_collections.ConfigDict:
  """The default benchmark of sampling with more words."""
  config = default.get_config()
  config.update(
    {
      "parts": ("sampling",),
      "rounds": 3,
      "sampling": {
        "vocab_size": 50_257,
        "raced_texts": 50,
        "chunk_size": 50,
      },
    }
  )
  return config
