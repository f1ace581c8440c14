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

from experiments import private_training
from experiments._binary import _config_flags, _console
from experiments._role_reversal import _checks, _corpus, _record, _training
from trustjax import distillation, reporting


def run(config: _config_flags.Config, workdir: pathlib.Path) -> None:
  """Runs the study: the teacher, every arm, every seed, then the record.

  Args:
    config: The study.
    workdir: Where everything is written.

  Raises:
    _console.Stopped: Ctrl-C, with everything saved.
  """
  _checks.check(config)
  as_json = json.loads(json.dumps(config.to_dict()))
  private_training.check_workdir(workdir, as_json)
  began = time.perf_counter()
  corpus = _corpus.make_corpus(config)
  print(_describe(corpus), flush=True)
  reporting.write_config(workdir, as_json)
  study = _training.make_study(config, corpus, workdir)
  teacher = _training.evaluate_teacher(study, workdir)
  print(f"teacher: {time.perf_counter() - began:.1f} s", flush=True)
  evaluations = {_record.TEACHER: [teacher]}
  for name in config.arms:
    arm = distillation.role_reversal_arm(name)
    evaluations[name] = []
    for seed in range(config.seed, config.seed + config.num_seeds):
      began = time.perf_counter()
      evaluations[name].append(
        _training.run_arm(
          study,
          arm,
          seed,
          workdir / "arms" / name / f"seed_{seed}",
        )
      )
      print(
        f"{name}, seed {seed}: {time.perf_counter() - began:.1f} s", flush=True
      )
  _record.write(workdir, config, study, evaluations)


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
