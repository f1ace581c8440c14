"""The edge of every binary, without a process of its own."""

import sys
import types

import pytest
from absl import flags

from experiments._binary import _config_flags, _console


def test_an_interrupt_between_runs_ends_without_a_traceback(
  monkeypatch, capsys
):
  """Evaluations and records are not inside of a training loop."""

  def run(config, workdir):
    raise KeyboardInterrupt

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
  with pytest.raises(SystemExit) as stopped:
    _console.run_binary(run, default_config="", keep_compiled=False)
  assert stopped.value.code == 130
  out = capsys.readouterr().out
  assert "what was saved in OUT is kept" in out
  assert "Run the same command to continue." in out
