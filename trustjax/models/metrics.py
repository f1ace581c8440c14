"""Accuracy of intents and frames, span F1 of slots, on host arrays."""

from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Bool, Int


def intent_accuracy(
  predicted: Int[np.ndarray, " records"], gold: Int[np.ndarray, " records"]
) -> float:
  """Share of records whose intent is right; gold -1 is never right.

  Args:
    predicted: Predicted intents.
    gold: True intents, -1 for one that training never saw.

  Returns:
    A number in [0, 1].
  """
  _check_same_shape(predicted, gold)
  _check_not_empty(predicted)
  return float(np.mean((predicted == gold) & (gold >= 0)))


def spans(tags: Sequence[str]) -> set[tuple[str, int, int]]:
  """Labelled spans of a BIO sequence, by the rule of the CoNLL script.

  A span starts at B-x, and at I-x that does not continue a span of x; it ends
  before the next O, B or other type. So ill-formed sequences have spans too.

  Args:
    tags: "O", "B-type" or "I-type" of every position.

  Returns:
    Triples (type, first position, last position).
  """
  found = set()
  open_type, start = None, 0
  for position, tag in enumerate([*tags, "O"]):
    prefix, _, kind = tag.partition("-")
    continues = prefix == "I" and kind == open_type
    if open_type is not None and not continues:
      found.add((open_type, start, position - 1))
      open_type = None
    if prefix in ("B", "I") and not continues:
      open_type, start = kind, position
  return found


def span_f1(
  predicted: Iterable[Sequence[str]], gold: Iterable[Sequence[str]]
) -> float:
  """Micro-averaged F1 over exact spans (type and both ends), as seqeval's.

  Args:
    predicted: BIO tags of every record.
    gold: The true tags, of the same lengths.

  Returns:
    A number in [0, 1]; 0 where there are no spans at all.

  Raises:
    ValueError: Two sequences differ in length.

  References:
    Tjong Kim Sang and De Meulder, CoNLL 2003.
  """
  right = num_predicted = num_gold = 0
  for i, (ours, theirs) in enumerate(zip(predicted, gold, strict=True)):
    if len(ours) != len(theirs):
      raise ValueError(
        f"record {i}: {len(ours)} predicted tags but {len(theirs)} true tags"
      )
    ours, theirs = spans(ours), spans(theirs)
    right += len(ours & theirs)
    num_predicted += len(ours)
    num_gold += len(theirs)
  return 2 * right / (num_predicted + num_gold) if right else 0.0


def exact_frame_accuracy(
  predicted_intent: Int[np.ndarray, " records"],
  gold_intent: Int[np.ndarray, " records"],
  predicted_slots: Int[np.ndarray, "records time"],
  gold_slots: Int[np.ndarray, "records time"],
  slot_mask: Bool[np.ndarray, "records time"],
) -> float:
  """Share of records whose intent and every slot label are right.

  Args:
    predicted_intent: Predicted intents.
    gold_intent: True intents, -1 for unseen.
    predicted_slots: Predicted slot labels.
    gold_slots: True slot labels, -1 for unseen.
    slot_mask: Positions that carry a label.

  Returns:
    A number in [0, 1].
  """
  _check_same_shape(predicted_slots, gold_slots)
  _check_not_empty(predicted_slots)
  slots = ((predicted_slots == gold_slots) | ~slot_mask).all(axis=1)
  return float(np.mean((predicted_intent == gold_intent) & slots))


def _check_not_empty(predicted):
  if not len(predicted):
    raise ValueError("there are no records to score")


def _check_same_shape(predicted, gold):
  if predicted.shape != gold.shape:
    raise ValueError(
      f"predicted has shape {predicted.shape} but gold {gold.shape}"
    )
