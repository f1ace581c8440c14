"""The report binary: what it writes, and how it refuses."""

import types

import pytest
from absl import app

from experiments import report
from tests.experiments import binaries
from trustjax import reporting


@pytest.fixture
def workdirs(tmp_path):
  folders = []
  for name, value in (("first", 0.9), ("second", 0.8)):
    results = reporting.Results({"dp_sgd/slot_f1": value})
    results.set_protocol({"data": "snips"})
    reporting.write_run(tmp_path / name, config={"name": name}, results=results)
    folders.append(tmp_path / name)
  return folders


def test_two_runs_become_one_page(workdirs, tmp_path):
  done = binaries.call(
    "report",
    *workdirs,
    "--output=out/page.html",
    "--title=A & B",
    cwd=tmp_path,
  )
  assert done.returncode == 0, done.stderr
  assert done.stdout.startswith("out/page.html: 2 runs")
  page = (tmp_path / "out" / "page.html").read_text(encoding="utf-8")
  assert "<h1>A &amp; B</h1>" in page
  assert "dp_sgd/slot_f1" in page


def test_bad_calls_end_with_one_clear_message(workdirs, tmp_path, monkeypatch):
  """A text that a program exits with is printed without a traceback."""
  page = tmp_path / "report.html"
  for flag, value in (("_OUTPUT", str(page)), ("_TITLE", "title")):
    monkeypatch.setattr(report, flag, types.SimpleNamespace(value=value))
  (tmp_path / "empty").mkdir()
  (workdirs[1] / "results.json").write_text('{"a": 1,\n "b" 2}')
  calls = [
    ([], "name at least one WORKDIR"),
    ([tmp_path / "empty"], "empty: not a workdir: results.json is missing"),
    ([workdirs[1]], "results.json:2:6: not valid JSON"),
  ]
  for arguments, message in calls:
    with pytest.raises((app.UsageError, SystemExit), match=message):
      report.main(["report", *map(str, arguments)])
  assert not page.exists()
