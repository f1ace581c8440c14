"""What holds for every model: purity, masks, keys, composition."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl.testing import parameterized
from flax import nnx

from tests.models import examples
from tests.models.programs import program
from trustjax import models

_KEY = jax.random.key(0)


@functools.cache
def _build(kind, **more):
  name, fields = examples.MODELS[kind]
  return models.make_model(name, **examples.SIZES, **fields, **more)


@functools.cache
def _init(kind):
  return jax.jit(_build(kind).init)


@functools.cache
def _params(kind):
  return _init(kind)(_KEY)


@functools.cache
def _apply(kind, **more):
  return jax.jit(_build(kind, **more).apply)


@functools.cache
def _grad(kind, **more):
  loss = models.losses.joint_loss(_build(kind, **more))
  return jax.jit(lambda *args: jax.grad(loss, has_aux=True)(*args)[0])


@pytest.fixture(params=examples.KINDS)
def kind(request):
  return request.param


def test_params_are_plain_dicts_of_float32(kind):
  params = _params(kind)

  def check(node):
    assert type(node) is dict
    for child in node.values():
      if isinstance(child, jax.Array):
        assert child.dtype == jnp.float32
      else:
        check(child)

  check(params)
  chex.assert_tree_all_finite(params)


def test_init_is_a_pure_function_of_the_key(kind):
  model = _build(kind)
  assert program(model.init, _KEY) == program(model.init, _KEY)
  tables = [model.word_table(_init(kind)(jax.random.key(i))) for i in range(2)]
  assert not np.allclose(*tables)


@pytest.mark.parametrize(
  "kind",
  [
    "mean_pool",
    # Two seconds each, one small program after the other.
    *(
      pytest.param(kind, marks=pytest.mark.slow)
      for kind in examples.MODELS
      if kind != "mean_pool"
    ),
  ],
)
def test_init_agrees_with_eager(kind):
  eager = _build(kind).init(_KEY)
  chex.assert_trees_all_close(eager, _params(kind), rtol=1e-5, atol=1e-6)


def test_shapes(kind):
  model = _build(kind)
  params, example = _params(kind), examples.example()
  mask = example["mask"]
  embeddings = jax.eval_shape(model.embed, params, example)
  hidden = jax.eval_shape(model.encode, params, embeddings, mask)
  logits = jax.eval_shape(model.heads, params, hidden, mask)
  assert embeddings.ndim == hidden.ndim == 2
  assert embeddings.shape[0] == hidden.shape[0] == examples.TIME
  chex.assert_shape(logits.intent, (examples.INTENTS,))
  chex.assert_shape(logits.slots, (examples.TIME, examples.SLOTS))
  chex.assert_shape(model.word_table(params), (examples.VOCAB, 8))


def test_word_table_holds_the_rows_that_tokens_look_up(kind):
  model = _build(kind)
  params, example = _params(kind), examples.example()
  rows = model.word_table(params)[example["tokens"]]
  embeddings = model.embed(params, example)
  np.testing.assert_array_equal(embeddings[:, :8], rows)


@pytest.mark.parametrize("with_key", [False, True])
def test_apply_is_the_composition(kind, with_key):
  model = _build(kind, dropout=0.3)
  params, example = _params(kind), examples.example()
  key = jax.random.key(5) if with_key else None

  def composed(params, example, key):
    hidden = model.encode(
      params, model.embed(params, example), example["mask"], key
    )
    return model.heads(params, hidden, example["mask"])

  args = (params, example, key)
  assert program(model.apply, *args) == program(composed, *args)


def test_evaluation_is_deterministic_and_a_key_drops_out(kind):
  params, example = _params(kind), examples.example()

  def run(key):
    return _apply(kind, dropout=0.5)(params, example, key).slots

  first, second = jax.random.key(1), jax.random.key(2)
  np.testing.assert_array_equal(run(first), run(first))
  assert not np.allclose(run(first), run(second))
  plain = _apply(kind)(params, example).slots
  assert not np.allclose(run(first), plain)
  # Without a key the rate is nowhere in the program.
  args = (params, example, None)
  assert program(_build(kind, dropout=0.5).apply, *args) == (
    program(_build(kind).apply, *args)
  )


def test_without_dropout_a_key_changes_nothing(kind):
  model = _build(kind)
  args = (_params(kind), examples.example())
  assert program(model.apply, *args, jax.random.key(1)) == (
    program(lambda *args: model.apply(*args[:2]), *args, jax.random.key(1))
  )


def test_padding_influences_neither_outputs_nor_gradients(kind):
  params, example = _params(kind), examples.example(length=4)
  rubbish = {name: np.array(value) for name, value in example.items()}
  rubbish["tokens"][4:] = 9
  rubbish["chars"][4:] = 3
  rubbish["slots"][4:] = 2

  def run(example):
    logits = _apply(kind)(params, example)
    grads = _grad(kind)(params, example, None)
    return logits.intent, logits.slots[:4], grads

  chex.assert_trees_all_equal(run(example), run(rubbish))


def test_more_padding_changes_nothing(kind):
  params, example = _params(kind), examples.example(length=4)
  short = {
    name: value[:5] if np.ndim(value) else value
    for name, value in example.items()
  }
  apply = _apply(kind)
  ours, theirs = apply(params, example), apply(params, short)
  np.testing.assert_allclose(ours.intent, theirs.intent, atol=1e-6)
  np.testing.assert_allclose(ours.slots[:4], theirs.slots[:4], atol=1e-6)


def test_nothing_flows_to_the_embeddings_of_padding(kind):
  model = _build(kind)
  params, example = _params(kind), examples.example(length=4)
  mask = example["mask"]

  def score(embeddings):
    hidden = model.encode(params, embeddings, mask)
    logits = model.heads(params, hidden, mask)
    return jnp.sum(logits.intent**2) + jnp.sum(logits.slots[:4] ** 2)

  grads = jax.jit(jax.grad(score))(model.embed(params, example))
  assert np.all(grads[4:] == 0)
  assert np.all(np.any(grads[:4] != 0, axis=1))


def test_a_record_of_padding_has_finite_logits(kind):
  logits = _apply(kind)(_params(kind), examples.example(length=0))
  chex.assert_tree_all_finite(logits)


def test_vmap_equals_one_by_one(kind):
  params, batch = _params(kind), examples.batch(5)
  together = jax.vmap(_apply(kind), in_axes=(None, 0))(params, batch)
  for i in range(5):
    alone = _apply(kind)(params, {n: v[i] for n, v in batch.items()})
    chex.assert_trees_all_close(
      jax.tree.map(lambda leaf, i=i: leaf[i], together), alone, atol=1e-5
    )


def test_every_parameter_receives_a_gradient(kind):
  grads = _grad(kind)(_params(kind), examples.example(), None)
  for path, leaf in jax.tree_util.tree_leaves_with_path(grads):
    assert np.any(leaf != 0), jax.tree_util.keystr(path)


@pytest.mark.parametrize(
  "kind",
  [
    "mean_pool",
    "bigru",
    "bert",
    # A recurrence and an encoder are above.
    pytest.param("bilstm", marks=pytest.mark.slow),
    pytest.param("bilstm_char", marks=pytest.mark.slow),
    pytest.param("transformer", marks=pytest.mark.slow),
  ],
)
def test_grad_inside_scan(kind):
  params, batch = _params(kind), examples.batch(4)

  @jax.jit
  def train(params):
    def step(params, example):
      grads = _grad(kind)(params, example, None)
      return jax.tree.map(lambda p, g: p - 0.1 * g, params, grads), None

    return jax.lax.scan(step, params, batch)[0]

  trained = train(params)
  chex.assert_trees_all_equal_shapes_and_dtypes(trained, params)
  expected = params
  for i in range(4):
    example = {n: v[i] for n, v in batch.items()}
    grads = _grad(kind)(expected, example, None)
    expected = jax.tree.map(lambda p, g: p - 0.1 * g, expected, grads)
  chex.assert_trees_all_close(trained, expected, rtol=1e-4, atol=1e-6)


def test_one_trace_serves_all_records(kind):
  model = _build(kind, dropout=0.1)
  params = _params(kind)
  chex.clear_trace_counter()  # The counter is shared by the parameters.

  @jax.jit
  @chex.assert_max_traces(n=1)
  def run(params, example, key):
    return model.apply(params, example, key)

  for i in range(3):
    example = examples.example(i, length=i + 1)
    jax.eval_shape(run, params, example, jax.random.key(i))


def test_strict_dtypes(kind, strict_dtypes):
  model = _build(kind, dropout=0.2)
  loss = models.losses.joint_loss(model, unknown_rate=0.2)
  params = _params(kind)
  example = examples.example()
  value, _ = jax.eval_shape(loss, params, example, jax.random.key(1))
  assert value.dtype == jnp.float32


def test_parameter_counts_by_hand():
  v, n, s = examples.VOCAB, examples.INTENTS, examples.SLOTS
  d, h = 8, 6
  head = (2 * h + 1) * (n + s)
  layer = 2 * (d * 4 * h + h * 4 * h + 4 * h)
  second = 2 * (2 * h * 4 * h + h * 4 * h + 4 * h)
  chars = 11 * 16 + (3 * 16 * 5 + 5)
  wider = 2 * ((d + 5) * 4 * h + h * 4 * h + 4 * h)
  encoder = (4 * d * d + 4 * d) + (2 * d * 12 + 12 + d) + 4 * d
  expected = {
    "mean_pool": v * d + (d + 1) * n + (6 * d + 1) * s,
    "bilstm": v * d + layer + second + head,
    "bilstm_char": v * d + chars + wider + head,
    # Three gates for four, and a head that sees the embeddings as well.
    "bigru": v * d + (layer + second) * 3 // 4 + head + d * (n + s),
    "transformer": (
      (v + examples.TIME) * d + 2 * encoder + 2 * d + (d + 1) * (n + s)
    ),
    # Two segments and the pooler on top of what a transformer has.
    "bert": (
      (v + examples.TIME + 2) * d
      + 2 * encoder
      + 2 * d
      + (d + 1) * d
      + (d + 1) * (n + s)
    ),
  }
  for kind, count in expected.items():
    assert models.num_params(_params(kind)) == count, kind


def test_state_besides_parameters_is_refused():
  class Counting(nnx.Module):
    def __init__(self):
      self.seen = nnx.BatchStat(jnp.zeros(()))

  with pytest.raises(ValueError, match="state besides its parameters"):
    models.model_from_module("counting", lambda rngs: Counting())


class _JitCase(chex.TestCase):
  def check(self, kind):
    model = _build(kind, dropout=0.2)
    params, example = _params(kind), examples.example()
    grad = jax.grad(models.losses.joint_loss(model), has_aux=True)
    key = jax.random.key(3)
    ours, _ = self.variant(grad)(params, example, key)
    theirs, _ = grad(params, example, key)
    chex.assert_trees_all_close(ours, theirs, rtol=1e-4, atol=1e-6)


class JitTest(_JitCase):
  @chex.variants(with_jit=True)
  @parameterized.parameters(("mean_pool",))
  def test_gradients_agree_with_eager(self, kind):
    self.check(kind)


@pytest.mark.slow  # Eager recurrences and encoders take half a minute.
class LongProgramsJitTest(_JitCase):
  @chex.variants(with_jit=True)
  @parameterized.parameters(
    *(kind for kind in examples.MODELS if kind != "mean_pool")
  )
  def test_gradients_agree_with_eager(self, kind):
    self.check(kind)
