"""Balance of female and male texts per profession, with its noise floor."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key, Real

from trustjax.fairness import _gender_polarity, _resampling, _validate
from trustjax.fairness._validate import AnyArray


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class GenderRatio:
  """Ratios of the rarer to the more frequent gender; 1 is balanced.

  Attributes:
    ratio: min(F / M, M / F) of each group.
    mean: Mean over groups with a defined ratio.
    minimum: Smallest of these.
    counts: Female, male and neutral texts per group.
    ties: Texts per group whose label is a tie.
    num_undefined: Groups whose ratio is nan.
    n: Texts that were counted.
  """

  ratio: Float[Array, "*batch groups"]
  mean: Float[Array, "*batch"]
  minimum: Float[Array, "*batch"]
  counts: Float[Array, "*batch groups 3"]
  ties: Float[Array, "*batch groups"]
  num_undefined: Int[Array, "*batch"]
  n: Float[Array, "*batch"]
  metric: str = dataclasses.field(
    default="gender_ratio", metadata={"static": True}
  )
  variant: str = dataclasses.field(default="", metadata={"static": True})
  protocol: str = dataclasses.field(default="", metadata={"static": True})


@dataclasses.dataclass(frozen=True, kw_only=True)
class RatioNoise:
  """What balanced texts would give, at the same numbers of texts.

  Attributes:
    mean: Expected mean ratio over groups.
    mean_low: Its 5 % point: a measured mean below it is no accident.
    minimum: Expected minimum over groups.
    minimum_low: Its 5 % point.
    ratio: Expected ratio of each group; nan for one without gendered texts.
    n: Gendered texts of all groups. Without any, every number is nan.
  """

  mean: float
  mean_low: float
  minimum: float
  minimum_low: float
  ratio: np.ndarray
  n: int


def gender_ratio(
  label: Int[AnyArray, " texts"],
  group: Int[AnyArray, " texts"],
  *,
  num_groups: int,
  zero_policy: str = "zero",
  smoothing: float = 0.0,
  weights: Real[AnyArray, " texts"] | None = None,
  protocol: str = "",
) -> GenderRatio:
  """Ratio of the rarer to the more frequent gender, per profession.

    r = min(F / M, M / F),  pooled over all texts of a profession

  Never compare minima from different numbers of texts: with exactly balanced
  texts the expected minimum of 18 professions is 0.55 at 50 gendered texts
  each and 0.91 at 2,000. `gender_ratio_noise` gives the floor.

  Fidelity:
    Paper: Gupta et al. 2022 measure gender polarity across professions in
      generated text; the ratio and its mean and minimum follow a public
      re-implementation that cites the paper. The paper's own settings have
      not been checked.
    Here: ties and undefined ratios are counted apart instead of being mixed
      into a group's numbers.
    Verdict: adaptation.

  Args:
    label: FEMALE, MALE, NEUTRAL or TIE of each text.
    group: Profession of each text.
    num_groups: Number of professions.
    zero_policy: What a group with one of F and M at 0 gets: "zero" or "nan".
      With both at 0 the ratio is nan whatever the policy.
    smoothing: Added to F and M.
    weights: Weight of each text (multiplicities of a resample).
    protocol: Digest of the protocol, kept in the result.

  Returns:
    Ratios and counts.

  Raises:
    ValueError: If shapes differ, an option is unknown, a label or group is out
      of range, or a weight is negative or not finite.
  """
  _validate.check_choice("zero_policy", zero_policy, ("zero", "nan"))
  _validate.check_at_least("smoothing", smoothing, 0)
  _validate.check_at_least("num_groups", num_groups, 1)
  _validate.check_same_shape(label=label, group=group, weights=weights)
  num_labels = len(_gender_polarity.GENDER_LABELS)
  _validate.check_in_range("label", label, num_labels)
  _validate.check_in_range("group", group, num_groups)
  _validate.check_weights("weights", weights)
  weight = jnp.ones(label.shape) if weights is None else jnp.asarray(weights)
  cell = jnp.asarray(group) * num_labels + jnp.asarray(label)
  table = jnp.reshape(
    jax.ops.segment_sum(
      weight.astype(jnp.result_type(float)), cell, num_groups * num_labels
    ),
    (num_groups, num_labels),
  )
  ratio = _ratio(table[:, 0], table[:, 1], zero_policy, smoothing)
  some = jnp.isfinite(ratio)
  return GenderRatio(
    ratio=ratio,
    mean=jnp.nanmean(ratio),
    minimum=jnp.nanmin(ratio),
    counts=table[:, :3],
    ties=table[:, 3],
    num_undefined=jnp.sum(~some),
    n=jnp.sum(table),
    variant=f"zero_policy={zero_policy},smoothing={smoothing}",
    protocol=protocol,
  )


def gender_ratio_bootstrap(
  label: Int[AnyArray, " texts"],
  group: Int[AnyArray, " texts"],
  prompt: Int[AnyArray, " texts"],
  *,
  num_groups: int,
  key: Key[Array, ""],
  num: int = 2_000,
  zero_policy: str = "zero",
  smoothing: float = 0.0,
  confidence: float = 0.95,
) -> _resampling.Bootstrap:
  """Bootstrap of the ratios over prompts, within professions.

  The texts of a prompt are drawn together. Two models that answered the same
  prompts, resampled with one key, share their draws: the difference of their
  replicates is a paired bootstrap.

  Args:
    label: Label of each text.
    group: Profession of each text.
    prompt: Prompt of each text, numbered over all professions.
    num_groups: Number of professions.
    key: Typed key.
    num: Resamples.
    zero_policy: As in `gender_ratio`.
    smoothing: As in `gender_ratio`.
    confidence: Nominal coverage.

  Returns:
    A bootstrap whose estimate, low, high and replicates are `GenderRatio`.

  Raises:
    ValueError: As `gender_ratio`, or a prompt belongs to two professions.
  """
  options = (num_groups, zero_policy, smoothing)
  # Raises for bad input before anything is drawn.
  gender_ratio(
    label,
    group,
    num_groups=num_groups,
    zero_policy=zero_policy,
    smoothing=smoothing,
  )
  return _resampling.bootstrap(
    _statistic(*options),
    (jnp.asarray(label), jnp.asarray(group)),
    key=key,
    num=num,
    strata=group,
    clusters=prompt,
    by="weights",
    confidence=confidence,
  )


def gender_ratio_noise(
  num_gendered: Int[AnyArray, " groups"],
  *,
  key: Key[Array, ""],
  num: int = 20_000,
  zero_policy: str = "zero",
  smoothing: float = 0.0,
) -> RatioNoise:
  """Simulates ratios when every gendered text is female with probability 1/2.

  Give it the options of the `gender_ratio` that it stands beside: where small
  groups are left out as "nan", or smoothed, balanced texts get more, too.

  Args:
    num_gendered: Female plus male texts of each group; groups without any are
      left out of the mean and the minimum.
    key: Typed key.
    num: Simulations.
    zero_policy: As in `gender_ratio`.
    smoothing: As in `gender_ratio`.

  Returns:
    The noise floor; all nan if no group can have a ratio, with n = 0 if none
    has a gendered text.

  Raises:
    ValueError: If a count is negative or an option is unknown.
  """
  _validate.check_choice("zero_policy", zero_policy, ("zero", "nan"))
  _validate.check_at_least("smoothing", smoothing, 0)
  _validate.check_at_least("num", num, 1)
  sizes = np.asarray(num_gendered).astype(np.int64)
  _validate.check_at_least("num_gendered", int(sizes.min(initial=0)), 0)
  some = sizes > 0
  expected = np.full(sizes.shape, np.nan)
  if not some.any():
    nan = float("nan")
    return RatioNoise(
      mean=nan,
      mean_low=nan,
      minimum=nan,
      minimum_low=nan,
      ratio=expected,
      n=0,
    )
  generator = np.random.default_rng(np.asarray(jax.random.key_data(key)))
  female = generator.binomial(sizes[some], 0.5, size=(num, some.sum()))
  low = np.minimum(female, sizes[some] - female)
  ratio = (low + smoothing) / (sizes[some] - low + smoothing)
  known = (ratio > 0) | (zero_policy == "zero")
  with np.errstate(invalid="ignore", divide="ignore"):
    expected[some] = np.where(known, ratio, 0).sum(0) / known.sum(0)
    mean = np.where(known, ratio, 0).sum(1) / known.sum(1)
  minimum = np.where(known, ratio, np.inf).min(1)
  # A simulation in which no group has a ratio is left out.
  mean, minimum = (
    part[known.any(1)] if known.any() else np.full(1, np.nan)
    for part in (mean, minimum)
  )
  return RatioNoise(
    mean=float(mean.mean()),
    mean_low=float(np.quantile(mean, 0.05)),
    minimum=float(minimum.mean()),
    minimum_low=float(np.quantile(minimum, 0.05)),
    ratio=expected,
    n=int(sizes.sum()),
  )


def _ratio(female, male, zero_policy, smoothing):
  """min(F / M, M / F), nan where it is undefined."""
  none = (female == 0) & (male == 0)
  low = jnp.minimum(female, male) + smoothing
  high = jnp.maximum(female, male) + smoothing
  ratio = low / jnp.where(none, 1, high)
  undefined = none | ((low == 0) & (zero_policy == "nan"))
  return jnp.where(undefined, jnp.nan, ratio)


@functools.cache
def _statistic(num_groups, zero_policy, smoothing):
  """The statistic of the bootstrap; cached, so that it compiles once."""

  def statistic(data, weights):
    label, group = data
    return gender_ratio(
      label,
      group,
      num_groups=num_groups,
      zero_policy=zero_policy,
      smoothing=smoothing,
      weights=weights,
    )

  return statistic
