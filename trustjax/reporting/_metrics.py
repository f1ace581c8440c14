"""Reading metrics.jsonl back, also after a run that was cut off."""

import dataclasses
import json
import math
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from trustjax.reporting._records import Path


def _is_number(value: Any) -> bool:
  return (
    isinstance(value, int | float)
    and not isinstance(value, bool)
    and math.isfinite(value)
  )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Metrics:
  """The rows {"step", "time", name: value, ...} of a metrics.jsonl file.

  Attributes:
    path: The file.
    rows: Row by row, in file order; `time` is in seconds.
    note: What was left out of the file, or "".
  """

  path: pathlib.Path
  rows: tuple[Mapping[str, Any], ...]
  note: str = ""

  @property
  def truncated(self) -> bool:
    """Whether the last line was cut off."""
    return bool(self.note)

  @property
  def names(self) -> list[str]:
    """The metrics that have numbers, in order of appearance."""
    found = {
      name: None
      for row in self.rows
      for name, value in row.items()
      if _is_number(value) and name not in ("step", "time")
    }
    return list(found)

  def series(self, name: str) -> tuple[np.ndarray, np.ndarray]:
    """One metric over the steps, without rows where it is absent or null.

    Args:
      name: Name of the metric, or "time".

    Returns:
      Steps, int64 [rows], and values, float64 [rows].

    Raises:
      KeyError: If no row has it, listing the names there are.
    """
    rows = [row for row in self.rows if _is_number(row.get(name))]
    if not rows:
      raise KeyError(
        f"{self.path}: no metric {name!r}; there are:"
        f" {', '.join(self.names) or 'none'}"
      )
    steps = np.array([row["step"] for row in rows], np.int64)
    return steps, np.array([row[name] for row in rows], np.float64)


def _wrong_with(row: Any) -> str:
  """What a row breaks of the format, or ""."""
  if not isinstance(row, dict):
    return (
      f"got a JSON {type(row).__name__}; a row is an object"
      ' {"step": number, "time": seconds, name: number, ...}'
    )
  step, time = row.get("step"), row.get("time")
  if not isinstance(step, int) or isinstance(step, bool) or step < 0:
    return f"'step': got {step!r}; allowed are whole numbers from 0 on"
  if not _is_number(time):
    return f"'time': got {time!r}; allowed is a number of seconds"
  for name, value in row.items():
    if not (_is_number(value) or value is None or isinstance(value, str)):
      return (
        f"{name!r}: got {value!r}; allowed are finite numbers, strings and null"
      )
  return ""


def read_metrics(path: Path) -> Metrics:
  """Reads a metrics.jsonl file.

  A last line without its end, left by a run that was cut off, is left out and
  reported in `note`; a broken line anywhere else is an error.

  Args:
    path: The file.

  Returns:
    Its rows.

  Raises:
    FileNotFoundError: If there is no such file.
    ValueError: If a line is broken, naming file, line and column or name.

  Example:
    >>> steps, loss = read_metrics("run/metrics.jsonl").series("train/loss")
  """
  path = pathlib.Path(path)
  if not path.is_file():
    raise FileNotFoundError(f"{path}: there is no such metrics file")
  # A character may be cut in two as well; what it becomes is no JSON.
  lines = path.read_bytes().decode("utf-8", errors="replace").split("\n")
  rows: list[Mapping[str, Any]] = []
  for number, line in enumerate(lines, start=1):
    if not line.strip():
      continue
    try:
      row = json.loads(line)
    except json.JSONDecodeError as error:
      if number < len(lines):  # A newline follows: it was written whole.
        raise ValueError(
          f"{path}:{number}:{error.colno}: not valid JSON: {error.msg}"
        ) from error
      note = (
        f"{path.name}, line {number}: the last line is cut off (the run was"
        " interrupted) and left out"
      )
      return Metrics(path=path, rows=tuple(rows), note=note)
    wrong = _wrong_with(row)
    if wrong:
      raise ValueError(f"{path}:{number}: {wrong}")
    rows.append(row)
  return Metrics(path=path, rows=tuple(rows))
