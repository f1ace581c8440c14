"""Where the public fairness sets come from, and their accepted layouts."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from trustjax.data import _fairness_sets, _readers
from trustjax.data._sources import Layout, Source

_GITHUB = "https://raw.githubusercontent.com"
_STEREOSET = (
  f"{_GITHUB}/moinnadeem/StereoSet/ead7d086a64a192a1eca88e0dd2fd163de375218"
)
_CROWS = (
  f"{_GITHUB}/nyu-mll/crows-pairs/8aaac11c485473159ec9328a65253a5be9a479dc"
)
_BOLD = (
  f"{_GITHUB}/amazon-science/bold/3ad652c773f5d1e30d5f6f61657ed934d768ecad"
)
_HATEXPLAIN = (
  f"{_GITHUB}/hate-alert/HateXplain/01d742279dac941981f53806154481c0e15ee686"
)
_MADLIBS = (
  f"{_GITHUB}/conversationai/unintended-ml-bias-analysis/"
  "9c7d91aaa53406a362354661a93e07956d95e59a/archive/unintended_ml_bias/"
  "eval_datasets"
)
_CROWS_FILE = "crows_pairs_anonymized.csv"
_MADLIBS_FILE = "bias_madlibs_77k.csv"
_GROUPS_FILE = "hatexplain_groups.csv"
_BOLD_DOMAINS = (
  "gender",
  "political_ideology",
  "profession",
  "race",
  "religious_ideology",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class FairnessReading(_readers.Reading):
  """What a reader made of a folder.

  Attributes:
    splits: Split to records of one of the dataclasses of `_fairness_sets`.
  """

  splits: Mapping[str, Sequence[Any]]


def _one_split(
  read: Callable[..., tuple[Any, ...]], name: str
) -> Callable[..., FairnessReading]:
  """A reader of a folder whose only split is "test": sets are not trained on.

  Args:
    read: Reads a path.
    name: File in the folder; "." for the folder itself.
  """

  def split(folder: pathlib.Path, **options: Any) -> FairnessReading:
    return FairnessReading(splits={"test": read(folder / name, **options)})

  return split


def _read_posts(folder: pathlib.Path, name: str) -> FairnessReading:
  """HateXplain with the splits of its authors."""
  posts = _fairness_sets.read_hatexplain(folder / name)
  return FairnessReading(
    splits={
      split: tuple(p for p in posts if p.split == theirs)
      for split, theirs in (
        ("train", "train"),
        ("validation", "val"),
        ("test", "test"),
      )
    }
  )


def _help(repository: str, files: str) -> str:
  return (
    f"The files are {files} of github.com/{repository}. Pass the folder as"
    " manual_dir."
  )


FAIRNESS_SOURCES = {
  source.name: source
  for source in (
    Source(
      name="stereoset",
      summary="StereoSet, intrasentence clusters with three candidates",
      homepage="https://github.com/moinnadeem/StereoSet",
      license="CC-BY-SA-4.0",
      how_to_get=_help("moinnadeem/StereoSet", "data/dev.json"),
      layouts=(
        Layout(
          name="stereoset_json",
          files="dev.json",
          markers=("dev.json",),
          contents=("dev.json",),
          read=_one_split(_fairness_sets.read_stereoset, "dev.json"),
          options={"on_malformed": "error"},
        ),
        Layout(
          name="stereoset_jsonl",
          files="intrasentence.jsonl",
          markers=("intrasentence.jsonl",),
          contents=("intrasentence.jsonl",),
          read=_one_split(_fairness_sets.read_stereoset, "intrasentence.jsonl"),
          options={"on_malformed": "error"},
        ),
      ),
      downloads={"dev.json": f"{_STEREOSET}/data/dev.json"},
    ),
    Source(
      name="crows_pairs",
      summary="CrowS-Pairs, 1,508 pairs that differ in whom they are about",
      homepage="https://github.com/nyu-mll/crows-pairs",
      license="CC-BY-SA-4.0",
      how_to_get=_help("nyu-mll/crows-pairs", f"data/{_CROWS_FILE}"),
      layouts=(
        Layout(
          name="crows_pairs",
          files=_CROWS_FILE,
          markers=(_CROWS_FILE,),
          contents=(_CROWS_FILE,),
          read=_one_split(_fairness_sets.read_crows_pairs, _CROWS_FILE),
        ),
      ),
      downloads={_CROWS_FILE: f"{_CROWS}/data/{_CROWS_FILE}"},
      known_totals=(1508, 1508),
    ),
    Source(
      name="bold",
      summary="BOLD, 23,679 prompts about 43 groups in five domains",
      homepage="https://github.com/amazon-science/bold",
      license="CC-BY-SA-4.0",
      how_to_get=_help("amazon-science/bold", "prompts/*_prompt.json"),
      layouts=(
        Layout(
          name="bold",
          files="*_prompt.json",
          markers=("*_prompt.json",),
          contents=("*_prompt.json",),
          read=_one_split(_fairness_sets.read_bold, "."),
        ),
      ),
      downloads={
        f"{domain}_prompt.json": f"{_BOLD}/prompts/{domain}_prompt.json"
        for domain in _BOLD_DOMAINS
      },
      known_totals=(23_679, 23_679),
    ),
    Source(
      name="hatexplain",
      summary="HateXplain, posts with labels and target communities",
      homepage="https://github.com/hate-alert/HateXplain",
      license="MIT",
      how_to_get=_help(
        "hate-alert/HateXplain",
        "Data/dataset.json and Data/post_id_divisions.json",
      ),
      layouts=(
        Layout(
          name="hatexplain_json",
          files="dataset.json and post_id_divisions.json",
          markers=("dataset.json",),
          contents=("dataset.json", "post_id_divisions.json"),
          read=functools.partial(_read_posts, name="."),
        ),
        Layout(
          name="hatexplain_groups",
          files=f"{_GROUPS_FILE} (five merged groups)",
          markers=(_GROUPS_FILE,),
          contents=(_GROUPS_FILE,),
          read=functools.partial(_read_posts, name=_GROUPS_FILE),
        ),
      ),
      downloads={
        name: f"{_HATEXPLAIN}/Data/{name}"
        for name in ("dataset.json", "post_id_divisions.json")
      },
      known_totals=(19_229, 19_229),
    ),
    Source(
      name="madlibs",
      summary="Madlibs, 76,564 identity templates for toxicity classifiers",
      homepage=(
        "https://github.com/conversationai/unintended-ml-bias-analysis"
      ),
      license="CC-BY-4.0",
      how_to_get=_help(
        "conversationai/unintended-ml-bias-analysis",
        f"archive/unintended_ml_bias/eval_datasets/{_MADLIBS_FILE}",
      ),
      layouts=tuple(
        Layout(
          name=name,
          files=file,
          markers=(file,),
          contents=(file,),
          read=_one_split(_fairness_sets.read_madlibs, file),
        )
        for name, file in (
          ("madlibs", _MADLIBS_FILE),
          ("madlibs_gzip", f"{_MADLIBS_FILE}.gz"),
        )
      ),
      downloads={_MADLIBS_FILE: f"{_MADLIBS}/{_MADLIBS_FILE}"},
      known_totals=(76_564, 76_564),
    ),
  )
}
