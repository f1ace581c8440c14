"""One table, for people (Markdown, console) and for machines (CSV)."""

import csv
import dataclasses
import io
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from trustjax.reporting import _intervals, _results

if TYPE_CHECKING:
  import rich.table

Align = Literal["left", "right", "center"]
_RULES = {"left": ":---", "right": "---:", "center": ":---:"}
_DASH = "–"


@dataclasses.dataclass(frozen=True)
class Missing:
  """A cell without a number, and why; the reason becomes a note."""

  reason: str


Cell = str | int | float | _intervals.Interval | Missing | None


@dataclasses.dataclass(frozen=True)
class Column:
  """How one column is read and shown.

  Attributes:
    key: Name of the cells in the rows, and heading in the CSV file.
    title: Heading for people; the key if empty.
    unit: Unit, shown in parentheses after the title.
    format: Format specification of the numbers (".3f", ".1%", ",d"); empty
      chooses digits that fit each number and its interval.
    align: Alignment; None puts numbers right and text left.
  """

  key: str
  title: str = ""
  unit: str = ""
  format: str = ""
  align: Align | None = None

  def __post_init__(self):
    if self.align not in (None, *_RULES):
      raise ValueError(
        f"align: got {self.align!r}; allowed are {', '.join(_RULES)} and None"
      )
    try:
      format(0 if self.format.endswith("d") else 0.0, self.format)
    except ValueError as error:
      raise ValueError(
        f"format: got {self.format!r} for column {self.key!r}; allowed is a"
        " number format such as '.3f'"
      ) from error

  @property
  def heading(self) -> str:
    """Title and unit."""
    title = self.title or self.key
    return f"{title} ({self.unit})" if self.unit else title


# Sizes outside are written as powers of ten.
_SMALL, _LARGE = 1e-4, 1e7


def _plain(value: float, decimals: int) -> str:
  text = f"{value:,.{decimals}f}"
  # A rounded negative is zero.
  return text.removeprefix("-") if float(text.replace(",", "")) == 0 else text


def _fitting_decimals(value: float) -> int | None:
  """Decimals of four significant digits; None to write a power of ten."""
  if value == int(value) and abs(value) < _LARGE:
    return 0
  if not _SMALL <= abs(value) < _LARGE:
    return None
  return max(0, 3 - math.floor(math.log10(abs(value))))


def _interval_decimals(measured: _intervals.Interval) -> int | None:
  """Decimals that the width of an interval supports.

  The half-width keeps one digit, or two where the first would be 1 or 2.
  """
  if measured.low is None or measured.high is None:
    return _fitting_decimals(measured.estimate)
  half = (measured.high - measured.low) / 2
  largest = max(abs(measured.low), abs(measured.high))
  if half == 0:
    return _fitting_decimals(measured.estimate)
  if not _SMALL <= largest < _LARGE:
    return None
  return min(max(0, -math.floor(math.log10(half / 3))), 9)


def format_number(value: float, spec: str = "") -> str:
  """A number with as many digits as are worth reading.

  Args:
    value: The number.
    spec: Format specification; empty gives four significant digits, whole
      numbers in full, and powers of ten below 1e-4 and from 1e7 on.

  Returns:
    The text, such as "0.9686", "1,024" or "1e-05".
  """
  if spec:
    return format(round(value) if spec.endswith("d") else value, spec)
  if isinstance(value, int) and abs(value) < 10**12:
    return f"{value:,}"
  if not math.isfinite(value):
    return str(value)
  decimals = _fitting_decimals(value)
  if decimals is None:
    return f"{value:.3g}"
  text = _plain(value, decimals)
  return text.rstrip("0").rstrip(".") if "." in text else text


def format_interval(measured: _intervals.Interval, spec: str = "") -> str:
  """An estimate with its interval in brackets.

  Without a format, the width of the interval decides on the digits. A number
  that was computed (`Interval.exact`) stands alone.

  Args:
    measured: The estimate and its ends, if it has any.
    spec: Format specification of each number.

  Returns:
    The text, such as "0.969 [0.961, 0.977]".
  """
  if _stands_alone(measured):
    return format_number(measured.estimate, spec)
  return _format_interval(measured, spec, _interval_decimals(measured))


def _stands_alone(measured: _intervals.Interval) -> bool:
  """Whether there are no ends to show: none known, or none apart."""
  return measured.n == 1 and measured.low == measured.high


def _format_interval(
  measured: _intervals.Interval, spec: str, decimals: int | None
) -> str:
  def text(value: float) -> str:
    if spec or decimals is None:
      return format_number(value, spec or ".3g")
    return _plain(value, decimals)

  if measured.low is None or measured.high is None or _stands_alone(measured):
    return text(measured.estimate)
  return (
    f"{text(measured.estimate)} [{text(measured.low)}, {text(measured.high)}]"
  )


def _column_decimals(cells: Sequence[Cell]) -> int | None:
  """Decimals that one column shares, so that its numbers line up.

  None where each number is better off by itself: whole numbers, or sizes so
  different that shared decimals would hide the small ones.
  """
  numbers = [
    cell if isinstance(cell, _intervals.Interval) else _intervals.Interval(cell)
    for cell in cells
    if isinstance(cell, _intervals.Interval | float)
  ]
  # Where some spread is known it decides, for the numbers without one too.
  spread = [n for n in numbers if n.has_ends and not _stands_alone(n)]
  wanted = [_interval_decimals(number) for number in spread or numbers]
  nonzero = [abs(n.estimate) for n in numbers if n.estimate]
  if not nonzero or None in wanted or max(nonzero) > 1e3 * min(nonzero):
    return None
  if spread:
    # The middle one: a single wide interval does not blunt the others.
    decimals = sorted(d for d in wanted if d is not None)
    return decimals[(len(decimals) - 1) // 2]
  # Plain numbers: three digits of the smallest, at most four of the largest.
  low, high = min(nonzero), max(nonzero)
  if all(decimals == 0 for decimals in wanted):
    return 0
  fine = 2 - math.floor(math.log10(low))
  coarse = 3 - math.floor(math.log10(high))
  return max(0, min(fine, max(coarse, 1)))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Table:
  """Rows under titled columns.

  Attributes:
    columns: The columns, left to right.
    rows: Cells by column key; an absent cell is empty. Cells are text,
      numbers, intervals, None, or `Missing` with a reason.
    title: Shown above the table.
    notes: Sentences shown below it.
  """

  columns: Sequence[Column]
  rows: Sequence[Mapping[str, Any]]
  title: str = ""
  notes: Sequence[str] = ()

  def __post_init__(self):
    object.__setattr__(self, "columns", tuple(self.columns))
    object.__setattr__(self, "rows", tuple(dict(row) for row in self.rows))
    object.__setattr__(self, "notes", tuple(self.notes))
    keys = [column.key for column in self.columns]
    if not keys or len(set(keys)) < len(keys):
      raise ValueError(
        f"columns: got keys {keys}; allowed is one or more, each once"
      )
    for number, row in enumerate(self.rows):
      for key, cell in row.items():
        if key not in keys:
          raise ValueError(
            f"row {number}: cell {key!r} has no column; allowed are"
            f" {', '.join(keys)}"
          )
        if not isinstance(
          cell, str | int | float | _intervals.Interval | Missing | None
        ):
          raise ValueError(
            f"row {number}, column {key!r}: got {type(cell).__name__};"
            " allowed are str, int, float, Interval, Missing and None"
          )

  def alignments(self) -> list[Align]:
    """Alignment of each column: as asked, else by what it holds."""
    return [
      column.align or ("left" if self._is_text(column.key) else "right")
      for column in self.columns
    ]

  def _is_text(self, key: str) -> bool:
    cells = [row.get(key) for row in self.rows]
    return any(isinstance(cell, str) for cell in cells)

  def reasons(self) -> dict[str, str]:
    """Reason of missing cells to its mark: (a), (b), ..."""
    found = [
      cell.reason
      for row in self.rows
      for column in self.columns
      if isinstance(cell := row.get(column.key), Missing)
    ]
    marks = [f"({_letters(i)})" for i in range(len(found))]
    return dict(zip(dict.fromkeys(found), marks, strict=False))

  def texts(self) -> list[list[str]]:
    """The cells as people read them, row by row."""
    reasons = self.reasons()
    decimals = {
      column.key: _column_decimals([r.get(column.key) for r in self.rows])
      for column in self.columns
    }
    return [
      [
        _cell_text(
          row.get(column.key),
          column.format,
          decimals[column.key],
          reasons,
        )
        for column in self.columns
      ]
      for row in self.rows
    ]

  def all_notes(self) -> list[str]:
    """The notes, then the reasons of missing cells with their marks."""
    return [
      *self.notes,
      *(f"{mark} {reason}" for reason, mark in self.reasons().items()),
    ]

  def to_markdown(self) -> str:
    """The table in GitHub's Markdown, columns padded to line up."""
    headings = [_escaped(column.heading) for column in self.columns]
    aligns = self.alignments()
    body = [[_escaped(text) for text in row] for row in self.texts()]
    rules = [_RULES[align] for align in aligns]
    widths = [
      max(len(text) for text in texts)
      for texts in zip(headings, rules, *body, strict=True)
    ]
    lines = [f"### {self.title}", ""] if self.title else []
    lines.append(_markdown_row(headings, widths, aligns))
    lines.append(
      "|"
      + "|".join(
        _rule(align, width) for align, width in zip(aligns, widths, strict=True)
      )
      + "|"
    )
    lines += [_markdown_row(row, widths, aligns) for row in body]
    for note in self.all_notes():
      lines += ["", note]
    return "\n".join(lines) + "\n"

  def to_csv(self) -> str:
    """The table with all digits, headed by the keys.

    A column that holds intervals is followed by `_low`, `_high` and `_n`, one
    that holds missing cells by `_reason`.
    """
    names: list[str] = []
    for column in self.columns:
      cells = [row.get(column.key) for row in self.rows]
      names.append(column.key)
      if any(isinstance(c, _intervals.Interval) and c.has_ends for c in cells):
        names += [f"{column.key}{end}" for end in ("_low", "_high", "_n")]
      if any(isinstance(cell, Missing) for cell in cells):
        names.append(f"{column.key}_reason")
    stream = io.StringIO()
    writer = csv.DictWriter(
      stream, names, restval="", extrasaction="ignore", lineterminator="\n"
    )
    writer.writeheader()
    for row in self.rows:
      entries: dict[str, Any] = {}
      for key, cell in row.items():
        entries |= _csv_entries(key, cell)
      writer.writerow(entries)
    return stream.getvalue()

  def to_rich(self, *, stacked: bool = False) -> "rich.table.Table":
    """The table for a rich console.

    Args:
      stacked: Writes intervals under their estimates: narrower.

    Returns:
      A renderable.
    """
    import rich.box
    import rich.table
    import rich.text

    table = rich.table.Table(
      title=rich.text.Text(self.title, "bold") if self.title else None,
      caption=rich.text.Text("\n".join(self.all_notes())) or None,
      caption_justify="left",
      box=rich.box.SIMPLE_HEAD,
      title_justify="left",
      pad_edge=False,
    )
    for column, align in zip(self.columns, self.alignments(), strict=True):
      table.add_column(
        rich.text.Text(column.heading), justify=align, overflow="fold"
      )
    for row in self.texts():
      if stacked:
        row = [text.replace(" [", "\n[", 1) for text in row]
      table.add_row(*(rich.text.Text(text) for text in row))
    return table


def print_table(table: Table, file: Any = None) -> None:
  """Prints a table; intervals go below their estimates on a narrow terminal.

  Args:
    table: The table.
    file: Where to; standard output if None. What is not a terminal gets the
      full width.
  """
  import rich.console
  import rich.measure

  console = rich.console.Console(file=file, highlight=False)
  if not console.is_terminal:
    console = rich.console.Console(file=file, highlight=False, width=400)
  shown = table.to_rich()
  wide = rich.measure.Measurement.get(console, console.options, shown).maximum
  console.print(table.to_rich(stacked=True) if wide > console.width else shown)


def _letters(index: int) -> str:
  """a, b, ..., z, aa, ab, ..."""
  letters = ""
  index += 1
  while index:
    index, rest = divmod(index - 1, 26)
    letters = chr(ord("a") + rest) + letters
  return letters


def _cell_text(
  cell: Cell, spec: str, decimals: int | None, reasons: Mapping[str, str]
) -> str:
  if cell is None:
    return _DASH
  if isinstance(cell, Missing):
    return f"{_DASH} {reasons[cell.reason]}"
  if isinstance(cell, str):
    return cell
  if isinstance(cell, _intervals.Interval):
    if decimals is None:
      return format_interval(cell, spec)
    return _format_interval(cell, spec, decimals)
  if isinstance(cell, float) and not spec and decimals is not None:
    return _plain(cell, decimals)
  return format_number(cell, spec)


def _csv_entries(key: str, cell: Cell) -> dict[str, Any]:
  if isinstance(cell, Missing):
    return {f"{key}_reason": cell.reason}
  if isinstance(cell, _intervals.Interval):
    if not cell.has_ends:
      return {key: cell.estimate}
    return {
      key: cell.estimate,
      f"{key}_low": cell.low,
      f"{key}_high": cell.high,
      f"{key}_n": cell.n,
    }
  return {key: "" if cell is None else cell}


def _escaped(text: str) -> str:
  """Text that cannot break out of a Markdown cell."""
  return text.replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ")


def _rule(align: Align, width: int) -> str:
  left = ":" if align in ("left", "center") else "-"
  right = ":" if align in ("right", "center") else "-"
  return left + "-" * width + right


def _markdown_row(
  cells: Sequence[str], widths: Sequence[int], aligns: Sequence[Align]
) -> str:
  signs = {"left": "<", "right": ">", "center": "^"}
  padded = [
    f"{cell:{signs[align]}{width}}"
    for cell, width, align in zip(cells, widths, aligns, strict=True)
  ]
  return "| " + " | ".join(padded) + " |"


def cell_of(results: _results.Results, key: str) -> Cell:
  """The entry of a record as a cell: interval, text, missing, or None."""
  if key not in results:
    return None
  value = results[key]
  if value is None:
    return Missing(results.reason(key))
  if isinstance(value, str):
    return value
  measured = results.interval(key)
  return measured if measured and measured.has_ends else value


def arm_table(
  results: _results.Results,
  columns: Sequence[Column],
  *,
  arms: Sequence[str] | None = None,
  labels: Mapping[str, str] | None = None,
  title: str = "",
  notes: Sequence[str] = (),
) -> Table:
  """One row an arm, one column a metric: `<arm>/<column key>`.

  Args:
    results: The record.
    columns: The metrics.
    arms: Arms in order; all arms of the record if None.
    labels: Arm to what is shown for it; the arm itself where absent.
    title: Title of the table.
    notes: Notes below it.

  Returns:
    The table, with a first column `arm`.

  Raises:
    ValueError: If an arm is not in the record.
  """
  known = results.arms()
  arms = known if arms is None else arms
  for arm in arms:
    if arm not in known:
      raise ValueError(
        f"arms: got {arm!r}; the record has {', '.join(known) or 'none'}"
      )
  rows = [
    {"arm": (labels or {}).get(arm, arm)}
    | {c.key: cell_of(results, f"{arm}/{c.key}") for c in columns}
    for arm in arms
  ]
  return Table(
    columns=[Column("arm"), *columns], rows=rows, title=title, notes=notes
  )


def comparison_table(
  runs: Mapping[str, _results.Results],
  *,
  keys: Sequence[str] | None = None,
  title: str = "",
) -> Table:
  """One row a measurement, one column a run; one protocol only.

  Args:
    runs: Name of each run to its results.
    keys: Measurements to show; by default all that two or more runs have.
    title: Title of the table.

  Returns:
    The table, with a first column `measurement`.

  Raises:
    ValueError: If the protocols differ, as in `check_comparable`.
  """
  _results.check_comparable(runs)
  keys = _results.shared_keys(list(runs.values())) if keys is None else keys
  rows = [
    {"measurement": key}
    | {name: cell_of(results, key) for name, results in runs.items()}
    for key in keys
  ]
  columns = [
    Column("measurement"),
    *(Column(name, align="right") for name in runs),
  ]
  return Table(columns=columns, rows=rows, title=title)
