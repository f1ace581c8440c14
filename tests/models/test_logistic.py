"""The logistic tagger: linear, convex, blind to padding."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.models import examples
from trustjax import models

MODEL = models.make_model("logistic", **examples.SIZES)


def random_params(seed):
  shapes = jax.eval_shape(MODEL.init, jax.random.key(0))
  rng = np.random.default_rng(seed)
  return jax.tree.map(
    lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), jnp.float32), shapes
  )


def test_it_starts_at_zero_and_predicts_uniformly():
  params = MODEL.init(jax.random.key(0))
  width = examples.INTENTS + examples.SLOTS
  assert models.num_params(params) == (examples.VOCAB + 1) * width
  assert MODEL.word_table(params).shape == (examples.VOCAB, width)
  loss, _ = models.losses.joint_loss(MODEL)(params, examples.example(), None)
  np.testing.assert_allclose(
    loss, np.log(examples.INTENTS) + np.log(examples.SLOTS), rtol=1e-6
  )


def test_scores_are_the_bag_of_words_and_the_word():
  params, example = random_params(0), examples.example(length=4)
  rows = np.asarray(MODEL.word_table(params))[example["tokens"][:4]]
  bias = np.asarray(params["bias"])
  logits = MODEL.apply(params, example)
  cut = examples.INTENTS
  np.testing.assert_allclose(
    logits.intent, rows[:, :cut].mean(axis=0) + bias[:cut], rtol=1e-5
  )
  np.testing.assert_allclose(
    logits.slots[:4], rows[:, cut:] + bias[cut:], rtol=1e-5
  )


def test_what_is_padded_does_not_matter():
  params, example = random_params(0), examples.example(length=3)
  other = example | {"tokens": np.where(example["mask"], example["tokens"], 7)}
  np.testing.assert_array_equal(
    MODEL.apply(params, example).intent, MODEL.apply(params, other).intent
  )


@pytest.mark.parametrize("seed", range(3))
def test_the_loss_is_convex(seed):
  loss_fn = models.losses.joint_loss(MODEL)
  batch = examples.batch(8)

  @jax.jit
  def loss(params):
    return jnp.mean(
      jax.vmap(lambda record: loss_fn(params, record, None)[0])(batch)
    )

  one, other = random_params(2 * seed), random_params(2 * seed + 1)
  middle = jax.tree.map(lambda a, b: (a + b) / 2, one, other)
  assert loss(middle) < (loss(one) + loss(other)) / 2
