"""What every binary does at its edge."""

from collections.abc import Sequence

from absl import app, flags, logging


def check_arguments(argv: Sequence[str]) -> None:
  """Refuses arguments that are not flags, and keeps libraries quiet.

  Args:
    argv: What `app.run` passes to main.

  Raises:
    app.UsageError: There is more than the program's name.
  """
  if len(argv) > 1:
    raise app.UsageError(f"unexpected arguments: {list(argv[1:])}")
  if not flags.FLAGS["verbosity"].present:
    logging.set_verbosity(logging.WARNING)  # JAX and Orbax tell a lot.
