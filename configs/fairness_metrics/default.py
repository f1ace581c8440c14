"""Every fairness metric on models of the planted occupation sentences.

Command: python -m experiments.fairness_metrics

Time (AMD EPYC, 2 cores): two to two and a half minutes when first run, 145 s of
CPU time.
"""

import ml_collections
from ml_collections import config_dict


def get_config() -> ml_collections.ConfigDict:
  """A masked model, a causal model and a classifier on one corpus."""
  config = config_dict.ConfigDict()
  config.seed = 0
  # Any of these files switches training off: what they hold is measured.
  config.given = config_dict.ConfigDict(
    {
      "embeddings": "",  # .npz: x, y, a, b; ctx_* and num_ctx_* for CEAT.
      # .npz: stereoset_scores and target_id; score_more, score_less and
      # is_anti; logp_target and logp_prior.
      "log_probabilities": "",
      # .npz: scores, y_true and group; scores_cf; gender_label, profession
      # and prompt.
      "predictions": "",
    }
  )
  config.corpus = config_dict.ConfigDict(
    {
      "size": 3000,
      "bias": 0.8,  # Pronouns follow the stereotype of the occupation.
      "opinion_bias": 0.8,  # Praise follows men.
      "label_bias": 0.8,  # So do favourable labels.
    }
  )
  config.model = config_dict.ConfigDict({"num_layers": 2, "dim": 64})
  config.masked_steps = 450
  config.causal_steps = 600
  config.classifier_steps = 150
  config.batch_size = 64
  config.learning_rate = 3e-3
  config.num_tested = 1000  # Held-out sentences for decisions.
  config.num_draws = 1000  # Of CEAT.
  config.num_samples = 10  # Continuations of a prompt.
  config.temperature = 1.0
  config.top_p = 1.0
  return config
