"""What a role-reversal study refuses before anything is trained."""

import contextlib
import math
from collections.abc import Iterator

from experiments._binary import _config_flags
from experiments._private_training import _arms
from experiments._role_reversal import _corpus
from trustjax import data, distillation, models, training

_ZERO_POLICIES = ("zero", "nan")


def check(config: _config_flags.Config) -> None:
  """Raises ValueError if a field of the config is impossible by itself.

  What depends on the corpus is checked by `check_prompts`, and what depends on
  the models where they are built, also before the first step of training.

  Args:
    config: The study's config.
  """
  _check_arms(config)
  _check_numbers(config)
  _check_choices(config)
  stride = config.evaluation.stride
  if stride is not None and not 1 <= stride < config.length:
    raise ValueError(
      f"config.evaluation.stride: got {stride}; it must lie between 1 and"
      f" length - 1 = {config.length - 1}"
    )
  with naming("evaluation.sampling"):
    models.Sampling(**_arms.given(config.evaluation.sampling))
  with naming("teacher"):
    training.make_optimizer(
      num_steps=config.teacher.num_steps,
      **_arms.given(config.teacher.optimizer),
    )
  with naming():
    training.make_optimizer(
      num_steps=config.num_steps, **_arms.given(config.optimizer)
    )


@contextlib.contextmanager
def naming(part: str = "") -> Iterator[None]:
  """Says in which part of the config the field of a ValueError lies."""
  try:
    yield
  except ValueError as error:
    where = f"config.{part}." if part else "config."
    raise ValueError(f"{where}{error}") from error


def _check_arms(config):
  if not config.arms:
    raise ValueError("config.arms: got none; at least one is needed")
  for name in config.arms:
    with naming():
      distillation.role_reversal_arm(name)
  if len(set(config.arms)) < len(config.arms):
    raise ValueError(f"config.arms: got {list(config.arms)}; one occurs twice")


def _check_numbers(config):
  evaluation = config.evaluation
  for field, value, least in (
    ("num_seeds", config.num_seeds, 1),
    ("num_steps", config.num_steps, 1),
    ("batch_size", config.batch_size, 1),
    ("length", config.length, 2),
    ("log_every", config.log_every, 1),
    ("save_every_seconds", config.save_every_seconds, 0),
    ("evaluation.resamples", evaluation.resamples, 100),
    ("evaluation.prompts_per_group", evaluation.prompts_per_group, 1),
    ("evaluation.num_samples", evaluation.num_samples, 1),
    ("evaluation.max_new_tokens", evaluation.max_new_tokens, 1),
    ("evaluation.max_length", evaluation.max_length, 1),
    ("evaluation.chunk_size", evaluation.chunk_size, 1),
    ("evaluation.bios.num_train", evaluation.bios.num_train, 1),
    ("evaluation.bios.num_test", evaluation.bios.num_test, 1),
    ("teacher.num_steps", config.teacher.num_steps, 1),
    ("teacher.batch_size", config.teacher.batch_size, 1),
    ("corpus.size", config.corpus.size, 1),
    ("corpus.held_out_size", config.corpus.held_out_size, 1),
    ("corpus.max_texts", config.corpus.max_texts, 2),
    ("claims.remaining_distance", config.claims.remaining_distance, 0),
    ("claims.perplexity_cost", config.claims.perplexity_cost, 0),
    ("claims.carry_over_margin", config.claims.carry_over_margin, 0),
  ):
    # None of a field that may be None is no number to check.
    if value is not None and not least <= value < math.inf:
      raise ValueError(
        f"config.{field}: got {value}; it must be at least {least}"
      )


def _check_choices(config):
  for field, value, allowed in (
    ("claims.arm", config.claims.arm, tuple(distillation.ARMS)),
    ("corpus.name", config.corpus.name, _corpus.NAMES),
    ("swap.policy", config.swap.policy, distillation.POLICIES),
    ("swap.ambiguity", config.swap.ambiguity, data.AMBIGUITIES),
    ("loss.domain", config.loss.domain, distillation.DOMAINS),
    ("evaluation.zero_policy", config.evaluation.zero_policy, _ZERO_POLICIES),
  ):
    if value not in allowed:
      raise ValueError(
        f"config.{field}: got {value!r}; allowed are {list(allowed)}"
      )


def check_prompts(
  config: _config_flags.Config,
  corpus: _corpus.Corpus,
  positions: int,
) -> None:
  """Raises ValueError for prompts that a model could not continue.

  Args:
    config: The study's config.
    corpus: With the prompts.
    positions: Of the models.
  """
  fields = config.evaluation
  # The end of text in front takes a position, and is no token of the prompt.
  longest = max(map(len, corpus.prompts.tokens))
  needed = longest + fields.max_new_tokens
  if needed > positions:
    raise ValueError(
      f"config.evaluation.max_new_tokens: got {fields.max_new_tokens}; with the"
      f" {longest} tokens of the longest prompt they need {needed} positions,"
      f" and the models have {positions} (length, unless pretrained)"
    )
  if fields.max_length is not None and fields.max_length < longest:
    raise ValueError(
      f"config.evaluation.max_length: got {fields.max_length}; the longest"
      f" prompt has {longest - 1} tokens and would not be continued"
    )
