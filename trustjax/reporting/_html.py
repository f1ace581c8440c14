"""Several runs as one self-contained HTML page."""

import base64
import html
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from trustjax.reporting._claims import VERDICTS
from trustjax.reporting._intervals import Interval
from trustjax.reporting._markdown import (
  csv_to_html,
  html_table,
  markdown_to_html,
)
from trustjax.reporting._metrics import Metrics
from trustjax.reporting._page_style import CSS
from trustjax.reporting._results import PROTOCOL_HASH, Results
from trustjax.reporting._run import Run
from trustjax.reporting._tables import (
  Missing,
  Table,
  cell_of,
  comparison_table,
  format_interval,
  format_number,
)


def _badge(verdict: str, text: str = "") -> str:
  kind = verdict if verdict in VERDICTS else "UNDECIDED"
  label = html.escape(text or verdict)
  return f'<span class="verdict {kind}">{label}</span>'


def _table(table: Table) -> str:
  right = [align == "right" for align in table.alignments()]
  heads = [column.heading for column in table.columns]
  notes = "".join(f"<li>{html.escape(n)}</li>" for n in table.all_notes())
  notes = f'<ul class="notes">{notes}</ul>' if notes else ""
  return html_table(heads, table.texts(), right) + notes


def _details(title: str, body: str) -> str:
  return f"<details><summary>{html.escape(title)}</summary>\n{body}</details>"


def _interval_drawing(
  interval: Interval, limit: float | None, width: int = 150
) -> str:
  """The interval as a bar with its estimate, the threshold as a dashed tick."""
  if interval.low is None or interval.high is None:
    return ""
  marks = [interval.low, interval.high] + ([] if limit is None else [limit])
  low, high = min(marks), max(marks)
  if high == low:
    return ""

  def place(value):
    return 8 + (width - 16) * (value - low) / (high - low)

  parts = [
    f'<line class="axis" x1="0" x2="{width}" y1="9" y2="9"/>',
    f'<line class="span" x1="{place(interval.low):.1f}"'
    f' x2="{place(interval.high):.1f}" y1="9" y2="9"/>',
    f'<circle class="dot" cx="{place(interval.estimate):.1f}" cy="9" r="3"/>',
  ]
  if limit is not None:
    x = f"{place(limit):.1f}"
    parts.append(f'<line class="limit" x1="{x}" x2="{x}" y1="1" y2="17"/>')
  return (
    f'<svg width="{width}" height="18" role="img" aria-label="interval and'
    f' threshold">{"".join(parts)}</svg>'
  )


def _claims(results: Results) -> str:
  rows = []
  for name in results.claims():
    prefix = f"claim/{name}"
    verdict = str(results[prefix])
    source = str(results.get(f"{prefix}/source", ""))
    interval, estimate = None, ""
    if f"{prefix}/estimate" in results:
      interval = results.interval(f"{prefix}/estimate")
      estimate = results.reason(f"{prefix}/estimate")
    if interval is not None:
      estimate = format_interval(interval)
    limit, wanted = None, ""
    threshold = results.get(f"{prefix}/threshold")
    if isinstance(threshold, int | float):
      sign = {"at_least": "≥", "at_most": "≤"}.get(
        str(results.get(f"{prefix}/relation")), ""
      )
      limit, wanted = float(threshold), f"{sign} {threshold:.4g}"
    drawing = _interval_drawing(interval, limit) if interval else ""
    rows.append(
      f"<tr><td>{_badge(verdict)}</td>"
      f'<td class="wrap">{html.escape(name.replace("_", " "))}</td>'
      f'<td class="num">{html.escape(estimate)}</td>'
      f'<td class="num">{wanted}</td><td>{drawing}</td>'
      f'<td class="wrap">{html.escape(source)}</td>'
      "</tr>"
    )
  return (
    '<div class="scroll"><table><thead><tr><th>verdict</th><th>claim</th>'
    '<th class="num">estimate</th><th class="num">claimed</th>'
    "<th>interval, threshold</th><th>source</th></tr></thead>\n<tbody>\n"
    + "\n".join(rows)
    + "\n</tbody></table></div>"
  )


def _sparkline(steps: np.ndarray, values: np.ndarray, width: int = 150) -> str:
  """A metric over the steps, without axes."""
  low, high = values.min(), values.max()
  first, last = steps.min(), steps.max()
  if last == first:
    return ""
  # A few hundred points are more than the width can show.
  stride = max(1, steps.size // 300)
  x = width * (steps - first) / (last - first)
  y = 20 - 18 * (values - low) / ((high - low) or 1.0)
  points = " ".join(
    f"{a:.1f},{b:.1f}" for a, b in zip(x[::stride], y[::stride], strict=True)
  )
  return (
    f'<svg width="{width}" height="22" role="img" aria-label="sparkline">'
    f'<polyline class="line" points="{points}"/></svg>'
  )


def _series(metrics: Metrics) -> str:
  """One row per metric: its course, first, last, lowest and highest value."""
  note = f'<p class="note">{html.escape(metrics.note)}.</p>'
  note = note if metrics.note else ""
  if not metrics.rows:
    return f"<p>No rows.</p>{note}"
  rows = []
  for name in metrics.names:
    steps, values = metrics.series(name)
    numbers = (values[0], values[-1], values.min(), values.max())
    cells = "".join(f'<td class="num">{n:.4g}</td>' for n in numbers)
    rows.append(
      f'<tr><td class="wrap"><code>{html.escape(name)}</code></td>'
      f"<td>{_sparkline(steps, values)}</td>{cells}</tr>"
    )
  last = metrics.rows[-1]
  heads = "".join(
    f'<th class="num">{head}</th>'
    for head in ("first", "last", "lowest", "highest")
  )
  return (
    f'<p class="soft">{len(metrics.rows):,} rows, to step {last["step"]:,},'
    f" {last['time']:,.0f} s.</p>{note}"
    '<div class="scroll"><table><thead><tr><th>metric</th>'
    f"<th>over the steps</th>{heads}</tr></thead>\n<tbody>\n"
    + "\n".join(rows)
    + "\n</tbody></table></div>"
  )


def _measured_names(results: Results) -> list[str]:
  """Names of results proper: no ends, reasons, claims or protocol."""
  return [
    name
    for name in results
    if not name.startswith(("claim/", "protocol/"))
    and name != PROTOCOL_HASH
    and not results.is_companion(name)
  ]


def _all_results(results: Results) -> str:
  rows = []
  for name in _measured_names(results):
    cell = cell_of(results, name)
    if isinstance(cell, Missing):
      rows.append([name, f"null: {cell.reason}"])
    elif isinstance(cell, Interval):
      rows.append([name, format_interval(cell)])
    else:
      rows.append(
        [name, cell if isinstance(cell, str) else format_number(cell or 0)]
      )
  rows += [
    [f"protocol/{name}", str(value)]
    for name, value in results.protocol().items()
  ]
  return html_table(["name", "value"], rows)


def _short_hash(results: Results) -> str:
  return (results.protocol_hash or "not recorded")[:12]


def _width(png: bytes) -> int:
  """Width to show a PNG at: figures are drawn with 200 dots per inch."""
  # Bytes 16 to 19 of every PNG file, checked when the run was read.
  return int.from_bytes(png[16:20], "big") // 2


def _run_parts(run: Run) -> list[tuple[str, str]]:
  """Title and HTML of the parts of a run that it has."""
  parts = []
  if run.results.claims():
    parts.append(("Claims", _claims(run.results)))
  tables = []
  for name, text in run.tables.items():
    shown = (
      csv_to_html(text) if name.endswith(".csv") else markdown_to_html(text)
    )
    where = f'<p class="soft">{html.escape(name)}</p>' if "/" in name else ""
    tables.append(where + shown)
  if tables:
    parts.append(("Table", "\n".join(tables)))
  figures = []
  for name, data in run.figures.items():
    code = base64.b64encode(data).decode("ascii")
    stem = name.rsplit("/", 1)[-1].removesuffix(".png").replace("_", " ")
    figures.append(
      f'<figure><img alt="{html.escape(stem)}" width="{_width(data)}"'
      f' src="data:image/png;base64,{code}">'
      f"<figcaption>{html.escape(name)}</figcaption></figure>"
    )
  if figures:
    parts.append(("Figures", "\n".join(figures)))
  return parts


def _run_section(number: int, run: Run) -> str:
  body = [
    f'<section class="run" id="run-{number}">',
    f"<h2>{html.escape(run.name)}</h2>",
    f'<p class="soft">{html.escape(str(run.folder))} · protocol'
    f" <code>{html.escape(_short_hash(run.results))}</code></p>",
  ]
  for title, part in _run_parts(run):
    anchor = f"run-{number}-{title.lower()}"
    body.append(f'<h3 id="{anchor}">{title}</h3>\n{part}')
  for name, metrics in run.metrics.items():
    body.append(_details(f"Time series: {name}", _series(metrics)))
  body.append(_details("All results", _all_results(run.results)))
  if run.config is None:
    body.append('<p class="soft">No config.json in this workdir.</p>')
  else:
    text = html.escape(json.dumps(run.config, indent=2, ensure_ascii=False))
    body.append(_details("Configuration", f"<pre>{text}</pre>"))
  body.append("</section>")
  return "\n".join(body)


def _overview(runs: Sequence[Run]) -> str:
  rows = []
  for number, run in enumerate(runs, start=1):
    verdicts = [run.results[f"claim/{name}"] for name in run.results.claims()]
    badges = " ".join(
      _badge(kind, f"{verdicts.count(kind)} {kind}")
      for kind in VERDICTS
      if kind in verdicts
    )
    rows.append(
      f'<tr><td class="wrap"><a href="#run-{number}">{html.escape(run.name)}'
      f"</a></td><td><code>{html.escape(_short_hash(run.results))}</code>"
      f'</td><td class="num">{len(_measured_names(run.results))}</td>'
      f'<td class="num">{len(run.figures)}</td><td>{badges or "none"}</td>'
      "</tr>"
    )
  return (
    '<h2 id="overview">Overview</h2>\n<div class="scroll"><table><thead><tr>'
    '<th>run</th><th>protocol</th><th class="num">results</th>'
    '<th class="num">figures</th><th>claims</th></tr></thead>\n<tbody>\n'
    + "\n".join(rows)
    + "\n</tbody></table></div>"
  )


def _flat(prefix: str, value: Any) -> dict[str, str]:
  """A nested configuration as dotted names and JSON texts."""
  if isinstance(value, Mapping) and value:
    found: dict[str, str] = {}
    for key, entry in value.items():
      found.update(_flat(f"{prefix}.{key}" if prefix else str(key), entry))
    return found
  return {prefix: json.dumps(value, ensure_ascii=False)}


def _config_differences(runs: Sequence[Run]) -> str:
  flat = [_flat("", run.config) for run in runs if run.config]
  if len(flat) < len(runs):
    return ""
  names = dict.fromkeys(name for config in flat for name in config)
  rows = [
    [name, *(config.get(name, "absent") for config in flat)]
    for name in names
    if len({config.get(name) for config in flat}) > 1
  ]
  if not rows:
    return "<p>The configurations are the same.</p>"
  heads = ["field", *(run.name for run in runs)]
  return "<h3>Configuration fields that differ</h3>" + html_table(heads, rows)


def _protocol_note(groups: Mapping[str | None, Sequence[Run]]) -> str:
  """Why some runs do not stand beside others, and in what they differ."""
  said = []
  if len(groups) > 1:
    said.append(
      f"They follow {len(groups)} different protocols; only runs with the same"
      " protocol hash stand side by side."
    )
  if None in groups:
    names = ", ".join(run.name for run in groups[None])
    said.append(f"No protocol was recorded by: {names}.")
  if not said:
    return ""
  note = (
    '<div class="note"><strong>Not all runs can be compared.</strong>'
    f" {html.escape(' '.join(said))}</div>"
  )
  first = {g[0].name: g[0].results.protocol() for g in groups.values()}
  fields = dict.fromkeys(f for protocol in first.values() for f in protocol)
  rows = [
    [field, *(str(p.get(field, "absent")) for p in first.values())]
    for field in fields
    if len({p.get(field) for p in first.values()}) > 1
  ]
  if not rows:
    return note
  heads = ["field", *first]
  return f"{note}<h3>Protocol fields that differ</h3>{html_table(heads, rows)}"


def _comparison(runs: Sequence[Run]) -> str:
  """Shared results side by side, for runs of the same protocol only."""
  groups: dict[str | None, list[Run]] = {}
  for run in runs:
    groups.setdefault(run.results.protocol_hash, []).append(run)
  parts = ['<h2 id="comparison">Comparison</h2>', _protocol_note(groups)]
  for hash_, members in groups.items():
    if len(members) < 2 or hash_ is None:
      continue
    if len(groups) > 1:
      parts.append(f"<h3>Protocol <code>{html.escape(hash_[:12])}</code></h3>")
    table = comparison_table({run.name: run.results for run in members})
    shown = _table(table) if table.rows else "<p>They share no result.</p>"
    parts += [shown, _config_differences(members)]
  return "\n".join(parts)


def render_html(runs: Sequence[Run], *, title: str = "TrustJAX report") -> str:
  """Renders runs as one HTML page that needs no other file.

  Args:
    runs: The runs, from `read_runs`.
    title: Heading of the page.

  Returns:
    The page; style and figures are inside, and all text is escaped.
  """
  if not runs:
    raise ValueError("render_html: got no runs; at least one is needed")
  entries = ['<li><a href="#overview">Overview</a></li>']
  if len(runs) > 1:
    entries.append('<li><a href="#comparison">Comparison</a></li>')
  for number, run in enumerate(runs, start=1):
    inner = "".join(
      f'<li><a href="#run-{number}-{name.lower()}">{name}</a></li>'
      for name, _ in _run_parts(run)
    )
    inner = f"<ol>{inner}</ol>" if inner else ""
    entries.append(
      f'<li><a href="#run-{number}">{html.escape(run.name)}</a>{inner}</li>'
    )
  sections = [_overview(runs)]
  if len(runs) > 1:
    sections.append(_comparison(runs))
  sections += [_run_section(n, run) for n, run in enumerate(runs, start=1)]
  count = f"{len(runs)} run" + ("s" if len(runs) > 1 else "")
  return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{html.escape(title)}</title>
<style>{CSS}</style>
</head>
<body>
<header>
<h1>{html.escape(title)}</h1>
<p class="soft">{count}. Intervals in brackets; every number was computed in
the run that it is listed under.</p>
<nav aria-label="Contents"><ol>{"".join(entries)}</ol></nav>
</header>
<main>
{chr(10).join(sections)}
</main>
</body>
</html>
"""
