r"""All distilled arms on the embedded corpus, 3 seeds, with both controls.

Settings were chosen on seed 100; the reported seeds are 0, 1 and 2.

Command: python -m experiments.role_reversal_distillation \
    --config=configs/role_reversal_distillation/planted_bias.py

Result: arms with augmented texts or coin flips (D5-D10) have mean ratios of
.743 to .768, those that change the teacher alone (D1-D4) .263 to .291, the
baseline .255, balanced texts about .867; added perplexity is 2.4 % at most, for
D9. The control D11 equals D0.
"""

import ml_collections

from configs.role_reversal_distillation import default
from trustjax import distillation


def get_config() -> ml_collections.ConfigDict:
  """The default study with every arm that distils."""
  config = default.get_config()
  config.arms = tuple(
    name for name, arm in distillation.ARMS.items() if not arm.fine_tunes
  )
  return config
