r"""Every metric against the planted bias: five levels, five seeds.

Command: python -m experiments.fairness_correlation \
    --config=configs/fairness_correlation/planted_levels.py
"""

import ml_collections

from configs.fairness_correlation import default

_LEVELS = (0.0, 0.25, 0.5, 0.75, 1.0)


def get_config() -> ml_collections.ConfigDict:
  """All three biases rise together, in one shape of model a side."""
  config = default.get_config()
  config.num_seeds = 5
  config.sizes.masked = ((2, 64),)
  config.sizes.causal = ((1, 64),)
  # The weakest level takes the longest to be learnt.
  config.masked_steps = 1000
  config.causal_steps = 1000
  config.levels = tuple((level, level) for level in _LEVELS)
  # A label bias below 0 is that of the corpus.
  config.update(
    {"downstream": {"label_bias": -1.0, "size": 3000, "steps": 150}}
  )
  return config
