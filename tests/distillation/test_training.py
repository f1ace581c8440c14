"""Distillation through the trainer: resume, privacy, the control arm."""

import functools

import chex
import jax
import numpy as np
import optax
import pytest

from tests.distillation import tiny_pair as tiny
from trustjax import data, distillation, models, privacy, training


@pytest.fixture(scope="module")
def rows():
  return tiny.rows(120)


@functools.cache
def _parts():
  return privacy.partition(tiny.params(), "^student/")


def _draw(rows, size, step):
  drawn = privacy.shuffled_lot(
    num_records=len(rows["tokens"]), batch_size=size, seed=0, step=step
  )
  return privacy.Lot(
    examples=data.gather(rows, drawn.indices),
    valid=drawn.valid,
    ids=drawn.indices,
  )


def _train(rows, built, num_steps, checkpointer=None, size=8):
  init, step = built
  return training.train(
    init(_parts()[0]),
    step,
    functools.partial(_draw, rows, size),
    jax.random.key(0),
    training.LoopOptions(num_steps=num_steps, show_progress=False),
    checkpointer=checkpointer,
  ).state


@pytest.fixture(scope="module")
def plain_step():
  return training.make_step(
    tiny.loss(how="expMean"), optax.adam(3e-3), frozen=_parts()[1]
  )


def test_a_resumed_run_equals_an_uninterrupted_one(rows, plain_step, tmp_path):
  whole = _train(rows, plain_step, 6)
  for num_steps in (3, 6):
    checkpointer = training.Checkpointer(tmp_path, identity={"arm": "D3"})
    state = _train(rows, plain_step, num_steps, checkpointer)
    checkpointer.close()
  chex.assert_trees_all_equal(state, whole)
  # The teacher is not part of the state, so that it is neither moved nor saved.
  assert not jax.tree.leaves(state.params["teacher"])
  assert jax.tree.leaves(state.params["student"])


def test_the_student_approaches_its_teacher(rows, plain_step):
  state = _train(rows, plain_step, 150)
  loss_fn = jax.jit(jax.vmap(tiny.loss(how="expMean"), in_axes=(None, 0, None)))
  before = np.mean(loss_fn(tiny.params(), rows, None)[1]["kd"])
  merged = privacy.merge(state.params, _parts()[1])
  after = np.mean(loss_fn(merged, rows, None)[1]["kd"])
  assert after < 0.75 * before


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["scan", "vmap", "bookkeeping"])
def test_private_distillation_through_a_plan(rows, engine):
  """One sequence is one record; the teacher costs no clipping, no noise."""
  plan = privacy.DpSgdPlan.make(
    num_records=len(rows["tokens"]),
    expected_batch_size=8,
    num_steps=3,
    noise_multiplier=1e-4,
    rule=privacy.ThresholdClip(clip_norm=1e3),
  )
  loss_fn = tiny.loss(how="mean")
  trained, frozen = _parts()
  init, step = training.make_private_step(
    loss_fn, optax.sgd(0.1), plan, frozen=frozen, engine=engine
  )
  lot = plan.draw_lot(rows, seed=0, step=0)
  state, metrics = step(init(trained), lot, jax.random.key(0))
  assert metrics.num_records == np.sum(lot.valid) and metrics.clipped_share == 0

  # Nothing is clipped and the noise is next to nothing: a plain step on the
  # sum, divided by the expected batch size.
  @jax.jit
  @jax.grad
  def gradient(student):
    losses, _ = jax.vmap(loss_fn, in_axes=(None, 0, None))(
      tiny.params() | {"student": student}, lot.examples, None
    )
    return losses @ lot.valid.astype(np.float32) / 8

  expected = jax.tree.map(
    lambda p, g: p - 0.1 * g,
    tiny.params()["student"],
    gradient(tiny.params()["student"]),
  )
  # 0.1 x (noise 1e-4 x clip norm 1e3 / 8) is the noise of a parameter.
  chex.assert_trees_all_close(state.params["student"], expected, atol=8e-3)
  assert plan.epsilon(1e-5).pld > 0


@pytest.mark.slow
def test_private_fine_tuning_of_a_language_model(rows):
  """The same trainer on packed sequences, without a teacher."""
  loss_fn = models.losses.language_model_loss(tiny.student())
  plan = privacy.DpSgdPlan.make(
    num_records=len(rows["tokens"]),
    expected_batch_size=30,
    num_steps=20,
    noise_multiplier=0.3,
    rule=privacy.AutoClip(),
  )
  init, step = training.make_private_step(loss_fn, optax.adam(1e-2), plan)
  state, losses = init(tiny.params()["student"]), []
  for t in range(20):
    lot = plan.draw_lot(rows, seed=0, step=t)
    state, metrics = step(state, lot, jax.random.key(0))
    losses.append(float(metrics.loss))
  assert np.mean(losses[-4:]) < np.mean(losses[:4])


@pytest.mark.slow
@pytest.mark.parametrize("how", distillation.COMBINATIONS)
def test_the_controls_targets_equal_the_baselines_on_100_batches(rows, how):
  control = tiny.rows(120, control=True)
  teacher = tiny.params()["teacher"]

  @jax.jit
  @jax.vmap
  def difference(example):
    logits = tiny.teacher().apply(teacher, example)
    other = {"tokens": example["tokens_cf"], "mask": example["mask_cf"]}
    target = distillation.combine_teacher(
      logits,
      tiny.teacher().apply(teacher, other),
      example["idx"],
      example["valid"],
      how=how,
    )
    plain = jax.nn.log_softmax(logits)
    return abs(target - plain).max()

  worst = max(
    float(difference(_draw(control, 8, step).examples).max())
    for step in range(100)
  )
  assert worst < 1e-6
