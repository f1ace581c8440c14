"""Data that arrives and is deleted: the continual setting.

A stream says which device gets which record in which period. What a device
holds in a period follows from the retention rule and from deletion requests, by
a pure function: nothing is stored, and a resumed run sees the same buffers.
"""

import dataclasses
from typing import Any

import numpy as np

from trustjax.federated import _clients

PyTree = Any
RETENTIONS = ("window", "fifo", "reservoir", "all")
NEVER = np.iinfo(np.int64).max


@dataclasses.dataclass(frozen=True, kw_only=True)
class Retention:
  """What a device keeps of what it has received.

    window     what arrived in this period and the `window` before it
    fifo       the last `capacity` records
    reservoir  a uniform sample of `capacity` of all it ever received
    all        everything

  Attributes:
    kind: One of the names above.
    window: Earlier periods that "window" keeps; 0 deletes everything older.
    capacity: Records that "fifo" and "reservoir" keep.

  Raises:
    ValueError: A field is out of range.
  """

  kind: str = "window"
  window: int = 0
  capacity: int = 64

  def __post_init__(self):
    if self.kind not in RETENTIONS:
      raise ValueError(
        f"retention: got {self.kind!r}; allowed are {list(RETENTIONS)}"
      )
    if self.window < 0 or self.capacity < 1:
      raise ValueError(
        f"window, capacity: got {self.window}, {self.capacity}; they must be at"
        " least 0 and 1"
      )


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClientStream:
  """Records with their device and their time.

  Attributes:
    examples: Pytree of host arrays, leading axis [records].
    owners: Device of each record, int [records].
    periods: Period in which it arrives, from 0, int [records]; records of one
      period arrive in the order of their index.
    num_clients: Registered devices.
    num_periods: Periods.
    deleted: Period from which a record is gone because its owner asked,
      int [records], `NEVER` without a request; None means no requests.

  Raises:
    ValueError: Arrays do not fit each other, or a number is out of range.
  """

  examples: PyTree
  owners: np.ndarray
  periods: np.ndarray
  num_clients: int
  num_periods: int
  deleted: np.ndarray | None = None

  def __post_init__(self):
    records = self.owners.size
    for field in ("periods", "deleted"):
      value = getattr(self, field)
      if value is not None and value.shape != (records,):
        raise ValueError(
          f"{field}: got shape {value.shape}; there are {records} records"
        )
    for field, most in (
      ("owners", self.num_clients),
      ("periods", self.num_periods),
    ):
      value = getattr(self, field)
      if records and not (value.min() >= 0 and value.max() < most):
        raise ValueError(
          f"{field}: got {value.min()} to {value.max()}; allowed are 0 to"
          f" {most - 1}"
        )

  def store(
    self, period: int, retention: Retention, *, seed: int = 0
  ) -> _clients.ClientStore:
    """What every device holds once the records of a period have arrived.

    Args:
      period: Period, from 0.
      retention: What devices keep.
      seed: Of the reservoirs.

    Returns:
      The store; devices that hold nothing have no activity.

    Raises:
      ValueError: There is no such period.
    """
    if not 0 <= period < self.num_periods:
      raise ValueError(
        f"period: got {period}; there are the periods 0 to"
        f" {self.num_periods - 1}"
      )
    arrived = self.periods <= period
    if retention.kind == "window":
      arrived &= self.periods >= period - retention.window
    records = np.flatnonzero(arrived)
    if retention.kind in ("fifo", "reservoir"):
      records = self._newest_or_sampled(records, retention, seed)
    if self.deleted is not None:
      records = records[self.deleted[records] > period]
    records = records[np.lexsort((records, self.owners[records]))]
    counts = np.bincount(self.owners[records], minlength=self.num_clients)
    return _clients.ClientStore(
      examples=self.examples,
      indices=records,
      offsets=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
    )

  def static(self) -> _clients.ClientStore:
    """All periods at once: the static setting on the same devices."""
    return self.store(self.num_periods - 1, Retention(kind="all"))

  def _newest_or_sampled(self, records, retention, seed):
    """The `capacity` records of each device that come first by priority."""
    owners = self.owners[records]
    by_arrival = np.lexsort((records, self.periods[records], owners))
    place = np.empty(records.size, np.int64)
    place[by_arrival] = _rank_within(owners[by_arrival])
    if retention.kind == "fifo":
      priority = -place
    else:
      # The records of least hash are a uniform sample, of any prefix of the
      # stream, and what once fell out never comes back.
      priority = _clients.mix_words(seed, owners, place)
    order = np.lexsort((priority, owners))
    rank = np.empty(records.size, np.int64)
    rank[order] = _rank_within(owners[order])
    return records[rank < retention.capacity]


def iid_periods(
  num_records: int, num_periods: int, rng: np.random.Generator
) -> np.ndarray:
  """Periods without drift: an equal share of the records in each.

  Args:
    num_records: Records.
    num_periods: Periods.
    rng: Source of the shuffle.

  Returns:
    int64 [records].
  """
  _check_periods(num_periods)
  return rng.permutation(np.arange(num_records) * num_periods // num_records)


def class_arrival_periods(
  labels: np.ndarray, num_periods: int, rng: np.random.Generator
) -> np.ndarray:
  """Periods in which classes appear one after the other.

  Classes are dealt to the periods at random, as equally as possible; records of
  a class that appears in period s arrive uniformly in the periods s and later.

  Args:
    labels: [records], any values that sort.
    num_periods: Periods.
    rng: Source of all draws.

  Returns:
    int64 [records].
  """
  _check_periods(num_periods)
  _, codes = np.unique(np.asarray(labels), return_inverse=True)
  classes = int(codes.max()) + 1
  first = rng.permutation(np.arange(classes) * num_periods // classes)[codes]
  return first + (rng.random(codes.size) * (num_periods - first)).astype(int)


def drift_periods(
  labels: np.ndarray, num_periods: int, rng: np.random.Generator
) -> np.ndarray:
  """Periods in which the mixture of the classes moves linearly.

  Class c arrives in period t with weight 1 + s_c (2 t / (P - 1) - 1), where the
  slopes s_c are spread evenly over [-1, 1] in random order.

  Args:
    labels: [records], any values that sort; domains, for example.
    num_periods: Periods, at least 2.
    rng: Source of all draws.

  Returns:
    int64 [records].
  """
  _check_periods(num_periods, least=2)
  _, codes = np.unique(np.asarray(labels), return_inverse=True)
  slopes = rng.permutation(np.linspace(-1, 1, int(codes.max()) + 1))
  time = np.linspace(-1, 1, num_periods)
  weights = 1 + slopes[:, None] * time[None, :]
  ends = np.cumsum(weights / weights.sum(axis=1, keepdims=True), axis=1)
  draws = rng.random(codes.size)
  periods = np.sum(draws[:, None] >= ends[codes], axis=1)
  return np.minimum(periods, num_periods - 1)


def _rank_within(groups):
  """Place of each element in its group; groups are contiguous."""
  starts = np.flatnonzero(np.r_[True, groups[1:] != groups[:-1]])
  sizes = np.diff(np.r_[starts, groups.size])
  return np.arange(groups.size) - np.repeat(starts, sizes)


def _check_periods(num_periods, least=1):
  if num_periods < least:
    raise ValueError(
      f"num_periods: got {num_periods}; it must be at least {least}"
    )
