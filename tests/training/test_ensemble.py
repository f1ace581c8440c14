"""An ensemble's models are the models that would be trained alone."""

import functools
import os
import signal

import chex
import jax
import numpy as np
import optax
import pytest

from tests.training import tiny_task
from trustjax import privacy, training
from trustjax.training import _ensemble

KEY = jax.random.key(3)
MODELS, STEPS = 5, 7


def make_lots(kind, models=MODELS):
  keep = training.draw_memberships(models, tiny_task.NUM_RECORDS, seed=2)
  if kind == "non_private":
    return training.MemberLots(keep=keep, seed=4, batch_size=8)
  return training.MemberLots(keep=keep, seed=4, plan=make_plan(kind))


def make_plan(kind):
  return tiny_task.plan(
    num_records=tiny_task.NUM_RECORDS // 2,
    expected_batch_size=8,
    clip_group_size=4 if kind == "edp_sgd" else 1,
    rule=privacy.QuantileClip(count_noise=2.0)
    if kind == "quantile"
    else privacy.ThresholdClip(clip_norm=0.5),
  )


@functools.cache
def make_step(kind):
  optimizer = optax.adam(0.05)
  if kind == "non_private":
    return training.make_step(tiny_task.loss_fn, optimizer)
  return training.make_private_step(
    tiny_task.loss_fn, optimizer, make_plan(kind)
  )


def initial(key):
  return {
    "w": jax.random.normal(key, (tiny_task.DIM,)),
    "b": jax.numpy.float32(0.1),
  }


def ensemble(kind="non_private", models=MODELS, **options):
  directory = options.pop("directory", None)
  mesh = options.pop("mesh", None)
  options = {"num_steps": STEPS, "steps_per_call": 3} | options
  return training.train_ensemble(
    *make_step(kind),
    initial,
    tiny_task.examples(),
    make_lots(kind, models),
    KEY,
    training.EnsembleOptions(**options),
    mesh=mesh,
    directory=directory,
    identity={"kind": kind},
  )


def alone(kind, model):
  init, step = make_step(kind)
  first, root = training.ensemble_keys(KEY, model)
  lots = make_lots(kind)
  return training.train(
    init(initial(first)),
    step,
    lambda t: lots.draw_lot(tiny_task.examples(), model, t),
    root,
    training.LoopOptions(num_steps=STEPS),
  ).params


@pytest.fixture(scope="module")
def usual():
  """The non-private ensemble, one model after the other."""
  return ensemble(models_at_a_time=1)


@pytest.mark.parametrize(
  ("kind", "together"),
  [
    ("dp_sgd", MODELS),
    ("edp_sgd", 1),
    pytest.param("dp_sgd", 1, marks=pytest.mark.slow),
    pytest.param("edp_sgd", MODELS, marks=pytest.mark.slow),
    pytest.param("quantile", 1, marks=pytest.mark.slow),
    pytest.param("quantile", MODELS, marks=pytest.mark.slow),
  ],
)
def test_private_models_equal_those_trained_alone(kind, together):
  result = ensemble(kind, models_at_a_time=together)
  assert result.completed
  for model in (0, MODELS - 1):
    own = jax.tree.map(lambda leaf, model=model: leaf[model], result.params)
    chex.assert_trees_all_close(own, alone(kind, model), rtol=1e-5, atol=1e-6)


def test_non_private_models_equal_those_trained_alone(usual):
  for model in range(MODELS):
    own = jax.tree.map(lambda leaf, model=model: leaf[model], usual.params)
    chex.assert_trees_all_close(
      own, alone("non_private", model), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize(
  "options",
  [
    {"models_at_a_time": MODELS},
    {"models_at_a_time": 2},
    {"chunk_size": 2, "models_at_a_time": 1},
  ],
)
def test_how_the_work_is_cut_does_not_change_the_models(usual, options):
  other = ensemble(**options)
  chex.assert_trees_all_close(other.params, usual.params, rtol=1e-5, atol=1e-6)
  if "chunk_size" in options:
    assert other.chunk_size == 2


def test_a_mesh_shares_the_models(usual):
  mesh = jax.make_mesh((2,), ("models",))
  other = ensemble(mesh=mesh, models_at_a_time=1)
  assert other.chunk_size == 6  # Five models and one to fill the devices.
  chex.assert_trees_all_close(other.params, usual.params, rtol=1e-5, atol=1e-6)


def test_all_models_and_calls_share_one_compilation():
  init, step = make_step("non_private")
  traced = chex.assert_max_traces(lambda *args: step(*args), n=1)
  result = training.train_ensemble(
    init,
    traced,
    initial,
    tiny_task.examples(),
    make_lots("non_private"),
    KEY,
    training.EnsembleOptions(
      num_steps=STEPS, steps_per_call=3, chunk_size=2, models_at_a_time=1
    ),
  )
  assert result.completed
  assert result.compile_seconds > 0


def test_ctrl_c_saves_and_the_same_call_finishes(usual, tmp_path, monkeypatch):
  calls, place = [], _ensemble._Program.__call__

  def interrupted(self, *args):
    calls.append(args)
    if len(calls) == 4:  # In the second chunk.
      os.kill(os.getpid(), signal.SIGINT)
    return place(self, *args)

  options = dict(directory=tmp_path, chunk_size=3, models_at_a_time=1)
  with monkeypatch.context() as patch:
    patch.setattr(_ensemble._Program, "__call__", interrupted)
    stopped = ensemble(**options)
    assert not stopped.completed
    assert stopped.params is None
    assert len(calls) == 4
    resumed = ensemble(**options)
    assert len(calls) == 4 + 2  # The first chunk was finished.
  assert resumed.completed
  chex.assert_trees_all_close(
    resumed.params, usual.params, rtol=1e-6, atol=1e-7
  )
  with pytest.raises(training.CheckpointError, match="num_steps was 7, is 8"):
    ensemble(num_steps=8, **options)


def test_only_members_are_ever_drawn_and_all_of_them():
  for kind in ("non_private", "dp_sgd", "edp_sgd"):
    lots = make_lots(kind)
    for model in (0, 3):
      seen = np.zeros(tiny_task.NUM_RECORDS, bool)
      for step in range(60):
        drawn = lots.draw(model, step)
        seen[drawn.indices[drawn.valid]] = True
      np.testing.assert_array_equal(seen, lots.keep[model])


def test_poisson_lots_have_the_plans_rate():
  """3,000 draws: the standard error of the rate is below 0.4 %."""
  lots = make_lots("dp_sgd")
  counts = np.zeros(tiny_task.NUM_RECORDS)
  for step in range(3000):
    drawn = lots.draw(1, step)
    np.add.at(counts, drawn.indices[drawn.valid], 1)
  members = lots.keep[1]
  rate = counts[members].mean() / 3000
  assert abs(rate - lots.plan.mechanism.sampling_rate) < 0.005
  assert not counts[~members].any()


def test_memberships_are_coins_and_copies_share_them():
  keep = training.draw_memberships(400, 50, seed=0)
  # Standard error 0.0035 of the mean, 0.025 of each record's.
  assert abs(keep.mean() - 0.5) < 0.015
  assert np.abs(keep.mean(axis=0) - 0.5).max() < 0.1
  np.testing.assert_array_equal(
    keep[:7], training.draw_memberships(7, 50, seed=0)
  )
  groups = np.arange(50) // 2
  keep = training.draw_memberships(20, 50, seed=0, groups=groups)
  np.testing.assert_array_equal(keep[:, ::2], keep[:, 1::2])
  assert keep.any() and not keep.all()


def test_bad_sizes_are_refused():
  keep = training.draw_memberships(2, 10, seed=0)
  with pytest.raises(ValueError, match="share: got 1"):
    training.draw_memberships(2, 10, seed=0, share=1)
  with pytest.raises(ValueError, match="exactly one of them"):
    training.MemberLots(keep=keep, seed=0)
  with pytest.raises(ValueError, match="lots need at least 11"):
    training.MemberLots(keep=keep, seed=0, batch_size=11)
  shuffled = tiny_task.plan(sampler="shuffled", adjacency="replace_one")
  with pytest.raises(ValueError, match="only 'poisson' keeps"):
    training.MemberLots(keep=keep, seed=0, plan=shuffled)
  with pytest.raises(ValueError, match="steps_per_call: got 0"):
    training.EnsembleOptions(num_steps=1, steps_per_call=0)
  init, step = make_step("non_private")
  lots = training.MemberLots(keep=keep, seed=0, batch_size=2)
  with pytest.raises(ValueError, match="the memberships' 10 records"):
    training.train_ensemble(
      init,
      step,
      initial,
      tiny_task.examples(),
      lots,
      KEY,
      training.EnsembleOptions(num_steps=1),
    )


def test_deferred_noise_is_refused_before_anything_runs():
  """Its models would come out without the noise that still waits."""
  plan = make_plan("dp_sgd")

  def loss_fn(params, example, key):
    del key
    return jax.numpy.sum(params["table"][example["row"]]), {}

  params = {"table": jax.numpy.zeros((4, tiny_task.DIM))}
  example = {"row": np.int32(0)}
  init, step, _ = training.make_deferred_step(
    loss_fn, 0.1, plan, params, example
  )
  with pytest.raises(ValueError, match="init: got that of make_deferred_step"):
    training.train_ensemble(
      init,
      step,
      lambda key: params,
      {"row": np.zeros(tiny_task.NUM_RECORDS, np.int32)},
      make_lots("dp_sgd"),
      KEY,
      training.EnsembleOptions(num_steps=1, chunk_size=2),
    )
