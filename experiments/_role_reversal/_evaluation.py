"""Scores of one student: perplexity, generations, carry-over checks."""

import dataclasses
import json
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments._binary import _config_flags
from experiments._private_training import _arms
from experiments._role_reversal import _carry_over, _corpus
from trustjax import distillation, fairness, models, reporting, training

_GENERATE = 2


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluation:
  """What was seen of one student, item by item.

  Attributes:
    items: Arrays: nll and counts of the perplexity's windows; label of each
      continuation [prompts, samples], with its prompt, and by word vectors
      where there are any; what `_carry_over.measure` found.
    numbers: Scores that are not resampled.
    texts: The continuations.
  """

  items: dict[str, np.ndarray]
  numbers: dict[str, float]
  texts: list[list[str]]


def evaluate(
  config: _config_flags.Config,
  corpus: _corpus.Corpus,
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
    items |= _carry_over.measure(config, corpus, model, params)
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
  if corpus.vectors is not None:
    by_vectors = corpus.vectors.gender_max(flat)
    labels["label_by_vectors"] = by_vectors.reshape(len(texts), -1)
  mixed = distillation.mixed_pronouns(whole)
  words = [fairness.text_tokens(text) for text in flat]
  quality = {
    "mixed_pronoun_share": mixed.share,
    **{f"distinct_{n}": distillation.distinct_n(words, n) for n in (1, 2)},
    "mean_words": float(np.mean([len(text) for text in words])),
  }
  return labels, quality


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
