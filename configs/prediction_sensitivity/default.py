"""Does prediction sensitivity find the predictions that gender decided?

Command: python -m experiments.prediction_sensitivity

Time (AMD EPYC, 2 cores): 69 s when first run.
"""

import ml_collections
from ml_collections import config_dict


def get_config() -> ml_collections.ConfigDict:
  """Classifier and protected-status model on the planted sentences."""
  config = config_dict.ConfigDict()
  config.seed = 0
  config.data = config_dict.ConfigDict(
    {
      "name": "occupations",  # "hatexplain", "madlibs"
      "manual_dir": "",  # Real data: the folder of the files.
      "size": 3000,  # Occupation sentences to train on.
      "label_bias": 0.8,  # Planted between their label and gender.
      "num_tested": 1000,
      "num_words": 4000,  # Real data: words of the vocabulary.
      "max_length": 32,  # Real data: words of a text that are read.
    }
  )
  config.model = config_dict.ConfigDict({"num_layers": 1, "dim": 32})
  config.steps = 400
  config.batch_size = 64
  config.learning_rate = 3e-3
  config.num_boot = 1000  # Resamples of an agreement.
  # How the gradient is weighed and accumulated.
  config.w = "uniform"  # "predicted", "class=1"
  config.reduce = "token_l2"  # "elementwise", "token_l1", "input_x_grad"
  return config
