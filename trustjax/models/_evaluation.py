"""Predictions and scores of a model on a split."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from trustjax.models import _model, metrics

# A label that training never saw: no prediction can equal it, and neighbours
# of the kind make one span, as most unseen labels are the B and I of one.
_UNSEEN = "I-(unseen)"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluation:
  """Scores on a split, all in [0, 1].

  Attributes:
    intent_accuracy: Share of right intents.
    slot_f1: Micro-averaged span F1; 0 where nothing is labelled.
    exact_frame_accuracy: Share of records with everything right.
    num_records: Records in the split.
  """

  intent_accuracy: float
  slot_f1: float
  exact_frame_accuracy: float
  num_records: int


@functools.lru_cache(maxsize=8)
def _predictor(apply):
  def one(params, example):
    logits = apply(params, example)
    return jnp.argmax(logits.intent), jnp.argmax(logits.slots, axis=-1)

  return jax.jit(jax.vmap(one, in_axes=(None, 0)))


def predict(
  model: _model.Model,
  params: _model.Params,
  arrays: Mapping[str, np.ndarray],
  *,
  chunk_size: int = 256,
) -> tuple[np.ndarray, np.ndarray]:
  """Predicts intents and slot labels, chunk by chunk.

  Args:
    model: The model.
    params: Its parameters.
    arrays: A split: tokens, mask and, if the model reads them, chars.
    chunk_size: Records at a time; the last chunk is padded, so one program
      serves all.

  Returns:
    (intents [records], slot labels [records, time]).
  """
  inputs = {
    name: arrays[name] for name in ("tokens", "mask", "chars") if name in arrays
  }
  total = len(inputs["tokens"])
  if not total:
    raise ValueError("there are no records to predict")
  if chunk_size < 1:
    raise ValueError(f"chunk_size: got {chunk_size}; it must be at least 1")
  intents, slots = [], []
  for start in range(0, total, chunk_size):
    index = np.minimum(np.arange(start, start + chunk_size), total - 1)
    chunk = {name: array[index] for name, array in inputs.items()}
    intent, slot = jax.device_get(_predictor(model.apply)(params, chunk))
    intents.append(intent)
    slots.append(slot)
  return np.concatenate(intents)[:total], np.concatenate(slots)[:total]


def evaluate(
  model: _model.Model,
  params: _model.Params,
  arrays: Mapping[str, np.ndarray],
  slot_labels: Sequence[str],
  *,
  chunk_size: int = 256,
) -> Evaluation:
  """Scores a model on a split.

  Args:
    model: The model.
    params: Its parameters.
    arrays: The split's arrays, with labels; -1 marks a label that training
      never saw, which counts as wrong whatever is predicted.
    slot_labels: BIO tag of each slot label.
    chunk_size: Records at a time.

  Returns:
    The scores.
  """
  intents, slots = predict(model, params, arrays, chunk_size=chunk_size)
  if max(slots.max(), arrays["slots"].max()) >= len(slot_labels):
    raise ValueError(
      f"slot_labels: got {len(slot_labels)} labels, but predictions or truth"
      f" go up to {max(slots.max(), arrays['slots'].max())}"
    )
  mask = arrays.get("slot_mask", arrays["mask"])
  return Evaluation(
    intent_accuracy=metrics.intent_accuracy(intents, arrays["intent"]),
    slot_f1=metrics.span_f1(
      tag_sequences(slots, mask, slot_labels),
      tag_sequences(arrays["slots"], mask, slot_labels),
    ),
    exact_frame_accuracy=metrics.exact_frame_accuracy(
      intents, arrays["intent"], slots, arrays["slots"], mask
    ),
    num_records=len(intents),
  )


def tag_sequences(
  labels: np.ndarray, mask: np.ndarray, slot_labels: Sequence[str]
) -> list[list[str]]:
  """Label ids as BIO tags, without the positions outside the mask."""
  names = [*slot_labels, _UNSEEN]
  return [
    [names[label] for label in row[keep]] for row, keep in zip(labels, mask)
  ]
