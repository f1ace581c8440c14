r"""Identity templates, scored by a classifier of talk comments.

Command: python -m experiments.prediction_sensitivity \
    --config=configs/prediction_sensitivity/madlibs.py \
    --config.data.manual_dir=DIR
"""

import ml_collections

from configs.prediction_sensitivity import default


def get_config() -> ml_collections.ConfigDict:
  """1,492 comments to train on; every tenth template is tested."""
  config = default.get_config()
  config.update({"data": {"name": "madlibs", "num_tested": 7656}})
  config.steps = 300
  return config
