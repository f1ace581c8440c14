"""What is known of a GPU that need not be there: for compiler and roofline."""

import dataclasses
from collections.abc import Mapping

# How XLA numbers the types of numbers, as far as they are told apart here.
_S8, _S32, _U8, _U32 = 2, 4, 6, 8
_F16, _F32, _F64, _BF16, _F8E5M2, _F8E4M3FN = 10, 11, 12, 16, 19, 20
_CLOCK_GHZ, _MATRIX_CLOCK_GHZ = 1.98, 1.83
_CORES = 132
_L2_BYTES = 50 * 2**20


@dataclasses.dataclass(frozen=True, kw_only=True)
class Gpu:
  """A GPU of the Hopper generation (SXM module).

  Attributes:
    name: As the driver gives it.
    memory_bytes: Size of its memory.
    peak_bandwidth: Of its memory by the data sheet, bytes per second; for the
      compiler.
    memory_clock_khz: For the compiler.
    bandwidth: What large kernels are assumed to reach, bytes per second.
    rates: Type of the operands to operations per second that large matrix
      products are assumed to reach; a multiply-add is two. "tf32" is float32
      on matrix units, "f32" is float32 in full precision.
    launch_seconds: Between a kernel and the next.
  """

  name: str
  memory_bytes: int
  peak_bandwidth: int
  memory_clock_khz: int
  bandwidth: float
  rates: Mapping[str, float]
  launch_seconds: float = 3e-6


# Assumed: two thirds of the data sheet's 989 (bfloat16), 495 (TF32) and 67
# (float32), and three quarters of its 67 TFLOP/s (float64, on matrix units as
# well). Of the bandwidth, five sixths.
_HOPPER_RATES = {
  "bf16": 650e12,
  "f16": 650e12,
  "tf32": 330e12,
  "f32": 45e12,
  "f64": 50e12,
}

GPUS = {
  "h100": Gpu(
    name="NVIDIA H100 80GB HBM3",
    memory_bytes=84_942_979_072,
    peak_bandwidth=3_352_320_000_000,
    memory_clock_khz=2_619_000,
    bandwidth=2.8e12,
    rates=_HOPPER_RATES,
  ),
  "h200": Gpu(
    name="NVIDIA H200 141GB HBM3e",
    memory_bytes=151_397_597_184,
    peak_bandwidth=4_800_000_000_000,
    memory_clock_khz=3_750_000,
    bandwidth=4.0e12,
    rates=_HOPPER_RATES,
  ),
}


def find(name: str) -> Gpu:
  """The GPU of that name.

  Raises:
    ValueError: There is none.
  """
  if name not in GPUS:
    raise ValueError(f"gpu: got {name!r}; allowed are {sorted(GPUS)}")
  return GPUS[name]


def target_config(gpu: Gpu) -> str:
  """Describes a GPU to XLA's compiler, as a text of its `GpuTargetConfig`.

  Args:
    gpu: The GPU.

  Returns:
    The text, with limits of a streaming multiprocessor of compute capability
    9.0, sizes and clocks, and operations per clock by type.
  """
  limits = _fields(
    threads_per_block_limit=1024,
    threads_per_warp=32,
    threads_per_core_limit=2048,
    thread_dim_limit_x=1024,
    thread_dim_limit_y=1024,
    thread_dim_limit_z=64,
    block_dim_limit_x=2**31 - 1,
    block_dim_limit_y=2**16 - 1,
    block_dim_limit_z=2**16 - 1,
    shared_memory_per_block=48 * 2**10,
    shared_memory_per_block_optin=227 * 2**10,
    shared_memory_per_core=228 * 2**10,
    registers_per_core_limit=2**16,
    registers_per_block_limit=2**16,
    core_count=_CORES,
    fpus_per_core=128,
    clock_rate_ghz=_CLOCK_GHZ,
    memory_bandwidth=gpu.peak_bandwidth,
    l2_cache_size=_L2_BYTES,
    device_memory_size=gpu.memory_bytes,
    device_address_bits=64,
    pcie_bandwidth=32 * 2**30,
    ecc_enabled=True,
  )
  model = (
    f"sm_9.0a with {gpu.memory_bytes}B RAM, {_CORES} cores,"
    f" {_CLOCK_GHZ * 1e6:.0f}KHz clock, {gpu.memory_clock_khz}KHz mem clock,"
    f" {_L2_BYTES}B L2$"
  )
  names = _fields(
    name=gpu.name,
    device_vendor="NVIDIA Corporation",
    platform_version="Compute Capability 9.0a",
    model_str=model,
    driver_version="13.0.0",
    runtime_version="12.8.0",
    compile_time_toolkit_version="12.8.0",
    dnn_version="9.10.0",
  )
  return f"""gpu_device_info {{
  cuda_compute_capability {{ major: 9 feature_extension: ACCELERATED_FEATURES }}
  {limits}
  {names}
  scalar_unit_description {{ {_scalar_rates()} }}
  matrix_unit_description {{ {_matrix_rates()} }}
}}
platform_name: "CUDA"
dnn_version_info {{ major: 9 minor: 10 patch: 0 }}
device_description_str: "{gpu.name}"
"""


def _fields(**values: float | str) -> str:
  """Fields as the text format of protocol buffers wants them."""
  texts = {
    name: f'"{value}"' if isinstance(value, str) else str(value).lower()
    for name, value in values.items()
  }
  return " ".join(f"{name}: {text}" for name, text in texts.items())


def _scalar_rates() -> str:
  """Units of a core, and operations of each per clock."""
  kinds = {_S32: (64, 1), _U32: (64, 1), _F64: (64, 1), _F32: (128, 1)}
  kinds |= {_F16: (128, 2), _BF16: (128, 2)}
  return " ".join(
    _rate(kind, _CLOCK_GHZ, units, operations)
    for kind, (units, operations) in kinds.items()
  )


def _matrix_rates() -> str:
  """The same of the four matrix units of a core."""
  operations = dict.fromkeys((_S8, _U8, _F8E5M2, _F8E4M3FN), 1024)
  operations |= {_F16: 512, _BF16: 512, _F32: 256, _F64: 32}
  return " ".join(
    _rate(kind, _CLOCK_GHZ if kind == _F64 else _MATRIX_CLOCK_GHZ, 4, each)
    for kind, each in operations.items()
  )


def _rate(kind, clock_ghz, units, operations):
  value = _fields(
    clock_rate_ghz=clock_ghz, units_per_core=units, ops_per_clock=operations
  )
  return f"rate_infos {{ key: {kind} value {{ {value} }} }}"
