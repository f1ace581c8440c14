"""TFDS builders of the fairness sets: a round trip keeps every record."""

import gzip
import json

import pytest

from trustjax import data
from trustjax.data import tfds_builders

CLUSTER = {
  "id": "a1",
  "bias_type": "gender",
  "target": "aunt",
  "context": "My aunt is BLANK today.",
  "sentences": [
    {"sentence": "My aunt is kind today.", "gold_label": "stereotype"},
    {"sentence": "My aunt is fish today.", "gold_label": "unrelated"},
    {"sentence": "My aunt is rude today.", "gold_label": "anti-stereotype"},
  ],
}
CROWS = (
  ",sent_more,sent_less,stereo_antistereo,bias_type,annotations,anon_writer,"
  "anon_annotators\n"
  '0,"She cooks, he eats.","He cooks, he eats.",stereo,gender,[],a0,[]\n'
  "1,Old men sleep.,Young men sleep.,antistereo,age,[],a0,[]\n"
)
POSTS = (
  "split,label,text,label_gender,label_religion,label_race,label_economic,"
  "label_minority\n"
  "train,0,a kind word,0,0,0,0,0\n"
  "test,2,a hateful word,1,0,1,0,0\n"
)
MADLIBS = "Text,Label,Template\nI love cats,NOT_BAD,t1\nI hate cats,BAD,t2\n"


def make_folder(name, folder):
  """The smallest copy of a set in one of its layouts."""
  folder.mkdir()
  files = {
    "stereoset": {
      "dev.json": json.dumps({"data": {"intrasentence": [CLUSTER]}})
    },
    "crows_pairs": {"crows_pairs_anonymized.csv": CROWS},
    "bold": {
      "gender_prompt.json": json.dumps(
        {"American_actors": {"A_B": ["A B is an ", "A B was a "]}}
      )
    },
    "hatexplain": {"hatexplain_groups.csv": POSTS},
    "madlibs": {"bias_madlibs_77k.csv": MADLIBS},
  }[name]
  for file, text in files.items():
    (folder / file).write_text(text, encoding="utf-8")
  return folder


READERS = {
  "stereoset": (data.read_stereoset, "dev.json"),
  "crows_pairs": (data.read_crows_pairs, "crows_pairs_anonymized.csv"),
  "bold": (data.read_bold, "."),
  "hatexplain": (data.read_hatexplain, "hatexplain_groups.csv"),
  "madlibs": (data.read_madlibs, "bias_madlibs_77k.csv"),
}


@pytest.mark.parametrize("name", tfds_builders.FAIRNESS_BUILDERS)
def test_a_round_trip_keeps_every_record(name, tmp_path):
  folder = make_folder(name, tmp_path / name)
  read, file = READERS[name]
  expected = read(folder / file)
  assert expected
  for _ in range(2):  # Prepared, then read from the cache.
    builder = tfds_builders.FAIRNESS_BUILDERS[name](
      manual_dir=folder, data_dir=tmp_path / "cache"
    )
    found = builder.records()
    assert sum(found.values(), ()) == expected
  assert list((tmp_path / "cache").rglob("*.array_record*"))


def test_splits_of_hatexplain_are_those_of_its_authors(tmp_path):
  folder = make_folder("hatexplain", tmp_path / "hate")
  found = tfds_builders.HateXplain(
    manual_dir=folder, data_dir=tmp_path / "cache"
  ).records()
  assert list(found) == ["train", "test"]
  assert found["test"][0].communities == ("gender", "race")


def test_gzipped_madlibs(tmp_path):
  with gzip.open(tmp_path / "bias_madlibs_77k.csv.gz", "wt") as file:
    file.write(MADLIBS)
  found = tfds_builders.Madlibs(
    manual_dir=tmp_path, data_dir=tmp_path / "cache"
  ).records()
  assert [record.toxic for record in found["test"]] == [False, True]


def test_changed_files_are_prepared_anew(tmp_path):
  folder = make_folder("madlibs", tmp_path / "madlibs")
  path = folder / "bias_madlibs_77k.csv"
  for extra in (0, 1):
    path.write_text(MADLIBS + "I see cats,NOT_BAD,t3\n" * extra)
    found = tfds_builders.Madlibs(
      manual_dir=folder, data_dir=tmp_path / "cache"
    ).records()
    assert len(found["test"]) == 2 + extra


def test_bad_folders_and_options(tmp_path):
  with pytest.raises(FileNotFoundError, match="is not a folder.*dev.json"):
    tfds_builders.StereoSet(manual_dir=tmp_path / "none", data_dir=tmp_path)
  (tmp_path / "empty").mkdir()
  with pytest.raises(FileNotFoundError, match="none of the accepted layouts"):
    tfds_builders.CrowsPairs(manual_dir=tmp_path / "empty", data_dir=tmp_path)
  folder = make_folder("bold", tmp_path / "bold")
  with pytest.raises(ValueError, match=r"unknown options \['size'\]"):
    tfds_builders.Bold(manual_dir=folder, data_dir=tmp_path, size=3)


def test_downloads_are_pinned():
  for builder in tfds_builders.FAIRNESS_BUILDERS.values():
    source = tfds_builders.FAIRNESS_SOURCES[builder.SOURCE]
    for url in source.downloads.values():
      commit = url.split("/")[5]
      assert len(commit) == 40 and set(commit) <= set("0123456789abcdef")


@pytest.mark.slow  # Stores 76,564 records.
@pytest.mark.parametrize(
  ("name", "folder", "total"),
  [
    ("stereoset", "stereoset", 3363),
    ("crows_pairs", "crows_pairs", 1508),
    ("bold", "bold", 23_679),
    ("hatexplain", "hatexplain", 18_962),
    ("madlibs", "wiki_toxicity_bias", 76_564),
  ],
)
def test_real_copies(name, folder, total, data_dir, tmp_path):
  options = {"on_malformed": "skip"} if name == "stereoset" else {}
  found = tfds_builders.FAIRNESS_BUILDERS[name](
    manual_dir=data_dir / folder, data_dir=tmp_path, **options
  ).records()
  count = sum(map(len, found.values()))
  assert total - 3 <= count <= total
