"""What a corpus is: validation, inventories and statistics."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trustjax import data


def utterance(text="play jazz", slots="O B-genre", intent="play", **fields):
  return data.Utterance(
    tokens=tuple(text.split()),
    slots=tuple(slots.split()),
    intent=intent,
    **fields,
  )


def corpus(train, validation=None, test=None):
  return data.NluCorpus(
    name="toy",
    splits={
      "train": tuple(train),
      "validation": tuple(validation or train),
      "test": tuple(test or train),
    },
    license="none",
  )


@pytest.mark.parametrize(
  ("fields", "message"),
  [
    (dict(tokens=("a", "b"), slots=("O",)), "2 tokens but 1 tags"),
    (dict(tokens=(), slots=()), "at least one token"),
    (dict(tokens=("a",), slots=("X-y",)), "'X-y' is not a BIO tag"),
    (dict(tokens=("a",), slots=("B-",)), "'B-' is not a BIO tag"),
    (dict(tokens=("a b",), slots=("O",)), "holds a space"),
    (dict(tokens=("",), slots=("O",)), "is empty"),
    (dict(tokens=("a",), slots=("O",), intent=""), "needs an intent"),
  ],
)
def test_impossible_utterances_are_refused(fields, message):
  with pytest.raises(ValueError, match=message):
    data.Utterance(**{"intent": "x", **fields})


def test_utterances_are_frozen():
  with pytest.raises(dataclasses.FrozenInstanceError):
    utterance().intent = "other"


def test_inventories_come_from_the_training_split_with_o_first():
  one = corpus(
    [utterance(), utterance("go b", "O I-city", "go")],
    test=[utterance("hey", "B-unseen", "unseen")],
  )
  assert one.intents == ("go", "play")
  assert one.slot_labels == ("O", "B-genre", "I-city")
  assert one.slot_types == ("city", "genre")


def test_missing_and_empty_splits_are_refused():
  with pytest.raises(ValueError, match=r"has splits \['train'\]"):
    data.NluCorpus(name="x", splits={"train": (utterance(),)}, license="")
  with pytest.raises(ValueError, match="split 'test' is empty"):
    data.NluCorpus(
      name="x",
      splits={
        "train": (utterance(),),
        "validation": (utterance(),),
        "test": (),
      },
      license="",
    )


def test_describe_counts_a_corpus_counted_by_hand():
  train = [
    utterance("a b", "O B-x", "one", user="u"),
    utterance("a b", "O O", "one", user="u"),
    utterance("a b", "O O", "two", user="v"),
    utterance("c", "O", "one", mark="singleton"),
  ]
  test = [
    utterance("a b", "O B-y", "three"),
    utterance("d d d", "O O O", "one"),
    utterance("d", "O", "two"),
  ]
  found = data.describe(corpus(train, test=test))
  assert found.utterances == {"train": 4, "validation": 4, "test": 3}
  assert (found.intents, found.slot_labels, found.slot_types) == (2, 2, 1)
  assert found.word_types == 3
  assert found.max_length == {"train": 2, "validation": 2, "test": 3}
  assert (found.surplus_copies, found.most_copies) == (2, 3)
  assert found.test_texts_in_train == 1
  assert found.majority_accuracy == pytest.approx(1 / 3)
  assert (found.unseen_intents, found.unseen_slot_tags) == (1, 1)
  assert (found.users, found.singletons) == (2, 1)


def test_drop_repeats_leaves_each_training_text_once_and_none_held_out():
  train = [utterance(t, "O", i) for t, i in zip("aabc", "1213")]
  clean = data.drop_repeats(
    corpus(
      train,
      validation=[utterance("z", "O", "1")],
      test=[utterance("c", "O", "1")],
    )
  )
  assert [u.text for u in clean.train] == ["a", "b"]
  assert clean.train[0].intent == "1"  # The first occurrence is kept.
  assert clean.notes[-1].startswith("2 repeated or held-out")
  again = data.drop_repeats(clean)
  assert again.train == clean.train


@given(
  st.lists(st.sampled_from("abcdef"), min_size=1, max_size=20),
  st.sampled_from("gh"),
)
def test_surplus_copies_is_what_drop_repeats_drops(texts, held_out):
  one = corpus(
    [utterance(t, "O") for t in texts],
    [utterance(held_out, "O")],
    [utterance(held_out, "O")],
  )
  dropped = len(one.train) - len(data.drop_repeats(one).train)
  assert dropped == data.describe(one).surplus_copies


def test_replace_split_names_the_splits():
  with pytest.raises(ValueError, match="split is 'dev'; it must be one of"):
    corpus([utterance()]).replace_split("dev", [utterance()], "note")
