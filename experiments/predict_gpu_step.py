r"""Predicts training steps on a GPU that is not there. PREDICTS: no timing.

  pip install "trustjax[cuda]"
  python -m experiments.predict_gpu_step
  python -m experiments.predict_gpu_step \
      --config=configs/predict_gpu_step/gpu.py --workdir=OUT

Each step is compiled for the GPU by XLA's own compiler, which JAX's CUDA plugin
brings along and which needs neither a GPU nor a driver. Every kernel of the
program is then given the longer of two times, for the bytes that it moves and
for the products that it multiplies, and all are added up. Clipping engines can
so be compared before a GPU is at hand, and `kernels.md` tells where the time
goes; whoever has a GPU measures, with `experiments.benchmark_clipping`.

The program keeps JAX itself on the CPU and sets the environment variable
JAX_SKIP_CUDA_CONSTRAINTS_CHECK, so that the plugin does not ask for a driver.
"""

import pathlib

from experiments._benchmarks import (
  _clipping_settings,
  _gpu_compiler,
  _gpu_targets,
  _prediction_record,
  _predictions,
)
from experiments._binary import _config_flags, _console


def check(config: _config_flags.Config) -> None:
  """Raises ValueError if the config asks for what cannot be predicted."""
  _gpu_targets.find(config.gpu)
  if not config.models:
    raise ValueError("config.models: got none; at least one is needed")
  for label, fields in _clipping_settings.chosen_models(config).items():
    missing = [name for name in ("model", "batch_size") if name not in fields]
    if missing:
      raise ValueError(
        f"config.models.{label}: got {fields}; {missing} are missing"
      )
    methods = fields.get("methods", config.methods)
    _predictions.parse(methods, fields["batch_size"])


def run(config: _config_flags.Config, workdir: pathlib.Path) -> None:
  """Predicts every model, writes and prints the record."""
  check(config)
  gpu = _gpu_targets.find(config.gpu)
  device = _gpu_compiler.make_device(gpu)
  models = _clipping_settings.chosen_models(config)
  results = _prediction_record.new_results(config, gpu, models)
  pages = []
  for label, fields in models.items():
    methods = fields.pop("methods", config.methods)
    setting = _clipping_settings.make_setting(
      label,
      optimizer=config.optimizer,
      only_shapes=True,
      **(config.data.to_dict() | fields),
    )
    predicted = _predictions.predict_with_progress(
      setting, _predictions.parse(methods, setting.batch_size), gpu, device
    )
    _prediction_record.record(results, setting, predicted, gpu)
    pages.append(_prediction_record.kernels_page(label, predicted))
  _prediction_record.write(workdir, config, results, pages)


if __name__ == "__main__":
  _console.run_binary(
    run,
    default_config="predict_gpu_step/default.py",
    keep_compiled=False,
  )
