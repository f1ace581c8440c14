"""Feature shift: clusters of sentence embeddings as pseudo-labels."""

import numpy as np

_EPSILON = 1e-12


def cluster_labels(
  embeddings: np.ndarray,
  num_clusters: int,
  rng: np.random.Generator,
  *,
  num_restarts: int = 4,
  max_iterations: int = 100,
) -> np.ndarray:
  """Clusters L2-normalised embeddings by k-means with k-means++ starts.

  Give the result to `natural_partition` (each cluster is a client) or to
  `dirichlet_label_partition` (each cluster is a label). Cluster train and test
  together, so that a number means the same in both.

  Args:
    embeddings: [records, dim], from any sentence encoder.
    num_clusters: Clusters, at most as many as records.
    rng: Source of the starts.
    num_restarts: Starts; the one of least inertia wins.
    max_iterations: Sweeps of each start.

  Returns:
    int64 [records], from 0 to num_clusters - 1.

  Raises:
    ValueError: Embeddings are not a finite matrix, or a count is impossible.

  References:
    Arthur and Vassilvitskii, k-means++, SODA 2007.
  """
  if embeddings.ndim != 2 or not np.all(np.isfinite(embeddings)):
    raise ValueError(
      f"embeddings: got shape {embeddings.shape}; it must be a finite matrix"
      " [records, dim]"
    )
  if not 1 <= num_clusters <= len(embeddings):
    raise ValueError(
      f"num_clusters: got {num_clusters}; it must lie between 1 and the"
      f" {len(embeddings)} records"
    )
  points = np.asarray(embeddings, np.float64)
  lengths = np.linalg.norm(points, axis=1, keepdims=True)
  points = points / np.maximum(lengths, _EPSILON)
  runs = [
    _lloyd(points, _plus_plus(points, num_clusters, rng), max_iterations)
    for _ in range(num_restarts)
  ]
  return min(runs, key=lambda run: run[1])[0]


def _squared_distances(points, centres):
  """[points, centres], from the inner products."""
  squares = np.sum(points**2, axis=1)[:, None] + np.sum(centres**2, axis=1)
  return np.maximum(squares - 2 * points @ centres.T, 0.0)


def _plus_plus(points, num_clusters, rng):
  """Centres drawn with probability by squared distance to those before."""
  centres = points[[rng.integers(len(points))]]
  nearest = _squared_distances(points, centres)[:, 0]
  while len(centres) < num_clusters:
    total = nearest.sum()
    weights = nearest / total if total > 0 else None
    chosen = points[[rng.choice(len(points), p=weights)]]
    centres = np.concatenate([centres, chosen])
    nearest = np.minimum(nearest, _squared_distances(points, chosen)[:, 0])
  return centres


def _lloyd(points, centres, max_iterations):
  """Assigns and averages in turn; returns (labels, inertia)."""
  labels = np.full(len(points), -1)
  for _ in range(max_iterations):
    distances = _squared_distances(points, centres)
    new_labels = np.argmin(distances, axis=1)
    if np.array_equal(new_labels, labels):
      break
    labels = new_labels
    sums = np.zeros_like(centres)
    np.add.at(sums, labels, points)
    counts = np.bincount(labels, minlength=len(centres))
    # An empty cluster stays where it is.
    filled = counts > 0
    centres = np.where(
      filled[:, None], sums / np.maximum(counts, 1)[:, None], centres
    )
  distances = _squared_distances(points, centres)
  labels = np.argmin(distances, axis=1)
  return labels, float(distances[np.arange(len(points)), labels].sum())
