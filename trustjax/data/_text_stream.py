"""A stream of texts, and its tokens packed into sequences of one length."""

import itertools
import os
import pathlib
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from trustjax.data import _byte_pair

# What separates two texts of a file.
SEPARATORS = {
  "blank_line": "",
  "end_of_text": _byte_pair.END_OF_TEXT,
}


def read_texts(
  paths: Sequence[str | os.PathLike[str]],
  *,
  separator: str = "blank_line",
  min_chars: int = 1,
) -> Iterator[str]:
  """Reads texts one by one; no file is in memory as a whole.

  Args:
    paths: UTF-8 files, in this order.
    separator: "blank_line" (books, articles) or "end_of_text" (a line
      "<|endoftext|>", as in TinyStories).
    min_chars: Shorter texts, such as headings, are left out.

  Yields:
    Texts, their lines joined by single spaces.

  Raises:
    FileNotFoundError: A file is missing.
    ValueError: The separator is unknown, a file is not UTF-8, or no file holds
      a text.
  """
  if separator not in SEPARATORS:
    raise ValueError(
      f"separator: got {separator!r}; allowed are {list(SEPARATORS)}"
    )
  mark, found = SEPARATORS[separator], False
  for path in map(pathlib.Path, paths):
    lines: list[str] = []
    try:
      with path.open(encoding="utf-8") as file:
        for line in itertools.chain(file, (mark,)):
          line = line.strip()
          if line != mark:
            lines.append(line)
            continue
          text = " ".join(part for part in lines if part)
          lines = []
          if len(text) >= min_chars and text:
            found = True
            yield text
    except UnicodeDecodeError as error:
      raise ValueError(f"{path}: not UTF-8 text: {error}") from error
  if not found:
    raise ValueError(
      f"paths: no text of at least {min_chars} characters in"
      f" {[str(path) for path in paths]}"
    )


def pack_texts(
  texts: Iterable[Sequence[int]],
  *,
  length: int,
  end_of_text: int,
  keep_rest: bool = True,
) -> dict[str, np.ndarray]:
  """Packs texts into sequences: the records of a language model.

  Texts follow one another, each behind an end of text, and the stream is cut
  into sequences of one length, as GPT-2 was trained: a sequence may hold
  several texts, and a text may span several sequences. What privacy protects
  is a sequence, then, and not a text or its author; `pad_texts` makes the text
  the unit.

  Args:
    texts: Tokens of each text.
    length: Tokens of a sequence.
    end_of_text: Token in front of every text.
    keep_rest: Keep the last sequence, which is padded; else it is dropped.

  Returns:
    tokens int32[sequences, length] and mask bool[sequences, length].

  Raises:
    ValueError: The length is below 2, or there is not a single sequence.
  """
  if length < 2:
    raise ValueError(f"length: got {length}; it must be at least 2")
  rows: list[list[int]] = []
  row: list[int] = []
  for text in texts:
    stream, at = (end_of_text, *text), 0
    while at < len(stream):
      taken = stream[at : at + length - len(row)]
      row.extend(taken)
      at += len(taken)
      if len(row) == length:
        rows.append(row)
        row = []
  if keep_rest and len(row) > 1:
    rows.append(row)
  if not rows:
    raise ValueError(f"texts: fewer tokens than one sequence of {length} holds")
  return _arrays(rows, length)


def pad_texts(
  texts: Iterable[Sequence[int]], *, length: int, end_of_text: int
) -> dict[str, np.ndarray]:
  """One text a sequence, so that a text is what privacy protects.

  Args:
    texts: Tokens of each text.
    length: Tokens of a sequence; longer texts are cut.
    end_of_text: Token in front of every text and, where it fits, behind it.

  Returns:
    As `pack_texts`.

  Raises:
    ValueError: The length is below 2, or there is no text.
  """
  if length < 2:
    raise ValueError(f"length: got {length}; it must be at least 2")
  rows = [[end_of_text, *text, end_of_text][:length] for text in texts]
  if not rows:
    raise ValueError("texts: there are none")
  return _arrays(rows, length)


def _arrays(rows, length):
  tokens = np.zeros((len(rows), length), np.int32)
  mask = np.zeros((len(rows), length), bool)
  for i, row in enumerate(rows):
    tokens[i, : len(row)] = row
    mask[i, : len(row)] = True
  return {"tokens": tokens, "mask": mask}


def split_texts(
  texts: Sequence[str], *, held_out: float, seed: int
) -> tuple[list[str], list[str]]:
  """Sets texts aside; copies of one text stay on one side.

  Args:
    texts: All texts.
    held_out: Share of the different texts to set aside.
    seed: Seed of the choice.

  Returns:
    (texts to train on, held-out texts), both in the given order.

  Raises:
    ValueError: The share is not in (0, 1), or one side is empty.
  """
  if not 0 < held_out < 1:
    raise ValueError(f"held_out: got {held_out}; it must lie in (0, 1)")
  different = list(dict.fromkeys(texts))
  count = round(held_out * len(different))
  if not 0 < count < len(different):
    raise ValueError(
      f"held_out: got {held_out} of {len(different)} different texts, which"
      " leaves one side empty"
    )
  rng = np.random.default_rng([seed, 0x5E7])
  aside = {different[i] for i in rng.permutation(len(different))[:count]}
  return (
    [text for text in texts if text not in aside],
    [text for text in texts if text in aside],
  )
