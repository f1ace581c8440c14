r"""The same question on HateXplain: errors on posts about a community.

Command: python -m experiments.prediction_sensitivity \
    --config=configs/prediction_sensitivity/hatexplain.py \
    --config.data.manual_dir=DIR
"""

import ml_collections

from configs.prediction_sensitivity import default


def get_config() -> ml_collections.ConfigDict:
  """Three passes over the training posts."""
  config = default.get_config()
  config.update({"data": {"name": "hatexplain", "num_tested": 1900}})
  config.steps = 700
  return config
