"""Selection of devices by activity: pure functions of (key, round, activity).

A strategy scores devices (`_scores`), a sampling draws by score (`_draws`), and
a weighting says how the updates of the drawn are averaged. The three are
independent choices, and each is part of the result.
"""

import functools
import math

import jax
import numpy as np
from jaxtyping import Array, Bool, Key, Num

from trustjax.federated import _cohort, _draws, _scores

SAMPLINGS = ("gumbel", "poisson", "with_replacement")
WEIGHTINGS = ("fedavg", "uniform", "ht", "hajek")

# Purposes keep the streams of one root key apart.
SELECT = 0x5E1EC7
_SLOT_MULTIPLE = 8


def select_clients(
  key: Key[Array, ""],
  round: int,
  activity: Num[Array | np.ndarray, " clients"],
  *,
  strategy: str | _scores.Strategy = "uniform",
  size: int,
  available: Bool[Array | np.ndarray, " flags"] | None = None,
  sampling: str = "gumbel",
  weighting: str = "fedavg",
) -> _cohort.Cohort:
  """Draws the cohort of a round.

  The same (key, round, activity) gives the same cohort on any backend and
  after a resume. If fewer devices than `size` can be selected, all of them
  are, and the other slots are invalid.

  Args:
    key: Root key of the run.
    round: Round, from 0.
    activity: Examples of each device; devices with none cannot be selected.
    strategy: Name or record of a scoring.
    size: Devices to draw; under Poisson sampling, their expected number.
    available: Which devices can be reached; None means all.
    sampling: "gumbel" (fixed size, without replacement), "poisson"
      (independent coin flips, random size) or "with_replacement" (a device
      drawn c times is trained once and counted c times).
    weighting: Of the update sum_S w_k Delta_k, with activity a:
      "fedavg"   w = a / sum_S a; what federated averaging describes.
      "uniform"  w = 1 / size.
      "ht"       w = a / (pi N), N = sum a: unbiased for the mean over data.
      "hajek"    w = (a / pi) / sum_S (a / pi): less variance, some bias.

  Returns:
    The cohort, without data.

  Raises:
    ValueError: A name is unknown, the cohort exceeds the population, activity
      is negative or not finite, or a weighting needs inclusion probabilities
      that do not exist.

  Example:
    >>> cohort = select_clients(
    ...   jax.random.key(0), 0, np.array([3, 1, 9]), strategy="top", size=1
    ... )
    >>> int(cohort.ids[0])
    2
  """
  activity = np.asarray(activity)
  chosen = _scores.as_strategy(strategy)
  _check(activity, round, size, available, sampling, weighting, chosen)
  if sampling == "gumbel":
    ids, valid, inclusion = _fixed_size(
      key, round, activity, available, chosen, size
    )
    multiplicity = valid.astype(np.float64)
  else:
    ids, multiplicity, inclusion, size = _random_size(
      key, round, activity, available, chosen, size, sampling
    )
    valid = multiplicity > 0
  if inclusion is not None:
    inclusion = np.where(valid, inclusion[ids], 0.0)
  weights = _weights(
    weighting,
    multiplicity,
    np.where(valid, activity[ids], 0).astype(np.float64),
    inclusion,
    size,
    _reachable_total(activity, available),
  )
  return _cohort.Cohort(
    ids=np.where(valid, ids, 0).astype(np.int32),
    valid=valid,
    weights=weights.astype(np.float32),
    inclusion=None if inclusion is None else inclusion.astype(np.float32),
    weighting=weighting,
  )


def _fixed_size(key, round, activity, available, strategy, size):
  """(ids, valid, inclusion of every device or None)."""
  _draws.check_key(key)
  # One program: a small cohort trains in milliseconds, of which every call
  # from the host would take a tenth.
  race = _top_scores if strategy.kind == "top" else _gumbel_race
  with jax.threefry_partitionable(True):
    drawn = race(key, round, activity, available, strategy, size)
  if strategy.kind == "top":
    bits, scores = drawn
    ids, valid = _draws.draw_top(bits, scores, size)
  else:
    scores, ids, valid = jax.device_get(drawn)
  return ids, valid, _fixed_size_inclusion(scores, strategy, size)


@jax.jit
def _round_key(key, round):
  return jax.random.fold_in(jax.random.fold_in(key, SELECT), round)


@functools.partial(jax.jit, static_argnames=("strategy", "size"))
def _gumbel_race(key, round, activity, available, strategy, size):
  scores = _scores.log_scores(activity, strategy, available)
  bits = _draws.id_bits(_round_key(key, round), activity.shape[0])
  return scores, *_draws.draw_without_replacement(bits, scores, size)


@functools.partial(jax.jit, static_argnames=("strategy", "size"))
def _top_scores(key, round, activity, available, strategy, size):
  del size
  scores = _scores.log_scores(activity, strategy, available)
  return _draws.id_bits(_round_key(key, round), activity.shape[0]), scores


def _random_size(key, round, activity, available, strategy, size, sampling):
  """(ids, how often each was drawn, inclusion of every device, draws)."""
  key = _round_key(key, round)
  shares = _normalised(_scores.log_scores(activity, strategy, available))
  if sampling == "poisson":
    size = min(size, int(np.sum(shares > 0)))
    rates = _draws.poisson_rates(shares, size)[0] if size else shares
    bits = np.asarray(_draws.id_bits(key, activity.size))
    drawn, inclusion = _draws.draw_poisson(bits, rates), rates
    counts, slots = np.ones(drawn.size), poisson_slots(rates, drawn.size)
  else:
    drawn, counts = _draws.draw_with_replacement(key, shares, size)
    inclusion, slots = -np.expm1(size * np.log1p(-shares)), size
  ids, valid = in_slots(drawn, slots)
  multiplicity = valid.astype(np.float64)
  multiplicity[: drawn.size] = counts
  return ids, multiplicity, inclusion, size


def inclusion_probabilities(
  activity: Num[Array | np.ndarray, " clients"],
  *,
  strategy: str | _scores.Strategy,
  size: int,
  available: Bool[Array | np.ndarray, " flags"] | None = None,
  sampling: str = "gumbel",
) -> np.ndarray | None:
  """Probability of every device to be in the cohort, where it is known.

  Args:
    activity: Examples of each device.
    strategy: Name or record of a scoring.
    size: Devices to draw, or their expected number.
    available: Which devices can be reached; None means all.
    sampling: As in `select_clients`.

  Returns:
    float64 [clients]; None for draws without replacement by unequal scores.
  """
  chosen = _scores.as_strategy(strategy)
  activity = np.asarray(activity)
  _check(activity, 0, size, available, sampling, "fedavg", chosen)
  scores = _scores.log_scores(activity, chosen, available)
  if sampling == "gumbel":
    return _fixed_size_inclusion(scores, chosen, size)
  shares = _normalised(scores)
  if sampling == "with_replacement":
    return -np.expm1(size * np.log1p(-shares))
  size = min(size, int(np.sum(shares > 0)))
  return _draws.poisson_rates(shares, size)[0] if size else shares


def in_slots(drawn: np.ndarray, slots: int) -> tuple[np.ndarray, np.ndarray]:
  """Puts drawn ids into the first of `slots` slots; (ids, valid)."""
  ids = np.zeros(slots, np.int32)
  ids[: drawn.size] = drawn
  return ids, np.arange(slots) < drawn.size


def poisson_slots(rates: np.ndarray, drawn: int) -> int:
  """Slots that a Poisson cohort practically never exceeds.

  The mean plus eight standard deviations, in steps of eight; a larger cohort
  gets more slots, since truncating it would change the distribution.
  """
  spread = math.sqrt(float(np.sum(rates * (1 - rates))))
  usual = min(math.ceil(float(rates.sum()) + 8 * spread), rates.size)
  return _SLOT_MULTIPLE * max(1, math.ceil(max(usual, drawn) / _SLOT_MULTIPLE))


def _fixed_size_inclusion(scores, strategy, size):
  """Of a draw of fixed size; only equal scores have a closed form."""
  scores = np.asarray(scores)
  can = scores > -np.inf
  if can.sum() <= size:
    return can.astype(np.float64)
  if strategy.kind == "top":
    last = np.partition(scores, -size)[-size]
    above = scores > last
    share = (size - above.sum()) / np.sum(scores == last)
    return np.where(above, 1.0, np.where(scores == last, share, 0.0))
  if np.ptp(scores[can]) == 0:
    return np.where(can, size / can.sum(), 0.0)
  return None


def _normalised(log_scores):
  """Shares f / sum(f) in float64; zeros if nobody can be drawn."""
  logs = np.asarray(log_scores, np.float64)
  top = logs.max()
  if top == -np.inf:
    return np.zeros_like(logs)
  shares = np.exp(logs - top)
  return shares / shares.sum()


def _reachable_total(activity, available):
  reached = activity if available is None else activity * np.asarray(available)
  return float(reached.sum(dtype=np.float64))


def _weights(weighting, multiplicity, activity, inclusion, size, total):
  """Normalised weights of the slots, so that the update is their sum."""
  if weighting == "uniform":
    return multiplicity / max(size, 1)
  if weighting == "fedavg":
    raw = multiplicity * activity
    return raw / max(raw.sum(), 1.0)
  assert inclusion is not None  # `_check` refused the others.
  raw = activity / np.where(inclusion > 0, inclusion, 1.0)
  if weighting == "ht":
    return raw / max(total, 1.0)
  return raw / max(raw.sum(), 1e-300)


def _check(activity, round, size, available, sampling, weighting, strategy):
  if activity.ndim != 1 or not np.all(np.isfinite(activity)):
    raise ValueError(
      f"activity: got shape {activity.shape}; it must be finite numbers"
      " [clients]"
    )
  if activity.size and activity.min() < 0:
    raise ValueError("activity: got a negative number of examples")
  if round < 0:
    raise ValueError(f"round: got {round}; it must be at least 0")
  if not 1 <= size <= activity.size:
    raise ValueError(
      f"size: got {size}; a cohort holds between 1 and the population's"
      f" {activity.size} clients"
    )
  if available is not None and np.shape(available) != activity.shape:
    raise ValueError(
      f"available: got shape {np.shape(available)}; it must be one flag for"
      f" each of {activity.size} clients"
    )
  for field, value, allowed in (
    ("sampling", sampling, SAMPLINGS),
    ("weighting", weighting, WEIGHTINGS),
  ):
    if value not in allowed:
      raise ValueError(f"{field}: got {value!r}; allowed are {list(allowed)}")
  if strategy.kind == "top" and sampling != "gumbel":
    raise ValueError(
      f"sampling: got {sampling!r} with the strategy 'top', which is a choice"
      " of fixed size; use 'gumbel'"
    )
  if weighting in ("ht", "hajek"):
    _check_unbiased(weighting, sampling, strategy)


def _check_unbiased(weighting, sampling, strategy):
  if strategy.kind in ("top", "threshold"):
    raise ValueError(
      f"weighting: got {weighting!r} with the strategy {strategy.kind!r}, which"
      " never selects some devices; no weight makes up for them"
    )
  if sampling == "with_replacement":
    raise ValueError(
      f"weighting: got {weighting!r} with draws with replacement; use"
      " 'uniform', which is unbiased there when the strategy is 'proportional'"
    )
  if sampling == "gumbel" and strategy.kind != "uniform":
    raise ValueError(
      f"weighting: got {weighting!r} with draws of fixed size by unequal"
      " scores, whose inclusion probabilities have no closed form (they are"
      " not size x f / sum(f)); use sampling 'poisson'"
    )
