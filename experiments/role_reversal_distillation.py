r"""Distils a language model with and without counterfactual role reversal.

  python -m experiments.role_reversal_distillation
  python -m experiments.role_reversal_distillation \
      --config=configs/role_reversal_distillation/all_arms.py --workdir=OUT

A teacher is trained on a corpus (embedded occupation sentences whose pronouns
lean, by default; text files by flag), or read from GPT-2 safetensors; students
that begin as some of its layers are distilled with equal steps and several
seeds. The arms differ in the teacher's probabilities and in the texts. The
table sets the balance of female and male continuations, with what balanced
texts would give, against perplexity, and checks whether a gain carries over to
hidden states and to an occupation classifier. Ctrl-C saves; the same command
goes on from there.
"""

import json
import pathlib
import time

from experiments import (
  _config_flags,
  _console,
  _role_reversal_corpus,
  _role_reversal_evaluation,
  _role_reversal_record,
  _role_reversal_training,
  private_training,
)
from trustjax import distillation, reporting


def check(config: _config_flags.Config) -> None:
  """Raises ValueError if a field of the config is impossible."""
  if not config.arms:
    raise ValueError("config.arms: got none; at least one is needed")
  for name in (*config.arms, config.claims.arm):
    distillation.role_reversal_arm(name)
  for field, value, least in (
    ("num_seeds", config.num_seeds, 1),
    ("num_steps", config.num_steps, 1),
    ("batch_size", config.batch_size, 1),
    ("length", config.length, 2),
    ("evaluation.resamples", config.evaluation.resamples, 100),
    ("evaluation.prompts_per_group", config.evaluation.prompts_per_group, 1),
    ("evaluation.num_samples", config.evaluation.num_samples, 1),
    ("evaluation.max_new_tokens", config.evaluation.max_new_tokens, 1),
    ("teacher.num_steps", config.teacher.num_steps, 1),
    ("corpus.held_out_size", config.corpus.held_out_size, 1),
  ):
    if value < least:
      raise ValueError(
        f"config.{field}: got {value}; it must be at least {least}"
      )
  if config.swap.policy not in distillation.POLICIES:
    raise ValueError(
      f"config.swap.policy: got {config.swap.policy!r}; allowed are"
      f" {list(distillation.POLICIES)}"
    )
  stride = config.evaluation.stride
  if stride is not None and not 1 <= stride < config.length:
    raise ValueError(
      f"config.evaluation.stride: got {stride}; it must lie between 1 and"
      f" length - 1 = {config.length - 1}"
    )


def _check_prompts(config, corpus):
  """Refuses prompts that a teacher to be trained could not continue."""
  fields = config.evaluation
  longest = max(map(len, corpus.prompts.tokens))
  needed = longest + fields.max_new_tokens
  if not config.teacher.pretrained_dir and needed > config.length:
    raise ValueError(
      f"config.length: got {config.length}; the longest prompt has {longest}"
      f" tokens and needs {needed} with evaluation.max_new_tokens ="
      f" {fields.max_new_tokens}"
    )


def run(config: _config_flags.Config, workdir: pathlib.Path) -> None:
  """Runs the study: the teacher, every arm, every seed, then the record.

  Args:
    config: The study.
    workdir: Where everything is written.

  Raises:
    _console.Stopped: Ctrl-C, with everything saved.
  """
  check(config)
  as_json = json.loads(json.dumps(config.to_dict()))
  private_training.check_workdir(workdir, as_json)
  began = time.perf_counter()
  corpus = _role_reversal_corpus.make_corpus(config)
  _check_prompts(config, corpus)
  print(_describe(corpus), flush=True)
  reporting.write_config(workdir, as_json)
  study = _role_reversal_training.make_study(config, corpus, workdir)
  teacher = _role_reversal_evaluation.evaluate(
    config, corpus, study.teacher, study.teacher_params, seed=config.seed
  )
  print(f"teacher: {time.perf_counter() - began:.1f} s", flush=True)
  evaluations = {_role_reversal_record.TEACHER: [teacher]}
  programs = {}
  for name in config.arms:
    arm = distillation.role_reversal_arm(name)
    which = (arm.fine_tunes, arm.teacher)
    if which not in programs:
      programs[which] = _role_reversal_training.build(study, arm)
    evaluations[name] = []
    for seed in range(config.seed, config.seed + config.num_seeds):
      began = time.perf_counter()
      evaluations[name].append(
        _role_reversal_training.run_arm(
          study,
          arm,
          programs[which],
          seed,
          workdir / "arms" / name / f"seed_{seed}",
        )
      )
      print(
        f"{name}, seed {seed}: {time.perf_counter() - began:.1f} s", flush=True
      )
  _role_reversal_record.write(workdir, config, study, evaluations)


def _describe(corpus):
  counts = corpus.swap_counts
  return (
    f"{counts['texts']} texts, {counts['swapped_texts']} with a counterfactual;"
    f" {len(corpus.tokenizer)} tokens, {len(corpus.held_out)} held-out tokens;"
    f" {corpus.prompts.source}"
  )


if __name__ == "__main__":
  _console.run_binary(
    run,
    default_config="role_reversal_distillation/default.py",
    keep_compiled=True,
  )
