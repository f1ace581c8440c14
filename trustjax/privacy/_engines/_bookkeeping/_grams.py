"""Scalar products of the left vectors of two uses, one-hot ones included."""

from collections.abc import Callable

import jax.numpy as jnp

from trustjax.privacy._engines import _float64
from trustjax.privacy._engines._bookkeeping import _sites

Factors = _sites.Factors


def left_gram(multiply: Callable, a: Factors, b: Factors):
  """(l_t . l_s) of all pairs of positions.

  Args:
    multiply: Two arrays [..., t, d] and [..., s, d] to (their scalar products
      [..., t, s] in float64, the relative error of these).
    a: Outer products, of one unit or of all.
    b: The others.

  Returns:
    The same of the left vectors; exact where one side is an index.
  """
  if a.is_index and b.is_index:
    same = a.left[..., :, None] == b.left[..., None, :]
    return same.astype(jnp.float64), 0.0
  if a.is_index:
    # One-hot against dense: the entry that the index names.
    entries = jnp.take_along_axis(b.left, a.left[..., None, :], axis=-1)
    return jnp.swapaxes(_float64.widen(entries, jnp.float64), -1, -2), 0.0
  if b.is_index:
    transposed, error = left_gram(multiply, b, a)
    return jnp.swapaxes(transposed, -1, -2), error
  return multiply(a.left, b.left)
