"""One federated run on the embedded synthetic corpus.

Command: python -m experiments.federated_learning
"""

import ml_collections
from ml_collections import config_dict


def data_fields():
  """Where utterances come from."""
  return config_dict.ConfigDict(
    {
      # "snips", "clinc150", "nlu_evaluation", ... or "shakespeare", by role
      "name": "synthetic",
      "manual_dir": "",  # Folder of the data set's files.
      "data_dir": "",  # Where prepared data is kept; "" is the cache folder.
      "num_train": 4000,  # Utterances of the synthetic corpus.
      "min_count": 1,
      "max_length": config_dict.placeholder(int),
    }
  )


def model_fields():
  """A tagger by name."""
  return config_dict.ConfigDict(
    {
      # "logistic", "bilstm", "transformer"; "char_lstm" for "shakespeare"
      "name": "mean_pool",
      "dim": config_dict.placeholder(int),  # Not logistic.
      "window": config_dict.placeholder(int),  # mean_pool
      "embedding_scale": config_dict.placeholder(float),  # mean_pool
      "hidden_dim": config_dict.placeholder(int),  # bilstm, char_lstm
      "num_layers": config_dict.placeholder(int),
      "size": config_dict.placeholder(str),  # transformer
    }
  )


def population_fields():
  """Devices and what they hold."""
  return config_dict.ConfigDict(
    {
      # "activity", "dirichlet", "uniform", "domain" or "user"
      "kind": "activity",
      "num_devices": 400,  # Not for "domain" and "user".
      "activity": "lognormal",  # or "zipf"
      "sigma": 1.5,  # lognormal: spread of the logarithm
      "exponent": 1.0,  # zipf
      "alpha": 1.0,  # Dirichlet: small means that devices differ much.
    }
  )


def stream_fields():
  """Arrival and deletion of data."""
  return config_dict.ConfigDict(
    {
      "num_periods": 1,
      "drift": "iid",  # "class_arrival", "drift"
      "retention": "window",  # "fifo", "reservoir", "all"
      "window": 0,  # Earlier periods that "window" keeps.
      "capacity": 64,  # Records that "fifo" and "reservoir" keep.
    }
  )


def algorithm_fields():
  """Client and server."""
  return config_dict.ConfigDict(
    {
      # "fedavg", "fedprox", "fedavgm", "fedadam", "fedyogi", "scaffold"
      "name": "fedadam",
      "client_optimizer": "sgd",
      "client_learning_rate": 0.3,
      "server_learning_rate": 0.03,  # Not fedavg and fedprox.
      "server_momentum": 0.9,  # fedavgm
      "mu": 0.1,  # fedprox
    }
  )


def selection_fields():
  """Who takes part in a round."""
  return config_dict.ConfigDict(
    {
      "strategy": "proportional",
      "size": 20,
      "sampling": "gumbel",  # "poisson", "with_replacement"
      "weighting": "fedavg",  # "uniform", "ht", "hajek"
      "gamma": 0.5,  # tempered
      "temperature": 10.0,  # softmax
      "min_activity": 1.0,  # threshold
      "epsilon": 0.5,  # mixture
    }
  )


def get_config() -> ml_collections.ConfigDict:
  """The default run: small, offline."""
  config = config_dict.ConfigDict()
  config.seed = 0
  config.data = data_fields()
  config.model = model_fields()
  config.population = population_fields()
  config.stream = stream_fields()
  config.algorithm = algorithm_fields()
  config.selection = selection_fields()
  config.privacy = config_dict.ConfigDict(
    {
      "enabled": False,
      "noise_multiplier": 1.0,
      "target_epsilon": config_dict.placeholder(float),  # Calibrates the noise.
      "delta": 1e-3,
      "clip_norm": 1.0,
      "adaptive_quantile": config_dict.placeholder(float),
      "count_noise": config_dict.placeholder(float),  # Of the quantile.
      "q_max": config_dict.placeholder(float),  # Selection by activity.
      "rate_factor": config_dict.placeholder(float),
      "simulated_cohort_size": config_dict.placeholder(int),
    }
  )
  config.upload = config_dict.ConfigDict(
    {
      "top_k": config_dict.placeholder(float),  # Share of the entries sent.
      "error_feedback": False,  # Devices keep what top-k cuts off.
      "quantize_bits": config_dict.placeholder(int),
    }
  )
  config.execution = config_dict.ConfigDict(
    {
      "backend": "auto",
      "chunk_size": config_dict.placeholder(int),
      "devices": config_dict.placeholder(str),  # "pmap" or "shard_map"
      "num_devices": config_dict.placeholder(int),
    }
  )
  config.num_rounds = 60
  config.batch_size = 10
  config.num_epochs = 1
  config.max_examples = config_dict.placeholder(int)
  config.dropout = 0.0  # Share of the devices out of reach in a round.
  config.evaluate_every = 10
  config.save_every_seconds = 60.0
  return config
