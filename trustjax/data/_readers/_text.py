"""What the readers share: lines, rows, words, and carving a split."""

import csv
import dataclasses
import hashlib
import json
import pathlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from trustjax.data._corpus import Utterance


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reading:
  """What a reader made of a folder.

  Attributes:
    splits: The utterances of "train", "validation" and "test".
    notes: What was carved, left out or renamed.
  """

  splits: Mapping[str, Sequence[Utterance]]
  notes: tuple[str, ...] = ()


def read_text(path: pathlib.Path) -> str:
  """Reads a UTF-8 file that must exist and hold something."""
  if not path.is_file():
    raise FileNotFoundError(f"missing file {path}")
  try:
    text = path.read_text(encoding="utf-8")
  except UnicodeDecodeError as error:
    raise ValueError(f"{path}: not UTF-8 text ({error})") from None
  if not text.strip():
    raise ValueError(f"{path}: the file is empty")
  return text


def read_lines(path: pathlib.Path) -> list[str]:
  """Reads the lines of a file; only newlines separate lines."""
  # str.splitlines would also split at characters such as U+0085, and then
  # lines of parallel files no longer correspond.
  lines = read_text(path).split("\n")
  if not lines[-1]:
    lines.pop()
  return [line.removesuffix("\r") for line in lines]


def read_json(path: pathlib.Path) -> Any:
  """Reads a JSON file; an error names the line."""
  text = read_text(path)
  try:
    return json.loads(text)
  except json.JSONDecodeError as error:
    raise ValueError(
      f"{path}:{error.lineno}: malformed JSON ({error.msg})"
    ) from None


def read_csv(
  path: pathlib.Path, columns: Sequence[str], delimiter: str = ","
) -> Iterator[tuple[int, dict[str, str]]]:
  """Reads the rows of a CSV file with a header.

  Args:
    path: The file.
    columns: Columns that the header must name.
    delimiter: The separator.

  Yields:
    The line on which a row ends, counted from 1, and the row by column.

  Raises:
    ValueError: If a column is missing, or a row has another number of
      fields than the header.
  """
  text = read_text(path)
  rows = csv.reader(
    text.splitlines(keepends=True), delimiter=delimiter, strict=True
  )
  try:
    header = [name.strip().lstrip("\ufeff") for name in next(rows)]
    missing = [name for name in columns if name not in header]
    if missing:
      raise ValueError(
        f"{path}:1: the header {header} lacks the columns {missing}"
      )
    for row in rows:
      if not row:
        continue
      if len(row) != len(header):
        raise ValueError(
          f"{path}:{rows.line_num}: malformed CSV row, {len(row)} fields "
          f"but {len(header)} columns"
        )
      yield rows.line_num, dict(zip(header, row))
  except csv.Error as error:
    raise ValueError(
      f"{path}:{rows.line_num}: malformed CSV row ({error})"
    ) from None


# A run of letters and digits, which may hold single inner apostrophes, dots,
# hyphens and the like (o'clock, p.m, wi-fi, 7:30), or any other one character.
_WORD = re.compile(r"\w+(?:['’.\-:@/&]\w+)*|[^\w\s]")


def split_words(text: str) -> tuple[str, ...]:
  """Splits raw text into words; drops nothing but white space."""
  return tuple(_WORD.findall(text))


def tag_spans(
  text: str, entities: Sequence[tuple[int, int, str]]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
  """Splits text into words and marks entity spans with BIO tags.

  Words are cut at the borders of entities, so no entity is lost because a
  comma or an apostrophe follows it without a space.

  Args:
    text: The text.
    entities: (start, end, type) in characters, end exclusive.

  Returns:
    The words and one tag per word.

  Raises:
    ValueError: If a span leaves the text, is empty, or overlaps another.
  """
  # Cut at every border, then split the pieces into words.
  pieces: list[tuple[str, str | None]] = []
  at = 0
  for start, end, slot in sorted(entities):
    if start < at or end <= start or end > len(text):
      raise ValueError(
        f"entity {slot!r} spans [{start}, {end}), which overlaps another or "
        f"leaves the text of {len(text)} characters"
      )
    pieces += [(text[at:start], None), (text[start:end], slot)]
    at = end
  pieces.append((text[at:], None))

  words: list[str] = []
  tags: list[str] = []
  for piece, slot in pieces:
    new = split_words(piece)
    words += new
    if slot is None:
      tags += ["O"] * len(new)
    elif not new:
      raise ValueError(f"entity {slot!r} marks no word in {text!r}")
    else:
      tags += [f"B-{slot}"] + [f"I-{slot}"] * (len(new) - 1)
  return tuple(words), tuple(tags)


def at_line(path: pathlib.Path, line: int, **fields: Any) -> Utterance:
  """Builds an utterance; an error names file and line."""
  try:
    return Utterance(**fields)
  except ValueError as error:
    raise ValueError(f"{path}:{line}: {error}") from None


def text_fraction(text: str, purpose: str) -> float:
  """Maps a text to a number in [0, 1) that depends on nothing else."""
  digest = hashlib.sha256(f"{purpose}\0{text}".encode()).digest()
  return int.from_bytes(digest[:8], "big") / 2.0**64


def carve_validation(
  train: Sequence[Utterance], share: float
) -> tuple[list[Utterance], list[Utterance], str]:
  """Splits a validation part off the training records.

  A record goes where the hash of its text says. Neither the order of the
  file nor a seed matters, and equal texts stay together, so no validation
  text is a training text.

  Args:
    train: The records.
    share: Expected share of the validation part, in (0, 1).

  Returns:
    The remaining training records, the validation records, and a note.

  Raises:
    ValueError: If the share is out of range or a part would be empty.
  """
  if not 0 < share < 1:
    raise ValueError(f"validation_share is {share}; it must be in (0, 1)")
  parts: tuple[list[Utterance], list[Utterance]] = ([], [])
  for utterance in train:
    held_out = text_fraction(utterance.text.lower(), "validation") < share
    parts[held_out].append(utterance)
  kept, held = parts
  if not kept or not held:
    raise ValueError(
      f"validation_share {share} leaves {len(kept)} training and "
      f"{len(held)} validation utterances; both must have some"
    )
  note = (
    f"no validation split in the source: {len(held)} of {len(train)} "
    "training utterances were set aside by the hash of their text"
  )
  return kept, held, note
