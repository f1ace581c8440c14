"""One step of training, against arithmetic written out by hand."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.training import tiny_task
from trustjax import privacy, training

KEY = jax.random.key(5)
# The documented purposes of a step's key.
RECORDS, NOISE, CLIP = range(3)
RATE = 0.3


@functools.cache
def usual():
  """A plan and its compiled step, which tests share."""
  plan = tiny_task.plan()
  return plan, *training.make_private_step(
    tiny_task.loss_fn, optax.sgd(RATE), plan
  )


def by_hand(plan, params, lot, step):
  """A DP-SGD step on the records of a lot, in NumPy but for the noise."""
  clip_norm = plan.rule.clip_norm
  total = {"w": np.zeros(tiny_task.DIM), "b": 0.0}
  for i in np.flatnonzero(lot.valid):
    x, y = lot.examples["x"][i], lot.examples["y"][i]
    error = x @ np.asarray(params["w"]) + params["b"] - y
    gradient = {"w": error * x, "b": error}
    norm = np.sqrt(np.sum(gradient["w"] ** 2) + gradient["b"] ** 2)
    factor = min(1.0, clip_norm / norm)
    total = {k: total[k] + factor * gradient[k] for k in total}
  key = jax.random.fold_in(jax.random.fold_in(KEY, step), NOISE)
  normals = np.asarray(privacy.standard_normals(key, tiny_task.DIM + 1))
  # Leaves in the order of jax.tree: "b" before "w".
  noise = {"b": normals[0], "w": normals[1:]}
  scale = plan.mechanism.noise_multiplier * clip_norm
  return {
    k: params[k] - RATE * (total[k] + scale * noise[k]) / plan.expected_units
    for k in total
  }


def test_a_private_step_is_clip_sum_noise_and_constant_divisor():
  plan, init, step = usual()
  state, expected = init(tiny_task.params()), tiny_task.params()
  for t in range(3):
    lot = plan.draw_lot(tiny_task.examples(), seed=1, step=t)
    expected = by_hand(plan, expected, lot, t)
    state, metrics = step(state, lot, KEY)
    assert int(metrics.num_records) == lot.valid.sum()
  chex.assert_trees_all_close(state.params, expected, rtol=2e-5, atol=2e-6)


@functools.cache
def after_two_steps(engine):
  """Parameters; small lots, since one engine takes them op by op."""
  plan = tiny_task.plan(expected_batch_size=8)
  init, step = training.make_private_step(
    tiny_task.loss_fn, optax.adam(0.1), plan, engine=engine
  )
  state = init(tiny_task.params())
  for t in range(2):
    lot = plan.draw_lot(tiny_task.examples(), seed=1, step=t)
    state, _ = step(state, lot, KEY)
  return state.params


@pytest.mark.parametrize("engine", ["loop", "loop_eager", "scan", "vmap"])
def test_engines_take_the_same_step(engine):
  chex.assert_trees_all_close(
    after_two_steps("auto"), after_two_steps(engine), rtol=1e-4, atol=1e-6
  )


def test_an_empty_lot_is_pure_noise():
  plan, init, step = usual()
  lot = plan.draw_lot(tiny_task.examples(), seed=1, step=0)
  empty = privacy.Lot(
    examples=jax.tree.map(lambda leaf: leaf * np.nan, lot.examples),
    valid=np.zeros_like(lot.valid),
    ids=lot.ids,
  )
  state, metrics = step(init(tiny_task.params()), empty, KEY)
  expected = by_hand(plan, tiny_task.params(), empty, 0)
  chex.assert_trees_all_close(state.params, expected, rtol=1e-5)
  assert float(metrics.loss) == 0 and int(metrics.num_records) == 0


def test_a_non_finite_record_contributes_nothing_and_is_counted():
  plan, init, step = usual()
  examples = tiny_task.examples()
  lot = plan.draw_lot(examples, seed=1, step=0)
  bad = int(np.flatnonzero(lot.valid)[2])
  poisoned = lot.examples["x"].copy()
  poisoned[bad] = np.inf
  lot_bad = privacy.Lot(
    examples=lot.examples | {"x": poisoned}, valid=lot.valid, ids=lot.ids
  )
  valid = lot.valid.copy()
  valid[bad] = False
  lot_without = privacy.Lot(examples=lot.examples, valid=valid, ids=lot.ids)
  with_bad, metrics = step(init(tiny_task.params()), lot_bad, KEY)
  without, _ = step(init(tiny_task.params()), lot_without, KEY)
  assert tiny_task.trees_equal(with_bad.params, without.params)
  assert int(metrics.num_nonfinite) == 1
  assert np.isfinite(float(metrics.loss))


def test_a_step_beyond_the_plan_is_not_a_number():
  plan = tiny_task.plan(num_steps=1)
  init, step = training.make_private_step(
    tiny_task.loss_fn, optax.sgd(1.0), plan
  )
  lot = plan.draw_lot(tiny_task.examples(), seed=1, step=0)
  state, _ = step(init(tiny_task.params()), lot, KEY)
  assert np.isfinite(state.params["w"]).all()
  state, _ = step(state, lot, KEY)
  assert np.isnan(state.params["w"]).all()


def test_lots_of_one_shape_are_traced_once():
  plan = tiny_task.plan(num_steps=50)
  init, step = training.make_private_step(
    chex.assert_max_traces(tiny_task.loss_fn, n=2), optax.sgd(0.1), plan
  )
  state, shapes, sizes = init(tiny_task.params()), set(), set()
  for t in range(50):
    lot = plan.draw_lot(tiny_task.examples(), seed=1, step=t)
    shapes.add(lot.valid.shape)
    sizes.add(int(lot.valid.sum()))
    state, _ = step(state, lot, KEY)
  assert len(shapes) == 1 and len(sizes) > 5
  assert step._cache_size() == 1


def test_a_chunk_size_that_does_not_divide_is_refused():
  plan = tiny_task.plan()
  init, step = training.make_private_step(
    tiny_task.loss_fn, optax.sgd(0.1), plan, engine="vmap", chunk_size=7
  )
  lot = plan.draw_lot(tiny_task.examples(), seed=1, step=0)
  with pytest.raises(ValueError, match="chunk_size: got 7, which does not"):
    step(init(tiny_task.params()), lot, KEY)


def test_a_learned_threshold_moves_with_the_documented_key():
  rule = privacy.QuantileClip(clip_norm=0.5, count_noise=5.0)
  plan = tiny_task.plan(rule=rule)
  init, step = training.make_private_step(
    tiny_task.loss_fn, optax.sgd(0.1), plan
  )
  lot = plan.draw_lot(tiny_task.examples(), seed=1, step=0)
  clipped = jax.jit(plan.clipped_grad(tiny_task.loss_fn))(
    tiny_task.params(), lot, KEY, rule.init()
  )
  key = jax.random.fold_in(jax.random.fold_in(KEY, 0), CLIP)
  expected = plan.rule.update(
    rule.init(), clipped.norms, jnp.asarray(lot.valid), key
  )
  state, metrics = step(init(tiny_task.params()), lot, KEY)
  np.testing.assert_allclose(state.clip_state, expected, rtol=1e-6)
  assert float(metrics.clip_norm) == 0.5
  assert float(state.clip_state) != 0.5


def non_private_lot(valid=None):
  ids = np.arange(16, dtype=np.int32)
  return privacy.Lot(
    examples={k: v[:16] for k, v in tiny_task.examples().items()},
    valid=np.ones(16, bool) if valid is None else valid,
    ids=ids,
  )


@pytest.mark.parametrize("chunk_size", [None, 4, 16])
def test_a_plain_step_is_the_gradient_of_the_mean(chunk_size):
  init, step = training.make_step(
    tiny_task.loss_fn, optax.adam(0.1), chunk_size=chunk_size
  )
  valid = np.arange(16) < 11
  lot = non_private_lot(valid)

  def mean_loss(params):
    losses = [
      tiny_task.loss_fn(
        params, {k: v[i] for k, v in lot.examples.items()}, None
      )[0]
      for i in range(11)
    ]
    return jnp.mean(jnp.stack(losses))

  params, optimizer = tiny_task.params(), optax.adam(0.1)
  updates, _ = optimizer.update(
    jax.grad(mean_loss)(params), optimizer.init(params), params
  )
  state, metrics = step(init(params), lot, KEY)
  chex.assert_trees_all_close(
    state.params, optax.apply_updates(params, updates), rtol=1e-5, atol=1e-6
  )
  np.testing.assert_allclose(metrics.loss, mean_loss(params), rtol=1e-5)


def test_the_key_of_a_record_is_its_own():
  """Dropout and the like follow the record's id, not its slot."""

  def loss_fn(params, example, key):
    noise = jax.random.normal(key)
    return params["w"][0] * noise * example["x"][0], {"noise": noise}

  plan = tiny_task.plan()
  lot = plan.draw_lot(tiny_task.examples(), seed=1, step=0)
  clipped = jax.jit(plan.clipped_grad(loss_fn))(
    tiny_task.params(), lot, KEY, ()
  )
  for slot in np.flatnonzero(lot.valid):
    key = jax.random.fold_in(KEY, int(lot.ids[slot]))
    np.testing.assert_allclose(
      clipped.aux["noise"][slot], jax.random.normal(key), rtol=1e-6
    )
