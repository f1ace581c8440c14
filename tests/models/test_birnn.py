"""Recurrent layers against NumPy loops and against flax's own cells."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from trustjax.models import _birnn, _cells, _char_cnn

_DIM, _HIDDEN, _TIME = 5, 4, 6
_CELLS = {"lstm": _cells.LSTM, "gru": _cells.GRU}
_FLAX = {"lstm": nnx.OptimizedLSTMCell, "gru": nnx.GRUCell}


@pytest.fixture(scope="module", params=list(_CELLS))
def layer(request):
  layer = _birnn.BiRnn(_CELLS[request.param], _DIM, _HIDDEN, rngs=nnx.Rngs(0))
  # Biases away from their initial zeros and ones, to test their order too.
  layer.bias[...] += jax.random.normal(jax.random.key(1), layer.bias.shape)
  return layer


def _inputs(seed=0):
  return np.random.default_rng(seed).normal(size=(_TIME, _DIM)).astype("f4")


def _sigmoid(x):
  return 1 / (1 + np.exp(-x))


def _lstm(inputs, kernel, recurrent, bias):
  """An LSTM in float64, gate by gate: input, forget, candidate, output."""
  hidden, cell, out = np.zeros(_HIDDEN), np.zeros(_HIDDEN), []
  for x in inputs.astype(np.float64):
    gates = x @ kernel + hidden @ recurrent + bias
    i, f, g, o = (gates[k * _HIDDEN : (k + 1) * _HIDDEN] for k in range(4))
    cell = _sigmoid(f) * cell + _sigmoid(i) * np.tanh(g)
    hidden = _sigmoid(o) * np.tanh(cell)
    out.append(hidden)
  return np.stack(out)


def _gru(inputs, kernel, recurrent, bias):
  """A GRU in float64, gate by gate: reset, update, candidate."""
  hidden, out = np.zeros(_HIDDEN), []
  parts = [slice(k * _HIDDEN, (k + 1) * _HIDDEN) for k in range(3)]
  for x in inputs.astype(np.float64):
    r, z, n = (x @ kernel[:, part] + bias[part] for part in parts)
    again_r, again_z, again_n = (hidden @ recurrent[:, part] for part in parts)
    candidate = np.tanh(n + _sigmoid(r + again_r) * again_n)
    z = _sigmoid(z + again_z)
    hidden = (1 - z) * candidate + z * hidden
    out.append(hidden)
  return np.stack(out)


def _width(layer):
  return layer.cell.num_gates * _HIDDEN


def _weights(layer, direction):
  """Input kernel, recurrent kernel, bias of a direction."""
  half = slice(direction * _width(layer), (direction + 1) * _width(layer))
  arrays = (
    layer.input[...][:, half],
    layer.recurrent[...][direction],
    layer.bias[...][half],
  )
  return [np.asarray(array, np.float64) for array in arrays]


@pytest.mark.parametrize("length", [1, 4, _TIME])
def test_equals_a_numpy_loop(layer, length):
  recursion = {"lstm": _lstm, "gru": _gru}[layer.cell.name]
  inputs, mask = _inputs(), np.arange(_TIME) < length
  ours = layer(jnp.asarray(inputs), jnp.asarray(mask))[:length]
  forward = recursion(inputs[:length], *_weights(layer, 0))
  backward = recursion(inputs[:length][::-1], *_weights(layer, 1))[::-1]
  np.testing.assert_allclose(
    ours, np.concatenate([forward, backward], axis=1), atol=1e-5
  )


@pytest.mark.parametrize("direction", [0, 1])
def test_equals_the_cell_of_flax(layer, direction):
  kernel, recurrent, bias = _weights(layer, direction)
  cell = _FLAX[layer.cell.name](_DIM, _HIDDEN, rngs=nnx.Rngs(0))
  cell.dense_i.kernel[...] = jnp.asarray(kernel, jnp.float32)
  cell.dense_h.kernel[...] = jnp.asarray(recurrent, jnp.float32)
  # The one adds its bias to the hidden state's product, the other to the
  # input's.
  holder = cell.dense_h if layer.cell.name == "lstm" else cell.dense_i
  assert holder.bias is not None
  holder.bias[...] = jnp.asarray(bias, jnp.float32)
  inputs = _inputs()
  ours = layer(jnp.asarray(inputs), jnp.ones(_TIME, bool))
  carry: object = jnp.zeros((1, _HIDDEN))
  carry = (carry, carry) if layer.cell.name == "lstm" else carry
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
  twin.input[...] = jnp.tile(twin.input[...][:, : _width(layer)], (1, 2))
  twin.recurrent[...] = jnp.stack([twin.recurrent[...][0]] * 2)
  twin.bias[...] = jnp.tile(twin.bias[...][: _width(layer)], 2)
  inputs, mask = jnp.asarray(_inputs()), jnp.ones(_TIME, bool)
  there, back = twin(inputs, mask), twin(inputs[::-1], mask)[::-1]
  np.testing.assert_allclose(there[:, :_HIDDEN], back[:, _HIDDEN:], atol=1e-6)


@pytest.mark.parametrize(
  ("name", "bias"), [("lstm", [0, 0, 1, 1, 0, 0, 0, 0]), ("gru", [0] * 6)]
)
def test_initial_bias_opens_the_forget_gate_only(name, bias):
  np.testing.assert_array_equal(_CELLS[name].initial_bias(2), bias)


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
