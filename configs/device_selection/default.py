"""Static and continual device selection on the embedded synthetic corpus.

Command: python -m experiments.device_selection
"""

import ml_collections
from ml_collections import config_dict

from configs.federated_learning import default as federated_learning


def get_config() -> ml_collections.ConfigDict:
  """The default study: small, offline, three seeds."""
  config = config_dict.ConfigDict()
  config.seed = 0
  config.num_seeds = 3
  # The first is the baseline, the second the one that the claims are about.
  config.strategies = ("uniform", "proportional")
  config.settings = ("static", "continual")
  config.central = True  # Also train on all data in one place.
  config.data = federated_learning.data_fields()
  config.data.num_train = 3000
  config.model = federated_learning.model_fields()
  config.population = federated_learning.population_fields()
  config.population.num_devices = 300
  config.stream = federated_learning.stream_fields()
  config.stream.num_periods = 4
  config.stream.drift = "class_arrival"
  config.stream.window = 1
  config.algorithm = federated_learning.algorithm_fields()
  config.selection = config_dict.ConfigDict(
    {
      "size": 15,
      "weighting": "fedavg",
      "gamma": 0.5,  # tempered
      "temperature": 10.0,  # softmax
      "min_activity": 1.0,  # threshold
      "epsilon": 0.5,  # mixture
    }
  )
  config.execution = config_dict.ConfigDict(
    {
      "backend": "auto",
      "chunk_size": config_dict.placeholder(int),
      "devices": config_dict.placeholder(str),  # "pmap" or "shard_map"
      "num_devices": config_dict.placeholder(int),
    }
  )
  config.num_rounds = 40  # Of every arm, all periods together.
  config.batch_size = 10
  config.num_epochs = 1
  config.max_examples = config_dict.placeholder(int)  # Of a device in a round.
  config.evaluate_every = 4
  config.save_every_seconds = 60.0
  return config
