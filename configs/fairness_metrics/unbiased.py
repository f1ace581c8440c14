r"""The same models on a corpus without any planted bias: the null.

Command: python -m experiments.fairness_metrics \
    --config=configs/fairness_metrics/unbiased.py
"""

import ml_collections

from configs.fairness_metrics import default

_PLANTED = ("bias", "opinion_bias", "label_bias")


def get_config() -> ml_collections.ConfigDict:
  """All three biases are zero."""
  config = default.get_config()
  config.update({"corpus": dict.fromkeys(_PLANTED, 0.0)})
  return config
