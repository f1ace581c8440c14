"""Naive against correct epsilon, ten epochs at delta 1e-5, Poisson sampling.

SNIPS (13,084 records), ATIS (4,478) and NLU-Evaluation, fold 1 (9,960); B is
the expected batch size and s the noise multiplier.

Command: python -m experiments.privacy_budget \
  --config=configs/privacy_budget/snips.py
Result (44 s on one CPU core, PLD / RDP; naive is not a guarantee):
  mechanism               naive    clip groups    12 noises
  snips B=32  s=0.5     7.51/8.96    97.1/109    488/765
  snips B=32  s=1       0.79/1.07    7.51/8.96   58.8/66.9
  snips B=256 s=1       2.74/3.10    17.4/20.0   89.4/108
  snips B=256 s=2       0.91/1.00    2.74/3.10   11.4/13.1
  atis  B=256 s=1       5.15/5.80    26.0/29.7   107/193
  nlu   B=256 s=1       3.22/3.65    19.3/22.2   93.9/115
"""

import ml_collections

from configs.privacy_budget import default

_MECHANISMS = (
  ("SNIPS", 13_084, 32, 4089, (0.5, 1.0, 2.0)),
  ("SNIPS", 13_084, 256, 511, (1.0, 1.5, 2.0)),
  ("ATIS", 4_478, 32, 1399, (1.0, 2.0)),
  ("ATIS", 4_478, 256, 175, (1.0, 2.0)),
  ("NLU_eval", 9_960, 256, 389, (1.0, 2.0)),
)


def get_config() -> ml_collections.ConfigDict:
  """The default mechanism and twelve more to compare."""
  config = default.get_config()
  mechanisms = tuple(
    {
      "name": f"{data.lower()}_B{batch}_sigma{sigma:g}",
      "sampling_rate": batch / records,
      "num_steps": steps,
      "noise_multiplier": sigma,
    }
    for data, records, batch, steps, sigmas in _MECHANISMS
    for sigma in sigmas
  )
  config.update({"comparison": {"mechanisms": mechanisms}})
  return config
