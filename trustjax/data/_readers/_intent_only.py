"""CLINC150 and Banking77: intents without slots; every tag is "O"."""

import pathlib

from trustjax.data._corpus import Utterance
from trustjax.data._readers._text import (
  Reading,
  at_line,
  carve_validation,
  read_csv,
  read_json,
  split_words,
)


def read_clinc150(
  folder: pathlib.Path, *, out_of_scope: bool = False
) -> Reading:
  """Reads data_full.json: a list of [text, intent] per split.

  Args:
    folder: The folder of data_full.json. If domains.json (domain to intents)
      lies beside it, it names each utterance's domain.
    out_of_scope: Whether the oos_* splits are added to the splits, with the
      intent "oos".

  Returns:
    The three splits.

  Raises:
    FileNotFoundError: If data_full.json is missing.
    ValueError: If the JSON is malformed.
  """
  path = folder / "data_full.json"
  content = read_json(path)
  domains = _read_domains(folder / "domains.json")
  if not isinstance(content, dict):
    raise ValueError(f"{path}: expected an object of splits")
  splits = {}
  for split, key in (
    ("train", "train"),
    ("validation", "val"),
    ("test", "test"),
  ):
    keys = [key, f"oos_{key}"] if out_of_scope else [key]
    splits[split] = [
      utterance
      for key in keys
      for utterance in _read_key(path, content, key, domains)
    ]
  note = (
    "out-of-scope utterances are included as intent 'oos'"
    if out_of_scope
    else "out-of-scope utterances were left out"
  )
  return Reading(splits=splits, notes=(note,))


def _read_domains(path: pathlib.Path) -> dict[str, str]:
  if not path.is_file():
    return {}
  content = read_json(path)
  if not isinstance(content, dict):
    raise ValueError(f"{path}: expected an object from domain to intents")
  return {i: domain for domain, intents in content.items() for i in intents}


def _read_key(
  path: pathlib.Path, content: dict, key: str, domains: dict[str, str]
) -> list[Utterance]:
  if not isinstance(content.get(key), list):
    raise ValueError(
      f"{path}: no list under {key!r}; the file has {sorted(content)}"
    )
  utterances = []
  for number, row in enumerate(content[key], start=1):
    well_formed = (
      isinstance(row, list)
      and len(row) == 2
      and all(isinstance(field, str) for field in row)
    )
    if not well_formed:
      raise ValueError(
        f"{path}: entry {number} of {key!r} is malformed: {row!r}; expected "
        "[text, intent]"
      )
    text, intent = row
    words = split_words(text)
    if not words or not intent:
      raise ValueError(
        f"{path}: entry {number} of {key!r} has no text or no intent: {row!r}"
      )
    utterances.append(
      Utterance(
        tokens=words,
        slots=("O",) * len(words),
        intent=intent,
        domain=domains.get(intent),
      )
    )
  return utterances


def read_banking77(
  folder: pathlib.Path, *, validation_share: float = 0.1
) -> Reading:
  """Reads train.csv and test.csv with the columns text and category.

  Args:
    folder: The folder of the two files.
    validation_share: Share of the training part that is set aside.

  Returns:
    The three splits.

  Raises:
    FileNotFoundError: If a file is missing.
    ValueError: If a row is malformed.
  """
  parts = {}
  for split in ("train", "test"):
    path = folder / f"{split}.csv"
    parts[split] = []
    for line, row in read_csv(path, ("text", "category")):
      words = split_words(row["text"])
      parts[split].append(
        at_line(
          path,
          line,
          tokens=words,
          slots=("O",) * len(words),
          intent=row["category"].strip(),
        )
      )
  train, validation, note = carve_validation(parts["train"], validation_share)
  return Reading(
    splits={"train": train, "validation": validation, "test": parts["test"]},
    notes=(note,),
  )
