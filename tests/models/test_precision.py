"""Models in bfloat16: every product is, and the loss stays close."""

import re

import jax
import jax.extend
import jax.numpy as jnp
import numpy as np
import pytest

from tests.models import examples
from trustjax import models, privacy

LANGUAGE_MODELS = {
  "decoder": {"num_layers": 2, "dim": 8, "num_heads": 2, "ff_dim": 12},
  "decoder_untied": {"num_layers": 1, "dim": 8, "num_heads": 2, "tied": False},
  "char_lstm": {"dim": 8, "hidden_dim": 6},
}


def _setting(kind):
  """(loss of one record, parameters)."""
  if kind == "image_cnn":
    model = models.image_cnn(image_shape=(8, 8, 3), channels=(2, 2))
    loss_fn = models.losses.label_loss(model)
  elif kind in LANGUAGE_MODELS:
    model = models.make_language_model(
      kind.removesuffix("_untied"),
      vocab_size=examples.VOCAB,
      max_length=examples.TIME,
      **LANGUAGE_MODELS[kind],
    )
    loss_fn = models.losses.language_model_loss(model)
  else:
    name, fields = examples.MODELS[kind]
    model = models.make_model(name, **examples.SIZES, **fields)
    loss_fn = models.losses.joint_loss(model)
  return loss_fn, model.init(jax.random.key(0))


def _products(jaxpr):
  """Types of the operands of every matrix product, at any depth."""
  for equation in jaxpr.eqns:
    if equation.primitive.name == "dot_general":
      yield {str(variable.aval.dtype) for variable in equation.invars}
    for inner in jax.extend.core.jaxprs_in_params(equation.params):
      yield from _products(inner)


@pytest.mark.parametrize(
  "kind", [*examples.MODELS, *LANGUAGE_MODELS, "image_cnn"]
)
def test_every_product_is_in_bfloat16(kind):
  """One table that came back in float32 would pull all that follows along."""
  loss_fn, params = _setting(kind)
  rounded = models.in_precision(loss_fn, "bfloat16")
  image = {"image": np.zeros((8, 8, 3), np.uint8), "label": np.int32(1)}
  closed = jax.make_jaxpr(jax.grad(rounded, has_aux=True))(
    params, examples.example() | image, jax.random.key(0)
  )
  found = list(_products(closed.jaxpr))
  assert found
  # Products of counts and log-probabilities: the loss itself.
  others = [types for types in found if types != {"bfloat16"}]
  assert all(types == {"float32"} for types in others)
  assert len(others) <= 12, others


@pytest.mark.parametrize(
  "kind", [pytest.param("transformer", marks=pytest.mark.slow), "decoder"]
)
def test_the_loss_stays_close_and_gradients_are_float32(kind):
  loss_fn, params = _setting(kind)
  rounded = models.in_precision(loss_fn, "bfloat16")
  record, key = examples.example(), jax.random.key(0)
  (exact, _), expected = jax.jit(jax.value_and_grad(loss_fn, has_aux=True))(
    params, record, key
  )
  (loss, _), found = jax.jit(jax.value_and_grad(rounded, has_aux=True))(
    params, record, key
  )
  assert loss.dtype == jnp.float32
  np.testing.assert_allclose(loss, exact, rtol=0.02)
  assert loss != exact
  for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected)):
    assert a.dtype == jnp.float32
    np.testing.assert_allclose(a, b, atol=0.05 * float(jnp.abs(b).max()) + 1e-3)


def test_clipping_on_an_accelerator_multiplies_in_bfloat16():
  """Lowered for CUDA: no matrix product of activations in a wider type."""
  loss_fn, params = _setting("transformer")
  grads = privacy.clipped_grad(
    models.in_precision(loss_fn, "bfloat16"),
    privacy.ThresholdClip(clip_norm=1.0),
    engine="bookkeeping",
  )
  lot = privacy.Lot(
    examples=examples.batch(4),
    valid=np.ones(4, bool),
    ids=np.arange(4, dtype=np.int32),
  )
  program = jax.jit(lambda p, lot: grads(p, lot, jax.random.key(0), ()).sum)
  lowered = program.trace(params, lot).lower(lowering_platforms=("cuda",))
  operands = re.findall(
    r"dot_general.*: \(tensor<([\dx]*)x(\w+)>, tensor<([\dx]*)x(\w+)>",
    lowered.as_text(),
  )
  wide = [
    (left, right)
    for left, left_type, right, right_type in operands
    if {left_type, right_type} != {"bf16"}
    # Of rank 4 are the books: [units, blocks, positions, width].
    and left.count("x") == right.count("x") == 3
  ]
  assert len(operands) > 20
  assert wide == []


def test_float32_is_the_loss_itself_and_others_are_refused():
  loss_fn, _ = _setting("mean_pool")
  assert models.in_precision(loss_fn, "float32") is loss_fn
  with pytest.raises(ValueError, match="compute_dtype: got 'float16'"):
    models.in_precision(loss_fn, "float16")


def test_features_are_rounded_and_integers_kept():
  def loss_fn(params, example, key):
    del key
    assert params.dtype == example["x"].dtype == jnp.bfloat16
    assert example["label"].dtype == jnp.int32
    return (params * example["x"]).sum(), {"label": example["label"]}

  example = {"x": jnp.full(3, 1.001), "label": jnp.int32(1 << 20)}
  loss, aux = models.in_precision(loss_fn, "bfloat16")(
    jnp.ones(3), example, jax.random.key(0)
  )
  assert loss == 3.0 and loss.dtype == jnp.float32
  assert aux["label"] == 1 << 20
