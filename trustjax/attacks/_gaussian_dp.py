"""Gaussian differential privacy: one number mu, and what it means.

A mechanism is mu-GDP if telling two neighbouring data sets apart is at least
as hard as telling N(0, 1) from N(mu, 1) by one draw.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Float64
from scipy import optimize, special

from trustjax.attacks import _validate
from trustjax.attacks._validate import AnyArray

# Where the search for an epsilon gives up: e^700 is the largest double.
_LARGEST_EPSILON = 700.0


def gdp_delta(
  mu: float, epsilon: float | Float[AnyArray, "*shape"]
) -> Float64[np.ndarray, "*shape"]:
  """delta(epsilon) of a mu-GDP mechanism.

    delta = Phi(-epsilon / mu + mu / 2) - e^epsilon Phi(-epsilon / mu - mu / 2)

  Args:
    mu: Separation, at least 0.
    epsilon: One value or several.

  Returns:
    The deltas.

  Raises:
    ValueError: If mu is negative or not finite.

  References:
    Dong, Roth, Su, Gaussian Differential Privacy, corollary 2.13, 2022,
    arXiv 1905.02383.
  """
  _validate.check_at_least("mu", mu, 0)
  eps = np.asarray(epsilon, np.float64)
  if mu == 0:
    return np.asarray(np.where(eps >= 0, 0.0, -np.expm1(eps)))
  first = special.log_ndtr(-eps / mu + mu / 2)
  second = eps + special.log_ndtr(-eps / mu - mu / 2)
  # exp(first) - exp(second) without cancelling where both are tiny; where the
  # first vanishes, so does the difference.
  gap = np.subtract(
    second, first, out=np.zeros_like(eps), where=np.isfinite(first)
  )
  gap = np.minimum(gap, 0.0)
  return np.asarray(np.exp(first) * -np.expm1(gap))


def gdp_epsilon(mu: float, delta: float) -> float:
  """Smallest epsilon >= 0 such that mu-GDP implies (epsilon, delta)-DP.

  Args:
    mu: Separation, at least 0.
    delta: Between 0 and 1, both excluded.

  Returns:
    epsilon.

  Raises:
    ValueError: If an argument is out of range, or mu is so large that epsilon
      exceeds 700.

  Example:
    >>> gdp_epsilon(1.0, 1e-5)
    4.377...
  """
  _validate.check_at_least("mu", mu, 0)
  _validate.check_between("delta", delta, 0, 1)
  if float(gdp_delta(mu, 0.0)) <= delta:
    return 0.0
  if float(gdp_delta(mu, _LARGEST_EPSILON)) > delta:
    raise ValueError(
      f"mu: got {mu}; its epsilon at delta {delta} exceeds {_LARGEST_EPSILON}"
    )
  return _root(
    lambda eps: float(gdp_delta(mu, eps)) - delta, 0.0, _LARGEST_EPSILON
  )


def gdp_mu(epsilon: float, delta: float) -> float:
  """The mu whose epsilon at this delta is the one given.

  Args:
    epsilon: At least 0.
    delta: Between 0 and 1, both excluded.

  Returns:
    mu.

  Raises:
    ValueError: If an argument is out of range.
  """
  _validate.check_within("epsilon", epsilon, 0, _LARGEST_EPSILON)
  _validate.check_between("delta", delta, 0, 1)
  high = 1.0
  while float(gdp_delta(high, epsilon)) <= delta:
    high *= 2
  return _root(lambda mu: float(gdp_delta(mu, epsilon)) - delta, 0.0, high)


def gdp_tpr(
  mu: float, fpr: float | Float[AnyArray, "*shape"]
) -> Float64[np.ndarray, "*shape"]:
  """Largest TPR at an FPR against a mu-GDP mechanism: Phi(Phi^-1(fpr) + mu).

  Args:
    mu: Separation, at least 0.
    fpr: False positive rates.

  Returns:
    The true positive rates.

  Raises:
    ValueError: If mu is negative or not finite.
  """
  _validate.check_at_least("mu", mu, 0)
  return np.asarray(special.ndtr(special.ndtri(np.asarray(fpr)) + mu))


def _root(function: Callable[[float], float], low: float, high: float) -> float:
  """Where the function crosses zero between two points."""
  found = optimize.root_scalar(function, bracket=(low, high), xtol=1e-13)
  return float(found.root)
