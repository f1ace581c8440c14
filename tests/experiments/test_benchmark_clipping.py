"""The clipping race: what it builds, writes, skips and refuses."""

import importlib.util
import sys
import types

import jax
import numpy as np
import pytest

from configs.benchmark_clipping import default, deferred, grid
from experiments import benchmark_clipping as binary
from experiments._benchmarks import (
  _clipping_peers,
  _clipping_settings,
  _methods,
  _torch_models,
)
from trustjax import privacy, reporting

DATA = dict(vocab_size=30, num_intents=3, num_slots=4)


def small_config(**changes):
  config = default.get_config()
  config.models.mean_pool.update({"batch_size": 8, "length": 4, "dim": 4})
  config.only = ("mean_pool",)
  config.data.update(DATA)
  config.engines = ("bookkeeping", "auto")
  config.chunk_sizes = (4,)
  config.rounds = config.host_rounds = config.num_lots = 2
  for name, value in changes.items():
    config[name] = value
  return config


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
  """A small race, run once."""
  folder = tmp_path_factory.mktemp("race")
  binary.run(small_config(), folder)
  return folder, reporting.read_results(folder / "results.json")


def test_every_method_is_timed(finished):
  _, results = finished
  for method in ("bookkeeping", "bookkeeping_chunk4", "auto", "jax_privacy"):
    key = f"mean_pool/{method}"
    assert results[f"{key}/seconds_per_step"] > 0
    assert results[f"{key}/ratio_to_non_private"] > 0
    assert results[f"{key}/compile_seconds"] > 0
    assert results[f"{key}/temp_bytes"] >= 0


def test_chosen_methods_meet_drawn_lots(finished):
  _, results = finished
  assert results["mean_pool/auto/ratio_drawn_lots"] > 0
  assert "mean_pool/bookkeeping_chunk4/ratio_drawn_lots" not in results


@pytest.mark.skipif(
  importlib.util.find_spec("torch") is not None, reason="PyTorch is installed"
)
def test_missing_peers_are_skipped_by_name(finished):
  folder, results = finished
  for peer in ("opacus_hooks", "opacus_ghost", "fastdp"):
    key = f"mean_pool/{peer}/seconds_per_step"
    assert results[key] is None
    assert "not installed: torch" in results[f"{key}_reason"]
  assert (
    "opacus_ghost skipped (not installed" in (folder / "table.md").read_text()
  )


def tied_setting(**fields):
  return _clipping_settings.make_setting(
    "tied",
    model="decoder",
    batch_size=2,
    length=3,
    num_layers=1,
    dim=4,
    num_heads=2,
    ff_dim=4,
    tied=True,
    **DATA,
    **fields,
  )


def test_peers_that_are_wrong_on_tied_weights_are_refused(monkeypatch):
  monkeypatch.setattr(_clipping_peers, "missing", lambda name: [])
  methods, skipped = _clipping_peers.make_methods(
    tied_setting(), ("fastdp", "opacus_ghost"), ()
  )
  assert not methods
  assert "silently wrong on tied weights" in skipped["fastdp"]
  assert "refuses tied weights" in skipped["opacus_ghost"]


def test_peers_in_torch_race_with_adam_only(monkeypatch):
  monkeypatch.setattr(_clipping_peers, "missing", lambda name: [])
  _, skipped = _clipping_peers.make_methods(
    tied_setting(optimizer="sgd"), ("opacus_hooks",), ()
  )
  assert skipped == {"opacus_hooks": "raced with Adam only, not with sgd"}


@pytest.mark.slow
def test_deferred_noise_is_raced_where_it_is_exact(tmp_path):
  config = small_config(
    optimizer="sgd",
    deferred_noise=True,
    engines=("auto",),
    peers=(),
    drawn=("auto", "deferred_noise"),
  )
  binary.run(config, tmp_path)
  results = reporting.read_results(tmp_path / "results.json")
  for method in ("auto", "deferred_noise", "non_private_noise"):
    assert results[f"mean_pool/{method}/seconds_per_step"] > 0
  assert results["mean_pool/deferred_noise/ratio_drawn_lots"] > 0
  rows = {x["vocab_size"] for x in deferred.get_config().models.values()}
  assert rows == {10_000, 50_000}


def test_figure_and_table_are_written(finished):
  folder, _ = finished
  png = (folder / "figures/step_time_ratios.png").read_bytes()
  assert png.startswith(b"\x89PNG")
  table = (folder / "table.md").read_text()
  assert "bookkeeping" in table and "faster than loop" not in table


def test_bookkeeping_runs_at_the_chunk_size_of_auto():
  setting = _clipping_settings.make_setting(
    "bilstm",
    model="bilstm",
    batch_size=8,
    length=4,
    dim=4,
    hidden_dim=4,
    **DATA,
  )
  example = {name: leaf[0] for name, leaf in setting.examples.items()}
  explained = privacy.explain(setting.loss_fn, setting.params, example)
  assert _clipping_settings._chosen_chunk(setting) == (
    explained.choice(8).chunk_size
  )


def test_peers_take_the_same_clipped_sum():
  """jax-privacy's step lands where ours lands, noise included."""
  setting = _clipping_settings.make_setting(
    "tiny",
    model="mean_pool",
    batch_size=4,
    length=3,
    dim=4,
    intent_only=True,
    **DATA,
  )
  (peer,), skipped = _clipping_peers.make_methods(setting, ("jax_privacy",), ())
  assert not skipped
  with jax.numpy_rank_promotion("allow"):
    (params, _), _ = peer.step(
      peer.init(setting.params), peer.full_lot, jax.random.key(1)
    )
  plan = _methods.make_plan(setting)
  optimizer = _methods.make_optimizer(setting)
  noise = privacy.add_noise(plan)

  @jax.jit
  def step(params, lot, key):
    fn = plan.clipped_grad(setting.loss_fn, engine="bookkeeping")
    clipped = fn(params, lot, key, ())
    noisy, _ = noise.update(clipped.sum, noise.init(params), params, key=key)
    return optimizer.update(noisy, optimizer.init(params))

  updates, _ = step(setting.params, peer.full_lot, jax.random.key(1))
  want = jax.tree.map(lambda p, u: p + u, setting.params, updates)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
    params,
    want,
  )


@pytest.mark.slow
def test_every_model_of_the_grid_has_an_epsilon_free_setting():
  for label, fields in grid.get_config().models.items():
    small = fields.to_dict() | {"batch_size": 2, "length": 4}
    small.pop("chunk_sizes")
    setting = _clipping_settings.make_setting(label, **(DATA | small))
    assert setting.key == label
    assert setting.num_records == len(setting.examples["mask"])
    assert _torch_models.knows(setting) == (not label.startswith("bilstm"))
    assert _torch_models.is_tied(setting) == (label == "decoder_tied")


def test_fastdp_is_told_what_the_others_clip_by(monkeypatch):
  """A stand-in for the package notes how it is called."""
  pytest.importorskip("torch", reason="extra [peers]")
  calls = []

  class Engine:
    def __init__(self, module, **fields):
      calls.append(fields | {"names": dict(module.named_parameters())})

    def attach(self, optimizer):
      calls.append(optimizer)

  fake = types.SimpleNamespace(PrivacyEngine=Engine)
  monkeypatch.setitem(sys.modules, "fastDP", fake)
  monkeypatch.setattr(_clipping_peers, "missing", lambda name: [])
  setting = _clipping_settings.make_setting(
    "tiny",
    model="transformer",
    batch_size=4,
    length=3,
    num_layers=1,
    dim=4,
    num_heads=4,
    ff_dim=4,
    **DATA,
  )
  (method,), skipped = _clipping_peers.make_methods(setting, ("fastdp",), ())
  assert not skipped and method.on_host
  fields, optimizer = calls
  plan = _methods.make_plan(setting)
  assert fields["batch_size"] == plan.expected_batch_size
  assert fields["sample_size"] == plan.num_records
  assert fields["max_grad_norm"] == plan.rule.clip_norm
  assert fields["noise_multiplier"] == plan.mechanism.noise_multiplier
  assert fields["clipping_fn"] == "Abadi"
  # An embedding that is no origin would not be trained.
  tables = [
    n for n in fields["names"] if n in ("words.weight", "positions.weight")
  ]
  assert len(tables) == 2
  assert all(any(o in n for o in fields["origin_params"]) for n in tables)
  assert hasattr(optimizer, "step")
  method.step(0, None, None)


def test_a_peer_of_another_size_is_refused():
  setting = _clipping_settings.make_setting(
    "tiny", model="mean_pool", batch_size=4, length=3, dim=4, **DATA
  )
  with pytest.raises(ValueError, match="its model of tiny has 7 parameters"):
    _clipping_settings.check_same_size(setting, 7, "opacus_hooks")


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"rounds": 1}, r"config.rounds: got 1; it must be at least 2"),
    ({"only": ("mean", "bilstm")}, r"config.only: got \['mean'\]"),
    ({"peers": ("opacos",)}, r"config.peers: got \['opacos'\]"),
    ({"engines": ("ghost",)}, r"engines: got \['ghost'\]; allowed are"),
    ({"optimizer": "lion"}, r"optimizer: got 'lion'; allowed are \['adam', "),
    ({"deferred_noise": True}, "deferred_noise: got optimizer 'adam'; it is"),
  ],
)
def test_bad_input(changes, message, tmp_path):
  with pytest.raises(ValueError, match=message):
    binary.run(small_config(**changes), tmp_path)
