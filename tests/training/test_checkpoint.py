"""Checkpoints: exact, whole, and only for the run they belong to."""

import json

import jax
import optax
import pytest

from tests.training import tiny_task
from trustjax import training


def make_state(plan=None):
  init, step = training.make_private_step(
    tiny_task.loss_fn, optax.adam(0.1), plan or tiny_task.plan()
  )
  return init(tiny_task.params()), step


def checkpointer(folder, plan=None, **identity):
  plan = plan or tiny_task.plan()
  return training.Checkpointer(folder, identity=plan.describe() | identity)


def saved(folder, steps=(1,)):
  """A folder with checkpoints after the given numbers of steps."""
  plan = tiny_task.plan()
  state, step = make_state(plan)
  keeper = checkpointer(folder, plan)
  for t in range(max(steps)):
    lot = plan.draw_lot(tiny_task.examples(), seed=0, step=t)
    state, _ = step(state, lot, jax.random.key(0))
    if t + 1 in steps:
      keeper.save(state, elapsed_seconds=1.5)
  keeper.close()
  return state


def test_the_state_comes_back_whole(tmp_path):
  state = saved(tmp_path, (1, 3))
  keeper = checkpointer(tmp_path)
  assert keeper.latest_step() == 3
  restored, elapsed = keeper.restore(make_state()[0])
  assert tiny_task.trees_equal(restored, state)
  assert elapsed == 1.5


def test_an_empty_folder_restores_nothing(tmp_path):
  keeper = checkpointer(tmp_path / "new")
  assert keeper.restore(make_state()[0]) is None
  assert keeper.latest_step() == 0


def test_a_saved_step_is_left_alone(tmp_path):
  state = saved(tmp_path)
  keeper = checkpointer(tmp_path)
  keeper.save(state, elapsed_seconds=99.0)
  assert keeper.restore(make_state()[0])[1] == 1.5


def test_another_plan_is_refused_by_field(tmp_path):
  saved(tmp_path)
  other = tiny_task.plan(noise_multiplier=0.6)
  with pytest.raises(
    training.CheckpointError,
    match=r"another run.*guarantee wrong.*mechanism.noise_multiplier was 0.7,"
    r" is 0.6.*another workdir",
  ):
    checkpointer(tmp_path, other).restore(make_state(other)[0])


def _files(folder):
  """The files that hold arrays, largest first."""
  files = [p for p in (folder / "1" / "state").rglob("*") if p.is_file()]
  return sorted(files, key=lambda p: -p.stat().st_size)


def _flip(path):
  content = bytearray(path.read_bytes())
  for i in range(len(content) // 3, 2 * len(content) // 3):
    content[i] ^= 0xFF
  path.write_bytes(bytes(content))


def _truncate(path):
  path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _delete(path):
  path.unlink()


@pytest.mark.parametrize("damage", [_flip, _truncate, _delete])
def test_damage_is_found_and_said(tmp_path, damage):
  saved(tmp_path)
  for path in _files(tmp_path)[:3]:
    damage(path)
  with pytest.raises(training.CheckpointError) as caught:
    checkpointer(tmp_path).restore(make_state()[0])
  message = str(caught.value)
  assert str(tmp_path / "1") in message
  assert "cannot be restored" in message and "Delete that folder" in message


def test_a_swapped_state_is_found_by_its_digest(tmp_path):
  """Bytes that Orbax can read, but that are not those that were saved."""
  saved(tmp_path)
  files = (tmp_path / "1" / "about").glob("*")
  (about,) = (p for p in files if "digest" in p.read_text())
  content = json.loads(about.read_text())
  content["digest"] = "0" * 64
  about.write_text(json.dumps(content))
  with pytest.raises(training.CheckpointError, match="changed on disk"):
    checkpointer(tmp_path).restore(make_state()[0])


def test_after_deleting_a_damaged_folder_the_one_before_serves(tmp_path):
  saved(tmp_path, (1, 2))
  for path in (tmp_path / "2").rglob("*"):
    if path.is_file():
      path.write_bytes(b"")
  with pytest.raises(training.CheckpointError):
    checkpointer(tmp_path).restore(make_state()[0])
  for path in sorted((tmp_path / "2").rglob("*"), reverse=True):
    path.unlink() if path.is_file() else path.rmdir()
  (tmp_path / "2").rmdir()
  restored, _ = checkpointer(tmp_path).restore(make_state()[0])
  assert int(restored.step) == 1


def test_differences_name_the_path():
  assert training.differences({"a": {"b": 1}}, {"a": {"b": 1}}) == []
  assert training.differences({"a": {"b": 1}, "c": 2}, {"a": {"b": 3}}) == [
    "a.b was 1, is 3",
    "c was 2, is None",
  ]
