r"""The grid of models and cohorts.

Command: python -m experiments.benchmark_federated \
  --config=configs/benchmark_federated/grid.py
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
