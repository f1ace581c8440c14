"""Membership on CLINC150: 150 intents and no slots, 16 models for each arm.

Command: python -m experiments.membership_inference \
  --config=configs/membership_inference/clinc150.py \
  --config.data.manual_dir=DIR --workdir=OUT
"""

from typing import Any

import ml_collections

from configs.membership_inference import nlu_evaluation


def get_config() -> ml_collections.ConfigDict:
  """Intents only; all are equally frequent, so no group of rare ones."""
  config: Any = nlu_evaluation.get_config()
  config.update(
    {
      "data": {"name": "clinc150"},
      "attack": {"pool_size": 3000, "groups": ("singletons",)},
    }
  )
  return config
