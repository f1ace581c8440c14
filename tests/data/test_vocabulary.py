"""Word vocabularies: order, limits, sources, and the note they carry."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trustjax import data


def utterances(*texts):
  return [
    data.Utterance(
      tokens=tuple(t.split()), slots=("O",) * len(t.split()), intent="x"
    )
    for t in texts
  ]


def test_words_are_listed_by_count_then_alphabet():
  vocabulary = data.build_vocabulary(utterances("b a c", "B a", "a"))
  assert vocabulary.tokens == ("<pad>", "<unk>", "a", "b", "c")
  assert vocabulary.encode(["A", "c", "zebra"]) == [2, 4, 1]
  assert vocabulary.decode([0, 1, 2]) == ["<pad>", "<unk>", "a"]
  assert (vocabulary.pad, vocabulary.unk, len(vocabulary)) == (0, 1, 5)


def test_limits():
  texts = utterances("a a a b b c")
  assert data.build_vocabulary(texts, min_count=2).tokens[2:] == ("a", "b")
  assert data.build_vocabulary(texts, max_size=3).tokens[2:] == ("a",)
  assert data.build_vocabulary(texts, max_size=2).tokens[2:] == ()
  with pytest.raises(ValueError, match="min_count is 0"):
    data.build_vocabulary(texts, min_count=0)
  with pytest.raises(ValueError, match="max_size is 1"):
    data.build_vocabulary(texts, max_size=1)


def test_case_can_be_kept():
  vocabulary = data.build_vocabulary(utterances("A a"), lowercase=False)
  assert vocabulary.tokens[2:] == ("A", "a")
  assert vocabulary.encode(["A", "a"]) == [2, 3]


def test_words_that_look_like_specials_do_not_collide():
  vocabulary = data.build_vocabulary(utterances("<pad> <unk> a"))
  assert vocabulary.tokens == ("<pad>", "<unk>", "a")


@given(st.lists(st.text("abcAB", min_size=1, max_size=2), min_size=1))
def test_every_training_word_is_known_whatever_the_order(words):
  vocabulary = data.build_vocabulary(utterances(" ".join(words)))
  reverse = data.build_vocabulary(utterances(" ".join(words[::-1])))
  assert vocabulary == reverse
  ids = vocabulary.encode(words)
  assert min(ids) >= 2
  assert vocabulary.decode(ids) == [w.lower() for w in words]


def test_a_vocabulary_of_training_data_says_it_is_outside_the_guarantee():
  note = data.build_vocabulary(utterances("a")).guarantee_note
  assert "outside the differential privacy guarantee" in note


def test_a_public_file_is_read_and_says_so(tmp_path):
  path = tmp_path / "words.txt"
  path.write_text("the\nThe\n\n<unk>\nof\n", encoding="utf-8")
  vocabulary = data.load_vocabulary(path)
  assert vocabulary.tokens == ("<pad>", "<unk>", "the", "of")
  assert vocabulary.source == "public file"
  assert "does not depend on the training data" in vocabulary.guarantee_note


def test_bad_vocabulary_files(tmp_path):
  with pytest.raises(FileNotFoundError, match=r"nothing.txt does not exist"):
    data.load_vocabulary(tmp_path / "nothing.txt")
  (tmp_path / "empty.txt").write_text("\n")
  with pytest.raises(ValueError, match=r"empty.txt is empty"):
    data.load_vocabulary(tmp_path / "empty.txt")
  (tmp_path / "glove.txt").write_text("the\nof 0.1 0.2\n")
  with pytest.raises(ValueError, match=r"glove.txt:2: 3 words on one line"):
    data.load_vocabulary(tmp_path / "glove.txt")


def test_impossible_vocabularies_are_refused():
  with pytest.raises(ValueError, match="starts with '<pad>', '<unk>'"):
    data.Vocabulary(tokens=("a", "b"), source="public file")
  with pytest.raises(ValueError, match="lists 'a' more than once"):
    data.Vocabulary(tokens=("<pad>", "<unk>", "a", "a"), source="public file")
  with pytest.raises(ValueError, match="source is 'web'"):
    data.Vocabulary(tokens=("<pad>", "<unk>"), source="web")
