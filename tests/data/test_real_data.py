"""Known counts of the real data sets; needs TRUSTJAX_DATA_DIR."""

import json

import pytest

from trustjax import data
from trustjax.data import _readers
from trustjax.data._readers import _bracketed


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
  return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def snips(data_dir, cache):
  return data.load_corpus(
    "snips", manual_dir=data_dir / "snips", data_dir=cache
  )


def test_snips(snips):
  found = data.describe(snips)
  assert found.utterances == {"train": 13084, "validation": 700, "test": 700}
  assert (found.intents, found.slot_labels, found.slot_types) == (7, 72, 39)
  assert found.word_types == 11418  # Without the two special tokens.
  assert max(found.max_length.values()) == 35
  assert (found.surplus_copies, found.most_copies) == (225, 13)
  assert found.test_texts_in_train == 26
  assert found.majority_accuracy == pytest.approx(0.123, abs=5e-4)
  assert (found.unseen_intents, found.unseen_slot_tags) == (0, 0)


def test_snips_without_repeats(snips):
  clean = data.describe(data.drop_repeats(snips))
  assert (clean.surplus_copies, clean.test_texts_in_train) == (0, 0)
  assert clean.utterances["train"] < 13084 - 225


def test_snips_as_words(snips):
  prepared = data.prepare(snips, max_chars=12)
  assert prepared.vocab_size == 11418 + 2
  assert prepared.max_length == 35
  assert prepared.train["chars"].shape == (13084, 35, 12)
  assert all(t.words == 0 for t in prepared.truncation.values())
  assert (prepared.test["intent"] >= 0).all()
  assert (prepared.test["slots"] >= 0).all()


def test_snips_as_wordpieces(snips, data_dir):
  vocab = data_dir / "tokenizers" / "bert-base-uncased" / "vocab.txt"
  prepared = data.prepare(snips, tokenizer="wordpiece", vocabulary_file=vocab)
  assert prepared.vocab_size == 30522
  words = sum(len(u.tokens) for u in snips.train)
  assert prepared.train["slot_mask"].sum() == words
  assert prepared.train["mask"].sum() > words + 2 * len(snips.train)


def test_nlu_evaluation_fold_one(data_dir, cache):
  folder = data_dir / "nlu_eval_hwu"
  corpus = data.load_corpus("nlu_evaluation", manual_dir=folder, data_dir=cache)
  found = data.describe(corpus).utterances
  assert found["train"] + found["validation"] == 9960
  assert found["test"] == 1076
  assert 900 < found["validation"] < 1100
  labelled = [u for s in ("train", "validation") for u in corpus.splits[s]]
  assert len({u.intent for u in labelled}) == 64
  assert len({u.domain for u in labelled}) == 18
  types = {tag[2:] for u in labelled for tag in u.slots if tag != "O"}
  assert len(types) == 54


def test_nlu_evaluation_spans_equal_its_brackets(data_dir):
  with (data_dir / "nlu_eval_hwu" / "test.jsonl").open() as lines:
    for line in lines:
      row = json.loads(line)
      text, entities = _bracketed.parse_brackets(row["annotated"])
      assert text == row["text"]
      assert entities == [tuple(e) for e in row["entities"]]


def test_clinc150(data_dir, cache):
  folder = data_dir / "clinc150"
  corpus = data.load_corpus("clinc150", manual_dir=folder, data_dir=cache)
  found = data.describe(corpus)
  assert tuple(found.utterances.values()) == (15000, 3000, 4500)
  assert found.intents == 150
  assert corpus.slot_labels == ("O",)
  assert len({u.domain for u in corpus.train}) == 10
  everything = _readers.read_clinc150(folder, out_of_scope=True).splits
  assert [len(everything[s]) for s in data.SPLITS] == [15100, 3100, 5500]
  assert len({u.intent for u in everything["train"]}) == 151


def test_banking77(data_dir, cache):
  corpus = data.load_corpus(
    "banking77", manual_dir=data_dir / "banking77", data_dir=cache
  )
  found = data.describe(corpus)
  assert found.utterances["train"] + found.utterances["validation"] == 10003
  assert found.utterances["test"] == 3080
  assert found.intents == 77
  assert corpus.slot_labels == ("O",)
