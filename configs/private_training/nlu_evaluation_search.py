"""The search behind the SNIPS configs, on NLU-Evaluation: other data."""

from typing import Any

import ml_collections

from configs.private_training import snips_mean_pool


def get_config() -> ml_collections.ConfigDict:
  """DP-SGD at epsilon 8 on fold 1; vary one field at a time."""
  config: Any = snips_mean_pool.get_config()
  config.arms = ("dp_sgd",)
  config.data.name = "nlu_evaluation"
  return config
