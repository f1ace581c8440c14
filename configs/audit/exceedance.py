"""How often do audits claim more than an epsilon that is known?

Command: python -m experiments.audit --config=configs/audit/exceedance.py
Result (200 runs each; share of runs above epsilon with its exact interval;
median bound): randomised response at epsilon 1 0.015 [0.003, 0.043], 0.851; a
Gaussian release at mu 2, epsilon 8.88, 0.005 [0.000, 0.028], 7.87; DP-SGD at
epsilon 8 0.000 [0.000, 0.018], 1.17, by Gaussian DP 1.67. All twelve audits
are valid: the largest lower end is 0.003, where 0.05 is allowed.
"""

from typing import Any

import ml_collections

from configs.audit import default


def get_config() -> ml_collections.ConfigDict:
  """200 runs of each mechanism, real private training among them."""
  config: Any = default.get_config()
  config.update(
    {
      "arms": ("dp_sgd",),
      "model": {"dim": 8},
      "exceedance": {"repetitions": 200},
      # Few steps on large lots: a canary takes part often enough to show.
      "private": {"expected_batch_size": 1000, "num_steps": 4},
    }
  )
  return config
