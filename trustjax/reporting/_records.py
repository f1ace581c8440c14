"""The files of a run: written whole or not at all, read with clear errors.

config.json    results.json    table.md    table.csv    figures/*.png
metrics.jsonl  (written during training, read here)
"""

import dataclasses
import json
import math
import os
import pathlib
import tempfile
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from trustjax.reporting import _figures, _results, _tables

if TYPE_CHECKING:
  import matplotlib.figure

CONFIG = "config.json"
RESULTS = "results.json"
TABLE_MARKDOWN = "table.md"
TABLE_CSV = "table.csv"
METRICS = "metrics.jsonl"
FIGURES = "figures"

Path = str | os.PathLike[str]


def write_atomically(path: Path, content: str | bytes) -> pathlib.Path:
  """Writes a file so that a reader sees the old or the new one, never half.

  Args:
    path: File to write; its folder is made.
    content: Text (as UTF-8) or bytes.

  Returns:
    The path.
  """
  path = pathlib.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  data = content.encode("utf-8") if isinstance(content, str) else content
  handle, partial = tempfile.mkstemp(
    dir=path.parent, prefix=f".{path.name}.", suffix=".partial"
  )
  try:
    with os.fdopen(handle, "wb") as file:
      file.write(data)
      file.flush()
      os.fsync(file.fileno())
    # mkstemp hides its files from others; a result is meant to be read.
    os.chmod(partial, 0o644)
    os.replace(partial, path)
  except BaseException:
    pathlib.Path(partial).unlink(missing_ok=True)
    raise
  return path


def _as_json(value: Any, field: str) -> Any:
  """A configuration value as JSON; ConfigDict and dataclasses are unfolded."""
  if hasattr(value, "to_dict"):
    value = value.to_dict()
  if dataclasses.is_dataclass(value) and not isinstance(value, type):
    value = dataclasses.asdict(value)
  if isinstance(value, Mapping):
    return {
      str(key): _as_json(item, f"{field}.{key}".lstrip("."))
      for key, item in value.items()
    }
  if isinstance(value, list | tuple):
    return [_as_json(item, f"{field}[{i}]") for i, item in enumerate(value)]
  if isinstance(value, np.ndarray | np.generic):
    return _as_json(value.tolist(), field)
  if isinstance(value, os.PathLike):
    return os.fspath(value)
  if isinstance(value, float) and not math.isfinite(value):
    return str(value)  # "inf": JSON has no infinity.
  if value is None or isinstance(value, bool | int | float | str):
    return value
  raise ValueError(
    f"config field {field!r}: got {type(value).__name__}; allowed are"
    " numbers, strings, booleans, None, lists and mappings of them"
  )


def write_config(workdir: Path, config: Any) -> pathlib.Path:
  """Writes config.json.

  Args:
    workdir: Folder of the run.
    config: A mapping, ConfigDict or dataclass.

  Returns:
    The path written.

  Raises:
    ValueError: If a field cannot be written, naming it.
  """
  text = json.dumps(_as_json(config, ""), indent=2, ensure_ascii=False)
  return write_atomically(pathlib.Path(workdir) / CONFIG, text + "\n")


def write_results(workdir: Path, results: _results.Results) -> pathlib.Path:
  """Checks the record and writes results.json.

  Args:
    workdir: Folder of the run.
    results: The record.

  Returns:
    The path written.

  Raises:
    ValueError: If the record breaks a rule, naming the key.
  """
  results.validate()
  text = json.dumps(
    dict(results), indent=2, allow_nan=False, ensure_ascii=False
  )
  return write_atomically(pathlib.Path(workdir) / RESULTS, text + "\n")


def write_table(workdir: Path, table: _tables.Table) -> list[pathlib.Path]:
  """Writes table.md and table.csv and returns their paths."""
  folder = pathlib.Path(workdir)
  return [
    write_atomically(folder / TABLE_MARKDOWN, table.to_markdown()),
    write_atomically(folder / TABLE_CSV, table.to_csv()),
  ]


def write_run(
  workdir: Path,
  *,
  config: Any,
  results: _results.Results,
  table: _tables.Table | None = None,
  figures: Mapping[str, "matplotlib.figure.Figure"] | None = None,
) -> list[pathlib.Path]:
  """Writes the files of a finished run, results.json last.

  Args:
    workdir: Folder of the run.
    config: A mapping, ConfigDict or dataclass.
    results: The record.
    table: For table.md and table.csv.
    figures: File name without extension to figure.

  Returns:
    The paths written, in order.

  Raises:
    ValueError: If a config field or an entry cannot be written, naming it.
  """
  results.validate()  # Before anything is written.
  folder = pathlib.Path(workdir)
  paths = [write_config(folder, config)]
  for name, figure in (figures or {}).items():
    path = folder / FIGURES / f"{name}.png"
    paths.append(write_atomically(path, _figures.png_bytes(figure)))
  if table is not None:
    paths += write_table(folder, table)
  # A folder with results.json is a finished run.
  return [*paths, write_results(folder, results)]


def read_object(path: pathlib.Path) -> dict[str, Any]:
  """Reads a JSON object, refusing repeated names.

  Args:
    path: The file.

  Returns:
    The object, names in the order of the file.

  Raises:
    ValueError: If it is not one; the message holds file, line and column.
  """

  def unique(pairs):
    names = [name for name, _ in pairs]
    for name in names:
      if names.count(name) > 1:
        raise ValueError(f"{path}: key {name!r}: appears more than once")
    return dict(pairs)

  try:
    text = path.read_text(encoding="utf-8")
  except UnicodeDecodeError as error:
    raise ValueError(f"{path}: not UTF-8 text: {error}") from error
  try:
    value = json.loads(text, object_pairs_hook=unique)
  except json.JSONDecodeError as error:
    raise ValueError(
      f"{path}:{error.lineno}:{error.colno}: not valid JSON: {error.msg}"
    ) from error
  if not isinstance(value, dict):
    raise ValueError(
      f"{path}: got a {type(value).__name__}; allowed is one JSON object"
    )
  return value


def read_results(path: Path) -> _results.Results:
  """Reads and checks results.json.

  Args:
    path: The file, or the folder of the run.

  Returns:
    The record.

  Raises:
    FileNotFoundError: If there is no such file.
    ValueError: If it breaks a rule, naming file, key and what is allowed.
  """
  path = pathlib.Path(path)
  path = path / RESULTS if path.is_dir() else path
  if not path.is_file():
    raise FileNotFoundError(f"{path}: there is no such results file")
  entries = read_object(path)
  try:
    return _results.Results(entries)
  except ValueError as error:
    raise ValueError(f"{path}: {error}") from error
