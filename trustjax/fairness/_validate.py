"""Checks that every metric makes before it computes.

Options and shapes are checked always. Values can be checked only where they
are known: inside `jax.jit` they are not, and there undefined input comes out
as nan instead of an error.
"""

from collections.abc import Callable, Iterable
from typing import Any

import jax
import numpy as np
from jax import core

# Metrics take JAX and NumPy arrays alike.
AnyArray = jax.Array | np.ndarray


def is_known(*arrays: Any) -> bool:
  """Whether the values of all arrays can be looked at (no tracer)."""
  return not any(isinstance(array, core.Tracer) for array in arrays)


def check_choice(field: str, value: Any, allowed: Iterable[Any]) -> None:
  """Raises ValueError unless the value is one of those allowed."""
  allowed = tuple(allowed)
  if value not in allowed:
    raise ValueError(
      f"{field}: got {value!r}; allowed are {', '.join(map(repr, allowed))}"
    )


def check_at_least(field: str, value: float, least: float) -> None:
  """Raises ValueError unless value >= least."""
  # Written so that a nan fails it, too.
  if not value >= least:
    raise ValueError(f"{field}: got {value!r}; it must be at least {least}")


def check_between(field: str, value: float, low: float, high: float) -> None:
  """Raises ValueError unless low < value < high."""
  if not low < value < high:
    raise ValueError(
      f"{field}: got {value!r}; it must lie strictly between {low} and {high}"
    )


def check_finite(field: str, array: Any, where: Any = None) -> None:
  """Raises ValueError at the first entry that is nan or infinite.

  Args:
    field: Name of the argument.
    array: The values; nothing is checked while they are traced.
    where: Boolean array of the entries that count, or None for all.
  """
  if not is_known(array, where):
    return
  bad = ~np.isfinite(np.asarray(array))
  if where is not None:
    bad &= np.asarray(where)
  if bad.any():
    index = tuple(int(i) for i in np.argwhere(bad)[0])
    raise ValueError(
      f"{field}{list(index)}: got {np.asarray(array)[index]}; scores must be"
      " finite numbers"
    )


def check_in_range(field: str, ids: Any, size: int, where: Any = None) -> None:
  """Raises ValueError unless 0 <= ids < size (where it counts)."""
  if not is_known(ids, where):
    return
  bad = (np.asarray(ids) < 0) | (np.asarray(ids) >= size)
  if where is not None:
    bad &= np.asarray(where)
  if bad.any():
    index = tuple(int(i) for i in np.argwhere(bad)[0])
    raise ValueError(
      f"{field}{list(index)}: got {np.asarray(ids)[index]}; it must lie in"
      f" [0, {size})"
    )


def check_binary(field: str, array: Any, where: Any = None) -> None:
  """Raises ValueError unless every entry (that counts) is 0 or 1."""
  if not is_known(array, where):
    return
  values = np.asarray(array)
  bad = (values != 0) & (values != 1)
  if where is not None:
    bad &= np.asarray(where)
  if bad.any():
    index = tuple(int(i) for i in np.argwhere(bad)[0])
    raise ValueError(
      f"{field}{list(index)}: got {values[index]}; it must be 0 or 1"
    )


def check_weights(field: str, weights: Any, where: Any = None) -> None:
  """Raises ValueError unless every weight (that counts) is finite and >= 0."""
  if weights is None or not is_known(weights, where):
    return
  check_finite(field, weights, where)
  bad = np.asarray(weights) < 0
  if where is not None:
    bad &= np.asarray(where)
  if bad.any():
    index = tuple(int(i) for i in np.argwhere(bad)[0])
    raise ValueError(
      f"{field}{list(index)}: got {np.asarray(weights)[index]}, a negative"
      " weight; allowed are >= 0"
    )


def check_same_shape(**arrays: Any) -> None:
  """Raises ValueError unless all given arrays have one shape."""
  shapes = {
    name: np.shape(array) for name, array in arrays.items() if array is not None
  }
  if len(set(shapes.values())) > 1:
    listed = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
    raise ValueError(f"shapes: got {listed}; they must be equal")


def as_partial(fn: Callable[..., Any]) -> jax.tree_util.Partial:
  """A callable as an argument of a compiled program.

  What a `Partial` closes over is traced, and what it calls is part of the
  program's identity: models that differ in parameters alone share a program.
  """
  if isinstance(fn, jax.tree_util.Partial):
    return fn
  return jax.tree_util.Partial(fn)
