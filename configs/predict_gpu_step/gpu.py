"""BERT-base and GPT-2 small on an H200: the models of the race on a GPU.

Command: python -m experiments.predict_gpu_step \
  --config=configs/predict_gpu_step/gpu.py --workdir=OUT
"""

import ml_collections
from ml_collections import config_dict

from configs.benchmark_clipping import gpu
from configs.predict_gpu_step import default

_METHODS = {
  "bert_base_b256": (
    "non_private",
    "non_private_chunk64",
    "auto",
    "bookkeeping_chunk64",
    "vmap_chunk16",
  ),
  "bert_base_b1024": ("non_private_chunk256", "auto", "bookkeeping_chunk64"),
  "gpt2_small_b64": ("non_private", "auto", "bookkeeping_chunk32"),
}
# In float32, whose non-private steps were measured on such a GPU.
_CALIBRATION = ("bert_base_b256", "gpt2_small_b64")


def get_config() -> ml_collections.ConfigDict:
  """The models of `configs/benchmark_clipping/gpu.py`, in two precisions."""
  config = default.get_config()
  race = gpu.get_config().to_dict()
  models = {}
  for label, methods in _METHODS.items():
    fields = race["models"][label] | {"methods": methods}
    fields.pop("chunk_sizes")
    models[label] = fields
  for label in _CALIBRATION:
    models[f"{label}_float32"] = models[label] | {
      "compute_dtype": "float32",
      "methods": ("non_private", "auto"),
    }
  config.models = config_dict.ConfigDict(models)
  config.data = config_dict.ConfigDict(race["data"])
  return config
