"""Predictions in chunks and the scores of a split."""

import chex
import jax
import numpy as np
import pytest

from tests.models import examples
from trustjax import models

_LABELS = ("O", "B-a", "I-a", "B-b", "I-b", "B-c")


@pytest.fixture(scope="module")
def trained():
  model = models.make_model("mean_pool", **examples.SIZES, dim=8, dropout=0.5)
  return model, jax.jit(model.init)(jax.random.key(0))


@pytest.mark.parametrize("chunk_size", [1, 4, 10, 64])
def test_chunks_do_not_matter(trained, chunk_size):
  model, params = trained
  arrays = examples.batch(10)
  intents, slots = models.predict(model, params, arrays, chunk_size=chunk_size)
  logits = jax.vmap(model.apply, in_axes=(None, 0))(params, arrays)
  np.testing.assert_array_equal(intents, np.argmax(logits.intent, -1))
  np.testing.assert_array_equal(slots, np.argmax(logits.slots, -1))


def test_one_program_serves_all_chunks_and_calls():
  traced = chex.assert_max_traces(n=1)(lambda params, example: example["x"])
  chex.clear_trace_counter()
  logits = models.NluLogits(np.zeros(3, np.float32), np.eye(7, 2))
  model = models.Model(
    name="constant",
    init=lambda key: {},
    embed=lambda params, example: traced(params, {"x": example["tokens"]}),
    encode=lambda params, embeddings, mask, key=None: embeddings,
    heads=lambda params, hidden, mask: jax.tree.map(jax.numpy.asarray, logits),
    word_table=lambda params: None,
  )
  for count in (10, 7):
    models.predict(model, {}, examples.batch(count), chunk_size=4)


def test_evaluate_perfect_and_unseen(trained):
  model, params = trained
  arrays = examples.batch(12)
  intents, slots = models.predict(model, params, arrays)
  arrays = arrays | {"intent": intents, "slots": slots}
  scores = models.evaluate(model, params, arrays, _LABELS)
  assert scores == models.Evaluation(
    intent_accuracy=1.0,
    slot_f1=1.0,
    exact_frame_accuracy=1.0,
    num_records=12,
  )
  # Three intents and the slots of one more record were never seen.
  unseen = {"intent": intents.copy(), "slots": slots.copy()}
  unseen["intent"][:3] = -1
  unseen["slots"][3][arrays["mask"][3]] = -1
  scores = models.evaluate(model, params, arrays | unseen, _LABELS)
  assert scores.intent_accuracy == 9 / 12
  assert scores.exact_frame_accuracy == 8 / 12
  assert scores.slot_f1 < 1


def test_slot_mask_decides_what_is_scored(trained):
  model, params = trained
  arrays = examples.batch(12)
  intents, slots = models.predict(model, params, arrays)
  wrong = (slots + 1) % len(_LABELS)
  keep = np.arange(examples.TIME) % 2 == 0
  arrays = arrays | {
    "intent": intents,
    "slots": np.where(keep, slots, wrong),
    "slot_mask": arrays["mask"] & keep,
  }
  scores = models.evaluate(model, params, arrays, _LABELS)
  assert scores.exact_frame_accuracy == scores.slot_f1 == 1


def test_a_run_of_unseen_labels_is_one_missed_span():
  tags = models.tag_sequences(
    np.array([[1, -1, -1, 0]]), np.array([[1, 1, 1, 0]], bool), _LABELS
  )
  assert tags[0][0] == "B-a" and len(tags[0]) == 3
  assert len(models.metrics.spans(tags[0])) == 2


def test_bad_calls(trained):
  model, params = trained
  with pytest.raises(ValueError, match="chunk_size: got 0"):
    models.predict(model, params, examples.batch(3), chunk_size=0)
  none = {name: value[:0] for name, value in examples.batch(3).items()}
  with pytest.raises(ValueError, match="no records"):
    models.predict(model, params, none)
  with pytest.raises(ValueError, match="slot_labels: got 2 labels"):
    models.evaluate(model, params, examples.batch(3), ("O", "B-a"))
