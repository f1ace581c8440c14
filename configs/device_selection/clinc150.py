r"""Static and continual selection on CLINC150: 2,000 devices, 5 seeds.

Command: python -m experiments.device_selection \
  --config=configs/device_selection/clinc150.py --config.data.manual_dir=DIR
Result (final intent accuracy, mean of 5 seeds): central 0.894; static uniform
  0.774, proportional 0.814; continual uniform 0.490, proportional 0.633. At
  equal examples proportional falls to 0.375 (static) and 0.205 (continual).
"""

import ml_collections

from configs.device_selection import default


def get_config() -> ml_collections.ConfigDict:
  """15,000 utterances of 150 intents in 10 domains; intents arrive over time.

  Devices hold 7.5 utterances on average, the busiest some hundreds.
  """
  config = default.get_config()
  config.update(
    {
      "num_seeds": 5,
      "data": {"name": "clinc150", "min_count": 2},
      "model": {"dim": 64, "embedding_scale": 0.3, "window": 0},
      "population": {"num_devices": 2000, "alpha": 0.5},
      "stream": {"num_periods": 5, "drift": "class_arrival", "window": 1},
      "selection": {"size": 50},
      "num_rounds": 150,
      "evaluate_every": 10,
    }
  )
  return config
