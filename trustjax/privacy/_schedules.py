"""How the noise multiplier changes over a run."""

import dataclasses
import math

import numpy as np

_KINDS = ("constant", "exponential", "linear", "step", "inverse")


@dataclasses.dataclass(frozen=True, kw_only=True)
class NoiseSchedule:
  """Factor on the noise multiplier, constant within a period of steps.

  With e = step // period and E the number of periods in the run,

    constant     1
    exponential  decay^e
    linear       from 1 in the first period to `final` in the last
    step         decay^(e // every)
    inverse      1 / (1 + decay e)

  A schedule is fixed before training; it must not react to the data.

  Attributes:
    kind: One of the above.
    period: Steps that share a factor, usually those of an epoch.
    decay: See the formulas; unused by "constant" and "linear".
    final: Last factor of "linear".
    every: Periods between drops of "step".
  """

  kind: str = "constant"
  period: int = 1
  decay: float = 1.0
  final: float = 1.0
  every: int = 1

  def __post_init__(self):
    if self.kind not in _KINDS:
      raise ValueError(
        f"schedule.kind: got {self.kind!r}; allowed are {list(_KINDS)}"
      )
    for field in ("period", "every"):
      value = getattr(self, field)
      if value < 1 or value != int(value):
        raise ValueError(
          f"schedule.{field}: got {value}; it must be a whole number, at"
          " least 1"
        )
    lowest = 0.0 if self.kind == "inverse" else None
    if not math.isfinite(self.decay) or (
      self.decay < lowest if lowest is not None else self.decay <= 0
    ):
      raise ValueError(
        f"schedule.decay: got {self.decay}; it must be finite and"
        f" {'at least 0' if lowest is not None else 'positive'}"
      )
    if not (math.isfinite(self.final) and self.final > 0):
      raise ValueError(
        f"schedule.final: got {self.final}; it must be finite and positive"
      )

  def factors(self, num_steps: int) -> np.ndarray:
    """The factor of every step of a run.

    Args:
      num_steps: Steps in the run.

    Returns:
      float64 [num_steps].
    """
    epoch = np.arange(num_steps) // self.period
    if self.kind == "constant":
      return np.ones(num_steps)
    if self.kind == "exponential":
      return self.decay ** epoch.astype(np.float64)
    if self.kind == "step":
      return self.decay ** (epoch // self.every).astype(np.float64)
    if self.kind == "inverse":
      return 1.0 / (1.0 + self.decay * epoch)
    last = max(int(epoch[-1]) if num_steps else 0, 1)
    return 1.0 + (self.final - 1.0) * epoch / last
