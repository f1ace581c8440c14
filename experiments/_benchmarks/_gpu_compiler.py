"""Compiles training steps for a GPU that is not there.

The CUDA plugin of JAX brings XLA's compiler for GPUs along, which needs a
description of the GPU and neither a driver nor the GPU itself.
"""

import contextlib
import dataclasses
import importlib.util
import os
import time
from collections.abc import Iterator
from typing import Any
from unittest import mock

import jax
from jax.experimental import topologies

from experiments._benchmarks import _gpu_targets, _methods

PLUGINS = ("jax_plugins.xla_cuda12", "jax_plugins.xla_cuda13")
# What JAX lets a process have of a GPU's memory, unless told otherwise.
_POOL_SHARE = 0.75
# Candidates cannot be timed, and Triton's products are chosen by timing.
_COMPILER_OPTIONS = {
  "xla_gpu_enable_triton_gemm": False,
  "xla_gpu_autotune_level": 0,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class CompiledStep:
  """A step as the compiler leaves it.

  Attributes:
    text: The optimised program.
    temp_bytes: Temporary memory, by the compiler's own plan.
    compile_seconds: Tracing and compiling, on the machine at hand.
  """

  text: str
  temp_bytes: int
  compile_seconds: float


def is_installed() -> bool:
  """Whether JAX's CUDA plugin is there."""
  if importlib.util.find_spec("jax_plugins") is None:
    return False
  return any(importlib.util.find_spec(name) for name in PLUGINS)


def make_device(gpu: _gpu_targets.Gpu) -> Any:
  """A device that can be compiled for, and not run on.

  JAX itself is kept on the CPU, and the plugin from asking for a driver; both
  are decided when JAX starts its backends, so call this before anything runs.

  Args:
    gpu: The GPU to compile for.

  Returns:
    A device of JAX, for shardings.

  Raises:
    ValueError: The plugin is not installed.
  """
  if not is_installed():
    raise ValueError(
      "the CUDA plugin of JAX, whose compiler this needs, is not installed: pip"
      ' install "trustjax[cuda]" (no GPU is needed)'
    )
  os.environ.setdefault("JAX_SKIP_CUDA_CONSTRAINTS_CHECK", "1")
  jax.config.update("jax_platforms", "cpu")
  jax.devices()
  topology = topologies.get_topology_desc(
    gpu.name,
    platform="cuda",
    target_config=_gpu_targets.target_config(gpu),
    topology="1x1x1",
  )
  return topology.devices[0]


@contextlib.contextmanager
def traced_for(gpu: _gpu_targets.Gpu) -> Iterator[None]:
  """Within it, code that asks JAX where it runs is told: on this GPU.

  The engines of `privacy` choose routes and chunk sizes by the backend that
  JAX runs on and by its memory. They ask when a step is traced, and here a step
  is traced on a CPU and compiled for a GPU, so these two questions are answered
  for the GPU. JAX itself does not ask through these names.

  Args:
    gpu: The GPU to tell of.

  Yields:
    Nothing.
  """
  limit = int(_POOL_SHARE * gpu.memory_bytes)
  device = mock.Mock(spec=["memory_stats"])
  device.memory_stats.return_value = {"bytes_limit": limit}
  with (
    mock.patch.object(jax, "default_backend", lambda: "gpu"),
    mock.patch.object(jax, "local_devices", lambda: [device]),
  ):
    yield


def compile_step(
  method: _methods.Method, params: Any, gpu: _gpu_targets.Gpu, device: Any
) -> CompiledStep:
  """Compiles a method's step on a full lot.

  Args:
    method: The method; its step must be compiled whole.
    params: Parameters, or their shapes.
    gpu: The GPU.
    device: Of `make_device`.

  Returns:
    The compiled step.
  """
  place = jax.sharding.SingleDeviceSharding(device)

  def placed(tree):
    return jax.tree.map(
      lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), tree
    )

  state = jax.eval_shape(method.init, params)
  key = jax.eval_shape(lambda: jax.random.key(0))
  began = time.perf_counter()
  with traced_for(gpu):
    lowered = method.step.lower(*map(placed, (state, method.full_lot, key)))
  compiled = lowered.compile(compiler_options=_COMPILER_OPTIONS)
  seconds = time.perf_counter() - began
  return CompiledStep(
    text=compiled.as_text(),
    temp_bytes=int(compiled.memory_analysis().temp_size_in_bytes),
    compile_seconds=seconds,
  )
