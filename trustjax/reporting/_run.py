"""A run as it lies in its folder, read back."""

import dataclasses
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from trustjax.reporting._metrics import Metrics, read_metrics
from trustjax.reporting._records import Path, read_object, read_results
from trustjax.reporting._results import Results

_COMPANIONS = ("config.json", "metrics.jsonl", "table.md", "table.csv")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
  """Everything a binary left in a workdir.

  Attributes:
    name: Short name, unique among the runs read together.
    folder: Where it lies.
    results: The record.
    config: The nested configuration, or None if config.json is missing.
    tables: Path relative to the folder -> text of each table.md, or, where
      there is none, of table.csv.
    metrics: Relative path -> time series of each metrics.jsonl.
    figures: Relative path -> bytes of each PNG in a folder `figures`.
  """

  name: str
  folder: pathlib.Path
  results: Results
  config: Mapping[str, Any] | None
  tables: Mapping[str, str]
  metrics: Mapping[str, Metrics]
  figures: Mapping[str, bytes]


def _run_folders(workdir: pathlib.Path) -> list[pathlib.Path]:
  """Folders with a results.json, the workdir first."""
  if not workdir.exists():
    raise FileNotFoundError(f"{workdir}: no such folder")
  if not workdir.is_dir():
    raise ValueError(
      f"{workdir}: is a file; name the folder that holds results.json"
    )
  found = []
  for folder, children, files in os.walk(workdir):
    children[:] = sorted(c for c in children if not c.startswith("."))
    if "results.json" in files:
      found.append(pathlib.Path(folder))
  if not found:
    there = [name for name in _COMPANIONS if (workdir / name).is_file()]
    hint = ""
    if there:
      verb = "is" if len(there) == 1 else "are"
      hint = (
        f"; {' and '.join(there)} {verb} there, so the run may not have"
        " finished"
      )
    raise FileNotFoundError(
      f"{workdir}: not a workdir: results.json is missing, here and in every"
      f" folder below{hint}"
    )
  return found


def _files(
  folder: pathlib.Path, others: Sequence[pathlib.Path]
) -> dict[str, pathlib.Path]:
  """Files of a run by relative name, without those of runs inside it."""
  found: dict[str, pathlib.Path] = {}
  for place, children, files in os.walk(folder):
    here = pathlib.Path(place)
    children[:] = sorted(
      child
      for child in children
      if not child.startswith(".") and here / child not in others
    )
    for name in sorted(files):
      if not name.startswith("."):
        found[(here / name).relative_to(folder).as_posix()] = here / name
  return found


def _read_png(path: pathlib.Path) -> bytes:
  """The bytes of a figure, which must be a PNG to be shown on a page."""
  data = path.read_bytes()
  if data[:8] != b"\x89PNG\r\n\x1a\n" or len(data) < 24:
    raise ValueError(f"{path}: is not a PNG file")
  return data


def _read_run(
  name: str, folder: pathlib.Path, others: Sequence[pathlib.Path]
) -> Run:
  files = _files(folder, others)
  tables = {}
  for relative, path in files.items():
    markdown = path.with_name("table.md")
    if path.name == "table.md" or (
      path.name == "table.csv" and not markdown.is_file()
    ):
      tables[relative] = path.read_text(encoding="utf-8")
  config = files.get("config.json")
  return Run(
    name=name,
    folder=folder,
    results=read_results(folder),
    config=read_object(config) if config else None,
    tables=tables,
    metrics={
      relative: read_metrics(path)
      for relative, path in files.items()
      if path.name == "metrics.jsonl"
    },
    figures={
      relative: _read_png(path)
      for relative, path in files.items()
      if path.suffix == ".png" and path.parent.name == "figures"
    },
  )


def read_runs(workdirs: Sequence[Path]) -> list[Run]:
  """Reads the runs in some folders and in the folders below them.

  A folder with a results.json is a run; tables, metrics and figures in
  sub-folders without one belong to it.

  Args:
    workdirs: Folders to read.

  Returns:
    The runs, in the order given, each once.

  Raises:
    FileNotFoundError: If a folder holds no run; the message says which file
      is missing.
    ValueError: If a file is broken; the message names it and the place.
  """
  folders: dict[pathlib.Path, str] = {}
  for given in workdirs:
    workdir = pathlib.Path(given)
    for folder in _run_folders(workdir):
      below = folder.relative_to(workdir).as_posix()
      top = workdir.resolve().name or str(workdir)
      name = top if below == "." else f"{top}/{below}"
      folders.setdefault(folder.resolve(), name)
  names = list(folders.values())
  return [
    _read_run(
      # Workdirs of the same name are told apart by their whole path.
      name if names.count(name) == 1 else str(folder),
      folder,
      [other for other in folders if other != folder],
    )
    for folder, name in folders.items()
  ]
