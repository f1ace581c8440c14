"""Private fine-tuning of BERT or DistilBERT: the last layers and the head.

Command: python -m experiments.private_training \
  --config=configs/private_training/finetune_bert.py \
  --config.model.pretrained_dir=BERT \
  --config.data.vocabulary_file=BERT/vocab.txt \
  --config.data.manual_dir=DIR --workdir=OUT

BERT holds config.json, model.safetensors and vocab.txt (extra [pretrained]).
The vocabulary is public, so it is inside the guarantee.
"""

from typing import Any

import ml_collections
from ml_collections import config_dict

from configs.private_training import default


def get_config() -> ml_collections.ConfigDict:
  """SNIPS at epsilon 8, exact clipping by book-keeping."""
  config: Any = default.get_config()
  config.update(
    {
      "arms": ("non_private", "dp_sgd"),
      "target_epsilons": (8.0,),
      "delta": 1e-5,
      # The layers behind the first ten, and the head.
      "trainable": "layer_1[01]/|head",
      "data": {"name": "snips", "tokenizer": "wordpiece"},
      "model": {"name": "bert", "pooler": False},
      "non_private": {
        "batch_size": 32,
        "num_steps": 1000,
        "optimizer": {"learning_rate": 5e-5},
      },
      "private": {
        "expected_batch_size": 1024,
        "num_steps": 250,
        "optimizer": {"learning_rate": 5e-4},
      },
      "evaluate_every": 100,
    }
  )
  del config.model["dim"]  # The files fix it.
  config.model.dim = config_dict.placeholder(int)
  return config
