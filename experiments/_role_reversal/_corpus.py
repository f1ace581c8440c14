"""Texts, tokenizer, swapped pairs and prompts of a role-reversal study."""

import dataclasses
import pathlib
from typing import Any

import numpy as np

from experiments._binary import _config_flags
from experiments._fairness import _word_vectors
from trustjax import data, distillation

# How often the forms of a gendered word are shown to a new tokenizer, so that
# each becomes one piece.
_FORM_COUNT = 50
_LINES_LOOKED_AT = 2_000
NAMES = ("occupations", "files")
_PROMPTS, _BIOGRAPHIES = 0x0B01D, 0xB105


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prompts:
  """Beginnings of texts, by group.

  Attributes:
    texts: The prompts.
    tokens: Their tokens, behind an end of text.
    group: Group of each.
    names: Names of the groups.
    source: For tables.
  """

  texts: tuple[str, ...]
  tokens: tuple[list[int], ...]
  group: np.ndarray
  names: tuple[str, ...]
  source: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Corpus:
  """What all arms share.

  Attributes:
    tokenizer: Cuts and joins texts.
    pairs: Training texts with their counterfactuals.
    held_out: Stream of held-out tokens, an end of text before each text.
    prompts: What is continued.
    vocab_perm: Partner of each token, to swap a teacher's words back.
    swap_counts: Texts, swapped texts, ambiguous and skipped words.
    biographies: "train" and "test" of Bias in Bios, where it is given.
    vectors: Word vectors, where they are given.
    describe: JSON-able identity.
  """

  tokenizer: data.BytePairTokenizer
  pairs: list[distillation.CounterfactualText]
  held_out: list[int]
  prompts: Prompts
  vocab_perm: np.ndarray
  swap_counts: dict[str, int]
  biographies: dict[str, tuple[data.Biography, ...]] | None
  vectors: _word_vectors.WordVectors | None
  describe: dict[str, Any]


def make_corpus(config: _config_flags.Config) -> Corpus:
  """Reads or writes the texts and prepares everything that arms share.

  Args:
    config: The study's config.

  Returns:
    The corpus.

  Raises:
    ValueError: A field of the config is impossible.
    FileNotFoundError: A file is missing.
  """
  # What may be missing is looked for first.
  biographies = _biographies(config)
  vectors = None
  if config.evaluation.vectors.file:
    vectors = _word_vectors.read_word_vectors(
      pathlib.Path(config.evaluation.vectors.file),
      hard_debias=config.evaluation.vectors.hard_debias,
      threshold=config.evaluation.vectors.threshold,
    )
  train, held_out = _texts(config)
  tokenizer = _tokenizer(config, train)
  swaps = [
    (text, data.swap_gender(text, ambiguity=config.swap.ambiguity))
    for text in train
  ]
  lexicon = data.gender_lexicon()
  if config.swap.policy == "single_token":
    lexicon = distillation.single_token_lexicon(tokenizer)
    swaps = [
      (text, distillation.keep_listed(text, swap, lexicon))
      for text, swap in swaps
    ]
  pairs = distillation.counterfactual_texts(swaps, tokenizer)
  stream = [
    token
    for ids in tokenizer.encode_batch(held_out)
    for token in (tokenizer.end_of_text, *ids)
  ]
  prompts = _prompts(config, tokenizer)
  return Corpus(
    tokenizer=tokenizer,
    pairs=pairs,
    held_out=stream,
    prompts=prompts,
    vocab_perm=distillation.vocabulary_permutation(tokenizer, lexicon),
    swap_counts={
      "texts": len(train),
      "swapped_texts": sum(swap.any_changed for _, swap in swaps),
      "ambiguous_words": sum(swap.n_ambiguous for _, swap in swaps),
      "skipped_words": sum(swap.n_skipped for _, swap in swaps),
    },
    biographies=biographies,
    vectors=vectors,
    describe={
      "corpus": config.corpus.to_dict(),
      "swap": config.swap.to_dict(),
      "lexicon": lexicon.digest,
      "tokenizer": tokenizer.digest,
      "prompts": prompts.source,
      "vectors": vectors.digest if vectors else None,
      "length": config.length,
    },
  )


def _texts(config):
  """(training texts, held-out texts)."""
  corpus = config.corpus
  if corpus.name == "occupations":
    # Held-out sentences come from another seed, in the range of no run.
    return tuple(
      [sentence.text for sentence in data.occupation_sentences(*fields)]
      for fields in (
        (config.seed, corpus.size, corpus.bias),
        (config.seed + 10_000, corpus.held_out_size, corpus.bias),
      )
    )
  if not corpus.files:
    raise ValueError("corpus.files: got none; name the files of the corpus")
  texts = [
    text
    for path in map(pathlib.Path, corpus.files)
    for text in data.read_texts(
      [path], separator=_separator(path), min_chars=corpus.min_chars
    )
  ][: corpus.max_texts]
  return data.split_texts(texts, held_out=corpus.held_out, seed=config.seed)


def _separator(path):
  """How the texts of a file are separated, by a look at its first lines."""
  with path.open(encoding="utf-8") as file:
    for _, line in zip(range(_LINES_LOOKED_AT), file, strict=False):
      if line.strip() == data.END_OF_TEXT:
        return "end_of_text"
  return "blank_line"


def _tokenizer(config, texts):
  if config.tokenizer.folder:
    return data.load_byte_pair(config.tokenizer.folder)
  if config.teacher.pretrained_dir:
    raise ValueError(
      "tokenizer.folder: got none; a pretrained teacher needs the tokenizer"
      " that it was trained with"
    )
  swapped = [data.swap_gender(text).text for text in texts]
  words = {
    piece.lower()
    for text in (*texts, *swapped)
    for piece in data.split_pieces(text)
  } & set(data.gender_lexicon().roles)
  # A space in front, none, and a capital: the tokenizer meets them all.
  forms = [
    form
    for word in sorted(words)
    for form in (word, f". {word}", word.capitalize(), f". {word.capitalize()}")
  ]
  return data.train_byte_pair(
    [*texts, *swapped, *(forms * _FORM_COUNT)],
    vocab_size=config.tokenizer.vocab_size,
  )


def _biographies(config):
  """Bias in Bios, cut to the config's sizes; None without a path."""
  fields = config.evaluation.bios
  if not fields.path:
    return None
  found = data.read_bias_in_bios(pathlib.Path(fields.path), seed=config.seed)
  rng = np.random.default_rng([config.seed, _BIOGRAPHIES])
  kept = {}
  for split, size in (("train", fields.num_train), ("test", fields.num_test)):
    size = min(size, len(found[split]))
    if not size:
      raise ValueError(f"Bias in Bios: {fields.path} has no {split} texts")
    chosen = np.sort(rng.choice(len(found[split]), size, replace=False))
    kept[split] = tuple(found[split][i] for i in chosen)
  return kept


def _prompts(config, tokenizer):
  evaluation = config.evaluation
  if evaluation.bold_dir:
    found = [
      (prompt.prompt, prompt.group)
      for prompt in data.read_bold(
        pathlib.Path(evaluation.bold_dir), ("profession",)
      )
    ]
    source = "BOLD, profession"
  else:
    found = [
      (" ".join(prompt.tokens), prompt.group)
      for prompt in data.occupation_prompts()
    ]
    source = "embedded occupations"
  names = tuple(dict.fromkeys(group for _, group in found))
  rng = np.random.default_rng(_PROMPTS)
  texts: list[str] = []
  groups: list[int] = []
  for number, name in enumerate(names):
    own = [text for text, group in found if group == name]
    size = min(len(own), evaluation.prompts_per_group)
    chosen = np.sort(rng.choice(len(own), size, replace=False))
    texts += [own[i] for i in chosen]
    groups += [number] * size
  return Prompts(
    texts=tuple(texts),
    tokens=tuple(
      [tokenizer.end_of_text, *ids] for ids in tokenizer.encode_batch(texts)
    ),
    group=np.array(groups),
    names=names,
    source=f"{source}: {len(texts)} prompts of {len(names)} groups",
  )
