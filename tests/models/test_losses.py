"""The joint loss of one record, against NumPy."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.models import examples
from trustjax import models
from trustjax.models import losses


@functools.cache
def _linear_model():
  """A model without hidden layers, to keep the loss in the foreground."""
  model = models.make_model("mean_pool", **examples.SIZES, dim=8)
  return model, jax.jit(model.init)(jax.random.key(0))


@functools.cache
def _logits():
  return jax.jit(_linear_model()[0].apply)


@functools.cache
def _weighted_loss(intent_weight=1.0, slot_weight=1.0):
  """The compiled loss, once for all examples."""
  model, _ = _linear_model()
  return jax.jit(
    losses.joint_loss(
      model, intent_weight=intent_weight, slot_weight=slot_weight
    )
  )


def _numpy_loss(logits, example, intent_weight, slot_weight):
  """Explicit loops in float64."""

  def cross_entropy(scores, label):
    scores = np.asarray(scores, np.float64)
    return np.log(np.exp(scores).sum()) - scores[label]

  intent = 0.0
  if example["mask"].any() and example["intent"] >= 0:
    intent = cross_entropy(logits.intent, example["intent"])
  slots = [
    cross_entropy(logits.slots[t], example["slots"][t])
    for t in range(len(example["mask"]))
    if example.get("slot_mask", example["mask"])[t] and example["slots"][t] >= 0
  ]
  return intent_weight * intent + slot_weight * (np.mean(slots or [0.0]))


def _variations():
  plain = examples.example(1)
  partial = dict(plain, slots=plain["slots"].copy())
  partial["slots"][1] = -1
  pieces = dict(plain, slot_mask=plain["mask"].copy())
  pieces["slot_mask"][[0, 2]] = False
  return {
    "plain": plain,
    "unseen_slot": partial,
    "unseen_intent": dict(plain, intent=np.int32(-1)),
    "slot_mask": pieces,
    "full": examples.example(2, length=examples.TIME),
    "empty": examples.example(3, length=0),
  }


@pytest.mark.parametrize("name", list(_variations()))
@pytest.mark.parametrize("weights", [(1.0, 1.0), (0.5, 3.0), (0.0, 1.0)])
def test_equals_numpy(name, weights):
  _, params = _linear_model()
  example = _variations()[name]
  loss, _ = _weighted_loss(*weights)(params, example, None)
  expected = _numpy_loss(_logits()(params, example), example, *weights)
  np.testing.assert_allclose(loss, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", examples.KINDS)
def test_a_record_of_padding_has_zero_loss_and_gradient(kind):
  name, fields = examples.MODELS[kind]
  model = models.make_model(name, **examples.SIZES, **fields)
  grad = jax.jit(jax.value_and_grad(losses.joint_loss(model), has_aux=True))
  example = examples.example(length=0)
  params = jax.jit(model.init)(jax.random.key(0))
  (loss, aux), grads = grad(params, example, jax.random.key(1))
  assert loss == 0
  assert aux == {"intent_correct": 0, "slot_correct": 0}
  chex.assert_trees_all_equal(grads, jax.tree.map(jnp.zeros_like, grads))


def test_a_slot_mask_beyond_the_mask_is_cut():
  _, params = _linear_model()
  example = examples.example(1)
  beyond = dict(example, slot_mask=np.ones_like(example["mask"]))
  loss_fn = _weighted_loss()
  assert loss_fn(params, example, None)[0] == loss_fn(params, beyond, None)[0]


def test_aux_counts_right_answers():
  _, params = _linear_model()
  example = examples.example(1)
  logits = _logits()(params, example)
  best = np.argmax(np.array(logits.slots), axis=1).astype(np.int32)
  best[0] = (best[0] + 1) % examples.SLOTS
  example = example | {
    "intent": np.int32(np.argmax(logits.intent)),
    "slots": best,
  }
  _, aux = _weighted_loss()(params, example, None)
  assert aux["intent_correct"] == 1
  np.testing.assert_allclose(aux["slot_correct"], 3 / 4)


def test_unknown_rate_hides_words_by_the_key_only():
  model, params = _linear_model()
  example = examples.example(1, length=examples.TIME)
  loss_fn = jax.jit(losses.joint_loss(model, unknown_rate=0.5, unknown_id=1))
  plain = float(_weighted_loss()(params, example, None)[0])

  def run(seed):
    return float(loss_fn(params, example, jax.random.key(seed))[0])

  assert float(loss_fn(params, example, None)[0]) == pytest.approx(plain)
  assert run(1) == run(1)
  assert len({run(seed) for seed in range(6)}) > 1


def test_unknown_rate_reaches_the_unknown_word_at_that_rate():
  model, params = _linear_model()
  example = examples.example(1, length=examples.TIME)
  loss_fn = losses.joint_loss(model, unknown_rate=0.25, unknown_id=1)

  @jax.jit
  @jax.vmap
  def hidden_somewhere(key):
    grads, _ = jax.grad(loss_fn, has_aux=True)(params, example, key)
    return jnp.any(grads["words"]["embedding"][1] != 0)

  share = hidden_somewhere(jax.random.split(jax.random.key(0), 2000)).mean()
  expected = 1 - 0.75**examples.TIME  # 0.867, standard error 0.008
  assert abs(share - expected) < 4 * 0.008


def test_slot_loss_does_not_depend_on_the_number_of_padded_positions():
  _, params = _linear_model()
  example = examples.example(1, length=4)
  short = {n: v[:4] if np.ndim(v) else v for n, v in example.items()}
  loss_fn = _weighted_loss()
  np.testing.assert_allclose(
    loss_fn(params, example, None)[0],
    loss_fn(params, short, None)[0],
    rtol=1e-6,
  )


@pytest.mark.parametrize("rate", [-0.1, 1.0, 3])
def test_unknown_rate_out_of_range(rate):
  model, _ = _linear_model()
  with pytest.raises(ValueError, match=r"unknown_rate: got .*\[0, 1\)"):
    losses.joint_loss(model, unknown_rate=rate)


@pytest.mark.parametrize("field", ["intent_weight", "slot_weight"])
@pytest.mark.parametrize("weight", [-1.0, float("nan"), float("inf")])
def test_weights_out_of_range(field, weight):
  model, _ = _linear_model()
  with pytest.raises(ValueError, match=f"{field}: got .*finite and >= 0"):
    losses.joint_loss(model, **{field: weight})
