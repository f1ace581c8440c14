"""Scores: known answers, seqeval on random tags, properties."""

import time
import warnings

import numpy as np
import pytest
import seqeval.metrics
from hypothesis import given, settings
from hypothesis import strategies as st

from trustjax.models import metrics

_TAGS = ("O", "B-a", "I-a", "B-b", "I-b", "B-a-c", "I-a-c")


def _seqeval_f1(predicted, gold):
  with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # No span at all: seqeval warns, gives 0.
    return float(seqeval.metrics.f1_score(gold, predicted))


@pytest.mark.parametrize(
  "tags, expected",
  [
    ("O O", set()),
    ("B-a I-a O B-b", {("a", 0, 1), ("b", 3, 3)}),
    ("B-a B-a", {("a", 0, 0), ("a", 1, 1)}),
    ("I-a I-a O", {("a", 0, 1)}),
    ("O I-a I-b I-b", {("a", 1, 1), ("b", 2, 3)}),
    ("B-a I-b", {("a", 0, 0), ("b", 1, 1)}),
    ("B-a-c I-a-c", {("a-c", 0, 1)}),
    ("", set()),
  ],
)
def test_spans_by_hand(tags, expected):
  assert metrics.spans(tags.split()) == expected


@pytest.mark.parametrize("seed", range(20))
def test_f1_equals_seqeval_on_random_tags(seed):
  rng = np.random.default_rng(seed)
  lengths = rng.integers(1, 15, 60)
  # Predictions copy the truth now and then, so that F1 is not always tiny.
  gold = [list(rng.choice(_TAGS, n)) for n in lengths]
  predicted = [
    [g if rng.random() < 0.7 else str(rng.choice(_TAGS)) for g in tags]
    for tags in gold
  ]
  ours = metrics.span_f1(predicted, gold)
  assert 0 < ours < 1
  assert ours == pytest.approx(_seqeval_f1(predicted, gold), abs=1e-12)


@settings(max_examples=150, deadline=None)
@given(
  st.lists(
    st.lists(
      st.tuples(st.sampled_from(_TAGS), st.sampled_from(_TAGS)), min_size=1
    ),
    min_size=1,
    max_size=5,
  )
)
def test_f1_equals_seqeval_on_adversarial_tags(pairs):
  predicted = [[p for p, _ in row] for row in pairs]
  gold = [[g for _, g in row] for row in pairs]
  ours = metrics.span_f1(predicted, gold)
  assert ours == pytest.approx(_seqeval_f1(predicted, gold), abs=1e-12)
  assert ours == pytest.approx(metrics.span_f1(gold, predicted), abs=1e-12)


def test_f1_is_one_only_for_equal_spans():
  gold = [["B-a", "I-a", "O"], ["B-b", "O"]]
  assert metrics.span_f1(gold, gold) == 1
  assert metrics.span_f1([["I-a", "I-a", "O"], ["I-b", "O"]], gold) == 1
  assert metrics.span_f1([["B-a", "O", "O"], ["B-b", "O"]], gold) == 0.5
  assert metrics.span_f1([["O"]], [["O"]]) == 0


def test_f1_refuses_other_lengths():
  with pytest.raises(ValueError, match="record 1: 1 predicted tags but 2"):
    metrics.span_f1([["O"], ["O"]], [["O"], ["O", "O"]])


def test_f1_is_fast():
  rng = np.random.default_rng(0)
  gold = [list(rng.choice(_TAGS, 12)) for _ in range(5000)]
  start = time.perf_counter()
  metrics.span_f1(gold, gold)
  assert time.perf_counter() - start < 2  # 0.1 s on an idle core.


def test_intent_accuracy_by_hand():
  predicted = np.array([0, 1, 2, 3])
  assert metrics.intent_accuracy(predicted, np.array([0, 1, 0, 3])) == 0.75
  assert metrics.intent_accuracy(predicted, np.array([0, -1, -1, 3])) == 0.5


def test_exact_frames_by_hand():
  gold_slots = np.array([[1, 2, 0], [1, -1, 0], [3, 0, 0], [1, 1, 1]])
  slots = np.array([[1, 2, 5], [1, 0, 0], [3, 5, 5], [1, 1, 1]])
  mask = np.array([[1, 1, 0], [1, 1, 0], [1, 0, 0], [1, 1, 1]], bool)
  intents, gold = np.array([0, 1, 2, 3]), np.array([0, 1, 2, 1])
  # The second record has an unseen slot, the fourth a wrong intent.
  frames = metrics.exact_frame_accuracy(intents, gold, slots, gold_slots, mask)
  assert frames == 0.5
  unseen = np.array([-1, 1, 2, 1])
  assert (
    metrics.exact_frame_accuracy(intents, unseen, slots, gold_slots, mask)
    == 0.25
  )


@pytest.mark.parametrize("seed", range(5))
def test_frames_are_at_most_as_often_right_as_intents(seed):
  rng = np.random.default_rng(seed)
  gold, intents = rng.integers(0, 3, (2, 200))
  gold_slots, slots = rng.integers(0, 2, (2, 200, 3))
  mask = rng.random((200, 3)) < 0.5
  frames = metrics.exact_frame_accuracy(intents, gold, slots, gold_slots, mask)
  slow = np.mean(
    [
      intents[i] == gold[i]
      and all(slots[i, t] == gold_slots[i, t] for t in range(3) if mask[i, t])
      for i in range(200)
    ]
  )
  assert frames == pytest.approx(slow)
  assert frames <= metrics.intent_accuracy(intents, gold)


def test_shapes_must_agree():
  # With run-time checks of annotations on, those are faster to object.
  with pytest.raises((ValueError, TypeError), match="gold"):
    metrics.intent_accuracy(np.zeros(2, int), np.zeros(3, int))


def test_no_records_is_an_error():
  with pytest.raises(ValueError, match="no records"):
    metrics.intent_accuracy(np.zeros(0, int), np.zeros(0, int))
