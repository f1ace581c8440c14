"""Accumulated prediction sensitivity: closed forms, traps, a slow oracle."""

import functools
import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

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


def small_net(seed, num_classes=3, dim=4, hidden=6):
  """A smooth model that mixes tokens and reads no padding."""
  rng = np.random.default_rng(seed)
  first = jnp.asarray(rng.normal(size=(dim, hidden)), jnp.float32)
  second = jnp.asarray(rng.normal(size=(hidden, num_classes)), jnp.float32)

  def fn(embeds, mask):
    kept = jnp.where(mask[:, :, None], embeds, 0.0)
    each = jnp.tanh(kept @ first)
    mixed = jnp.sum(jnp.where(mask[:, :, None], each, 0.0), axis=1)
    return jnp.tanh(mixed) @ second + jnp.sin(mixed) @ second

  return fn


TASK, PSM = small_net(0), small_net(1, num_classes=2)


def batch(seed=0, size=3, time=5, dim=4):
  rng = np.random.default_rng(seed)
  embeds = rng.normal(size=(size, time, dim)).astype(np.float32)
  lengths = rng.integers(2, time + 1, size)
  return embeds, np.arange(time)[None] < lengths[:, None]


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
  with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):
    embeds, mask = batch()
    embeds = embeds.astype(np.float64)
    special = np.zeros_like(mask)
    special[:, 0] = True
    got = fairness.prediction_sensitivity(
      TASK,
      PSM,
      embeds,
      mask,
      w=w,
      v=v,
      reduce=reduce,
      space=space,
      special=special,
      chunk_size=2,  # Two chunks, the second one filled up.
    )
    want = slow(embeds, mask, special, w, v, reduce, space)
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
    embeds, mask = batch()
    other = np.where(mask[:, :, None], embeds, 1e3).astype(np.float32)
    one_, two = (self.run(e, mask, reduce=reduce) for e in (embeds, other))
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
