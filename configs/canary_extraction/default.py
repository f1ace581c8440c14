"""A few models for each defence on a part of the embedded corpus.

Command: python -m experiments.canary_extraction
"""

from typing import Any

import ml_collections
from ml_collections import config_dict

from configs.private_training import default as private_training


def get_config() -> ml_collections.ConfigDict:
  """A small study: no defence, all three of them, and DP-SGD."""
  config: Any = private_training.get_config()
  # Models that train side by side draw their noise at every step.
  del config.private["noise"], config.edp["noise"]
  for field in (
    "num_seeds",
    "loop_steps",
    "log_every",
    "evaluate_every",
    "trainable",
  ):
    del config[field]
  # Words only; characters are those of config.attack.max_chars.
  for field in (
    "tokenizer",
    "vocabulary_file",
    "max_size",
    "max_chars",
    "deduplicate",
  ):
    del config.data[field]
  # none, dropout, early_stopping, chars, all (three), deduplicated, dp_sgd,
  # edp_sgd
  config.arms = ("none", "all", "dp_sgd")
  config.target_epsilons = (8.0,)
  config.delta = 1e-4
  # (pattern, tokens of the code, copies); 0 copies is the control.
  config.canaries = (("pin", 4, 100),)
  # Own patterns: {"name": ..., "prefix": (...), "candidates": (...)}.
  config.patterns = ()
  config.attack = config_dict.ConfigDict(
    {
      "num_trials": 5,  # Models of each canary, each with a fresh code.
      "pool_size": 500,  # Clean training utterances.
      "dropout": 0.5,  # Of the arms with dropout.
      "max_chars": 8,  # Characters of a word, where they are read.
      "searches": ("softmax",),  # and "gumbel"
      "search": {
        "steps": 300,
        "patience": 100,
        "learning_rate": 0.1,
        "restarts": 4,
        "sweeps": 2,
      },
      "part": "both",  # Which losses the attacker uses; "intent", "slots".
      "max_completions": 10_000,  # All are scored up to here.
      "block": 10,  # Trials between saves of what the attack found.
      # Trials side by side in the search; None takes all.
      "chunk_size": config_dict.placeholder(int),
    }
  )
  config.attack.chunk_size = 1
  config.model.update({"name": "bilstm", "dim": 32, "hidden_dim": 32})
  config.non_private.update(
    {
      "batch_size": 32,
      "num_steps": 200,
      "optimizer": {"learning_rate": 1e-2, "decay": "constant"},
    }
  )
  config.private.update({"expected_batch_size": 64, "num_steps": 60})
  return config
