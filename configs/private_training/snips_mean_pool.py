"""SNIPS, mean-pool tagger: every arm at epsilon 8, one seed."""

import ml_collections

from configs.private_training import default


def get_config() -> ml_collections.ConfigDict:
  """A model of few parameters, whose private gradients are loud.

  Learning rate, batch size and initial scale were searched on
  NLU-Evaluation (fold 1), not on SNIPS, so they cost SNIPS no privacy.
  """
  config = default.get_config()
  config.update(
    {
      "target_epsilons": (8.0,),
      "delta": 1e-5,
      "data": {"name": "snips", "min_count": 2},
      "model": {"name": "mean_pool", "dim": 32, "embedding_scale": 0.1},
      "non_private": {"batch_size": 64, "num_steps": 2000},
      "private": {
        "expected_batch_size": 1024,
        "num_steps": 400,
        "optimizer": {"learning_rate": 0.06},
      },
      "edp": {
        "clip_group_size": 8,
        "optimizer": {"learning_rate": 0.06},
      },
      "evaluate_every": 100,
    }
  )
  return config
