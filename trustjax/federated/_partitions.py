"""Partitions: which client holds which record, and the ways to draw one.

Every function takes an explicit NumPy generator and returns index lists that
are disjoint and cover the data set; the data set itself is never reordered.
Train and test are partitioned by separate calls.
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

# Legacy generators are welcome, since published partitions were drawn by one.
Generator = np.random.Generator | np.random.RandomState


@dataclasses.dataclass(frozen=True, kw_only=True)
class Partition:
  """Disjoint, covering index lists, one per client.

  Client k holds the records `indices[offsets[k] : offsets[k + 1]]`; two flat
  arrays serve a million clients as well as ten.

  Attributes:
    indices: int64 [records], each record exactly once.
    offsets: int64 [clients + 1], from 0 to the number of records.
    mixtures: float64 [clients, labels], the label shares each client was meant
      to have, where the method draws them; reuse them for the test split.

  Raises:
    ValueError: A record is lost or held twice, or the offsets do not fit.
  """

  indices: np.ndarray
  offsets: np.ndarray
  mixtures: np.ndarray | None = None

  def __post_init__(self):
    ends = (self.offsets[0], self.offsets[-1])
    if ends != (0, self.indices.size) or np.any(np.diff(self.offsets) < 0):
      raise ValueError(
        f"offsets: got ends {tuple(int(end) for end in ends)}; they must rise"
        f" from 0 to the {self.indices.size} records"
      )
    if self.indices.size and self.indices.min() < 0:
      raise ValueError("indices: got a negative index; records count from 0")
    counts = np.bincount(self.indices, minlength=self.indices.size)
    if counts.size != self.indices.size or np.any(counts != 1):
      twice = np.flatnonzero(counts > 1)
      lost = np.flatnonzero(counts == 0)
      raise ValueError(
        f"indices: got records {twice[:5].tolist()} more than once and"
        f" {lost[:5].tolist()} not at all; each record belongs to exactly one"
        " client"
      )

  @classmethod
  def from_lists(
    cls,
    clients: Sequence[np.ndarray],
    mixtures: np.ndarray | None = None,
  ) -> "Partition":
    """Builds a partition from one index array per client."""
    sizes = [len(client) for client in clients]
    return cls(
      indices=np.concatenate([np.asarray(c, np.int64) for c in clients]),
      offsets=np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
      mixtures=mixtures,
    )

  @property
  def num_clients(self) -> int:
    """Clients, those without a record included."""
    return self.offsets.size - 1

  @property
  def num_records(self) -> int:
    """Records of the data set."""
    return self.indices.size

  @property
  def sizes(self) -> np.ndarray:
    """Records of each client, int64 [clients]: their activity."""
    return np.diff(self.offsets)

  def client(self, k: int) -> np.ndarray:
    """Indices of the records that client k holds."""
    return self.indices[self.offsets[k] : self.offsets[k + 1]]

  def lists(self) -> list[np.ndarray]:
    """Index array of every client."""
    return np.split(self.indices, self.offsets[1:-1])


def uniform_partition(
  num_records: int, num_clients: int, rng: Generator
) -> Partition:
  """Random equal split; sizes differ by at most 1.

  Args:
    num_records: Records of the data set.
    num_clients: Clients, at most as many as records.
    rng: Source of the shuffle.

  Returns:
    The partition.
  """
  _check_clients(num_clients, num_records)
  order = rng.permutation(num_records)
  return Partition.from_lists(np.array_split(order, num_clients))


def natural_partition(column: np.ndarray | Sequence) -> Partition:
  """One client per distinct value of a column, in sorted order of the values.

  Args:
    column: [records], such as the user, the author or the cluster.

  Returns:
    The partition; each client holds its records in data set order.
  """
  values, inverse = np.unique(np.asarray(column), return_inverse=True)
  order = np.argsort(inverse, kind="stable")
  sizes = np.bincount(inverse, minlength=values.size)
  return Partition(
    indices=order.astype(np.int64),
    offsets=np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
  )


def quantity_partition(
  num_records: int,
  num_clients: int,
  beta: float,
  rng: Generator,
  *,
  min_size: int = 1,
  max_tries: int = 1000,
) -> Partition:
  """Clients of unequal size: shares p ~ Dirichlet(beta 1), labels mixed.

  The shuffled records are cut at floor(cumsum(p) N); a draw that leaves a
  client with fewer than `min_size` records is repeated. The coefficient of
  variation of the sizes is about 1 / sqrt(beta).

  Args:
    num_records: Records of the data set.
    num_clients: Clients.
    beta: Concentration, positive; small is uneven.
    rng: Source of all draws.
    min_size: Least records of a client.
    max_tries: Draws before giving up.

  Returns:
    The partition.

  Raises:
    ValueError: beta is not positive, or no draw in `max_tries` was accepted.

  References:
    Lin et al., FedNLP, Findings of NAACL 2022 (arXiv 2104.08815).
  """
  _check_positive("beta", beta)
  _check_clients(num_clients, num_records)
  order = rng.permutation(num_records)
  for _ in range(max_tries):
    shares = _dirichlet(rng, np.full(num_clients, beta))
    cuts = np.floor(np.cumsum(shares)[:-1] * num_records).astype(np.int64)
    cuts = np.minimum(cuts, num_records)
    sizes = np.diff(np.concatenate([[0], cuts, [num_records]]))
    if sizes.min() >= min_size:
      return Partition.from_lists(np.split(order, cuts))
  raise ValueError(
    f"beta: got {beta}; none of {max_tries} draws gave each of"
    f" {num_clients} clients {min_size} of {num_records} records. Use a larger"
    " beta, fewer clients or more tries"
  )


def dirichlet_label_partition(
  labels: np.ndarray | Sequence,
  num_clients: int,
  alpha: float,
  rng: Generator,
  *,
  mixtures: np.ndarray | None = None,
  permute_ids: bool = True,
  discard_first_draw: bool = False,
) -> Partition:
  """Label shift: label shares p_k ~ Dirichlet(alpha q), q the global shares.

  Clients have equal size, and the last one takes the remainder. Where a label
  runs out, a client takes other labels instead, in proportion to what is left
  of them; late clients therefore inherit leftovers, which floors the
  heterogeneity at small alpha. Ids are permuted afterwards so that this does
  not hang on the id; `balanced_label_partition` has no such effect.

  Args:
    labels: [records], any values that sort; their sorted order is the order of
      filling.
    num_clients: Clients.
    alpha: Concentration, positive; small is uneven.
    rng: Source of all draws.
    mixtures: [clients, labels] shares to use instead of drawing, such as those
      of the training split.
    permute_ids: Shuffle the clients at the end.
    discard_first_draw: Throw one Dirichlet draw away, as the original program
      does; only to repeat its partitions.

  Returns:
    The partition, with its mixtures.

  Raises:
    ValueError: alpha is not positive, or more clients than records.

  References:
    Lin et al., FedNLP, Findings of NAACL 2022 (arXiv 2104.08815).
  """
  _check_positive("alpha", alpha)
  values, codes = np.unique(np.asarray(labels), return_inverse=True)
  _check_clients(num_clients, codes.size)
  pools = _shuffled_pools(codes, values.size, rng)
  prior = np.bincount(codes, minlength=values.size) / codes.size
  if discard_first_draw:
    _dirichlet(rng, alpha * prior)
  if mixtures is None:
    mixtures = np.stack(
      [_dirichlet(rng, alpha * prior) for _ in range(num_clients)]
    )
  _check_mixtures(mixtures, num_clients, values.size)
  size = codes.size // num_clients
  sizes = np.full(num_clients, size)
  sizes[-1] = codes.size - size * (num_clients - 1)
  clients = _fill(pools, sizes, mixtures)
  if permute_ids:
    order = rng.permutation(num_clients)
    clients, mixtures = [clients[k] for k in order], mixtures[order]
  return Partition.from_lists(clients, mixtures)


def mixture_partition(
  labels: np.ndarray | Sequence,
  sizes: np.ndarray,
  mixtures: np.ndarray,
  rng: Generator,
) -> Partition:
  """Fills clients of given sizes with given label shares from shuffled pools.

  With sizes from `lognormal_activity` it hands real utterances to devices of
  heavy-tailed activity. The refill rule is that of
  `dirichlet_label_partition`. Large clients are filled first, since they are
  the ones that a drained pool would distort most.

  Args:
    labels: [records], such as the domain of each utterance.
    sizes: [clients], whole numbers that sum to the number of records.
    mixtures: [clients, labels], shares that sum to 1.
    rng: Source of the shuffles.

  Returns:
    The partition.

  Raises:
    ValueError: The sizes do not sum to the records, or shapes do not fit.
  """
  values, codes = np.unique(np.asarray(labels), return_inverse=True)
  sizes = np.asarray(sizes, np.int64)
  if sizes.min() < 0 or sizes.sum() != codes.size:
    raise ValueError(
      f"sizes: got a sum of {sizes.sum()}; they must be at least 0 and sum to"
      f" the {codes.size} records"
    )
  _check_mixtures(mixtures, sizes.size, values.size)
  pools = _shuffled_pools(codes, values.size, rng)
  order = np.argsort(-sizes, kind="stable")
  filled = _fill(pools, sizes[order], mixtures[order])
  clients = [filled[place] for place in np.argsort(order, kind="stable")]
  return Partition.from_lists(clients, mixtures)


def class_dirichlet_partition(
  labels: np.ndarray | Sequence,
  num_clients: int,
  alpha: float,
  rng: Generator,
  *,
  min_size: int = 1,
  max_tries: int = 100,
) -> Partition:
  """Per class, shares of the clients ~ Dirichlet(alpha 1); sizes vary, too.

  This is the partition that most of the literature calls Dirichlet; it is
  another construction than `dirichlet_label_partition`.

  Args:
    labels: [records].
    num_clients: Clients.
    alpha: Concentration, positive.
    rng: Source of all draws.
    min_size: Least records of a client.
    max_tries: Draws before giving up.

  Returns:
    The partition.

  Raises:
    ValueError: alpha is not positive, or no draw in `max_tries` was accepted.

  References:
    Hsu et al., Measuring the Effects of Non-Identical Data Distribution, 2019
    (arXiv 1909.06335); Li et al., ICDE 2022 (arXiv 2102.02079).
  """
  _check_positive("alpha", alpha)
  values, codes = np.unique(np.asarray(labels), return_inverse=True)
  _check_clients(num_clients, codes.size)
  for _ in range(max_tries):
    owners = np.empty(codes.size, np.int64)
    for label in range(values.size):
      pool = rng.permutation(np.flatnonzero(codes == label))
      shares = _dirichlet(rng, np.full(num_clients, alpha))
      cuts = np.floor(np.cumsum(shares)[:-1] * pool.size).astype(np.int64)
      for client, part in enumerate(np.split(pool, cuts)):
        owners[part] = client
    sizes = np.bincount(owners, minlength=num_clients)
    if sizes.min() >= min_size:
      return Partition(
        indices=np.argsort(owners, kind="stable").astype(np.int64),
        offsets=np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
      )
  raise ValueError(
    f"alpha: got {alpha}; none of {max_tries} draws gave each of"
    f" {num_clients} clients {min_size} of {codes.size} records. Use a larger"
    " alpha, fewer clients or more tries"
  )


def _fill(pools, sizes, mixtures):
  """Takes round(p size) records of each label, refilling where one runs out."""
  taken = np.zeros(len(pools), np.int64)
  have = np.array([pool.size for pool in pools])
  clients = []
  for size, shares in zip(sizes, mixtures):
    quota = np.zeros(len(pools), np.int64)
    room = int(size)
    for label, share in enumerate(shares):
      wanted = min(round(share * int(size)), room)
      if label == len(pools) - 1:
        wanted = room
      room -= wanted
      left = have[label] - taken[label] - quota[label]
      quota[label] += min(wanted, left)
      if wanted > left:
        rest = have - taken - quota
        rest[label] = 0
        quota += _refill(int(wanted - left), rest)
    clients.append(
      np.concatenate(
        [pool[t : t + q] for pool, t, q in zip(pools, taken, quota)]
      )
    )
    taken += quota
  # Whatever rounding and excluded labels left over.
  rest = [pool[t:] for pool, t in zip(pools, taken)]
  clients[-1] = np.concatenate([clients[-1], *rest])
  return clients


def _refill(deficit, rest):
  """How much of each label makes up a deficit, in proportion to what is left.

  Args:
    deficit: Records wanted.
    rest: [labels] what may be taken.

  Returns:
    [labels] counts; they sum to the deficit, or to all that is left.
  """
  first, total = rest.copy(), int(rest.sum())
  quota = np.zeros_like(rest)
  if total == 0:
    return quota
  room = deficit
  order = np.argsort(rest, kind="stable")
  for _ in range(2):
    goal = room
    for label in order:
      part = min(math.ceil(first[label] / total * goal), rest[label], room)
      quota[label] += part
      rest[label] -= part
      room -= part
      if room == 0:
        return quota
  return quota


def _shuffled_pools(codes, num_labels, rng):
  return [
    rng.permutation(np.flatnonzero(codes == label))
    for label in range(num_labels)
  ]


def _dirichlet(rng, concentration):
  """A Dirichlet draw; small concentrations may underflow to 0 / 0."""
  for _ in range(1000):
    shares = rng.dirichlet(concentration)
    if np.all(np.isfinite(shares)):
      return shares
  raise ValueError(
    f"alpha, beta: got concentrations down to {concentration.min():.3g}, too"
    " small for floating-point draws"
  )


def _check_positive(field, value):
  if not (math.isfinite(value) and value > 0):
    raise ValueError(f"{field}: got {value}; it must be finite and positive")


def _check_clients(num_clients, num_records):
  if not 1 <= num_clients <= num_records:
    raise ValueError(
      f"num_clients: got {num_clients}; it must lie between 1 and the data"
      f" set's {num_records} records"
    )


def _check_mixtures(mixtures, num_clients, num_labels):
  if mixtures.shape != (num_clients, num_labels):
    raise ValueError(
      f"mixtures: got shape {mixtures.shape}; it must be [clients, labels] ="
      f" {(num_clients, num_labels)}"
    )
  if np.any(mixtures < 0) or not np.allclose(mixtures.sum(1), 1, atol=1e-6):
    raise ValueError(
      "mixtures: got rows that are negative or do not sum to 1; each row holds"
      " a client's label shares"
    )
