"""One call from a corpus to the arrays that a binary trains on."""

import dataclasses
import hashlib
import os
from collections.abc import Mapping

import numpy as np

from trustjax.data._corpus import SPLITS, NluCorpus
from trustjax.data._encoding import (
  CHARACTERS,
  Tokenizer,
  Truncation,
  count_truncation,
  encode_split,
  encoded_length,
)
from trustjax.data._vocabulary import build_vocabulary, load_vocabulary
from trustjax.data._wordpiece import load_wordpiece


@dataclasses.dataclass(frozen=True, kw_only=True)
class PreparedCorpus:
  """A corpus as arrays, with everything needed to read them back.

  Attributes:
    name: The data set's name.
    train: Arrays of the training split, as `encode_split` describes them.
    validation: Arrays of the validation split.
    test: Arrays of the test split.
    vocabulary: What encoded the words.
    intents: The intents; a prediction is a place in this tuple.
    slot_labels: The BIO labels; a prediction is a place in this tuple.
    max_length: Positions of an encoded utterance.
    max_chars: Characters kept of each word, or None.
    characters: The alphabet of the character ids; empty without characters.
    truncation: Per split, what did not fit.
    notes: What a reader of a result should know: the corpus's notes, the
      vocabulary's guarantee note, and any truncation.
  """

  name: str
  train: dict[str, np.ndarray]
  validation: dict[str, np.ndarray]
  test: dict[str, np.ndarray]
  vocabulary: Tokenizer
  intents: tuple[str, ...]
  slot_labels: tuple[str, ...]
  max_length: int
  max_chars: int | None
  characters: tuple[str, ...]
  truncation: Mapping[str, Truncation]
  notes: tuple[str, ...]

  @property
  def vocab_size(self) -> int:
    """Rows of a word table for this corpus."""
    return len(self.vocabulary)

  @property
  def num_train(self) -> int:
    """Records in the training split."""
    return len(self.train["intent"])

  def split(self, name: str) -> dict[str, np.ndarray]:
    """Returns the arrays of a split by its name."""
    if name not in SPLITS:
      raise ValueError(f"split is {name!r}; it must be one of {list(SPLITS)}")
    return getattr(self, name)

  def fingerprint(self) -> str:
    """Returns a hash of everything a model can see of this corpus.

    Two runs with equal fingerprints had the same records in the same order,
    encoded in the same way.
    """
    digest = hashlib.sha256()
    for names in (self.vocabulary.tokens, self.intents, self.slot_labels):
      digest.update("\0".join(names).encode() + b"\1")
    for split in SPLITS:
      for key, array in sorted(self.split(split).items()):
        digest.update(f"{split}/{key}{array.shape}{array.dtype}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def prepare(
  corpus: NluCorpus,
  *,
  tokenizer: str | Tokenizer = "word",
  vocabulary_file: str | os.PathLike[str] | None = None,
  min_count: int = 1,
  max_size: int | None = None,
  lowercase: bool = True,
  max_length: int | None = None,
  max_chars: int | None = None,
) -> PreparedCorpus:
  """Builds the vocabulary and encodes all three splits.

  Guarantee:
    None is needed for a public vocabulary file and a given max_length. Built
    from the training data, the vocabulary, the label inventories and the
    default max_length are facts about that data which no accountant of the
    training run covers; the notes of the result say so.

  Args:
    corpus: The corpus.
    tokenizer: "word", "wordpiece", or a ready vocabulary or tokenizer.
    vocabulary_file: A public vocabulary: one word a line for "word"; a BERT
      vocab.txt, required, for "wordpiece".
    min_count: For a vocabulary built here: rarer words are unknown.
    max_size: For a vocabulary built here: its size, specials included.
    lowercase: Whether words are lower-cased.
    max_length: Positions of an encoded utterance; None takes what the
      longest training utterance needs.
    max_chars: Characters kept of each word; None encodes no characters.

  Returns:
    The arrays and what is needed to read them.

  Raises:
    ValueError: If the options contradict each other.
    FileNotFoundError: If the vocabulary file does not exist.

  Example:
    >>> data = prepare(load_corpus("synthetic"), min_count=2)
    >>> lot = gather(data.train, np.arange(32))
    >>> lot["tokens"].shape == (32, data.max_length)
    True
  """
  vocabulary = _choose_tokenizer(
    corpus, tokenizer, vocabulary_file, min_count, max_size, lowercase
  )
  notes = [*corpus.notes, vocabulary.guarantee_note]
  if max_length is None:
    max_length = max(encoded_length(u, vocabulary) for u in corpus.train)
    notes.append(
      f"max_length {max_length} is the length of the longest training "
      "utterance; like the label inventories it is a fact about the training "
      "data outside the guarantee."
    )
  arrays, truncation = {}, {}
  for split in SPLITS:
    utterances = corpus.splits[split]
    arrays[split] = encode_split(
      utterances,
      vocabulary,
      corpus.intents,
      corpus.slot_labels,
      max_length=max_length,
      max_chars=max_chars,
    )
    truncation[split] = cut = count_truncation(
      utterances, vocabulary, max_length=max_length, max_chars=max_chars
    )
    if cut.utterances:
      notes.append(
        f"{split}: {cut.utterances} of {len(utterances)} utterances are "
        f"longer than max_length {max_length} and lost {cut.words} words; "
        "slots of lost words are not scored."
      )
    if cut.long_words:
      notes.append(
        f"{split}: {cut.long_words} words are longer than max_chars "
        f"{max_chars} and lost their last characters."
      )
  return PreparedCorpus(
    name=corpus.name,
    **arrays,
    vocabulary=vocabulary,
    intents=corpus.intents,
    slot_labels=corpus.slot_labels,
    max_length=max_length,
    max_chars=max_chars,
    characters=CHARACTERS if max_chars is not None else (),
    truncation=truncation,
    notes=tuple(notes),
  )


def _choose_tokenizer(
  corpus: NluCorpus,
  tokenizer: str | Tokenizer,
  vocabulary_file: str | os.PathLike[str] | None,
  min_count: int,
  max_size: int | None,
  lowercase: bool,
) -> Tokenizer:
  """Builds or reads the tokenizer, refusing options that have no effect."""
  built_here = tokenizer == "word" and vocabulary_file is None
  if not built_here and (min_count != 1 or max_size is not None):
    raise ValueError(
      f"min_count={min_count} and max_size={max_size} only apply to a "
      "vocabulary built from training data, not to a given one"
    )
  if not isinstance(tokenizer, str):
    if vocabulary_file is not None:
      raise ValueError("give a tokenizer or a vocabulary_file, not both")
    return tokenizer
  if tokenizer == "word":
    if vocabulary_file is not None:
      return load_vocabulary(vocabulary_file, lowercase=lowercase)
    return build_vocabulary(
      corpus.train,
      min_count=min_count,
      max_size=max_size,
      lowercase=lowercase,
    )
  if tokenizer == "wordpiece":
    if vocabulary_file is None:
      raise ValueError(
        "tokenizer 'wordpiece' needs vocabulary_file, the vocab.txt that "
        "comes with a BERT checkpoint"
      )
    return load_wordpiece(vocabulary_file, lowercase=lowercase)
  raise ValueError(
    f"tokenizer is {tokenizer!r}; it must be 'word', 'wordpiece' or a ready "
    "vocabulary"
  )
