"""Who pays, and what is forgotten: scores by mixture, over periods.

A test set has no devices and no periods. What a group of devices, or a period,
would score follows from the accuracy of each class and from the group's mixture
of classes, without a record of anybody's own.
"""

import dataclasses

import numpy as np
from jaxtyping import Float, Int


def class_shares(
  labels: Int[np.ndarray, " records"],
  groups: Int[np.ndarray, " records"],
  *,
  num_classes: int,
  num_groups: int,
) -> Float[np.ndarray, "groups classes"]:
  """Mixture of classes in every group of records.

  Args:
    labels: Class of each record, 0 to num_classes - 1.
    groups: Group of each record, such as the period of its arrival or the
      activity decile of its device.
    num_classes: Classes.
    num_groups: Groups.

  Returns:
    float64 [groups, classes]; rows add up to 1, those of empty groups to 0.

  Raises:
    ValueError: A label or group does not exist.
  """
  for field, values, most in (
    ("labels", labels, num_classes),
    ("groups", groups, num_groups),
  ):
    if values.size and not (values.min() >= 0 and values.max() < most):
      raise ValueError(
        f"{field}: got {values.min()} to {values.max()}; allowed are 0 to"
        f" {most - 1}"
      )
  counts = np.bincount(
    groups * num_classes + labels, minlength=num_groups * num_classes
  ).reshape(num_groups, num_classes)
  return counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)


def mixture_accuracy(
  by_class: Float[np.ndarray, " classes"],
  shares: Float[np.ndarray, "groups classes"],
) -> Float[np.ndarray, " groups"]:
  """Accuracy that every group of records would see.

    accuracy_g = sum_c share_gc accuracy_c / sum_c share_gc,

  over the classes that the test set has.

  Args:
    by_class: Accuracy of each class; nan where the test set has no record.
    shares: From `class_shares`.

  Returns:
    float64 [groups]; nan for a group without any such class.
  """
  seen = np.isfinite(by_class)
  weights = shares[:, seen]
  total = weights.sum(axis=1)
  hits = weights @ by_class[seen]
  return np.where(total > 0, hits / np.where(total > 0, total, 1.0), np.nan)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Transfer:
  """What later training did to what was learnt earlier.

  Attributes:
    final_earlier: Mean accuracy on the earlier periods at the end.
    backward: Mean over the earlier periods of the accuracy at the end minus
      that right after the period; negative where it was forgotten.
    forgetting: Mean over the earlier periods of the best accuracy ever, from
      the period's own end on, minus that at the end; at least 0.
  """

  final_earlier: float
  backward: float
  forgetting: float


def transfer(accuracy: Float[np.ndarray, "after of"]) -> Transfer:
  """Backward transfer and forgetting.

  Args:
    accuracy: Row t: after period t; column s: on the data of period s.

  Returns:
    The means over all periods but the last.

  Raises:
    ValueError: The matrix is not square, or there is one period only.

  Example:
    >>> transfer(np.array([[0.9, 0.1], [0.6, 0.8]])).backward
    -0.30000000000000004

  References:
    Lopez-Paz and Ranzato, Gradient Episodic Memory for Continual Learning,
    NeurIPS 2017 (backward transfer); Chaudhry et al., Riemannian Walk for
    Incremental Learning, ECCV 2018 (forgetting).
  """
  periods = accuracy.shape[0]
  if accuracy.shape != (periods, periods) or periods < 2:
    raise ValueError(
      f"accuracy: got shape {accuracy.shape}; it must be [periods, periods] of"
      " at least 2 periods"
    )
  last = accuracy[-1, :-1]
  best = [accuracy[s:, s].max() for s in range(periods - 1)]
  return Transfer(
    final_earlier=float(last.mean()),
    backward=float((last - np.diagonal(accuracy)[:-1]).mean()),
    forgetting=float((np.array(best) - last).mean()),
  )
