"""metrics.jsonl survives crashes and resumes."""

import json
import math

import jax.numpy as jnp

from trustjax import training


def rows(path):
  return [json.loads(line) for line in path.read_text().splitlines()]


def test_rows_hold_step_time_and_numbers(tmp_path):
  path = tmp_path / "deep" / "metrics.jsonl"
  with training.MetricWriter(path) as writer:
    writer.write(3, {"train/loss": jnp.float32(0.5), "count": 2})
  (row,) = rows(path)
  assert row.pop("time") >= 0
  assert row == {"step": 3, "train/loss": 0.5, "count": 2}


def test_a_number_that_is_not_finite_is_null_with_a_reason(tmp_path):
  path = tmp_path / "metrics.jsonl"
  with training.MetricWriter(path) as writer:
    writer.write(1, {"loss": math.nan})
  assert rows(path)[0]["loss"] is None
  assert rows(path)[0]["loss_reason"] == "not finite: nan"


def test_resuming_drops_rows_that_will_come_again_and_torn_lines(tmp_path):
  path = tmp_path / "metrics.jsonl"
  with training.MetricWriter(path) as writer:
    for step in (1, 2, 3):
      writer.write(step, {"loss": step})
  with path.open("a") as file:
    file.write('{"step": 4, "lo')
  with training.MetricWriter(path, resume_at=2) as writer:
    writer.write(3, {"loss": 30})
  assert [(row["step"], row["loss"]) for row in rows(path)] == [
    (1, 1),
    (2, 2),
    (3, 30),
  ]


def test_a_new_run_starts_a_new_file(tmp_path):
  path = tmp_path / "metrics.jsonl"
  for loss in (1.0, 2.0):
    with training.MetricWriter(path) as writer:
      writer.write(1, {"loss": loss})
  assert [row["loss"] for row in rows(path)] == [2.0]
