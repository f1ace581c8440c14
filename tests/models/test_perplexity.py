"""Perplexity: against a loop over tokens, windows and strides."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from trustjax import models

_VOCAB, _LONGEST = 9, 8


@functools.cache
def _model():
  return models.transformer_decoder(
    vocab_size=_VOCAB,
    max_length=_LONGEST,
    num_layers=1,
    dim=8,
    num_heads=2,
    ff_dim=12,
  )


@functools.cache
def _params():
  params = jax.jit(_model().init)(jax.random.key(0))
  return jax.tree.map(lambda leaf: 20 * leaf if leaf.ndim > 1 else leaf, params)


_STREAM = np.random.default_rng(0).integers(0, _VOCAB, 21)
_APPLY = jax.jit(lambda params, example: _model().apply(params, example))


def _nll(context, token):
  padded = np.zeros(_LONGEST, np.int32)
  padded[: len(context)] = context
  mask = np.arange(_LONGEST) < len(context)
  logits = _APPLY(_params(), {"tokens": padded, "mask": mask})
  return float(-jax.nn.log_softmax(logits[len(context) - 1])[token])


@pytest.mark.parametrize(("length", "stride"), [(8, 4), (8, 1), (8, 7), (5, 2)])
def test_equals_a_loop_over_tokens(length, stride):
  expected = []
  for t in range(1, len(_STREAM)):
    start = 0
    while start + length <= t:  # The first window that reaches the token.
      start += stride
    expected.append(_nll(_STREAM[start:t], _STREAM[t]))
  found = models.perplexity(
    _model(), _params(), _STREAM, length=length, stride=stride, chunk_size=3
  )
  np.testing.assert_allclose(found.value, np.exp(np.mean(expected)), rtol=1e-5)
  np.testing.assert_allclose(found.nll.sum(), np.sum(expected), rtol=1e-5)
  assert found.num_tokens == found.counts.sum() == len(_STREAM) - 1
  assert np.all(found.counts > 0)
  np.testing.assert_array_equal(found.counts[1:-1], stride)


def test_a_uniform_model_is_as_perplexed_as_its_vocabulary_is_large():
  params = jax.tree.map(jnp.zeros_like, _params())
  found = models.perplexity(_model(), params, _STREAM, length=8)
  np.testing.assert_allclose(found.value, _VOCAB, rtol=1e-5)
  assert found.stride == 4


def test_a_stream_shorter_than_a_window():
  found = models.perplexity(_model(), _params(), _STREAM[:2], length=8)
  expected = np.exp(_nll(_STREAM[:1], _STREAM[1]))
  np.testing.assert_allclose(found.value, expected, rtol=1e-5)
  assert found.num_tokens == 1


@pytest.mark.parametrize(
  ("fields", "message"),
  [
    ({"tokens": [1]}, "tokens: got 1; at least 2 are needed"),
    ({"length": 1}, "length: got 1"),
    ({"stride": 8}, "stride: got 8; it must lie between 1 and length - 1 = 7"),
    ({"stride": 0}, "stride: got 0"),
    ({"length": 9}, "the model has 8"),
  ],
)
def test_bad_input(fields, message):
  fields = {"tokens": _STREAM, "length": 8} | fields
  with pytest.raises(ValueError, match=message):
    models.perplexity(_model(), _params(), **fields)
