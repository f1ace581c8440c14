"""A progress bar that says how fast and how long still."""

import contextlib
import sys
from collections.abc import Callable, Iterator

import rich.console
import rich.progress


class _StepsPerSecond(rich.progress.ProgressColumn):
  """Speed of a task, in steps per second."""

  def render(self, task: rich.progress.Task) -> str:
    speed = task.finished_speed or task.speed
    return "- steps/s" if speed is None else f"{speed:.3g} steps/s"


@contextlib.contextmanager
def progress_bar(
  title: str, num_steps: int, *, start: int = 0, enabled: bool | None = None
) -> Iterator[Callable[[int, str], None]]:
  """Shows steps done, steps per second and the estimated time left.

  Args:
    title: What is being trained.
    num_steps: Steps in all.
    start: Steps done before this session.
    enabled: False shows nothing; None shows it on a terminal only.

  Yields:
    `update(step, note)`, to be called with the steps done so far.
  """
  if enabled is None:
    enabled = sys.stderr.isatty()
  with rich.progress.Progress(
    rich.progress.TextColumn("{task.description}"),
    rich.progress.BarColumn(),
    rich.progress.MofNCompleteColumn(),
    _StepsPerSecond(),
    rich.progress.TextColumn("ETA"),
    rich.progress.TimeRemainingColumn(),
    rich.progress.TextColumn("{task.fields[note]}"),
    console=rich.console.Console(stderr=True),
    disable=not enabled,
  ) as progress:
    task = progress.add_task(title, total=num_steps, completed=start, note="")

    def update(step: int, note: str = "") -> None:
      progress.update(task, completed=step, note=note)

    yield update
