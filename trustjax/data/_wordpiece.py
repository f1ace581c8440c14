"""Wordpieces of a public BERT vocabulary, aligned with word-level slots."""

import dataclasses
import functools
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Int


@dataclasses.dataclass(frozen=True, kw_only=True)
class WordpieceTokenizer:
  """Cuts words into the pieces of a BERT vocabulary.

  A word becomes one or more pieces; the first piece of a word carries its
  slot label, the others carry none. A sequence starts with [CLS] and ends
  with [SEP], which carry no label either.

  Guarantee:
    The vocabulary is a public file, so it costs no privacy. The file must
    not have been made from the training data, which cannot be checked here.

  Attributes:
    tokens: The vocabulary, in the order of the ids.
    lowercase: Whether text is lower-cased and stripped of accents, as the
      "uncased" vocabularies expect.
  """

  tokens: tuple[str, ...]
  lowercase: bool = True

  def __post_init__(self):
    for special in ("[PAD]", "[UNK]", "[CLS]", "[SEP]"):
      if special not in self._ids:
        raise ValueError(f"the wordpiece vocabulary has no {special!r}")
    if self._ids["[PAD]"] != 0:
      raise ValueError(
        f"[PAD] has id {self._ids['[PAD]']}; masked arrays need it at id 0"
      )

  @property
  def source(self) -> str:
    """Where the vocabulary comes from."""
    return "public file"

  @property
  def guarantee_note(self) -> str:
    """What the choice of the vocabulary means for a privacy guarantee."""
    return (
      "The wordpiece vocabulary was read from a public file and does not "
      "depend on the training data."
    )

  @property
  def pad(self) -> int:
    """The id of the padding token."""
    return 0

  @property
  def unk(self) -> int:
    """The id of a word that the pieces cannot spell."""
    return self._ids["[UNK]"]

  @property
  def cls(self) -> int:
    """The id of the token at the start of a sequence."""
    return self._ids["[CLS]"]

  @property
  def sep(self) -> int:
    """The id of the token at the end of a sequence."""
    return self._ids["[SEP]"]

  @functools.cached_property
  def _ids(self) -> dict[str, int]:
    return {piece: i for i, piece in enumerate(self.tokens)}

  @functools.cached_property
  def _tokenizer(self) -> Any:
    # Imported here: only wordpieces need it.
    import tokenizers

    fast = tokenizers.Tokenizer(
      tokenizers.models.WordPiece(self._ids, unk_token="[UNK]")
    )
    fast.normalizer = tokenizers.normalizers.BertNormalizer(
      lowercase=self.lowercase
    )
    fast.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    return fast

  def __len__(self) -> int:
    return len(self.tokens)

  def encode_words(self, words: Sequence[str]) -> tuple[list[int], list[int]]:
    """Cuts words into pieces.

    Args:
      words: The words of one utterance.

    Returns:
      The ids of the pieces, without [CLS] and [SEP], and for each piece the
      index of the word that it starts, or -1 where it continues one. Every
      word starts exactly one piece: a word that leaves nothing after
      normalisation (a lone control character) becomes [UNK].
    """
    encoding = self._tokenizer.encode(
      list(words), is_pretokenized=True, add_special_tokens=False
    )
    pieces: list[list[int]] = [[] for _ in words]
    for piece, word in zip(encoding.ids, encoding.word_ids, strict=True):
      pieces[word].append(piece)
    ids, starts = [], []
    for index, of_word in enumerate(pieces):
      of_word = of_word or [self.unk]
      ids += of_word
      starts += [index] + [-1] * (len(of_word) - 1)
    return ids, starts

  def decode(self, ids: Sequence[int] | Int[np.ndarray, " ids"]) -> list[str]:
    """Returns the piece of each id."""
    return [self.tokens[int(i)] for i in ids]


def load_wordpiece(
  path: str | os.PathLike[str], *, lowercase: bool = True
) -> WordpieceTokenizer:
  """Reads a BERT vocab.txt.

  Args:
    path: The file, one piece a line, the line number (from 0) being the id.
    lowercase: True for "uncased" vocabularies.

  Returns:
    The tokenizer.

  Raises:
    FileNotFoundError: If the file does not exist.
    ValueError: If a special token is missing or the padding is not id 0.
  """
  path = pathlib.Path(path)
  if not path.is_file():
    raise FileNotFoundError(
      f"wordpiece vocabulary {path} does not exist; it is the vocab.txt that "
      "comes with a BERT checkpoint"
    )
  pieces = path.read_text(encoding="utf-8").split("\n")
  if pieces and not pieces[-1]:
    pieces.pop()
  try:
    return WordpieceTokenizer(
      tokens=tuple(piece.rstrip("\r") for piece in pieces),
      lowercase=lowercase,
    )
  except ValueError as error:
    raise ValueError(f"{path}: {error}") from None
