"""Prediction sensitivity against a slow oracle, and what must always hold."""

import functools
import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.fairness.sensitivity_models import PSM, TASK, batch
from trustjax import fairness


def jacobian_of(fn, embeds, mask, space):
  """One record at a time, in forward mode."""
  derivative = _derivative(fn, space)
  rows = [
    derivative(jnp.asarray(e), jnp.asarray(m)) for e, m in zip(embeds, mask)
  ]
  return np.stack(rows, axis=1)


@functools.cache
def _derivative(fn, space):
  squash = {
    "prob": jax.nn.softmax,
    "log_prob": jax.nn.log_softmax,
    "logit": lambda z: z,
  }[space]
  return jax.jit(jax.jacfwd(lambda e, m: squash(fn(e[None], m[None])[0])))


def slow(embeds, mask, special, w, v, reduce, space):
  """The definition, by loops over records, classes and tokens."""
  count = mask & ~special
  jacobian = jacobian_of(TASK, embeds, mask, space)
  psm = jacobian_of(PSM, embeds, mask, "prob")
  spread = np.abs(psm).sum(0) if v == "psm" else np.ones_like(embeds)
  logits = np.asarray(TASK(embeds, mask))
  out = []
  for b in range(len(embeds)):
    weights = {
      "uniform": np.full(3, 1 / 3),
      "predicted": np.eye(3)[logits[b].argmax()],
      "class=1": np.eye(3)[1],
    }[w]
    total = norm = 0
    for t in np.flatnonzero(count[b]):
      big_v = spread[b, t]
      v_t = np.linalg.norm(big_v) if reduce == "token_l2" else big_v.sum()
      norm += v_t
      for k in range(3):
        j = jacobian[k, b, t]
        total += (
          weights[k]
          * {
            "elementwise": (np.abs(j) * big_v).sum(),
            "token_l1": np.abs(j).sum() * v_t,
            "token_l2": np.linalg.norm(j) * v_t,
            "input_x_grad": abs(j @ embeds[b, t]) * v_t,
          }[reduce]
        )
    out.append(total / norm)
  return out


def batch_with_specials():
  """Records in float64 whose first position is special."""
  embeds, mask = batch()
  special = np.zeros_like(mask)
  special[:, 0] = True
  return embeds.astype(np.float64), mask, special


def in_two_chunks(embeds, mask, special, **options):
  """Three records, so that the second chunk is filled up."""
  return fairness.prediction_sensitivity(
    TASK, PSM, embeds, mask, special=special, chunk_size=2, **options
  )


@pytest.mark.parametrize(
  ("w", "v", "reduce", "space"),
  [
    *itertools.product(("uniform",), ("psm",), fairness.REDUCTIONS, ("prob",)),
    ("uniform", "psm", "token_l2", "logit"),
    *(
      pytest.param("uniform", "psm", reduce, "logit", marks=pytest.mark.slow)
      for reduce in fairness.REDUCTIONS
      if reduce != "token_l2"
    ),
    ("predicted", "psm", "token_l2", "log_prob"),
    ("class=1", "psm", "token_l1", "prob"),
    ("predicted", "uniform", "elementwise", "prob"),
  ],
)
def test_equals_the_definition_record_by_record(w, v, reduce, space):
  """float64, so that nothing but the order of sums tells them apart."""
  options = dict(w=w, v=v, reduce=reduce, space=space)
  embeds, mask, special = batch_with_specials()
  with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):
    got = in_two_chunks(embeds, mask, special, **options)
    want = slow(embeds, mask, special, **options)
    np.testing.assert_allclose(got.value, want, rtol=1e-9)
    np.testing.assert_allclose(got.per_token.sum(1), got.value, rtol=1e-5)
    np.testing.assert_allclose(got.token_weight.sum(1), 1, rtol=1e-5)
    assert got.n.tolist() == (mask.sum(1) - 1).tolist()
    assert (np.asarray(got.per_token)[special | ~mask] == 0).all()


@pytest.mark.parametrize(
  "chunk_size", [pytest.param(1, marks=pytest.mark.slow), 4]
)
def test_chunks_change_nothing(chunk_size):
  """Five records: five chunks of one; two chunks of three, one filled up."""
  embeds, mask = batch(size=5)
  rng = np.random.default_rng(1)
  options = {"w": rng.random((5, 3)), "v": rng.random(embeds.shape[:2])}
  whole, chunked = (
    fairness.prediction_sensitivity(
      TASK, None, embeds, mask, chunk_size=size, **options
    )
    for size in (5, chunk_size)
  )
  chex.assert_trees_all_close(whole, chunked, rtol=1e-5)


@pytest.mark.slow
def test_derivatives_equal_central_differences():
  """float64, step 1e-5, to 1e-6; the float32 weights of the model promote."""
  with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):
    embeds, mask = batch(size=1)
    embeds = embeds.astype(np.float64)
    at, h = (0, 1, 2), 1e-5
    up, down = embeds.copy(), embeds.copy()
    up[at] += h
    down[at] -= h
    p_up, p_down = (
      jax.nn.softmax(TASK(jnp.asarray(e), jnp.asarray(mask)))
      for e in (up, down)
    )
    v = np.zeros_like(embeds)
    v[at] = 1
    for k in range(3):
      got = fairness.prediction_sensitivity(
        TASK, None, embeds, mask, w=f"class={k}", v=v, reduce="elementwise"
      )
      want = abs(float(p_up[0, k] - p_down[0, k])) / (2 * h)
      np.testing.assert_allclose(got.value, [want], rtol=1e-6)


class TestProperties:
  def run(self, embeds, mask, task=TASK, psm=PSM, **options):
    return fairness.prediction_sensitivity(task, psm, embeds, mask, **options)

  @pytest.mark.parametrize("reduce", fairness.REDUCTIONS)
  def test_masked_positions_are_inert(self, reduce):
    """By the programs that equal the definition."""
    embeds, mask, special = batch_with_specials()
    options = dict(w="uniform", v="psm", reduce=reduce, space="prob")
    other = np.where(mask[:, :, None], embeds, 1e3)
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):
      one_, two = (
        in_two_chunks(e, mask, special, **options) for e in (embeds, other)
      )
    np.testing.assert_allclose(one_.value, two.value, rtol=1e-6)
    np.testing.assert_allclose(one_.per_token, two.per_token, rtol=1e-5)

  def test_a_constant_model_of_status_gives_zero(self):
    embeds, mask = batch()

    def constant(embeds, mask):
      return jnp.zeros((embeds.shape[0], 2)) + 0.0 * embeds.sum((1, 2))[:, None]

    got = self.run(embeds, mask, psm=constant)
    assert (np.asarray(got.value) == 0).all()
    assert (np.asarray(got.token_weight) == 0).all()

  @pytest.mark.parametrize("reduce", ("token_l2", "elementwise"))
  def test_broken_models_are_not_fair(self, reduce):
    """A derivative that is not a number must not read as none."""
    embeds, mask = batch()

    def broken(embeds, mask):
      del mask
      return embeds.sum((1, 2))[:, None] * jnp.array([[jnp.nan, 1.0]])

    for task, psm in ((broken, PSM), (TASK, broken)):
      got = self.run(
        embeds, mask, task=task, psm=psm, reduce=reduce, space="logit"
      )
      assert np.isnan(got.value).all()
      assert np.isnan(got.relative).all()

  def test_a_record_without_tokens_is_undefined(self):
    embeds, mask = batch()
    mask = mask & (np.arange(len(mask)) != 1)[:, None]
    got = self.run(embeds, mask)
    assert got.n[1] == 0
    np.testing.assert_array_equal(np.isnan(got.value), got.n == 0)
    np.testing.assert_array_equal(np.isnan(got.uniform), got.n == 0)

  def test_a_model_that_ignores_the_coordinate_has_none(self):
    embeds, mask = batch()

    def blind(embeds, mask):
      return TASK(embeds.at[:, :, 2].set(0.0), mask)

    for reduce in ("elementwise",):
      got = self.run(
        jnp.asarray(embeds), mask, task=blind, v="onehot=2", reduce=reduce
      )
      assert (np.asarray(got.value) == 0).all()

  @pytest.mark.slow
  def test_parity_does_not_imply_zero(self):
    """sigma(x (2a - 1)) with symmetric x: parity, but a matters."""

    def fn(embeds, mask):
      x, a = embeds[:, 0, 0], embeds[:, 0, 1]
      z = x * (2 * a - 1)
      return jnp.stack([z, jnp.zeros_like(z)], axis=1)

    x = np.linspace(-2, 2, 9)
    rates = []
    for a in (0, 1):
      embeds = np.stack([x, np.full(9, a)], 1)[:, None].astype(np.float32)
      mask = np.ones((9, 1), bool)
      rates.append(float(jax.nn.softmax(fn(embeds, mask))[:, 0].mean()))
      got = self.run(embeds, mask, task=fn, v="onehot=1", reduce="elementwise")
      assert got.value.max() > 0.1
    np.testing.assert_allclose(*rates, rtol=1e-6)

  @pytest.mark.slow
  def test_only_token_l2_is_invariant_to_rotation(self):
    embeds, mask = batch()
    rotation, _ = np.linalg.qr(np.random.default_rng(3).normal(size=(4, 4)))
    rotation = rotation.astype(np.float32)

    def turned(fn):
      return lambda e, m: fn(e @ rotation.T, m)

    for reduce in fairness.REDUCTIONS[:3]:
      plain = self.run(embeds, mask, reduce=reduce).value
      after = self.run(
        embeds @ rotation,
        mask,
        task=turned(TASK),
        psm=turned(PSM),
        reduce=reduce,
      ).value
      same = np.allclose(plain, after, rtol=1e-3)
      assert same == (reduce == "token_l2"), reduce

  def test_lipschitz_bound(self):
    embeds, mask = batch()
    jacobian = jacobian_of(TASK, embeds, mask, "prob")
    bound = np.abs(jacobian).max()
    rng = np.random.default_rng(0)
    w, v = rng.random(3), rng.random(embeds.shape)
    got = self.run(
      embeds, mask, w=w, v=v, reduce="elementwise", normalize=False
    )
    limit = bound * w.sum() * (v * mask[:, :, None]).sum((1, 2))
    assert (np.asarray(got.value) <= limit * (1 + 1e-5)).all()

  @pytest.mark.slow
  def test_order_of_records_does_not_matter(self):
    embeds, mask = batch(size=6)
    order = np.random.default_rng(0).permutation(6)
    one_ = self.run(embeds, mask).value[order]
    other = self.run(embeds[order], mask[order]).value
    np.testing.assert_allclose(one_, other, rtol=1e-4)

  @pytest.mark.slow
  def test_relative_does_not_see_the_scale_of_embeddings(self):
    embeds, mask = batch()

    def scaled(fn):
      return lambda e, m: fn(e / 7, m)

    one_ = self.run(embeds, mask)
    other = self.run(7 * embeds, mask, task=scaled(TASK), psm=scaled(PSM))
    np.testing.assert_allclose(one_.relative, other.relative, rtol=1e-3)
    assert not np.allclose(one_.value, other.value, rtol=0.1)
    same = self.run(embeds, mask, v="uniform")
    np.testing.assert_allclose(same.relative, 1, rtol=1e-5)

  @pytest.mark.slow
  def test_weights_of_a_confident_model_of_status_do_not_vanish(self):
    """softmax(s z, -s z): the weights are those of z, whatever s."""
    embeds, mask = batch()

    def status(scale):
      def fn(e, m):
        z = PSM(e, m)[:, :1]
        return scale * jnp.concatenate([z, -z], axis=1)

      return fn

    for reduce in fairness.REDUCTIONS:
      plain, sure = (
        self.run(embeds, mask, psm=status(scale), reduce=reduce)
        for scale in (0.1, 4.0)
      )
      np.testing.assert_allclose(
        plain.token_weight, sure.token_weight, rtol=2e-3, atol=1e-6
      )
      np.testing.assert_allclose(plain.value, sure.value, rtol=2e-3)

  @pytest.mark.slow
  def test_rises_with_planted_dependence(self):
    embeds, mask = batch(size=20)
    sizes = []
    for planted in (0.0, 0.5, 1.0, 2.0, 4.0):

      def fn(e, m, planted=planted):
        protected = jnp.sum(jnp.where(m, e[:, :, 3], 0.0), axis=1)
        z = e[:, 0, 0] + planted * protected
        return jnp.stack([z, -z], axis=1)

      got = self.run(
        embeds,
        mask,
        task=fn,
        v="onehot=3",
        reduce="elementwise",
        space="logit",
      )
      sizes.append(float(got.value.mean()))
    assert sizes == sorted(sizes)
    assert sizes[0] == 0

  @pytest.mark.slow
  def test_jit_and_traces(self):
    traced = []

    def fn(embeds, mask):
      traced.append(1)
      return TASK(embeds, mask)

    embeds, mask = batch()
    for seed in range(4):
      self.run(batch(seed)[0], mask, task=fn)
    # An abstract evaluation for the shape and the compiled program, once.
    assert len(traced) == 2
    inside = jax.jit(
      lambda e, m: fairness.prediction_sensitivity(TASK, PSM, e, m)
    )(embeds, mask)
    chex.assert_trees_all_close(inside, self.run(embeds, mask), rtol=1e-4)
