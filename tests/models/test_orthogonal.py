"""Orthogonal kernels: what they are, and how a batch of them is drawn."""

import jax
import jax.extend
import numpy as np
import pytest

from trustjax import models
from trustjax.models import _orthogonal


@pytest.mark.parametrize("shape", [(6, 24), (24, 6)])
def test_the_shorter_side_is_orthonormal(shape):
  kernel = np.asarray(_orthogonal.orthogonal(jax.random.key(0), shape))
  if shape[0] > shape[1]:
    kernel = kernel.T
  np.testing.assert_allclose(kernel @ kernel.T, np.eye(6), atol=1e-5)


def _factorised_shapes(jaxpr):
  """Shapes of all that is factorised in a jaxpr, inner ones included."""
  for equation in jaxpr.eqns:
    if equation.primitive.name in ("geqrf", "qr", "householder_product"):
      yield equation.invars[0].aval.shape
    for inner in jax.extend.core.jaxprs_in_params(equation.params):
      yield from _factorised_shapes(inner)


def test_first_parameters_of_many_models_factorise_one_matrix_at_a_time():
  """Two batches of them in one program deadlock XLA on two cores."""
  model = models.make_model(
    "bilstm",
    vocab_size=9,
    max_length=4,
    num_intents=2,
    num_slots=3,
    dim=4,
    hidden_dim=5,
  )
  keys = jax.random.split(jax.random.key(1), 3)
  jaxpr = jax.make_jaxpr(jax.vmap(model.init))(keys)
  shapes = list(_factorised_shapes(jaxpr.jaxpr))
  assert shapes and all(len(shape) == 2 for shape in shapes)
  together, alone = jax.jit(jax.vmap(model.init))(keys), jax.jit(model.init)
  for i, key in enumerate(keys):
    jax.tree.map(
      lambda leaf, own, i=i: np.testing.assert_allclose(
        leaf[i], own, rtol=1e-5, atol=1e-7
      ),
      together,
      alone(key),
    )
