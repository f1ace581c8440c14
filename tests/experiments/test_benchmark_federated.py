"""The federated benchmark: what it times, writes and refuses."""

import functools

import numpy as np
import pytest

from configs.benchmark_federated import default, grid
from experiments import benchmark_federated as binary
from experiments._federated import _contestants, _settings
from trustjax import reporting

SIZES = dict(
  registered=6,
  examples_per_client=5,
  length=4,
  vocab_size=30,
  num_intents=3,
  num_slots=4,
  batch_size=2,
  learning_rate=0.1,
)


def small_config(**changes):
  config = default.get_config()
  config.settings = ({"model": "logistic", "num_clients": 3},)
  # Not "scan", which `auto` is on a CPU.
  config.update(
    {"data": SIZES, "rounds": 3, "peers": (), "backends": ("vmap",)}
  )
  config.update(changes)
  return config


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
  """A small race, run once: its folder and its record."""
  folder = tmp_path_factory.mktemp("race")
  binary.run(small_config(), folder)
  return folder, reporting.read_results(folder / "results.json")


def test_every_method_is_timed(finished):
  folder, results = finished
  for method in ("floor", "auto", "vmap"):
    assert results[f"{method}/seconds_per_round"] > 0
    assert results[f"{method}/seconds_per_round_n"] == 3
    assert results[f"{method}/first_seconds"] > 0
  assert results["floor/ratio_to_floor"] == 1
  assert results["speedup_vs_vmap"] == pytest.approx(
    results["vmap/seconds_per_round"] / results["auto/seconds_per_round"]
  )
  assert results["best_backend"] in ("auto", "vmap")
  assert results["auto_over_best"] >= 1
  assert "logistic_m3" in (folder / "table.md").read_text()


def test_all_backends_end_at_the_same_loss(finished):
  _, results = finished
  np.testing.assert_allclose(
    results["auto/final_loss"], results["vmap/final_loss"], rtol=1e-5
  )


FIELDS = {
  "logistic": {},
  "mean_pool": {"dim": 6},
  "bilstm": {"dim": 6, "hidden_dim": 5},
  "transformer": {"num_layers": 2, "dim": 8, "ff_dim": 12, "num_heads": 4},
  "cnn": {"channels": (3, 4), "hidden_dim": 5},
}


@functools.cache
def setting(model):
  return _settings.make_setting(model, 2, **SIZES, **FIELDS[model])


@pytest.mark.parametrize("model", list(FIELDS))
def test_a_torch_loop_ends_where_we_end(model):
  """Same cohorts, same weights: the peer does the same work."""
  pytest.importorskip("torch", reason="peers are not installed")
  ours = _contestants.our_method(setting(model), "scan", backend="scan")
  peers, skipped = _contestants.make_peers(setting(model), ("torch_loop",))
  assert not skipped
  start = ours.loss()
  for r in range(2):
    ours.run(r)
    peers[0].run(r)
  assert abs(ours.loss() - start) > 1e-3
  np.testing.assert_allclose(ours.loss(), peers[0].loss(), rtol=2e-5)


def test_pfl_learns_what_we_learn():
  pytest.importorskip("pfl", reason="peers are not installed")
  everybody = _settings.make_setting(
    "logistic", 6, **(SIZES | {"batch_size": 5})
  )
  ours = _contestants.our_method(everybody, "scan", backend="scan")
  peers, _ = _contestants.make_peers(everybody, ("pfl",))
  for r in range(3):
    ours.run(r)
    peers[0].run(r)
  # All clients, one batch each: the order of neither matters.
  np.testing.assert_allclose(ours.loss(), peers[0].loss(), rtol=1e-5)


@pytest.mark.slow
def test_flower_learns_what_we_learn():
  for name in ("torch", "flwr", "ray"):
    pytest.importorskip(name, reason="peers are not installed")
  everybody = _settings.make_setting(
    "logistic", 6, **(SIZES | {"batch_size": 5})
  )
  ours = _contestants.our_method(everybody, "scan", backend="scan")
  peers, _ = _contestants.make_peers(everybody, ("flower",))
  try:
    for r in range(2):
      ours.run(r)
      peers[0].run(r)
    np.testing.assert_allclose(ours.loss(), peers[0].loss(), rtol=1e-5)
  finally:
    peers[0].close()


def test_a_peer_that_is_not_installed_is_named(monkeypatch):
  monkeypatch.setitem(_contestants._NEEDS, "pfl", ("no_such_package",))
  found, skipped = _contestants.make_peers(setting("logistic"), ("pfl",))
  assert found == []
  assert skipped == {"pfl": "not installed: no_such_package"}


@pytest.mark.slow
def test_the_record_says_why_a_peer_is_missing(tmp_path, monkeypatch):
  monkeypatch.setitem(_contestants._NEEDS, "pfl", ("no_such_package",))
  binary.run(small_config(peers=("pfl",), backends=(), rounds=2), tmp_path)
  results = reporting.read_results(tmp_path / "results.json")
  assert results["pfl/seconds_per_round"] is None
  assert "no_such_package" in results["pfl/seconds_per_round_reason"]


def test_the_grid_has_the_rows_that_are_promised():
  rows = [
    (fields["model"], fields["num_clients"])
    for fields in grid.get_config().settings
  ]
  assert len(rows) == 10 and ("logistic", 1000) in rows
  assert len(grid.get_config("bilstm").settings) == 2


@pytest.mark.parametrize("clients, chunk", [(50, 13), (10, 10), (100, 15)])
def test_chunks_of_vmap_leave_few_slots_empty(clients, chunk):
  assert binary.even_chunk(clients, 16) == chunk


@pytest.mark.parametrize(
  "message, changes",
  [
    ("rounds: got 1", {"rounds": 1}),
    ("settings: got none", {"settings": ()}),
    (r"settings\[0\].*'num_clients'", {"settings": ({"model": "logistic"},)}),
    ("peers: got 'tff'", {"peers": ("tff",)}),
  ],
)
def test_impossible_fields_are_named(tmp_path, message, changes):
  with pytest.raises(ValueError, match=message):
    binary.run(small_config(**changes), tmp_path)
