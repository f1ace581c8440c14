"""Calling binaries from a shell, their configs' fields, work done once."""

import os
import pathlib
import subprocess
import sys

_ROOT = pathlib.Path(__file__).parents[2]


def call(name, *arguments, cwd):
  """What `python -m experiments.<name>` printed and returned."""
  return subprocess.run(
    [sys.executable, "-m", f"experiments.{name}", *map(str, arguments)],
    cwd=cwd,
    env=os.environ | {"PYTHONPATH": str(_ROOT)},
    capture_output=True,
    text=True,
    timeout=300,
    check=False,
  )


def set_field(config, path, value):
  """Sets a field of a config by its path, whatever the value's type."""
  node, *names = config, *path.split(".")
  for name in names[:-1]:
    node = node[name]
  with node.ignore_type():
    node[names[-1]] = value


def once(function, key_of):
  """The function, called once for each key of its arguments."""
  made = {}

  def call(*args, **fields):
    key = key_of(*args, **fields)
    if key not in made:
      made[key] = function(*args, **fields)
    return made[key]

  return call
