"""The edge of every binary, without a process of its own."""

import sys
import types

import pytest
from absl import flags

from experiments._binary import _config_flags, _console
from trustjax import training


@pytest.fixture
def exit_code(monkeypatch):
  """Runs a binary that raises an error, and returns its exit code."""
  spec = types.SimpleNamespace(name="experiments.some_study")
  monkeypatch.setitem(
    sys.modules, "__main__", types.SimpleNamespace(__spec__=spec)
  )
  monkeypatch.setattr(
    _config_flags, "define_config", lambda *_: types.SimpleNamespace(value=None)
  )
  monkeypatch.setattr(
    flags, "DEFINE_string", lambda *_: types.SimpleNamespace(value="OUT")
  )
  monkeypatch.setattr(_console.logging, "set_verbosity", lambda _: None)
  monkeypatch.setattr(_console.app, "run", lambda main: main(["some_study"]))

  def ended(error):
    def run(config, workdir):
      raise error

    with pytest.raises(SystemExit) as stopped:
      _console.run_binary(run, default_config="", keep_compiled=False)
    return stopped.value.code

  return ended


def test_an_interrupt_between_runs_ends_without_a_traceback(exit_code, capsys):
  """Evaluations and records are not inside of a training loop."""
  assert exit_code(KeyboardInterrupt()) == 130
  out = capsys.readouterr().out
  assert "what was saved in OUT is kept" in out
  assert "Run the same command to continue." in out


def test_an_interrupted_run_says_how_to_go_on(exit_code, capsys):
  assert exit_code(_console.Stopped("stopped after step 3 of 4")) == 130
  assert capsys.readouterr().out == (
    "stopped after step 3 of 4\nRun the same command to continue.\n"
  )


@pytest.mark.parametrize(
  "error", [ValueError, FileNotFoundError, training.CheckpointError]
)
def test_a_mistake_of_the_user_ends_in_one_line(error, exit_code):
  """Python prints a text that a program exits with, and returns 1."""
  code = exit_code(error("delta: got 0"))
  assert code == "experiments.some_study: delta: got 0"


def test_a_mistake_of_ours_keeps_its_traceback(exit_code):
  with pytest.raises(ZeroDivisionError):
    exit_code(ZeroDivisionError())
