"""The fairness benchmark at sizes that take no time."""

import numpy as np
import pytest

from configs.benchmark_fairness import default
from experiments import benchmark_fairness
from experiments._fairness import _races
from trustjax import reporting


def small_config(only):
  config = default.get_config()
  config.only = only
  config.rounds = 2
  config.update(
    {
      "ceat": {
        "num_words": 3,
        "num_contexts": 5,
        "dim": 4,
        "num_draws": 20,
        "loop_draws": 5,
      },
      "group_bootstrap": {
        "num_records": 600,
        "num_groups": 2,
        "num_resamples": 20,
        "peer_resamples": 2,
      },
      "prediction_sensitivity": {
        "num_sentences": 6,
        "loop_sentences": 3,
        "num_layers": 1,
        "dim": 32,
      },
    }
  )
  return config


@pytest.mark.parametrize(
  "name",
  [
    "ceat",
    "group_bootstrap",
    pytest.param("prediction_sensitivity", marks=pytest.mark.slow),
  ],
)
def test_both_ways_agree_and_are_timed(name, tmp_path):
  benchmark_fairness.run(small_config(name), tmp_path)
  results = reporting.read_results(tmp_path / "results.json")
  assert results[f"{name}/seconds"] > 0
  np.testing.assert_allclose(
    results[f"{name}/speedup"],
    results[f"{name}/peer_seconds"] / results[f"{name}/seconds"],
    rtol=1e-6,
  )
  assert f"{name}_speedup" in results.claims()
  assert (tmp_path / "figures/speedups.png").exists()


def test_a_race_whose_ways_differ_is_stopped():
  (race,) = _races.make_races(small_config("ceat"))
  race.check()

  def wrong():
    raise AssertionError("differs")

  broken = _races.Race(
    name=race.name,
    ours=race.ours,
    theirs=race.theirs,
    scale=race.scale,
    peer=race.peer,
    at_least=race.at_least,
    check=wrong,
  )
  with pytest.raises(AssertionError, match="differs"):
    benchmark_fairness.time_race(broken, 1)


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"only": "weat"}, "only: got 'weat'"),
    ({"rounds": 0}, "rounds: got 0"),
    ({"ceat": {"dim": 0}}, r"ceat\.dim: got 0"),
  ],
)
def test_bad_configs(changes, message, tmp_path):
  config = small_config("ceat")
  config.update(changes)
  with pytest.raises(ValueError, match=message):
    benchmark_fairness.run(config, tmp_path)
