"""Wordpieces: alignment with words, checked against a greedy matcher."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trustjax import data

PIECES = [
  "[PAD]",
  "[UNK]",
  "[CLS]",
  "[SEP]",
  "play",
  "the",
  "jazz",
  "##z",
  "##s",
  "a",
  "##b",
  "b",
  "c",
  "##c",
  "##a",
  "'",
  "##'",
]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
  path = tmp_path_factory.mktemp("vocab") / "vocab.txt"
  path.write_text("\n".join(PIECES) + "\n", encoding="utf-8")
  return data.load_wordpiece(path)


def test_the_first_piece_starts_the_word(tokenizer):
  ids, starts = tokenizer.encode_words(["Play", "the", "jazzs", "qqq"])
  assert tokenizer.decode(ids) == ["play", "the", "jazz", "##s", "[UNK]"]
  assert starts == [0, 1, 2, -1, 3]


def test_a_word_that_normalises_to_nothing_keeps_its_place(tokenizer):
  ids, starts = tokenizer.encode_words(["play", "\u200b", "the"])
  assert tokenizer.decode(ids) == ["play", "[UNK]", "the"]
  assert starts == [0, 1, 2]


def _greedy(word):
  """Longest match first, straight from the definition."""
  pieces, at = [], 0
  while at < len(word):
    for end in range(len(word), at, -1):
      piece = ("##" if at else "") + word[at:end]
      if piece in PIECES:
        break
    else:
      return ["[UNK]"]
    pieces.append(piece)
    at = end
  return pieces


@settings(deadline=None)
@given(st.lists(st.text("abcz", min_size=1, max_size=5), min_size=1))
def test_pieces_equal_greedy_longest_match(words):
  vocabulary = data.WordpieceTokenizer(tokens=tuple(PIECES))
  ids, starts = vocabulary.encode_words(words)
  assert vocabulary.decode(ids) == [p for w in words for p in _greedy(w)]
  assert [s for s in starts if s >= 0] == list(range(len(words)))


def test_specials_and_note(tokenizer):
  assert (tokenizer.pad, tokenizer.unk) == (0, 1)
  assert (tokenizer.cls, tokenizer.sep) == (2, 3)
  assert len(tokenizer) == len(PIECES)
  assert "does not depend on the training data" in tokenizer.guarantee_note


def test_bad_vocabularies(tmp_path):
  with pytest.raises(FileNotFoundError, match=r"vocab.txt does not exist"):
    data.load_wordpiece(tmp_path / "vocab.txt")
  path = tmp_path / "words.txt"
  path.write_text("the\nof\n")
  with pytest.raises(ValueError, match=r"words.txt: .* has no '\[PAD\]'"):
    data.load_wordpiece(path)
  path.write_text("a\n[PAD]\n[UNK]\n[CLS]\n[SEP]\n")
  with pytest.raises(ValueError, match=r"\[PAD\] has id 1"):
    data.load_wordpiece(path)
