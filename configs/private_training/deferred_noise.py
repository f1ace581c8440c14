"""DP-SGD whose noise waits where nobody looks: for large word tables.

Command: python -m experiments.private_training \
  --config=configs/private_training/deferred_noise.py \
  --config.data.vocabulary_file=WORDS --workdir=OUT

WORDS is a public list, one word a line, and makes the table large; without it
the embedded corpus has 1,000 words and nothing is gained. For the same run with
noise drawn for every row at every step add --config.private.noise=flat.

`noise` "deferred" has the distribution of "flat". It needs plain SGD (momentum,
Adam and weight decay read a row's noise again), thresholds and noise that are
constants (no quantile, no weight_relative), no frozen parameters, and leaves
dp_sgd_loop out. Each evaluation draws all that is pending, one normal for every
entry of the table, so evaluate seldom. Checkpoints lack noise, all but the last
of a finished run, and must not be released.
"""

import ml_collections

from configs.private_training import default


def get_config() -> ml_collections.ConfigDict:
  """The mean-pool tagger of 128 dimensions at epsilon 8, plain SGD."""
  config = default.get_config()
  config.update(
    {
      "arms": ("dp_sgd",),
      "target_epsilons": (8.0,),
      "model": {"dim": 128, "embedding_scale": 0.1},
      "private": {
        "expected_batch_size": 64,
        "num_steps": 200,
        "noise": "deferred",
        "optimizer": {"name": "sgd", "learning_rate": 1.0},
      },
      "evaluate_every": 0,
    }
  )
  return config
