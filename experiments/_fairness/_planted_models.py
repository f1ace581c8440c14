"""Models of the occupation sentences: trained once, then kept."""

import dataclasses
import functools
import hashlib
import json
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments._binary import _console
from trustjax import data, models, privacy, training

OBJECTIVES = ("masked", "causal")
# Which parameters of a classifier are trained: those whose path matches.
TRAINABLE = {
  "all": r".",
  "head": r"^head/",
  # Two models that share the word table can be compared coordinate by
  # coordinate of their input.
  "all_but_words": r"^(?!encoder/words/)",
}
# What the keys of a training run are drawn for.
_INIT, _TRAIN = range(2)
_SPECIAL = (2, 3)  # The start and the end of a sentence.
# Share of the sentences whose gendered words are all asked for. What decides a
# gendered word is what is planted, and it stands far away: with a share of 1/2
# a model needs about twice the steps to learn it.
_SALIENT_RATE = 0.9

LanguageModel = models.LanguageModel | models.MaskedLanguageModel
Params = dict[str, Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Corpus:
  """Which occupation sentences a model learns from.

  Attributes:
    size: Sentences.
    seed: Which ones.
    bias: Planted between occupation and gender.
    opinion_bias: Planted between judgement and gender.
    label_bias: Planted between label and gender.
  """

  size: int
  seed: int
  bias: float
  opinion_bias: float = 0.0
  label_bias: float = 0.0

  def sentences(self) -> tuple[data.OccupationSentence, ...]:
    """The sentences."""
    return data.occupation_sentences(
      self.seed,
      self.size,
      self.bias,
      opinion_bias=self.opinion_bias,
      label_bias=self.label_bias,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shape:
  """A language model before it is trained.

  Attributes:
    objective: "masked" or "causal".
    num_layers: Transformer layers.
    dim: Width.
  """

  objective: str
  num_layers: int = 2
  dim: int = 64

  def __post_init__(self):
    if self.objective not in OBJECTIVES:
      raise ValueError(
        f"objective: got {self.objective!r}; allowed are {list(OBJECTIVES)}"
      )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Schedule:
  """How long and how fast a model is trained.

  Attributes:
    steps: Steps.
    batch_size: Sentences in a batch.
    learning_rate: Peak of a cosine schedule for AdamW.
  """

  steps: int
  batch_size: int = 64
  learning_rate: float = 3e-3


@functools.cache
def make_language_model(shape: Shape) -> LanguageModel:
  """The model of a shape; the same object for the same shape."""
  sizes: dict[str, Any] = dict(
    vocab_size=len(data.occupation_vocabulary()),
    max_length=data.SENTENCE_TIME,
    num_layers=shape.num_layers,
    dim=shape.dim,
    num_heads=max(1, shape.dim // 32),
    ff_dim=4 * shape.dim,
  )
  if shape.objective == "causal":
    return models.transformer_decoder(**sizes)
  mask_id = data.occupation_vocabulary().tokens.index(data.MASK_TOKEN)
  return models.masked_encoder(mask_id=mask_id, **sizes)


def language_loss(model: LanguageModel) -> Callable:
  """The loss of one record under the model's own objective."""
  if isinstance(model, models.LanguageModel):
    return models.losses.language_model_loss(model)
  return models.masked_language_model_loss(
    model, mask_rate=0.15, special_ids=_SPECIAL, salient_rate=_SALIENT_RATE
  )


class TextClassifier:
  """A linear head on the mean hidden state of a language model.

  Attributes:
    model: The language model.
    num_classes: Classes.
  """

  def __init__(self, model: LanguageModel, num_classes: int):
    """Builds a classifier without parameters."""
    self.model = model
    self.num_classes = num_classes

  def init(self, key: jax.Array, encoder: Params) -> Params:
    """First parameters: those of the encoder, and a small random head."""
    width = self.model.fields["dim"]
    kernel = 0.02 * jax.random.normal(key, (width, self.num_classes))
    return {
      # A copy: a training step donates what it is given.
      "encoder": jax.tree.map(jnp.array, encoder),
      "head": {"kernel": kernel, "bias": jnp.zeros(self.num_classes)},
    }

  def logits(self, params, embeddings, mask):
    """Scores of the classes of ONE record."""
    hidden = self.model.encode(params["encoder"], embeddings, mask)
    weights = mask.astype(hidden.dtype)
    pooled = weights @ hidden / jnp.maximum(weights.sum(), 1.0)
    return pooled @ params["head"]["kernel"] + params["head"]["bias"]

  def classes(self, params, embeddings, mask):
    """(params, embeddings [batch, time, dim], mask) -> logits [batch, K]."""
    return jax.vmap(lambda e, m: self.logits(params, e, m))(embeddings, mask)

  def embeddings(self, params, tokens, mask):
    """Input embeddings [batch, time, dim]."""
    fn = models.embedding_function(self.model)
    return fn(params["encoder"], tokens, mask)

  def loss(self, params, example, key):
    """Cross-entropy of ONE record's `target`."""
    del key
    inputs = {name: jnp.asarray(example[name]) for name in ("tokens", "mask")}
    embedded = self.model.embed(params["encoder"], inputs)
    scores = self.logits(params, embedded, inputs["mask"])
    target = jnp.asarray(example["target"])
    return -jax.nn.log_softmax(scores)[target], {}


@functools.cache
def make_classifier(shape: Shape, num_classes: int) -> TextClassifier:
  """The classifier of a shape; the same object for the same shape."""
  return TextClassifier(make_language_model(shape), num_classes)


def class_probabilities(
  classifier: TextClassifier, params: Params, arrays: Mapping[str, np.ndarray]
) -> np.ndarray:
  """Probabilities of the classes, [records, classes]."""
  return np.asarray(
    _probabilities(
      classifier,
      params,
      jnp.asarray(arrays["tokens"]),
      jnp.asarray(arrays["mask"]),
    )
  )


@functools.partial(jax.jit, static_argnums=0)
def _probabilities(classifier, params, tokens, mask):
  embedded = classifier.embeddings(params, tokens, mask)
  return jax.nn.softmax(classifier.classes(params, embedded, mask), axis=-1)


def train_language_model(
  shape: Shape,
  corpus: Corpus,
  schedule: Schedule,
  seed: int,
  folder: pathlib.Path | None = None,
) -> Params:
  """Trains a language model, or reads a finished one.

  Args:
    shape: The model.
    corpus: Its training data.
    schedule: How long and how fast.
    seed: Of first parameters, batches and masks.
    folder: Where checkpoints live; None keeps none.

  Returns:
    The parameters.

  Raises:
    _console.Stopped: Ctrl-C.
  """
  arrays = data.encode_sentences(corpus.sentences())
  model = make_language_model(shape)
  return _train(
    _language_step(shape, schedule),
    model.init(_key(seed, _INIT)),
    {
      "tokens": arrays["tokens"],
      "mask": arrays["mask"],
      # A masked model is asked for all gendered words of a sentence together:
      # one at a time, each gives away the others.
      "salient": arrays["gendered"],
    },
    schedule,
    seed,
    folder,
    _identity(shape=shape, corpus=corpus, schedule=schedule, seed=seed),
  )


def train_classifier(
  classifier: TextClassifier,
  encoder: Params,
  arrays: Mapping[str, np.ndarray],
  target: np.ndarray,
  schedule: Schedule,
  seed: int,
  *,
  trainable: str = "all",
  folder: pathlib.Path | None = None,
) -> Params:
  """Trains a classifier on top of a language model.

  Args:
    classifier: The classifier.
    encoder: Parameters of its language model.
    arrays: tokens and mask of the records.
    target: Class of each record.
    schedule: How long and how fast.
    seed: Of the head and of the batches.
    trainable: A name of `TRAINABLE`.
    folder: Where checkpoints live; None keeps none.

  Returns:
    The parameters.

  Raises:
    _console.Stopped: Ctrl-C.
  """
  if trainable not in TRAINABLE:
    raise ValueError(
      f"trainable: got {trainable!r}; allowed are {list(TRAINABLE)}"
    )
  records = {name: arrays[name] for name in ("tokens", "mask")}
  records["target"] = np.asarray(target, np.int32)
  identity = _identity(
    model=dict(classifier.model.fields),
    classes=classifier.num_classes,
    schedule=schedule,
    seed=seed,
    trainable=trainable,
    encoder=_digest(encoder),
    records=_digest(records),
  )
  return _train(
    _classifier_step(classifier, trainable, schedule),
    classifier.init(_key(seed, _INIT), encoder),
    records,
    schedule,
    seed,
    folder,
    identity,
  )


@functools.cache
def _language_step(shape, schedule):
  """Compiled once for all models of a shape."""
  return training.make_step(
    language_loss(make_language_model(shape)), _optimizer(schedule)
  )


@functools.cache
def _classifier_step(classifier, trainable, schedule):
  """Compiled once for all parameters of a classifier.

  Parameters that are not trained stay in the state, with updates of zero:
  captured by the step, they would be another program for every model.
  """

  def labels(params):
    trained, _ = privacy.partition(params, TRAINABLE[trainable])
    return jax.tree.map(
      lambda leaf, kept: "keep" if kept is None else "train",
      params,
      trained,
      is_leaf=lambda leaf: leaf is None,
    )

  optimizer = optax.multi_transform(
    {"train": _optimizer(schedule), "keep": optax.set_to_zero()}, labels
  )
  return training.make_step(classifier.loss, optimizer)


def _optimizer(schedule):
  return training.make_optimizer(
    "adamw",
    schedule.learning_rate,
    schedule.steps,
    decay="cosine",
    warmup_steps=min(20, schedule.steps // 10),
    weight_decay=0.01,
  )


def _train(built, first, records, schedule, seed, folder, identity):
  """The house's loop over shuffled batches."""
  init, step = built
  num_records = len(records["tokens"])
  batch_size = min(schedule.batch_size, num_records)

  def draw_lot(at):
    drawn = privacy.shuffled_lot(
      num_records=num_records, batch_size=batch_size, seed=seed, step=at
    )
    return privacy.Lot(
      examples=data.gather(records, drawn.indices),
      valid=drawn.valid,
      ids=drawn.indices,
    )

  checkpointer = None
  if folder is not None:
    checkpointer = training.Checkpointer(folder, identity=identity)
  result = training.train(
    init(first),
    step,
    draw_lot,
    _key(seed, _TRAIN),
    training.LoopOptions(
      num_steps=schedule.steps, title=folder.name if folder else "training"
    ),
    checkpointer=checkpointer,
  )
  if checkpointer is not None:
    checkpointer.close()
  if not result.completed:
    raise _console.Stopped(
      f"stopped after step {int(result.state.step)} of {schedule.steps}; what"
      " is finished is kept"
    )
  return result.params


def _key(seed, purpose):
  return jax.random.fold_in(jax.random.key(seed), purpose)


def _identity(**parts):
  return {
    name: dataclasses.asdict(part)
    if isinstance(part, Shape | Corpus | Schedule)
    else part
    for name, part in parts.items()
  }


def _digest(tree):
  """First digits of the SHA-256 of all arrays of a tree."""
  digest = hashlib.sha256()
  for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
    digest.update(json.dumps(jax.tree_util.keystr(path)).encode())
    digest.update(np.asarray(leaf).tobytes())
  return digest.hexdigest()[:16]
