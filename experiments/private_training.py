r"""Trains one joint intent + slot model non-privately, with DP-SGD and eDP-SGD.

  python -m experiments.private_training
  python -m experiments.private_training \
      --config=configs/private_training/snips_bilstm.py \
      --config.data.manual_dir=DIR --workdir=OUT

Every arm trains the same model on the same data; the table compares accuracy,
time and the correct epsilon, with the naive epsilon of clip groups beside it,
which is not a guarantee. Ctrl-C saves; the same command goes on from there.
Where most parameters are a word table, configs/private_training/
deferred_noise.py draws the noise of a row when the row is read.
"""

import functools
import json
import pathlib
import time

import jax

from experiments._binary import _config_flags, _console
from experiments._private_training import _arm_training, _arms, _study_record
from trustjax import data, models, privacy, reporting, training


def make_task(config: _config_flags.Config) -> _arm_training.Task:
  """Loads the data and builds the model and its loss.

  Args:
    config: The study's config.

  Returns:
    What all arms share.

  Raises:
    ValueError: A field of data, model or loss is impossible.
    FileNotFoundError: A file of the data set is missing.
  """
  fields = _arms.given(config.data)
  corpus = data.load_corpus(
    fields.pop("name"),
    manual_dir=fields.pop("manual_dir") or None,
    data_dir=fields.pop("data_dir") or None,
    seed=config.seed,
  )
  if fields.pop("deduplicate"):
    corpus = data.drop_repeats(corpus)
  fields["vocabulary_file"] = fields["vocabulary_file"] or None
  prepared = data.prepare(corpus, **fields)
  model_fields = _arms.given(config.model)
  if prepared.max_chars is not None and models.reads_characters(
    config.model.name
  ):
    model_fields["num_chars"] = len(prepared.characters)
  model, everything = _make_model(prepared, dict(model_fields))
  initial, frozen = everything, None
  if config.trainable:
    _, frozen = privacy.partition(
      everything(jax.random.key(0)), config.trainable
    )
    initial = functools.partial(_trained_part, everything, config.trainable)
  return _arm_training.Task(
    corpus=prepared,
    model=model,
    loss_fn=_arms.make_loss(config.loss, model, prepared.vocabulary),
    initial=initial,
    frozen=frozen,
    describe={
      "model": model_fields,
      "trainable": config.trainable,
      "loss": config.loss.to_dict(),
      "data": prepared.fingerprint(),
    },
  )


def _trained_part(everything, trainable, key):
  """The first parameters of those that are trained."""
  return privacy.partition(everything(key), trainable)[0]


def _make_model(prepared, fields):
  """The model, and key to its first parameters, fresh or pretrained."""
  folder = fields.pop("pretrained_dir", "")
  labels = {
    "num_intents": len(prepared.intents),
    "num_slots": len(prepared.slot_labels),
  }
  if not folder:
    model = models.make_model(
      vocab_size=prepared.vocab_size,
      max_length=prepared.max_length,
      **labels,
      **fields,
    )
    return model, model.init
  name = fields.pop("name")
  if name != "bert":
    raise ValueError(
      f"model.name: got {name!r} with model.pretrained_dir; allowed is 'bert'"
    )
  known = {"dropout", "pooler"}
  unknown = sorted(set(fields) - known)
  if unknown:
    raise ValueError(
      f"model: got {unknown} with model.pretrained_dir, whose files fix them;"
      f" allowed are {sorted(known)}"
    )
  load = functools.partial(models.load_encoder, folder, **labels, **fields)
  model, params = load(key=jax.random.key(0))
  rows = model.word_table(params).shape[0]
  if rows < prepared.vocab_size:
    raise ValueError(
      f"data.vocabulary_file: got {prepared.vocab_size} entries; the model in"
      f" {folder} knows {rows}. Use the vocabulary file that it came with"
    )
  return model, lambda key: load(key=key)[1]


def check_workdir(workdir: pathlib.Path, config: dict) -> None:
  """Refuses a folder that holds a study with another config.

  Args:
    workdir: The folder; it need not exist.
    config: The config of this study.

  Raises:
    ValueError: The folder's config differs; the message names the fields.
  """
  path = workdir / "config.json"
  if not path.exists():
    return
  saved = json.loads(path.read_text(encoding="utf-8"))
  differing = [
    field
    for field in training.differences(saved, config)
    # Where files lie may change; the data's fingerprint is checked per arm.
    if not field.startswith(("data.manual_dir", "data.data_dir"))
  ]
  if differing:
    raise ValueError(
      f"workdir {workdir} holds a study with another config: "
      + "; ".join(differing)
      + ". Use another --workdir, or the old settings to continue it"
    )


def run(config: _config_flags.Config, workdir: pathlib.Path) -> None:
  """Runs the study: every arm, every seed, then the record of all.

  Args:
    config: The study.
    workdir: Where everything is written.

  Raises:
    _console.Stopped: Ctrl-C, with everything saved.
  """
  as_json = json.loads(json.dumps(config.to_dict()))
  check_workdir(workdir, as_json)
  task = make_task(config)
  print(_describe(task), flush=True)
  arms = _arms.make_arms(config, task.corpus.num_train)
  # All of them first: what cannot be deferred is refused before any training.
  built = [_arm_training.build_to_run(task, arm) for arm in arms]
  reporting.write_config(workdir, as_json)
  scores: dict[str, list[dict[str, float]]] = {}
  for arm in arms:
    own = built.pop(0)  # Its compiled programs go with it.
    for seed in range(config.seed, config.seed + config.num_seeds):
      began = time.perf_counter()
      if arm.name == "dp_sgd_loop":
        if seed > config.seed:
          continue  # Timing and agreement, not utility: one seed says it.
        found = _loop_scores(task, arms, arm, seed, config)
      else:
        found = _arm_training.run_arm(
          task,
          arm,
          own,
          seed,
          _folder(workdir, arm, seed),
          _options(config, arm),
        )
      scores.setdefault(arm.name, []).append(found)
      print(
        f"{arm.name}, seed {seed}: {time.perf_counter() - began:.1f} s",
        flush=True,
      )
  _study_record.write(workdir, config, task, arms, scores)


def _folder(workdir, arm, seed):
  return workdir / "arms" / arm.name / f"seed_{seed}"


def _options(config, arm):
  return training.LoopOptions(
    num_steps=arm.num_steps,
    log_every=config.log_every,
    evaluate_every=config.evaluate_every,
    save_every_seconds=config.save_every_seconds,
    title=arm.name,
  )


def _loop_scores(task, arms, arm, seed, config):
  twin = next((a for a in arms if a.name == "dp_sgd"), None)
  if twin is None:
    raise ValueError(
      "config.arms: 'dp_sgd_loop' is compared with 'dp_sgd'; add it"
    )
  return _arm_training.run_loop_steps(task, arm, twin, seed, config.loop_steps)


def _describe(task):
  corpus = task.corpus
  lines = [
    f"{corpus.name}: {corpus.num_train} training records,"
    f" {len(corpus.intents)} intents, {len(corpus.slot_labels)} slot labels,"
    f" {corpus.vocab_size} words",
    *(f"  note: {note}" for note in corpus.notes),
    f"{task.model.name}, {len(jax.devices())} {jax.default_backend()}"
    " device(s)",
  ]
  return "\n".join(lines)


if __name__ == "__main__":
  _console.run_binary(
    run, default_config="private_training/default.py", keep_compiled=True
  )
