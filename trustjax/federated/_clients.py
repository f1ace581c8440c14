"""Client data: one flat data set, index lists, and padded batches on demand.

Nothing is copied per client until it is selected, so that a registry of a
million devices is three flat arrays. A cohort becomes arrays of one shape,
whose number of steps is a power of two: training compiles a handful of
programs, never one per client.
"""

import dataclasses
import hashlib
from typing import Any

import jax
import numpy as np

from trustjax.federated import _cohort, _partitions

PyTree = Any
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClientStore:
  """Who holds which records of a data set.

  Attributes:
    examples: Pytree of host arrays, each with leading axis [records].
    indices: Record indices, client after client; a record may be held by no
      client (deleted, or yet to arrive).
    offsets: int64 [clients + 1]; client k holds
      `indices[offsets[k] : offsets[k + 1]]`.

  Raises:
    ValueError: Arrays do not fit each other, or a record does not exist.
  """

  examples: PyTree
  indices: np.ndarray
  offsets: np.ndarray

  def __post_init__(self):
    lengths = {np.shape(leaf)[0] for leaf in jax.tree.leaves(self.examples)}
    if len(lengths) != 1:
      raise ValueError(
        f"examples: got leading axes {sorted(lengths)}; all arrays must have"
        " one and the same number of records"
      )
    records = lengths.pop()
    if self.indices.size and not (
      self.indices.min() >= 0 and self.indices.max() < records
    ):
      raise ValueError(
        f"indices: got {self.indices.min()} to {self.indices.max()}; the data"
        f" set has the records 0 to {records - 1}"
      )
    ends = (int(self.offsets[0]), int(self.offsets[-1]))
    if ends != (0, self.indices.size) or np.any(np.diff(self.offsets) < 0):
      raise ValueError(
        f"offsets: got ends {ends}; they must rise from 0 to"
        f" {self.indices.size}"
      )

  @classmethod
  def from_partition(
    cls, examples: PyTree, partition: _partitions.Partition
  ) -> "ClientStore":
    """Builds a store in which every record has its client.

    Args:
      examples: Pytree of host arrays, leading axis [records].
      partition: Partition of these records.

    Returns:
      The store.

    Raises:
      ValueError: The partition is one of another number of records.
    """
    records = np.shape(jax.tree.leaves(examples)[0])[0]
    if records != partition.num_records:
      raise ValueError(
        f"partition: got one of {partition.num_records} records; the data set"
        f" has {records}"
      )
    return cls(
      examples=examples, indices=partition.indices, offsets=partition.offsets
    )

  @property
  def num_clients(self) -> int:
    """Registered clients."""
    return self.offsets.size - 1

  @property
  def activity(self) -> np.ndarray:
    """Examples that each client holds, int64 [clients]."""
    return np.diff(self.offsets)

  def fingerprint(self) -> str:
    """Hash of the data and of who holds what; a resume compares it."""
    digest = hashlib.sha256()
    leaves = jax.tree_util.tree_leaves_with_path(self.examples)
    named = [(jax.tree_util.keystr(path), leaf) for path, leaf in leaves]
    for name, leaf in [
      *named,
      ("indices", self.indices),
      ("offsets", self.offsets),
    ]:
      array = np.ascontiguousarray(leaf)
      digest.update(repr((name, array.shape, str(array.dtype))).encode())
      digest.update(array.tobytes())
    return digest.hexdigest()

  def fetch(
    self,
    cohort: _cohort.Cohort,
    *,
    batch_size: int,
    num_epochs: int = 1,
    max_examples: int | None = None,
    seed: int,
    round: int,
  ) -> _cohort.Cohort:
    """Materialises the selected clients' batches, and nothing else.

    Each epoch is a fresh shuffle, addressed by (seed, round, client, epoch).
    Slots are sorted by falling number of steps, so that clients that run
    together are alike.

    Args:
      cohort: From `select_clients`.
      batch_size: Examples of a local step.
      num_epochs: Local epochs.
      max_examples: Most examples of a client in an epoch, a random subset;
        None means all.
      seed: Seed of the run.
      round: Round, from 0.

    Returns:
      The cohort with its data.

    Raises:
      ValueError: A selected client does not exist or holds no data, or a
        count is not positive.
    """
    for field, value in (
      ("batch_size", batch_size),
      ("num_epochs", num_epochs),
      ("max_examples", 1 if max_examples is None else max_examples),
    ):
      if value < 1:
        raise ValueError(f"{field}: got {value}; it must be at least 1")
    ids, valid = np.asarray(cohort.ids), np.asarray(cohort.valid)
    self._check_ids(ids[valid])
    held = np.where(valid, self.activity[ids], 0)
    used = held if max_examples is None else np.minimum(held, max_examples)
    steps = -(-used // batch_size)
    order = np.lexsort((ids, -steps, ~valid))
    ids, valid, held, used, steps = (
      array[order] for array in (ids, valid, held, used, steps)
    )
    most = bucket(int(steps.max(initial=1)) * num_epochs)
    table = np.zeros((ids.size, most, batch_size), np.int64)
    live = np.zeros(table.shape, bool)
    slot = np.repeat(np.arange(ids.size), held)
    place = np.arange(slot.size) - (np.cumsum(held) - held)[slot]
    for epoch in range(num_epochs):
      words = mix_words(seed, round, epoch, ids[slot], place)
      shuffled = place[np.lexsort((words, slot))]
      records = self.indices[self.offsets[ids[slot]] + shuffled]
      keep = place < used[slot]
      row, rank = slot[keep], place[keep]
      step = epoch * steps[row] + rank // batch_size
      table[row, step, rank % batch_size] = records[keep]
      live[row, step, rank % batch_size] = True
    # A record of the client: an invented one might divide by zero, and one of
    # another client that is not finite would spoil this one's gradient, even
    # with weight zero.
    own = np.where(valid, table[:, 0, 0], table[:1, 0, 0])
    np.copyto(table, own[:, None, None], where=~live)
    data = _cohort.ClientBatches(
      examples=jax.tree.map(
        lambda leaf: np.asarray(leaf)[table], self.examples
      ),
      valid=live,
    )
    inclusion = cohort.inclusion
    return cohort.replace(
      ids=ids,
      valid=valid,
      weights=np.asarray(cohort.weights)[order],
      inclusion=None if inclusion is None else np.asarray(inclusion)[order],
      data=data,
    )

  def _check_ids(self, ids):
    if ids.size and not (ids.min() >= 0 and ids.max() < self.num_clients):
      raise ValueError(
        f"cohort.ids: got {ids.min()} to {ids.max()}; the registry has the"
        f" clients 0 to {self.num_clients - 1}"
      )
    empty = ids[self.activity[ids] == 0]
    if empty.size:
      raise ValueError(
        f"cohort.ids: clients {empty[:5].tolist()} hold no data; select with"
        " the activity of this store"
      )


def bucket(steps: int) -> int:
  """The least power of two that is at least `steps`."""
  return 1 << max(0, steps - 1).bit_length()


def mix_words(seed: int, *parts) -> np.ndarray:
  """Random words addressed by numbers, all at once.

  Args:
    seed: Seed of the run.
    *parts: Whole numbers or integer arrays that broadcast.

  Returns:
    uint64 of the broadcast shape.

  References:
    Steele et al., Fast Splittable Pseudorandom Number Generators, OOPSLA 2014.
  """
  word = np.atleast_1d(np.uint64(seed & 0xFFFFFFFFFFFFFFFF))
  with np.errstate(over="ignore"):
    for part in parts:
      word = (word ^ np.asarray(part).astype(np.uint64)) + _GOLDEN
      word = (word ^ (word >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
      word = (word ^ (word >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
      word = word ^ (word >> np.uint64(31))
  return word
