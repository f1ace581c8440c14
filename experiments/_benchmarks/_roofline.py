"""Times of kernels by a roofline: memory or matrix units, whichever is slower.

A kernel takes launch + max(bytes / bandwidth, operations / rate), and kernels
run one after the other. Nothing overlaps, nothing stays in a cache, and every
product is as good as a large one; the rates of `_gpu_targets` are what large
kernels reach. This is a prediction of the order of magnitude and of ratios, not
a measurement.
"""

import dataclasses
import re
from collections.abc import Sequence

from experiments._benchmarks import _gpu_targets, _hlo_kernels

# In the order in which they are drawn.
KINDS: tuple[str, ...] = (
  "products, forward",
  "products, backward",
  "Gram matrices",
  "clipped sum",
  "elementwise, forward",
  "elementwise, backward",
  "elementwise, rest of loop",
  "outside the loop",
  "launch",
)
# A sum over units (the first letter) in the notation of `jnp.einsum`.
_EINSUM = re.compile(r"\b([a-z])([a-z]*),\1[a-z]*->([a-z]*)\b")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prediction:
  """What a step is predicted to take; nothing in it was measured.

  Attributes:
    seconds: Of a step.
    by_kind: Seconds of each of `KINDS`, adding up to `seconds`.
    kernels: How many run.
    flops: Operations of all matrix products.
    bytes: Read and written by all kernels.
    costliest: Kernels with their seconds over all runs, launches included,
      those that do the same at different places added up; most expensive first.
  """

  seconds: float
  by_kind: dict[str, float]
  kernels: int
  flops: int
  bytes: int
  costliest: list[tuple[_hlo_kernels.Kernel, float]]


def kind(kernel: _hlo_kernels.Kernel) -> str:
  """One of `KINDS` but the last, by JAX's name scopes and the kernel's place.

  Products that neither belong to the loss nor to its derivative are those of
  clipping. Gram matrices keep the axis of records, so they are many small
  products; the clipped sum adds records up.
  """
  label = kernel.label
  direction = None
  if "transpose(" in label:
    direction = "backward"
  elif "jvp(" in label:
    direction = "forward"
  if kernel.flops:
    if direction:
      return f"products, {direction}"
    einsum = _EINSUM.search(label)
    keeps_records = (
      einsum[1] in einsum[3] if einsum is not None else kernel.is_batched
    )
    return "Gram matrices" if keeps_records else "clipped sum"
  if direction:
    return f"elementwise, {direction}"
  return "elementwise, rest of loop" if kernel.in_loop else "outside the loop"


def kernel_seconds(kernel: _hlo_kernels.Kernel, gpu: _gpu_targets.Gpu) -> float:
  """Seconds of one run of a kernel, without its launch.

  Raises:
    ValueError: The GPU has no rate for the type of its operands.
  """
  seconds = kernel.bytes / gpu.bandwidth
  if kernel.flops:
    if kernel.dtype not in gpu.rates:
      raise ValueError(
        f"rates: {gpu.name} has none for products of {kernel.dtype!r}"
        f" ({kernel.name}); it has {sorted(gpu.rates)}"
      )
    seconds = max(seconds, kernel.flops / gpu.rates[kernel.dtype])
  return seconds


def predict(
  kernels: Sequence[_hlo_kernels.Kernel], gpu: _gpu_targets.Gpu
) -> Prediction:
  """Predicts the time of a program.

  Args:
    kernels: Of the program.
    gpu: Where it would run.

  Returns:
    The prediction.

  Raises:
    ValueError: There are no kernels, or one multiplies in a type that the GPU
      has no rate for.
  """
  if not kernels:
    raise ValueError("kernels: got none; a step has at least one")
  by_kind = dict.fromkeys(KINDS, 0.0)
  alike: dict[tuple, tuple[_hlo_kernels.Kernel, float]] = {}
  for kernel in kernels:
    seconds = kernel.count * kernel_seconds(kernel, gpu)
    launches = kernel.count * gpu.launch_seconds
    by_kind[kind(kernel)] += seconds
    by_kind["launch"] += launches
    key = (kernel.what, kernel.shape, kernel.label)
    seen, before = alike.get(key, (None, 0.0))
    if seen is not None:
      count = seen.count + kernel.count
      kernel = dataclasses.replace(seen, count=count)
    alike[key] = kernel, before + seconds + launches
  return Prediction(
    seconds=sum(by_kind.values()),
    by_kind=by_kind,
    kernels=sum(kernel.count for kernel in kernels),
    flops=sum(kernel.count * kernel.flops for kernel in kernels),
    bytes=sum(kernel.count * kernel.bytes for kernel in kernels),
    costliest=sorted(alike.values(), key=lambda pair: -pair[1]),
  )
