"""Runs read from their folders and the page made of them."""

import base64
import html.parser
import json
import re

import hypothesis
import pytest
from hypothesis import strategies as st

from trustjax import reporting
from trustjax.reporting import _markdown

# One white pixel.
PNG = base64.b64decode(
  "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGP4DwABAQEAsTjW"
  "FAAAAABJRU5ErkJggg=="
)
_HOSTILE = "<script>alert('x')</script> & \"quotes\""


def make_run(folder, *, data="snips", shift=0.0, **extra):
  """Writes a run with claims, a table, a figure and metrics below it."""
  results = reporting.Results()
  results.set_protocol({"data": data, "seeds": [0, 1, 2]})
  accuracy = reporting.mean_interval([0.95 + shift, 0.96 + shift, 0.97 + shift])
  results.measure("dp_sgd/intent_accuracy", accuracy)
  results.set("non_private/epsilon", None, reason=_HOSTILE)
  for key, value in extra.items():
    results.set(key, value)
  for name, threshold in (("low", 0.5), ("middle", 0.96), ("high", 0.999)):
    results.add_claim(
      reporting.Claim(
        name=name,
        estimate=accuracy,
        relation="at_least",
        threshold=threshold,
        source=_HOSTILE,
      )
    )
  table = reporting.arm_table(
    results, [reporting.Column("intent_accuracy", "accuracy")], title=_HOSTILE
  )
  reporting.write_run(
    folder,
    config={"note": _HOSTILE, "shift": shift},
    results=results,
    table=table,
  )
  figures = folder / "figures"
  figures.mkdir()
  (figures / "curves.png").write_bytes(PNG)
  arm = folder / "arms" / "dp_sgd"
  (arm / "figures").mkdir(parents=True)
  (arm / "figures" / "arm.png").write_bytes(PNG)
  row = json.dumps({"step": 5, "time": 1.0, "loss<b>": 1.0})
  later = json.dumps({"step": 9, "time": 2.0, "loss<b>": 0.5})
  (arm / "metrics.jsonl").write_text(f'{row}\n{later}\n{{"step": 1')
  return folder


class _Outline(html.parser.HTMLParser):
  """Open tags, identifiers, links, images; every tag must be closed."""

  _VOID = ("meta", "img", "link", "br")

  def __init__(self, page):
    super().__init__()
    self.stack, self.ids, self.links, self.sources = [], [], [], []
    self.tags, self.text = set(), []
    self.feed(page)
    self.close()

  def handle_starttag(self, tag, attrs):
    attrs = dict(attrs)
    self.tags.add(tag)
    if "id" in attrs:
      self.ids.append(attrs["id"])
    if tag == "a":
      self.links.append(attrs["href"])
    if "src" in attrs:
      self.sources.append(attrs["src"])
    if tag not in self._VOID:
      self.stack.append(tag)

  def handle_startendtag(self, tag, attrs):
    self.tags.add(tag)

  def handle_endtag(self, tag):
    assert self.stack.pop() == tag

  def handle_data(self, data):
    self.text.append(data)


def _page(*folders):
  page = reporting.render_html(reporting.read_runs(folders))
  outline = _Outline(page)
  assert outline.stack == []
  return page, outline


def test_a_run_is_read_with_what_lies_below_it(tmp_path):
  (run,) = reporting.read_runs([make_run(tmp_path / "first")])
  assert run.name == "first"
  assert run.config["shift"] == 0.0
  assert list(run.tables) == ["table.md"]
  assert list(run.figures) == [
    "arms/dp_sgd/figures/arm.png",
    "figures/curves.png",
  ]
  assert list(run.metrics) == ["arms/dp_sgd/metrics.jsonl"]
  assert run.metrics["arms/dp_sgd/metrics.jsonl"].truncated


def test_runs_below_a_folder_are_runs_of_their_own(tmp_path):
  make_run(tmp_path / "grid" / "a")
  make_run(tmp_path / "grid" / "b")
  (tmp_path / "grid" / ".hidden").mkdir()
  (tmp_path / "grid" / ".hidden" / "results.json").write_text("broken")
  runs = reporting.read_runs([tmp_path / "grid", tmp_path / "grid" / "b"])
  assert [run.name for run in runs] == ["grid/a", "grid/b"]
  assert all(len(run.figures) == 2 for run in runs)


def test_workdirs_of_one_name_are_told_apart(tmp_path):
  first, second = (make_run(tmp_path / x / "out") for x in ("a", "b"))
  names = [run.name for run in reporting.read_runs([first, second])]
  assert names == [str(first), str(second)]


def test_a_csv_stands_in_for_a_missing_markdown_table(tmp_path):
  folder = make_run(tmp_path / "run")
  (folder / "table.md").unlink()
  _, outline = _page(folder)
  assert "intent_accuracy_low" in outline.text


def test_the_page_is_self_contained_and_well_formed(tmp_path):
  page, outline = _page(make_run(tmp_path / "a"), make_run(tmp_path / "b"))
  assert len(outline.sources) == 4
  for source in outline.sources:
    head, code = source.split(",")
    assert head == "data:image/png;base64"
    assert base64.b64decode(code) == PNG
  assert not re.search(r"https?://|<link|@import|url\(", page)
  assert "prefers-color-scheme: dark" in page
  assert "@media print" in page


def test_the_contents_lead_to_every_part(tmp_path):
  _, outline = _page(make_run(tmp_path / "a"), make_run(tmp_path / "b"))
  assert len(set(outline.ids)) == len(outline.ids)
  assert {link.removeprefix("#") for link in outline.links} == set(outline.ids)
  assert {"overview", "comparison", "run-2-claims"} <= set(outline.ids)


def test_all_text_is_escaped(tmp_path):
  page, outline = _page(make_run(tmp_path / "<i>a"), make_run(tmp_path / "b"))
  assert not {"script", "i", "b"} & outline.tags
  assert "<script" not in page
  # Shown all the same: in the table's title, the claims and the configuration.
  assert "".join(outline.text).count("<script>alert('x')</script>") >= 6


def test_verdicts_are_coloured_and_counted(tmp_path):
  page, outline = _page(make_run(tmp_path / "a"))
  for verdict in ("HOLDS", "UNDECIDED", "FAILS"):
    assert f'<span class="verdict {verdict}">{verdict}</span>' in page
    assert f"1 {verdict}" in outline.text
    assert f".{verdict} {{ color" in page


def test_runs_of_one_protocol_are_compared(tmp_path):
  page, outline = _page(
    make_run(tmp_path / "a", only_here=1.0),
    make_run(tmp_path / "b", shift=-0.1),
  )
  comparison = page[page.index('id="comparison"') : page.index('id="run-1"')]
  assert "dp_sgd/intent_accuracy" in comparison
  assert "0.860" in comparison
  assert "only_here" not in comparison
  assert "shift" in comparison  # The configuration field that differs.
  assert "cannot" not in comparison
  assert "Not all runs can be compared." not in outline.text


def test_runs_of_two_protocols_are_not_compared(tmp_path):
  page, outline = _page(
    make_run(tmp_path / "a"),
    make_run(tmp_path / "b"),
    make_run(tmp_path / "other", data="atis", shift=-0.123),
  )
  comparison = page[page.index('id="comparison"') : page.index('id="run-1"')]
  assert "Not all runs can be compared." in outline.text
  assert "0.837" not in comparison
  assert "atis" in comparison  # The protocol field that differs.
  assert "dp_sgd/intent_accuracy" in comparison  # Of the two that agree.


def test_one_run_has_no_comparison(tmp_path):
  _, outline = _page(make_run(tmp_path / "a"))
  assert "comparison" not in outline.ids


def test_a_cut_off_time_series_is_said_to_be(tmp_path):
  _, outline = _page(make_run(tmp_path / "a"))
  assert any("line 3: the last line is cut off" in t for t in outline.text)
  assert "loss<b>" in outline.text


def test_a_run_with_results_only_makes_a_page(tmp_path):
  reporting.write_results(tmp_path / "bare", reporting.Results({"a": 1.0}))
  reporting.write_results(tmp_path / "naked", reporting.Results({"a": 2.0}))
  page, outline = _page(tmp_path / "bare", tmp_path / "naked")
  assert "No config.json in this workdir." in outline.text
  # Without a protocol nothing says that they may be compared.
  comparison = page[page.index('id="comparison"') : page.index('id="run-1"')]
  assert "<table" not in comparison
  assert "No protocol was recorded by: bare, naked." in comparison


@pytest.mark.parametrize(
  ("present", "message"),
  [
    ([], r"not a workdir: results\.json is missing"),
    (
      ["config.json", "metrics.jsonl"],
      r"config\.json and metrics\.jsonl are there, so the run may not have",
    ),
  ],
)
def test_a_folder_without_results_is_no_workdir(tmp_path, present, message):
  for name in present:
    (tmp_path / name).write_text("{}")
  with pytest.raises(FileNotFoundError, match=message):
    reporting.read_runs([tmp_path])


def test_other_bad_workdirs_are_named(tmp_path):
  with pytest.raises(FileNotFoundError, match="nowhere: no such folder"):
    reporting.read_runs([tmp_path / "nowhere"])
  folder = make_run(tmp_path / "run")
  with pytest.raises(ValueError, match="name the folder"):
    reporting.read_runs([folder / "results.json"])
  (folder / "config.json").write_text('{"a": 1,}')
  with pytest.raises(ValueError, match=r"config\.json:1:9: not valid JSON"):
    reporting.read_runs([folder])
  (folder / "config.json").write_text("{}")
  (folder / "figures" / "curves.png").write_text("no picture")
  with pytest.raises(ValueError, match=r"curves\.png: is not a PNG"):
    reporting.read_runs([folder])
  with pytest.raises(ValueError, match="at least one"):
    reporting.render_html([])


# ----------------------------------------------------------------- markdown


def test_our_tables_survive_markdown_and_html():
  table = reporting.Table(
    columns=[
      reporting.Column("a", "name | title"),
      reporting.Column("b", "number", "s"),
    ],
    rows=[
      {"a": "one | two", "b": 1.5},
      {"a": "back\\slash|\\", "b": reporting.Missing("not run")},
    ],
    title="Title <1>",
  )
  shown = _markdown.markdown_to_html(table.to_markdown())
  assert "<h4>Title &lt;1&gt;</h4>" in shown
  assert '<th>name | title</th><th class="num">number (s)</th>' in shown
  assert '<td>one | two</td><td class="num">1.5' in shown
  assert "<td>back\\slash|\\</td>" in shown
  assert "(a) not run" in shown


@hypothesis.given(st.text(alphabet="ab|\\<>&\"'`*-#: \n", max_size=60))
@hypothesis.settings(max_examples=300, deadline=None)
def test_any_text_becomes_well_formed_html(text):
  outline = _Outline(_markdown.markdown_to_html(text))
  assert outline.stack == []
  assert outline.tags <= {
    *("h4", "p", "ul", "li", "code", "strong", "div", "span"),
    *("table", "thead", "tbody", "tr", "th", "td"),
  }


def test_lists_and_paragraphs():
  shown = _markdown.markdown_to_html("one\ntwo `x<y` **bold**\n- a\n- b\n")
  assert "<p>one two <code>x&lt;y</code> <strong>bold</strong></p>" in shown
  assert "<li>a</li><li>b</li>" in shown


def test_csv_numbers_are_aligned_to_the_right():
  shown = _markdown.csv_to_html("arm,f1\ndp,0.5\nloop,\n")
  assert '<th>arm</th><th class="num">f1</th>' in shown
  assert "empty" in _markdown.csv_to_html("")
