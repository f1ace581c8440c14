"""The Markdown of tables as HTML: headings, pipe tables, lists, text."""

import csv
import html
import io
import re
from collections.abc import Sequence

# An escaped character, or a single one.
_PIECE = re.compile(r"\\.|.")
_RULE = re.compile(r"\s*:?-+:?\s*")


def _cells(line: str) -> list[str]:
  """The cells between the bars of a row, their backslashes resolved."""
  cells = [""]
  for part in _PIECE.findall(line.strip().removeprefix("|")):
    if part == "|":
      cells.append("")
    else:
      cells[-1] += part[1:] if part in ("\\\\", "\\|") else part
  if len(cells) > 1 and not cells[-1].strip():
    cells.pop()  # Behind the bar that ends the row.
  return [cell.strip() for cell in cells]


def html_table(
  heads: Sequence[str],
  rows: Sequence[Sequence[str]],
  right: Sequence[bool] = (),
) -> str:
  """A table of plain texts as HTML; everything is escaped.

  Args:
    heads: Column titles.
    rows: Cells, row by row.
    right: Which columns are aligned to the right.

  Returns:
    A `<table>` in a block that scrolls sideways when it is too wide.
  """

  def line(tag, texts):
    parts = []
    for i, text in enumerate(texts):
      kind, inner = "", html.escape(text)
      if i < len(right) and right[i]:
        # The estimate is what is read first; its interval stands back.
        kind = ' class="num"'
        inner = re.sub(r" (\[.*\])$", r' <span class="ends">\1</span>', inner)
      elif len(text) > 40:
        kind = ' class="wrap"'
      parts.append(f"<{tag}{kind}>{inner}</{tag}>")
    return f"<tr>{''.join(parts)}</tr>"

  body = "\n".join(line("td", row) for row in rows)
  return (
    '<div class="scroll"><table>\n'
    f"<thead>{line('th', heads)}</thead>\n<tbody>\n{body}\n</tbody>\n"
    "</table></div>"
  )


def _inline(text: str) -> str:
  escaped = html.escape(text, quote=False)
  escaped = re.sub(r"`([^`]+)`", r"<code>\1</code>", escaped)
  return re.sub(r"\*\*([^*]+)\*\*", r"<strong>\1</strong>", escaped)


def markdown_to_html(text: str) -> str:
  """Converts the little Markdown that tables are written in.

  Args:
    text: Headings, pipe tables, lists of dashes and paragraphs; whatever else
      there is appears as escaped text.

  Returns:
    HTML, headings as h4 because they stand inside a run.
  """
  lines = text.splitlines()
  parts: list[str] = []
  i = 0
  while i < len(lines):
    line = lines[i].strip()
    start = i
    if not line:
      i += 1
    elif line.startswith("#"):
      parts.append(f"<h4>{_inline(line.lstrip('#').strip())}</h4>")
      i += 1
    elif (
      line.startswith("|")
      and i + 1 < len(lines)
      and all(_RULE.fullmatch(cell) for cell in _cells(lines[i + 1]))
    ):
      right = [cell.endswith(":") for cell in _cells(lines[i + 1])]
      right = [
        to_right and not cell.startswith(":")
        for to_right, cell in zip(right, _cells(lines[i + 1]), strict=True)
      ]
      i += 2
      while i < len(lines) and lines[i].strip().startswith("|"):
        i += 1
      rows = [_cells(row) for row in lines[start + 2 : i]]
      parts.append(html_table(_cells(line), rows, right))
    elif line.startswith("- "):
      while i < len(lines) and lines[i].strip().startswith("- "):
        i += 1
      items = (_inline(item.strip()[2:]) for item in lines[start:i])
      parts.append(
        '<ul class="notes">'
        + "".join(f"<li>{item}</li>" for item in items)
        + "</ul>"
      )
    else:
      while i < len(lines) and lines[i].strip()[:2] not in ("", "- "):
        i += 1
      # A line that opens no block, such as a lone "-", is text.
      i = max(i, start + 1)
      parts.append(f"<p>{_inline(' '.join(lines[start:i]))}</p>")
  return "\n".join(parts)


def csv_to_html(text: str) -> str:
  """A CSV file as an HTML table, columns of numbers to the right."""
  rows = list(csv.reader(io.StringIO(text)))
  if not rows:
    return "<p>The table is empty.</p>"

  def is_number(cell):
    try:
      float(cell)
    except ValueError:
      return cell == ""
    return True

  right = [
    all(is_number(row[i]) for row in rows[1:] if i < len(row))
    for i in range(len(rows[0]))
  ]
  return html_table(rows[0], rows[1:], right)
