"""How heterogeneous a partition is: sizes, classes, divergences."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from trustjax.federated import _partitions

# Entries of the [rows, clients, labels] block that is held at a time.
_BLOCK = 4_000_000


@dataclasses.dataclass(frozen=True, kw_only=True)
class PartitionStatistics:
  """What a reader needs to judge a partition.

  Attributes:
    num_clients: Clients.
    num_empty: Clients without a record; they count in the sizes only.
    sizes: Records of a client: minimum, quartiles and maximum, float64 [5].
    size_variation: Standard deviation of the sizes over their mean.
    classes_per_client: Mean number of labels on a client.
    largest_share: Mean share of a client's commonest label.
    mean_divergence: Mean Jensen-Shannon divergence of all pairs, in bits.
    noise_floor: The same of a uniform split into clients of these sizes; what
      exceeds it is heterogeneity, the rest is sampling.
  """

  num_clients: int
  num_empty: int
  sizes: np.ndarray
  size_variation: float
  classes_per_client: float
  largest_share: float
  mean_divergence: float
  noise_floor: float


def label_shares(
  labels: np.ndarray | Sequence, partition: _partitions.Partition
) -> np.ndarray:
  """Share of each label on each client, the label x client map.

  Args:
    labels: [records].
    partition: The partition.

  Returns:
    float64 [clients, labels], labels sorted; rows of empty clients are zero.

  Raises:
    ValueError: The labels are not one per record.
  """
  values, codes = np.unique(np.asarray(labels), return_inverse=True)
  if codes.size != partition.num_records:
    raise ValueError(
      f"labels: got {codes.size}; the partition has {partition.num_records}"
      " records"
    )
  owners = np.repeat(np.arange(partition.num_clients), partition.sizes)
  cells = owners * values.size + codes[partition.indices]
  counts = np.bincount(cells, minlength=partition.num_clients * values.size)
  counts = counts.reshape(partition.num_clients, values.size)
  return counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)


def jensen_shannon_matrix(shares: np.ndarray) -> np.ndarray:
  """Jensen-Shannon divergence of every pair of clients, in bits.

    JSD(P, Q) = H((P + Q) / 2) - H(P) / 2 - H(Q) / 2, in [0, 1].

  SciPy's and FedNLP's Jensen-Shannon distance is sqrt(JSD ln 2).

  Args:
    shares: [clients, labels], rows that sum to 1.

  Returns:
    float64 [clients, clients], symmetric, zero on the diagonal.
  """
  clients, labels = shares.shape
  entropies = _entropy(shares)
  matrix = np.empty((clients, clients))
  rows = max(1, _BLOCK // max(1, clients * labels))
  for start in range(0, clients, rows):
    block = shares[start : start + rows]
    middle = _entropy((block[:, None, :] + shares[None, :, :]) / 2)
    own = entropies[start : start + rows]
    matrix[start : start + rows] = middle - (own[:, None] + entropies) / 2
  np.fill_diagonal(matrix, 0.0)
  return np.clip(matrix, 0.0, 1.0)


def heat_map_order(matrix: np.ndarray) -> np.ndarray:
  """Order of the clients in the heat map: by falling row sum.

  Args:
    matrix: [clients, clients] of divergences.

  Returns:
    int64 [clients]; show `matrix[order][:, order]`.
  """
  return np.argsort(-matrix.sum(axis=1), kind="stable")


def mean_divergence(shares: np.ndarray) -> float:
  """Mean Jensen-Shannon divergence over all pairs of clients, in bits.

  Args:
    shares: [clients, labels]; at least two clients.

  Returns:
    In [0, 1].
  """
  clients = len(shares)
  if clients < 2:
    return 0.0
  matrix = jensen_shannon_matrix(shares)
  return float(matrix.sum() / (clients * (clients - 1)))


def partition_statistics(
  labels: np.ndarray | Sequence,
  partition: _partitions.Partition,
  rng: np.random.Generator,
) -> PartitionStatistics:
  """Measures a partition against a uniform split of the same sizes.

  Args:
    labels: [records].
    partition: The partition.
    rng: Source of the uniform split.

  Returns:
    The statistics.
  """
  sizes = partition.sizes
  shares = label_shares(labels, partition)[sizes > 0]
  uniform = _partitions.Partition(
    indices=rng.permutation(partition.num_records), offsets=partition.offsets
  )
  return PartitionStatistics(
    num_clients=partition.num_clients,
    num_empty=int(np.sum(sizes == 0)),
    sizes=np.quantile(sizes, [0, 0.25, 0.5, 0.75, 1]),
    size_variation=float(sizes.std() / sizes.mean()),
    classes_per_client=float(np.mean(np.sum(shares > 0, axis=1))),
    largest_share=float(np.mean(shares.max(axis=1))),
    mean_divergence=mean_divergence(shares),
    noise_floor=mean_divergence(label_shares(labels, uniform)[sizes > 0]),
  )


def _entropy(shares):
  """Entropy along the last axis, in bits, with 0 log 0 = 0."""
  logs = np.log2(np.where(shares > 0, shares, 1.0))
  return -np.sum(shares * logs, axis=-1)
