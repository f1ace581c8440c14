"""The step benchmark: what it times, writes and refuses."""

import json

import jax
import numpy as np
import pytest

from configs.benchmark_training_step import default, table_a
from experiments import benchmark_training_step as binary
from experiments._benchmarks import _clock, _methods
from trustjax import reporting

SIZES = dict(vocab_size=40, length=4, num_intents=3, num_slots=4)


def small_config(**changes):
  config = default.get_config()
  config.settings = ({"model": "mean_pool", "batch_size": 8, "dim": 4},)
  config.update(
    {
      "data": SIZES,
      "engines": ("loop", "vmap"),
      "chunk_sizes": (4,),
      "group_sizes": (4,),
      "rounds": 3,
      "num_lots": 3,
    }
  )
  for name, value in changes.items():
    config[name] = value
  return config


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
  """A small race, run once: its folder and its record."""
  folder = tmp_path_factory.mktemp("race")
  binary.run(small_config(), folder)
  return folder, reporting.read_results(folder / "results.json")


def test_every_method_is_timed(finished):
  _, results = finished
  for method in (
    "non_private",
    "non_private_chunk4",
    "non_private_noise",
    "dp_sgd_loop",
    "dp_sgd_vmap",
    "dp_sgd_vmap_chunk4",
    "edp_sgd_m4",
  ):
    key = f"mean_pool_B8/{method}"
    assert results[f"{key}/seconds_per_step"] > 0
    assert results[f"{key}/ratio_to_non_private"] > 0
    compiled = results[f"{key}/compile_seconds"]
    if method == "dp_sgd_loop":
      assert compiled is None
      assert results[f"{key}/seconds_per_step_n"] == 2
    else:
      assert compiled > 0 and results[f"{key}/temp_bytes"] >= 0
      assert results[f"{key}/seconds_per_step_n"] == 3


def test_the_reference_is_the_fastest_non_private_step(finished):
  _, results = finished
  best = results["mean_pool_B8/best_non_private"]
  assert results[f"mean_pool_B8/{best}/ratio_to_non_private"] == 1.0
  others = [
    results[f"mean_pool_B8/{name}/seconds_per_step"]
    for name in ("non_private", "non_private_chunk4")
  ]
  assert results[f"mean_pool_B8/{best}/seconds_per_step"] == min(others)


def test_the_factor_over_the_loop_is_recorded(finished):
  _, results = finished
  loop = results["mean_pool_B8/dp_sgd_loop/seconds_per_step"]
  for method in ("dp_sgd_vmap", "edp_sgd_m4", "dp_sgd_loop"):
    key = f"mean_pool_B8/{method}"
    np.testing.assert_allclose(
      results[f"{key}/speedup_over_loop"],
      loop / results[f"{key}/seconds_per_step"],
    )
  assert "mean_pool_B8/dp_sgd_vmap/speedup_over_loop_eager" not in results


def test_only_chosen_methods_draw_lots():
  setting = _methods.make_setting("mean_pool", 8, dim=4, **SIZES)
  methods = _methods.make_methods(
    setting,
    engines=("vmap", "scan"),
    chunk_sizes=(4,),
    group_sizes=(4,),
    drawn=("dp_sgd_vmap_chunk", "edp_sgd"),
  )
  drawing = [method.name for method in methods if method.draw is not None]
  assert drawing == ["dp_sgd_vmap_chunk4", "edp_sgd_m4"]


def test_drawn_lots_are_timed_with_their_padding(finished):
  _, results = finished
  for method in ("dp_sgd_vmap", "edp_sgd_m4"):
    assert results[f"mean_pool_B8/{method}/ratio_drawn_lots"] > 0
    assert 0 < results[f"mean_pool_B8/{method}/padding_share"] < 1
  assert "mean_pool_B8/non_private/ratio_drawn_lots" not in results
  assert "mean_pool_B8/dp_sgd_loop/ratio_drawn_lots" not in results


def test_no_epsilon_is_claimed(finished):
  folder, results = finished
  assert not [key for key in results if "epsilon" in key]
  assert "epsilon" not in (folder / "table.md").read_text()


def test_the_files_are_there(finished):
  folder, _ = finished
  figure = (folder / "figures/step_time_ratios.png").read_bytes()
  assert figure.startswith(b"\x89PNG")
  assert "edp_sgd_m4" in (folder / "table.md").read_text()
  assert json.loads((folder / "config.json").read_text())["rounds"] == 3


@pytest.mark.slow
def test_padding_is_counted_over_all_lots():
  setting = _methods.make_setting("mean_pool", 8, dim=4, **SIZES)
  methods = _methods.make_methods(
    setting, engines=("vmap",), chunk_sizes=(), group_sizes=()
  )
  timings = _clock.race(
    setting,
    methods,
    rounds=2,
    host_rounds=2,
    num_lots=4,
    progress=lambda note: None,
  )
  (drawing,) = (m for m in methods if m.draw is not None)
  lots = [drawing.draw(i) for i in range(4)]
  records = sum(int(lot.valid.sum()) for lot in lots)
  slots = sum(lot.valid.size for lot in lots)
  assert timings["dp_sgd_vmap"].padding_share == 1 - records / slots
  assert len(timings["dp_sgd_vmap"].drawn_ratios) == 4


def test_full_lots_have_no_padding_and_clip_groups_their_shape():
  setting = _methods.make_setting("mean_pool", 8, dim=4, **SIZES)
  methods = _methods.make_methods(
    setting, engines=("vmap",), chunk_sizes=(), group_sizes=(4,)
  )
  for method in methods:
    assert method.full_lot.valid.all()
  assert methods[-1].full_lot.valid.shape == (2, 4)


def test_noise_without_clipping_is_noise():
  """The step `non_private_noise` moves parameters that have no gradient."""
  setting = _methods.make_setting("mean_pool", 8, dim=4, **SIZES)
  plain, noisy = (
    method
    for method in _methods.make_methods(
      setting, engines=(), chunk_sizes=(), group_sizes=()
    )
  )
  unseen = np.setdiff1d(
    np.arange(40), plain.full_lot.examples["tokens"].ravel()
  )
  assert unseen.size
  moved = []
  for method in (plain, noisy):
    state, _ = method.step(
      method.init(setting.params), method.full_lot, jax.random.key(0)
    )
    before = setting.params["words"]["embedding"][unseen]
    moved.append(
      np.asarray(state.params["words"]["embedding"][unseen] - before)
    )
  assert not moved[0].any() and moved[1].all()


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    (dict(rounds=1), "config.rounds: got 1; it must be at least 2"),
    (dict(settings=()), "config.settings: got none"),
    (dict(engines=("turbo",)), r"engines: got \['turbo'\]; allowed are"),
    (
      dict(settings=({"model": "mean_pool"},)),
      r"config.settings\[0\]: got .*; \['batch_size'\] are missing",
    ),
    (dict(only="bilstm"), "config.only: got 'bilstm'; the models of .* are"),
    (dict(drawn=("sgd",)), "drawn: got 'sgd', which begins no name; private"),
    (dict(group_sizes=(3,)), "group_sizes: got 3; each must be at least 2 and"),
    (
      dict(settings=({"model": "rnn", "batch_size": 8},)),
      "model.name: got 'rnn'; allowed are",
    ),
    (
      dict(settings=({"model": "mean_pool", "batch_size": 0},)),
      "batch_sizes: got 0",
    ),
  ],
)
def test_bad_configs_are_refused_before_anything_runs(
  changes, message, tmp_path
):
  with pytest.raises(ValueError, match=message):
    binary.run(small_config(**changes), tmp_path)
  assert not list(tmp_path.iterdir())


def test_one_model_of_a_config_can_be_raced_alone():
  config = default.get_config()
  config.only = "bilstm"
  (setting,) = binary.make_settings(config)
  assert setting.key == "bilstm_B32"


@pytest.mark.slow
def test_table_a_builds():
  settings = binary.make_settings(table_a.get_config())
  assert [s.key for s in settings] == [
    "transformer_mini_B64",
    "bilstm_B256",
    "mean_pool_B256",
  ]
