r"""The grid of models and cohorts.

Command: python -m experiments.benchmark_federated \
  --config=configs/benchmark_federated/grid.py

The row `cnn` is pfl-research's benchmark on CIFAR-10 as a timing task: its
network with its dropout, 1,000 users of 50 images, 50 of them a round, one
epoch in batches of 10, local SGD at 0.1. The images are random arrays of
CIFAR-10's shape.
"""

import ml_collections

from configs.benchmark_federated import default

_SETTINGS = (
  *({"model": "logistic", "num_clients": m} for m in (10, 100, 1000)),
  *(
    {"model": "mean_pool", "num_clients": m, "dim": 64} for m in (10, 100, 1000)
  ),
  *(
    {"model": "bilstm", "num_clients": m, "dim": 64, "hidden_dim": 64}
    for m in (10, 100)
  ),
  {"model": "transformer", "num_clients": 10, "size": "mini", "num_heads": 4},
  {
    "model": "cnn",
    "num_clients": 50,
    "registered": 1000,
    "examples_per_client": 50,
    "batch_size": 10,
    "learning_rate": 0.1,
    "feature_dropout": 0.25,
    "hidden_dropout": 0.5,
  },
)


def get_config(only: str = "") -> ml_collections.ConfigDict:
  """All settings, those of one model (grid.py:bilstm), or one (:bilstm_m10)."""
  config = default.get_config()
  config.settings = tuple(
    fields
    for fields in _SETTINGS
    if only
    in ("", fields["model"], f"{fields['model']}_m{fields['num_clients']}")
  )
  config.chunk_size = 16
  return config
