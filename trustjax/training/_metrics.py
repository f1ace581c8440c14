"""metrics.jsonl: one JSON object a line, in step order, safe to resume."""

import json
import math
import os
import pathlib
import time
from typing import Any


class MetricWriter:
  """Appends rows {"step", "time", name: value, ...} to a JSON-lines file.

  Every row is flushed, so an interrupted run keeps what it wrote. A number
  that is not finite is written as null with "<name>_reason".

  Example:
    >>> with MetricWriter("run/metrics.jsonl") as writer:
    ...   writer.write(10, {"train/loss": 0.7})
  """

  def __init__(self, path: str | os.PathLike[str], *, resume_at: int = 0):
    """Opens the file, dropping rows of steps that will be run again.

    Args:
      path: File to append to; its folder is made.
      resume_at: Step the run continues from: rows of later steps, and a last
        line cut off by a crash, are removed.
    """
    self._path = pathlib.Path(path)
    self._path.parent.mkdir(parents=True, exist_ok=True)
    self._keep_rows_up_to(resume_at)
    self._file = self._path.open("a", encoding="utf-8")
    self._start = time.time()

  def _keep_rows_up_to(self, step: int) -> None:
    if not self._path.exists():
      return
    kept = []
    for line in self._path.read_text(encoding="utf-8").splitlines():
      try:
        row = json.loads(line)
      except json.JSONDecodeError:
        continue
      if row.get("step", 0) <= step:
        kept.append(line + "\n")
    partial = self._path.with_suffix(".partial")
    partial.write_text("".join(kept) if step else "", encoding="utf-8")
    partial.replace(self._path)

  def write(self, step: int, values: dict[str, Any]) -> None:
    """Writes one row.

    Args:
      step: Steps taken so far.
      values: Name to number; arrays of one element are fine.
    """
    row: dict[str, Any] = {"step": int(step), "time": time.time() - self._start}
    for name, value in values.items():
      number = float(value)
      if math.isfinite(number):
        row[name] = number
      else:
        row[name], row[f"{name}_reason"] = None, f"not finite: {number}"
    self._file.write(json.dumps(row) + "\n")
    self._file.flush()

  def close(self) -> None:
    """Closes the file."""
    self._file.close()

  def __enter__(self) -> "MetricWriter":
    return self

  def __exit__(self, *exception) -> None:
    self.close()
