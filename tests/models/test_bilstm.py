"""The BiLSTM against a NumPy loop and against flax's own cell."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from trustjax.models import _bilstm, _char_cnn

_DIM, _HIDDEN, _TIME = 5, 4, 6


@pytest.fixture(scope="module")
def layer():
  layer = _bilstm.BiLstm(_DIM, _HIDDEN, rngs=nnx.Rngs(0))
  # Biases away from their initial zeros and ones, to test their order too.
  layer.bias[...] += jax.random.normal(jax.random.key(1), layer.bias.shape)
  return layer


def _inputs(seed=0):
  return np.random.default_rng(seed).normal(size=(_TIME, _DIM)).astype("f4")


def _sigmoid(x):
  return 1 / (1 + np.exp(-x))


def _one_direction(inputs, kernel, recurrent, bias):
  """An LSTM in float64, gate by gate: input, forget, candidate, output."""
  hidden, cell, out = np.zeros(_HIDDEN), np.zeros(_HIDDEN), []
  for x in inputs.astype(np.float64):
    gates = x @ kernel + hidden @ recurrent + bias
    i, f, g, o = (gates[k * _HIDDEN : (k + 1) * _HIDDEN] for k in range(4))
    cell = _sigmoid(f) * cell + _sigmoid(i) * np.tanh(g)
    hidden = _sigmoid(o) * np.tanh(cell)
    out.append(hidden)
  return np.stack(out)


def _weights(layer, direction):
  """Input kernel, recurrent kernel, bias of a direction."""
  half = slice(direction * 4 * _HIDDEN, (direction + 1) * 4 * _HIDDEN)
  arrays = (
    layer.input[...][:, half],
    layer.recurrent[...][direction],
    layer.bias[...][half],
  )
  return [np.asarray(array, np.float64) for array in arrays]


@pytest.mark.parametrize("length", [1, 4, _TIME])
def test_equals_a_numpy_loop(layer, length):
  inputs, mask = _inputs(), np.arange(_TIME) < length
  ours = layer(jnp.asarray(inputs), jnp.asarray(mask))[:length]
  forward = _one_direction(inputs[:length], *_weights(layer, 0))
  backward = _one_direction(inputs[:length][::-1], *_weights(layer, 1))[::-1]
  np.testing.assert_allclose(
    ours, np.concatenate([forward, backward], axis=1), atol=1e-5
  )


@pytest.mark.parametrize("direction", [0, 1])
def test_equals_the_cell_of_flax(layer, direction):
  kernel, recurrent, bias = _weights(layer, direction)
  cell = nnx.OptimizedLSTMCell(_DIM, _HIDDEN, rngs=nnx.Rngs(0))
  cell.dense_i.kernel[...] = jnp.asarray(kernel, jnp.float32)
  cell.dense_h.kernel[...] = jnp.asarray(recurrent, jnp.float32)
  cell.dense_h.bias[...] = jnp.asarray(bias, jnp.float32)
  inputs = _inputs()
  ours = layer(jnp.asarray(inputs), jnp.ones(_TIME, bool))
  carry = (jnp.zeros((1, _HIDDEN)), jnp.zeros((1, _HIDDEN)))
  theirs = []
  for x in inputs[::-1] if direction else inputs:
    carry, hidden = cell(carry, jnp.asarray(x)[None, :])
    theirs.append(hidden[0])
  theirs = theirs[::-1] if direction else theirs
  half = slice(direction * _HIDDEN, (direction + 1) * _HIDDEN)
  np.testing.assert_allclose(ours[:, half], np.stack(theirs), atol=1e-5)


def test_reversal_swaps_the_directions(layer):
  """With equal weights in both, reading backwards mirrors the output."""
  graph, state = nnx.split(layer)
  twin = nnx.merge(graph, jax.tree.map(jnp.copy, state))
  twin.input[...] = jnp.tile(twin.input[...][:, : 4 * _HIDDEN], (1, 2))
  twin.recurrent[...] = jnp.stack([twin.recurrent[...][0]] * 2)
  twin.bias[...] = jnp.tile(twin.bias[...][: 4 * _HIDDEN], 2)
  inputs, mask = jnp.asarray(_inputs()), jnp.ones(_TIME, bool)
  there, back = twin(inputs, mask), twin(inputs[::-1], mask)[::-1]
  np.testing.assert_allclose(there[:, :_HIDDEN], back[:, _HIDDEN:], atol=1e-6)


def test_char_cnn_equals_a_numpy_loop():
  module = _char_cnn.CharCnn(9, 3, 4, rngs=nnx.Rngs(0))
  chars = np.array([[2, 3, 4, 0], [5, 0, 0, 0], [8, 7, 6, 5], [0, 0, 0, 0]])
  table = np.asarray(module.table.embedding[...])
  kernel = np.asarray(module.convolution.kernel[...])
  bias = np.asarray(module.convolution.bias[...])
  expected = np.zeros((4, 4))
  for w, word in enumerate(chars):
    rows = [table[c] for c in word if c]
    padded = [np.zeros(3), *rows, np.zeros(3)]
    features = [
      np.maximum(np.concatenate(padded[i : i + 3]) @ kernel + bias, 0)
      for i in range(len(rows))
    ]
    if features:
      expected[w] = np.max(features, axis=0)
  ours = module(jnp.asarray(chars, jnp.int32))
  np.testing.assert_allclose(ours, expected, atol=1e-6)
