"""The masked-word head, its loss, and models as callables of batches."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from trustjax import models

VOCAB, TIME, MASK_ID = 30, 8, 4
MODEL = models.masked_encoder(
  vocab_size=VOCAB,
  max_length=TIME,
  mask_id=MASK_ID,
  num_layers=1,
  dim=8,
  num_heads=2,
  ff_dim=16,
)
APPLY, INIT = jax.jit(MODEL.apply), jax.jit(MODEL.init)
ENCODE = jax.jit(MODEL.encode)
PARAMS = INIT(jax.random.key(0))
SPECIAL = (2, 3)


def example(length=6):
  tokens = np.zeros(TIME, np.int32)
  tokens[:length] = [2, *range(5, 3 + length), 3]
  return {"tokens": tokens, "mask": np.arange(TIME) < length}


def log_prob(tokens, mask, at, word):
  logits = APPLY(PARAMS, {"tokens": jnp.asarray(tokens), "mask": mask})
  return float(jax.nn.log_softmax(logits)[at, word])


def compiled_loss(model=MODEL, **fields):
  return jax.jit(
    models.masked_language_model_loss(model, special_ids=SPECIAL, **fields)
  )


def test_every_position_sees_every_other_but_no_padding():
  one = example()
  for changed, seen in ((1, True), (4, True), (7, False)):
    tokens = one["tokens"].copy()
    tokens[changed] = 20
    other = APPLY(PARAMS, {"tokens": tokens, "mask": one["mask"]})
    same = np.allclose(
      APPLY(PARAMS, one)[2:4], np.asarray(other)[2:4], atol=1e-7
    )
    assert same != seen


def test_evaluation_is_the_pseudo_log_likelihood():
  one = example()
  loss, aux = compiled_loss()(PARAMS, one, None)
  expected = []
  for at in range(1, 5):
    tokens = one["tokens"].copy()
    tokens[at] = MASK_ID
    expected.append(log_prob(tokens, one["mask"], at, one["tokens"][at]))
  np.testing.assert_allclose(loss, -np.mean(expected), rtol=1e-5)
  assert aux["num_predicted"] == 4


@pytest.mark.parametrize(
  ("rate", "length", "count"), [(0.15, 4, 1), (0.5, 6, 2), (1.0, 8, 6)]
)
def test_as_many_words_are_asked_for_as_the_rate_says(rate, length, count):
  loss_fn = compiled_loss(mask_rate=rate)
  _, aux = loss_fn(PARAMS, example(length), jax.random.key(1))
  assert aux["num_predicted"] == count


def test_words_are_hidden_as_in_the_paper():
  """Shares of shown, replaced and masked words over many keys.

  A spy stands where the words are embedded. Binomial bounds at 4 standard
  deviations.
  """
  shown = []

  def spy(params, inputs):
    jax.debug.callback(lambda t: shown.append(np.array(t)), inputs["tokens"])
    return jnp.zeros((TIME, 8))

  deaf = dataclasses.replace(
    MODEL,
    embed=spy,
    encode=lambda params, embeddings, mask, key=None: embeddings,
    logits=lambda params, hidden: jnp.zeros((TIME, VOCAB)),
  )
  fn = compiled_loss(deaf, mask_rate=1.0)
  one = example(8)
  for i in range(300):
    fn(PARAMS, one, jax.random.key(i))
  jax.effects_barrier()
  assert len(shown) == 300
  seen = np.stack(shown)
  assert (seen[:, [0, 7]] == [2, 3]).all()
  words = seen[:, 1:7]
  original = np.asarray(one["tokens"])[1:7]
  n = words.size
  masked = np.mean(words == MASK_ID)
  kept = np.mean(words == original)
  # A random word is the mask or the original once in 30 draws each.
  for share, rate in ((masked, 0.8 + 0.1 / 30), (kept, 0.1 + 0.1 / 30)):
    assert abs(share - rate) < 4 * np.sqrt(rate * (1 - rate) / n)


def test_salient_words_are_asked_for_together_and_alone():
  salient = np.zeros(TIME, bool)
  salient[[2, 4]] = True
  one = example(8) | {"salient": salient}
  for rate, expected in ((1.0, 2), (0.0, 1)):
    loss_fn = compiled_loss(mask_rate=0.15, salient_rate=rate)
    _, aux = loss_fn(PARAMS, one, jax.random.key(0))
    assert aux["num_predicted"] == expected
  # Without a salient word, words are drawn as usual.
  _, aux = compiled_loss(mask_rate=0.5, salient_rate=1.0)(
    PARAMS, example(8) | {"salient": np.zeros(TIME, bool)}, jax.random.key(0)
  )
  assert aux["num_predicted"] == 3


def test_padding_of_a_lot_costs_nothing():
  empty = {"tokens": np.zeros(TIME, np.int32), "mask": np.zeros(TIME, bool)}
  loss_fn = models.masked_language_model_loss(MODEL, special_ids=SPECIAL)

  def loss(params):
    return loss_fn(params, empty, jax.random.key(0))[0]

  value, gradient = jax.jit(jax.value_and_grad(loss))(PARAMS)
  assert value == 0
  assert all(not np.any(leaf) for leaf in jax.tree.leaves(gradient))


@pytest.mark.slow
def test_the_model_learns_what_a_word_depends_on():
  """The last word repeats the first: only context tells it."""
  rng = np.random.default_rng(0)
  tokens = rng.integers(10, 20, (64, 4)).astype(np.int32)
  tokens[:, 3] = tokens[:, 0]
  batch = {"tokens": tokens, "mask": np.ones((64, 4), bool)}
  loss_fn = models.masked_language_model_loss(MODEL, mask_rate=0.25)
  optimizer = optax.adam(1e-2)

  @jax.jit
  def step(params, state, key):
    keys = jax.random.split(key, 64)

    def mean(params):
      losses, _ = jax.vmap(loss_fn, (None, 0, 0))(params, batch, keys)
      return losses.mean()

    updates, state = optimizer.update(jax.grad(mean)(params), state, params)
    return optax.apply_updates(params, updates), state

  params, state = PARAMS, optimizer.init(PARAMS)
  for i in range(300):
    params, state = step(params, state, jax.random.key(i))
  hidden = tokens.copy()
  hidden[:, 3] = MASK_ID
  logits = models.log_prob_function(MODEL)(
    params, jnp.asarray(hidden), jnp.asarray(batch["mask"])
  )
  assert (
    np.mean(np.argmax(logits[:, 3], -1) == tokens[:, 3]) > 0.85
  )  # Chance is 0.1.


def test_callbacks_are_the_model_in_batches():
  batch = [example(6), example(8)]
  tokens = jnp.stack([jnp.asarray(e["tokens"]) for e in batch])
  mask = jnp.stack([jnp.asarray(e["mask"]) for e in batch])
  log_probs = models.log_prob_function(MODEL)(PARAMS, tokens, mask)
  hidden = models.hidden_function(MODEL)(PARAMS, tokens, mask)
  vectors = models.bind(models.embedding_function(MODEL), PARAMS)(tokens, mask)
  for row, one in enumerate(batch):
    np.testing.assert_allclose(
      log_probs[row],
      jax.nn.log_softmax(APPLY(PARAMS, one)),
      rtol=1e-5,
      atol=1e-6,
    )
    embedded = MODEL.embed(PARAMS, one)
    np.testing.assert_array_equal(vectors[row], embedded)
    np.testing.assert_allclose(
      hidden[row],
      ENCODE(PARAMS, embedded, one["mask"]),
      rtol=1e-5,
      atol=1e-6,
    )


def test_models_of_one_architecture_share_a_compiled_program():
  traces = []

  def score(fn, tokens, mask):
    traces.append(0)
    return fn(tokens, mask)

  compiled = jax.jit(score)
  tokens, mask = jnp.full((1, TIME), 5), jnp.ones((1, TIME), bool)
  found = [
    compiled(
      models.bind(models.log_prob_function(MODEL), INIT(key)),
      tokens,
      mask,
    )
    for key in jax.random.split(jax.random.key(0), 3)
  ]
  assert len(traces) == 1
  assert not np.allclose(found[0], found[1])


def test_a_tagger_is_a_classifier():
  tagger = models.make_model(
    "mean_pool", vocab_size=VOCAB, num_intents=3, num_slots=1, max_length=TIME
  )
  params = jax.jit(tagger.init)(jax.random.key(1))
  one = example(6)
  got = models.class_function(tagger)(
    params, tagger.embed(params, one)[None], one["mask"][None]
  )
  np.testing.assert_allclose(
    got[0], jax.jit(tagger.apply)(params, one).intent, rtol=1e-6
  )


@pytest.mark.parametrize(
  ("fields", "message"),
  [
    ({"mask_id": 30}, "mask_id: got 30; it must lie between 0 and 29"),
    ({"mask_id": -1}, "mask_id: got -1"),
    ({"dropout": 1.0}, "dropout: got 1.0"),
    ({"num_heads": 3, "dim": 8}, "num_heads: got 3"),
  ],
)
def test_bad_fields(fields, message):
  usual = dict(vocab_size=VOCAB, max_length=TIME, mask_id=MASK_ID)
  with pytest.raises(ValueError, match=message):
    models.masked_encoder(**{**usual, **fields})


def test_bad_salient_rate():
  with pytest.raises(ValueError, match="salient_rate: got 2"):
    models.masked_language_model_loss(MODEL, salient_rate=2)


@pytest.mark.parametrize("rate", [0.0, 1.5])
def test_bad_mask_rate(rate):
  with pytest.raises(ValueError, match="mask_rate: got"):
    models.masked_language_model_loss(MODEL, mask_rate=rate)
