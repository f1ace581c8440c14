"""Bias in Bios in the layouts in which it is published."""

import json
import pathlib
import pickle

import pytest

from trustjax import data

_NURSE = data.BIOGRAPHY_OCCUPATIONS.index("nurse")


def _pickled(count=20):
  """Records of BIOS.pkl: the first sentence names the occupation."""
  first = "Ann Lee is a nurse."
  return [
    {
      "raw": f"{first} She has written {i} books.",
      "start_pos": len(first),
      "title": "nurse" if i % 2 else "surgeon",
      "gender": "F" if i % 4 else "M",
      "bio": f" _ has written {i} books.",
      "name": ("Ann", None, "Lee"),
    }
    for i in range(count)
  ]


def _copied(numbers):
  """Records of the copy in Parquet."""
  return [
    {
      "hard_text": f"She has written {i} books.",
      "profession": _NURSE,
      "gender": i % 2,
    }
    for i in numbers
  ]


def _write_lines(path, records):
  path.write_text("\n".join(map(json.dumps, records)) + "\n")


def test_the_pickle_is_split(tmp_path):
  path = tmp_path / "BIOS.pkl"
  path.write_bytes(pickle.dumps(_pickled()))
  found = data.read_bias_in_bios(path)
  assert len(found["train"]) == 13 and len(found["test"]) == 5
  texts = {one.text for split in found.values() for one in split}
  assert len(texts) == 18
  for one in (*found["train"], *found["test"]):
    number = int(one.text.split()[3])
    assert one.text == f"She has written {number} books."
    assert one.occupation == ("nurse" if number % 2 else "surgeon")
    assert one.female == (number % 4 != 0)
  assert data.read_bias_in_bios(path) == found
  assert data.read_bias_in_bios(path, seed=1) != found


def test_a_folder_has_its_own_splits(tmp_path):
  _write_lines(tmp_path / "train-00000-of-00002.jsonl", _copied(range(4)))
  _write_lines(tmp_path / "train-00001-of-00002.jsonl", _copied(range(4, 7)))
  _write_lines(tmp_path / "test.jsonl", _copied(range(7, 9)))
  found = data.read_bias_in_bios(tmp_path)
  assert [one.text.split()[3] for one in found["train"]] == list("0123456")
  assert [one.female for one in found["test"]] == [True, False]
  assert {one.occupation for one in found["train"]} == {"nurse"}


def test_parquet(tmp_path):
  pa = pytest.importorskip("pyarrow")
  parquet = pytest.importorskip("pyarrow.parquet")
  for split in ("train", "test"):
    parquet.write_table(
      pa.Table.from_pylist(_copied(range(3))),
      tmp_path / f"{split}-00000-of-00001.parquet",
    )
  found = data.read_bias_in_bios(tmp_path)
  assert found["train"] == found["test"] and len(found["train"]) == 3


def test_what_is_missing_is_named(tmp_path):
  with pytest.raises(FileNotFoundError, match="there is no .*BIOS.pkl.*LabHC"):
    data.read_bias_in_bios(tmp_path / "BIOS.pkl")
  _write_lines(tmp_path / "train.jsonl", _copied(range(2)))
  with pytest.raises(FileNotFoundError, match="has no file test"):
    data.read_bias_in_bios(tmp_path)


@pytest.mark.parametrize(
  ("record", "message"),
  [
    ({"text": "x", "gender": 0}, r"record 0: has the fields \['gender', 'text"),
    ({"hard_text": "x", "profession": 28, "gender": 0}, "profession 28 is not"),
    ({"hard_text": "x", "profession": 1, "gender": 2}, "gender 2 is none of"),
    ([1], "record 0: got list; a dict"),
  ],
)
def test_another_layout(record, message, tmp_path):
  path = tmp_path / "bios.jsonl"
  _write_lines(path, [record])
  with pytest.raises(ValueError, match=message):
    data.read_bias_in_bios(path)


def test_another_kind_of_file(tmp_path):
  path = tmp_path / "bios.csv"
  path.write_text("a,b\n")
  with pytest.raises(ValueError, match="got bios.csv; allowed are .pkl"):
    data.read_bias_in_bios(path)


class _Runs:
  """A pickle that runs a function when it is read without care."""

  def __init__(self, path):
    self.path = path

  def __reduce__(self):
    return pathlib.Path.touch, (self.path,)


def test_a_pickle_runs_nothing(tmp_path):
  path, ran = tmp_path / "BIOS.pkl", tmp_path / "ran"
  path.write_bytes(pickle.dumps([_Runs(ran)]))
  with pytest.raises(ValueError, match="the pickle asks for"):
    data.read_bias_in_bios(path)
  assert not ran.exists()
