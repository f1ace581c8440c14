"""Membership on NLU-Evaluation: 16 models for each arm, rare intents apart.

Command: python -m experiments.membership_inference \
  --config=configs/membership_inference/nlu_evaluation.py \
  --config.data.manual_dir=DIR --workdir=OUT
"""

from typing import Any

import ml_collections

from configs.membership_inference import snips


def get_config() -> ml_collections.ConfigDict:
  """Many intents of unequal size, without privacy and at epsilon 8."""
  config: Any = snips.get_config()
  config.update(
    {
      "target_epsilons": (8.0,),
      "data": {"name": "nlu_evaluation"},
      "attack": {
        "num_models": 16,
        "attacks": (
          "yeom",
          "shadow_classifier",
          "lira_online",
          "lira_offline",
          "rmia",
        ),
      },
    }
  )
  return config
