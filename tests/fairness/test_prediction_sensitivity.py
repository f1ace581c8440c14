"""Accumulated prediction sensitivity: closed forms, weights and refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from tests.fairness.sensitivity_models import PSM, TASK, batch
from trustjax import fairness

_ONES = np.ones((1, 1), bool)


def first_token(weights):
  """A linear model of the first token's embedding; one program a shape."""
  return jax.tree_util.Partial(_first_token, jnp.asarray(weights, jnp.float32))


def _first_token(matrix, embeds, mask):
  del mask
  return embeds[:, 0] @ matrix.T


def linear(embeds, mask):
  """One output with the derivatives ((3, -4), (0, 2)), tokens by dims."""
  del mask
  jacobian = jnp.array([[3.0, -4], [0, 2]])
  return jnp.sum(embeds * jacobian[None], axis=(1, 2))[:, None]


def one(x):
  """One record with one token."""
  return np.asarray(x, np.float32)[None, None, :]


def value(fn, x, **options):
  got = fairness.prediction_sensitivity(
    fn, None, one(x), _ONES, **{"reduce": "elementwise", **options}
  )
  return float(got.value[0])


class TestKnownAnswers:
  def test_linear(self):
    a = [0.7, -2.0, 0.0]
    for j, want in enumerate((0.7, 2.0, 0.0)):
      got = value(first_token([a]), [1, 2, 3], v=f"onehot={j}", space="logit")
      np.testing.assert_allclose(got, want, rtol=1e-6)

  def test_linear_in_w_and_v(self):
    rng = np.random.default_rng(0)
    fn = first_token(rng.normal(size=(3, 4)))
    w1, w2, v1, v2 = (rng.random(k) for k in (3, 3, 4, 4))

    def p(w, v):
      return value(fn, [1, 2, 3, 4], w=w, v=one(v), normalize=False)

    np.testing.assert_allclose(
      p(2 * w1 + w2, v1), 2 * p(w1, v1) + p(w2, v1), rtol=1e-5
    )
    np.testing.assert_allclose(
      p(w1, v1 + 3 * v2), p(w1, v1) + 3 * p(w1, v2), rtol=1e-5
    )

  def test_binary_softmax(self):
    fn = first_token([[1, 0], [-1, 0]])
    x = [0.5, 2.0]
    np.testing.assert_allclose(
      jax.nn.softmax(fn(one(x), _ONES))[0], [0.731059, 0.268941], atol=1e-6
    )
    for w in ("uniform", "class=0", "class=1", "predicted"):
      np.testing.assert_allclose(
        value(fn, x, w=w, v="onehot=0"), 0.393224, atol=1e-6
      )
      assert value(fn, x, w=w, v="onehot=1") == 0

  W3 = ((1, 2, 0), (0, -1, 1), (-1, 0, 2))
  X3 = (0.5, 0.3, -0.2)
  V3 = one((0.5, 0.25, 0.25))

  @pytest.mark.parametrize(
    ("options", "want"),
    [
      ({"w": "uniform"}, 0.213816),
      ({"w": "predicted"}, 0.320724),
      ({"w": "class=0"}, 0.320724),
      ({"w": "class=1"}, 0.161718),
      ({"w": "uniform", "absolute": False}, 0.0),
      ({"w": "uniform", "space": "logit"}, 0.833333),
    ],
  )
  def test_three_classes(self, options, want):
    got = value(first_token(self.W3), self.X3, v=self.V3, **options)
    np.testing.assert_allclose(got, want, atol=1e-6)

  def test_closed_form_of_softmax(self):
    """J_ki = p_k (W_ki - sum_j p_j W_ji)."""
    matrix = np.array(self.W3, float)
    p = np.exp(matrix @ self.X3)
    p /= p.sum()
    jacobian = p[:, None] * (matrix - p @ matrix)
    for k in range(3):
      for i in range(3):
        got = value(
          first_token(self.W3), self.X3, w=np.eye(3)[k], v=f"onehot={i}"
        )
        np.testing.assert_allclose(got, abs(jacobian[k, i]), atol=1e-6)

  @pytest.mark.parametrize(
    ("reduce", "want"),
    [("elementwise", 5), ("token_l1", 11), ("token_l2", 7.828427)],
  )
  def test_reductions(self, reduce, want):
    got = fairness.prediction_sensitivity(
      linear,
      None,
      np.ones((1, 2, 2), np.float32),
      np.ones((1, 2), bool),
      v=np.array([[[1.0, 0], [1, 1]]]),
      reduce=reduce,
      space="logit",
      normalize=False,
    )
    np.testing.assert_allclose(got.value, [want], rtol=1e-6)

  def test_input_x_grad(self):
    """Tokens (1, 2) and (3, 1): |3 - 8| 1 + |0 + 2| 2."""
    got = fairness.prediction_sensitivity(
      linear,
      None,
      np.array([[[1, 2], [3, 1]]], np.float32),
      np.ones((1, 2), bool),
      v=np.array([[[1.0, 0], [1, 1]]]),
      reduce="input_x_grad",
      space="logit",
      normalize=False,
    )
    np.testing.assert_allclose(got.per_token, [[5, 4]], rtol=1e-6)

  @pytest.mark.parametrize(
    ("s", "want", "tolerance"),
    [(1, 0.393224, 1e-6), (5, 0.066481, 1e-6), (20, 8.2446e-8, 1e-11)],
  )
  def test_saturation(self, s, want, tolerance):
    """A confident model looks fair in probability space only."""
    fn = first_token([[s], [-s]])
    np.testing.assert_allclose(
      value(fn, [0.5], v="onehot=0"), want, atol=tolerance
    )
    np.testing.assert_allclose(
      value(fn, [0.5], v="onehot=0", space="logit"), s, rtol=1e-6
    )

  def test_signed_sum_over_classes_vanishes_in_probability_space(self):
    embeds, mask = batch()
    got = fairness.prediction_sensitivity(
      TASK,
      None,
      embeds,
      mask,
      v="uniform",
      reduce="elementwise",
      absolute=False,
    )
    assert np.abs(got.value).max() < 1e-6
    size = fairness.prediction_sensitivity(
      TASK, None, embeds, mask, v="uniform", reduce="elementwise"
    )
    assert size.value.min() > 1e-4


class TestWeights:
  def test_lexicon(self):
    got = fairness.lexicon_weights(
      np.array([[1, 7, 3], [7, 7, 0]]), np.array([7, 3])
    )
    assert got.tolist() == [[0, 1, 1], [1, 1, 0]]
    embeds, mask = batch(size=2, time=3)
    mask[:] = True
    found = fairness.prediction_sensitivity(TASK, None, embeds, mask, v=got)
    assert (np.asarray(found.per_token)[np.asarray(got) == 0] == 0).all()

  def test_swap(self):
    embeds, mask = batch()
    changed = embeds.copy()
    changed[:, 1] += 0.5
    v = fairness.swap_weights(embeds, changed)
    got = fairness.prediction_sensitivity(TASK, None, embeds, mask, v=v)
    assert (np.asarray(got.per_token)[:, [0, 2, 3, 4]] == 0).all()
    assert (np.asarray(got.per_token)[:, 1] > 0).all()

  @pytest.mark.parametrize(
    ("options", "message"),
    [
      ({"w": "class=9"}, "but there are 3 classes"),
      ({"w": "class=x"}, "wants a whole number"),
      ({"w": "max"}, "w: got 'max'"),
      ({"w": np.ones(2)}, r"w: got shape \(2,\)"),
      ({"w": -np.ones(3)}, "w: got a negative weight"),
      ({"v": "onehot=4"}, "embeddings have 4 coordinates"),
      ({"v": "lexicon"}, "v: got 'lexicon'"),
      ({"v": np.ones(3)}, r"v: got shape \(3,\)"),
      ({"reduce": "mean"}, "reduce: got 'mean'"),
      ({"space": "odds"}, "space: got 'odds'"),
      ({"absolute": False}, "only 'elementwise'"),
      ({"chunk_size": 0}, "chunk_size: got 0"),
    ],
  )
  def test_bad_options(self, options, message):
    embeds, mask = batch()
    with pytest.raises(ValueError, match=message):
      fairness.prediction_sensitivity(TASK, PSM, embeds, mask, **options)

  def test_psm_is_needed(self):
    embeds, mask = batch()
    with pytest.raises(ValueError, match="psm_fn: got None"):
      fairness.prediction_sensitivity(TASK, None, embeds, mask)

  def test_models_must_return_a_row_of_logits(self):
    embeds, mask = batch()
    with pytest.raises(ValueError, match="must return"):
      fairness.prediction_sensitivity(
        lambda e, m: e[:, 0, 0], PSM, embeds, mask
      )


def test_counterfactual_baseline():
  embeds, mask = batch()
  rng = np.random.default_rng(5)
  changed = embeds[:, None] + rng.normal(size=(3, 2, 5, 4)).astype(np.float32)
  masks = np.repeat(mask[:, None], 2, axis=1)
  valid = np.array([[1, 1], [1, 0], [0, 0]], bool)
  task = jax.jit(TASK)
  got = fairness.counterfactual_sensitivity(
    task, embeds, mask, changed, masks, valid
  )
  for b in range(2):
    p, *others = (
      scipy.special.softmax(np.asarray(task(row[None], mask[b : b + 1]))[0])
      for row in (embeds[b], *changed[b])
    )
    k = int(p.argmax())
    apart = [abs(others[s][k] - p[k]) for s in range(2) if valid[b, s]]
    np.testing.assert_allclose(got.per_item[b], np.mean(apart), rtol=1e-4)
  assert np.isnan(got.per_item[2])
  assert int(got.n) == 3


def test_models_of_one_architecture_share_a_compiled_program():
  """Parameters inside a `Partial` are arguments, not constants."""
  traces = []

  def summed(weights, embeds, mask):
    traces.append(0)
    kept = jnp.where(mask[:, :, None], embeds, 0.0)
    return jnp.einsum("btd,dk->bk", kept, weights)

  embeds = np.ones((2, 3, 4), np.float32)
  mask = np.ones((2, 3), bool)

  def run(weights):
    return fairness.prediction_sensitivity(
      jax.tree_util.Partial(summed, jnp.full((4, 2), weights)),
      None,
      embeds,
      mask,
      v="onehot=0",
      space="logit",
    )

  first = run(1.0)
  before = len(traces)
  second = run(3.0)
  assert len(traces) == before  # Neither for its shape nor its program.
  np.testing.assert_allclose(second.value, 3 * np.asarray(first.value))
