"""Every audit of three arms on the embedded corpus.

Command: python -m experiments.audit
"""

from typing import Any

import ml_collections
from ml_collections import config_dict

from configs.private_training import default as private_training


def get_config() -> ml_collections.ConfigDict:
  """A small audit."""
  config: Any = private_training.get_config()
  # Models that train side by side draw their noise at every step.
  del config.private["noise"], config.edp["noise"]
  for field in ("num_seeds", "loop_steps", "log_every", "evaluate_every"):
    del config[field]
  config.arms = ("non_private", "dp_sgd", "edp_sgd")
  config.target_epsilons = (8.0,)
  config.audit = config_dict.ConfigDict(
    {
      # "records", "gradients" or "gradients_gdp": which bound is reported.
      "method": "gradients",
      "num_canaries": 1000,
      "num_references": 3,  # Models that black-box scores are compared with.
      # Separations of scores for which the numbers of guesses are best.
      "record_separation": 1.0,
      "gradient_separation": 2.0,
      "magnitude": 1e4,  # Length of a canary's gradient.
      "learning_rate": 1e-3,  # Of plain descent in the audit by gradients.
      "release_trials": 5000,  # Of each world.
    }
  )
  # How often bounds exceed a known epsilon: in so many runs of each mechanism;
  # 0 leaves that out, more take the place of the arms' audits.
  config.exceedance = config_dict.ConfigDict(
    {
      "repetitions": 0,
      "epsilons": (1.0, 3.0),  # Of randomised response.
      "mus": (1.0, 2.0),  # Of Gaussian scores and releases.
    }
  )
  config.non_private.update({"batch_size": 64, "num_steps": 200})
  config.private.update({"expected_batch_size": 256, "num_steps": 100})
  return config
