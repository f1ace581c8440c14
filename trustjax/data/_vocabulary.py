"""Word vocabularies: which words a model knows, and where that came from."""

import collections
import dataclasses
import functools
import os
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Int

from trustjax.data._corpus import Utterance

PAD, UNKNOWN = "<pad>", "<unk>"

_FROM_TRAINING = "training data"
_FROM_FILE = "public file"
_NOTES = {
  _FROM_TRAINING: (
    "The vocabulary was built from the training data without noise. Which "
    "words it holds, and how large it is, is outside the differential "
    "privacy guarantee: the guarantee covers the trained parameters given "
    "the vocabulary. Use a public vocabulary file to close this gap."
  ),
  _FROM_FILE: (
    "The vocabulary was read from a public file and does not depend on the "
    "training data."
  ),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Vocabulary:
  """A list of words; the id of a word is its place in the list.

  Attributes:
    tokens: The words. The first is the padding token (id 0), the second
      stands for every word that is not listed (id 1).
    source: "training data" or "public file".
    lowercase: Whether words are lower-cased before they are looked up.

  Raises:
    ValueError: If the specials are not in place, a word is listed twice, or
      the source is unknown.
  """

  tokens: tuple[str, ...]
  source: str
  lowercase: bool = True

  def __post_init__(self):
    if self.tokens[:2] != (PAD, UNKNOWN):
      raise ValueError(
        f"a vocabulary starts with {PAD!r}, {UNKNOWN!r}; this one starts "
        f"with {list(self.tokens[:2])}"
      )
    if len(set(self.tokens)) != len(self.tokens):
      counts = collections.Counter(self.tokens)
      twice = next(word for word, count in counts.items() if count > 1)
      raise ValueError(f"the vocabulary lists {twice!r} more than once")
    if self.source not in _NOTES:
      raise ValueError(
        f"source is {self.source!r}; it must be one of {list(_NOTES)}"
      )

  @property
  def pad(self) -> int:
    """The id of the padding token."""
    return 0

  @property
  def unk(self) -> int:
    """The id of the unknown word."""
    return 1

  @property
  def guarantee_note(self) -> str:
    """What the choice of the vocabulary means for a privacy guarantee."""
    return _NOTES[self.source]

  @functools.cached_property
  def _ids(self) -> Mapping[str, int]:
    return {word: i for i, word in enumerate(self.tokens)}

  def __len__(self) -> int:
    return len(self.tokens)

  def encode(self, words: Sequence[str]) -> list[int]:
    """Returns the id of each word; the id of a word not listed is 1."""
    ids = self._ids
    if self.lowercase:
      words = [word.lower() for word in words]
    return [ids.get(word, 1) for word in words]

  def decode(self, ids: Sequence[int] | Int[np.ndarray, " ids"]) -> list[str]:
    """Returns the word of each id."""
    return [self.tokens[int(i)] for i in ids]


def build_vocabulary(
  utterances: Sequence[Utterance],
  *,
  min_count: int = 1,
  max_size: int | None = None,
  lowercase: bool = True,
) -> Vocabulary:
  """Lists the words of the training utterances, the commonest first.

  Ties are broken alphabetically, so the same utterances in any order give
  the same vocabulary.

  Guarantee:
    None. The list is a function of the training data, computed without
    noise; see `Vocabulary.guarantee_note`.

  Args:
    utterances: Training utterances. Never pass evaluation data.
    min_count: Words seen less often are left out. With 1 no training word
      is unknown, so the vector of the unknown word is never trained.
    max_size: Upper bound on the size, the two special tokens included.
    lowercase: Whether words are lower-cased.

  Returns:
    The vocabulary.

  Raises:
    ValueError: If min_count is below 1 or max_size below 2.
  """
  if min_count < 1:
    raise ValueError(f"min_count is {min_count}; it must be at least 1")
  if max_size is not None and max_size < 2:
    raise ValueError(
      f"max_size is {max_size}; it must be at least 2, the special tokens"
    )
  counts = collections.Counter(
    word.lower() if lowercase else word
    for utterance in utterances
    for word in utterance.tokens
  )
  del counts[PAD], counts[UNKNOWN]
  words = sorted(
    (word for word, count in counts.items() if count >= min_count),
    key=lambda word: (-counts[word], word),
  )
  if max_size is not None:
    words = words[: max_size - 2]
  return Vocabulary(
    tokens=(PAD, UNKNOWN, *words), source=_FROM_TRAINING, lowercase=lowercase
  )


def load_vocabulary(
  path: str | os.PathLike[str], *, lowercase: bool = True
) -> Vocabulary:
  """Reads a public vocabulary, one word a line.

  The special tokens are put in front; lines that repeat them, or a word that
  was listed before (after lower-casing), are skipped.

  Args:
    path: The file. It must not have been made from the training data, which
      cannot be checked here.
    lowercase: Whether words are lower-cased.

  Returns:
    The vocabulary.

  Raises:
    FileNotFoundError: If the file does not exist.
    ValueError: If the file holds no word, or a line holds more than one.
  """
  path = pathlib.Path(path)
  if not path.is_file():
    raise FileNotFoundError(
      f"vocabulary file {path} does not exist; give a text file with one "
      "word a line"
    )
  words: dict[str, None] = {PAD: None, UNKNOWN: None}
  with path.open(encoding="utf-8") as lines:
    for number, line in enumerate(lines, start=1):
      parts = line.split()
      if len(parts) > 1:
        raise ValueError(
          f"{path}:{number}: {len(parts)} words on one line; a vocabulary "
          "file has one word a line"
        )
      for word in parts:
        words.setdefault(word.lower() if lowercase else word)
  if len(words) == 2:
    raise ValueError(f"vocabulary file {path} is empty")
  return Vocabulary(tokens=tuple(words), source=_FROM_FILE, lowercase=lowercase)
