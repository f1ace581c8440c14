"""All arms on the embedded synthetic corpus.

Command: python -m experiments.private_training
"""

import ml_collections
from ml_collections import config_dict


def _rule(name, **fields):
  """A clipping rule; a field left at None takes the rule's default."""
  rule = config_dict.ConfigDict({"name": name})
  for field, kind in (
    ("clip_norm", float),
    ("gamma", float),
    ("scale", str),
    ("allocation", str),
    ("floor", float),
    ("depth", int),
    ("quantile", float),
    ("learning_rate", float),
    ("count_noise", float),
  ):
    rule[field] = fields.pop(field, config_dict.placeholder(kind))
  return rule


def _schedule(kind="constant"):
  """A noise schedule; without a period it changes once an epoch."""
  return config_dict.ConfigDict(
    {
      "kind": kind,
      "period": config_dict.placeholder(int),
      "decay": config_dict.placeholder(float),
      "final": config_dict.placeholder(float),
      "every": config_dict.placeholder(int),
    }
  )


def _optimizer(name, learning_rate, decay="constant"):
  """An optax optimiser with its learning-rate schedule."""
  return config_dict.ConfigDict(
    {
      "name": name,
      "learning_rate": learning_rate,
      "decay": decay,  # "constant", "cosine" or "linear"
      "warmup_steps": 0,
      "weight_decay": config_dict.placeholder(float),  # adamw
      "momentum": config_dict.placeholder(float),  # sgd
      "b1": config_dict.placeholder(float),  # adam, adamw
      "b2": config_dict.placeholder(float),  # adam, adamw
    }
  )


def _data():
  """Which corpus, and how it is encoded."""
  return config_dict.ConfigDict(
    {
      "name": "synthetic",
      "manual_dir": "",  # Folder of the data set's files.
      "data_dir": "",  # Where prepared data is kept; "" is the cache folder.
      "tokenizer": "word",  # or "wordpiece", with vocabulary_file
      "vocabulary_file": "",  # A public vocabulary, inside the guarantee.
      "min_count": 1,
      "max_size": config_dict.placeholder(int),
      "max_length": config_dict.placeholder(int),
      "max_chars": config_dict.placeholder(int),
      "deduplicate": False,
    }
  )


def _model():
  """The model; a field left at None takes the model's default."""
  return config_dict.ConfigDict(
    {
      "name": "mean_pool",
      # Folder of BERT or DistilBERT safetensors; with name "bert" only.
      "pretrained_dir": config_dict.placeholder(str),
      "pooler": config_dict.placeholder(bool),  # bert
      "dim": 32,
      "dropout": 0.0,
      "window": config_dict.placeholder(int),  # mean_pool
      "embedding_scale": config_dict.placeholder(float),  # mean_pool
      "hidden_dim": config_dict.placeholder(int),  # bilstm, bigru
      "skip": config_dict.placeholder(bool),  # bilstm, bigru
      "num_layers": config_dict.placeholder(int),  # bilstm, bigru, transformer
      # bilstm, bigru: with max_chars
      "char_dim": config_dict.placeholder(int),
      "char_out_dim": config_dict.placeholder(int),
      "size": config_dict.placeholder(str),  # transformer
      "num_heads": config_dict.placeholder(int),  # transformer
      "ff_dim": config_dict.placeholder(int),  # transformer
    }
  )


def _loss():
  """The joint loss of one record."""
  return config_dict.ConfigDict(
    {
      "intent_weight": 1.0,
      "slot_weight": 1.0,
      "unknown_rate": 0.0,  # Share of words shown as unknown in training.
      "compute_dtype": "float32",  # or "bfloat16", fast on an accelerator
    }
  )


def _non_private():
  """Training without privacy."""
  return config_dict.ConfigDict(
    {
      "batch_size": 64,
      "num_steps": 300,
      "chunk_size": config_dict.placeholder(int),
      "optimizer": _optimizer("adam", 1e-2, decay="linear"),
    }
  )


def _private():
  """Training with per-record clipping."""
  return config_dict.ConfigDict(
    {
      "expected_batch_size": 256,
      "num_steps": 200,
      "sampler": "poisson",  # "truncated_poisson" needs capacity; "shuffled"
      "adjacency": "add_remove",  # "shuffled" needs zero_out or replace_one
      "capacity": config_dict.placeholder(int),
      "rule": _rule("auto"),
      "schedule": _schedule(),
      "noise": "flat",  # "deferred": see deferred_noise.py
      "engine": "auto",
      "chunk_size": config_dict.placeholder(int),
      "optimizer": _optimizer("adam", 6e-2, decay="linear"),
    }
  )


def _edp():
  """Clip groups; lot, steps, sampler and adjacency are those of `private`."""
  return config_dict.ConfigDict(
    {
      "clip_group_size": 8,
      "group_capacity": config_dict.placeholder(int),
      "rule": _rule("per_layer", scale="weight_relative", gamma=0.01),
      "schedule": _schedule(),
      "noise": "flat",  # "deferred": see deferred_noise.py
      "engine": "auto",
      "chunk_size": config_dict.placeholder(int),
      "optimizer": _optimizer("adam", 6e-2, decay="linear"),
    }
  )


def get_config() -> ml_collections.ConfigDict:
  """The default study: small, offline, every arm."""
  config = config_dict.ConfigDict()
  config.arms = (
    "non_private",
    "dp_sgd",
    "edp_sgd",
    "edp_sgd_equal_epsilon",
    "dp_sgd_loop",
  )
  config.target_epsilons = (3.0, 8.0)
  config.delta = 1e-4  # Below 1 / number of training records.
  config.seed = 0
  config.num_seeds = 1
  config.loop_steps = 5  # Timed steps of the per-record loop.
  config.data = _data()
  # Regular expression on the paths of parameters; "" trains all of them.
  config.trainable = ""
  config.model = _model()
  config.loss = _loss()
  config.non_private = _non_private()
  config.private = _private()
  config.edp = _edp()
  config.log_every = 10
  config.evaluate_every = 50  # Steps; 0 evaluates at the end only.
  config.save_every_seconds = 60.0
  return config
