r"""Static and continual selection on NLU-Evaluation: 1,000 devices, 3 seeds.

Command: python -m experiments.device_selection \
  --config=configs/device_selection/nlu_evaluation.py \
  --config.data.manual_dir=DIR
Result (final intent accuracy, mean of 3 seeds): central 0.831; static uniform
  0.728, proportional 0.764; continual uniform 0.496, proportional 0.568. At
  equal examples proportional falls to 0.358 (static) and 0.186 (continual).
  Forgetting, continual: uniform 0.030, proportional 0.082.
"""

import ml_collections

from configs.device_selection import default


def get_config() -> ml_collections.ConfigDict:
  """About 9,000 utterances of 64 intents; devices differ in the scenarios.

  The 18 scenarios (alarm, music, weather, ...) are the domains that devices
  mix, and intents arrive over time.
  """
  config = default.get_config()
  config.update(
    {
      "num_seeds": 3,
      "data": {"name": "nlu_evaluation", "min_count": 2},
      "model": {"dim": 64, "embedding_scale": 0.3, "window": 0},
      "population": {"num_devices": 1000, "alpha": 0.5},
      "stream": {"num_periods": 5, "drift": "class_arrival", "window": 1},
      "selection": {"size": 30},
      "num_rounds": 100,
      "evaluate_every": 10,
    }
  )
  return config
