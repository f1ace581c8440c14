"""Files of a run: whole or absent, and read back with clear errors."""

import dataclasses
import json
import math
import pathlib

import ml_collections
import numpy as np
import pytest

from trustjax import reporting


def _results():
  results = reporting.Results()
  results.set_protocol({"data": "snips"})
  results.measure("dp_sgd/f1", reporting.Interval(0.8, 0.7, 0.9, 3))
  return results


def _table():
  return reporting.Table(columns=[reporting.Column("x")], rows=[{"x": 1}])


def test_a_run_is_written_and_read_back(tmp_path):
  figure = reporting.plot_learning_curves(
    {"accuracy": {"dp_sgd": reporting.Curve([0, 1], [0, 1])}}
  )
  paths = reporting.write_run(
    tmp_path / "run",
    config={"seed": 3},
    results=_results(),
    table=_table(),
    figures={"learning_curves": figure},
  )
  names = [p.relative_to(tmp_path / "run").as_posix() for p in paths]
  assert names == [
    "config.json",
    "figures/learning_curves.png",
    "table.md",
    "table.csv",
    "results.json",
  ]
  # Nothing half-written stays behind.
  there = [p for p in (tmp_path / "run").rglob("*") if p.is_file()]
  assert sorted(there) == sorted(paths)
  assert dict(reporting.read_results(tmp_path / "run")) == dict(_results())
  assert json.loads(paths[0].read_text()) == {"seed": 3}


def test_a_record_that_breaks_a_rule_writes_nothing(tmp_path):
  results = _results()
  results._values["x"] = None  # As if somebody had reached inside.
  with pytest.raises(ValueError, match="key 'x': got null"):
    reporting.write_run(tmp_path / "run", config={}, results=results)
  assert not (tmp_path / "run").exists()


def test_configurations_of_all_kinds(tmp_path):
  @dataclasses.dataclass(frozen=True)
  class Plan:
    rate: float = 0.1

  config = ml_collections.ConfigDict(
    {
      "plan": {"rate": 0.01, "epsilon": math.inf},
      "sizes": (1, 2),
      "name": None,
    }
  )
  reporting.write_config(
    tmp_path,
    {
      "config": config,
      "plan": Plan(),
      "path": pathlib.Path("a/b"),
      "array": np.array([1.0, 2.0]),
      "flag": True,
    },
  )
  assert json.loads((tmp_path / "config.json").read_text()) == {
    "config": {
      "plan": {"rate": 0.01, "epsilon": "inf"},
      "sizes": [1, 2],
      "name": None,
    },
    "plan": {"rate": 0.1},
    "path": "a/b",
    "array": [1.0, 2.0],
    "flag": True,
  }
  with pytest.raises(ValueError, match=r"config field 'a\.b\[1\]': got object"):
    reporting.write_config(tmp_path, {"a": {"b": [1, object()]}})


@pytest.mark.parametrize(
  "text,message",
  [
    ('{"x": 1,\n "y": }', r"results\.json:2:7: not valid JSON: Expecting"),
    ("[1]", r"results\.json: got a list; allowed is one JSON object"),
    ('{"x": NaN}', r"results\.json: key 'x': got nan; allowed is a finite"),
    ('{"x": Infinity}', r"results\.json: key 'x': got inf; allowed"),
    ('{"x": null}', r"results\.json: key 'x': got null without 'x_reason'"),
    ('{"x": {"y": 1}}', r"results\.json: key 'x': got .* of type dict"),
    ('{"x": 1, "x": 2}', r"results\.json: key 'x': appears more than once"),
    ("", r"results\.json:1:1: not valid JSON"),
  ],
)
def test_a_broken_record_names_file_and_key(tmp_path, text, message):
  (tmp_path / "results.json").write_text(text)
  with pytest.raises(ValueError, match=message):
    reporting.read_results(tmp_path)


def test_a_record_that_is_not_text(tmp_path):
  (tmp_path / "results.json").write_bytes(b'{"x": "\xff"}')
  with pytest.raises(ValueError, match=r"results\.json: not UTF-8"):
    reporting.read_results(tmp_path)


def test_a_missing_record(tmp_path):
  with pytest.raises(FileNotFoundError, match=r"results\.json: there is no"):
    reporting.read_results(tmp_path)
