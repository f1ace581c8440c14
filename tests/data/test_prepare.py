"""One call from a corpus to arrays."""

import numpy as np
import pytest

from trustjax import data

SMALL = dict(num_train=60, num_validation=10, num_test=10)


@pytest.fixture(scope="module")
def corpus():
  return data.load_corpus("synthetic", **SMALL)


def test_default_fits_every_training_utterance(corpus):
  prepared = data.prepare(corpus, max_chars=6)
  longest = max(len(u.tokens) for u in corpus.train)
  assert prepared.max_length == longest
  assert prepared.train["tokens"].shape == (60, longest)
  assert prepared.train["chars"].shape == (60, longest, 6)
  assert prepared.num_train == 60
  assert prepared.vocab_size == len(prepared.vocabulary)
  assert prepared.truncation["train"].utterances == 0
  assert prepared.characters == data.CHARACTERS
  assert prepared.split("test") is prepared.test
  with pytest.raises(ValueError, match="split is 'dev'"):
    prepared.split("dev")


def test_arrays_decode_to_the_utterances(corpus):
  prepared = data.prepare(corpus)
  for row, utterance in enumerate(corpus.train):
    valid = prepared.train["mask"][row]
    words = prepared.vocabulary.decode(prepared.train["tokens"][row][valid])
    tags = [
      prepared.slot_labels[i] for i in prepared.train["slots"][row][valid]
    ]
    assert words == list(utterance.tokens)
    assert tags == list(utterance.slots)
    intent = prepared.train["intent"][row]
    assert prepared.intents[intent] == utterance.intent


def test_the_vocabulary_is_built_from_training_data_only(corpus):
  vocabulary = data.prepare(corpus).vocabulary
  trained = {w for u in corpus.train for w in u.tokens}
  assert set(vocabulary.tokens[2:]) == trained


def test_notes_tell_what_a_guarantee_leaves_out_and_what_was_cut(corpus):
  notes = "\n".join(data.prepare(corpus, max_length=4, max_chars=2).notes)
  assert "outside the differential privacy guarantee" in notes
  assert "longer than max_length 4 and lost" in notes
  assert "longer than max_chars 2" in notes
  default = "\n".join(data.prepare(corpus).notes)
  assert "is the length of the longest training utterance" in default
  assert "lost" not in default.split("longest training utterance")[0]


def test_public_vocabularies(corpus, tmp_path):
  words = tmp_path / "words.txt"
  words.write_text("play\nthe\n")
  prepared = data.prepare(corpus, vocabulary_file=words, max_length=20)
  assert prepared.vocab_size == 4
  assert not any("outside" in note for note in prepared.notes)
  pieces = tmp_path / "vocab.txt"
  pieces.write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\nplay\n")
  prepared = data.prepare(corpus, tokenizer="wordpiece", vocabulary_file=pieces)
  longest = max(len(u.tokens) for u in corpus.train)
  assert prepared.max_length == longest + 2
  ready = data.prepare(corpus, tokenizer=prepared.vocabulary)
  assert ready.fingerprint() == prepared.fingerprint()


def test_the_fingerprint_changes_with_anything_a_model_sees(corpus):
  base = data.prepare(corpus).fingerprint()
  assert data.prepare(corpus).fingerprint() == base
  other = data.load_corpus("synthetic", **{**SMALL, "noise": 0.5})
  assert data.prepare(other).fingerprint() != base
  assert data.prepare(corpus, min_count=2).fingerprint() != base
  assert data.prepare(corpus, max_length=30).fingerprint() != base
  swapped = corpus.replace_split("train", corpus.train[::-1], "reversed")
  assert data.prepare(swapped).fingerprint() != base


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"tokenizer": "char"}, "tokenizer is 'char'; it must be 'word'"),
    ({"tokenizer": "wordpiece"}, "needs vocabulary_file"),
    (
      {"vocabulary_file": "x", "min_count": 2},
      "min_count=2 and max_size=None only apply",
    ),
  ],
)
def test_contradictory_options(corpus, options, message):
  with pytest.raises(ValueError, match=message):
    data.prepare(corpus, **options)


def test_a_lot_of_the_prepared_arrays(corpus):
  prepared = data.prepare(corpus)
  lot = data.gather(prepared.train, np.arange(12).reshape(3, 4))
  assert lot["intent"].shape == (3, 4)
  assert lot["tokens"].shape == (3, 4, prepared.max_length)
