r"""Gathers the results of several runs into one self-contained HTML page.

  python -m experiments.report WORKDIR... --output=report.html

A WORKDIR is what another binary wrote: results.json and, beside it or in
folders below, config.json, table.md or table.csv, metrics.jsonl and
figures/*.png. Runs with the same protocol hash are put side by side.
"""

import sys
from collections.abc import Sequence

from absl import app, flags

from trustjax import reporting

_OUTPUT = flags.DEFINE_string("output", "report.html", "Page to write.")
_TITLE = flags.DEFINE_string("title", "TrustJAX report", "Heading of the page.")


def main(argv: Sequence[str]) -> None:
  """Reads the workdirs named on the command line and writes the page."""
  workdirs = argv[1:]
  if not workdirs:
    raise app.UsageError(
      "name at least one WORKDIR, a folder in which a binary wrote results.json"
    )
  try:
    runs = reporting.read_runs(workdirs)
    page = reporting.render_html(runs, title=_TITLE.value)
    reporting.write_atomically(_OUTPUT.value, page)
  except (OSError, ValueError) as error:
    # The message says which file and where; a stack trace would bury it.
    sys.exit(f"experiments.report: {error}")
  size = len(page.encode()) / 1e6
  count = "1 run" if len(runs) == 1 else f"{len(runs)} runs"
  print(f"{_OUTPUT.value}: {count}, {size:.1f} MB")


if __name__ == "__main__":
  app.run(main)
