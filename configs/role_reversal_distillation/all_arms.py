r"""Every arm that is taught, distilled and fine-tuned, on the embedded corpus.

An arm differs from D0 or F0 in what it tests and in nothing else.

Command: python -m experiments.role_reversal_distillation \
    --config=configs/role_reversal_distillation/all_arms.py

Result: arms with augmented texts or coin flips (5-10) have mean ratios of .743
to .768 distilled and .732 to .754 fine-tuned; those that change the teacher
alone (1-4) .263 to .291 and .230 to .258, against .255 of D0, .243 of F0 and
about .867 of balanced texts. D11 equals D0, and F11 equals F0. Perplexity rises
by 2.4 % at most, for D9.
"""

import ml_collections

from configs.role_reversal_distillation import default
from trustjax import distillation


def get_config() -> ml_collections.ConfigDict:
  """The default study with every arm that has a teacher."""
  config = default.get_config()
  config.arms = tuple(
    name
    for name, arm in distillation.ARMS.items()
    if arm.teacher != distillation.NO_TEACHER
  )
  return config
