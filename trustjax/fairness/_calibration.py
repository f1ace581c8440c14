"""Calibration by group: does a score of 0.7 mean 0.7 for everybody?"""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Real

from trustjax.fairness import _ratios, _validate
from trustjax.fairness._validate import AnyArray


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class GroupCalibration:
  """Reliability of probabilities, group by group.

  Attributes:
    error: Expected calibration error of each group.
    bias: Mean score minus mean label of each group; above 0 the group is
      scored too high.
    brier: Mean squared error of the scores.
    bin_score: Mean score per group and bin; nan in empty bins.
    bin_rate: Share of positives per group and bin; nan in empty bins.
    bin_n: Records per group and bin.
    error_gap: Largest minus smallest `error`.
    bias_gap: Largest minus smallest `bias`.
    sufficiency_gap: Largest difference between groups of the share of
      positives within one bin, over bins in which at least two groups have
      records, weighted by the bin's records.
    n: Records per group.
    n_dropped: Records that the mask left out.
  """

  error: Float[Array, " groups"]
  bias: Float[Array, " groups"]
  brier: Float[Array, " groups"]
  bin_score: Float[Array, "groups bins"]
  bin_rate: Float[Array, "groups bins"]
  bin_n: Float[Array, "groups bins"]
  error_gap: Float[Array, ""]
  bias_gap: Float[Array, ""]
  sufficiency_gap: Float[Array, ""]
  n: Float[Array, " groups"]
  n_dropped: Int[Array, ""]


def group_calibration(
  scores: Real[AnyArray, " records"],
  labels: Real[AnyArray, " records"] | Bool[AnyArray, " records"],
  group: Int[AnyArray, " records"],
  *,
  num_groups: int,
  num_bins: int = 10,
  weights: Real[AnyArray, " records"] | None = None,
  mask: Bool[AnyArray, " records"] | None = None,
  on_empty: str = "error",
) -> GroupCalibration:
  """Compares mean score and share of positives in equal-width bins.

    ECE_g = sum_b n_gb / n_g |mean score_gb - share of positives_gb|

  Bin b holds scores in [b / B, (b + 1) / B); a score of 1 falls into the last.

  Fidelity:
    Paper: calibration within groups, Kleinberg et al. 2017; the binned error
      is Naeini et al. 2015, computed per group. Sufficiency (equal shares of
      positives at equal scores) is that of Barocas et al.
    Here: as defined; the weighting of `sufficiency_gap` is ours.
    Verdict: faithful for `error`, `bias`, `brier`; original for
      `sufficiency_gap`.

  Args:
    scores: Probabilities in [0, 1].
    labels: True labels, 0 or 1.
    group: Group of each record.
    num_groups: Number of groups.
    num_bins: Number of bins.
    weights: Weight of each record.
    mask: Records that count.
    on_empty: "error" or "nan" for a group without records.

  Returns:
    The calibration of every group and its gaps.

  Raises:
    ValueError: If shapes differ, a score is outside [0, 1] or not finite, a
      label is not 0 or 1, a group is out of range, or a group is empty.
  """
  _validate.check_choice("on_empty", on_empty, ("error", "nan"))
  _validate.check_at_least("num_groups", num_groups, 1)
  _validate.check_at_least("num_bins", num_bins, 1)
  _validate.check_same_shape(
    scores=scores, labels=labels, group=group, weights=weights, mask=mask
  )
  check_probabilities("scores", scores, mask)
  _validate.check_binary("labels", labels, mask)
  _validate.check_in_range("group", group, num_groups, mask)
  keep = jnp.ones(group.shape, bool) if mask is None else jnp.asarray(mask)
  dtype = jnp.result_type(float)
  score = jnp.where(keep, jnp.asarray(scores), 0).astype(dtype)
  label = jnp.where(keep, jnp.asarray(labels), 0).astype(dtype)
  weight = jnp.ones(group.shape) if weights is None else jnp.asarray(weights)
  weight = jnp.where(keep, weight, 0).astype(dtype)
  within = jnp.clip((score * num_bins).astype(jnp.int32), 0, num_bins - 1)
  cell = jnp.asarray(group).astype(jnp.int32) * num_bins + within
  cell = jnp.where(keep, cell, num_groups * num_bins)

  def total(values):
    summed = jax.ops.segment_sum(
      weight * values, cell, num_groups * num_bins + 1
    )
    return jnp.reshape(summed[:-1], (num_groups, num_bins))

  bin_n, sum_score = total(jnp.ones_like(score)), total(score)
  sum_label, n = total(label), total(jnp.ones_like(score)).sum(-1)
  if on_empty == "error" and _validate.is_known(n) and (n == 0).any():
    raise ValueError(
      f"group: group {int(jnp.argmax(n == 0))} of {num_groups} has no records;"
      " leave it out, or pass on_empty='nan'"
    )
  error = _ratios.ratio_or_nan(jnp.abs(sum_score - sum_label).sum(-1), n)
  bias = _ratios.ratio_or_nan((sum_score - sum_label).sum(-1), n)
  bin_rate = _ratios.ratio_or_nan(sum_label, bin_n)
  return GroupCalibration(
    error=error,
    bias=bias,
    brier=_ratios.ratio_or_nan(total((score - label) ** 2).sum(-1), n),
    bin_score=_ratios.ratio_or_nan(sum_score, bin_n),
    bin_rate=bin_rate,
    bin_n=bin_n,
    error_gap=jnp.max(error) - jnp.min(error),
    bias_gap=jnp.max(bias) - jnp.min(bias),
    sufficiency_gap=_sufficiency_gap(bin_rate, bin_n),
    n=n,
    n_dropped=jnp.sum(~keep),
  )


def check_probabilities(field, scores, where=None):
  """Raises ValueError unless all scores (that count) lie in [0, 1]."""
  _validate.check_finite(field, scores, where)
  if not _validate.is_known(scores, where):
    return
  bad = (jnp.asarray(scores) < 0) | (jnp.asarray(scores) > 1)
  if where is not None:
    bad &= jnp.asarray(where)
  if bool(bad.any()):
    at = int(jnp.argmax(jnp.ravel(bad)))
    value = float(jnp.ravel(jnp.asarray(scores))[at])
    raise ValueError(f"{field}[{at}]: got {value}; it must lie in [0, 1]")


def _sufficiency_gap(bin_rate, bin_n):
  """Mean over shared bins of the largest difference between groups."""
  some = bin_n > 0
  shared = jnp.sum(some, axis=0) >= 2
  high = jnp.max(jnp.where(some, bin_rate, -jnp.inf), axis=0)
  low = jnp.min(jnp.where(some, bin_rate, jnp.inf), axis=0)
  gap = jnp.where(shared, high - low, 0.0)
  weight = jnp.where(shared, bin_n.sum(0), 0.0)
  return _ratios.ratio_or_nan(jnp.sum(weight * gap), jnp.sum(weight))
