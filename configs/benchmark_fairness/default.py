"""Three evaluators against the usual way to compute them.

Command: python -m experiments.benchmark_fairness
"""

import ml_collections
from ml_collections import config_dict


def get_config() -> ml_collections.ConfigDict:
  """Sizes of the published procedures."""
  config = config_dict.ConfigDict()
  config.seed = 0
  config.rounds = 15
  config.only = ""  # "ceat", "group_bootstrap", "prediction_sensitivity"
  config.ceat = config_dict.ConfigDict(
    {
      "num_words": 8,
      "num_contexts": 200,
      "dim": 256,
      "num_draws": 10_000,
      # Draws of the loop in a round; its time is scaled to num_draws.
      "loop_draws": 250,
    }
  )
  config.group_bootstrap = config_dict.ConfigDict(
    {
      "num_records": 20_000,
      "num_groups": 5,
      "num_resamples": 10_000,
      # Resamples of the peer in a round; its time is scaled.
      "peer_resamples": 5,
    }
  )
  config.prediction_sensitivity = config_dict.ConfigDict(
    {
      "num_sentences": 1000,
      # Sentences of the loop in a round; its time is scaled.
      "loop_sentences": 100,
      "num_layers": 2,
      "dim": 64,
    }
  )
  return config
