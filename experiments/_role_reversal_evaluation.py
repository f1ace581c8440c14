"""Scores of one student: perplexity, generations, carry-over checks."""

import dataclasses
import functools
import json
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments import _arms, _config_flags, _role_reversal_corpus
from trustjax import data, distillation, fairness, models, reporting, training

_GENERATE = 2
# Sentences of the probe, of seeds that no corpus has.
_PROBE_SEEDS = (20_000, 30_000)
_PROBE_SIZES = (3_000, 2_000)
_PROBE_STEPS, _PROBE_DECAY = 300, 1e-3
_CHUNK = 256
# Sentences that say nothing but the word, in the style of the corpus.
_TEMPLATES = ("this is the {} .", "we met the {} .", "i called the {} .")
_FEMALE = ("woman", "sister", "mother", "daughter", "aunt", "niece", "wife")
_MALE = ("man", "brother", "father", "son", "uncle", "nephew", "husband")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluation:
  """What was seen of one student, item by item.

  Attributes:
    items: Arrays: nll and counts of the perplexity's windows; label of each
      continuation [prompts, samples], and with its prompt; probe_true,
      probe_pred, probe_gender; seat_x and seat_y, the associations of the
      occupations.
    numbers: Scores that are not resampled.
    texts: The continuations.
  """

  items: dict[str, np.ndarray]
  numbers: dict[str, float]
  texts: list[list[str]]


def evaluate(
  config: _config_flags.Config,
  corpus: _role_reversal_corpus.Corpus,
  model: models.LanguageModel,
  params: Any,
  *,
  seed: int,
  extra: dict[str, float] | None = None,
) -> Evaluation:
  """Evaluates a model.

  Args:
    config: The study's config.
    corpus: Held-out text and prompts.
    model: The model.
    params: Its parameters.
    seed: Seed of the generations; one seed gives all arms the same draws.
    extra: Further numbers to keep.

  Returns:
    The evaluation; numbers that are not finite are left out.
  """
  fit = models.perplexity(
    model,
    params,
    corpus.held_out,
    length=config.length,
    stride=config.evaluation.stride,
  )
  texts = _continue(config, corpus, model, params, seed)
  labels, quality = _judge(corpus, texts)
  items = {"nll": fit.nll, "counts": fit.counts} | labels
  if config.evaluation.carry_over:
    items |= _carry_over(corpus, model, params, config.corpus.bias, config.seed)
  # No text may have what a number counts, and a session that only ran the last
  # step has no usual step to time.
  numbers = {
    name: value
    for name, value in (quality | (extra or {})).items()
    if np.isfinite(value)
  }
  return Evaluation(items=items, numbers=numbers, texts=texts)


def _continue(config, corpus, model, params, seed) -> list[list[str]]:
  fields = config.evaluation
  found = models.continue_prompts(
    model,
    params,
    corpus.prompts.tokens,
    jax.random.fold_in(jax.random.key(seed), _GENERATE),
    max_new_tokens=fields.max_new_tokens,
    sampling=models.Sampling(
      end_of_text=corpus.tokenizer.end_of_text, **_arms.given(fields.sampling)
    ),
    num_samples=fields.num_samples,
    chunk_size=fields.chunk_size,
  )
  texts = []
  for prompt, samples in zip(corpus.prompts.tokens, found.texts()):
    # The end of text in front is no token of the prompt.
    room = (fields.max_length or len(prompt) + fields.max_new_tokens) + 1
    room = max(room - len(prompt), 0)
    texts.append([corpus.tokenizer.decode(ids[:room]) for ids in samples])
  return texts


def _judge(corpus, texts):
  """Gender labels of each text, and what a fairer model may lose."""
  flat = [text for samples in texts for text in samples]
  prompts = [
    prompt
    for prompt, samples in zip(corpus.prompts.texts, texts)
    for _ in samples
  ]
  whole = [prompt + text for prompt, text in zip(prompts, flat)]
  labels = {
    name: np.asarray(
      fairness.gender_label(*map(jnp.asarray, fairness.gender_word_counts(of)))
    ).reshape(len(texts), -1)
    for name, of in (("label", flat), ("label_with_prompt", whole))
  }
  mixed = distillation.mixed_pronouns(whole)
  words = [fairness.text_tokens(text) for text in flat]
  quality = {
    "mixed_pronoun_share": mixed.share,
    **{f"distinct_{n}": distillation.distinct_n(words, n) for n in (1, 2)},
    "mean_words": float(np.mean([len(text) for text in words])),
  }
  return labels, quality


def _carry_over(corpus, model, params, bias, seed):
  """An occupation probe on hidden states, and SEAT's associations."""
  names = tuple(data.OCCUPATIONS)
  sets = []
  for at, size in zip(_PROBE_SEEDS, _PROBE_SIZES):
    sentences = [
      sentence
      for sentence in data.occupation_sentences(seed + at, size, bias)
      if sentence.gender != "neutral"
    ]
    # The occupation is hidden; what is left tells the gender.
    texts = [
      " ".join(
        "person" if i == sentence.occupation_at else word
        for i, word in enumerate(sentence.tokens)
      )
      for sentence in sentences
    ]
    sets.append(
      (
        _vectors(corpus, model, params, texts),
        np.array([names.index(s.occupation) for s in sentences], np.int32),
        np.array([int(s.gender == "female") for s in sentences], np.int32),
      )
    )
  (fit, classes, _), (test, true, gender) = sets
  predicted = _probe(fit, classes, test, len(names))
  leaning = {
    kind: [name for name, lean in data.OCCUPATIONS.items() if lean == kind]
    for kind in ("female", "male")
  }
  x, y, a, b = (
    _vectors(
      corpus,
      model,
      params,
      [template.format(word) for word in words for template in _TEMPLATES],
    )
    for words in (leaning["female"], leaning["male"], _FEMALE, _MALE)
  )
  by_word = (-1, len(_TEMPLATES))
  return {
    "probe_true": true,
    "probe_pred": np.asarray(predicted),
    "probe_gender": gender,
    "seat_x": np.asarray(fairness.association(x, a, b)).reshape(by_word),
    "seat_y": np.asarray(fairness.association(y, a, b)).reshape(by_word),
  }


@functools.lru_cache(maxsize=4)
def _encoder(model):
  """(params, tokens, mask) -> mean hidden state of each sentence."""

  def one(params, tokens, mask):
    embeddings = model.embed(params, {"tokens": tokens, "mask": mask})
    return model.encode(params, embeddings, mask)

  def batch(params, tokens, mask):
    hidden = jax.vmap(one, in_axes=(None, 0, 0))(params, tokens, mask)
    # The end of text in front belongs to every sentence alike.
    return fairness.pool_hidden(
      hidden,
      mask,
      pooling="mean",
      special=jnp.zeros_like(mask).at[:, 0].set(True),
    )

  return jax.jit(batch)


def _vectors(corpus, model, params, texts) -> np.ndarray:
  end = corpus.tokenizer.end_of_text
  ids = [[end, *text] for text in corpus.tokenizer.encode_batch(texts)]
  width = min(model.fields["max_length"], 32)
  tokens = np.zeros((len(ids), width), np.int32)
  mask = np.zeros((len(ids), width), bool)
  for i, row in enumerate(ids):
    row = row[:width]
    tokens[i, : len(row)], mask[i, : len(row)] = row, True
  found = []
  for start in range(0, len(ids), _CHUNK):
    # The last chunk repeats its last text, so that one program serves all.
    rows = np.minimum(np.arange(start, start + _CHUNK), len(ids) - 1)
    found.append(np.asarray(_encoder(model)(params, tokens[rows], mask[rows])))
  return np.concatenate(found)[: len(ids)]


def _probe(fit, classes, test, num_classes):
  """Predictions of a linear classifier on standardised frozen vectors."""
  centre, scale = fit.mean(axis=0), fit.std(axis=0) + 1e-6
  fit, test = ((vectors - centre) / scale for vectors in (fit, test))
  weights = _fit_probe(num_classes, jnp.asarray(fit), jnp.asarray(classes))
  return np.argmax(test @ weights["w"] + weights["b"][None], axis=1)


@functools.partial(jax.jit, static_argnums=0)
def _fit_probe(num_classes, vectors, classes):
  optimizer = optax.adam(0.05)

  def loss(weights):
    logits = vectors @ weights["w"] + weights["b"][None]
    entropy = optax.softmax_cross_entropy_with_integer_labels(logits, classes)
    return entropy.mean() + _PROBE_DECAY * jnp.sum(weights["w"] ** 2)

  def step(carry, _):
    weights, state = carry
    updates, state = optimizer.update(jax.grad(loss)(weights), state)
    return (optax.apply_updates(weights, updates), state), None

  weights = {
    "w": jnp.zeros((vectors.shape[1], num_classes)),
    "b": jnp.zeros(num_classes),
  }
  first = (weights, optimizer.init(weights))
  return jax.lax.scan(step, first, None, length=_PROBE_STEPS)[0][0]


def write(
  folder: pathlib.Path, identity: dict[str, Any], evaluation: Evaluation
) -> None:
  """Keeps an evaluation, so that a finished arm is not run again."""
  folder.mkdir(parents=True, exist_ok=True)
  np.savez(folder / "items.npz", **evaluation.items)  # pyright: ignore
  record = {
    "identity": identity,
    "numbers": evaluation.numbers,
    "texts": evaluation.texts,
  }
  reporting.write_atomically(
    folder / "evaluation.json", json.dumps(record, indent=1) + "\n"
  )


def read(folder: pathlib.Path, identity: dict[str, Any]) -> Evaluation | None:
  """Reads what `write` kept, or None.

  Args:
    folder: Of the arm and seed.
    identity: Of this run.

  Returns:
    The evaluation.

  Raises:
    training.CheckpointError: It belongs to another run.
  """
  path = folder / "evaluation.json"
  if not path.exists():
    return None
  saved = json.loads(path.read_text(encoding="utf-8"))
  training.check_identity(path, saved.get("identity"), identity)
  with np.load(folder / "items.npz") as items:
    arrays = dict(items)
  return Evaluation(
    items=arrays, numbers=saved["numbers"], texts=saved["texts"]
  )
