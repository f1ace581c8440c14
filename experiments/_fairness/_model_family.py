"""A family of models of varying bias, size and objective, all measured."""

import dataclasses
import itertools
import json
import pathlib

import jax
import numpy as np

from experiments._binary import _config_flags
from experiments._fairness import (
  _decision_metrics,
  _generated_texts,
  _intrinsic_metrics,
  _measured,
  _planted_models,
)
from trustjax import data, models, reporting, training

# The classifier on top of a model: whether the model may change.
ENCODERS = {"frozen": "head", "tuned": "all_but_words"}
# Fields of a config that do not change how one model is measured.
_OF_THE_STUDY = (
  "levels",
  "sizes",
  "objectives",
  "num_seeds",
  "num_perm",
  "num_boot",
  "spearman_at_least",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Member:
  """One model of the family.

  Attributes:
    shape: Its architecture.
    bias: Planted between occupation and gender.
    opinion_bias: Planted between judgement and gender.
    seed: Of corpus and training.
  """

  shape: _planted_models.Shape
  bias: float
  opinion_bias: float
  seed: int

  @property
  def name(self) -> str:
    """For tables and folders."""
    shape = self.shape
    return (
      f"{shape.objective}_{shape.num_layers}x{shape.dim}_b{self.bias:g}"
      f"_o{self.opinion_bias:g}_s{self.seed}"
    )

  @property
  def family(self) -> tuple[str, int]:
    """Objective and width: models that differ in bias and seed alone."""
    return self.shape.objective, self.shape.dim


def members(config: _config_flags.Config) -> list[Member]:
  """The models that a config names.

  Raises:
    ValueError: A field is impossible.
  """
  if not config.levels or not config.objectives:
    raise ValueError(
      "levels, objectives: each must name at least one; got"
      f" {config.levels}, {config.objectives}"
    )
  for objective in config.objectives:
    if not config.sizes.get(objective):
      raise ValueError(
        f"sizes.{objective}: got no size of a model; allowed are tuples of"
        " (layers, width)"
      )
  return [
    Member(
      shape=_planted_models.Shape(
        objective=objective, num_layers=layers, dim=dim
      ),
      bias=float(bias),
      opinion_bias=float(opinion_bias),
      seed=config.seed + number,
    )
    for objective in config.objectives
    for (layers, dim), (bias, opinion_bias), number in itertools.product(
      config.sizes[objective], config.levels, range(config.num_seeds)
    )
  ]


def measure(
  config: _config_flags.Config, member: Member, folder: pathlib.Path
) -> dict[str, float]:
  """Trains and measures one model, or reads what was measured.

  Args:
    config: The study's config.
    member: The model.
    folder: Its folder.

  Returns:
    `intrinsic/...` and `extrinsic/...` to value; nan where undefined. Where
    chance alone makes a metric, `<name>/null_95` is what it stays within in 95
    of 100 cases.

  Raises:
    _console.Stopped: Ctrl-C.
    training.CheckpointError: The folder belongs to another study.
  """
  finished = folder / "measures.json"
  identity = {
    "member": dataclasses.asdict(member),
    "config": json.loads(
      json.dumps(
        {
          name: value
          for name, value in config.to_dict().items()
          if name not in _OF_THE_STUDY and not name.endswith("_steps")
        }
        | {"steps": config[f"{member.shape.objective}_steps"]}
      )
    ),
  }
  if finished.exists():
    saved = json.loads(finished.read_text(encoding="utf-8"))
    training.check_identity(finished, saved.get("identity"), identity)
    return {
      name: float("nan") if value is None else value
      for name, value in saved["measures"].items()
    }
  found = _measure(config, member)
  numbers = {name: one.value for name, one in found.items()} | {
    f"{name}/null_95": one.null[1]
    for name, one in found.items()
    if one.null is not None
  }
  values = {
    name: float(number) if np.isfinite(number) else None
    for name, number in numbers.items()
  }
  reporting.write_atomically(
    finished,
    json.dumps({"identity": identity, "measures": values}, indent=2) + "\n",
  )
  return {
    name: float("nan") if value is None else value
    for name, value in values.items()
  }


def _measure(config, member) -> _measured.Measures:
  shape = member.shape
  params = _planted_models.train_language_model(
    shape,
    _planted_models.Corpus(
      size=config.corpus_size,
      seed=member.seed,
      bias=member.bias,
      opinion_bias=member.opinion_bias,
    ),
    _schedule(config, config[f"{shape.objective}_steps"]),
    member.seed,
  )
  model = _planted_models.make_language_model(shape)
  key = jax.random.key(config.seed)
  found = {
    f"intrinsic/{name}": one
    for name, one in _intrinsic_metrics.intrinsic_metrics(
      model, params, key, num_draws=config.num_draws
    ).items()
  }
  extrinsic = _downstream(config, member, params, key)
  if isinstance(model, models.LanguageModel):
    extrinsic |= _generated_texts.generation_metrics(
      model, params, key, num_samples=config.num_samples
    )
  return found | {f"extrinsic/{name}": one for name, one in extrinsic.items()}


def _downstream(config, member, params, key):
  """The same task on every model, with the model frozen and tuned."""
  options = config.downstream
  label_bias = member.bias if options.label_bias < 0 else options.label_bias
  judged = [
    s
    for s in data.occupation_sentences(
      700_000 + member.seed, options.size, 0.0, label_bias=label_bias
    )
    if s.opinion_at is not None
  ]
  arrays = data.encode_sentences(judged)
  tested = _decision_metrics.tested_sentences(options.num_tested)
  plain = data.encode_sentences(tested)
  swapped = data.encode_sentences(tested, swapped=True)
  classifier = _planted_models.make_classifier(member.shape, 2)
  found = {}
  for encoder, trainable in ENCODERS.items():
    trained = _planted_models.train_classifier(
      classifier,
      params,
      arrays,
      arrays["label"],
      _schedule(config, options.steps),
      member.seed,
      trainable=trainable,
    )
    scores, changed = (
      _planted_models.class_probabilities(classifier, trained, part)[:, 1]
      for part in (plain, swapped)
    )
    measures = _decision_metrics.decision_metrics(
      scores, changed, plain["merit"], plain["gender"], key
    )
    found |= {f"{encoder}/{name}": one for name, one in measures.items()}
  return found


def _schedule(config, steps):
  return _planted_models.Schedule(
    steps=steps,
    batch_size=config.batch_size,
    learning_rate=config.learning_rate,
  )
