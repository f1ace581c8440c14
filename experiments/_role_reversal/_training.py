"""Trains the teacher and the arms of a role-reversal study, resumably."""

import dataclasses
import json
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from experiments._binary import _config_flags, _console
from experiments._private_training import _arms
from experiments._role_reversal import _checks, _corpus, _evaluation
from trustjax import data, distillation, models, privacy, training

# What the root keys of a run are drawn for.
_INIT, _TRAIN = range(2)
_STUDENT = "^student/"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Study:
  """What all arms share.

  Attributes:
    config: The study's config.
    corpus: Texts, tokenizer, prompts.
    teacher: The teacher.
    teacher_params: Its parameters.
    students: Whether an arm fine-tunes -> its model and first parameters.
    programs: (fine-tunes, teacher) of the arms -> (init, step).
    describe: JSON-able identity.
  """

  config: _config_flags.Config
  corpus: _corpus.Corpus
  teacher: models.LanguageModel
  teacher_params: Any
  students: dict[bool, tuple[models.LanguageModel, Any]]
  programs: dict[tuple[bool, str], tuple[Callable, Callable]]
  describe: dict[str, Any]


def make_study(
  config: _config_flags.Config,
  corpus: _corpus.Corpus,
  workdir: pathlib.Path,
) -> Study:
  """Trains or reads the teacher, and makes the students out of it.

  Args:
    config: The study's config.
    corpus: What the teacher is trained on.
    workdir: Where its checkpoints are kept.

  Returns:
    The study.

  Raises:
    ValueError: A field is impossible, or teacher and tokenizer do not match.
    _console.Stopped: Ctrl-C.
  """
  teacher, params = _first_teacher(config, corpus)
  _checks.check_prompts(config, corpus, teacher.fields["max_length"])
  # Everything is built once before the first step, so that no impossible field
  # shows itself after the teacher's training.
  study = _assemble(config, corpus, teacher, params)
  _check_batch_sizes(study)
  if config.teacher.pretrained_dir:
    return study
  return _assemble(
    config, corpus, teacher, _train_teacher(study, params, workdir)
  )


def _first_teacher(config, corpus):
  """The teacher and its parameters: pretrained, or before any training."""
  if config.teacher.pretrained_dir:
    teacher, params = models.load_decoder(config.teacher.pretrained_dir)
    _check_pretrained(config, teacher, corpus)
    return teacher, params
  with _checks.naming("teacher"):
    teacher = models.make_language_model(
      "decoder",
      vocab_size=len(corpus.tokenizer),
      max_length=config.length,
      num_layers=config.teacher.num_layers,
      dim=config.teacher.dim,
      num_heads=config.teacher.num_heads,
      ff_dim=4 * config.teacher.dim,
    )
  return teacher, jax.jit(teacher.init)(_root_key(config.seed, _INIT))


def _assemble(config, corpus, teacher, params) -> Study:
  """Students and programs of a teacher."""
  num_layers = teacher.fields["num_layers"]
  layers = config.student.layers
  if layers is None:
    layers = distillation.spread_layers(num_layers, max(1, num_layers // 2))
  with _checks.naming("student"):
    students = {
      fine_tunes: distillation.student_from_teacher(
        teacher, params, layers=taken, dropout=config.student.dropout
      )
      for fine_tunes, taken in ((False, layers), (True, range(num_layers)))
    }
  study = Study(
    config=config,
    corpus=corpus,
    teacher=teacher,
    teacher_params=params,
    students=students,
    programs={},
    describe=corpus.describe
    | {
      "teacher": config.teacher.to_dict(),
      "student": {"layers": list(layers), "dropout": config.student.dropout},
      "loss": config.loss.to_dict(),
      "optimizer": config.optimizer.to_dict(),
      "num_steps": config.num_steps,
      "batch_size": config.batch_size,
    },
  )
  # Arms with one teacher share a program.
  programs = {
    _program_of(arm): build(study, arm)
    for arm in map(distillation.role_reversal_arm, config.arms)
  }
  return dataclasses.replace(study, programs=programs)


def _program_of(arm):
  return arm.fine_tunes, arm.teacher


def _check_batch_sizes(study):
  """Raises ValueError where a lot has more sequences than its corpus."""
  config = study.config
  if not config.teacher.pretrained_dir:
    _check_batch_size(
      "teacher.batch_size",
      config.teacher.batch_size,
      len(_teacher_rows(study)["tokens"]),
      config,
    )
  # The texts alone decide how many sequences there are.
  of_texts = {
    arm.texts: arm for arm in map(distillation.role_reversal_arm, config.arms)
  }
  for arm in of_texts.values():
    count = len(make_rows(study, arm, config.seed)["tokens"])
    _check_batch_size("batch_size", config.batch_size, count, config)


def _check_batch_size(field, size, count, config):
  if size > count:
    raise ValueError(
      f"config.{field}: got {size}; the corpus has {count} sequences of"
      f" {config.length} tokens"
    )


def _check_pretrained(config, teacher, corpus):
  known, needed = teacher.fields["vocab_size"], len(corpus.tokenizer)
  if known != needed:
    raise ValueError(
      f"config.tokenizer.folder: got {needed} tokens; the model in"
      f" {config.teacher.pretrained_dir} knows {known}. Use the tokenizer that"
      " it was trained with"
    )
  if config.length > teacher.fields["max_length"]:
    raise ValueError(
      f"config.length: got {config.length}; the pretrained teacher has"
      f" {teacher.fields['max_length']} positions"
    )


def _root_key(seed, purpose):
  return jax.random.fold_in(jax.random.key(seed), purpose)


def _teacher_rows(study):
  return data.pack_texts(
    (pair.tokens for pair in study.corpus.pairs),
    length=study.config.length,
    end_of_text=study.corpus.tokenizer.end_of_text,
  )


def _train_teacher(study, params, workdir):
  config = study.config
  fields = config.teacher
  built = training.make_step(
    models.losses.language_model_loss(study.teacher),
    training.make_optimizer(
      num_steps=fields.num_steps, **_arms.given(fields.optimizer)
    ),
  )
  result = _run(
    built,
    params,
    _teacher_rows(study),
    folder=workdir / "teacher",
    identity=study.corpus.describe | {"teacher": fields.to_dict()},
    seed=config.seed,
    num_steps=fields.num_steps,
    batch_size=fields.batch_size,
    config=config,
    title="teacher",
  )
  return result.params


def build(study: Study, arm: distillation.RoleReversalArm):
  """The (init, step) of an arm.

  Args:
    study: What all arms share.
    arm: The arm.

  Returns:
    From `training.make_step`.

  Raises:
    ValueError: A field of the loss or of the optimiser is impossible.
  """
  student, params = study.students[arm.fine_tunes]
  config = study.config
  optimizer = training.make_optimizer(
    num_steps=config.num_steps, **_arms.given(config.optimizer)
  )
  if arm.teacher == distillation.NO_TEACHER:
    plain = models.losses.language_model_loss(student)
    return training.make_step(
      lambda params, example, key: plain(params["student"], example, key),
      optimizer,
    )
  fields = config.loss.to_dict()
  perm = study.corpus.vocab_perm if fields.pop("swap_back") else None
  with _checks.naming("loss"):
    loss_fn = distillation.distillation_loss(
      student, study.teacher, how=arm.teacher, vocab_perm=perm, **fields
    )
  _, frozen = privacy.partition(
    {"student": params, "teacher": study.teacher_params}, _STUDENT
  )
  return training.make_step(loss_fn, optimizer, frozen=frozen)


def make_rows(
  study: Study, arm: distillation.RoleReversalArm, seed: int
) -> dict[str, np.ndarray]:
  """The sequences that an arm is trained on.

  Args:
    study: What all arms share.
    arm: The arm.
    seed: Seed of the coins.

  Returns:
    From `distillation.pack_pairs`.
  """
  texts = study.corpus.pairs
  if not arm.control:
    texts = distillation.texts_of_arm(arm, texts, seed=seed)
  rows = distillation.pack_pairs(
    texts,
    length=study.config.length,
    end_of_text=study.corpus.tokenizer.end_of_text,
    policy=study.config.swap.policy,
  )
  if arm.control:
    # Cut as the baseline's: texts without their partners, which may be longer,
    # would be cut elsewhere.
    tokens, mask = rows["tokens"], rows["mask"]
    order = np.arange(tokens.shape[1], dtype=np.int32)
    rows |= {"tokens_cf": tokens, "mask_cf": mask, "valid": mask}
    rows["idx"] = np.where(mask, order, 0).astype(np.int32)
  return rows


def evaluate_teacher(
  study: Study, workdir: pathlib.Path
) -> _evaluation.Evaluation:
  """Evaluates the teacher, or reads what an earlier session found.

  Args:
    study: What all arms share.
    workdir: The study's folder.

  Returns:
    The evaluation.

  Raises:
    training.CheckpointError: The folder belongs to another study.
  """
  identity = _as_read(
    study.corpus.describe
    | {
      "teacher": study.config.teacher.to_dict(),
      "evaluation": study.config.evaluation.to_dict(),
    }
  )
  folder = workdir / "teacher"
  found = _evaluation.read(folder, identity)
  if found is None:
    found = _evaluation.evaluate(
      study.config,
      study.corpus,
      study.teacher,
      study.teacher_params,
      seed=study.config.seed,
    )
    _evaluation.write(folder, identity, found)
  return found


def _as_read(identity):
  """As it comes back from a file: lists, no tuples."""
  return json.loads(json.dumps(identity))


def run_arm(
  study: Study,
  arm: distillation.RoleReversalArm,
  seed: int,
  folder: pathlib.Path,
) -> _evaluation.Evaluation:
  """Trains and evaluates one arm, or reads what a finished run left.

  Args:
    study: What all arms share.
    arm: The arm.
    seed: Seed of lots, coins and dropout.
    folder: Where its metrics, checkpoints and evaluation live.

  Returns:
    The evaluation.

  Raises:
    _console.Stopped: Ctrl-C.
    training.CheckpointError: The folder belongs to another run.
  """
  identity = _as_read(
    study.describe
    | {
      "arm": dataclasses.asdict(arm),
      "seed": seed,
      "evaluation": study.config.evaluation.to_dict(),
    }
  )
  found = _evaluation.read(folder, identity)
  if found is not None:
    return found
  rows = make_rows(study, arm, seed)
  student, first = study.students[arm.fine_tunes]
  params = {"student": first}
  if arm.teacher != distillation.NO_TEACHER:
    everything = params | {"teacher": study.teacher_params}
    params, _ = privacy.partition(everything, _STUDENT)
  result = _run(
    study.programs[_program_of(arm)],
    params,
    rows,
    folder=folder,
    identity=identity,
    seed=seed,
    num_steps=study.config.num_steps,
    batch_size=study.config.batch_size,
    config=study.config,
    title=f"{arm.name}, seed {seed}",
  )
  evaluation = _evaluation.evaluate(
    study.config,
    study.corpus,
    student,
    result.params["student"],
    seed=seed,
    extra={
      "seconds_per_step": result.seconds_per_step,
      "num_sequences": float(len(rows["tokens"])),
      **{
        f"{name}_positions": share
        for name, share in distillation.alignment_shares(rows).items()
      },
    },
  )
  _evaluation.write(folder, identity, evaluation)
  return evaluation


def _run(
  built,
  params,
  rows,
  *,
  folder,
  identity,
  seed,
  num_steps,
  batch_size,
  config,
  title,
) -> training.TrainResult:
  """Trains on packed sequences; a resumed run draws the same lots."""
  count = len(rows["tokens"])
  # By another seed's coins a corpus may have a sequence less.
  _check_batch_size("batch_size", batch_size, count, config)

  def draw(step):
    drawn = privacy.shuffled_lot(
      num_records=count, batch_size=batch_size, seed=seed, step=step
    )
    return privacy.Lot(
      examples=data.gather(rows, drawn.indices),
      valid=drawn.valid,
      ids=drawn.indices,
    )

  init, step = built
  checkpointer = training.Checkpointer(
    folder / "checkpoints", identity=_as_read(identity), keep=1
  )
  with training.MetricWriter(
    folder / "metrics.jsonl", resume_at=checkpointer.latest_step()
  ) as writer:
    result = training.train(
      init(params),
      step,
      draw,
      _root_key(seed, _TRAIN),
      training.LoopOptions(
        num_steps=num_steps,
        log_every=config.log_every,
        save_every_seconds=config.save_every_seconds,
        title=title,
      ),
      writer=writer,
      checkpointer=checkpointer,
    )
  checkpointer.close()
  if not result.completed:
    raise _console.Stopped(
      f"stopped after step {int(result.state.step)} of {num_steps} of {title};"
      f" all is saved in {folder}"
    )
  return result
