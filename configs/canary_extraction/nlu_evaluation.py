"""Pin codes in NLU-Evaluation: four digits, 100 copies, 20 models an arm.

Command: python -m experiments.canary_extraction \
  --config=configs/canary_extraction/nlu_evaluation.py \
  --config.data.manual_dir=DIR --workdir=OUT
"""

from typing import Any

import ml_collections

from configs.canary_extraction import snips_pin


def get_config() -> ml_collections.ConfigDict:
  """No defence, all three, and DP-SGD at epsilon 8 for one record."""
  config: Any = snips_pin.get_config()
  config.update(
    {
      "data": {"name": "nlu_evaluation"},
      # Many intents: more utterances and steps than SNIPS needs.
      "attack": {"num_trials": 20, "pool_size": 1500},
      "non_private": {"num_steps": 400},
    }
  )
  return config
