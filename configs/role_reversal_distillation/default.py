"""Four arms on the embedded occupation sentences, with a planted bias.

Command: python -m experiments.role_reversal_distillation

Result (AMD EPYC, 2 cores, 76 s): mean gender ratio .255 for D0 and .753 for D8
against .869 and .867 of balanced texts, so 19 % [12, 25] of the baseline's
distance is left, at 1.7 % [1.5, 2.0] added perplexity; D3, which changes the
teacher alone, has .265. Whether the gain carries over stays undecided.
"""

import ml_collections
from ml_collections import config_dict


def get_config() -> ml_collections.ConfigDict:
  """The default study: small, offline, arms D0, D3, D5 and D8."""
  config = config_dict.ConfigDict()
  config.arms = ("D0", "D3", "D5", "D8")
  config.seed = 0
  config.num_seeds = 3
  config.num_steps = 200  # Of every arm, whatever the size of its texts.
  config.batch_size = 16  # Sequences.
  config.length = 32  # Tokens of a sequence; 1024 for GPT-2.

  config.corpus = _corpus()
  config.tokenizer = config_dict.ConfigDict(
    {
      "folder": "",  # Of a byte-level tokenizer; "" trains one on the corpus.
      "vocab_size": 1024,
    }
  )
  config.teacher = _teacher()
  config.student = config_dict.ConfigDict(
    {
      # Layers of the teacher that a student begins with; None spreads half.
      "layers": config_dict.placeholder(tuple),
      "dropout": 0.0,
    }
  )
  config.loss = config_dict.ConfigDict(
    {
      "temperature": 2.0,
      # In front of a neutral profession the original teacher pulls back what
      # balanced texts push; 0.5 each, as in the distillation script of
      # transformers, leaves most of the planted bias.
      "alpha_kd": 0.25,
      "alpha_lm": 0.75,
      "alpha_cos": 0.0,
      "domain": "logprob",  # or "logit"
      "swap_back": False,  # Swap the counterfactual teacher's words back.
    }
  )
  config.swap = config_dict.ConfigDict(
    {
      "policy": "single_token",  # or "word_level", "skip_row"
      "ambiguity": "role",  # "skip_word" or "skip_text": without the rules
    }
  )
  config.optimizer = _optimizer(3e-3, warmup_steps=10)
  config.evaluation = _evaluation()
  # Chosen before the run: what "substantial" and "minor" mean, and for whom.
  config.claims = config_dict.ConfigDict(
    {
      "arm": "D8",
      "remaining_distance": 0.5,  # To the noise floor, against the baseline.
      "perplexity_cost": 0.05,
      "carry_over_margin": 0.2,  # Share of the baseline's gap.
    }
  )
  config.log_every = 20
  config.save_every_seconds = 60.0
  return config


def _corpus():
  return config_dict.ConfigDict(
    {
      "name": "occupations",  # or "files"
      "bias": 0.8,  # occupations: how far pronouns lean, 0 to 1
      "size": 8000,  # occupations: sentences to train on
      "held_out_size": 1000,  # occupations: of another seed, same bias
      "files": (),  # files: UTF-8 texts, read one after the other
      "min_chars": 40,  # files: shorter texts, such as headings, are left out
      "max_texts": config_dict.placeholder(int),  # files
      "held_out": 0.05,  # files: share of the texts
    }
  )


def _teacher():
  return config_dict.ConfigDict(
    {
      "pretrained_dir": "",  # Of GPT-2 safetensors; "" trains a teacher.
      "num_layers": 2,
      "dim": 64,
      "num_heads": 2,
      "num_steps": 800,
      "batch_size": 16,
      "optimizer": _optimizer(3e-3, warmup_steps=20),
    }
  )


def _evaluation():
  return config_dict.ConfigDict(
    {
      "bold_dir": "",  # Of BOLD's prompts; "" uses occupation prompts.
      "prompts_per_group": 62,  # The same for every arm, drawn once.
      "num_samples": 20,
      "max_new_tokens": 16,
      "max_length": config_dict.placeholder(int),  # Prompt included.
      "sampling": config_dict.ConfigDict(
        {
          "temperature": 1.0,
          "top_p": 0.9,
          "top_k": config_dict.placeholder(int),
        }
      ),
      "chunk_size": 256,
      "zero_policy": "zero",  # Ratio of a group without one gender; or "nan"
      "stride": config_dict.placeholder(int),  # None is half of the length.
      "resamples": 1000,
      # Occupation probe, SEAT and CEAT of the hidden states.
      "carry_over": True,
      # Bias in Bios for the carry-over: BIOS.pkl, or a folder with files of
      # the splits; "" leaves it out.
      "bios": config_dict.ConfigDict(
        {"path": "", "num_train": 2000, "num_test": 2000}
      ),
      # Word vectors that label the continuations by Gender-Max besides.
      "vectors": config_dict.ConfigDict(
        {"file": "", "hard_debias": True, "threshold": 0.25}
      ),
    }
  )


def _optimizer(learning_rate, warmup_steps):
  """AdamW as the distillation scripts of transformers set it."""
  return config_dict.ConfigDict(
    {
      "name": "adamw",
      "learning_rate": learning_rate,
      "decay": "linear",
      "warmup_steps": warmup_steps,
      "weight_decay": 0.0,
      "b1": 0.9,
      "b2": 0.98,
      "eps": 1e-6,
    }
  )
