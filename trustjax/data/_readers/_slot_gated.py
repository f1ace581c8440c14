"""SNIPS and ATIS as three parallel text files per split.

Layout: {train,valid,test}/{seq.in,seq.out,label}. One utterance a line:
seq.in has its words, seq.out one BIO tag per word, label the intent.
"""

import pathlib

from trustjax.data._corpus import Utterance
from trustjax.data._readers._text import Reading, at_line, read_lines

_FOLDERS = {
  "train": ("train",),
  "validation": ("valid", "dev", "validation"),
  "test": ("test",),
}


def read_slot_gated(folder: pathlib.Path) -> Reading:
  """Reads a folder in the SlotGated layout.

  Args:
    folder: The folder that holds train, valid (or dev) and test.

  Returns:
    The three splits.

  Raises:
    FileNotFoundError: If one of the nine files is missing.
    ValueError: If a file is empty, the files of a split differ in their
      number of lines, or a line has another number of tags than of tokens.
  """
  splits = {}
  for split, names in _FOLDERS.items():
    found = [folder / name for name in names if (folder / name).is_dir()]
    splits[split] = _read_split(found[0] if found else folder / names[0])
  return Reading(splits=splits)


def _read_split(folder: pathlib.Path) -> list[Utterance]:
  words_file = folder / "seq.in"
  tags_file = folder / "seq.out"
  label_file = folder / "label"
  words = read_lines(words_file)
  for path in (tags_file, label_file):
    count = len(read_lines(path))
    if count != len(words):
      raise ValueError(
        f"{path}: {count} lines but {words_file} has {len(words)}; line k of "
        "each file must be about the same utterance"
      )
  tags, labels = read_lines(tags_file), read_lines(label_file)
  utterances = []
  for line, (text, tag_text, label) in enumerate(
    zip(words, tags, labels, strict=True), start=1
  ):
    if not label.strip():
      raise ValueError(f"{label_file}:{line}: the label is empty")
    utterances.append(
      at_line(
        tags_file,
        line,
        tokens=tuple(text.split()),
        slots=tuple(tag_text.split()),
        intent=label.strip(),
      )
    )
  return utterances
