"""A short race on the mean-pool tagger with 10 clients a round.

Command: python -m experiments.benchmark_federated
"""

import ml_collections
from ml_collections import config_dict


def get_config() -> ml_collections.ConfigDict:
  """One setting, every backend, and the peers that are installed."""
  config = config_dict.ConfigDict()
  config.settings = ({"model": "mean_pool", "num_clients": 10, "dim": 64},)
  config.data = config_dict.ConfigDict(
    {
      "registered": 500,
      "examples_per_client": 40,
      "length": 20,
      "vocab_size": 5000,
      "num_intents": 10,
      "num_slots": 20,
      "batch_size": 10,
      "learning_rate": 0.1,
    }
  )
  config.backends = ("scan", "vmap")
  config.placements = ()  # "pmap", "shard_map": over all visible devices
  config.chunk_size = config_dict.placeholder(int)  # Of vmap.
  config.peers = ("torch_loop", "pfl")  # And "flower", which starts Ray.
  config.rounds = 15
  return config
