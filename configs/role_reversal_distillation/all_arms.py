r"""Every arm, distilled and fine-tuned, on the embedded corpus.

Command: python -m experiments.role_reversal_distillation \
    --config=configs/role_reversal_distillation/all_arms.py
"""

import ml_collections

from configs.role_reversal_distillation import default
from trustjax import distillation


def get_config() -> ml_collections.ConfigDict:
  """The default study with all 24 arms."""
  config = default.get_config()
  config.arms = tuple(distillation.ARMS)
  return config
