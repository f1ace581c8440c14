"""What a score does when only the protected attribute changes."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key, Real

from trustjax.fairness import _ratios, _resampling, _validate
from trustjax.fairness._validate import AnyArray


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class CounterfactualGap:
  """Differences between an item and its counterfactuals.

  Attributes:
    mean: Mean |p - p'| over items and their valid substitutions.
    signed: Mean p' - p: above 0 the substitution raises the score.
    maximum: Mean over items of the largest |p - p'|.
    flip_rate: Share of substitutions that change the decision.
    per_item: Mean |p - p'| of each item; nan without a valid substitution.
    coverage: Share of items with a valid substitution.
    n: Valid substitutions.
    n_dropped: Invalid ones; they are counted, never scored as 0.
  """

  mean: Float[Array, ""]
  signed: Float[Array, ""]
  maximum: Float[Array, ""]
  flip_rate: Float[Array, ""]
  per_item: Float[Array, " items"]
  coverage: Float[Array, ""]
  n: Int[Array, ""]
  n_dropped: Int[Array, ""]
  metric: str = dataclasses.field(
    default="counterfactual_gap", metadata={"static": True}
  )
  variant: str = dataclasses.field(default="", metadata={"static": True})
  protocol: str = dataclasses.field(default="", metadata={"static": True})


def counterfactual_gap(
  p: Real[AnyArray, " items"],
  p_cf: Real[AnyArray, "items substitutions"],
  valid: Bool[AnyArray, "items substitutions"],
  *,
  threshold: float = 0.5,
  protocol: str = "",
) -> CounterfactualGap:
  """Mean difference between each item and its substitutions.

  Fidelity:
    Paper: counterfactual token fairness gap, Garg et al. 2019: the mean over
      items and substitutions of |f(x) - f(x')|.
    Public code: the same in amazon-research/generalized-fairness-metrics.
    Here: a mean over substitutions (not over item means); swaps that changed
      nothing or could not be made belong in `valid` as False.
    Verdict: faithful.

  Args:
    p: Score of each original.
    p_cf: Score of each substitution.
    valid: Substitutions that exist and differ from the original.
    threshold: Decision is p >= threshold.
    protocol: Digest of the protocol, kept in the result.

  Returns:
    The gap; nan with n = 0 if there is no valid substitution.

  Raises:
    ValueError: If shapes do not fit, or a score that counts is not finite.

  References:
    Garg et al., AIES 2019, arXiv 1809.10610.
  """
  _validate.check_same_shape(p_cf=p_cf, valid=valid)
  if p.shape[0] != p_cf.shape[0]:
    raise ValueError(f"p: got {p.shape[0]} items, but p_cf {p_cf.shape[0]}")
  _validate.check_finite("p_cf", p_cf, valid)
  keep = jnp.asarray(valid)
  _validate.check_finite("p", p, jnp.any(keep, axis=1))
  return _gap(
    jnp.asarray(p),
    jnp.asarray(p_cf),
    keep,
    threshold=threshold,
    protocol=protocol,
  )


@functools.partial(jax.jit, static_argnames=("threshold", "protocol"))
def _gap(p, p_cf, keep, *, threshold, protocol):
  """The gap, from checked arrays."""
  some = jnp.any(keep, axis=1)
  original = jnp.where(some, p, 0.0)[:, None]
  changed = jnp.where(keep, p_cf, 0.0)
  change = jnp.where(keep, changed - original, 0.0)
  flips = keep & ((changed >= threshold) != (original >= threshold))
  return _summary(change, flips, keep, threshold=threshold, protocol=protocol)


def _summary(change, flips, keep, *, threshold, protocol):
  """The gap, from changes that are 0 where they are not kept."""
  some, size = jnp.any(keep, axis=1), jnp.abs(change)
  n, items = jnp.sum(keep), jnp.sum(some)
  return CounterfactualGap(
    mean=_ratios.ratio_or_nan(jnp.sum(size), n),
    signed=_ratios.ratio_or_nan(jnp.sum(change), n),
    maximum=_ratios.ratio_or_nan(jnp.sum(jnp.max(size, axis=1)), items),
    flip_rate=_ratios.ratio_or_nan(jnp.sum(flips), n),
    per_item=_ratios.ratio_or_nan(jnp.sum(size, axis=1), jnp.sum(keep, axis=1)),
    coverage=jnp.mean(some),
    n=n,
    n_dropped=jnp.sum(~keep),
    variant=f"threshold={threshold}",
    protocol=protocol,
  )


def counterfactual_gap_bootstrap(
  p: Real[AnyArray, " items"],
  p_cf: Real[AnyArray, "items substitutions"],
  valid: Bool[AnyArray, "items substitutions"],
  *,
  key: Key[Array, ""],
  num: int = 2_000,
  threshold: float = 0.5,
  method: str = "percentile",
  confidence: float = 0.95,
) -> _resampling.Bootstrap:
  """Bootstrap intervals of `counterfactual_gap`, items drawn as a whole.

  The substitutions of an item share its text: they are drawn together.

  Args:
    p: Score of each original.
    p_cf: Score of each substitution.
    valid: Substitutions that exist and differ from the original.
    key: Typed key.
    num: Resamples.
    threshold: Decision is p >= threshold.
    method: "percentile" or "bca".
    confidence: Nominal coverage.

  Returns:
    A bootstrap of {"mean", "signed", "maximum", "flip_rate"}.

  Raises:
    ValueError: As `counterfactual_gap`, or an option is unknown.
  """
  # Raises for bad input before anything is drawn.
  counterfactual_gap(p, p_cf, valid, threshold=threshold)
  return _resampling.bootstrap(
    _statistic(counterfactual_gap, threshold),
    (jnp.asarray(p), jnp.asarray(p_cf), jnp.asarray(valid)),
    key=key,
    num=num,
    method=method,
    confidence=confidence,
  )


@functools.cache
def _statistic(gap_fn, threshold):
  """What is resampled of a gap; cached, so that it compiles once."""

  def statistic(data):
    gap = gap_fn(*data, threshold=threshold)
    return {
      name: getattr(gap, name)
      for name in ("mean", "signed", "maximum", "flip_rate")
    }

  return statistic


def template_gap(
  p: Real[AnyArray, "templates groups"],
  valid: Bool[AnyArray, "templates groups"],
  *,
  threshold: float = 0.5,
  protocol: str = "",
) -> CounterfactualGap:
  """Mean difference over all unordered pairs of fillings of a template.

  A template has no privileged original, so every pair of groups counts.
  `signed` is 0 for a reason: a pair has no direction. It is nan here.

  Fidelity:
    Paper: Garg et al. 2019 compare with an original; the pairwise form is
      that of Czarnowska et al. 2021 (multi-group comparison by pairs).
    Verdict: faithful to the latter.

  Args:
    p: Score of each template filled with each group's term.
    valid: Fillings that exist.
    threshold: Decision is p >= threshold.
    protocol: Digest of the protocol, kept in the result.

  Returns:
    The gap over pairs; `per_item` is per template.

  Raises:
    ValueError: If shapes differ, fewer than two groups are given, or a score
      that counts is not finite.

  References:
    Czarnowska, Vyas and Shah, TACL 2021, arXiv 2106.14574.
  """
  _validate.check_same_shape(p=p, valid=valid)
  _validate.check_finite("p", p, valid)
  _validate.check_at_least("groups of p", p.shape[1], 2)
  return _pairwise_gap(
    jnp.asarray(p), jnp.asarray(valid), threshold=threshold, protocol=protocol
  )


@functools.partial(jax.jit, static_argnames=("threshold", "protocol"))
def _pairwise_gap(p, valid, *, threshold, protocol):
  """The gap over pairs, from checked arrays."""
  first, second = np.triu_indices(p.shape[1], k=1)
  filled = jnp.where(valid, p, 0.0)
  keep = valid[:, first] & valid[:, second]
  one, other = filled[:, first], filled[:, second]
  apart = jnp.where(keep, jnp.abs(one - other), 0.0)
  flips = keep & ((one >= threshold) != (other >= threshold))
  gap = _summary(apart, flips, keep, threshold=threshold, protocol=protocol)
  return dataclasses.replace(
    gap, signed=jnp.full((), jnp.nan, apart.dtype), metric="template_gap"
  )


def template_gap_bootstrap(
  p: Real[AnyArray, "templates groups"],
  valid: Bool[AnyArray, "templates groups"],
  *,
  key: Key[Array, ""],
  num: int = 2_000,
  threshold: float = 0.5,
  method: str = "percentile",
  confidence: float = 0.95,
) -> _resampling.Bootstrap:
  """Bootstrap intervals of `template_gap`, templates drawn as a whole.

  The interval speaks for other templates with the same terms, not for other
  terms; with a handful of templates it is too narrow.

  Args:
    p: Score of each template filled with each group's term.
    valid: Fillings that exist.
    key: Typed key.
    num: Resamples.
    threshold: Decision is p >= threshold.
    method: "percentile" or "bca".
    confidence: Nominal coverage.

  Returns:
    A bootstrap of {"mean", "signed", "maximum", "flip_rate"}; "signed" is nan
    as in `template_gap`.

  Raises:
    ValueError: As `template_gap`, or an option is unknown.
  """
  # Raises for bad input before anything is drawn.
  template_gap(p, valid, threshold=threshold)
  return _resampling.bootstrap(
    _statistic(template_gap, threshold),
    (jnp.asarray(p), jnp.asarray(valid)),
    key=key,
    num=num,
    method=method,
    confidence=confidence,
  )


def wasserstein(
  first: Real[AnyArray, " first"],
  second: Real[AnyArray, " second"],
  *,
  first_mask: Bool[AnyArray, " first"] | None = None,
  second_mask: Bool[AnyArray, " second"] | None = None,
) -> Float[Array, ""]:
  """1-Wasserstein distance of two samples on the line.

  W1 = integral |F - G|, the area between the two distribution functions.

  Args:
    first: One sample.
    second: The other; may differ in size.
    first_mask: Entries that count.
    second_mask: Entries that count.

  Returns:
    The distance; nan if a sample is empty.
  """
  dtype = jnp.result_type(float)

  def part(values, mask):
    values = jnp.asarray(values, dtype)
    keep = jnp.ones(values.shape, bool) if mask is None else jnp.asarray(mask)
    count = jnp.sum(keep)
    weight = keep.astype(dtype) / jnp.maximum(count, 1).astype(dtype)
    return jnp.where(keep, values, 0.0), weight, count

  one, up, n = part(first, first_mask)
  other, down, m = part(second, second_mask)
  values = jnp.concatenate([one, other])
  order = jnp.argsort(values)
  ordered = values[order]
  apart = jnp.abs(jnp.cumsum(jnp.concatenate([up, -down])[order]))[:-1]
  # A masked entry has no weight, so it only cuts a step in two.
  area = jnp.sum(apart * jnp.diff(ordered))
  return jnp.where((n > 0) & (m > 0), area, jnp.nan)


def distributional_fairness(
  scores: Real[AnyArray, "items samples"],
  scores_cf: Real[AnyArray, "items samples"],
) -> Float[Array, ""]:
  """Individual fairness of a score over generations: mean W1 per item.

  Fidelity:
    Paper: Huang et al. 2020, "average individual fairness": the mean over
      prompts of the Wasserstein-1 distance between the score distributions of
      the continuations of a prompt and of its counterfactual.
    Authors' code: none is known.
    Verdict: faithful.

  Args:
    scores: Scores in [0, 1] of the continuations of each prompt.
    scores_cf: The same of its counterfactual.

  Returns:
    The mean distance; 0 is fair.

  Raises:
    ValueError: If the numbers of prompts differ or a score is not finite.

  References:
    Huang et al., Findings of EMNLP 2020, arXiv 1911.03064.
  """
  if scores.shape[0] != scores_cf.shape[0]:
    raise ValueError(
      f"scores and scores_cf: got {scores.shape[0]} and {scores_cf.shape[0]}"
      " items; they must pair up"
    )
  _validate.check_finite("scores", scores)
  _validate.check_finite("scores_cf", scores_cf)
  return jnp.mean(jax.vmap(wasserstein)(scores, scores_cf))


def distributional_group_fairness(
  scores: Real[AnyArray, " texts"],
  group: Int[AnyArray, " texts"],
  *,
  num_groups: int,
) -> Float[Array, ""]:
  """Mean over groups of W1 between a group's scores and all scores.

  Fidelity:
    Paper: Huang et al. 2020, "average group fairness".
    Authors' code: none is known.
    Verdict: faithful.

  Args:
    scores: Scores in [0, 1].
    group: Group of each text.
    num_groups: Number of groups.

  Returns:
    The mean distance; nan if a group is empty.

  Raises:
    ValueError: If shapes differ, a score is not finite or a group is out of
      range.
  """
  _validate.check_same_shape(scores=scores, group=group)
  _validate.check_finite("scores", scores)
  _validate.check_in_range("group", group, num_groups)
  member = jnp.asarray(group)[None, :] == jnp.arange(num_groups)[:, None]
  distance = jax.vmap(lambda mask: wasserstein(scores, scores, first_mask=mask))
  return jnp.mean(distance(member))
