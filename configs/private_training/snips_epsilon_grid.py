"""SNIPS, mean-pool tagger: epsilon 1, 3 and 8, three seeds, every arm."""

import ml_collections

from configs.private_training import snips_mean_pool


def get_config() -> ml_collections.ConfigDict:
  """The grid; its model and hyper-parameters are those of one seed."""
  config = snips_mean_pool.get_config()
  config.target_epsilons = (1.0, 3.0, 8.0)
  config.num_seeds = 3
  return config
