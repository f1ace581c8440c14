"""A short clipping race: mean-pool classifier and a small BiLSTM.

Command: python -m experiments.benchmark_clipping
"""

import ml_collections
from ml_collections import config_dict


def get_config() -> ml_collections.ConfigDict:
  """The default race."""
  config = config_dict.ConfigDict()
  # Label to a model with its batch; "chunk_sizes" replaces those below, and
  # further fields are the model's.
  config.models = config_dict.ConfigDict(
    {
      "mean_pool": {
        "model": "mean_pool",
        "batch_size": 64,
        "length": 32,
        "dim": 64,
        "intent_only": True,
      },
      "bilstm": {
        "model": "bilstm",
        "batch_size": 32,
        "length": 16,
        "dim": 32,
        "hidden_dim": 32,
      },
    }
  )
  config.only = ()  # Labels of the models to race; empty races all.
  config.data = config_dict.ConfigDict(
    {"vocab_size": 1000, "num_intents": 20, "num_slots": 70}
  )
  config.engines = ("scan", "vmap", "bookkeeping", "auto")
  # Records at a time; jax-privacy takes the first of them.
  config.chunk_sizes = (8,)
  config.peers = (
    "jax_privacy",
    "torch_non_private",
    "opacus_hooks",
    "opacus_ghost",
    "fastdp",
  )
  config.optimizer = "adam"  # or "sgd"; peers in PyTorch race with Adam only
  config.deferred_noise = False  # Race deferred noise; needs "sgd".
  config.rounds = 15
  config.host_rounds = 3  # Of methods that take very long.
  config.num_lots = 10  # Drawn lots; 0 leaves them out.
  config.drawn = ("auto",)  # Methods that are timed on drawn lots as well.
  return config
