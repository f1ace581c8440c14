"""Texts as a stream, packed and padded sequences, held-out texts."""

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from trustjax import data

_END = 99


def _write(folder, name, text):
  (folder / name).write_text(text, encoding="utf-8")
  return folder / name


class TestReadTexts:
  def test_blank_lines(self, tmp_path):
    one = _write(tmp_path, "a", "TITLE\n\nOne\n  two.\n\n\n\nThree\n")
    other = _write(tmp_path, "b", "\nFour")
    assert [*data.read_texts([one, other])] == [
      "TITLE",
      "One two.",
      "Three",
      "Four",
    ]
    assert [*data.read_texts([one], min_chars=6)] == ["One two."]

  def test_end_of_text(self, tmp_path):
    path = _write(
      tmp_path, "a", "One.\n\nStill one.\n<|endoftext|>\nTwo.\n<|endoftext|>\n"
    )
    texts = data.read_texts([path], separator="end_of_text")
    assert [*texts] == ["One. Still one.", "Two."]

  def test_is_lazy(self, tmp_path):
    path = _write(tmp_path, "a", "one\n\ntwo\n")
    texts = data.read_texts([path, tmp_path / "missing"])
    assert [next(texts), next(texts)] == ["one", "two"]
    with pytest.raises(FileNotFoundError, match="missing"):
      next(texts)

  def test_is_lazy_within_a_file(self, tmp_path):
    (tmp_path / "a").write_bytes(b"one\n\n" + b"two\n\n" * 100_000 + b"\xff")
    texts = data.read_texts([tmp_path / "a"])
    assert next(texts) == "one"
    with pytest.raises(ValueError, match="a: not UTF-8 text"):
      list(texts)

  def test_bad_input(self, tmp_path):
    with pytest.raises(ValueError, match="separator: got 'tab'"):
      next(data.read_texts([], separator="tab"))
    empty = _write(tmp_path, "a", "\n\n")
    with pytest.raises(ValueError, match="no text of at least 1 characters"):
      next(data.read_texts([empty]))
    (tmp_path / "b").write_bytes(b"\xff\xfe\n\n")
    with pytest.raises(ValueError, match="b: not UTF-8 text"):
      next(data.read_texts([tmp_path / "b"]))


class TestPackTexts:
  @hypothesis.settings(deadline=None)
  @hypothesis.given(
    texts=st.lists(st.lists(st.integers(0, 9), max_size=12), min_size=1),
    length=st.integers(2, 9),
  )
  def test_no_token_is_lost_and_none_moved(self, texts, length):
    stream = [token for text in texts for token in (_END, *text)]
    if len(stream) < 2:
      return
    packed = data.pack_texts(texts, length=length, end_of_text=_END)
    tokens, mask = packed["tokens"], packed["mask"]
    found = tokens[mask].tolist()
    # A single left-over token predicts nothing and is dropped.
    assert found == stream[: len(found)]
    assert len(stream) - len(found) <= 1
    assert np.all(mask[:-1])
    assert np.all(np.diff(mask.astype(int), axis=1) <= 0)
    assert not tokens[~mask].any()

  def test_by_hand(self):
    packed = data.pack_texts([[1, 2], [3]], length=3, end_of_text=_END)
    np.testing.assert_array_equal(
      packed["tokens"], [[_END, 1, 2], [_END, 3, 0]]
    )
    np.testing.assert_array_equal(packed["mask"][1], [True, True, False])
    dropped = data.pack_texts(
      [[1, 2], [3]], length=3, end_of_text=_END, keep_rest=False
    )
    np.testing.assert_array_equal(dropped["tokens"], [[_END, 1, 2]])
    assert dropped["tokens"].dtype == np.int32

  def test_bad_input(self):
    with pytest.raises(ValueError, match="length: got 1"):
      data.pack_texts([[1]], length=1, end_of_text=_END)
    with pytest.raises(ValueError, match="fewer tokens than one sequence"):
      data.pack_texts([[1]], length=4, end_of_text=_END, keep_rest=False)


def test_pad_texts():
  padded = data.pad_texts([[1], [2, 3, 4, 5]], length=4, end_of_text=_END)
  np.testing.assert_array_equal(
    padded["tokens"], [[_END, 1, _END, 0], [_END, 2, 3, 4]]
  )
  np.testing.assert_array_equal(padded["mask"].sum(axis=1), [3, 4])
  with pytest.raises(ValueError, match="there are none"):
    data.pad_texts([], length=4, end_of_text=_END)
  with pytest.raises(ValueError, match="length: got 1"):
    data.pad_texts([[1]], length=1, end_of_text=_END)


class TestSplitTexts:
  _TEXTS = [f"text {i % 60}" for i in range(100)]

  def test_copies_stay_together_and_order_is_kept(self):
    kept, aside = data.split_texts(self._TEXTS, held_out=0.25, seed=0)
    assert not set(kept) & set(aside)
    assert len(set(aside)) == 15 and len(kept) + len(aside) == 100
    assert kept == [text for text in self._TEXTS if text in set(kept)]

  def test_the_seed_decides(self):
    one, same, other = (
      data.split_texts(self._TEXTS, held_out=0.25, seed=seed)
      for seed in (0, 0, 1)
    )
    assert one == same != other

  def test_bad_input(self):
    with pytest.raises(ValueError, match="held_out: got 1"):
      data.split_texts(["a", "b"], held_out=1, seed=0)
    with pytest.raises(ValueError, match="leaves one side empty"):
      data.split_texts(["a", "a"], held_out=0.5, seed=0)


def test_real_stories(data_dir):
  path = data_dir / "tinystories_2mb" / "tinystories_sample.txt"
  texts = [*data.read_texts([path], separator="end_of_text")]
  assert len(texts) == 2317
  assert data.END_OF_TEXT not in "".join(texts)
