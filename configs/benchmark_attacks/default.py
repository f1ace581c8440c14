"""Every race at a small size: what the project's bars name is in full.py.

Command: python -m experiments.benchmark_attacks
The peers need: pip install tensorflow-empirical-privacy privacy-meter \
  adversarial-robustness-toolbox (the first with --no-deps: its statistics need
NumPy and SciPy only).
"""

from typing import Any

import ml_collections
from ml_collections import config_dict

from configs.canary_extraction import default as canary_extraction


def get_config() -> ml_collections.ConfigDict:
  """16 shadow models, 64 x 2,000 scores, 10 canary trials."""
  config: Any = config_dict.ConfigDict()
  config.races = ("shadow", "scoring", "peers", "extraction")
  config.shadow = config_dict.ConfigDict(
    {
      "rounds": 3,
      "model": "mean_pool",
      "fields": {"dim": 32},
      "num_models": 16,
      "num_steps": 50,
      "batch_size": 64,
      "sequential_models": 4,  # Of the host loop, which is timed by the step.
      "models_at_a_time": config_dict.placeholder(int),
    }
  )
  config.scoring = config_dict.ConfigDict(
    {"rounds": 5, "num_models": 64, "num_records": 2_000}
  )
  # Peers in the race, at the sizes and rounds of the scores; one that is not
  # installed is left out by name.
  config.peers = (
    "tensorflow_lira",
    "privacy_meter_reference",
    "art_tpr",
    "art_classifier",
  )
  config.extraction = config_dict.ConfigDict(
    {
      "rounds": 3,
      "model": "bilstm",
      "fields": {"dim": 32, "hidden_dim": 32},
      "num_trials": 10,
      "separate_trials": 1,
      "chunk_size": 1,
      "search": {"steps": 100, "patience": 100, "restarts": 4, "sweeps": 1},
      "study": canary_extraction.get_config(),  # For the data.
    }
  )
  return config
