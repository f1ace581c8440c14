"""Plays by role: windows, held-out ends, the alphabet, bad files."""

import json

import numpy as np
import pytest

from trustjax import data

SPEECHES = [
  ("p", "A", "abcdefgh" * 5),
  ("p", "B", "xy"),
  ("p", "A", "ijkl"),
  ("q", "A", "mm"),
]


def write(folder, speeches=SPEECHES):
  lines = [
    json.dumps({"play": play, "act": 1, "role": role, "text": text})
    for play, role, text in speeches
  ]
  (folder / "roles.jsonl").write_text("\n".join(lines) + "\n")


def text_of(corpus, split, row):
  arrays = getattr(corpus, split)
  tokens = arrays["tokens"][row][arrays["mask"][row]]
  return "".join(corpus.characters[token] for token in tokens)


def test_a_role_is_cut_into_windows_and_its_end_is_held_out(tmp_path):
  write(tmp_path)
  corpus = data.load_plays(tmp_path, length=5, test_share=0.2)
  # 45 characters of A make 9 windows: 8 - 0 train, 0 validation, 1 test.
  assert corpus.roles.tolist() == ["p/A"] * 8 + ["p/B", "q/A"]
  assert corpus.plays.tolist() == ["p"] * 9 + ["q"]
  assert text_of(corpus, "train", 0) == "abcde"
  assert text_of(corpus, "train", 8) == "xy"
  assert corpus.train["tokens"].shape == (10, 5)
  # The end of A, a newline between its two speeches and the second: none of it
  # is in what is trained on.
  assert text_of(corpus, "test", 0) == "<unknown>" * 5
  assert corpus.characters[:2] == ("<pad>", "<unknown>")
  assert len(corpus.validation["tokens"]) == 0
  assert corpus.train["mask"].dtype == bool


def test_the_fingerprint_sees_the_text(tmp_path):
  write(tmp_path)
  first = data.load_plays(tmp_path, length=5).fingerprint()
  assert first == data.load_plays(tmp_path, length=5).fingerprint()
  assert first != data.load_plays(tmp_path, length=6).fingerprint()
  write(tmp_path, [*SPEECHES, ("q", "C", "new")])
  assert first != data.load_plays(tmp_path, length=5).fingerprint()


def test_bad_files_and_arguments(tmp_path):
  with pytest.raises(FileNotFoundError, match="found 0 files"):
    data.load_plays(tmp_path)
  (tmp_path / "roles.jsonl").write_text('{"play": "p"}\n')
  with pytest.raises(ValueError, match="line 1: expected a JSON object"):
    data.load_plays(tmp_path)
  write(tmp_path)
  with pytest.raises(ValueError, match="length: got 1"):
    data.load_plays(tmp_path, length=1)
  with pytest.raises(ValueError, match="validation_share, test_share: got"):
    data.load_plays(tmp_path, validation_share=0.5, test_share=0.5)


def test_the_real_plays(data_dir):
  corpus = data.load_plays(data_dir / "shakespeare")
  assert 250 < len(set(corpus.roles)) <= 305
  assert len(set(corpus.plays)) == 8
  held_out = len(corpus.test["tokens"]) + len(corpus.validation["tokens"])
  assert 0.1 < held_out / len(corpus.train["tokens"]) < 0.25
  known = np.mean(corpus.test["tokens"][corpus.test["mask"]] > 1)
  assert known > 0.999
