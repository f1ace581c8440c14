"""How active devices are: heavy-tailed counts, scaled to a data set."""

import math

import numpy as np


def lognormal_activity(
  num_clients: int,
  rng: np.random.Generator,
  *,
  median: float = 7.0,
  sigma: float = 1.5,
) -> np.ndarray:
  """Examples of each device: n = max(1, round(exp(N(ln median, sigma^2)))).

  With the defaults the mean is 21.6, the 99th percentile 226, and 43 % of the
  devices hold at most five examples.

  Args:
    num_clients: Devices.
    rng: Source of the draw.
    median: Median number of examples, positive.
    sigma: Standard deviation of its logarithm, at least 0.

  Returns:
    int64 [clients], at least 1.

  Raises:
    ValueError: A parameter is out of range.
  """
  _check_clients(num_clients)
  if not median > 0 or not 0 <= sigma < math.inf:
    raise ValueError(
      f"median, sigma: got {median}, {sigma}; they must be positive and at"
      " least 0"
    )
  draws = np.exp(rng.normal(math.log(median), sigma, num_clients))
  return np.maximum(1, np.rint(draws)).astype(np.int64)


def zipf_activity(
  num_clients: int,
  rng: np.random.Generator,
  *,
  exponent: float = 1.0,
  largest: int = 1000,
) -> np.ndarray:
  """Examples of each device: n = largest / rank^exponent, ranks shuffled.

  Args:
    num_clients: Devices.
    rng: Source of the shuffle.
    exponent: How fast activity falls with rank, positive.
    largest: Examples of the most active device.

  Returns:
    int64 [clients], at least 1.

  Raises:
    ValueError: A parameter is out of range.
  """
  _check_clients(num_clients)
  if not exponent > 0 or largest < 1:
    raise ValueError(
      f"exponent, largest: got {exponent}, {largest}; they must be positive"
      " and at least 1"
    )
  ranks = np.arange(1, num_clients + 1)
  counts = np.maximum(1, np.rint(largest / ranks**exponent)).astype(np.int64)
  return rng.permutation(counts)


def scale_to_total(activity: np.ndarray, total: int) -> np.ndarray:
  """Scales activities to whole numbers of a given sum, each at least 1.

  By largest remainder, on what is left after everybody got one.

  Args:
    activity: [clients], positive.
    total: The sum, at least the number of clients.

  Returns:
    int64 [clients].

  Raises:
    ValueError: An activity is not positive, or there are too few records.
  """
  activity = np.asarray(activity, np.float64)
  if not np.all(np.isfinite(activity) & (activity > 0)):
    raise ValueError("activity: each must be finite and positive")
  if total < activity.size:
    raise ValueError(
      f"total: got {total}; each of {activity.size} clients needs a record"
    )
  exact = activity / activity.sum() * (total - activity.size)
  counts = np.floor(exact).astype(np.int64)
  missing = total - activity.size - counts.sum()
  winners = np.argsort(counts - exact, kind="stable")[:missing]
  counts[winners] += 1
  return counts + 1


def activity_deciles(activity: np.ndarray) -> np.ndarray:
  """Decile of each device by activity, 0 the least active, 9 the most.

  Ties are cut by id, so that the deciles have equal size.

  Args:
    activity: [clients].

  Returns:
    int64 [clients].
  """
  order = np.argsort(activity, kind="stable")
  deciles = np.empty(activity.size, np.int64)
  deciles[order] = np.arange(activity.size) * 10 // activity.size
  return deciles


def _check_clients(num_clients):
  if num_clients < 1:
    raise ValueError(f"num_clients: got {num_clients}; it must be at least 1")
