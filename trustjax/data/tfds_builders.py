"""TFDS builders of the real data sets, without TensorFlow.

Each builder reads a folder (manual_dir) in one of the layouts it accepts, or
downloads its public source, and stores the utterances as array_record files.
`as_data_source` reads them back with random access and no TensorFlow.

  builder         accepted layouts of manual_dir
  Snips           {train,valid,test}/{seq.in,seq.out,label}; the authors' JSON
  Atis            {train,valid,test}/{seq.in,seq.out,label} (never downloaded)
  NluEvaluation   the annotated CSV; a fold KFold_k; {train,test}.jsonl
  Clinc150        data_full.json, with or without domains.json
  Banking77       {train,test}.csv

The fairness sets have builders of the same kind, whose records are the
dataclasses of `trustjax.data`, read back by `records`:

  StereoSet       dev.json; intrasentence.jsonl
  CrowsPairs      crows_pairs_anonymized.csv
  Bold            *_prompt.json
  HateXplain      dataset.json and post_id_divisions.json; the merged groups
  Madlibs         bias_madlibs_77k.csv, plain or gzipped

TFDS is slow to import, so `trustjax.data` imports this module on demand.
"""

import dataclasses
import os
import pathlib
import typing
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds

from trustjax.data import _fairness_sets
from trustjax.data._corpus import SPLITS, NluCorpus, Utterance
from trustjax.data._fairness_sources import FAIRNESS_SOURCES
from trustjax.data._sources import SOURCES, cache_dir, locate

_OPTIONAL = ("user", "domain", "mark")


class _LocatedBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
  """What all builders share: located files, stored as array_record.

  Prepared data are stored under a hash of the files and options, so changed
  files or another folder are prepared anew instead of being mistaken for
  what was prepared before.

  Attributes:
    SOURCE: The name of the data set in the registry of sources.
    REGISTRY: That registry.
  """

  # Part of the cache's path: raise it when a reader changes what it returns.
  VERSION = tfds.core.Version("1.0.0")
  SOURCE = ""
  REGISTRY: ClassVar[Any] = SOURCES
  # TFDS looks beside the module for checksum and citation files, by way of a
  # package that it does not require. There are none: files are located, and
  # downloads checked, before TFDS is involved.
  code_path = None
  pkg_dir_path = None
  url_infos: ClassVar[dict[str, Any]] = {}

  def __init__(
    self,
    *,
    manual_dir: str | os.PathLike[str] | None = None,
    data_dir: str | os.PathLike[str] | None = None,
    **options: Any,
  ):
    """Finds the files; nothing is prepared yet.

    Args:
      manual_dir: The folder of the user's files; None downloads.
      data_dir: Where prepared data go; None takes $TRUSTJAX_CACHE_DIR or
        else ~/.cache/trustjax.
      **options: Options of the reader, such as validation_share or
        on_malformed.

    Raises:
      FileNotFoundError: If files are missing; says how to get them.
      ValueError: If an option is unknown.
    """
    source = self.REGISTRY[self.SOURCE]
    self.located = locate(source, manual_dir, data_dir, options)
    root = cache_dir(data_dir) / "tfds" / self.located.key()
    super().__init__(data_dir=str(root), file_format="array_record")

  def _features(self) -> dict[str, Any]:
    """The stored form of an example."""
    raise NotImplementedError

  def _info(self) -> tfds.core.DatasetInfo:
    return tfds.core.DatasetInfo(
      builder=self,
      features=tfds.features.FeaturesDict(self._features()),
      description=self.located.source.summary,
      homepage=self.located.source.homepage,
      license=self.located.source.license,
      disable_shuffling=True,
      metadata=tfds.core.MetadataDict(),
    )

  def _prepare_once(self) -> None:
    """Stores the data unless that was done."""
    prepared = pathlib.Path(self.data_dir)
    if not prepared.is_dir():
      try:
        self.download_and_prepare()
      except OSError:
        # Another process may have finished the same copy first.
        if not prepared.is_dir():
          raise

  def _read(self, split: str, convert: Callable[[Any], Any]) -> tuple[Any, ...]:
    """The examples of a prepared split, each converted."""
    try:
      # The logging decorator of TFDS hides the parameters.
      source = self.as_data_source(split=split)  # pyright: ignore
      rows = source.__getitems__(list(range(len(source))))
      return tuple(convert(row) for row in rows)
    except Exception as error:
      raise ValueError(
        f"the prepared copy of {self.SOURCE!r} in {self.data_dir} cannot "
        f"be read ({error}); delete that folder to prepare it again"
      ) from error


class NluBuilder(_LocatedBuilder, skip_registration=True):
  """What the builders of utterances share; a subclass names its source."""

  def _features(self) -> dict[str, Any]:
    text = tfds.features.Text
    return {
      # Words and tags joined by spaces: several times faster to read back
      # than sequences, and neither ever holds a space.
      "tokens": text(),
      "slots": text(),
      "intent": text(),
      **{field: text() for field in _OPTIONAL},
    }

  def _split_generators(
    self, dl_manager: tfds.download.DownloadManager
  ) -> dict[str, Iterator[tuple[int, dict[str, Any]]]]:
    del dl_manager  # The files were located, and downloaded, beforehand.
    reading = self.located.read()
    metadata = self.info.metadata
    if metadata is not None:
      metadata["notes"] = list(reading.notes)
    return {
      split: self._generate_examples(reading.splits[split]) for split in SPLITS
    }

  def _generate_examples(
    self, utterances: Any
  ) -> Iterator[tuple[int, dict[str, Any]]]:
    for index, utterance in enumerate(utterances):
      yield (
        index,
        {
          "tokens": " ".join(utterance.tokens),
          "slots": " ".join(utterance.slots),
          "intent": utterance.intent,
          **{f: getattr(utterance, f) or "" for f in _OPTIONAL},
        },
      )

  def corpus(self) -> NluCorpus:
    """Prepares the data unless that was done, and reads them back.

    Returns:
      The corpus.

    Raises:
      FileNotFoundError: If a file is missing; says how to get it.
      ValueError: If a file is malformed, or the cached copy is damaged.
    """
    self._prepare_once()
    splits = {split: self._read(split, _utterance) for split in SPLITS}
    layout = self.located.layout.name
    notes = (self.info.metadata or {}).get("notes", [])
    return NluCorpus(
      name=self.SOURCE,
      splits=splits,
      license=self.located.source.license,
      notes=(f"read from layout {layout}", *notes),
    )


def _utterance(row: Any) -> Utterance:
  """Turns a stored example back into the utterance it came from."""
  return Utterance(
    tokens=tuple(row["tokens"].decode().split(" ")),
    slots=tuple(row["slots"].decode().split(" ")),
    intent=row["intent"].decode(),
    **{field: row[field].decode() or None for field in _OPTIONAL},
  )


class Snips(NluBuilder):
  """SNIPS voice assistant requests: 7 intents, 39 slot types."""

  SOURCE = "snips"


class Atis(NluBuilder):
  """ATIS air travel requests, supplied by the user."""

  SOURCE = "atis"


class NluEvaluation(NluBuilder):
  """NLU-Evaluation (HWU64): 64 intents in 18 scenarios."""

  SOURCE = "nlu_evaluation"


class Clinc150(NluBuilder):
  """CLINC150: 150 intents in 10 domains, and out-of-scope utterances."""

  SOURCE = "clinc150"


class Banking77(NluBuilder):
  """Banking77: 77 intents of a bank's customers."""

  SOURCE = "banking77"


BUILDERS = {
  builder.SOURCE: builder
  for builder in (Snips, Atis, NluEvaluation, Clinc150, Banking77)
}


class FairnessBuilder(_LocatedBuilder, skip_registration=True):
  """What the builders of fairness sets share.

  Attributes:
    RECORD: The dataclass of its records.
  """

  REGISTRY: ClassVar[Any] = FAIRNESS_SOURCES
  RECORD: ClassVar[type] = object

  def _features(self) -> dict[str, Any]:
    kinds = typing.get_type_hints(self.RECORD)
    return {name: _feature(kind) for name, kind in kinds.items()}

  def _split_generators(
    self, dl_manager: tfds.download.DownloadManager
  ) -> dict[str, Iterator[tuple[int, dict[str, Any]]]]:
    del dl_manager  # The files were located, and downloaded, beforehand.
    found = self.located.read()
    return {
      split: self._generate_examples(records)
      for split, records in found.splits.items()
      if records
    }

  def _generate_examples(
    self, records: Any
  ) -> Iterator[tuple[int, dict[str, Any]]]:
    for index, record in enumerate(records):
      row = dataclasses.asdict(record)
      yield (
        index,
        {k: list(v) if isinstance(v, tuple) else v for k, v in row.items()},
      )

  def records(self) -> dict[str, tuple[Any, ...]]:
    """Prepares the data unless that was done, and reads them back.

    Returns:
      Split to records of the dataclass, in the order of the source.

    Raises:
      FileNotFoundError: If a file is missing; says how to get it.
      ValueError: If a file is malformed, or the cached copy is damaged.
    """
    self._prepare_once()
    kinds = typing.get_type_hints(self.RECORD)

    def record(row):
      return self.RECORD(**{k: _value(row[k], t) for k, t in kinds.items()})

    return {s: self._read(s, record) for s in self.info.splits or ()}


def _feature(kind: Any) -> Any:
  """The stored form of a field of a record."""
  if typing.get_origin(kind) is tuple:
    return tfds.features.Sequence(tfds.features.Text())
  if kind is str:
    return tfds.features.Text()
  return tfds.features.Scalar(np.bool_ if kind is bool else np.int64)


def _value(stored: Any, kind: Any) -> Any:
  """A field of a record as it was before it was stored."""
  if typing.get_origin(kind) is tuple:
    return tuple(text.decode() for text in stored)
  return stored.decode() if kind is str else kind(stored)


class StereoSet(FairnessBuilder):
  """StereoSet, the intrasentence clusters."""

  SOURCE = "stereoset"
  RECORD = _fairness_sets.StereoSetCluster


class CrowsPairs(FairnessBuilder):
  """CrowS-Pairs."""

  SOURCE = "crows_pairs"
  RECORD = _fairness_sets.CrowsPair


class Bold(FairnessBuilder):
  """BOLD prompts."""

  SOURCE = "bold"
  RECORD = _fairness_sets.BoldPrompt


class HateXplain(FairnessBuilder):
  """HateXplain with the splits of its authors."""

  SOURCE = "hatexplain"
  RECORD = _fairness_sets.HatePost


class Madlibs(FairnessBuilder):
  """Identity templates for toxicity classifiers."""

  SOURCE = "madlibs"
  RECORD = _fairness_sets.MadlibsText


FAIRNESS_BUILDERS = {
  builder.SOURCE: builder
  for builder in (StereoSet, CrowsPairs, Bold, HateXplain, Madlibs)
}
