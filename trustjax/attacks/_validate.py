"""Checks that every attack makes before it computes.

Attacks are judged by numbers of a few per mille, so input that would shift
them silently (a nan, a record without a shadow model, a label out of range)
is an error that names the place.
"""

from collections.abc import Iterable
from typing import Any

import jax
import numpy as np
from jax import core
from jaxtyping import Bool, Float64

# Attacks take JAX and NumPy arrays alike.
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
  """Raises ValueError unless value is finite and value >= least."""
  # Written so that a nan fails it, too.
  if not least <= value < np.inf:
    raise ValueError(
      f"{field}: got {value!r}; it must be finite and at least {least}"
    )


def check_within(field: str, value: float, low: float, high: float) -> None:
  """Raises ValueError unless low <= value <= high."""
  if not low <= value <= high:
    raise ValueError(f"{field}: got {value!r}; it must lie in [{low}, {high}]")


def check_between(field: str, value: float, low: float, high: float) -> None:
  """Raises ValueError unless low < value < high."""
  if not low < value < high:
    raise ValueError(
      f"{field}: got {value!r}; it must lie strictly between {low} and {high}"
    )


def check_positive(field: str, value: float) -> None:
  """Raises ValueError unless value is finite and positive."""
  if not 0 < value < np.inf:
    raise ValueError(f"{field}: got {value}; it must be finite and positive")


def check_shape(field: str, array: Any, shape: tuple[int, ...]) -> None:
  """Raises ValueError unless the array has the shape."""
  if np.shape(array) != tuple(shape):
    raise ValueError(
      f"{field}: got shape {np.shape(array)}; it must be {tuple(shape)}"
    )


def check_in_range(
  field: str, ids: Any, low: int, high: int, where: Any = None
) -> None:
  """Raises ValueError unless low <= ids < high (where it counts)."""
  if not is_known(ids, where):
    return
  values = np.asarray(ids)
  bad = (values < low) | (values >= high)
  if where is not None:
    bad &= np.asarray(where)
  if bad.any():
    raise ValueError(
      f"{field}{_first(bad)}: got {values[tuple(_first(bad))]}; it must lie in"
      f" [{low}, {high})"
    )


def finite(field: str, array: Any) -> Float64[np.ndarray, "..."]:
  """The array in float64, or ValueError at its first nan or infinity."""
  values = np.asarray(array, np.float64)
  bad = ~np.isfinite(values)
  if bad.any():
    raise ValueError(
      f"{field}{_first(bad)}: got {values[tuple(_first(bad))]}; statistics and"
      " scores must be finite numbers"
    )
  return values


def membership(
  field: str, array: Any, shape: tuple[int, ...]
) -> Bool[np.ndarray, "..."]:
  """The array as booleans, or ValueError unless it is 0/1 of this shape."""
  check_shape(field, array, shape)
  values = np.asarray(array)
  if values.dtype != np.bool_:
    bad = (values != 0) & (values != 1)
    if bad.any():
      raise ValueError(
        f"{field}{_first(bad)}: got {values[tuple(_first(bad))]}; membership"
        " is 0 or 1"
      )
  return values.astype(bool)


def check_target(target: int | None, num_models: int) -> None:
  """Raises ValueError unless the target is one of the models, or None."""
  if target is not None and not 0 <= target < num_models:
    raise ValueError(
      f"target: got {target}; it must be None or lie in [0, {num_models})"
    )


def _first(bad: np.ndarray | np.bool_) -> list[int]:
  """Index of the first offender, as it is written in a message."""
  return [int(i) for i in np.argwhere(bad)[0]]
