r"""Static and continual selection on SNIPS: 2,000 devices, 5 seeds.

Command: python -m experiments.device_selection \
  --config=configs/device_selection/snips.py --config.data.manual_dir=DIR
Result (final intent accuracy, mean of 5 seeds): central 0.970; static uniform
  0.942, proportional 0.956; continual uniform 0.835, proportional 0.866. At
  equal examples proportional falls to 0.559 (static) and 0.522 (continual).
"""

import ml_collections

from configs.device_selection import default


def get_config() -> ml_collections.ConfigDict:
  """13,084 utterances; the mixture of the seven intents drifts."""
  config = default.get_config()
  config.update(
    {
      "num_seeds": 5,
      "data": {"name": "snips", "min_count": 2},
      "model": {"dim": 32, "embedding_scale": 0.3},
      "population": {"num_devices": 2000, "alpha": 0.5},
      "stream": {"num_periods": 5, "drift": "drift", "window": 0},
      "selection": {"size": 50},
      "num_rounds": 60,
      "evaluate_every": 4,
    }
  )
  return config
