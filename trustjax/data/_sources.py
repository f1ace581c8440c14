"""Where each real data set comes from, and in which layouts it is accepted."""

import dataclasses
import hashlib
import json
import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

from trustjax.data import _readers
from trustjax.data._download import fetch

_GITHUB = "https://raw.githubusercontent.com"
_SLOT_GATED = (
  f"{_GITHUB}/MiuLab/SlotGated-SLU/"
  "61f0307c729b1fad479ef1de94aa5ac5dee601b0/data"
)
_NLU_EVALUATION = (
  f"{_GITHUB}/xliuhw/NLU-Evaluation-Data/"
  "f6071b496b17d71e6eb43f543af0707f4ff30557/AnnotatedData"
)
_CLINC = (
  f"{_GITHUB}/clinc/oos-eval/828f8093932c8fe6ca7936c3d2e52903b1c523de/data"
)
_BANKING = (
  f"{_GITHUB}/PolyAI-LDN/task-specific-datasets/"
  "57ec275d8078af65b7731c2a98be812d844a6d6b/banking_data"
)
_SLOT_GATED_FILES = tuple(
  f"{split}/{name}"
  for split in ("train", "valid", "test")
  for name in ("seq.in", "seq.out", "label")
)
_CSV = _readers.NLU_EVALUATION_CSV


@dataclasses.dataclass(frozen=True, kw_only=True)
class Layout:
  """One arrangement of files that a builder accepts.

  Attributes:
    name: A short name, part of the cache's path.
    files: The files it consists of, for messages.
    markers: Glob patterns; a folder has this layout if one of them matches.
    contents: Glob patterns of every file that is read.
    read: The reader.
    options: Keyword arguments of the reader, with their defaults.
  """

  name: str
  files: str
  markers: tuple[str, ...]
  contents: tuple[str, ...]
  read: Callable[..., _readers.Reading]
  options: Mapping[str, Any] = dataclasses.field(default_factory=dict)

  def matches(self, folder: pathlib.Path) -> bool:
    """Whether the folder holds a file that marks this layout."""
    return any(next(folder.glob(m), None) for m in self.markers)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source:
  """A real data set.

  Attributes:
    name: The name by which it is loaded.
    summary: What it is.
    homepage: Where it is described.
    license: The licence of the data.
    how_to_get: What to do when a file is missing.
    layouts: The accepted layouts; the first that a folder matches is read.
    downloads: File -> URL, pinned to a commit; empty where the data cannot
      be downloaded.
    known_totals: Bounds on the number of utterances of a download.
  """

  name: str
  summary: str
  homepage: str
  license: str
  how_to_get: str
  layouts: tuple[Layout, ...]
  downloads: Mapping[str, str] = dataclasses.field(default_factory=dict)
  known_totals: tuple[int, int] = (1, 10**9)

  def help(self) -> str:
    """The accepted layouts and how to get the files, for messages."""
    layouts = "; or ".join(f"{a.files} ({a.name})" for a in self.layouts)
    return f"Accepted layouts: {layouts}. {self.how_to_get}"


_CARVED = {"validation_share": 0.1}
_SLOT_GATED_LAYOUT = Layout(
  name="slot_gated",
  files="{train,valid,test}/{seq.in,seq.out,label}",
  markers=("train/*", "valid/*", "dev/*", "test/*"),
  contents=tuple(
    f"{folder}/{name}"
    for folder in ("train", "valid", "dev", "validation", "test")
    for name in ("seq.in", "seq.out", "label")
  ),
  read=_readers.read_slot_gated,
)

SOURCES = {
  source.name: source
  for source in (
    Source(
      name="snips",
      summary="SNIPS voice assistant requests, 7 intents, 39 slot types",
      homepage="https://github.com/sonos/nlu-benchmark",
      license="CC0-1.0",
      how_to_get=(
        "The files are data/snips of github.com/MiuLab/SlotGated-SLU; the "
        "authors' own are 2017-06-custom-intent-engines of "
        "github.com/sonos/nlu-benchmark. Pass the folder as manual_dir."
      ),
      layouts=(
        _SLOT_GATED_LAYOUT,
        Layout(
          name="snips_json",
          files="<Intent>/{train_<Intent>_full.json,validate_<Intent>.json}",
          markers=("*/train_*_full.json",),
          contents=("*/train_*_full.json", "*/validate_*.json"),
          read=_readers.read_snips_json,
          options=_CARVED,
        ),
      ),
      downloads={f: f"{_SLOT_GATED}/snips/{f}" for f in _SLOT_GATED_FILES},
      known_totals=(14_484, 14_484),
    ),
    Source(
      name="atis",
      summary="ATIS air travel requests",
      homepage="https://catalog.ldc.upenn.edu/LDC95S26",
      license="LDC user agreement; supplied by the user",
      how_to_get=(
        "ATIS is not downloaded, because its licence does not allow it. Put "
        "your copy into this layout (the folder data/atis of "
        "github.com/MiuLab/SlotGated-SLU has it) and pass the folder as "
        "manual_dir."
      ),
      layouts=(_SLOT_GATED_LAYOUT,),
    ),
    Source(
      name="nlu_evaluation",
      summary="NLU-Evaluation (HWU64): 64 intents in 18 scenarios",
      homepage="https://github.com/xliuhw/NLU-Evaluation-Data",
      license="CC-BY-4.0",
      how_to_get=(
        f"The file is AnnotatedData/{_CSV}, the folds are under "
        "CrossValidation, of github.com/xliuhw/NLU-Evaluation-Data. Pass the "
        "folder as manual_dir."
      ),
      layouts=(
        Layout(
          name="nlu_evaluation_csv",
          files=_CSV,
          markers=(_CSV, f"AnnotatedData/{_CSV}"),
          contents=(_CSV, f"AnnotatedData/{_CSV}"),
          read=_readers.read_nlu_evaluation_csv,
          options={**_CARVED, "test_share": 0.1, "skip_malformed": False},
        ),
        Layout(
          name="nlu_evaluation_fold",
          files="KFold_<k>/{trainset,testset/csv}/*.csv",
          markers=("trainset/*.csv", "testset/csv/*.csv"),
          contents=("trainset/*.csv", "testset/csv/*.csv"),
          read=_readers.read_nlu_evaluation_fold,
          options=_CARVED,
        ),
        Layout(
          name="nlu_evaluation_jsonl",
          files="{train,test}.jsonl",
          markers=("train.jsonl", "test.jsonl"),
          contents=("train.jsonl", "test.jsonl"),
          read=_readers.read_nlu_evaluation_jsonl,
          options=_CARVED,
        ),
      ),
      downloads={_CSV: f"{_NLU_EVALUATION}/{_CSV}"},
      known_totals=(20_000, 25_716),
    ),
    Source(
      name="clinc150",
      summary="CLINC150: 150 intents in 10 domains, and out of scope",
      homepage="https://github.com/clinc/oos-eval",
      license="CC-BY-3.0",
      how_to_get=(
        "The files are data/data_full.json and, optionally, "
        "data/domains.json of github.com/clinc/oos-eval. Pass the folder as "
        "manual_dir."
      ),
      layouts=(
        Layout(
          name="clinc150",
          files="data_full.json (and domains.json)",
          markers=("data_full.json",),
          contents=("data_full.json", "domains.json"),
          read=_readers.read_clinc150,
          options={"out_of_scope": False},
        ),
      ),
      downloads={
        f: f"{_CLINC}/{f}" for f in ("data_full.json", "domains.json")
      },
      known_totals=(22_500, 23_700),
    ),
    Source(
      name="banking77",
      summary="Banking77: 77 intents of a bank's customers",
      homepage="https://github.com/PolyAI-LDN/task-specific-datasets",
      license="CC-BY-4.0",
      how_to_get=(
        "The files are banking_data/{train,test}.csv of "
        "github.com/PolyAI-LDN/task-specific-datasets. Pass the folder as "
        "manual_dir."
      ),
      layouts=(
        Layout(
          name="banking77",
          files="{train,test}.csv",
          markers=("train.csv", "test.csv"),
          contents=("train.csv", "test.csv"),
          read=_readers.read_banking77,
          options=_CARVED,
        ),
      ),
      downloads={f: f"{_BANKING}/{f}" for f in ("train.csv", "test.csv")},
      known_totals=(13_083, 13_083),
    ),
  )
}


def cache_dir(data_dir: str | os.PathLike[str] | None = None) -> pathlib.Path:
  """Returns where prepared data go.

  Args:
    data_dir: The folder, or None for $TRUSTJAX_CACHE_DIR, or else
      ~/.cache/trustjax.

  Returns:
    The folder, which need not exist.
  """
  chosen = data_dir or os.environ.get("TRUSTJAX_CACHE_DIR")
  return pathlib.Path(chosen or "~/.cache/trustjax").expanduser().absolute()


@dataclasses.dataclass(frozen=True, kw_only=True)
class LocatedSource:
  """A source whose files were found.

  Attributes:
    source: The data set.
    folder: The folder of the files.
    layout: The layout they have.
    options: The reader's options, defaults filled in.
    downloaded: Whether the folder was filled by a download.
  """

  source: Source
  folder: pathlib.Path
  layout: Layout
  options: Mapping[str, Any]
  downloaded: bool

  def key(self) -> str:
    """A hash of every byte that is read and of the options.

    Prepared data are stored under it, so a changed file, another folder or
    other options never meet data prepared from something else.
    """
    digest = hashlib.sha256(
      json.dumps(dict(self.options), sort_keys=True).encode()
    )
    paths = {p for g in self.layout.contents for p in self.folder.glob(g)}
    for path in sorted(p for p in paths if p.is_file()):
      data = path.read_bytes()
      name = path.relative_to(self.folder).as_posix()
      digest.update(f"\0{name}\0{len(data)}\0".encode())
      digest.update(data)
    return f"{self.layout.name}-{digest.hexdigest()[:20]}"

  def read(self) -> _readers.Reading:
    """Reads the files.

    Raises:
      FileNotFoundError: If a file is missing; says how to get it.
      ValueError: If a file is malformed, or a download has another number
        of utterances than the data set.
    """
    try:
      reading = self.layout.read(self.folder, **self.options)
    except FileNotFoundError as error:
      raise FileNotFoundError(
        f"dataset {self.source.name!r}: {error}. {self.source.help()}"
      ) from None
    total = sum(len(part) for part in reading.splits.values())
    low, high = self.source.known_totals
    if self.downloaded and not low <= total <= high:
      raise ValueError(
        f"the download of dataset {self.source.name!r} in {self.folder} has "
        f"{total} utterances; {low} to {high} are known. Delete the folder "
        "to download again, or pass manual_dir."
      )
    return reading


def locate(
  source: Source,
  manual_dir: str | os.PathLike[str] | None,
  data_dir: str | os.PathLike[str] | None,
  options: Mapping[str, Any],
) -> LocatedSource:
  """Finds the files of a data set, downloading them where that is possible.

  Args:
    source: The data set.
    manual_dir: The folder of the user's files, or None to download.
    data_dir: The cache; see `cache_dir`.
    options: Options of the reader.

  Returns:
    The files, their layout and the completed options.

  Raises:
    FileNotFoundError: If the folder, a file or a download is missing; says
      how to get it.
    ValueError: If an option is unknown for the layout found.
  """
  if manual_dir:
    folder = pathlib.Path(manual_dir).expanduser().absolute()
    if not folder.is_dir():
      raise FileNotFoundError(
        f"dataset {source.name!r}: manual_dir {folder} is not a folder. "
        f"{source.help()}"
      )
  elif source.downloads:
    folder = cache_dir(data_dir) / "downloads" / source.name
    for name, url in source.downloads.items():
      fetch(url, folder / name, dataset=source.name, advice=source.help())
  else:
    raise FileNotFoundError(
      f"dataset {source.name!r} needs manual_dir. {source.help()}"
    )
  layout = next((a for a in source.layouts if a.matches(folder)), None)
  if layout is None:
    found = sorted(p.name for p in folder.iterdir())[:8]
    raise FileNotFoundError(
      f"dataset {source.name!r}: {folder} has none of the accepted layouts "
      f"(it holds {found}). {source.help()}"
    )
  unknown = sorted(set(options) - set(layout.options))
  if unknown:
    raise ValueError(
      f"unknown options {unknown} for dataset {source.name!r} in layout "
      f"{layout.name!r}; allowed: {sorted(layout.options)}"
    )
  return LocatedSource(
    source=source,
    folder=folder,
    layout=layout,
    options={**layout.options, **options},
    downloaded=not manual_dir,
  )
