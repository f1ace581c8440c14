"""The next-token loss of one record, against NumPy."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from trustjax import models
from trustjax.models import losses

_VOCAB, _TIME = 11, 7


@functools.cache
def _model(dropout=0.0):
  return models.transformer_decoder(
    vocab_size=_VOCAB,
    max_length=16,
    num_layers=1,
    dim=8,
    num_heads=2,
    ff_dim=12,
    dropout=dropout,
  )


_INIT = jax.jit(lambda key: _model().init(key))


@functools.cache
def _params():
  params = _INIT(jax.random.key(0))
  # Away from the flat predictions of a fresh model.
  return jax.tree.map(lambda leaf: 20 * leaf if leaf.ndim > 1 else leaf, params)


_APPLY = jax.jit(lambda params, example: _model().apply(params, example))


@functools.cache
def _loss(dropout=0.0):
  return jax.jit(losses.language_model_loss(_model(dropout)))


@functools.cache
def _grad(dropout=0.0):
  loss_fn = losses.language_model_loss(_model(dropout))
  return jax.jit(jax.value_and_grad(loss_fn, has_aux=True))


def _example(length, time=_TIME, seed=0):
  mask = np.arange(time) < length
  tokens = np.random.default_rng(seed).integers(1, _VOCAB, time)
  return {"tokens": np.where(mask, tokens, 0).astype(np.int32), "mask": mask}


def _numpy_losses(example):
  """Minus the log-probability of each predicted token, and whether it wins."""
  logits = np.asarray(_APPLY(_params(), example), np.float64)
  tokens, mask = example["tokens"], example["mask"]
  losses, wins = [], []
  for t in range(len(tokens) - 1):
    if mask[t] and mask[t + 1]:
      scores = logits[t] - logits[t].max()
      log_probs = scores - np.log(np.exp(scores).sum())
      losses.append(-log_probs[tokens[t + 1]])
      wins.append(np.argmax(scores) == tokens[t + 1])
  return losses, wins


@pytest.mark.parametrize("length", [2, 3, _TIME])
def test_equals_numpy(length):
  example = _example(length)
  loss, aux = _loss()(_params(), example, None)
  expected, wins = _numpy_losses(example)
  np.testing.assert_allclose(loss, np.mean(expected), rtol=1e-5)
  np.testing.assert_allclose(aux["token_correct"], np.mean(wins), rtol=1e-6)
  assert aux["num_predicted"] == length - 1
  np.testing.assert_allclose(
    loss * aux["num_predicted"], np.sum(expected), rtol=1e-5
  )


def test_accuracy_counts_the_most_likely_tokens():
  """Tokens drawn greedily are all right; one changed at the end is not."""
  example = _example(_TIME)
  for t in range(_TIME - 1):
    example["tokens"][t + 1] = np.argmax(_APPLY(_params(), example)[t])
  assert _loss()(_params(), example, None)[1]["token_correct"] == 1
  example["tokens"][-1] = (example["tokens"][-1] + 1) % _VOCAB
  correct = _loss()(_params(), example, None)[1]["token_correct"]
  np.testing.assert_allclose(correct, 5 / 6, rtol=1e-6)


@pytest.mark.parametrize("length", [0, 1])
def test_nothing_to_predict_has_zero_loss_and_gradient(length):
  example, key = _example(length), jax.random.key(1)
  (loss, aux), grads = _grad(0.3)(_params(), example, key)
  assert loss == 0 and aux == {"token_correct": 0, "num_predicted": 0}
  chex.assert_trees_all_equal(grads, jax.tree.map(jnp.zeros_like, grads))


def test_padding_changes_neither_loss_nor_gradient():
  plain = _example(4, time=12)
  rubbish = _example(4, time=12)
  rubbish["tokens"][4:] = 9
  short = _example(4, time=4)
  short["tokens"][:] = plain["tokens"][:4]
  expected = _grad()(_params(), short, None)
  for padded in (rubbish, plain):
    chex.assert_trees_all_close(
      _grad()(_params(), padded, None), expected, rtol=1e-4, atol=1e-6
    )


def test_a_key_switches_dropout_on():
  run = functools.partial(_loss(0.5), _params(), _example(_TIME))
  plain = _loss()(_params(), _example(_TIME), None)
  np.testing.assert_allclose(run(None)[0], plain[0], rtol=1e-6)
  assert run(jax.random.key(1))[0] != run(jax.random.key(2))[0]


def test_training_learns_a_text_by_heart():
  loss_fn = losses.language_model_loss(_model())
  params, example = _INIT(jax.random.key(2)), _example(_TIME)

  @jax.jit
  def train(params):
    def step(params, _):
      grads, _ = jax.grad(loss_fn, has_aux=True)(params, example, None)
      return jax.tree.map(lambda p, g: p - 0.5 * g, params, grads), None

    return jax.lax.scan(step, params, None, length=200)[0]

  before, _ = _loss()(params, example, None)
  after, aux = _loss()(train(params), example, None)
  assert before > 2 and after < 0.1 and aux["token_correct"] == 1


def test_a_single_position_is_refused():
  loss_fn = losses.language_model_loss(_model())
  with pytest.raises(ValueError, match="tokens: got 1 positions"):
    loss_fn(_params(), _example(1, time=1), None)
