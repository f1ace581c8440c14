"""Sampling with a vocabulary of 8,000, and a step of distillation.

Command: python -m experiments.benchmark_distillation
"""

import ml_collections
from ml_collections import config_dict


def get_config() -> ml_collections.ConfigDict:
  """The default benchmark."""
  config = config_dict.ConfigDict()
  config.rounds = 15
  config.parts = ("sampling", "step")
  config.sampling = config_dict.ConfigDict(
    {
      "vocab_size": 8000,
      "num_layers": 4,
      "dim": 256,
      "num_heads": 4,
      "prompt_length": 8,
      "max_new_tokens": 50,
      "top_p": 0.9,
      "num_texts": 1000,  # Timed once, after compilation.
      "chunk_size": 250,
      "raced_texts": 100,  # Texts of a round against the peer.
      "peer": "transformers",  # "" leaves it out.
    }
  )
  config.step = config_dict.ConfigDict(
    {
      "vocab_size": 1024,
      "length": 32,
      "batch_size": 32,
      "teacher_layers": 2,
      "student_layers": 1,
      "dim": 64,
      "num_heads": 2,
      "how": "expMean",
    }
  )
  return config
