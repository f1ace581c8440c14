"""Bias in Bios: biographies with an occupation and a gender."""

import dataclasses
import json
import pathlib
import pickle
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

# The 28 occupations of the published set. Its copy in Parquet numbers them in
# this order.
BIOGRAPHY_OCCUPATIONS = (
  "accountant",
  "architect",
  "attorney",
  "chiropractor",
  "comedian",
  "composer",
  "dentist",
  "dietitian",
  "dj",
  "filmmaker",
  "interior_designer",
  "journalist",
  "model",
  "nurse",
  "painter",
  "paralegal",
  "pastor",
  "personal_trainer",
  "photographer",
  "physician",
  "poet",
  "professor",
  "psychologist",
  "rapper",
  "software_engineer",
  "surgeon",
  "teacher",
  "yoga_teacher",
)
_FEMALE = ("f", "female", "1")
_MALE = ("m", "male", "0")
# Of a file without splits: the paper trains on 65 % and tests on 25 %.
_TRAIN, _TEST = 0.65, 0.25
_SPLIT = 0xB105


@dataclasses.dataclass(frozen=True, kw_only=True)
class Biography:
  """One biography, without the sentence that names the occupation.

  Attributes:
    text: What an occupation is predicted from.
    occupation: Its name.
    female: Whether its pronouns are female; else they are male.
  """

  text: str
  occupation: str
  female: bool


def read_bias_in_bios(
  path: pathlib.Path, *, seed: int = 0
) -> dict[str, tuple[Biography, ...]]:
  """Reads Bias in Bios in the layouts in which it is published.

  Microsoft's scripts leave a pickled list of dicts (title, gender, raw,
  start_pos), which is read without running any code that a pickle may hold.
  The copy in Parquet has a file for each split (hard_text, profession,
  gender: 0 is male), and may have been exported as JSON lines.

  Args:
    path: BIOS.pkl, or any single .parquet or .jsonl file, which is split here
      (65 % to train on, 25 % to test); or a folder with files whose names
      begin with "train" and "test".
    seed: Seed of that split.

  Returns:
    "train" and "test".

  Raises:
    FileNotFoundError: The path, or a split of a folder, is missing.
    ValueError: A file has another layout.
    ImportError: A .parquet file without the package pyarrow.

  References:
    De-Arteaga et al., Bias in Bios, FAT* 2019, arXiv 1901.09451.
  """
  path = pathlib.Path(path)
  if path.is_dir():
    return {split: _of_folder(path, split) for split in ("train", "test")}
  if not path.is_file():
    raise FileNotFoundError(
      f"Bias in Bios: there is no {path}. Its texts cannot be downloaded from"
      " their authors: rebuild BIOS.pkl with the scripts of microsoft/biosbias,"
      " or take the Parquet files of the data set LabHC/bias_in_bios"
    )
  found = _read(path)
  order = np.random.default_rng([seed, _SPLIT]).permutation(len(found))
  train = round(_TRAIN * len(found))
  test = round(_TEST * len(found))
  return {
    "train": tuple(found[i] for i in order[:train]),
    "test": tuple(found[i] for i in order[len(found) - test :]),
  }


def _of_folder(folder, split):
  files = sorted(
    file
    for file in folder.glob(f"{split}*")
    if file.suffix in (".pkl", ".pickle", ".parquet", ".jsonl")
  )
  if not files:
    raise FileNotFoundError(
      f"Bias in Bios: {folder} has no file {split}*.parquet, {split}*.jsonl or"
      f" {split}*.pkl"
    )
  return tuple(one for file in files for one in _read(file))


def _read(path):
  if path.suffix == ".jsonl":
    lines = path.read_text(encoding="utf-8").splitlines()
    records: Iterable[Any] = [json.loads(line) for line in lines if line]
  elif path.suffix == ".parquet":
    records = _parquet(path)
  elif path.suffix in (".pkl", ".pickle"):
    with path.open("rb") as file:
      records = _PlainUnpickler(file).load()
  else:
    raise ValueError(
      f"Bias in Bios: got {path.name}; allowed are .pkl, .parquet and .jsonl"
    )
  return [_biography(path, i, record) for i, record in enumerate(records)]


def _parquet(path):
  try:
    from pyarrow import parquet  # pyright: ignore[reportMissingImports]
  except ImportError as error:
    raise ImportError(
      f"Bias in Bios: {path.name} needs the package pyarrow; install it, or"
      " export the set as JSON lines"
    ) from error
  return parquet.read_table(path).to_pylist()


class _PlainUnpickler(pickle.Unpickler):
  """Reads lists, dicts, texts and numbers; refuses everything that runs."""

  def find_class(self, module, name):
    raise ValueError(
      f"Bias in Bios: the pickle asks for {module}.{name}; only lists of plain"
      " dicts are read"
    )


def _biography(path, number, record):
  if not isinstance(record, Mapping):
    raise ValueError(
      f"{path.name}, record {number}: got {type(record).__name__}; a dict is"
      " needed"
    )
  if {"raw", "start_pos", "title", "gender"} <= set(record):
    text = record["raw"][int(record["start_pos"]) :]
    occupation = record["title"]
  elif {"hard_text", "profession", "gender"} <= set(record):
    text, occupation = record["hard_text"], record["profession"]
  else:
    raise ValueError(
      f"{path.name}, record {number}: has the fields {sorted(record)}; needed"
      " are raw, start_pos, title and gender, or hard_text, profession and"
      " gender"
    )
  if isinstance(occupation, int):
    if not 0 <= occupation < len(BIOGRAPHY_OCCUPATIONS):
      raise ValueError(
        f"{path.name}, record {number}: profession {occupation} is not in 0 to"
        f" {len(BIOGRAPHY_OCCUPATIONS) - 1}"
      )
    occupation = BIOGRAPHY_OCCUPATIONS[occupation]
  gender = str(record["gender"]).lower()
  if gender not in (*_FEMALE, *_MALE):
    raise ValueError(
      f"{path.name}, record {number}: gender {record['gender']!r} is none of"
      f" {[*_FEMALE, *_MALE]}"
    )
  return Biography(
    text=text.strip(), occupation=occupation, female=gender in _FEMALE
  )
