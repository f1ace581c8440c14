"""Plays by speaking role: characters of a role are one client's text."""

import dataclasses
import hashlib
import json
import os
import pathlib

import numpy as np

_PAD, _UNKNOWN = 0, 1
_SPECIALS = ("<pad>", "<unknown>")
_FIELDS = ("play", "role", "text")


@dataclasses.dataclass(frozen=True, kw_only=True)
class RoleCorpus:
  """Windows of characters, with the role that speaks them.

  Attributes:
    train: tokens int32 [records, length] and mask bool of the same shape.
    validation: The same.
    test: The same.
    roles: "play/ROLE" of each training record.
    plays: Play of each training record.
    characters: What a token stands for; 0 pads, 1 is unknown.
  """

  train: dict[str, np.ndarray]
  validation: dict[str, np.ndarray]
  test: dict[str, np.ndarray]
  roles: np.ndarray
  plays: np.ndarray
  characters: tuple[str, ...]

  def fingerprint(self) -> str:
    """Hash of everything that a model can see."""
    digest = hashlib.sha256("\0".join(self.characters).encode())
    for split in (self.train, self.validation, self.test):
      for name in sorted(split):
        digest.update(f"{name}{split[name].shape}".encode())
        digest.update(np.ascontiguousarray(split[name]).tobytes())
    return digest.hexdigest()


def load_plays(
  folder: str | os.PathLike[str],
  *,
  length: int = 80,
  validation_share: float = 0.1,
  test_share: float = 0.1,
) -> RoleCorpus:
  """Cuts every role's speeches into windows of characters.

  A role's speeches are joined in their order and cut without overlap; its last
  windows are held out, so that a test is about what the role says later. The
  alphabet is that of the training windows.

  Args:
    folder: Holds one file of JSON lines, each with "play", "role" and "text",
      in the order of the plays.
    length: Characters of a window; the last of a split is padded.
    validation_share: Share of a role's windows, before the last ones.
    test_share: Share of a role's windows, the last ones.

  Returns:
    The corpus.

  Raises:
    FileNotFoundError: There is not exactly one such file.
    ValueError: A line or an argument is malformed.
  """
  if length < 2:
    raise ValueError(f"length: got {length}; it must be at least 2")
  if not (
    validation_share >= 0
    and test_share > 0
    and validation_share + test_share < 1
  ):
    raise ValueError(
      f"validation_share, test_share: got {validation_share}, {test_share};"
      " they must be at least 0 and positive, and leave something to train on"
    )
  texts = _read(pathlib.Path(folder))
  cut: dict[str, list[str]] = {"train": [], "validation": [], "test": []}
  roles, plays = [], []
  for (play, role), speeches in texts.items():
    text = "\n".join(speeches)
    windows = [text[i : i + length] for i in range(0, len(text), length)]
    first_test = len(windows) - int(len(windows) * test_share)
    first = first_test - int(len(windows) * validation_share)
    cut["train"] += windows[:first]
    cut["validation"] += windows[first:first_test]
    cut["test"] += windows[first_test:]
    roles += [f"{play}/{role}"] * first
    plays += [play] * first
  alphabet = sorted(set("".join(cut["train"])))
  characters = (*_SPECIALS, *alphabet)
  ids = {character: i for i, character in enumerate(characters)}
  encoded = {
    split: _encode(windows, ids, length) for split, windows in cut.items()
  }
  return RoleCorpus(
    **encoded,
    roles=np.asarray(roles),
    plays=np.asarray(plays),
    characters=characters,
  )


def _read(folder):
  """(play, role) to its speeches, in order of first appearance."""
  paths = sorted(folder.glob("*.jsonl"))
  if len(paths) != 1:
    raise FileNotFoundError(
      f"{folder}: found {len(paths)} files *.jsonl; exactly one is needed, with"
      f" a JSON object of {list(_FIELDS)} on each line"
    )
  texts: dict[tuple[str, str], list[str]] = {}
  with paths[0].open(encoding="utf-8") as lines:
    for number, line in enumerate(lines, start=1):
      try:
        row = json.loads(line)
        play, role, text = (row[field] for field in _FIELDS)
      except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(
          f"{paths[0]}, line {number}: expected a JSON object with"
          f" {list(_FIELDS)}, got {line[:60]!r}"
        ) from error
      texts.setdefault((str(play), str(role)), []).append(str(text))
  return texts


def _encode(windows, ids, length):
  tokens = np.full((len(windows), length), _PAD, np.int32)
  for row, window in zip(tokens, windows):
    row[: len(window)] = [ids.get(c, _UNKNOWN) for c in window]
  sizes = np.array([len(window) for window in windows], int)
  return {
    "tokens": tokens,
    "mask": np.arange(length) < sizes.reshape(-1, 1),
  }
