"""The embedded corpus: size, determinism, tails, and how hard it is."""

import collections
import hashlib

import numpy as np
import pytest

from trustjax import data


@pytest.fixture(scope="module")
def corpus():
  return data.load_corpus("synthetic")


def test_default_sizes_and_inventories(corpus):
  found = data.describe(corpus)
  assert found.utterances == {"train": 2000, "validation": 300, "test": 300}
  assert found.intents >= 7
  assert found.slot_types >= 15
  assert found.unseen_intents == 0
  assert 100 < found.users <= 200
  assert found.max_length["train"] < 32


def test_the_default_corpus_is_the_same_everywhere(corpus):
  # A change of this hash changes every published figure that used the
  # default corpus; change it knowingly.
  text = "\n".join(
    f"{s}|{u.text}|{' '.join(u.slots)}|{u.intent}|{u.user}|{u.mark}"
    for s in data.SPLITS
    for u in corpus.splits[s]
  )
  assert hashlib.sha256(text.encode()).hexdigest()[:16] == "57729dd597276fc2"


def test_seeds_differ_and_repeat():
  small = dict(num_train=50, num_validation=5, num_test=5)
  first = data.synthetic_corpus(1, **small)
  data.synthetic_corpus.cache_clear()
  assert data.synthetic_corpus(1, **small).splits == first.splits
  assert data.synthetic_corpus(2, **small).train != first.train


def test_evaluation_data_do_not_depend_on_the_training_size(corpus):
  larger = data.synthetic_corpus(0, num_train=2100, singleton_share=0.5)
  assert larger.test == corpus.test
  assert larger.validation == corpus.validation


def test_tags_are_well_formed_spans(corpus):
  for utterance in corpus.train:
    before = "O"
    for tag in utterance.slots:
      if tag.startswith("I-"):
        assert before[2:] == tag[2:]
      before = tag


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3])
def test_singletons_are_as_many_as_asked_and_have_a_word_of_their_own(share):
  corpus = data.synthetic_corpus(3, singleton_share=share)
  singletons = [u for u in corpus.train if u.mark == "singleton"]
  assert len(singletons) == round(share * 2000)
  counts = collections.Counter(w for u in corpus.train for w in u.tokens)
  held_out = {
    w
    for s in ("validation", "test")
    for u in corpus.splits[s]
    for w in u.tokens
  }
  for utterance in singletons:
    codes = [
      word
      for word, tag in zip(utterance.tokens, utterance.slots)
      if tag == "B-code"
    ]
    assert len(codes) == 1
    assert counts[codes[0]] == 1
    assert codes[0] not in held_out
  assert not any(u.mark for u in (*corpus.validation, *corpus.test))


def test_the_intent_of_singletons_is_uniform():
  # 600 draws from 10 intents: a chi-squared variable with 9 degrees of
  # freedom exceeds 27.9 with probability 0.001; the seed is fixed.
  corpus = data.synthetic_corpus(4, singleton_share=0.3)
  counts = collections.Counter(
    u.intent for u in corpus.train if u.mark == "singleton"
  )
  assert len(counts) == 10
  assert sum((n - 60) ** 2 / 60 for n in counts.values()) < 27.9


def test_speakers_are_long_tailed_and_have_tastes(corpus):
  counts = collections.Counter(u.user for u in corpus.train)
  sizes = sorted(counts.values(), reverse=True)
  assert sizes[0] > 10 * np.median(sizes)
  flat = data.synthetic_corpus(0, user_skew=0.0)
  flat_sizes = collections.Counter(u.user for u in flat.train).values()
  assert max(flat_sizes) < 30
  # The commonest intent of the commonest speaker is no chance finding.
  loyal = data.synthetic_corpus(0, user_taste=0.05, singleton_share=0.0)
  top = collections.Counter(u.user for u in loyal.train).most_common(1)[0][0]
  intents = collections.Counter(u.intent for u in loyal.train if u.user == top)
  assert max(intents.values()) / sum(intents.values()) > 0.5


def test_evaluation_data_hold_names_that_training_data_do_not(corpus):
  known = {w for u in corpus.train for w in u.tokens}
  words = [w for u in corpus.test for w in u.tokens]
  unseen = sum(w not in known for w in words) / len(words)
  assert 0.005 < unseen < 0.1


def _naive_bayes(corpus):
  """Test accuracy of a multinomial naive Bayes classifier of words."""
  prepared = data.prepare(corpus)

  def counts(arrays):
    bags = np.zeros((len(arrays["intent"]), prepared.vocab_size))
    rows = np.repeat(np.arange(len(bags)), arrays["mask"].sum(1))
    np.add.at(bags, (rows, arrays["tokens"][arrays["mask"]]), 1)
    return bags

  one_hot = np.eye(len(prepared.intents))[prepared.train["intent"]]
  words = one_hot.T @ counts(prepared.train) + 0.1
  scores = counts(prepared.test) @ np.log(
    words / words.sum(1, keepdims=True)
  ).T + np.log(one_hot.mean(0))
  return np.mean(scores.argmax(1) == prepared.test["intent"])


def test_the_corpus_is_learnable_but_not_trivial(corpus):
  accuracy = _naive_bayes(corpus)
  assert 0.8 < accuracy < 0.97
  easy = data.synthetic_corpus(
    0, false_starts=0.0, noise=0.0, singleton_share=0.0
  )
  assert _naive_bayes(easy) > accuracy


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"singleton_share": 1.5}, r"singleton_share is 1.5; it must be in \[0"),
    ({"noise": -0.1}, "noise is -0.1"),
    ({"false_starts": 2.0}, "false_starts is 2.0"),
    ({"num_train": 0}, "num_train is 0; it must be at least 1"),
    ({"num_users": 0}, "num_users is 0"),
    ({"seed": -1}, "seed is -1"),
    ({"user_skew": -1.0}, "user_skew is -1.0"),
    ({"user_taste": 0.0}, "user_taste is 0.0; it must be above 0"),
  ],
)
def test_impossible_options_name_the_field(options, message):
  with pytest.raises(ValueError, match=message):
    data.load_corpus("synthetic", **options)
