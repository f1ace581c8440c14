"""The decoder: GPT-2 in NumPy, causality, masks, tying, dropout."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.models import reference_transformers as reference
from tests.models.programs import program
from trustjax import models
from trustjax.models import _safetensors_layout

_VOCAB, _TIME, _KEY = 13, 6, jax.random.key(0)
_WIDTHS = {"num_layers": 2, "dim": 12, "ff_dim": 20}
_SIZES = {"vocab_size": _VOCAB, "max_length": _TIME, **_WIDTHS}


@functools.cache
def _build(**more):
  return models.transformer_decoder(**_SIZES, num_heads=3, **more)


@functools.cache
def _init(**more):
  return jax.jit(_build(**more).init)


@functools.cache
def _params(**more):
  return _init(**more)(_KEY)


@functools.cache
def _apply(**more):
  return jax.jit(_build(**more).apply)


def _example(length=_TIME, seed=0):
  mask = np.arange(_TIME) < length
  tokens = np.random.default_rng(seed).integers(1, _VOCAB, _TIME)
  return {"tokens": np.where(mask, tokens, 0).astype(np.int32), "mask": mask}


@pytest.fixture(params=[True, False], ids=["tied", "untied"])
def tied(request):
  return request.param


def _imported(tied):
  """Random weights under GPT-2's names, and the same as our parameters."""
  tensors = reference.random_gpt2(**_SIZES, tied=tied)
  params = _safetensors_layout.params_from_tensors(
    _safetensors_layout.gpt2_layout(2, tied=tied),
    tensors,
    _params(tied=tied),
    "here",
  )
  return tensors, params


@pytest.mark.parametrize("length", [1, 4, _TIME])
def test_equals_a_numpy_loop(tied, length):
  tensors, params = _imported(tied)
  example = _example(length)
  ours = _apply(tied=tied)(params, example)[:length]
  expected = reference.gpt2_logits(
    tensors, example["tokens"][:length], num_layers=2, num_heads=3
  )
  assert np.std(expected) > 0.5
  np.testing.assert_allclose(ours, expected, atol=1e-4)


def test_params_are_plain_dicts_of_float32_and_follow_the_key(tied):
  model, params = _build(tied=tied), _params(tied=tied)
  assert program(model.init, _KEY) == program(model.init, _KEY)
  assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {
    jnp.dtype("float32")
  }
  assert type(params) is type(params["layer_0"]) is dict
  other = _init(tied=tied)(jax.random.key(1))
  assert not np.allclose(model.word_table(other), model.word_table(params))


def test_counts_by_hand(tied):
  d, ff = _WIDTHS["dim"], _WIDTHS["ff_dim"]
  layer = 4 * d * d + 4 * d + 2 * d * ff + ff + d + 4 * d
  expected = (_VOCAB + _TIME) * d + 2 * layer + 2 * d
  expected += 0 if tied else _VOCAB * d
  assert models.num_params(_params(tied=tied)) == expected


def test_base_is_the_size_of_gpt2_small():
  model = models.transformer_decoder(
    vocab_size=50_257, max_length=1024, size="base"
  )
  shapes = jax.eval_shape(model.init, _KEY)
  assert models.num_params(shapes) == 124_439_808


def test_projections_to_the_stream_start_smaller():
  model = models.transformer_decoder(
    vocab_size=500, max_length=64, num_layers=2, dim=64, num_heads=2, ff_dim=256
  )
  params = jax.jit(model.init)(_KEY)
  # The standard deviation of 64 x 64 numbers is known to 1.1 %.
  for name, scale in (
    ("qkv", 0.02),
    ("ff_in", 0.02),
    ("out", 0.01),
    ("ff_out", 0.01),
  ):
    kernel = params["layer_1"][name]["kernel"]
    np.testing.assert_allclose(np.std(kernel), scale, rtol=0.05)
  for table in (params["words"]["embedding"], params["positions"]):
    np.testing.assert_allclose(np.std(table), 0.02, rtol=0.05)


@pytest.mark.parametrize("with_key", [False, True])
def test_apply_is_the_composition(tied, with_key):
  model, params = _build(tied=tied, dropout=0.3), _params(tied=tied)
  example = _example(4)
  key = jax.random.key(5) if with_key else None

  def composed(params, example, key):
    embeddings = model.embed(params, example)
    hidden = model.encode(params, embeddings, example["mask"], key)
    chex.assert_shape([embeddings, hidden], (_TIME, 12))
    return model.logits(params, hidden)

  args = (params, example, key)
  chex.assert_shape(jax.eval_shape(model.apply, *args), (_TIME, _VOCAB))
  assert program(model.apply, *args) == program(composed, *args)
  rows = model.word_table(params)[example["tokens"]]
  np.testing.assert_array_equal(model.embed(params, example), rows)


@functools.cache
def _sensitivity():
  """(params, embeddings, mask, t) -> gradient of what position t says."""
  model = _build()

  def squares(params, embeddings, mask, t):
    hidden = model.encode(params, embeddings, mask)
    return jnp.sum(model.logits(params, hidden)[t] ** 2)

  return jax.jit(jax.grad(squares, argnums=1))


def _moved(mask, t):
  """Which positions change what position t says."""
  _, params = _imported(True)
  embeddings = params["words"]["embedding"][_example()["tokens"]]
  return np.any(_sensitivity()(params, embeddings, mask, t) != 0, axis=1)


@pytest.mark.parametrize("t", range(_TIME))
def test_logits_see_no_later_token_and_every_earlier_one(t):
  moved = _moved(np.ones(_TIME, bool), t)
  np.testing.assert_array_equal(moved, np.arange(_TIME) <= t)


def test_nobody_sees_a_position_outside_of_the_mask():
  """Even one in the middle, which causality alone would not hide."""
  mask = np.arange(_TIME) != 2
  np.testing.assert_array_equal(_moved(mask, _TIME - 1), mask)


def test_padding_changes_nothing():
  params = _params()
  example = _example(4)
  rubbish = example | {
    "tokens": np.where(example["mask"], example["tokens"], 9)
  }
  short = {name: value[:4] for name, value in example.items()}
  ours = _apply()(params, example)
  np.testing.assert_array_equal(ours, _apply()(params, rubbish))
  np.testing.assert_allclose(ours[:4], _apply()(params, short), atol=1e-6)


def test_a_record_of_padding_has_finite_logits():
  assert np.all(np.isfinite(_apply()(_params(), _example(0))))


def test_vmap_equals_one_by_one():
  params = _params()
  records = [_example(length, length) for length in range(1, _TIME + 1)]
  batch = jax.tree.map(lambda *leaves: np.stack(leaves), *records)
  together = jax.vmap(_apply(), in_axes=(None, 0))(params, batch)
  for ours, record in zip(together, records):
    np.testing.assert_allclose(ours, _apply()(params, record), atol=1e-5)


def test_tied_scores_words_by_their_embeddings():
  model, params = _build(), _params()
  hidden = jax.random.normal(_KEY, (4, 12))
  np.testing.assert_allclose(
    model.logits(params, hidden),
    hidden @ params["words"]["embedding"].T,
    atol=1e-6,
  )
  assert "unembed" in _params(tied=False) and "unembed" not in params


def test_dropout_follows_the_key():
  params, example = _params(), _example()
  run = functools.partial(_apply(dropout=0.5), params, example)
  first, second = jax.random.key(1), jax.random.key(2)
  np.testing.assert_array_equal(run(first), run(first))
  assert not np.allclose(run(first), run(second))
  assert not np.allclose(run(first), _apply()(params, example))
  # Without a key the rate is nowhere in the program, and the other way round.
  args = (params, example)
  plain = program(_build().apply, *args, None)
  assert program(_build(dropout=0.5).apply, *args, None) == plain
  keyed = program(_build().apply, *args, first)
  assert keyed == program(lambda p, e, _: _build().apply(p, e), *args, first)


def test_every_parameter_receives_a_gradient(tied):
  loss = models.losses.language_model_loss(_build(tied=tied))
  grads, _ = jax.jit(jax.grad(loss, has_aux=True))(
    _params(tied=tied), _example(), None
  )
  for path, leaf in jax.tree_util.tree_leaves_with_path(grads):
    assert np.any(leaf != 0), jax.tree_util.keystr(path)


def test_one_trace_serves_all_records():
  model, params = _build(dropout=0.1), _params()
  chex.clear_trace_counter()

  @jax.jit
  @chex.assert_max_traces(n=1)
  def run(params, example, key):
    return model.apply(params, example, key)

  for i in range(3):
    jax.eval_shape(run, params, _example(i + 1, i), jax.random.key(i))


def test_strict_dtypes(strict_dtypes):
  loss = models.losses.language_model_loss(_build(dropout=0.2))
  value, _ = jax.eval_shape(loss, _params(), _example(), _KEY)
  assert value.dtype == jnp.float32


def test_too_many_positions():
  model = models.transformer_decoder(**(_SIZES | {"max_length": 5}))
  params = jax.eval_shape(model.init, _KEY)
  with pytest.raises(ValueError, match="got 6 positions; the model has 5"):
    jax.eval_shape(model.apply, params, _example())


def test_a_model_can_be_a_key():
  first, second = (models.transformer_decoder(**_SIZES) for _ in range(2))
  assert len({first, second, first}) == 2
