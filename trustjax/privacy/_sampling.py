"""Which record sits in which slot: lots as pure functions of (seed, step).

Nothing here keeps generator state, so a resumed run draws the lots that the
uninterrupted one would have drawn.
"""

import dataclasses
import math

import numpy as np
import scipy.stats

# Purposes keep the streams of one (seed, step) apart.
_INCLUSION, _GROUPS, _TRUNCATION, _PERMUTATION, _PRIORITY = range(5)
_STREAM = 0x10075
# Share of the records that the default slots of a clip group may drop.
_MOST_DROPPED = 0.02


@dataclasses.dataclass(frozen=True, kw_only=True)
class LotIndices:
  """A drawn lot, before the records are fetched.

  Attributes:
    indices: int32 record indices, [slots] or [groups, slots]; 0 where invalid.
    valid: Which slots hold a record, same shape.
    num_dropped: Drawn records that found no slot.
  """

  indices: np.ndarray
  valid: np.ndarray
  num_dropped: int = 0

  @property
  def num_records(self) -> int:
    """Records in the lot."""
    return int(self.valid.sum())


def _generator(seed, purpose, step):
  if seed < 0 or step < 0:
    raise ValueError(f"seed, step: got {seed}, {step}; both must be at least 0")
  return np.random.Generator(
    np.random.Philox(np.random.SeedSequence((_STREAM, seed, purpose, step)))
  )


def _check_rate(sampling_rate):
  if not 0 < sampling_rate <= 1:
    raise ValueError(
      f"sampling_rate: got {sampling_rate}; it must lie in (0, 1]"
    )


def _check_counts(**counts):
  for name, value in counts.items():
    if value < 1:
      raise ValueError(f"{name}: got {value}; it must be at least 1")


def _drawn(num_records, sampling_rate, seed, step):
  """Indices of an independent coin flip for every record."""
  _check_rate(sampling_rate)
  # A float64 uniform for each record, not a count and a choice: whether one
  # record is in must not move the draw of any other.
  coins = _generator(seed, _INCLUSION, step).random(num_records)
  return np.flatnonzero(coins < sampling_rate).astype(np.int32)


def _padded(drawn, capacity, num_dropped=0):
  indices = np.zeros(capacity, np.int32)
  indices[: drawn.size] = drawn
  return LotIndices(
    indices=indices,
    valid=np.arange(capacity) < drawn.size,
    num_dropped=num_dropped,
  )


def default_lot_capacity(
  num_records: int, sampling_rate: float, multiple: int = 8
) -> int:
  """Slots that a Poisson lot practically never exceeds.

  The mean plus eight standard deviations, rounded up to `multiple`.
  """
  mean = num_records * sampling_rate
  slots = mean + 8 * math.sqrt(mean * (1 - sampling_rate))
  slots = min(math.ceil(slots), num_records)
  return max(multiple, multiple * math.ceil(slots / multiple))


def poisson_lot(
  *,
  num_records: int,
  sampling_rate: float,
  seed: int,
  step: int,
  capacity_multiple: int = 8,
) -> LotIndices:
  """Draws every record independently with probability `sampling_rate`.

  A draw beyond the default capacity gets a larger lot, never a truncated one:
  the distribution is exactly Poisson sampling, at the price of a compilation.

  Args:
    num_records: Records in the data set.
    sampling_rate: Probability of each record.
    seed: Seed of the run.
    step: Step, from 0.
    capacity_multiple: Slots come in multiples of this.

  Returns:
    [slots], valid ones first. An empty lot is legal.
  """
  drawn = _drawn(num_records, sampling_rate, seed, step)
  usual = default_lot_capacity(num_records, sampling_rate, capacity_multiple)
  needed = capacity_multiple * math.ceil(drawn.size / capacity_multiple)
  return _padded(drawn, max(usual, needed))


def truncated_poisson_lot(
  *,
  num_records: int,
  sampling_rate: float,
  seed: int,
  step: int,
  capacity: int,
) -> LotIndices:
  """Poisson sampling whose lots beyond `capacity` keep a random subset.

  This is another mechanism than Poisson sampling, and is accounted as such.

  Args:
    num_records: Records in the data set.
    sampling_rate: Probability of each record.
    seed: Seed of the run.
    step: Step, from 0.
    capacity: Slots, and the most records a lot may hold.

  Returns:
    [capacity], valid ones first.
  """
  _check_counts(capacity=capacity)
  drawn = _drawn(num_records, sampling_rate, seed, step)
  dropped = max(0, drawn.size - capacity)
  if dropped:
    rng = _generator(seed, _TRUNCATION, step)
    drawn = np.sort(rng.choice(drawn, capacity, replace=False))
  return _padded(drawn, capacity, dropped)


def steps_per_epoch(num_records: int, batch_size: int) -> int:
  """Batches of a shuffled epoch; the remainder is left out."""
  if not 1 <= batch_size <= num_records:
    raise ValueError(
      f"batch_size: got {batch_size}; it must lie between 1 and the data"
      f" set's {num_records} records"
    )
  return num_records // batch_size


def shuffled_lot(
  *, num_records: int, batch_size: int, seed: int, step: int
) -> LotIndices:
  """Cuts a fresh permutation of each epoch into batches of fixed size.

  Every record is used at most once an epoch. The epsilon of Poisson sampling
  may not be quoted for it.

  Args:
    num_records: Records in the data set.
    batch_size: Records in every batch.
    seed: Seed of the run.
    step: Step, from 0.

  Returns:
    [batch_size], all valid.
  """
  epoch, batch = divmod(step, steps_per_epoch(num_records, batch_size))
  order = _generator(seed, _PERMUTATION, epoch).permutation(num_records)
  indices = order[batch * batch_size : (batch + 1) * batch_size]
  return LotIndices(
    indices=indices.astype(np.int32), valid=np.ones(batch_size, bool)
  )


def default_group_capacity(clip_group_size: int) -> int:
  """Slots of a clip group: its nominal size plus 1.4 standard deviations.

  The load of a group of nominal size m is about Poisson with mean m. 12 slots
  for m = 8 and 40 for m = 32 drop about 1.6 % and 0.7 % of the records; where
  the rule drops more than 2 % (m below 5), slots are added until it does not.

  Args:
    clip_group_size: Nominal records of a group, at least 1.

  Returns:
    Slots.
  """
  if clip_group_size < 1:
    raise ValueError(
      f"clip_group_size: got {clip_group_size}; it must be at least 1"
    )
  slots = clip_group_size + math.ceil(1.4 * math.sqrt(clip_group_size))
  load = scipy.stats.poisson(clip_group_size)
  while _overflow(load, slots) > _MOST_DROPPED * clip_group_size:
    slots += 1
  return slots


def _overflow(load, slots):
  """E[max(0, X - slots)]: the sum of the tail probabilities from there."""
  return float(load.sf(np.arange(slots, int(load.isf(1e-15)) + 1)).sum())


def expected_dropped_share(
  num_records: int, sampling_rate: float, num_groups: int, group_capacity: int
) -> float:
  """Expected share of drawn records that overflow their clip group.

  The load of a group is Binomial(num_records, sampling_rate / num_groups).

  Args:
    num_records: Records in the data set.
    sampling_rate: Probability of each record.
    num_groups: Clip groups.
    group_capacity: Slots in each.

  Returns:
    In [0, 1).
  """
  _check_rate(sampling_rate)
  _check_counts(
    num_records=num_records,
    num_groups=num_groups,
    group_capacity=group_capacity,
  )
  rate = sampling_rate / num_groups
  load = scipy.stats.binom(num_records, rate)
  return _overflow(load, group_capacity) / (num_records * rate)


def grouped_poisson_lot(
  *,
  num_records: int,
  sampling_rate: float,
  seed: int,
  step: int,
  num_groups: int,
  group_capacity: int,
  packing: str = "random_slots",
) -> LotIndices:
  """Poisson sampling into clip groups whose slots do not know each other.

  Guarantee:
    A record's group is drawn independently of all other records, so adding or
    removing it changes one group only, and the clipped sum by at most 2C. A
    full group drops records of its own, whichever come last in a random order;
    they never move to another group.

  Args:
    num_records: Records in the data set.
    sampling_rate: Probability of each record.
    seed: Seed of the run.
    step: Step, from 0.
    num_groups: Clip groups, a constant of the plan.
    group_capacity: Slots in each group.
    packing: Must be "random_slots".

  Returns:
    [num_groups, group_capacity], each group filled from the front.

  Raises:
    ValueError: Another packing is asked for: filling groups in sequence, or by
      length, lets one record shift all later ones, so the sensitivity is 2KC
      with K groups.
  """
  if packing != "random_slots":
    raise ValueError(
      f"packing: got {packing!r}; only 'random_slots' is allowed. With"
      " sequential or length-sorted packing the removal of one record shifts"
      f" all later ones, and the sensitivity is 2KC = {2 * num_groups}C"
      f" instead of 2C for K = {num_groups} groups"
    )
  _check_counts(
    num_records=num_records,
    num_groups=num_groups,
    group_capacity=group_capacity,
  )
  drawn = _drawn(num_records, sampling_rate, seed, step)
  # One pick for every record of the data set, drawn or not: a record's group
  # is a function of (seed, step, record) alone.
  picks = _generator(seed, _GROUPS, step).integers(num_groups, size=num_records)
  groups = picks[drawn]
  # Who overflows is random too, or the last records of the data set, which may
  # be all of one intent, would be dropped several times as often as average.
  priority = _generator(seed, _PRIORITY, step).random(num_records)[drawn]
  order = np.lexsort((priority, groups))
  drawn, groups = drawn[order], groups[order]
  slot = np.arange(drawn.size) - np.searchsorted(groups, groups, side="left")
  fits = slot < group_capacity
  indices = np.zeros((num_groups, group_capacity), np.int32)
  valid = np.zeros((num_groups, group_capacity), bool)
  indices[groups[fits], slot[fits]] = drawn[fits]
  valid[groups[fits], slot[fits]] = True
  return LotIndices(
    indices=indices, valid=valid, num_dropped=int((~fits).sum())
  )


def overflow_probability(
  num_records: int, sampling_rate: float, capacity: int
) -> float:
  """Probability that a Poisson draw holds more than `capacity` records."""
  _check_rate(sampling_rate)
  return float(scipy.stats.binom.sf(capacity, num_records, sampling_rate))
