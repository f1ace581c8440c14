"""Sixteen models for each arm on a part of the embedded corpus.

Command: python -m experiments.membership_inference
"""

from typing import Any

import ml_collections
from ml_collections import config_dict

from configs.private_training import default as private_training


def get_config() -> ml_collections.ConfigDict:
  """A small study: an overfitted model, and the same with privacy."""
  config: Any = private_training.get_config()
  # Models that train side by side draw their noise at every step.
  del config.private["noise"], config.edp["noise"]
  for field in ("num_seeds", "loop_steps", "log_every", "evaluate_every"):
    del config[field]
  # "clip_only" is dp_sgd without noise; the others as in private_training.
  config.arms = ("non_private", "dp_sgd", "edp_sgd")
  config.target_epsilons = (8.0,)
  config.delta = 1e-4
  # An .npz of statistics of models trained elsewhere; nothing is trained then.
  config.statistics_file = ""
  config.attack = config_dict.ConfigDict(
    {
      "num_models": 16,  # At least 8; below 16 attacks are biased downwards.
      "pool_size": config_dict.placeholder(int),  # Records; None takes all.
      "attacks": (
        "yeom",
        "shadow_classifier",
        "lira_online",
        "lira_offline",
        "rmia",
      ),
      "fprs": (0.001, 0.01),
      # Groups of records that are judged by themselves, too, and the attacks
      # that are: rare_intents, singletons, single_copies.
      "groups": ("rare_intents", "singletons"),
      "group_attacks": ("lira_online",),
      "num_resamples": 200,  # Of the bootstrap over models and records.
      # Separation of scores for which the audit's number of guesses is best.
      "audit_separation": 1.0,
      # Models in memory together; None takes what a quarter of it holds.
      "chunk_size": config_dict.placeholder(int),
    }
  )
  config.attack.pool_size = 1000
  config.non_private.update(
    {
      "batch_size": 32,
      "num_steps": 600,
      "optimizer": {"learning_rate": 1e-2, "decay": "constant"},
    }
  )
  config.private.update({"expected_batch_size": 128, "num_steps": 60})
  return config
