"""Ctrl-C that saves: the first asks the loop to stop, the second stops it."""

import signal
import threading


class StopOnInterrupt:
  """While open, turns SIGINT and SIGTERM into a request to stop.

  The loop looks at `requested` between steps, saves and returns. A second
  signal raises KeyboardInterrupt at once.

  Example:
    >>> with StopOnInterrupt() as stop:
    ...   while not stop.requested:
    ...     state = step(state)
  """

  _SIGNALS = (signal.SIGINT, signal.SIGTERM)

  def __init__(self):
    self.requested = False
    self._previous = {}

  def __enter__(self) -> "StopOnInterrupt":
    # Python delivers signals to the main thread only; elsewhere (a notebook's
    # worker, a test) the caller's own handling stays in force.
    if threading.current_thread() is threading.main_thread():
      for name in self._SIGNALS:
        self._previous[name] = signal.signal(name, self._handle)
    return self

  def _handle(self, number, frame) -> None:
    del number, frame
    if self.requested:
      raise KeyboardInterrupt
    self.requested = True

  def __exit__(self, *exception) -> None:
    for name, handler in self._previous.items():
      signal.signal(name, handler)
