"""A label-shift partition without an order of the clients."""

import math
from collections.abc import Sequence

import numpy as np
import scipy.optimize
import scipy.sparse

from trustjax.federated import _partitions

# Keeps every entry positive, so that any row and column sums can be reached.
_FLOOR = 1e-6
_TOLERANCE = 1e-9


def balanced_label_partition(
  labels: np.ndarray | Sequence,
  num_clients: int,
  alpha: float,
  rng: _partitions.Generator,
  *,
  max_iterations: int = 20_000,
) -> _partitions.Partition:
  """Label shift in which no client inherits what others left over.

  All p_k ~ Dirichlet(alpha q) are drawn first; the matrix of shares is scaled
  to the clients' sizes and the labels' counts by alternating normalisation,
  and then rounded so that both stay exact (each entry to a neighbouring whole
  number, as close to its value as the sums allow).

  Args:
    labels: [records], any values that sort.
    num_clients: Clients; their sizes differ by at most 1.
    alpha: Concentration, positive; small is uneven.
    rng: Source of all draws.
    max_iterations: Sweeps of the normalisation.

  Returns:
    The partition, with its scaled mixtures.

  Raises:
    ValueError: alpha is not positive, or the scaling did not converge.
  """
  if not (math.isfinite(alpha) and alpha > 0):
    raise ValueError(f"alpha: got {alpha}; it must be finite and positive")
  values, codes = np.unique(np.asarray(labels), return_inverse=True)
  if not 1 <= num_clients <= codes.size:
    raise ValueError(
      f"num_clients: got {num_clients}; it must lie between 1 and the data"
      f" set's {codes.size} records"
    )
  counts = np.bincount(codes, minlength=values.size)
  sizes = np.full(num_clients, codes.size // num_clients)
  sizes[: codes.size % num_clients] += 1
  shares = rng.dirichlet(alpha * counts / codes.size, size=num_clients)
  scaled = scale_to_margins(
    np.nan_to_num(shares) + _FLOOR, sizes, counts, max_iterations
  )
  table = round_to_margins(scaled, sizes, counts)
  cuts = np.cumsum(table, axis=0)[:-1]
  parts = []
  for label in range(values.size):
    pool = rng.permutation(np.flatnonzero(codes == label))
    parts.append(np.split(pool, cuts[:, label]))
  return _partitions.Partition.from_lists(
    [np.concatenate(client) for client in zip(*parts)],
    scaled / scaled.sum(axis=1, keepdims=True),
  )


def scale_to_margins(
  matrix: np.ndarray,
  row_sums: np.ndarray,
  column_sums: np.ndarray,
  max_iterations: int,
) -> np.ndarray:
  """Scales rows and columns in turn until both sums are met.

  Args:
    matrix: [rows, columns], positive.
    row_sums: [rows].
    column_sums: [columns], with the same total.
    max_iterations: Sweeps.

  Returns:
    [rows, columns].

  Raises:
    ValueError: Not converged.

  References:
    Sinkhorn and Knopp, Pacific Journal of Mathematics 1967.
  """
  for _ in range(max_iterations):
    matrix = matrix * (row_sums / matrix.sum(axis=1))[:, None]
    totals = matrix.sum(axis=0)
    if np.max(np.abs(totals / column_sums - 1)) < _TOLERANCE:
      return matrix
    matrix = matrix * (column_sums / totals)[None, :]
  raise ValueError(
    f"alpha: the label shares did not converge in {max_iterations} sweeps;"
    " use a larger alpha or more iterations"
  )


def round_to_margins(
  matrix: np.ndarray, row_sums: np.ndarray, column_sums: np.ndarray
) -> np.ndarray:
  """Rounds every entry up or down so that all row and column sums are exact.

  The rounding that agrees best with the fractions is a transport problem,
  whose linear relaxation has whole-numbered corners.

  Args:
    matrix: [rows, columns] with (about) these sums.
    row_sums: [rows], whole numbers.
    column_sums: [columns], whole numbers with the same total.

  Returns:
    int64 [rows, columns].
  """
  base = np.floor(matrix + _TOLERANCE).astype(np.int64)
  missing_rows = row_sums - base.sum(axis=1)
  missing_columns = column_sums - base.sum(axis=0)
  rows, columns = matrix.shape
  gain = (matrix - base).ravel()
  cells = np.arange(rows * columns)
  ones = np.ones(cells.size)
  sums = scipy.sparse.vstack(
    [
      scipy.sparse.csr_matrix((ones, (cells // columns, cells))),
      scipy.sparse.csr_matrix((ones, (cells % columns, cells))),
    ]
  )
  solution = scipy.optimize.linprog(
    -gain,
    A_eq=sums,
    b_eq=np.concatenate([missing_rows, missing_columns]),
    bounds=(0, 1),
    # Simplex, since an interior point need not be whole.
    method="highs-ds",
  )
  if not solution.success:
    raise ValueError(f"no rounding meets the sums: {solution.message}")
  return base + np.rint(solution.x).astype(np.int64).reshape(matrix.shape)
