"""SNIPS as its authors publish it: two JSON files per intent.

Layout: <Intent>/train_<Intent>_full.json and <Intent>/validate_<Intent>.json
(the folder 2017-06-custom-intent-engines of the authors' repository), each
{"<Intent>": [{"data": [{"text": ...}, {"text": ..., "entity": ...}]}]}.
"""

import json
import pathlib
from typing import Any

from trustjax.data._corpus import Utterance
from trustjax.data._readers._text import Reading, carve_validation, tag_spans


def read_snips_json(
  folder: pathlib.Path, *, validation_share: float = 0.1
) -> Reading:
  """Reads the authors' JSON files.

  The authors' validation files are what later work calls the test split; a
  validation split is set aside from their training files. Words are
  lower-cased, as in the split that most papers use.

  Args:
    folder: The folder that holds one folder per intent.
    validation_share: Share of the training part that is set aside.

  Returns:
    The three splits.

  Raises:
    FileNotFoundError: If an intent has one of its two files only.
    ValueError: If a file is malformed.
  """
  train: list[Utterance] = []
  test: list[Utterance] = []
  for full in sorted(folder.glob("*/train_*_full.json")):
    intent = full.parent.name
    train += _read_intent(full, intent)
    test += _read_intent(full.parent / f"validate_{intent}.json", intent)
  kept, held, note = carve_validation(train, validation_share)
  return Reading(
    splits={"train": kept, "validation": held, "test": test},
    notes=("words were lower-cased", note),
  )


def _load(path: pathlib.Path) -> Any:
  if not path.is_file():
    raise FileNotFoundError(f"missing file {path}")
  data = path.read_bytes()
  if not data.strip():
    raise ValueError(f"{path}: the file is empty")
  try:
    text = data.decode("utf-8")
  except UnicodeDecodeError:
    # Some of the published files are Latin-1.
    text = data.decode("latin-1")
  try:
    return json.loads(text)
  except json.JSONDecodeError as error:
    raise ValueError(
      f"{path}:{error.lineno}: malformed JSON ({error.msg})"
    ) from None


def _read_intent(path: pathlib.Path, intent: str) -> list[Utterance]:
  content = _load(path)
  if not isinstance(content, dict) or not isinstance(content.get(intent), list):
    raise ValueError(f"{path}: expected an object with a list under {intent!r}")
  utterances = []
  for number, entry in enumerate(content[intent], start=1):
    text, entities = "", []
    try:
      for piece in entry["data"]:
        start = len(text)
        text += piece["text"]
        if "entity" in piece:
          entities.append((start, len(text), piece["entity"]))
      words, slots = tag_spans(text, entities)
      tokens = tuple(word.lower() for word in words)
      utterances.append(Utterance(tokens=tokens, slots=slots, intent=intent))
    except (KeyError, TypeError) as error:
      raise ValueError(
        f"{path}: utterance {number} is malformed ({error!r}); expected "
        '{"data": [{"text": ..., "entity": ...}]}'
      ) from None
    except ValueError as error:
      raise ValueError(f"{path}: utterance {number}: {error}") from None
  return utterances
