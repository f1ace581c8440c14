"""Noise that falls from epoch to epoch, in clip groups: the last epochs count.

SNIPS, batch 256, 10 epochs of 51 steps, sigma_e = 1.5 / (1 + 0.1 e).

Command: python -m experiments.privacy_budget \
  --config=configs/privacy_budget/snips_noise_decay.py
Result (2 min on one CPU core, PLD / RDP; naive is not a guarantee):
  d       naive        clip groups
  0       1.35/1.49    5.45/6.29
  0.05    1.96/2.24    11.0/12.7
  0.1     3.16/3.78    21.2/24.7
  0.2     8.25/9.79    57.1/74.5
  At d = 0.1 clip groups reach epsilon 3 from sigma_0 = 3.064, 8 from 2.115.
"""

import ml_collections

from configs.privacy_budget import default


def get_config() -> ml_collections.ConfigDict:
  """The decaying schedule of the eDP-SGD reconstruction."""
  config = default.get_config()
  config.update(
    {
      "num_points": 5,
      "target_epsilons": (3.0, 8.0),
      "plan": {
        "num_steps": 510,
        "noise_multiplier": 1.5,
        "clip_group_size": 8,
        "schedule": {"kind": "inverse", "decay": 0.1, "period": 51},
      },
      "comparison": {
        "mechanisms": tuple(
          {"name": f"decay{decay:g}", "schedule": {"decay": decay}}
          for decay in (0.0, 0.05, 0.1, 0.2)
        )
      },
    }
  )
  return config
