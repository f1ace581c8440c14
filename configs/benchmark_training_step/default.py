"""A short race on a mean-pool tagger and a small BiLSTM.

Command: python -m experiments.benchmark_training_step
"""

import ml_collections
from ml_collections import config_dict


def get_config() -> ml_collections.ConfigDict:
  """The default race."""
  config = config_dict.ConfigDict()
  # Each a model with its batch size; "engines" replaces the list below, and
  # further fields are the model's.
  config.settings = (
    {"model": "mean_pool", "batch_size": 64, "dim": 32},
    {"model": "bilstm", "batch_size": 32, "dim": 32, "hidden_dim": 32},
  )
  config.only = ""  # The one model to race; empty races all settings.
  config.data = config_dict.ConfigDict(
    {"vocab_size": 1000, "length": 16, "num_intents": 10, "num_slots": 20}
  )
  config.engines = ("loop", "scan", "vmap", "auto")
  config.chunk_sizes = (8,)  # Records, or clip units, at a time.
  config.group_sizes = (8,)  # Of eDP-SGD's clip groups.
  config.rounds = 15
  config.host_rounds = 2  # Of the per-record loops, which are slow.
  config.num_lots = 10  # Drawn lots; 0 leaves them out.
  # How the names of the methods begin that are timed on drawn lots, too; an
  # empty string stands for every private method.
  config.drawn = ("",)
  return config
