"""Table C on SNIPS, mean-pool tagger: 64 models for each arm.

A pool of 2,000 training utterances, so that 1,000 are members of each model;
the non-private models see them 19 times, which overfits.

Command: python -m experiments.membership_inference \
  --config=configs/membership_inference/snips.py \
  --config.data.manual_dir=DIR --workdir=OUT
Planned compute: 15 minutes on two CPU cores.
Result (TPR at 0.1 % FPR, 95 % intervals; LiRA online / loss threshold):
  non-private       0.55 [0.53, 0.59]      / 0.0015 [0.0007, 0.0032]
  DP-SGD, epsilon 8 0.0033 [0.0019, 0.0048] / 0.0038 [0.0024, 0.0055]
  DP-SGD, epsilon 1 0.0010 [0.0006, 0.0019] / 0.0013 [0.0008, 0.0021]
"""

from typing import Any

import ml_collections

from configs.membership_inference import default


def get_config() -> ml_collections.ConfigDict:
  """Without privacy, and DP-SGD at epsilon 8 and 1."""
  config: Any = default.get_config()
  config.update(
    {
      "arms": ("non_private", "dp_sgd"),
      "target_epsilons": (8.0, 1.0),
      "delta": 1e-5,
      "data": {"name": "snips", "min_count": 2},
      "model": {"name": "mean_pool", "dim": 32, "embedding_scale": 0.1},
      "attack": {
        "num_models": 64,
        "pool_size": 2000,
        "attacks": (
          "yeom",
          "salem",
          "shadow_classifier",
          "lira_online",
          "lira_offline",
          "lira_vector",
          "rmia",
          "rmia_offline",
        ),
      },
      "non_private": {"batch_size": 32, "num_steps": 600},
      "private": {"expected_batch_size": 250, "num_steps": 80},
    }
  )
  return config
