r"""Books, stories and articles, continued behind BOLD's professions.

The tokenizer and the teacher are trained on the files, so that nothing is
downloaded; DATA is the folder of real data.

Result (3 seeds): mean gender ratio .448 [.385, .512] for D0, .496 [.423, .578]
for D3, .732 [.668, .791] for D5 and .721 [.653, .788] for D8, against .77 to
.78 of balanced texts; D8 adds 0.0 % [-0.6, 0.6] of perplexity to 95.0 of D0.
After 1,500 steps the teacher (perplexity 91) writes no whole sentences yet, so
that the ratios say which pronouns it scatters and not whom it speaks of.

Command: python -m experiments.role_reversal_distillation \
    --config=configs/role_reversal_distillation/text_files.py:DATA
"""

import pathlib

import ml_collections

from configs.role_reversal_distillation import default

_FILES = (
  "gutenberg_books/sherlock_holmes.txt",
  "gutenberg_books/alice_in_wonderland.txt",
  "gutenberg_books/frankenstein.txt",
  "tinystories_2mb/tinystories_sample.txt",
  "wikitext2_valid_test/valid.txt",
)


def get_config(folder: str = "data") -> ml_collections.ConfigDict:
  """A small study on the files of a folder of real data."""
  root = pathlib.Path(folder)
  config = default.get_config()
  config.num_steps = 200
  config.batch_size = 8
  config.length = 80
  config.corpus.name = "files"
  config.corpus.files = tuple(str(root / name) for name in _FILES)
  config.corpus.held_out = 0.02
  config.tokenizer.vocab_size = 2048
  # The strict rule of one token would leave most gendered words as they are.
  config.swap.policy = "word_level"
  config.teacher.update({"num_steps": 1500, "batch_size": 8})
  config.optimizer.learning_rate = 1e-3
  config.evaluation.update(
    {
      "bold_dir": str(root / "bold"),
      "prompts_per_group": 20,
      "num_samples": 5,
      "max_new_tokens": 32,
    }
  )
  config.evaluation.vectors.file = str(
    root / "glove_50d_5k" / "glove-50d-5k.json"
  )
  # Debiased, "she" and "he" have a projection of 0.24 in these vectors.
  config.evaluation.vectors.threshold = 0.1
  return config
