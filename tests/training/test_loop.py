"""The loop: stops, saves, and goes on as if it had never stopped."""

import json
import os
import signal

import jax
import numpy as np
import optax
import pytest

from tests.training import tiny_task
from trustjax import privacy, training

KEY = jax.random.key(2)
RULES = {
  "threshold": privacy.ThresholdClip(clip_norm=0.5),
  "quantile": privacy.QuantileClip(clip_norm=0.5, count_noise=5.0),
  "per_layer": privacy.PerLayerClip(clip_norm=0.5),
}


class Run:
  """A run in a folder, started as often as one likes."""

  def __init__(self, folder, plan, optimizer=None):
    self.folder, self.plan = folder, plan
    self.optimizer = optimizer or optax.sgd(0.1, momentum=0.9)
    self.drawn = []

  def start(self, num_steps=tiny_task.NUM_STEPS, *, stop_at=None, **options):
    """Trains; `stop_at` sends this process Ctrl-C during that step."""
    init, step = training.make_private_step(
      tiny_task.loss_fn, self.optimizer, self.plan
    )

    def draw(t):
      self.drawn.append(t)
      if t == stop_at:
        os.kill(os.getpid(), signal.SIGINT)
      return self.plan.draw_lot(tiny_task.examples(), seed=3, step=t)

    checkpointer = training.Checkpointer(
      self.folder / "checkpoints", identity=self.plan.describe()
    )
    start = checkpointer.latest_step()
    fields = dict(log_every=1, evaluate_every=3, show_progress=False)
    with training.MetricWriter(
      self.folder / "metrics.jsonl", resume_at=start
    ) as writer:
      result = training.train(
        init(tiny_task.params()),
        step,
        draw,
        KEY,
        training.LoopOptions(num_steps=num_steps, **(fields | options)),
        writer=writer,
        evaluate=lambda params: {"eval/w0": params["w"][0]},
        checkpointer=checkpointer,
      )
    checkpointer.close()
    return result

  def rows(self):
    """metrics.jsonl without the clock."""
    lines = (self.folder / "metrics.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    return [{k: v for k, v in row.items() if k != "time"} for row in rows]


@pytest.mark.parametrize("rule", RULES)
def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(tmp_path, rule):
  plan = tiny_task.plan(rule=RULES[rule])
  whole = Run(tmp_path / "whole", plan)
  expected = whole.start()
  assert expected.completed
  parts = Run(tmp_path / "parts", plan)
  first = parts.start(stop_at=4)
  assert not first.completed and int(first.state.step) == 5
  second = parts.start()
  assert second.completed and int(second.state.step) == tiny_task.NUM_STEPS
  assert tiny_task.trees_equal(second.state, expected.state)
  assert parts.drawn == list(range(tiny_task.NUM_STEPS))
  assert parts.rows() == whole.rows()


def test_clip_groups_and_adam_resume_as_well(tmp_path):
  plan = tiny_task.plan(clip_group_size=4)
  expected = Run(tmp_path / "whole", plan, optax.adam(0.05)).start()
  parts = Run(tmp_path / "parts", plan, optax.adam(0.05))
  for stop_at in (0, 3, None):
    result = parts.start(stop_at=stop_at)
  assert tiny_task.trees_equal(result.state, expected.state)


def test_a_finished_run_trains_no_more(tmp_path):
  run = Run(tmp_path, tiny_task.plan())
  first = run.start()
  again = run.start()
  assert run.drawn == list(range(tiny_task.NUM_STEPS))
  assert again.completed
  assert tiny_task.trees_equal(first.state, again.state)


def test_ctrl_c_in_the_last_step_is_not_lost(tmp_path):
  run = Run(tmp_path, tiny_task.plan())
  stopped = run.start(stop_at=tiny_task.NUM_STEPS - 1)
  assert int(stopped.state.step) == tiny_task.NUM_STEPS
  assert not stopped.completed
  assert run.start().completed


def test_ctrl_c_gives_the_handler_back(tmp_path):
  before = signal.getsignal(signal.SIGINT)
  Run(tmp_path, tiny_task.plan()).start(stop_at=1)
  assert signal.getsignal(signal.SIGINT) is before


def test_a_second_ctrl_c_stops_at_once():
  with pytest.raises(KeyboardInterrupt), training.StopOnInterrupt() as stop:
    os.kill(os.getpid(), signal.SIGINT)
    assert stop.requested
    os.kill(os.getpid(), signal.SIGINT)


def test_it_saves_while_it_runs(tmp_path):
  run = Run(tmp_path, tiny_task.plan())
  run.start(save_every_seconds=0.0)
  saved = sorted(int(p.name) for p in (tmp_path / "checkpoints").iterdir())
  assert saved == [7, 8]  # The two newest are kept.


def test_rows_are_logged_and_evaluated_when_due(tmp_path):
  run = Run(tmp_path, tiny_task.plan())
  run.start(log_every=4, evaluate_every=3)
  rows = run.rows()
  logged = [row["step"] for row in rows if "train/loss" in row]
  evaluated = [row["step"] for row in rows if "eval/w0" in row]
  assert logged == [4, 8] and evaluated == [3, 6, 8]


def test_the_loop_works_without_a_folder():
  plan = tiny_task.plan()
  init, step = training.make_private_step(
    tiny_task.loss_fn, optax.sgd(0.1), plan
  )
  result = training.train(
    init(tiny_task.params()),
    step,
    lambda t: plan.draw_lot(tiny_task.examples(), seed=3, step=t),
    KEY,
    training.LoopOptions(num_steps=3, show_progress=False),
  )
  assert result.completed and result.num_nonfinite == 0
  assert result.seconds_per_step > 0 and result.compile_seconds > 0
  assert np.isfinite(np.asarray(result.state.params["w"])).all()
