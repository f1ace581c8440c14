"""Data sets by name: TFDS copies, their cache, and what goes wrong."""

import json
import pathlib
import subprocess
import sys

import pytest

from trustjax import data
from trustjax.data import _readers

GATED = {
  "train/seq.in": "play jazz\ngo to old york\nplay caf\u00e9\n",
  "train/seq.out": "O B-genre\nO O B-city I-city\nO B-artist\n",
  "train/label": "play\ngo\nplay\n",
  "valid/seq.in": "go\n",
  "valid/seq.out": "O\n",
  "valid/label": "go\n",
  "test/seq.in": "play\n",
  "test/seq.out": "O\n",
  "test/label": "play\n",
}


def write(folder, files):
  for name, content in files.items():
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(content, encoding="utf-8")
  return folder


@pytest.fixture
def manual(tmp_path):
  return write(tmp_path / "manual", GATED)


@pytest.fixture
def cache(tmp_path):
  return tmp_path / "cache"


def test_unknown_names_list_the_known_ones():
  with pytest.raises(ValueError, match=r"unknown dataset 'snip'.*'synthetic'"):
    data.load_corpus("snip")
  with pytest.raises(ValueError, match="unknown dataset 'x'"):
    data.dataset_help("x")
  assert data.dataset_names() == (
    "synthetic",
    "snips",
    "atis",
    "nlu_evaluation",
    "clinc150",
    "banking77",
  )
  for name in data.dataset_names():
    assert len(data.dataset_help(name)) > 20


def test_unknown_options_list_the_allowed_ones(manual, cache):
  with pytest.raises(ValueError, match=r"\['size'\].*'num_train'"):
    data.load_corpus("synthetic", size=3)
  with pytest.raises(ValueError, match=r"options \['fold'\] .*allowed: \[\]"):
    data.load_corpus("atis", manual_dir=manual, data_dir=cache, fold=3)


def test_the_synthetic_corpus_reads_no_files(manual):
  with pytest.raises(ValueError, match="the synthetic corpus is generated"):
    data.load_corpus("synthetic", manual_dir=manual)
  assert data.load_corpus("synthetic", manual_dir="", num_train=10)


def test_a_round_trip_keeps_every_utterance_in_order(manual, cache):
  expected = _readers.read_slot_gated(manual).splits
  for _ in range(2):  # Prepared, then read from the cache.
    corpus = data.load_corpus("snips", manual_dir=manual, data_dir=cache)
    for split in data.SPLITS:
      assert corpus.splits[split] == tuple(expected[split])
  assert corpus.name == "snips"
  assert corpus.license == "CC0-1.0"
  assert corpus.notes[0] == "read from layout slot_gated"
  assert list(cache.rglob("*.array_record*"))


def test_optional_fields_and_notes_survive_the_cache(tmp_path, cache):
  folder = write(
    tmp_path / "nlu",
    {
      "train.jsonl": "".join(
        json.dumps(
          {"scenario": "s", "intent": "s_i", "text": f"t{i}", "entities": []}
        )
        + "\n"
        for i in range(50)
      ),
      "test.jsonl": '{"intent": "s_i", "text": "a", "entities": []}\n',
    },
  )
  for _ in range(2):
    corpus = data.load_corpus(
      "nlu_evaluation", manual_dir=folder, data_dir=cache
    )
    assert corpus.train[0].domain == "s"
    assert corpus.train[0].user is None
    assert corpus.test[0].domain is None
    assert "no validation split in the source" in corpus.notes[1]


def test_changed_files_and_other_folders_never_meet_stale_data(
  manual, tmp_path, cache
):
  load = lambda folder: data.load_corpus(  # noqa: E731
    "atis", manual_dir=folder, data_dir=cache
  )
  assert load(manual).test[0].text == "play"
  write(manual, {"test/seq.in": "stop\n"})
  assert load(manual).test[0].text == "stop"
  other = write(tmp_path / "other", {**GATED, "test/seq.in": "hush\n"})
  assert load(other).test[0].text == "hush"
  write(manual, {"test/seq.in": "play\n"})
  assert load(manual).test[0].text == "play"
  # The same bytes elsewhere share one copy.
  copies = len(list((cache / "tfds").iterdir()))
  assert load(write(tmp_path / "same", GATED)).test[0].text == "play"
  assert len(list((cache / "tfds").iterdir())) == copies == 3


def test_other_options_never_meet_stale_data(tmp_path, cache):
  rows = "".join(f"text {i},x\n" for i in range(60))
  folder = write(
    tmp_path / "banking",
    {
      "train.csv": "text,category\n" + rows,
      "test.csv": "text,category\na,x\n",
    },
  )
  sizes = {
    share: len(
      data.load_corpus(
        "banking77",
        manual_dir=folder,
        data_dir=cache,
        validation_share=share,
      ).validation
    )
    for share in (0.1, 0.5)
  }
  assert sizes[0.1] < sizes[0.5]


def test_the_cache_folder_comes_from_the_environment(
  manual, tmp_path, monkeypatch
):
  monkeypatch.setenv("TRUSTJAX_CACHE_DIR", str(tmp_path / "from_env"))
  data.load_corpus("atis", manual_dir=manual)
  assert (tmp_path / "from_env" / "tfds").is_dir()


def test_a_damaged_copy_says_what_to_delete(manual, cache):
  data.load_corpus("atis", manual_dir=manual, data_dir=cache)
  for path in cache.rglob("*.array_record*"):
    path.write_bytes(b"damaged")
  with pytest.raises(ValueError, match=r"cannot be read .*delete that folder"):
    data.load_corpus("atis", manual_dir=manual, data_dir=cache)


def test_malformed_files_leave_nothing_behind(manual, cache):
  write(manual, {"train/seq.out": "O\nO O B-city I-city\nO B-artist\n"})
  for _ in range(2):
    with pytest.raises(ValueError, match=r"seq.out:1: 2 tokens but 1 tags"):
      data.load_corpus("snips", manual_dir=manual, data_dir=cache)
  write(manual, GATED)
  assert data.load_corpus("snips", manual_dir=manual, data_dir=cache)


def test_a_missing_file_is_named_with_how_to_get_it(manual, cache):
  (manual / "test/label").unlink()
  with pytest.raises(
    FileNotFoundError,
    match=r"dataset 'snips': missing file .*test.label.*MiuLab/SlotGated-SLU",
  ):
    data.load_corpus("snips", manual_dir=manual, data_dir=cache)


def test_a_missing_or_foreign_folder_is_named(tmp_path, cache):
  with pytest.raises(FileNotFoundError, match="nowhere is not a folder"):
    data.load_corpus("clinc150", manual_dir=tmp_path / "nowhere")
  folder = write(tmp_path / "foreign", {"notes.txt": "x"})
  with pytest.raises(
    FileNotFoundError,
    match=r"none of the accepted layouts \(it holds \['notes.txt'\]\). "
    r"Accepted layouts: data_full.json",
  ):
    data.load_corpus("clinc150", manual_dir=folder, data_dir=cache)


def test_atis_is_never_downloaded(cache):
  with pytest.raises(
    FileNotFoundError, match=r"'atis' needs manual_dir.*does not allow"
  ):
    data.load_corpus("atis", data_dir=cache)


def test_neither_tensorflow_nor_jax_is_imported(manual, cache):
  program = f"""
import sys
from trustjax import data
assert "tensorflow_datasets" not in sys.modules
assert "tokenizers" not in sys.modules
corpus = data.load_corpus(
  "snips", manual_dir={str(manual)!r}, data_dir={str(cache)!r}
)
data.prepare(corpus)
assert "tensorflow_datasets" in sys.modules
print("tensorflow" in sys.modules, "jax" in sys.modules, len(corpus.train))
"""
  root = pathlib.Path(data.__file__).parents[2]
  done = subprocess.run(
    [sys.executable, "-c", program],
    cwd=root,
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 0, done.stderr
  assert done.stdout.split()[-3:] == ["False", "False", "3"]
