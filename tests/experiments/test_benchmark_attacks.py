"""The attack benchmark: its record, and the transcription that it races."""

import numpy as np
import pytest

from configs.benchmark_attacks import default, full
from experiments import benchmark_attacks
from experiments._attacks import _peers, _races
from tests.experiments import binaries
from trustjax import attacks, reporting


def tiny_config():
  config = default.get_config()
  config.update(
    {
      "shadow": {
        "rounds": 2,
        "fields": {"dim": 4},
        "num_models": 3,
        "num_steps": 4,
        "batch_size": 8,
        "sequential_models": 1,
      },
      "scoring": {"rounds": 2, "num_models": 16, "num_records": 40},
      "extraction": {
        "rounds": 2,
        "model": "mean_pool",
        "num_trials": 2,
        "separate_trials": 1,
        "search": {"steps": 5, "restarts": 1},
      },
    }
  )
  config.extraction.fields = {"dim": 4}
  return config


@pytest.mark.slow
def test_the_record_has_every_race(tmp_path):
  config = tiny_config()
  benchmark_attacks.run(config, tmp_path)
  results = reporting.read_results(tmp_path / "results.json")
  for key in (
    "shadow/ensemble",
    "shadow/sequential",
    "shadow/floor",
    "scoring/lira_online_all_targets",
    "scoring/rmia_one_target",
    "scoring/lira_record_by_record",
    "scoring/rmia_pair_by_pair",
    "extraction/together",
    "extraction/separate",
    "extraction/separate_compiled",
    "extraction/exhaustive",
  ):
    assert results[f"{key}/seconds"] > 0
  for name in _peers.NAMES:
    if _peers.missing(name):
      assert "needs" in results[f"peers/{name}/peer/seconds_reason"]
    else:
      assert results[f"peers/{name}/ours/ratio"] > 0
  assert results["shadow/ensemble/compilations"] == 1
  assert results["shadow/ensemble/ratio"] > 0
  assert results["shadow/ensemble/bar"] is None
  assert "num_models = 64" in results["shadow/ensemble/bar_reason"]
  assert results["extraction/exhaustive/bar"] == "under 2 s: met"
  assert "compiled once" in (tmp_path / "table.md").read_text()


def test_the_raced_transcription_is_lira():
  rng = np.random.default_rng(0)
  member = rng.random((30, 20)) < 0.5
  logits = rng.normal(size=(30, 20)) + member
  scores = attacks.lira_scores(
    logits, member, target=0, online=True, variance="per_record"
  )
  np.testing.assert_allclose(
    _races.lira_record_by_record(logits, member), scores, rtol=1e-8
  )


def test_one_race_by_itself_leaves_a_record(tmp_path):
  config = tiny_config()
  config.races = ("scoring",)
  benchmark_attacks.run(config, tmp_path)
  results = reporting.read_results(tmp_path / "results.json")
  assert results["scoring/rmia_pair_by_pair/seconds"] > 0
  assert results["scoring/rmia_one_target/bar"] is None
  assert not [key for key in results if key.startswith("shadow")]


def test_the_raced_pairs_are_rmia():
  rng = np.random.default_rng(1)
  member = rng.random((30, 20)) < 0.5
  log_p = -np.logaddexp(0, -rng.normal(size=(30, 20)) - member)
  population = -np.logaddexp(0, -rng.normal(size=(30, 50)))
  np.testing.assert_allclose(
    _races.rmia_pair_by_pair(log_p, member, population),
    attacks.rmia_scores(log_p, member, population, target=0, online=True),
    atol=1e-12,
  )


@pytest.mark.parametrize("name", _peers.NAMES)
def test_a_peer_computes_the_same(name):
  reason = _peers.missing(name)
  if reason:
    pytest.skip(reason)
  config = tiny_config()
  config.peers = (name,)
  made, skipped = _peers.make_rivals(config)
  assert not skipped
  assert made[name].difference() < 1e-9 + 0.05 * (name == "art_classifier")


def test_bars_are_judged_at_their_sizes():
  small, large = default.get_config(), full.get_config()
  bar = benchmark_attacks._BARS["shadow/ensemble"]
  assert bar.verdict(large, True) == ("at most 1.2: met", "")
  assert bar.verdict(large, False) == ("at most 1.2: missed", "")
  assert bar.verdict(small, True)[0] is None
  for bar in benchmark_attacks._BARS.values():
    # The sizes that the bars name are those of the full config.
    assert bar.verdict(large, True)[0]


def test_a_missing_peer_is_skipped_by_name(monkeypatch):
  config = tiny_config()
  config.peers = ("art_tpr",)
  monkeypatch.setitem(
    _peers._MODULES, "art_tpr", ("some-package", "no_such_module")
  )
  made, skipped = _peers.make_rivals(config)
  assert not made and "needs some-package" in skipped["art_tpr"]
  with pytest.raises(ValueError, match="config.peers: got 'nobody'"):
    _peers.missing("nobody")


@pytest.mark.parametrize(
  ("path", "value", "message"),
  [
    ("shadow.rounds", 1, "shadow.rounds: got 1; it must be at least 2"),
    ("shadow.num_models", 0, "shadow.num_models: got 0"),
    ("scoring.num_models", 2, "scoring.num_models: got 2"),
    ("races", (), r"config.races: got \[\]; allowed are"),
    ("peers", ("nobody",), r"config.peers: got \['nobody'\]; allowed are"),
  ],
)
def test_bad_counts_are_named(path, value, message, tmp_path):
  config = tiny_config()
  binaries.set_field(config, path, value)
  with pytest.raises(ValueError, match=message):
    benchmark_attacks.run(config, tmp_path)
