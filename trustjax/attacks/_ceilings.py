"""What a privacy guarantee allows an attack: the other side of each table.

An attack whose lower confidence end lies above the ceiling of a claim
falsifies the claim, or finds a mistake in training or accounting.
"""

import numpy as np
from jaxtyping import Float, Float64

from trustjax.attacks import _validate
from trustjax.attacks._validate import AnyArray


def tpr_ceiling(
  fpr: float | Float[AnyArray, "*shape"], *, epsilon: float, delta: float
) -> Float64[np.ndarray, "*shape"]:
  """Largest TPR at an FPR under (epsilon, delta)-DP.

    min(e^eps f + delta, 1 - e^-eps (1 - delta - f), 1)

  Fidelity:
    Paper: the hypothesis-testing form of DP (Wasserman and Zhou 2010; Kairouz
      et al. 2015), both sides of it.
    Verdict: faithful.

  Args:
    fpr: False positive rates.
    epsilon: At least 0.
    delta: Within [0, 1].

  Returns:
    The ceilings.

  Raises:
    ValueError: If a parameter is out of range.
  """
  _check_privacy(epsilon, delta)
  return tpr_ceiling_from_profile(
    fpr, epsilons=np.array([epsilon]), deltas=np.array([delta])
  )


def tpr_ceiling_from_profile(
  fpr: float | Float[AnyArray, "*shape"],
  *,
  epsilons: Float[AnyArray, " points"],
  deltas: Float[AnyArray, " points"],
) -> Float64[np.ndarray, "*shape"]:
  """Largest TPR at an FPR under a whole privacy profile delta(epsilon).

  The smallest of `tpr_ceiling` over the points of the profile; a coarse grid
  gives a ceiling that is too high, never one too low.

  Fidelity:
    Paper: trade-off function of a profile, Dong et al. 2022, proposition 2.12.
    Verdict: faithful.

  Args:
    fpr: False positive rates.
    epsilons: Points of the profile, each at least 0.
    deltas: delta at each of them, for both orders of the neighbours.

  Returns:
    The ceilings.

  Raises:
    ValueError: If a point is out of range.
  """
  eps = _validate.finite("epsilons", epsilons)
  delta = _validate.finite("deltas", deltas)
  _validate.check_shape("deltas", delta, eps.shape)
  if not eps.size or (eps < 0).any() or ((delta < 0) | (delta > 1)).any():
    raise ValueError(
      "epsilons, deltas: allowed are one or more points with epsilon >= 0 and"
      " delta in [0, 1]"
    )
  rate = _validate.finite("fpr", fpr)
  # Sums of probabilities may exceed 1 by their rounding.
  if ((rate < 0) | (rate > 1 + 1e-9)).any():
    raise ValueError(f"fpr: got {fpr}; false positive rates lie in [0, 1]")
  f = rate[..., None]
  # e^700 is finite, and no epsilon beyond it says anything.
  growth = np.exp(np.minimum(eps, 700.0))
  upper = np.minimum(growth * f + delta, 1 - (1 - delta - f) / growth)
  return np.asarray(np.clip(upper, 0.0, 1.0).min(axis=-1))


def balanced_accuracy_ceiling(*, epsilon: float, delta: float) -> float:
  """Largest balanced accuracy of any attack: (e^eps + delta) / (1 + e^eps).

  Fidelity:
    Paper: Kairouz et al. 2015; Humphries et al. 2023 for membership.
    Verdict: faithful.

  Args:
    epsilon: At least 0.
    delta: Within [0, 1].

  Returns:
    The ceiling.

  Raises:
    ValueError: If a parameter is out of range.
  """
  _check_privacy(epsilon, delta)
  decay = np.exp(-epsilon)
  return float(min((1 + delta * decay) / (1 + decay), 1.0))


def extraction_ceiling(
  num_candidates: int, num_positions: int, *, epsilon: float, delta: float
) -> float:
  """Largest probability of extracting a uniform code: e^eps |V|^-n + delta.

  The guarantee must be the one for all copies of the canary together
  (`group_privacy`, or a mixture accountant): with R copies an epsilon for one
  record says nothing about the code.

  Fidelity:
    Paper: none; applies the definition of DP to the event "the guess is
      right", which has probability |V|^-n without the canary.
    Verdict: original.

  Args:
    num_candidates: Size of the candidate set V.
    num_positions: Unknown tokens n.
    epsilon: Of the group of copies.
    delta: Of the group of copies.

  Returns:
    The ceiling, at most 1.

  Raises:
    ValueError: If a parameter is out of range.
  """
  _check_privacy(epsilon, delta)
  _validate.check_at_least("num_candidates", num_candidates, 1)
  _validate.check_at_least("num_positions", num_positions, 1)
  log_success = epsilon - num_positions * np.log(num_candidates)
  return float(min(np.exp(min(log_success, 0.0)) + delta, 1.0))


def group_privacy(
  copies: int, *, epsilon: float, delta: float
) -> tuple[float, float]:
  """Generic guarantee for a group of records.

    (R eps, delta (e^{R eps} - 1) / (e^eps - 1))

  A mixture accountant gives a smaller epsilon; this one needs no knowledge of
  the mechanism. delta may come out above 1: then it guarantees nothing.

  Fidelity:
    Paper: Vadhan, The Complexity of Differential Privacy, lemma 2.2.
    Verdict: faithful.

  Args:
    copies: R, records of the group.
    epsilon: Of one record.
    delta: Of one record.

  Returns:
    epsilon and delta of the group.

  Raises:
    ValueError: If a parameter is out of range.
  """
  _check_privacy(epsilon, delta)
  _validate.check_at_least("copies", copies, 1)
  if epsilon == 0:
    return 0.0, copies * delta
  if delta == 0:
    return copies * epsilon, 0.0
  log_growth = (
    copies * epsilon
    + np.log(-np.expm1(-copies * epsilon))
    - np.log(np.expm1(epsilon))
  )
  return copies * epsilon, float(delta * np.exp(min(log_growth, 700.0)))


def _check_privacy(epsilon, delta):
  _validate.check_at_least("epsilon", epsilon, 0)
  _validate.check_within("delta", delta, 0, 1)
