"""Selection scores: how much a device's activity speaks for it."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Num

STRATEGIES = (
  "uniform",
  "proportional",
  "tempered",
  "softmax",
  "top",
  "threshold",
  "mixture",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Strategy:
  """How activity a_k turns into a score f_k >= 0.

    uniform       f = 1
    proportional  f = a
    tempered      f = a^gamma; gamma 0 is uniform, gamma to infinity is top
    softmax       f = exp(a / temperature); on heavy tails nearly top
    top           the most active devices, ties broken at random
    threshold     f = 1 where a >= min_activity
    mixture       f = epsilon / |A| + (1 - epsilon) a / sum(a)

  Devices without activity, or not available, have score 0 throughout.

  Attributes:
    kind: One of the names above.
    gamma: Exponent of "tempered".
    temperature: Of "softmax", in examples.
    min_activity: Of "threshold", in examples.
    epsilon: Share of uniform selection in "mixture".

  Raises:
    ValueError: A field is out of range.
  """

  kind: str = "uniform"
  gamma: float = 0.5
  temperature: float = 10.0
  min_activity: float = 1.0
  epsilon: float = 0.5

  def __post_init__(self):
    if self.kind not in STRATEGIES:
      raise ValueError(
        f"strategy: got {self.kind!r}; allowed are {list(STRATEGIES)}"
      )
    for field in ("gamma", "min_activity"):
      if not 0 <= getattr(self, field) < math.inf:
        raise ValueError(
          f"{field}: got {getattr(self, field)}; it must be finite and at"
          " least 0"
        )
    if not 0 < self.temperature < math.inf:
      raise ValueError(
        f"temperature: got {self.temperature}; it must be finite and positive"
      )
    if not 0 <= self.epsilon <= 1:
      raise ValueError(f"epsilon: got {self.epsilon}; it must lie in [0, 1]")


def as_strategy(strategy: str | Strategy) -> Strategy:
  """A strategy by name, with its default parameters, or as it is."""
  if isinstance(strategy, Strategy):
    return strategy
  return Strategy(kind=strategy)


def log_scores(
  activity: Num[Array | np.ndarray, " clients"],
  strategy: str | Strategy,
  available: Bool[Array | np.ndarray, " clients"] | None = None,
) -> Float[Array, " clients"]:
  """Log f_k of every device, -inf where it cannot be selected.

  Args:
    activity: Examples of each device, at least 0.
    strategy: Name, or a record with parameters. "top" scores by activity.
    available: Which devices can be reached; None means all.

  Returns:
    float32 [clients], unnormalised ("mixture": normalised).
  """
  return _log_scores(activity, available, as_strategy(strategy))


@functools.partial(jax.jit, static_argnames="strategy")
def _log_scores(activity, available, strategy):
  activity = jnp.asarray(activity, jnp.float32)
  active = activity > 0
  if available is not None:
    active = active & available
  logs = jnp.log(jnp.where(active, activity, 1.0))
  if strategy.kind == "uniform":
    scores = jnp.zeros_like(logs)
  elif strategy.kind in ("proportional", "top"):
    scores = logs
  elif strategy.kind == "tempered":
    scores = strategy.gamma * logs
  elif strategy.kind == "softmax":
    scores = activity / strategy.temperature
  elif strategy.kind == "threshold":
    scores = jnp.where(activity >= strategy.min_activity, 0.0, -jnp.inf)
  else:
    count = jnp.maximum(jnp.sum(active), 1).astype(jnp.float32)
    total = jnp.maximum(jnp.sum(jnp.where(active, activity, 0.0)), 1e-30)
    # Probabilities are mixed, so both parts are normalised first.
    scores = jnp.logaddexp(
      jnp.log(jnp.float32(strategy.epsilon)) - jnp.log(count),
      jnp.log1p(jnp.float32(-strategy.epsilon)) + logs - jnp.log(total),
    )
  return jnp.where(active, scores, -jnp.inf)
