"""What every binary with a config does at its edge: flags, errors, Ctrl-C."""

import os
import pathlib
import sys
from collections.abc import Callable, Sequence

import jax
from absl import app, flags, logging

from experiments._binary import _config_flags
from trustjax import training

# Flags defined here belong to the binary that calls, and show in its --help.
flags.disclaim_key_flags()

_INTERRUPTED = 130  # The shell's exit status of a program ended by Ctrl-C.


class Stopped(Exception):  # noqa: N818
  """Ctrl-C: everything is saved, the work is not finished."""


def run_binary(
  run: Callable[[_config_flags.Config, pathlib.Path], None],
  *,
  default_config: str,
  keep_compiled: bool,
) -> None:
  """Parses the flags and runs a binary; does not return.

  Mistakes of the user end in one line that names the binary and the field: a
  stack trace would bury it.

  Args:
    run: Does the work, given the config and the folder for results.
    default_config: Config file used without `--config`, below `configs/`.
    keep_compiled: Whether compiled programs are kept between runs; a
      benchmark of compilation must not.
  """
  name = sys.modules["__main__"].__spec__.name  # pyright: ignore
  root = pathlib.Path(__file__).parents[2]
  config = _config_flags.define_config(
    str(root / "configs" / default_config),
    "Config file; its fields are set with --config.FIELD=VALUE.",
  )
  workdir = flags.DEFINE_string(
    "workdir",
    f"runs/{name.rpartition('.')[2]}",
    "Folder for results; unfinished work in it is continued.",
  )

  def main(argv: Sequence[str]) -> None:
    if len(argv) > 1:
      raise app.UsageError(f"unexpected arguments: {list(argv[1:])}")
    if not flags.FLAGS["verbosity"].present:
      logging.set_verbosity(logging.WARNING)  # JAX and Orbax tell a lot.
    if keep_compiled:
      _use_compilation_cache()
    try:
      run(config.value, pathlib.Path(workdir.value))
    except Stopped as stopped:
      print(f"{stopped}\nRun the same command to continue.")
      sys.exit(_INTERRUPTED)
    except KeyboardInterrupt:
      # Ctrl-C between training runs, or a second one during a run.
      print(
        f"{name}: stopped; what was saved in {workdir.value} is kept\n"
        "Run the same command to continue."
      )
      sys.exit(_INTERRUPTED)
    except (ValueError, OSError, training.CheckpointError) as error:
      sys.exit(f"{name}: {error}")

  app.run(main)


def _use_compilation_cache():
  folder = os.environ.get(
    "JAX_COMPILATION_CACHE_DIR",
    str(pathlib.Path.home() / ".cache/trustjax/compiled"),
  )
  jax.config.update("jax_compilation_cache_dir", folder)
