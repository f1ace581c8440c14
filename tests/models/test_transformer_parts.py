"""What the Transformers share: attention, norms, and where dropout acts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from trustjax import models
from trustjax.models import _model, _transformer_parts

_TIME, _DIM, _HEADS = 5, 8, 2
_WIDTHS = {"num_layers": 2, "dim": _DIM, "num_heads": _HEADS, "ff_dim": 12}
_SIZES = {"vocab_size": 9, "max_length": _TIME, "dropout": 0.25, **_WIDTHS}


def _build(kind):
  if kind == "decoder":
    return models.transformer_decoder(**_SIZES)
  return models.bert_encoder(**_SIZES, num_intents=2, num_slots=3)


@pytest.mark.parametrize("kind", ["decoder", "bert"])
def test_dropout_acts_in_the_four_places_of_the_papers(kind, monkeypatch):
  """Embeddings, and per layer the attention weights and both additions."""
  calls, original = [], _model.dropout

  def spy(values, rate, key):
    calls.append((values.shape, rate, jax.random.key_data(key)))
    return original(values, rate, key)

  model = _build(kind)
  shapes = jax.eval_shape(model.init, jax.random.key(0))
  params = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)
  example = {"tokens": np.arange(_TIME), "mask": np.ones(_TIME, bool)}
  monkeypatch.setattr(_model, "dropout", spy)

  @jax.jit
  def keys_of(key):
    model.apply(params, example, key)
    return [key for _, _, key in calls]

  keys = keys_of(jax.random.key(1))
  stream, weights = (_TIME, _DIM), (_HEADS, _TIME, _TIME)
  assert [shape for shape, _, _ in calls] == [
    stream,
    *[weights, stream, stream] * 2,
  ]
  assert {rate for _, rate, _ in calls} == {0.25}
  assert len({tuple(key.tolist()) for key in keys}) == 7


def test_attention_weights_are_thinned():
  qkv = jnp.concatenate([jnp.zeros((8, 8)), jnp.ones((8, 4))], axis=1)
  allowed = jnp.ones((1, 8), bool)

  def run(key):
    return _transformer_parts.self_attention(qkv, allowed, 2, 0.25, key)

  np.testing.assert_allclose(run(None), np.ones((8, 4)), rtol=1e-6)
  draws = jax.jit(jax.vmap(run))(jax.random.split(jax.random.key(0), 500))
  # Each value is the mean of 8 weights of 0 or 4/3: a multiple of 1/6.
  np.testing.assert_allclose(draws * 6, np.round(draws * 6), atol=1e-4)
  assert len(np.unique(np.round(draws * 6))) > 4
  # Standard error of the mean of 500 x 8 x 2 means: 0.0023.
  assert abs(np.mean(draws) - 1) < 0.01


def test_a_norm_keeps_its_digits_where_the_mean_is_large():
  values = 3000 + np.random.default_rng(0).normal(size=(4, 64))
  values = values.astype(np.float32)
  norm = _transformer_parts.layer_norm(64, 1e-5, nnx.Rngs(0))
  exact = values.astype(np.float64)
  centred = exact - exact.mean(1, keepdims=True)
  expected = centred / np.sqrt(exact.var(1, keepdims=True) + 1e-5)
  # Float32 resolves 3000 to 2e-4.
  np.testing.assert_allclose(norm(jnp.asarray(values)), expected, atol=1e-3)
