"""The record: its rules, claims, protocols, and the files it leaves."""

import json
import math

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from trustjax import reporting

PROTOCOL = {"data": {"name": "snips"}, "seeds": [0, 1, 2], "delta": 1e-5}


@pytest.fixture
def results():
  record = reporting.Results()
  record.set_protocol(PROTOCOL)
  record.measure("dp_sgd/slot_f1", reporting.mean_interval([0.79, 0.80, 0.82]))
  record.set("dp_sgd/epsilon", 7.99)
  record.set("dp_sgd/sampler", "poisson")
  record.set("non_private/epsilon", None, reason="no mechanism was run")
  return record


def test_values_siblings_and_reasons(results):
  assert results["dp_sgd/slot_f1_n"] == 3
  assert results["dp_sgd/slot_f1_low"] < results["dp_sgd/slot_f1"]
  assert results.interval("dp_sgd/slot_f1") == reporting.mean_interval(
    [0.79, 0.80, 0.82]
  )
  assert results["non_private/epsilon"] is None
  assert results.interval("non_private/epsilon") is None
  assert results.reason("non_private/epsilon") == "no mechanism was run"
  assert results.arms() == ["dp_sgd", "non_private"]


def test_an_infinite_value_with_a_reason_becomes_null(results):
  results.set("dp_sgd/epsilon_rdp", math.inf, reason="no noise")
  assert results["dp_sgd/epsilon_rdp"] is None
  assert results.reason("dp_sgd/epsilon_rdp") == "no noise"
  results.set("dp_sgd/epsilon_rdp", 8.5, reason="no noise")
  assert results["dp_sgd/epsilon_rdp"] == 8.5
  assert "dp_sgd/epsilon_rdp_reason" not in results


@pytest.mark.parametrize(
  "value",
  [np.float32(0.5), np.float64(0.5), np.array(0.5), 0.5],
)
def test_array_scalars_become_plain_numbers(results, value):
  results.set("x", value)
  assert type(results["x"]) is float
  assert json.dumps(dict(results), allow_nan=False)


@pytest.mark.parametrize(
  ("value", "message"),
  [
    (math.nan, "'x': got nan; allowed is a finite number"),
    (-math.inf, "got -inf"),
    (True, "type bool"),
    ([1.0], "type list"),
    (np.ones(2), "type ndarray"),
    (None, "a null needs a reason"),
  ],
)
def test_a_bad_value_is_refused_where_it_arises(results, value, message):
  with pytest.raises(ValueError, match=message):
    results.set("x", value)


@pytest.mark.parametrize(
  ("entries", "message"),
  [
    ({"a": None}, "'a': got null without 'a_reason'"),
    ({"a": 1.0, "a_reason": "none"}, "only a null has a reason"),
    ({"a": 1.0, "a_low": 0.5}, "must both be numbers"),
    ({"a": 1.0, "a_low": 1.5, "a_high": 2.0}, "_low <= estimate <= _high"),
    ({"a": "text", "a_low": 0, "a_high": 1}, "there is no number 'a'"),
    ({"a": 1.0, "a_n": 2.5}, "whole number"),
    ({"a b": 1.0}, "without spaces"),
    ({"claim/x": "MAYBE"}, "HOLDS, FAILS, UNDECIDED"),
    ({"protocol/data": "snips", "protocol_hash": "0"}, "is not the hash"),
    ({"a": {"b": 1}}, "type dict"),
  ],
)
def test_entries_that_contradict_each_other_are_refused(entries, message):
  with pytest.raises(ValueError, match=message):
    reporting.Results(entries)


def test_a_missing_name_says_what_there_is(results):
  with pytest.raises(KeyError, match="dp_sgd/slot_f1"):
    results["dp_sgd/accuracy"]
  with pytest.raises(ValueError, match="string 'poisson'"):
    results.interval("dp_sgd/sampler")


# ------------------------------------------------------------------- claims


@pytest.mark.parametrize(
  ("ends", "relation", "threshold", "expected"),
  [
    ((0.93, 0.97), "at_least", 0.93, "HOLDS"),
    ((0.93, 0.97), "at_least", 0.94, "UNDECIDED"),
    ((0.93, 0.97), "at_least", 0.98, "FAILS"),
    ((1.05, 1.15), "at_most", 1.15, "HOLDS"),
    ((1.05, 1.15), "at_most", 1.10, "UNDECIDED"),
    ((1.05, 1.15), "at_most", 1.04, "FAILS"),
    ((None, None), "at_most", 9.0, "UNDECIDED"),
  ],
)
def test_the_interval_decides_a_claim(ends, relation, threshold, expected):
  low, high = ends
  middle = 1.0 if low is None else (low + high) / 2
  claim = reporting.Claim(
    name="x",
    estimate=reporting.Interval(middle, low, high, 3),
    relation=relation,
    threshold=threshold,
    source="Table 2",
  )
  assert claim.verdict == expected
  record = reporting.Results()
  record.add_claim(claim)
  assert record["claim/x"] == expected
  assert record["claim/x/estimate"] == middle
  assert record["claim/x/source"] == "Table 2"
  assert record.claims() == ["x"]


def test_a_claim_without_an_estimate_is_undecided_with_a_reason():
  claim = reporting.Claim(
    name="x",
    estimate=None,
    relation="at_most",
    threshold=1.0,
    source="Table 2",
    reason="not run on this machine",
  )
  record = reporting.Results()
  record.add_claim(claim)
  assert record["claim/x"] == "UNDECIDED"
  assert record.reason("claim/x/estimate") == "not run on this machine"


def test_speed_bars_are_met_as_stated():
  meets = reporting.meets_bar
  assert meets(reporting.Interval(1.2, 1.1, 1.3, 15), at_most=1.15)
  assert not meets(reporting.Interval(1.3, 1.1, 1.5, 15), at_most=1.15)
  assert not meets(reporting.Interval(1.2, 1.16, 1.3, 15), at_most=1.15)


# ----------------------------------------------------------------- protocol


def test_the_hash_ignores_order_and_sees_every_field():
  one = reporting.protocol_hash({"a": 1, "b": {"c": [1, 2]}})
  assert one == reporting.protocol_hash({"b": {"c": [1, 2]}, "a": 1})
  assert one != reporting.protocol_hash({"a": 1, "b": {"c": [2, 1]}})
  assert one != reporting.protocol_hash({"a": 1, "b": {"d": [1, 2]}})


def test_different_protocols_are_not_compared(results):
  other = reporting.Results()
  other.set_protocol({**PROTOCOL, "data": {"name": "atis"}})
  with pytest.raises(
    ValueError,
    match=r"one and two: .*differ in data/name \('snips' against 'atis'\)",
  ):
    reporting.comparison_table({"one": results, "two": other})
  with pytest.raises(ValueError, match="two: has no 'protocol_hash'"):
    reporting.check_comparable({"one": results, "two": reporting.Results()})


def test_equal_protocols_are_compared_side_by_side(results):
  other = reporting.Results()
  other.set_protocol(PROTOCOL)
  other.set("dp_sgd/epsilon", 3.0)
  table = reporting.comparison_table({"one": results, "two": other})
  assert [row["measurement"] for row in table.rows] == ["dp_sgd/epsilon"]
  assert table.texts() == [
    ["dp_sgd/epsilon", "7.990", "3"]
  ] or table.texts() == [["dp_sgd/epsilon", "7.99", "3"]]


def test_merging_refuses_contradictions(results):
  other = reporting.Results()
  other.set_protocol(PROTOCOL)
  other.set("edp_sgd/epsilon", 24.0)
  merged = reporting.merge_results({"one": results, "two": other})
  assert merged["edp_sgd/epsilon"] == 24.0
  assert merged["dp_sgd/epsilon"] == 7.99
  other.set("dp_sgd/epsilon", 8.0)
  with pytest.raises(ValueError, match=r"one says 7\.99 and two says 8\.0"):
    reporting.merge_results({"one": results, "two": other})


# -------------------------------------------------------------------- files


def test_a_run_is_written_and_read_back(results, tmp_path):
  table = reporting.arm_table(results, [reporting.Column("slot_f1")])
  config = {"plan": {"noise": math.inf}, "seeds": (0, 1), "n": np.int64(3)}
  paths = reporting.write_run(
    tmp_path / "run", config=config, results=results, table=table
  )
  assert paths[-1].name == "results.json"
  assert {path.name for path in (tmp_path / "run").iterdir()} == {
    "config.json",
    "results.json",
    "table.md",
    "table.csv",
  }
  assert dict(reporting.read_results(tmp_path / "run")) == dict(results)
  assert json.loads((tmp_path / "run/config.json").read_text()) == {
    "plan": {"noise": "inf"},
    "seeds": [0, 1],
    "n": 3,
  }


@hypothesis.given(
  st.dictionaries(
    st.from_regex(r"[a-z]{1,6}/[a-z]{1,6}[0-9]", fullmatch=True),
    st.integers(-(2**60), 2**60)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20),
    max_size=8,
  )
)
@hypothesis.settings(max_examples=50, deadline=None)
def test_every_legal_record_survives_the_file(tmp_path_factory, values):
  values = {
    k: v for k, v in values.items() if not k.startswith(("claim/", "protocol/"))
  }
  folder = tmp_path_factory.mktemp("run")
  record = reporting.Results(values)
  reporting.write_results(folder, record)
  assert dict(reporting.read_results(folder)) == values


def test_writing_is_all_or_nothing(tmp_path, monkeypatch):
  path = tmp_path / "results.json"
  reporting.write_atomically(path, "old")

  def fail(*_):
    raise OSError("disk full")

  monkeypatch.setattr("os.replace", fail)
  with pytest.raises(OSError, match="disk full"):
    reporting.write_atomically(path, "new")
  assert path.read_text() == "old"
  assert [p.name for p in tmp_path.iterdir()] == ["results.json"]


def test_a_record_that_breaks_a_rule_leaves_no_file(tmp_path):
  record = reporting.Results({"a": 1.0, "a_low": 0.0, "a_high": 2.0})
  record.set("a", 5.0)
  with pytest.raises(ValueError, match="_low <= estimate"):
    reporting.write_run(tmp_path / "run", config={}, results=record)
  assert not (tmp_path / "run").exists()


def test_a_config_field_that_cannot_be_written_is_named(tmp_path):
  with pytest.raises(ValueError, match=r"'model\.init': got function"):
    reporting.write_config(tmp_path, {"model": {"init": lambda: 0}})


@pytest.mark.parametrize(
  ("text", "message"),
  [
    ('{"a": 1,\n "b": }', r"results\.json:2:7: not valid JSON"),
    ("[1]", "got a list; allowed is one JSON object"),
    ('{"a": NaN}', r"results\.json: key 'a': got nan"),
    ('{"a": null}', r"results\.json: key 'a': got null"),
    ('{"a": true}', "type bool"),
    ('{"a": 1, "a": 2}', "'a': appears more than once"),
  ],
)
def test_a_broken_results_file_is_named_with_the_place(tmp_path, text, message):
  (tmp_path / "results.json").write_text(text)
  with pytest.raises(ValueError, match=message):
    reporting.read_results(tmp_path)


def test_no_results_file(tmp_path):
  with pytest.raises(FileNotFoundError, match=r"results\.json"):
    reporting.read_results(tmp_path)
