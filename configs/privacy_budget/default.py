"""What a mechanism costs: SNIPS at batch 256, ten epochs, noise multiplier 1.

Command: python -m experiments.privacy_budget
"""

import ml_collections
from ml_collections import config_dict


def get_config() -> ml_collections.ConfigDict:
  """The default mechanism."""
  config = config_dict.ConfigDict()
  config.delta = 1e-5
  config.target_epsilons = (1.0, 3.0, 8.0)
  config.num_points = 12  # Numbers of steps at which epsilon is computed.
  config.plan = config_dict.ConfigDict(
    {
      "sampling_rate": 256 / 13084,
      "num_steps": 511,
      "noise_multiplier": 1.0,
      "sampler": "poisson",  # "truncated_poisson", "shuffled"
      "adjacency": "add_remove",  # "zero_out", "replace_one"
      # Records in the data set; needed unless sampling is Poisson.
      "num_records": config_dict.placeholder(int),
      "capacity": config_dict.placeholder(int),  # truncated_poisson
      "clip_group_size": 1,
      # Layers whose noise is std sigma * C_j each: the sum's sensitivity is
      # then sqrt(layers) of them. 1 is one joint noise.
      "per_layer_noises": 1,
      "schedule": {
        "kind": "constant",
        "period": 1,  # Steps that share a noise multiplier.
        "decay": 1.0,
        "final": 1.0,
        "every": 1,
      },
    }
  )
  # Further mechanisms: a name and changes of `plan`; their naive epsilon is
  # tabulated beside the correct ones of clip groups and per-layer noises.
  config.comparison = config_dict.ConfigDict(
    {
      "per_layer_noises": 12,
      "mechanisms": (),
    }
  )
  return config
