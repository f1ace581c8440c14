"""Calibration by group: does a score of 0.7 mean 0.7 for everybody?"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key, Real

from trustjax.fairness import _ratios, _resampling, _validate
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

  error: Float[Array, "*batch groups"]
  bias: Float[Array, "*batch groups"]
  brier: Float[Array, "*batch groups"]
  bin_score: Float[Array, "*batch groups bins"]
  bin_rate: Float[Array, "*batch groups bins"]
  bin_n: Float[Array, "*batch groups bins"]
  error_gap: Float[Array, "*batch"]
  bias_gap: Float[Array, "*batch"]
  sufficiency_gap: Float[Array, "*batch"]
  n: Float[Array, "*batch groups"]
  n_dropped: Int[Array, "*batch"]


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
      label is not 0 or 1, a group is out of range, a weight is negative or not
      finite, or a group is empty.
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
  _validate.check_weights("weights", weights, mask)
  found = _calibration(
    jnp.asarray(scores),
    jnp.asarray(labels),
    jnp.asarray(group),
    jnp.ones(group.shape) if weights is None else jnp.asarray(weights),
    jnp.ones(group.shape, bool) if mask is None else jnp.asarray(mask),
    num_groups=num_groups,
    num_bins=num_bins,
  )
  n = found.n
  if on_empty == "error" and _validate.is_known(n) and (n == 0).any():
    raise ValueError(
      f"group: group {int(jnp.argmax(n == 0))} of {num_groups} has no records;"
      " leave it out, or pass on_empty='nan'"
    )
  return found


@functools.partial(jax.jit, static_argnames=("num_groups", "num_bins"))
def _calibration(scores, labels, group, weight, keep, *, num_groups, num_bins):
  """The calibration, from checked arrays."""
  dtype = jnp.result_type(float)
  score = jnp.where(keep, scores, 0).astype(dtype)
  label = jnp.where(keep, labels, 0).astype(dtype)
  weight = jnp.where(keep, weight, 0).astype(dtype)
  within = jnp.clip((score * num_bins).astype(jnp.int32), 0, num_bins - 1)
  cell = group.astype(jnp.int32) * num_bins + within
  cell = jnp.where(keep, cell, num_groups * num_bins)

  def total(values):
    summed = jax.ops.segment_sum(
      weight * values, cell, num_groups * num_bins + 1
    )
    return jnp.reshape(summed[:-1], (num_groups, num_bins))

  bin_n, sum_score = total(jnp.ones_like(score)), total(score)
  sum_label, n = total(label), total(jnp.ones_like(score)).sum(-1)
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


def group_calibration_bootstrap(
  scores: Real[AnyArray, " records"],
  labels: Real[AnyArray, " records"] | Bool[AnyArray, " records"],
  group: Int[AnyArray, " records"],
  *,
  num_groups: int,
  key: Key[Array, ""],
  num_bins: int = 10,
  num: int = 2_000,
  method: str = "percentile",
  confidence: float = 0.95,
) -> _resampling.Bootstrap:
  """Bootstrap intervals of `group_calibration`, records drawn within groups.

  A gap is largest minus smallest, and so is never negative: its interval never
  covers 0. The binned `error` of a perfectly calibrated group is above 0, too,
  by noise within bins; `bias` of each group is signed and is the one to test.

  Args:
    scores: Probabilities in [0, 1].
    labels: True labels, 0 or 1.
    group: Group of each record.
    num_groups: Number of groups.
    key: Typed key.
    num_bins: Number of bins.
    num: Resamples.
    method: "percentile" or "bca".
    confidence: Nominal coverage.

  Returns:
    A bootstrap whose estimate, low, high and replicates are
    `GroupCalibration`; a bin is left out of its own interval where a resample
    leaves it empty.

  Raises:
    ValueError: As `group_calibration`, or an option is unknown.
  """
  # Raises for bad input before anything is drawn.
  group_calibration(
    scores, labels, group, num_groups=num_groups, num_bins=num_bins
  )
  return _resampling.bootstrap(
    _statistic(num_groups, num_bins),
    (jnp.asarray(scores), jnp.asarray(labels), jnp.asarray(group)),
    key=key,
    num=num,
    strata=group,
    by="weights",
    method=method,
    confidence=confidence,
  )


@functools.cache
def _statistic(num_groups, num_bins):
  """The statistic of the bootstrap; cached, so that it compiles once."""

  def statistic(data, weights):
    return group_calibration(
      *data, num_groups=num_groups, num_bins=num_bins, weights=weights
    )

  return statistic


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
