"""metrics.jsonl: what is read, what is forgiven, what is refused."""

import json

import numpy as np
import pytest

from trustjax import reporting, training

_ROWS = [
  {"step": 0, "time": 0.1, "loss": 2.5},
  {"step": 10, "time": 1.5, "loss": None, "loss_reason": "not finite: nan"},
  {"step": 20, "time": 2.5, "loss": 1.25, "accuracy": 0.5},
]


def _write(path, rows, end="\n"):
  path.write_text("\n".join(json.dumps(row) for row in rows) + end)
  return path


def test_series_leave_out_what_is_absent_or_null(tmp_path):
  metrics = reporting.read_metrics(_write(tmp_path / "metrics.jsonl", _ROWS))
  assert metrics.names == ["loss", "accuracy"]
  steps, loss = metrics.series("loss")
  np.testing.assert_array_equal(steps, [0, 20])
  np.testing.assert_array_equal(loss, [2.5, 1.25])
  assert (steps.dtype, loss.dtype) == (np.int64, np.float64)
  np.testing.assert_array_equal(metrics.series("time")[1], [0.1, 1.5, 2.5])
  assert not metrics.truncated


def test_what_training_writes_is_read(tmp_path):
  path = tmp_path / "metrics.jsonl"
  with training.MetricWriter(path) as writer:
    writer.write(1, {"train/loss": np.float32(0.5), "grad/norm": float("inf")})
    writer.write(2, {"train/loss": 0.25, "grad/norm": 1.0})
  metrics = reporting.read_metrics(path)
  np.testing.assert_array_equal(metrics.series("train/loss")[1], [0.5, 0.25])
  np.testing.assert_array_equal(metrics.series("grad/norm")[0], [2])


@pytest.mark.parametrize("kept", range(1, 42, 5))
def test_a_last_line_cut_anywhere_is_left_out_and_said_so(tmp_path, kept):
  path = tmp_path / "metrics.jsonl"
  # The name has a character of two bytes, which the cut may split.
  whole = json.dumps(
    {"step": 30, "time": 3.5, "perplexité": 12345}, ensure_ascii=False
  ).encode()
  assert kept < len(whole)
  _write(path, _ROWS)
  path.write_bytes(path.read_bytes() + whole[:kept])
  metrics = reporting.read_metrics(path)
  assert len(metrics.rows) == 3
  assert metrics.truncated
  assert metrics.note.startswith("metrics.jsonl, line 4: the last line is cut")


def test_a_whole_last_line_without_a_newline_is_kept(tmp_path):
  metrics = reporting.read_metrics(
    _write(tmp_path / "metrics.jsonl", _ROWS, end="")
  )
  assert len(metrics.rows) == 3
  assert not metrics.truncated


@pytest.mark.parametrize(
  ("line", "message"),
  [
    ('{"step": 1, "ti', r"metrics\.jsonl:2:13: not valid JSON"),
    ("[1, 2]", r"metrics\.jsonl:2: got a JSON list"),
    ('{"time": 1.0}', r":2: 'step': got None; allowed are whole numbers"),
    ('{"step": 1.5, "time": 1.0}', "'step': got 1.5"),
    ('{"step": -1, "time": 1.0}', "'step': got -1"),
    ('{"step": 1}', "'time': got None; allowed is a number of seconds"),
    ('{"step": 1, "time": 0, "loss": NaN}', "'loss': got nan; allowed are"),
    ('{"step": 1, "time": 0, "loss": [1]}', r"'loss': got \[1\]"),
  ],
)
def test_any_other_broken_line_is_an_error(tmp_path, line, message):
  path = tmp_path / "metrics.jsonl"
  row = json.dumps(_ROWS[0])
  path.write_text(f"{row}\n{line}\n{row}\n")
  with pytest.raises(ValueError, match=message):
    reporting.read_metrics(path)


def test_missing_files_and_metrics_are_named(tmp_path):
  with pytest.raises(FileNotFoundError, match=r"metrics\.jsonl"):
    reporting.read_metrics(tmp_path / "metrics.jsonl")
  metrics = reporting.read_metrics(_write(tmp_path / "m.jsonl", _ROWS))
  with pytest.raises(KeyError, match="no metric 'f1'; there are: loss, acc"):
    metrics.series("f1")


def test_an_empty_file_is_a_run_that_has_just_begun(tmp_path):
  path = tmp_path / "metrics.jsonl"
  path.write_text("")
  assert reporting.read_metrics(path).rows == ()
