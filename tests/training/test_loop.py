"""The loop: stops, saves, and goes on as if it had never stopped."""

import functools
import os
import signal

import numpy as np
import optax
import pytest

from tests.training import tiny_run, tiny_task
from trustjax import privacy, training

RULES = {
  "threshold": privacy.ThresholdClip(clip_norm=0.5),
  "quantile": privacy.QuantileClip(clip_norm=0.5, count_noise=5.0),
  "per_layer": privacy.PerLayerClip(clip_norm=0.5),
}


@functools.cache
def built(rule="threshold", **changes):
  """A plan and its compiled step, which runs share."""
  plan = tiny_task.plan(rule=RULES[rule], **changes)
  grouped = plan.clip_group_size > 1
  optimizer = optax.adam(0.05) if grouped else optax.sgd(0.1, momentum=0.9)
  return plan, training.make_private_step(tiny_task.loss_fn, optimizer, plan)


def make_run(folder, rule="threshold", **changes):
  plan, steps = built(rule, **changes)
  return tiny_run.Run(
    folder, plan, steps, tiny_task.params(), tiny_task.examples()
  )


@pytest.mark.parametrize(
  "rule",
  # Like the threshold it has no state to resume.
  [*list(RULES)[:2], pytest.param("per_layer", marks=pytest.mark.slow)],
)
def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(tmp_path, rule):
  whole = make_run(tmp_path / "whole", rule)
  expected = whole.start()
  assert expected.completed
  assert tiny_task.trees_equal(expected.params, expected.state.params)
  parts = make_run(tmp_path / "parts", rule)
  first = parts.start(stop_at=4)
  assert not first.completed and int(first.state.step) == 5
  assert first.params is None
  _, parts.built = built.__wrapped__(rule)  # A session compiles for itself.
  second = parts.start()
  assert second.completed and int(second.state.step) == tiny_task.NUM_STEPS
  assert tiny_task.trees_equal(second.state, expected.state)
  assert parts.drawn == list(range(tiny_task.NUM_STEPS))
  assert parts.rows() == whole.rows()


def test_clip_groups_and_adam_resume_as_well(tmp_path):
  expected = make_run(tmp_path / "whole", clip_group_size=4).start()
  parts = make_run(tmp_path / "parts", clip_group_size=4)
  for stop_at in (0, 3, None):
    result = parts.start(stop_at=stop_at)
  assert tiny_task.trees_equal(result.state, expected.state)


def test_a_finished_run_trains_no_more(tmp_path):
  run = make_run(tmp_path)
  first = run.start()
  again = run.start()
  assert run.drawn == list(range(tiny_task.NUM_STEPS))
  assert again.completed
  assert tiny_task.trees_equal(first.state, again.state)


def test_ctrl_c_in_the_last_step_is_not_lost(tmp_path):
  run = make_run(tmp_path)
  stopped = run.start(stop_at=tiny_task.NUM_STEPS - 1)
  assert int(stopped.state.step) == tiny_task.NUM_STEPS
  assert not stopped.completed
  assert run.start().completed


def test_ctrl_c_gives_the_handler_back(tmp_path):
  before = signal.getsignal(signal.SIGINT)
  make_run(tmp_path).start(stop_at=1)
  assert signal.getsignal(signal.SIGINT) is before


def test_a_second_ctrl_c_stops_at_once():
  with pytest.raises(KeyboardInterrupt), training.StopOnInterrupt() as stop:
    os.kill(os.getpid(), signal.SIGINT)
    assert stop.requested
    os.kill(os.getpid(), signal.SIGINT)


def test_it_saves_while_it_runs(tmp_path):
  run = make_run(tmp_path)
  run.start(save_every_seconds=0.0)
  saved = sorted(int(p.name) for p in (tmp_path / "checkpoints").iterdir())
  assert saved == [7, 8]  # The two newest are kept.


def test_rows_are_logged_and_evaluated_when_due(tmp_path):
  run = make_run(tmp_path)
  run.start(log_every=4, evaluate_every=3)
  rows = run.rows()
  logged = [row["step"] for row in rows if "train/loss" in row]
  evaluated = [row["step"] for row in rows if "eval/first" in row]
  assert logged == [4, 8] and evaluated == [3, 6, 8]


def test_the_loop_works_without_a_folder():
  plan, (init, step) = built()
  result = training.train(
    init(tiny_task.params()),
    step,
    lambda t: plan.draw_lot(tiny_task.examples(), seed=3, step=t),
    tiny_run.KEY,
    training.LoopOptions(num_steps=3, show_progress=False),
  )
  assert result.completed and result.num_nonfinite == 0
  assert result.seconds_per_step > 0 and result.compile_seconds > 0
  assert np.isfinite(np.asarray(result.params["w"])).all()
