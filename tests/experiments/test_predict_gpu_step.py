"""Predicted steps on a GPU: what is built, written and refused."""

import jax
import numpy as np
import pytest

from configs.predict_gpu_step import default, gpu
from experiments import predict_gpu_step as binary
from experiments._benchmarks import (
  _clipping_settings,
  _gpu_compiler,
  _gpu_targets,
  _predictions,
  _roofline,
)
from trustjax import privacy, reporting

_H200 = _gpu_targets.GPUS["h200"]
_DATA = dict(vocab_size=30, num_intents=3, num_slots=4)


def small_config(**changes):
  config = default.get_config()
  config.models.encoder.update(
    {"model": "mean_pool", "batch_size": 8, "length": 4, "dim": 4}
  )
  del config.models.encoder["size"]
  config.data.update(_DATA)
  config.methods = ("non_private", "vmap_chunk4")
  config.optimizer = "sgd"  # Compiles faster.
  for name, value in changes.items():
    config[name] = value
  return config


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
  """A run that is compiled for the CPU at hand instead of a GPU."""
  folder = tmp_path_factory.mktemp("predicted")
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(_gpu_compiler, "make_device", lambda gpu: jax.devices()[0])
    patch.setattr(_gpu_compiler, "_COMPILER_OPTIONS", {})
    binary.run(small_config(), folder)
  return folder, reporting.read_results(folder / "results.json")


def test_every_method_is_predicted(finished):
  _, results = finished
  seconds = {}
  for method in small_config().methods:
    key = f"encoder/{method}"
    seconds[method] = results[f"{key}/predicted_seconds_per_step"]
    parts = [
      results[name]
      for name in results
      if name.startswith(f"{key}/predicted_seconds/")
    ]
    assert len(parts) == len(_roofline.KINDS)
    assert sum(parts) == pytest.approx(seconds[method])
    for measure in ("temp_bytes", "compile_seconds", "kernels", "tflop"):
      assert results[f"{key}/{measure}"] > 0
  best = results["encoder/best_non_private"]
  for method, time in seconds.items():
    ratio = results[f"encoder/{method}/predicted_ratio_to_non_private"]
    assert ratio == pytest.approx(time / seconds[best])
  assert results["encoder/non_private/chunk_size"] == 8
  assert results["encoder/vmap_chunk4/chunk_size"] == 4
  # The loop turns twice, over half of the records.
  assert results["encoder/vmap_chunk4/tflop"] == pytest.approx(
    results["encoder/non_private/tflop"], rel=0.1
  )


def test_everything_that_is_written_says_predicted(finished):
  folder, results = finished
  table = (folder / "table.md").read_text()
  assert "PREDICTED training steps, NVIDIA H200 141GB HBM3e, by" in table
  assert "nothing was measured" in table
  kernels = (folder / "kernels.md").read_text()
  for method in small_config().methods:
    assert method in table
    assert f"encoder, {method}: PREDICTED" in kernels
  png = (folder / "figures/predicted_step_times.png").read_bytes()
  assert png.startswith(b"\x89PNG")
  assert results["gpu"] == _H200.name
  assert results["assumed_rate/bf16"] == _H200.rates["bf16"]


def test_ratios_need_a_non_private_step_that_fits(monkeypatch, tmp_path):
  def predict(setting, plans, gpu, device):
    step = _gpu_compiler.CompiledStep(
      text="", temp_bytes=2 * gpu.memory_bytes, compile_seconds=1.0
    )
    time = _roofline.Prediction(
      seconds=1.0,
      by_kind=dict.fromkeys(_roofline.KINDS, 1 / 9),
      kernels=1,
      flops=1,
      bytes=1,
      costliest=[],
    )
    return [
      _predictions.Predicted(plan=x, chunk_size=8, step=step, prediction=time)
      for x in plans
    ]

  monkeypatch.setattr(_gpu_compiler, "make_device", lambda gpu: None)
  monkeypatch.setattr(_predictions, "predict_with_progress", predict)
  binary.run(small_config(methods=("non_private", "auto")), tmp_path)
  results = reporting.read_results(tmp_path / "results.json")
  key = "encoder/auto/predicted_ratio_to_non_private"
  assert results[key] is None
  assert "no non-private step that fits" in results[f"{key}_reason"]


def test_engines_are_told_of_the_gpu_while_they_are_traced():
  before = jax.default_backend(), jax.local_devices()
  with _gpu_compiler.traced_for(_H200):
    assert jax.default_backend() == "gpu"
    stats = jax.local_devices()[0].memory_stats()
    assert stats["bytes_limit"] == int(0.75 * _H200.memory_bytes)
  assert before == (jax.default_backend(), jax.local_devices())


def test_auto_is_predicted_at_the_chunk_size_that_it_would_choose_there():
  setting = _clipping_settings.make_setting(
    "encoder",
    model="transformer",
    num_layers=1,
    dim=8,
    num_heads=2,
    ff_dim=8,
    batch_size=1024,
    length=64,
    only_shapes=True,
    **_DATA,
  )
  assert all(
    isinstance(leaf, jax.ShapeDtypeStruct)
    for leaf in jax.tree.leaves(setting.params)
  )
  (plan,) = _predictions.parse(["auto"], 1024)
  example = {name: leaf[0] for name, leaf in setting.examples.items()}

  def chosen():
    explained = privacy.explain(setting.loss_fn, setting.params, example)
    return explained.choice(1024).chunk_size

  here = chosen()
  with _gpu_compiler.traced_for(_H200):
    there = chosen()
    assert _predictions._chunk_size(setting, plan) == there
  assert here < there  # A CPU leaves its cache long before a GPU is busy.


def test_names_of_methods():
  names = ["non_private", "bookkeeping_chunk4", "scan"]
  plans = _predictions.parse(names, 8)
  assert [(x.engine, x.chunk_size) for x in plans] == [
    ("non_private", None),
    ("bookkeeping", 4),
    ("scan", None),
  ]


def test_models_of_the_gpu_config_are_those_of_the_race():
  config = gpu.get_config()
  binary.check(config)
  bert = config.models.bert_base_b256.to_dict()
  assert (bert["size"], bert["batch_size"], bert["length"]) == (
    "base",
    256,
    128,
  )
  precise = config.models.bert_base_b256_float32.to_dict()
  assert bert["compute_dtype"] == "bfloat16"
  assert precise == bert | {
    "compute_dtype": "float32",
    "methods": precise["methods"],
  }
  binary.check(default.get_config())


@pytest.mark.skipif(
  _gpu_compiler.is_installed(), reason="the CUDA plugin is installed"
)
def test_a_missing_plugin_is_named(tmp_path):
  with pytest.raises(
    ValueError, match='install "trustjax\\[cuda\\]" \\(no GPU'
  ):
    binary.run(small_config(), tmp_path)


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"gpu": "a100"}, r"gpu: got 'a100'; allowed are \['h100', 'h200'\]"),
    ({"only": ("decoder",)}, r"config.only: got \['decoder'\]; the models of"),
    ({"methods": ()}, r"methods: got \[\]; allowed is one or more, each once"),
    ({"methods": ("auto", "auto")}, r"methods: got \['auto', 'auto'\]"),
    ({"methods": ("ghost",)}, "methods: got 'ghost'; allowed are"),
    ({"methods": ("auto_chunk4",)}, "methods: got 'auto_chunk4'; allowed are"),
    ({"methods": ("vmap_chunk0",)}, "methods: got 'vmap_chunk0'; allowed are"),
    ({"methods": ("vmap_chunk3",)}, "a chunk must divide the batch of 8"),
    ({"models": {}}, "config.models: got none; at least one is needed"),
    (
      {"models": {"encoder": {"model": "mean_pool"}}},
      r"config.models.encoder: got .*; \['batch_size'\] are missing",
    ),
  ],
)
def test_bad_input(changes, message, tmp_path):
  config = small_config()
  with config.ignore_type():
    config.update({k: v for k, v in changes.items() if k != "models"})
    if "models" in changes:
      config.models = type(config)(changes["models"])
  with pytest.raises(ValueError, match=message):
    binary.run(config, tmp_path)


@pytest.mark.slow
@pytest.mark.skipif(
  not _gpu_compiler.is_installed(), reason="the CUDA plugin: extra [cuda]"
)
def test_a_small_model_is_compiled_for_the_gpu(tmp_path):
  config = small_config(methods=("non_private", "auto", "bookkeeping_chunk4"))
  config.models.encoder.update(
    {"model": "transformer", "size": "tiny", "length": 16}
  )
  del config.models.encoder["dim"]
  binary.run(config, tmp_path)
  results = reporting.read_results(tmp_path / "results.json")
  for method in config.methods:
    key = f"encoder/{method}/predicted_seconds"
    assert results[f"{key}/products_forward"] > 0
    assert results[f"{key}/products_backward"] > 0
    is_private = method != "non_private"
    for kind in ("clipped_sum", "elementwise_rest_of_loop"):
      assert (results[f"{key}/{kind}"] > 0) == is_private
  # Forward, activations' and weights' gradients: each once, clipped or not.
  tflop = {m: results[f"encoder/{m}/tflop"] for m in config.methods}
  assert tflop["auto"] > tflop["non_private"]
  assert tflop["auto"] == pytest.approx(tflop["bookkeeping_chunk4"], rel=0.05)
  kernels = (tmp_path / "kernels.md").read_text()
  assert "product bf16->" in kernels
  assert np.isfinite(results["encoder/auto/predicted_ratio_to_non_private"])
