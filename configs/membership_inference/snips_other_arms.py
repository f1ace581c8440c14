"""Table C on SNIPS, the other arms: 16 models each, on the same pool.

Command: python -m experiments.membership_inference \
  --config=configs/membership_inference/snips_other_arms.py \
  --config.data.manual_dir=DIR --workdir=OUT
Planned compute: 5 minutes on two CPU cores.
Result (LiRA online, AUC with 95 % intervals; correct / naive epsilon):
  clipping without noise        0.964 [0.959, 0.968]  none
  eDP-SGD                       0.510 [0.498, 0.522]  25.0 / 8.0
  eDP-SGD at equal epsilon      0.497 [0.484, 0.510]   8.0 / 3.2
"""

from typing import Any

import ml_collections

from configs.membership_inference import snips


def get_config() -> ml_collections.ConfigDict:
  """Clipping alone, and clip groups at equal noise and at equal epsilon."""
  config: Any = snips.get_config()
  config.update(
    {
      "arms": ("clip_only", "edp_sgd", "edp_sgd_equal_epsilon"),
      "target_epsilons": (8.0,),
      "attack": {"num_models": 16},
      "edp": {"clip_group_size": 10},
    }
  )
  return config
