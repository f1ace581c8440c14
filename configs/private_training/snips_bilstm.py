"""SNIPS, BiLSTM with characters: the joint model without privacy and with.

Command: python -m experiments.private_training \
  --config=configs/private_training/snips_bilstm.py \
  --config.data.manual_dir=DIR --workdir=OUT
"""

import ml_collections

from configs.private_training import default


def get_config() -> ml_collections.ConfigDict:
  """One seed at epsilon 8; few parameters do better there: snips_mean_pool."""
  config = default.get_config()
  config.update(
    {
      "arms": ("non_private", "dp_sgd"),
      "target_epsilons": (8.0,),
      "delta": 1e-5,
      "data": {"name": "snips", "max_chars": 12},
      "model": {
        "name": "bilstm",
        "dim": 100,
        "hidden_dim": 100,
        "skip": True,
        "char_dim": 16,
        "char_out_dim": 50,
        "dropout": 0.5,
      },
      "loss": {"slot_weight": 2.0, "unknown_rate": 0.1},
      "non_private": {
        "batch_size": 64,
        "num_steps": 2500,
        "optimizer": {"learning_rate": 4e-3},
      },
      "private": {
        "expected_batch_size": 512,
        "num_steps": 400,
        "optimizer": {"learning_rate": 0.03},
      },
      "evaluate_every": 100,
    }
  )
  return config
