"""A small encoder on an H200 that is not there.

Command: python -m experiments.predict_gpu_step
"""

import ml_collections
from ml_collections import config_dict


def get_config() -> ml_collections.ConfigDict:
  """The default prediction."""
  config = config_dict.ConfigDict()
  config.gpu = "h200"  # or "h100"
  # Label to a model with its batch; "methods" replaces those below, and
  # further fields are the model's, such as "compute_dtype".
  config.models = config_dict.ConfigDict(
    {
      "encoder": {
        "model": "transformer",
        "size": "mini",
        "batch_size": 256,
        "length": 64,
        "compute_dtype": "bfloat16",
      },
    }
  )
  config.only = ()  # Labels of the models to predict; empty takes all.
  config.data = config_dict.ConfigDict(
    {"vocab_size": 1000, "num_intents": 20, "num_slots": 70}
  )
  # "non_private" or an engine, and how many records are processed at a time.
  config.methods = (
    "non_private",
    "non_private_chunk64",
    "auto",
    "bookkeeping_chunk64",
    "vmap_chunk64",
  )
  config.optimizer = "adam"  # or "sgd"
  return config
