"""Whether balanced continuations carry over to hidden states and decisions."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments._binary import _config_flags
from experiments._role_reversal import _corpus
from trustjax import data, fairness, models

# Sentences of the probe and of the contexts, of seeds that no corpus has.
_PROBE_SEEDS = (20_000, 30_000)
_PROBE_SIZES = (3_000, 2_000)
_PROBE_STEPS, _PROBE_DECAY = 300, 1e-3
_CONTEXT_SEED, _CONTEXT_SENTENCES, _CONTEXTS = 40_000, 4_000, 24
_DRAWS = 500
_CHUNK = 256
_WIDTH = 32
# Sentences that say nothing but the word, in the style of the corpus.
_TEMPLATES = ("this is the {} .", "we met the {} .", "i called the {} .")
_FEMALE = ("woman", "sister", "mother", "daughter", "aunt", "niece", "wife")
_MALE = ("man", "brother", "father", "son", "uncle", "nephew", "husband")
# In contexts they are pronouns, too.
_SHE = (*_FEMALE, "she", "her", "herself")
_HE = (*_MALE, "he", "him", "his", "himself")


def measure(
  config: _config_flags.Config,
  corpus: _corpus.Corpus,
  model: models.LanguageModel,
  params: Any,
) -> dict[str, np.ndarray]:
  """Probes and association tests of a model.

  Args:
    config: The study's config.
    corpus: Its tokenizer, and biographies where a path is given.
    model: The model.
    params: Its parameters.

  Returns:
    Items of an `Evaluation`: probe_true, probe_pred, probe_gender, the same of
    `bios` where biographies are given, and, for seat and ceat, the effect size
    and the associations that its words are resampled from.
  """
  encode = functools.partial(_vectors, corpus.tokenizer, model, params)
  items = _occupation_probe(encode, config.corpus.bias, config.seed)
  items |= _seat(encode) | _ceat(encode, config.seed)
  if corpus.biographies is not None:
    items |= _biography_probe(encode, corpus.biographies, config.length)
  return items


def _occupation_probe(encode, bias, seed):
  """A hidden occupation, predicted from what is left of the sentence."""
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
        encode(texts),
        np.array([names.index(s.occupation) for s in sentences], np.int32),
        np.array([int(s.gender == "female") for s in sentences], np.int32),
      )
    )
  return _predict("probe", sets, len(names))


def _biography_probe(encode, biographies, length):
  """The occupation of a biography, whose pronouns are left in it."""
  names = sorted({one.occupation for one in biographies["train"]})
  sets = []
  for split in ("train", "test"):
    # An occupation that the classifier never met says nothing about it.
    kept = [one for one in biographies[split] if one.occupation in names]
    sets.append(
      (
        encode([one.text for one in kept], width=length),
        np.array([names.index(one.occupation) for one in kept], np.int32),
        np.array([int(one.female) for one in kept], np.int32),
      )
    )
  return _predict("bios", sets, len(names))


def _predict(name, sets, num_classes):
  (fit, classes, _), (test, true, gender) = sets
  return {
    f"{name}_true": true,
    f"{name}_pred": _probe(fit, classes, test, num_classes),
    f"{name}_gender": gender,
    f"{name}_classes": np.array(num_classes),
  }


def _leaning(kind):
  return [name for name, lean in data.OCCUPATIONS.items() if lean == kind]


def _seat(encode):
  """Occupations in templates, against women and men in templates."""
  words = (_leaning("female"), _leaning("male"), _FEMALE, _MALE)
  x, y, a, b = (
    encode([template.format(word) for word in part for template in _TEMPLATES])
    for part in words
  )
  result = fairness.seat(x, y, a, b, pooling="mean")
  shape = (-1, len(_TEMPLATES))
  return {
    "seat": np.asarray(result.effect_size),
    "seat_x": np.asarray(fairness.association(x, a, b)).reshape(shape),
    "seat_y": np.asarray(fairness.association(y, a, b)).reshape(shape),
  }


def _ceat(encode, seed):
  """Occupations, women and men where they stand in sentences."""
  sets = _contexts(seed)
  contexts = [
    encode([text for of_word in part for text in of_word], pooling="last")
    for part in sets
  ]
  stacked = [
    np.reshape(vectors, (-1, _CONTEXTS, vectors.shape[-1]))
    for vectors in contexts
  ]
  found = fairness.ceat(
    *stacked,
    *(np.full(len(part), _CONTEXTS) for part in sets),
    # One key for all models: they are compared on the same draws.
    key=jax.random.key(seed),
    num_draws=_DRAWS,
  )
  x, y, a, b = contexts
  shape = (-1, _CONTEXTS)
  return {
    "ceat": np.asarray(found.ces),
    "ceat_x": np.asarray(fairness.association(x, a, b)).reshape(shape),
    "ceat_y": np.asarray(fairness.association(y, a, b)).reshape(shape),
  }


@functools.lru_cache(maxsize=4)
def _contexts(seed):
  """Sets X, Y, A and B: for every word, sentences that end with it.

  A causal model has read no further when it comes to the word. The sentences
  lean to no gender, so that what is found is the model's and not theirs.
  """
  found: dict[str, list[str]] = {}
  for sentence in data.occupation_sentences(
    seed + _CONTEXT_SEED, _CONTEXT_SENTENCES, 0.0
  ):
    for at, word in enumerate(sentence.tokens):
      found.setdefault(word, []).append(" ".join(sentence.tokens[: at + 1]))
  return tuple(
    [
      # A rare word repeats its contexts, so that all words have as many.
      [found[word][i % len(found[word])] for i in range(_CONTEXTS)]
      for word in words
      if word in found
    ]
    for words in (_leaning("female"), _leaning("male"), _SHE, _HE)
  )


@functools.lru_cache(maxsize=8)
def _encoder(model, pooling):
  """(params, tokens, mask) -> one vector of each sentence."""

  def one(params, tokens, mask):
    embeddings = model.embed(params, {"tokens": tokens, "mask": mask})
    return model.encode(params, embeddings, mask)

  def batch(params, tokens, mask):
    hidden = jax.vmap(one, in_axes=(None, 0, 0))(params, tokens, mask)
    # The end of text in front belongs to every sentence alike.
    special = jnp.zeros_like(mask).at[:, 0].set(True)
    return fairness.pool_hidden(hidden, mask, pooling=pooling, special=special)

  return jax.jit(batch)


def _vectors(
  tokenizer: data.BytePairTokenizer,
  model: models.LanguageModel,
  params: Any,
  texts: Sequence[str],
  *,
  pooling: str = "mean",
  width: int = _WIDTH,
) -> np.ndarray:
  """Hidden states of texts, which are cut at the width, [texts, dim]."""
  ids = [
    [tokenizer.end_of_text, *text] for text in tokenizer.encode_batch(texts)
  ]
  width = min(model.fields["max_length"], width)
  tokens = np.zeros((len(ids), width), np.int32)
  mask = np.zeros((len(ids), width), bool)
  for i, row in enumerate(ids):
    row = row[:width]
    tokens[i, : len(row)], mask[i, : len(row)] = row, True
  run, found = _encoder(model, pooling), []
  for start in range(0, len(ids), _CHUNK):
    # The last chunk repeats its last text, so that one program serves all.
    rows = np.minimum(np.arange(start, start + _CHUNK), len(ids) - 1)
    found.append(np.asarray(run(params, tokens[rows], mask[rows])))
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
