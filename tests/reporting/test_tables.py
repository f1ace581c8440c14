"""One table in three renderings, and digits that fit."""

import csv
import io

import hypothesis
import hypothesis.strategies as st
import pytest

from trustjax import reporting

_TABLE = reporting.Table(
  title="Arms",
  columns=[
    reporting.Column("arm"),
    reporting.Column("f1", "slot F1"),
    reporting.Column("epsilon", "ε"),
    reporting.Column("seconds", "step", "ms", format=".1f"),
  ],
  rows=[
    {
      "arm": "non|private",
      "f1": reporting.Interval(0.8612, 0.8571, 0.8653, 3),
      "epsilon": reporting.Missing("no mechanism was run"),
      "seconds": 12.345,
    },
    {"arm": "DP-SGD", "f1": 0.5, "epsilon": 8.0, "seconds": None},
    {"arm": "loop", "epsilon": reporting.Missing("no mechanism was run")},
  ],
  notes=["Three seeds."],
)


def test_markdown():
  assert (
    _TABLE.to_markdown()
    == r"""### Arms

| arm          |              slot F1 |     ε | step (ms) |
|:-------------|---------------------:|------:|----------:|
| non\|private | 0.861 [0.857, 0.865] | – (a) |      12.3 |
| DP-SGD       |                0.500 |     8 |         – |
| loop         |                    – | – (a) |         – |

Three seeds.

(a) no mechanism was run
"""
  )


def test_csv_has_all_digits_and_the_ends():
  rows = list(csv.DictReader(io.StringIO(_TABLE.to_csv())))
  assert list(rows[0]) == [
    "arm",
    "f1",
    "f1_low",
    "f1_high",
    "f1_n",
    "epsilon",
    "epsilon_reason",
    "seconds",
  ]
  assert rows[0] == {
    "arm": "non|private",
    "f1": "0.8612",
    "f1_low": "0.8571",
    "f1_high": "0.8653",
    "f1_n": "3",
    "epsilon": "",
    "epsilon_reason": "no mechanism was run",
    "seconds": "12.345",
  }
  assert rows[1]["epsilon"] == "8.0"
  assert rows[1]["f1_low"] == ""


def test_console_shows_every_cell():
  stream = io.StringIO()
  reporting.print_table(_TABLE, stream)
  shown = stream.getvalue()
  for text in ("Arms", "slot F1", "0.861 [0.857, 0.865]", "(a) no mechanism"):
    assert text in shown
  import rich.console

  narrow = io.StringIO()
  console = rich.console.Console(file=narrow, width=60)
  console.print(_TABLE.to_rich(stacked=True))
  lines = narrow.getvalue().splitlines()
  assert any("0.861" in x and "[0.857" not in x for x in lines)
  assert any("[0.857, 0.865]" in x for x in lines)


def test_console_markup_in_cells_is_text():
  table = reporting.Table(
    columns=[reporting.Column("x")], rows=[{"x": "[bold]a[/bold]"}]
  )
  stream = io.StringIO()
  reporting.print_table(table, stream)
  assert "[bold]a[/bold]" in stream.getvalue()


@pytest.mark.parametrize(
  "value,text",
  [
    (0, "0"),
    (3, "3"),
    (1024, "1,024"),
    (8.0, "8"),
    (0.96857, "0.9686"),
    (22.4, "22.4"),
    (0.5, "0.5"),
    (61.234, "61.23"),
    (1234.56, "1,235"),
    (1e-5, "1e-05"),
    (0.00012345, "0.0001234"),
    (-0.25, "-0.25"),
    (3.2e9, "3.2e+09"),
    (float("inf"), "inf"),
  ],
)
def test_numbers(value, text):
  assert reporting.format_number(value) == text


def test_numbers_with_a_format():
  assert reporting.format_number(0.1234, ".1%") == "12.3%"
  assert reporting.format_number(1234.7, ",d") == "1,235"


@pytest.mark.parametrize(
  "ends,text",
  [
    ((0.97, 0.9512, 0.9888), "0.970 [0.951, 0.989]"),
    ((0.9689, 0.9651, 0.9727), "0.969 [0.965, 0.973]"),
    ((0.95, 0.91, 0.99), "0.95 [0.91, 0.99]"),
    ((98.0, 88.2, 107.9), "98 [88, 108]"),
    ((1234.0, 1200.0, 1300.0), "1,234 [1,200, 1,300]"),
    ((2e-6, 1e-6, 3e-6), "2e-06 [1e-06, 3e-06]"),
    ((0.0, -0.0001, 0.02), "0.000 [0.000, 0.020]"),
  ],
)
def test_the_width_of_an_interval_decides_its_digits(ends, text):
  assert reporting.format_interval(reporting.Interval(*ends, 5)) == text


def test_a_computed_number_stands_alone():
  exact = reporting.Interval.exact(22.4)
  assert reporting.format_interval(exact) == "22.4"
  measured = reporting.Interval(1.0, 1.0, 1.0, 3)
  assert reporting.format_interval(measured) == "1 [1, 1]"


@hypothesis.given(st.floats(-1e12, 1e12), st.floats(1e-9, 1e3))
def test_shown_intervals_keep_their_order(middle, half):
  interval = reporting.Interval(middle, middle - half, middle + half, 3)
  text = reporting.format_interval(interval)
  estimate, rest = text.split(" [")
  numbers = [estimate, *rest.rstrip("]").split(", ")]
  shown, low, high = (float(x.replace(",", "")) for x in numbers)
  assert low <= shown <= high


def test_a_column_shares_its_decimals():
  table = reporting.Table(
    columns=[reporting.Column("x"), reporting.Column("wide")],
    rows=[
      {"x": 22.4, "wide": 1e-6},
      {"x": 3.6, "wide": 0.5},
      {"x": 8.0, "wide": 4000.0},
    ],
  )
  assert [row[0] for row in table.texts()] == ["22.40", "3.60", "8.00"]
  # Sizes far apart keep their own digits.
  assert [row[1] for row in table.texts()] == ["1e-06", "0.5", "4,000"]


@pytest.mark.parametrize(
  "make,message",
  [
    (
      lambda: reporting.Table(columns=[reporting.Column("a")], rows=[{"b": 1}]),
      "row 0: cell 'b' has no column; allowed are a",
    ),
    (
      lambda: reporting.Table(
        columns=[reporting.Column("a")], rows=[{"a": [1]}]
      ),
      "row 0, column 'a': got list",
    ),
    (
      lambda: reporting.Table(
        columns=[reporting.Column("a"), reporting.Column("a")], rows=[]
      ),
      "columns: got keys",
    ),
    (
      lambda: reporting.Column("a", format="nonsense"),
      "format: got 'nonsense' for column 'a'",
    ),
  ],
)
def test_bad_tables_are_named(make, message):
  with pytest.raises(ValueError, match=message):
    make()


def test_arm_table_reads_intervals_and_reasons():
  results = reporting.Results()
  results.set("non_private/epsilon", None, reason="no mechanism was run")
  results.measure("non_private/f1", reporting.Interval(0.9, 0.8, 1.0, 3))
  results.set("dp_sgd/epsilon", 8.0)
  table = reporting.arm_table(
    results,
    [reporting.Column("f1"), reporting.Column("epsilon")],
    labels={"dp_sgd": "DP-SGD"},
  )
  assert [dict(row) for row in table.rows] == [
    {
      "arm": "non_private",
      "f1": reporting.Interval(0.9, 0.8, 1.0, 3),
      "epsilon": reporting.Missing("no mechanism was run"),
    },
    {"arm": "DP-SGD", "f1": None, "epsilon": 8.0},
  ]
  with pytest.raises(ValueError, match="got 'sgd'; the record has non_private"):
    reporting.arm_table(results, [reporting.Column("f1")], arms=["sgd"])


def test_comparison_puts_runs_side_by_side():
  runs = {}
  for name, value in (("a", 0.8), ("b", 0.9)):
    runs[name] = reporting.Results()
    runs[name].set_protocol({"data": "snips"})
    runs[name].measure("dp/f1", reporting.Interval(value, 0.7, 1.0, 3))
  table = reporting.comparison_table(runs)
  assert [dict(row) for row in table.rows] == [
    {
      "measurement": "dp/f1",
      "a": reporting.Interval(0.8, 0.7, 1.0, 3),
      "b": reporting.Interval(0.9, 0.7, 1.0, 3),
    }
  ]
