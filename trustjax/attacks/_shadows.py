"""Shadow models: moments of a statistic where a record was in, and out.

Every model is a shadow of every other: with a target of None each model is
attacked by all the others (leave one out).
"""

import dataclasses

import numpy as np
from jaxtyping import Bool, Float64, Int

from trustjax.attacks import _validate

VARIANCES = ("auto", "per_record", "fixed", "global")
CENTERS = ("mean", "median")
# From here on a record's own variance is known well enough (Carlini et al.).
_ENOUGH_SHADOWS = 64


@dataclasses.dataclass(frozen=True, kw_only=True)
class Moments:
  """A normal law per record.

  Attributes:
    mean: Its centre.
    std: Its standard deviation.
  """

  mean: Float64[np.ndarray, " records"]
  std: Float64[np.ndarray, " records"]


def targets(target: int | None, num_models: int) -> list[int]:
  """The models under attack.

  Args:
    target: One model, or None for all of them.
    num_models: Number of models.

  Returns:
    Their indices.

  Raises:
    ValueError: If the target is not one of the models.
  """
  _validate.check_target(target, num_models)
  return list(range(num_models)) if target is None else [target]


def resolve_variance(variance: str, num_shadows: int) -> str:
  """The variance that "auto" stands for.

  Args:
    variance: One of `VARIANCES`.
    num_shadows: Shadow models of one target.

  Returns:
    "per_record" from 64 models on (the target among them), else "fixed".

  Raises:
    ValueError: If the name is unknown.
  """
  _validate.check_choice("variance", variance, VARIANCES)
  if variance != "auto":
    return variance
  return "per_record" if num_shadows + 1 >= _ENOUGH_SHADOWS else "fixed"


def check_counts(
  count: Int[np.ndarray, " records"],
  side: str,
  least: int,
  target: int,
  *,
  field: str = "member",
) -> None:
  """Raises ValueError for the first record with too few shadows on a side.

  Args:
    count: Shadow models of each record on that side.
    side: "in" or "out".
    least: Models that the attack needs.
    target: The model under attack, for the message.
    field: Name of the memberships, for the message.
  """
  if (count < least).any():
    record = int(np.argmax(count < least))
    raise ValueError(
      f"{field}[:, {record}]: besides target {target} the record is {side} for"
      f" {int(count[record])} models; this attack needs at least {least}"
      f" (train more shadow models, leave the record out, or use"
      " online=False or variance='fixed')"
    )


def moments(
  stats: Float64[np.ndarray, "shadows records"],
  where: Bool[np.ndarray, "shadows records"],
  *,
  variance: str,
  center: str,
  min_std: float,
) -> Moments:
  """Centre and spread of each record's statistic over some of the shadows.

  Args:
    stats: Statistic of each record under each shadow.
    where: The shadows that count, at least one for each record.
    variance: "per_record", "fixed" or "global".
    center: "mean" or "median".
    min_std: Floor of the standard deviation.

  Returns:
    The normal laws.

  Raises:
    ValueError: If no record has two shadows to learn a variance from.
  """
  count = where.sum(axis=0)
  mean = np.where(where, stats, 0).sum(axis=0) / count
  deviation = np.where(where, stats - mean, 0)
  squares = np.einsum("sr,sr->r", deviation, deviation)
  if variance == "global":
    # The spread between records is counted in, as published code does.
    spread = np.full(mean.shape, np.std(stats[where]))
  elif variance == "fixed":
    freedom = (count - 1).sum()
    if freedom < 1:
      raise ValueError(
        "member: no record has two shadow models on one side, so that no"
        " variance can be learned; train more shadow models"
      )
    spread = np.full(mean.shape, np.sqrt(squares.sum() / freedom))
  else:
    spread = np.sqrt(squares / np.maximum(count - 1, 1))
  if center == "median":
    mean = np.nanmedian(np.where(where, stats, np.nan), axis=0)
  return Moments(mean=mean, std=np.maximum(spread, min_std))
