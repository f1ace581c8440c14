"""Do intrinsic metrics tell what a model does? A family of 16 small models.

Command: python -m experiments.fairness_correlation

Time (AMD EPYC, 2 cores): 332 s of CPU time, so about five minutes; every model
is saved when it is done, and the same command goes on from there.
"""

import ml_collections
from ml_collections import config_dict


def get_config() -> ml_collections.ConfigDict:
  """Corpora of four levels, two objectives, two sizes."""
  config = config_dict.ConfigDict()
  config.seed = 0
  config.num_seeds = 1
  config.objectives = ("masked", "causal")
  # Layers and width. What is planted joins two words of a sentence: a causal
  # model reads it in one step of attention; a masked one, which knows of the
  # word that is asked for only where it stands, learns it faster in two.
  config.sizes = config_dict.ConfigDict(
    {"masked": ((2, 64), (2, 32)), "causal": ((1, 64), (1, 32))}
  )
  # (bias, opinion_bias) of each corpus; the two notions are not aligned.
  config.levels = ((0.0, 0.67), (0.33, 0.0), (0.67, 1.0), (1.0, 0.33))
  config.corpus_size = 3000
  config.masked_steps = 450
  config.causal_steps = 700
  config.batch_size = 64
  config.learning_rate = 3e-3
  # The downstream task is the same for every model.
  config.downstream = config_dict.ConfigDict(
    {
      "size": 600,
      "label_bias": 0.0,
      "steps": 60,
      "num_tested": 800,
    }
  )
  config.num_draws = 500  # Of CEAT.
  config.num_samples = 10  # Continuations of a prompt.
  config.num_perm = 4999
  config.num_boot = 1000
  # Study of planted levels: the same models, one metric at a time.
  config.spearman_at_least = 0.9
  return config
