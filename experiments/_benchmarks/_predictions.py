"""Predicts the methods of a setting: build, compile for the GPU, add up."""

import dataclasses
import re
from collections.abc import Sequence
from typing import Any

from experiments._benchmarks import (
  _gpu_compiler,
  _gpu_targets,
  _hlo_kernels,
  _methods,
  _roofline,
)
from trustjax import privacy, training

_NAME = re.compile(r"([a-z_]+?)(?:_chunk([1-9]\d*))?")
_NON_PRIVATE = "non_private"
_CHUNKED = (_NON_PRIVATE, "bookkeeping", "vmap")
ENGINES = (*_CHUNKED, "scan", "auto")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
  """A method that is to be predicted.

  Attributes:
    name: Its name: an engine or "non_private", and "_chunk" with a number.
    engine: "non_private", "bookkeeping", "vmap", "scan" or "auto".
    chunk_size: Records at a time, as asked for; None asks for none.
  """

  name: str
  engine: str
  chunk_size: int | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Predicted:
  """A method with what is predicted of it.

  Attributes:
    plan: The method.
    chunk_size: Records at a time, as the method decided.
    step: As compiled.
    prediction: Its time.
  """

  plan: Plan
  chunk_size: int
  step: _gpu_compiler.CompiledStep
  prediction: _roofline.Prediction


def parse(names: Sequence[str], batch_size: int) -> list[Plan]:
  """Reads names of methods.

  Args:
    names: Such as "non_private", "non_private_chunk64", "bookkeeping_chunk64",
      "vmap_chunk16", "auto".
    batch_size: Records of a batch, which every chunk must divide.

  Returns:
    The methods, in the same order.

  Raises:
    ValueError: There are none or one comes twice, a name is not understood, or
      its chunk does not divide the batch.
  """
  if not names or len(set(names)) < len(names):
    raise ValueError(
      f"methods: got {list(names)}; allowed is one or more, each once"
    )
  return [_parse(name, batch_size) for name in names]


def _parse(name, batch_size):
  match = _NAME.fullmatch(name)
  engine, chunk = match.groups() if match else ("", None)
  if engine not in ENGINES or (chunk and engine not in _CHUNKED):
    raise ValueError(
      f"methods: got {name!r}; allowed are {list(ENGINES)}, and '_chunk' with a"
      f" number behind {list(_CHUNKED)}"
    )
  if chunk and batch_size % int(chunk):
    raise ValueError(
      f"methods: got {name!r}; a chunk must divide the batch of {batch_size}"
    )
  size = int(chunk) if chunk else None
  return Plan(name=name, engine=engine, chunk_size=size)


def predict_with_progress(
  setting: _methods.Setting,
  plans: Sequence[Plan],
  gpu: _gpu_targets.Gpu,
  device: Any,
) -> list[Predicted]:
  """Predicts every method of a setting, with a progress bar.

  Args:
    setting: Model and batch; shapes of parameters suffice.
    plans: The methods.
    gpu: Where they would run.
    device: To compile for, of `_gpu_compiler.make_device`.

  Returns:
    The predictions, in the same order.
  """
  predicted = []
  with training.progress_bar(setting.key, len(plans)) as update:
    for done, plan in enumerate(plans, 1):
      predicted.append(predict(setting, plan, gpu, device))
      update(done, f"compiled {plan.name}")
  print(f"{setting.key}: done", flush=True)
  return predicted


def predict(
  setting: _methods.Setting,
  plan: Plan,
  gpu: _gpu_targets.Gpu,
  device: Any,
) -> Predicted:
  """Compiles one method and predicts its time; arguments as above."""
  with _gpu_compiler.traced_for(gpu):
    chunk_size = _chunk_size(setting, plan)
  method = _make_method(setting, plan)
  step = _gpu_compiler.compile_step(method, setting.params, gpu, device)
  # Empty chunks of a private step are skipped, so the program computes how many
  # chunks there are; a full lot has them all.
  is_private = plan.engine != _NON_PRIVATE
  trips = setting.batch_size // chunk_size if is_private else None
  kernels = _hlo_kernels.kernels(step.text, loop_trips=trips)
  return Predicted(
    plan=plan,
    chunk_size=chunk_size,
    step=step,
    prediction=_roofline.predict(kernels, gpu),
  )


def _chunk_size(setting, plan):
  """Records at a time, as the method will decide."""
  if plan.engine == "scan":
    return 1
  if plan.engine != "auto":
    return plan.chunk_size or setting.batch_size
  example = {name: leaf[0] for name, leaf in setting.examples.items()}
  explained = privacy.explain(setting.loss_fn, setting.params, example)
  return explained.choice(setting.batch_size).chunk_size


def _make_method(setting, plan):
  if plan.engine == _NON_PRIVATE:
    return _methods.non_private(setting, plan.chunk_size)
  return _methods.dp_sgd(setting, plan.engine, plan.chunk_size, plan.name)
