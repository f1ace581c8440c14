"""The quantity that is missing for a target epsilon, over the whole run."""

import functools
import math
from collections.abc import Callable

import scipy.optimize

from trustjax.privacy import _accounting, _mechanism

_LEAST_NOISE, _MOST_NOISE = 1e-2, 1e4
_MOST_STEPS = 10**7


def _epsilon(mechanism, delta, accountant, interval=_accounting.FINE):
  bounds = _mechanism.epsilon_bounds(mechanism, delta, interval)
  value = bounds.pld if accountant == "pld" else bounds.rdp
  if value is None:
    raise ValueError(f"accountant: got {accountant!r}; {bounds.rdp_reason}")
  return value


def _check_target(target_epsilon, accountant):
  if not (math.isfinite(target_epsilon) and target_epsilon > 0):
    raise ValueError(
      f"target_epsilon: got {target_epsilon}; it must be finite and positive"
    )
  if accountant not in ("pld", "rdp"):
    raise ValueError(
      f"accountant: got {accountant!r}; allowed are 'pld' and 'rdp'"
    )


def calibrate_noise_multiplier(
  mechanism: _mechanism.Mechanism,
  target_epsilon: float,
  delta: float,
  *,
  accountant: str = "pld",
  tolerance: float = 1e-4,
) -> _mechanism.Mechanism:
  """Finds the least noise multiplier whose epsilon meets the target.

  The whole schedule is composed, and the sensitivity factor enters, so a
  mechanism for clip groups comes out with twice the noise.

  Args:
    mechanism: Everything but the noise multiplier, which is ignored.
    target_epsilon: Epsilon to stay at or below.
    delta: In (0, 1).
    accountant: "pld" or "rdp".
    tolerance: Relative; the result is never below the true value.

  Returns:
    The mechanism with its noise multiplier.

  Raises:
    ValueError: No noise multiplier up to 10,000 reaches the target.
  """
  _check_target(target_epsilon, accountant)
  # Only noise over sensitivity matters, so clip groups and single records
  # share one search.
  factor = mechanism.sensitivity_factor
  alone = mechanism.replace(sensitivity_factor=1.0, noise_multiplier=1.0)
  sigma = factor * _least_noise(
    alone, target_epsilon, delta, accountant, tolerance
  )
  found = mechanism.replace(noise_multiplier=sigma)
  # Judged once more as it is handed out, on the fine grid: the search may have
  # ended on the coarse one, and sigma times the factor is rounded.
  while _epsilon(found, delta, accountant) > target_epsilon:
    sigma *= 1 + tolerance
    found = mechanism.replace(noise_multiplier=sigma)
  return found


@functools.lru_cache(maxsize=256)
def _least_noise(mechanism, target_epsilon, delta, accountant, tolerance):
  """The least noise multiplier at sensitivity factor 1, nearly."""
  # A coarser grid is a looser bound; this one costs a small target little.
  coarse = _accounting.COARSE * min(1.0, max(target_epsilon / 2, 0.1))

  def gap(sigma):
    at = mechanism.replace(noise_multiplier=sigma)
    return _epsilon(at, delta, accountant, coarse) - target_epsilon

  # Brackets from the middle outwards: small multipliers are slow to account.
  high = 1.0
  while gap(high) > 0:
    high *= 2
    if high > _MOST_NOISE:
      raise ValueError(
        f"target_epsilon: got {target_epsilon}; at delta {delta} even a noise"
        f" multiplier of {high / 2:g} gives"
        f" {gap(high / 2) + target_epsilon:.4g}"
      )
  low = high / 2
  while gap(low) <= 0:
    high, low = low, low / 2
    if low < _LEAST_NOISE:
      return high
  found = scipy.optimize.root_scalar(
    gap, bracket=(low, high), method="brentq", rtol=tolerance / 4
  )
  return float(found.root)


def _largest(feasible: Callable[[int], bool], most: int) -> int:
  """Largest n in [0, most] with feasible(n), for a falling predicate."""
  low, high = 0, 1
  while high < most and feasible(high):
    low, high = high, min(2 * high, most)
  if high == most and feasible(most):
    return most
  while high - low > 1:
    middle = (low + high) // 2
    low, high = (middle, high) if feasible(middle) else (low, middle)
  return low


def calibrate_num_steps(
  mechanism: _mechanism.Mechanism,
  target_epsilon: float,
  delta: float,
  *,
  accountant: str = "pld",
) -> _mechanism.Mechanism:
  """Finds the most steps whose epsilon meets the target.

  Args:
    mechanism: Everything but the number of steps, which is ignored.
    target_epsilon: Epsilon to stay at or below.
    delta: In (0, 1).
    accountant: "pld" or "rdp".

  Returns:
    The mechanism with its number of steps.

  Raises:
    ValueError: Even one step exceeds the target.
  """
  _check_target(target_epsilon, accountant)

  def at(steps):
    return mechanism.replace(num_steps=steps)

  def feasible(steps):
    return _epsilon(at(steps), delta, accountant) <= target_epsilon

  steps = _largest(feasible, _MOST_STEPS)
  if steps == 0:
    raise ValueError(
      f"target_epsilon: got {target_epsilon}; one step at noise multiplier"
      f" {mechanism.noise_multiplier} already gives"
      f" {_epsilon(at(1), delta, accountant):.4g}"
    )
  return at(steps)


def calibrate_batch_size(
  mechanism: _mechanism.Mechanism,
  num_records: int,
  target_epsilon: float,
  delta: float,
  *,
  accountant: str = "pld",
) -> _mechanism.Mechanism:
  """Finds the largest expected batch size whose epsilon meets the target.

  Args:
    mechanism: Everything but the sampling rate, which is ignored.
    num_records: Records in the data set.
    target_epsilon: Epsilon to stay at or below.
    delta: In (0, 1).
    accountant: "pld" or "rdp".

  Returns:
    The mechanism with sampling rate batch size / num_records.

  Raises:
    ValueError: Even an expected batch of one record exceeds the target, or
      the sampler draws no random lots.
  """
  _check_target(target_epsilon, accountant)
  if mechanism.sampler == "shuffled":
    raise ValueError(
      "sampler: got 'shuffled'; without amplification the batch size does"
      " not change epsilon per epoch"
    )

  def at(batch):
    return mechanism.replace(
      sampling_rate=batch / num_records, num_records=num_records
    )

  def feasible(batch):
    return _epsilon(at(batch), delta, accountant) <= target_epsilon

  batch = _largest(feasible, num_records)
  if batch == 0:
    raise ValueError(
      f"target_epsilon: got {target_epsilon}; an expected batch of one"
      f" record already gives {_epsilon(at(1), delta, accountant):.4g}"
    )
  return at(batch)
