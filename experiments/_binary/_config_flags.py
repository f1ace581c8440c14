"""Config flags whose mistakes end in one clear line."""

import pathlib
import runpy
import sys
from collections.abc import Sequence
from typing import Any

import ml_collections
from absl import flags
from ml_collections import config_flags

# Flags defined here belong to the binary that calls, and show in its --help.
flags.disclaim_key_flags()

# A ConfigDict, whose own annotations say that any field may be anything.
Config = Any


def define_config(default: str, help_text: str) -> flags.FlagHolder:
  """The flag `config`, whose unknown fields are refused by name.

  The arguments are looked at here, because ml_collections applies them while
  the flag is being defined and answers a wrong one with a traceback.

  Args:
    default: Path of the config file that is used without `--config`.
    help_text: For `--help`.

  Returns:
    The flag. The process exits with a message that names the field, and those
    that exist, if the command line sets an unknown one.
  """
  problem = find_problem(sys.argv[1:], default)
  if problem:
    sys.exit(problem)
  return config_flags.DEFINE_config_file(
    "config", default, help_text, lock_config=True
  )


def find_problem(arguments: Sequence[str], default: str) -> str | None:
  """What is wrong with the `--config` arguments, or None."""
  paths, chosen = [], default
  for number, argument in enumerate(arguments):
    flag, has_value, value = argument.partition("=")
    flag = flag.lstrip("-") if argument.startswith("-") else ""
    if flag == "config":
      following = arguments[number + 1 : number + 2]
      chosen = value if has_value else "".join(following)
    elif flag.startswith("config."):
      paths.append(flag.removeprefix("config."))
  file, _, parameter = chosen.partition(":")
  if not pathlib.Path(file).is_file():
    return f"config: there is no file {file!r}"
  if not paths:
    return None
  get_config = runpy.run_path(file)["get_config"]
  config = get_config(parameter) if parameter else get_config()
  problems = (_unknown_field(config, path) for path in paths)
  return next((problem for problem in problems if problem), None)


def _unknown_field(config, path):
  node, parents = config, []
  for part in path.split("."):
    name = part.partition("[")[0]
    if not isinstance(node, ml_collections.ConfigDict):
      return f"config.{path}: {'.'.join(parents)!r} has no fields"
    if name not in node:
      where = ".".join(["config", *parents])
      return (
        f"config.{path}: unknown field {name!r}; {where} has {sorted(node)}"
      )
    node = node.get(name)
    parents.append(name)
  return None
