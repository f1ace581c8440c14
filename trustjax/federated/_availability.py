"""Who can be reached, and who is too late."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

from trustjax.federated import _cohort, _draws

_DROPOUT, _SPEED = 0xD209, 0x59EED


def draw_available(
  key: Key[Array, ""], round: int, num_clients: int, *, dropout: float
) -> np.ndarray:
  """Which devices can be reached in a round: independent coin flips.

  Args:
    key: Root key of the run.
    round: Round, from 0.
    num_clients: Registered devices.
    dropout: Probability that a device cannot be reached, in [0, 1).

  Returns:
    bool [clients]; device k's flip depends on (key, round, k) alone.

  Raises:
    ValueError: The probability is out of range.
  """
  if not 0 <= dropout < 1:
    raise ValueError(f"dropout: got {dropout}; it must lie in [0, 1)")
  key = jax.random.fold_in(jax.random.fold_in(key, _DROPOUT), round)
  bits = np.asarray(_draws.id_bits(key, num_clients), np.float64)
  return bits >= dropout * 2.0**32


def device_speeds(
  key: Key[Array, ""], num_clients: int, *, spread: float
) -> np.ndarray:
  """Local steps per second of each device: log-normal with median 1.

  Args:
    key: Root key of the run.
    num_clients: Registered devices.
    spread: Standard deviation of the logarithm, at least 0.

  Returns:
    float64 [clients], the same in every round.

  Raises:
    ValueError: The spread is negative.
  """
  if not spread >= 0:
    raise ValueError(f"spread: got {spread}; it must be at least 0")
  normals = jax.random.normal(
    jax.random.fold_in(key, _SPEED), (num_clients,), jnp.float32
  )
  return np.exp(spread * np.asarray(normals, np.float64))


def drop_stragglers(
  cohort: _cohort.Cohort, speeds: np.ndarray, *, deadline: float
) -> _cohort.Cohort:
  """Leaves out the clients whose local steps do not fit the deadline.

  Weights that sum to one ("fedavg", "hajek") are scaled to do so again; the
  others keep their constant divisor, and the update is shorter.

  Args:
    cohort: With data: a client's time is its local steps over its speed.
    speeds: Local steps per second, [clients].
    deadline: Seconds.

  Returns:
    The cohort; late clients keep their slot, which is no longer valid.

  Raises:
    ValueError: The cohort has no data, or the deadline is not positive.
  """
  if cohort.data is None:
    raise ValueError("cohort.data: got None; a client's time is its steps'")
  if not deadline > 0:
    raise ValueError(f"deadline: got {deadline}; it must be positive")
  ids, valid = np.asarray(cohort.ids), np.asarray(cohort.valid)
  steps = np.asarray(cohort.data.valid).any(axis=-1).sum(axis=-1)
  in_time = steps / np.asarray(speeds)[ids] <= deadline
  kept = valid & in_time
  weights = np.where(kept, np.asarray(cohort.weights), 0.0)
  if cohort.weighting in ("fedavg", "hajek") and weights.sum() > 0:
    weights = weights / weights.sum()
  return cohort.replace(valid=kept, weights=weights.astype(np.float32))
