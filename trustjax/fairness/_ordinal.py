"""Scores of which only the order matters, in types that JAX keeps."""

import numpy as np
from jaxtyping import Real

from trustjax.fairness._validate import AnyArray


def ordinal(scores: Real[AnyArray, "*shape"]) -> Real[AnyArray, "*shape"]:
  """Replaces wide numbers of the host by their ranks.

  JAX computes in 32 bits, where the probabilities 1 - 1e-9 and 1 - 1e-10 of a
  confident classifier are one number, and 1e-50 is 0: comparisons would find
  ties that are not there.

  Args:
    scores: Any numbers.

  Returns:
    For NumPy arrays of more than 32 bits, how many distinct smaller values
    each has; other arrays as they are.
  """
  if not isinstance(scores, np.ndarray) or scores.dtype.itemsize <= 4:
    return scores
  _, rank = np.unique(scores, return_inverse=True)
  return rank.reshape(scores.shape).astype(np.int32)
