"""How fine a grid of the privacy loss a run can afford.

Privacy loss distributions live on a grid of losses. Its spacing trades
accuracy against memory: a run whose epsilon is in the thousands would need
billions of points at the spacing that suits an epsilon of 1. Every spacing
gives an upper bound, so the spacing is widened until the run fits.
"""

import math
from collections.abc import Sequence

import numpy as np

# Points of all single-step distributions together, which cost about 10 us each,
# and of all transforms of composed ones: seconds of work and under 2 GiB.
_MOST_STEP_POINTS = 2**20
_MOST_COMPOSED_POINTS = 2**23
# Standard deviations of noise, and of the composed loss, that carry mass.
_DEVIATIONS = 12.0


def affordable_interval(
  noise_multipliers: Sequence[float],
  counts: Sequence[int],
  sampling_rate: float,
  wanted: float,
) -> float:
  """Widens a grid spacing, by powers of two, until a run fits in memory.

  Powers of two keep the spacings few, so that steps are shared between runs.

  Args:
    noise_multipliers: Noise over the distance of neighbouring sums.
    counts: Steps at each.
    sampling_rate: In (0, 1].
    wanted: Spacing in units of the privacy loss.

  Returns:
    `wanted` times a power of two, at least 1.
  """
  step_range, mean, variance = 0.0, 0.0, 0.0
  for sigma, count in zip(noise_multipliers, counts):
    width, expected, spread = _step_loss(sigma, sampling_rate)
    step_range += width
    mean += count * expected
    variance += count * spread
  composed = mean + 2 * _DEVIATIONS * math.sqrt(variance) + step_range
  excess = max(
    step_range / (wanted * _MOST_STEP_POINTS),
    composed / (wanted * _MOST_COMPOSED_POINTS),
    1.0,
  )
  return wanted * 2.0 ** math.ceil(math.log2(excess))


def _step_loss(sigma, sampling_rate):
  """Range, mean and variance of the loss of one sampled step, roughly.

  The larger of both directions; by quadrature over the noise.
  """
  offsets = np.linspace(-_DEVIATIONS, _DEVIATIONS, 2001) * sigma
  weights = np.exp(-0.5 * (offsets / sigma) ** 2)
  weights /= weights.sum()
  with np.errstate(divide="ignore"):
    absent = np.log1p(-sampling_rate)  # -inf if every record is in the lot.

  def loss(x):
    present = math.log(sampling_rate) + (2 * x - 1) / (2 * sigma**2)
    return np.logaddexp(absent, present)

  at_zero, at_one = loss(offsets), loss(1.0 + offsets)
  removed = _moments(
    np.concatenate([at_zero, at_one]),
    np.concatenate([(1 - sampling_rate) * weights, sampling_rate * weights]),
  )
  added = _moments(-at_zero, weights)
  return (
    float(at_one[-1] - at_zero[0]),
    max(removed[0], added[0]),
    max(removed[1], added[1]),
  )


def _moments(values, weights):
  mean = float(np.sum(weights * values))
  return abs(mean), float(np.sum(weights * (values - mean) ** 2))
