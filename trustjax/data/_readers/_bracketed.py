"""NLU-Evaluation (HWU64): entities in brackets or as character spans.

Three layouts:
  the annotated CSV of all utterances (25,716 rows, separated by semicolons),
  one cross-validation fold, KFold_k/{trainset,testset/csv}/*.csv,
  train.jsonl and test.jsonl, one object a line, with character spans.

An annotation marks an entity as "[date : today]". An intent is named
<scenario>_<intent>, because the bare names repeat across scenarios.
"""

import json
import pathlib
import re
from typing import Any

from trustjax.data._corpus import Utterance
from trustjax.data._readers._text import (
  Reading,
  at_line,
  carve_validation,
  read_csv,
  read_lines,
  tag_spans,
  text_fraction,
)

CSV_NAME = "NLU-Data-Home-Domain-Annotated-All.csv"
_ENTITY = re.compile(r"\[\s*([^\[\]:]+?)\s*:\s*([^\[\]]*?)\s*\]")


def parse_brackets(
  annotation: str,
) -> tuple[str, list[tuple[int, int, str]]]:
  """Splits an annotation into its text and its entities.

  Args:
    annotation: For example "wake me at [time : seven am] [date : today]".

  Returns:
    The text without annotation, and (start, end, type) for each entity.

  Raises:
    ValueError: If a bracket is not closed, nested, or not "[type : value]".
  """
  text, entities, at = "", [], 0
  for match in _ENTITY.finditer(annotation):
    text += annotation[at : match.start()]
    slot = "_".join(match[1].split())
    entities.append((len(text), len(text) + len(match[2]), slot))
    text += match[2]
    at = match.end()
  text += annotation[at:]
  if "[" in text or "]" in text or any(s == e for s, e, _ in entities):
    raise ValueError(
      f"malformed bracket annotation {annotation!r}; entities are written "
      "[type : value]"
    )
  return text, entities


def _annotated(
  path: pathlib.Path, line: int, annotation: str, **fields: Any
) -> Utterance:
  try:
    tokens, slots = tag_spans(*parse_brackets(annotation))
  except ValueError as error:
    raise ValueError(f"{path}:{line}: {error}") from None
  return at_line(path, line, tokens=tokens, slots=slots, **fields)


def _intent(row: dict[str, str]) -> dict[str, str]:
  return {
    "intent": f"{row['scenario']}_{row['intent']}",
    "domain": row["scenario"],
  }


def read_nlu_evaluation_csv(
  folder: pathlib.Path,
  *,
  validation_share: float = 0.1,
  test_share: float = 0.1,
  skip_malformed: bool = False,
) -> Reading:
  """Reads the annotated CSV of all utterances, which names the speakers.

  Rows whose status begins with IRR (irrelevant to the question asked) and
  rows without an annotation are left out. The source has no splits: a row
  goes where the hash of its text says, so no test text is trained on.

  Args:
    folder: The folder of the CSV file, or its parent.
    validation_share: Share of the rows that are not tested on.
    test_share: Share of all rows.
    skip_malformed: Whether rows with a malformed annotation are left out and
      counted; by default they are an error.

  Returns:
    The three splits; `Utterance.user` is the speaker's number.
  """
  if not 0 < test_share < 1:
    raise ValueError(f"test_share is {test_share}; it must be in (0, 1)")
  path = next(
    p
    for p in (folder / CSV_NAME, folder / "AnnotatedData" / CSV_NAME)
    if p.is_file()
  )
  columns = ("userid", "scenario", "intent", "status", "answer_annotation")
  parts: tuple[list[Utterance], list[Utterance]] = ([], [])
  irrelevant = blank = malformed = 0
  for line, row in read_csv(path, columns, delimiter=";"):
    annotation = row["answer_annotation"].strip()
    if row["status"].startswith("IRR"):
      irrelevant += 1
      continue
    if annotation in ("", "null"):
      blank += 1
      continue
    try:
      utterance = _annotated(
        path, line, annotation, user=row["userid"], **_intent(row)
      )
    except ValueError:
      if not skip_malformed:
        raise
      malformed += 1
      continue
    tested = text_fraction(utterance.text.lower(), "test") < test_share
    parts[tested].append(utterance)
  train, validation, note = carve_validation(parts[0], validation_share)
  return Reading(
    splits={"train": train, "validation": validation, "test": parts[1]},
    notes=(
      f"left out: {irrelevant} rows of status IRR, {blank} without an "
      f"annotation, {malformed} malformed",
      f"{len(parts[1])} test utterances were chosen by the hash of their text",
      note,
    ),
  )


def read_nlu_evaluation_fold(
  folder: pathlib.Path, *, validation_share: float = 0.1
) -> Reading:
  """Reads one of the published cross-validation folds.

  Args:
    folder: A folder KFold_k with trainset/*.csv and testset/csv/*.csv, one
      file per intent.
    validation_share: Share of the training part that is set aside.

  Returns:
    The three splits.
  """
  parts = {}
  for split, place in (("train", "trainset"), ("test", "testset/csv")):
    files = sorted((folder / place).glob("*.csv"))
    if not files:
      raise FileNotFoundError(f"missing files {folder / place}/*.csv")
    parts[split] = [
      _annotated(path, line, row["answer_annotation"], **_intent(row))
      for path in files
      for line, row in read_csv(
        path, ("scenario", "intent", "answer_annotation"), delimiter=";"
      )
    ]
  train, validation, note = carve_validation(parts["train"], validation_share)
  return Reading(
    splits={"train": train, "validation": validation, "test": parts["test"]},
    notes=(note,),
  )


def read_nlu_evaluation_jsonl(
  folder: pathlib.Path, *, validation_share: float = 0.1
) -> Reading:
  """Reads train.jsonl and test.jsonl.

  Each line is an object with "scenario", "intent" (already prefixed with the
  scenario), "text" and "entities" ([start, end, type] in characters).

  Args:
    folder: The folder of the two files.
    validation_share: Share of the training part that is set aside.

  Returns:
    The three splits.
  """
  parts = {
    split: _read_jsonl(folder / f"{split}.jsonl") for split in ("train", "test")
  }
  train, validation, note = carve_validation(parts["train"], validation_share)
  return Reading(
    splits={"train": train, "validation": validation, "test": parts["test"]},
    notes=(note,),
  )


def _read_jsonl(path: pathlib.Path) -> list[Utterance]:
  utterances = []
  for line, text in enumerate(read_lines(path), start=1):
    try:
      row = json.loads(text)
      entities = [
        (int(start), int(end), "_".join(str(slot).split()))
        for start, end, slot in row["entities"]
      ]
      tokens, slots = tag_spans(row["text"], entities)
      fields = {"intent": row["intent"], "domain": row.get("scenario")}
    except json.JSONDecodeError as error:
      raise ValueError(f"{path}:{line}: malformed JSON ({error.msg})") from None
    except (KeyError, TypeError, AttributeError) as error:
      raise ValueError(
        f"{path}:{line}: malformed row ({error!r}); expected an object with "
        "scenario, intent, text and entities"
      ) from None
    except ValueError as error:
      raise ValueError(f"{path}:{line}: {error}") from None
    utterances.append(at_line(path, line, tokens=tokens, slots=slots, **fields))
  return utterances
