"""Deferred noise: the same law as a draw for every entry at every step."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.compilation import hurried_compilation  # noqa: F401
from trustjax import privacy
from trustjax.privacy import _deferred_noise

ROWS, DIM, SLOTS, READS, RATE = 7, 3, 4, 2, 0.5


def make_plan(rule=None, num_steps=20, **fields):
  return privacy.DpSgdPlan.make(
    num_records=40,
    expected_batch_size=SLOTS,
    rule=rule or privacy.ThresholdClip(clip_norm=0.7),
    num_steps=num_steps,
    noise_multiplier=1.5,
    **fields,
  )


def classifier(params, example, key):
  """Mean of embeddings, with words dropped by the key, and a linear map."""
  keep = jax.random.bernoulli(key, 0.7, example["tokens"].shape)
  words = params["table"][jnp.where(keep, example["tokens"], 0)]
  logits = jnp.mean(words, axis=0) @ params["head"]
  return -jax.nn.log_softmax(logits)[example["label"]], None


def make_params():
  keys = jax.random.split(jax.random.key(0), 2)
  return {
    "head": jax.random.normal(keys[0], (DIM, 2)),
    "table": jax.random.normal(keys[1], (ROWS, DIM)),
  }


def make_lot(seed, num_valid=SLOTS):
  rng = np.random.default_rng(seed)
  return privacy.Lot(
    examples={
      # The last rows are never read.
      "tokens": jnp.asarray(rng.integers(0, 5, (SLOTS, READS)), jnp.int32),
      "label": jnp.asarray(rng.integers(0, 2, SLOTS), jnp.int32),
    },
    valid=jnp.arange(SLOTS) < num_valid,
    ids=jnp.arange(SLOTS, dtype=jnp.int32),
  )


EXAMPLE = jax.tree.map(lambda leaf: leaf[0], make_lot(0).examples)


def make_sgd(loss_fn=classifier, rate: Any = RATE, plan=None, **options):
  return privacy.deferred_noise_sgd(
    loss_fn, plan or make_plan(), rate, make_params(), EXAMPLE, **options
  )


class TestOneNoise:
  """With the same noise given to both, deferred steps ARE ordinary steps."""

  @pytest.mark.parametrize(("group", "settle_at"), [(1, (3,)), (2, ())])
  def test_every_path_is_the_ordinary_one(self, monkeypatch, group, settle_at):
    """Every normal is 1 and step s moves by n_s: what is pending adds up."""
    plan = make_plan(clip_group_size=group, group_capacity=None)
    nudges = np.random.default_rng(1).normal(size=21).astype(np.float32)
    summed = jnp.asarray(np.concatenate([[0], np.cumsum(nudges)]))
    monkeypatch.setattr(
      _deferred_noise._normals,
      "standard_normals",
      lambda key, count: jnp.zeros(count).at[:].set(1.0),
    )
    monkeypatch.setattr(
      _deferred_noise._PendingNoise,
      "deviation",
      lambda self, leaf, since, until: summed[until] - summed[since],
    )
    sgd = make_sgd(plan=plan)
    state = sgd.init(make_params())
    ordinary = self.ordinary_step(plan)
    params = make_params()
    for step in range(6):
      lot = make_lot(step, num_valid=3)
      if group > 1:
        lot = jax.tree.map(
          lambda leaf: jnp.reshape(leaf, (2, 2, *leaf.shape[1:])), lot
        )
      state, seen = sgd.step(state, lot, jax.random.key(3))
      params, want = ordinary(params, lot, step, nudges[step])
      assert seen.sum is None
      for field in ("losses", "norms", "num_nonfinite"):
        np.testing.assert_allclose(
          getattr(seen, field), getattr(want, field), rtol=1e-5
        )
      if step in settle_at:
        settled, state = sgd.settle(state, jax.random.key(3))
        jax.tree.map(
          lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
          settled,
          params,
        )
    # Before it is settled, the table is another one.
    assert not np.allclose(state.unsettled["table"], params["table"])
    settled, _ = sgd.settle(state, jax.random.key(3))
    for name in params:
      np.testing.assert_allclose(
        settled[name], params[name], rtol=1e-4, atol=1e-5
      )

  def ordinary_step(self, plan):
    clipped_grad = plan.clipped_grad(classifier, engine="vmap")
    scales = plan.gradient_noise_multipliers() * plan.rule.clip_norm

    @jax.jit
    def step(params, lot, count, nudge):
      key = jax.random.fold_in(jax.random.fold_in(jax.random.key(3), count), 0)
      clipped = clipped_grad(params, lot, key, ())
      noise = {"head": jnp.asarray(scales, jnp.float32)[count], "table": 0.0}
      moved = {
        name: params[name]
        - RATE / plan.expected_units * (clipped.sum[name] + noise[name])
        for name in params
      }
      moved["table"] = moved["table"] + nudge
      return moved, clipped

    return step


def reading(params, example, key):
  """A loss that is the sum of the rows it reads: gradients are constant."""
  del key
  return jnp.sum(params["table"][example["tokens"]]), None


def one_read(rows):
  """A lot with one record that reads these rows."""
  return privacy.Lot(
    examples={
      "tokens": jnp.asarray([rows], jnp.int32),
      "label": jnp.zeros(1, jnp.int32),
    },
    valid=jnp.ones(1, bool),
    ids=jnp.zeros(1, jnp.int32),
  )


class TestLaw:
  """Moments over many keys against those of one draw a step and entry."""

  NUM_KEYS = 4000

  @pytest.fixture(scope="class")
  @classmethod
  def runs(cls):
    """Losses of each step and settled tables, over keys."""
    sgd = make_sgd(reading, rate=lambda t: 0.5 / (1 + t))
    lots = [one_read(rows) for rows in ([0, 1], [0, 0], [2, 2], [1, 2])]

    @jax.jit
    @jax.vmap
    def run(key):
      state, read = sgd.init(make_params()), []
      for i, lot in enumerate(lots):
        state, seen = sgd.step(state, lot, key)
        read.append(seen.losses[0])
        if i == 2:  # An evaluation in the middle changes no law.
          middle, state = sgd.settle(state, key)
      return (
        jnp.stack(read),
        middle["table"],
        sgd.settle(state, key)[0]["table"],
      )

    return jax.device_get(
      run(jax.random.split(jax.random.key(0), cls.NUM_KEYS))
    )

  def step_variances(self):
    rates = 0.5 / (1 + np.arange(4))
    return np.square(rates * 1.5 * 0.7 / SLOTS)

  def test_settled_tables_have_the_covariance_of_ordinary_noise(self, runs):
    """Independent entries; later noise independent of earlier noise.

    Each of the 21 + 210 + 441 entries is within 5 standard errors; by chance
    one is not in 1 of 2,500 seeds.
    """
    _, middle, end = runs
    steps = self.step_variances()
    flat = end.reshape(self.NUM_KEYS, -1)
    error = np.sqrt(2 / self.NUM_KEYS)
    covariance = np.cov(flat.T)
    np.testing.assert_allclose(
      covariance / steps.sum(), np.eye(flat.shape[1]), atol=5 * error
    )
    earlier = middle.reshape(self.NUM_KEYS, -1)
    np.testing.assert_allclose(
      np.cov(earlier.T) / steps[:3].sum(), np.eye(21), atol=5 * error
    )
    # What came after the evaluation is the last step's noise and no more.
    later = flat - earlier
    np.testing.assert_allclose(
      np.cov(later.T) / steps[3], np.eye(21), atol=5 * error
    )
    crossed = np.cov(later.T, earlier.T)[:21, 21:]
    scale = np.sqrt(steps[3] * steps[:3].sum())
    np.testing.assert_allclose(crossed / scale, 0, atol=5 * error)

  def test_rows_have_their_whole_noise_when_they_are_read(self, runs):
    """The losses' covariance over steps: a row's noise is one path."""
    read, _, _ = runs
    before = np.concatenate([[0], np.cumsum(self.step_variances())])
    # Rows are read by losses as 1+1, 2, 2, 1+1 times; DIM entries each.
    uses = np.array([[1, 1, 0], [2, 0, 0], [0, 0, 2], [0, 1, 1]])
    want = DIM * np.array(
      [
        [uses[i] @ uses[j] * before[min(i, j)] for j in range(4)]
        for i in range(4)
      ]
    )
    got = np.cov(read.T)
    assert got[0, 0] < 1e-9  # Nothing is pending before the first step.
    spread = np.sqrt(np.outer(np.diag(want), np.diag(want)))[1:, 1:]
    error = np.sqrt(2 / self.NUM_KEYS)
    np.testing.assert_allclose(
      got[1:, 1:] / spread, want[1:, 1:] / spread, atol=5 * error
    )

  def test_means_are_those_of_the_clipped_steps(self, runs):
    _, _, end = runs
    plan = make_plan()
    params = make_params()
    for i, rows in enumerate(([0, 1], [0, 0], [2, 2], [1, 2])):
      clipped = plan.clipped_grad(reading, engine="scan")(
        params, one_read(rows), jax.random.key(0), ()
      )
      rate = 0.5 / (1 + i) / SLOTS
      params = jax.tree.map(lambda p, s, r=rate: p - r * s, params, clipped.sum)
    error = np.sqrt(self.step_variances().sum() / self.NUM_KEYS)
    np.testing.assert_allclose(
      end.mean(axis=0), params["table"], atol=4.5 * error
    )


def test_variances_of_a_long_run_keep_their_digits():
  """Neighbours in a sum over 100,000 steps, each to float32 precision."""
  plan = make_plan(
    num_steps=100_000,
    schedule=privacy.NoiseSchedule(kind="inverse", period=1000, decay=0.1),
  )
  noise = _deferred_noise._PendingNoise.of(plan, RATE, make_params())
  since = np.array([0, 50_000, 99_990, 99_999])
  got = noise.deviation(1, jnp.asarray(since, jnp.int32), jnp.int32(100_000))
  steps = np.square(RATE * 0.7 / SLOTS * plan.gradient_noise_multipliers())
  want = [np.sqrt(steps[i:].sum()) for i in since]
  np.testing.assert_allclose(got, want, rtol=1e-5)
  beyond = noise.deviation(1, jnp.zeros(1, jnp.int32), jnp.int32(100_001))
  assert np.isnan(beyond[0])


class TestRefused:
  def refused(self, message, loss_fn=classifier, **options):
    with pytest.raises(ValueError, match=message):
      make_sgd(loss_fn, **options)

  @pytest.mark.parametrize(
    ("loss_fn", "why"),
    [
      (lambda p, e, k: (jnp.sum(p["table"] @ p["head"]), None), "dot_general"),
      (
        lambda p, e, k: (
          jnp.sum(p["table"][e["tokens"]] @ p["table"].T),
          None,
        ),
        "read whole, by dot_general",
      ),
      (
        lambda p, e, k: (
          reading(p, e, k)[0] + 0.1 * jnp.sum(jnp.square(p["table"])),
          None,
        ),
        "table: ",
      ),
      (
        lambda p, e, k: (
          reading(p, e, k)[0] + jnp.max(jax.lax.stop_gradient(p["table"])),
          None,
        ),
        "table: ",
      ),
      (
        lambda p, e, k: (jnp.sum(p["table"][e["tokens"], :2]), None),
        "in parts or by columns|table: ",
      ),
      (
        lambda p, e, k: (
          jnp.sum(p["table"][jnp.argmax(p["head"][:, 0]) + e["tokens"]]),
          None,
        ),
        "which row is read depends on parameters",
      ),
      (
        lambda p, e, k: (
          jax.lax.scan(
            lambda sum, i: (sum + jnp.sum(p["table"][i]), None),
            0.0,
            e["tokens"],
          )[0],
          None,
        ),
        "inside a loop",
      ),
      (lambda p, e, k: (jnp.sum(p["head"]), None), "does not depend on it"),
    ],
  )
  def test_a_table_that_is_more_than_looked_up(self, loss_fn, why):
    self.refused(rf"only for a float32 matrix .*({why})", loss_fn)

  def test_a_table_by_name(self):
    self.refused(r"\(head: read whole, by dot_general\)", tables=("head",))
    self.refused(
      r"tables: got \['words'\]; the p.* \['head', 'table'\]", tables=("words",)
    )
    assert make_sgd(tables=("table",)).tables == ("table",)

  def test_an_optimizer(self):
    for optimizer in (optax.sgd(0.1), optax.adam(0.1)):
      self.refused("momentum, Adam and weight decay", rate=optimizer)

  @pytest.mark.parametrize("rate", [-1.0, float("nan"), lambda t: 3.0 - t])
  def test_a_rate(self, rate):
    self.refused("learning_rate: got .* at step .*finite and at", rate=rate)

  @pytest.mark.parametrize(
    ("rule", "why"),
    [
      (
        privacy.QuantileClip(clip_norm=0.2, count_noise=9.0),
        "learns its threshold",
      ),
      (
        privacy.PerLayerClip(scale="weight_relative"),
        "scales its thresholds by the param",
      ),
      # Constant noise is not enough: the thresholds would read the tables.
      (
        privacy.PerLayerClip(scale="weight_relative", allocation="uniform"),
        "scales its thresholds by the param",
      ),
    ],
  )
  def test_noise_that_is_not_known_before(self, rule, why):
    self.refused(f"plan.rule: got .*{why}", plan=make_plan(rule))


def test_layers_clipped_apart_have_their_own_variance():
  rule = privacy.PerLayerClip(scale="equal", allocation="uniform")
  plan = make_plan(rule)
  noise = _deferred_noise._PendingNoise.of(plan, RATE, make_params())
  one = noise.deviation(1, jnp.zeros(1, jnp.int32), jnp.int32(1))
  (scale, *_) = plan.rule.noise_scales((), make_params())
  np.testing.assert_allclose(one, RATE * 1.5 * scale / SLOTS, rtol=1e-6)


@pytest.fixture(scope="module")
def sgd():
  """Compiled once for the tests below."""
  return make_sgd()


def test_a_step_beyond_the_plan_is_nan(sgd):
  state = dataclasses.replace(sgd.init(make_params()), step=jnp.int32(19))
  for step in range(2):
    assert np.all(np.isfinite(state.unsettled["head"]))
    state, _ = sgd.step(state, make_lot(step), jax.random.key(0))
  params, _ = sgd.settle(state, jax.random.key(0))
  assert np.all(np.isnan(params["table"])) and np.all(np.isnan(params["head"]))


def test_a_resumed_run_is_the_same_run_in_the_same_program(sgd):
  key = jax.random.key(5)

  def run(pause):
    state = sgd.init(make_params())
    for step in range(4):
      state, _ = sgd.step(state, make_lot(step, num_valid=step), key)
      if pause:
        state = jax.tree.map(jnp.asarray, jax.device_get(state))
    return sgd.settle(state, key)[0]

  jax.tree.map(np.testing.assert_array_equal, run(False), run(True))
  assert sgd.step._cache_size() == 1
