"""A role-reversal study of a few steps, for tests of its binary."""

from configs.role_reversal_distillation import default

ARMS = ("D0", "D3", "D11")


def tiny_config(**changes):
  """A few steps of a tiny teacher on a few sentences."""
  config = default.get_config()
  config.update(
    {
      "arms": ARMS,
      "num_seeds": 1,
      "num_steps": 3,
      "batch_size": 4,
      "length": 24,
      "corpus": {"size": 120, "held_out_size": 30},
      "tokenizer": {"vocab_size": 700},
      "teacher": {"dim": 8, "num_layers": 1, "num_steps": 3, "batch_size": 4},
      "evaluation": {
        "prompts_per_group": 1,
        "num_samples": 2,
        "max_new_tokens": 4,
        "resamples": 100,
        "chunk_size": 48,
        "carry_over": False,
      },
      "claims": {"arm": "D3"},
      "log_every": 1,
    }
  )
  config.teacher.optimizer.warmup_steps = 1
  config.optimizer.warmup_steps = 1
  config.update(changes)
  return config
