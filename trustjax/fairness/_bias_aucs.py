"""AUCs that ask for whom a ranking fails: subgroup, BPSN, BNSP."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key, Real

from trustjax.fairness import _ordinal, _resampling, _validate
from trustjax.fairness._validate import AnyArray


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class BiasAucs:
  """AUCs of every subgroup against its background.

  Attributes:
    overall: AUC over all records that count.
    subgroup: Positives and negatives of the subgroup. Low: the ranking is poor
      within the group.
    bpsn: Background positives against subgroup negatives. Low: harmless
      records of the group score above harmful ones of others.
    bnsp: Background negatives against subgroup positives. Low: harmful records
      of the group score below harmless ones of others.
    pos_aeg: Pr[positive of g > positive of the background] - 1/2. Above 0 the
      group's positives score higher.
    neg_aeg: The same for negatives.
    n: Records per subgroup.
    n_positive: Positives per subgroup.
    n_dropped: Records that the mask left out.
  """

  overall: Float[Array, "*batch"]
  subgroup: Float[Array, "*batch groups"]
  bpsn: Float[Array, "*batch groups"]
  bnsp: Float[Array, "*batch groups"]
  pos_aeg: Float[Array, "*batch groups"]
  neg_aeg: Float[Array, "*batch groups"]
  n: Float[Array, "*batch groups"]
  n_positive: Float[Array, "*batch groups"]
  n_dropped: Int[Array, "*batch"]
  metric: str = dataclasses.field(
    default="bias_aucs", metadata={"static": True}
  )
  variant: str = dataclasses.field(default="", metadata={"static": True})
  protocol: str = dataclasses.field(default="", metadata={"static": True})


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Ranking:
  """Records in the order of their scores, ties marked.

  Everything that an AUC needs from the scores: sorting is done once, whatever
  the number of subgroups and resamples.

  Attributes:
    order: Records sorted by score.
    start: For each sorted position, the first position with the same score.
    end: One behind the last position with the same score.
  """

  order: Int[Array, " records"]
  start: Int[Array, " records"]
  end: Int[Array, " records"]

  @classmethod
  def of(cls, scores: Real[AnyArray, " records"]) -> "Ranking":
    """Sorts scores.

    Args:
      scores: Finite numbers.

    Returns:
      Their ranking.
    """
    scores = jnp.asarray(_ordinal.ordinal(scores))
    order = jnp.argsort(scores)
    ordered = scores[order]
    return cls(
      order=order,
      start=jnp.searchsorted(ordered, ordered, side="left"),
      end=jnp.searchsorted(ordered, ordered, side="right"),
    )

  def auc(
    self,
    positive: Float[Array, " records"],
    negative: Float[Array, " records"],
  ) -> Float[Array, ""]:
    """Pr[p > n] + Pr[p = n] / 2 for a weighted positive and negative.

    Args:
      positive: Weight of each record as a positive, in the order of records.
      negative: Weight of each record as a negative.

    Returns:
      The AUC; nan if either side has no weight.
    """
    return self.auc_in_order(positive[self.order], negative[self.order])

  def auc_in_order(
    self,
    positive: Float[Array, " records"],
    negative: Float[Array, " records"],
  ) -> Float[Array, ""]:
    """As `auc`, for weights that are already in the order of scores."""
    below = jnp.concatenate([jnp.zeros(1), jnp.cumsum(negative)])
    # Negatives below a record, plus half of those that tie with it.
    beaten = (below[self.start] + below[self.end]) / 2
    total = jnp.sum(positive) * below[-1]
    some = total > 0
    won = jnp.sum(positive * (beaten / jnp.where(some, below[-1], 1.0)))
    mass = jnp.where(some, jnp.sum(positive), 1.0)
    return jnp.where(some, won / mass, jnp.nan)


def auc(
  scores: Real[AnyArray, " records"],
  labels: Real[AnyArray, " records"] | Bool[AnyArray, " records"],
  *,
  weights: Real[AnyArray, " records"] | None = None,
  mask: Bool[AnyArray, " records"] | None = None,
) -> Float[Array, ""]:
  """Area under the ROC curve, ties counted half.

  Args:
    scores: Scores; larger means more likely positive.
    labels: True labels, 0 or 1.
    weights: Weight of each record.
    mask: Records that count.

  Returns:
    Pr[p > n] + Pr[p = n] / 2; nan if a class is missing.

  Raises:
    ValueError: If shapes differ, a score is not finite, a label is not 0 or 1,
      or a weight is negative or not finite.
  """
  _validate.check_same_shape(
    scores=scores, labels=labels, weights=weights, mask=mask
  )
  _validate.check_finite("scores", scores, mask)
  _validate.check_binary("labels", labels, mask)
  _validate.check_weights("weights", weights, mask)
  weight = record_weights(scores.shape, weights, mask)
  positive = jnp.asarray(labels) == 1
  return Ranking.of(masked_scores(scores, mask)).auc(
    jnp.where(positive, weight, 0.0), jnp.where(positive, 0.0, weight)
  )


def bias_aucs(
  scores: Real[AnyArray, " records"],
  labels: Real[AnyArray, " records"] | Bool[AnyArray, " records"],
  groups: Bool[AnyArray, "records groups"],
  *,
  background: str = "all",
  weights: Real[AnyArray, " records"] | None = None,
  mask: Bool[AnyArray, " records"] | None = None,
  on_empty: str = "error",
  protocol: str = "",
) -> BiasAucs:
  """Subgroup, BPSN and BNSP AUC and the equality gaps, group by group.

  With positives D+ and negatives D- of subgroup g and background b:

    subgroup = AUC(D+_g, D-_g)  bpsn = AUC(D+_b, D-_g)  bnsp = AUC(D+_g, D-_b)
    pos_aeg  = AUC(D+_g, D+_b) - 1/2    neg_aeg = AUC(D-_g, D-_b) - 1/2

  Any strictly increasing map of the scores changes nothing.

  Fidelity:
    Paper: Borkan et al. 2019.
    Authors' code: the same numbers; returns None for an empty group in the
      gaps and nan in the AUCs. The HateXplain notebook takes as background
      only posts about another of its ten communities, and its ranking of
      communities is contaminated by a carried-over variable.
    Here: both backgrounds; an empty group is an error where values are known
      and nan otherwise.
    Verdict: faithful.

  Args:
    scores: Scores; larger means more likely positive.
    labels: True labels, 0 or 1.
    groups: Membership; a record may belong to several groups, or to none.
    background: "all" is every record outside g; "identified" only those that
      belong to another group.
    weights: Weight of each record.
    mask: Records that count.
    on_empty: "error" raises if a subgroup or its background lacks a class
      (where values are known); "nan" leaves the AUCs that need it nan.
    protocol: Digest of the protocol, kept in the result.

  Returns:
    All AUCs.

  Raises:
    ValueError: If shapes differ, a score is not finite, a label is not 0 or
      1, a weight is negative or not finite, or a subgroup or background lacks
      a class.

  References:
    Borkan et al., WWW 2019 companion, arXiv 1903.04561.
    Mathew et al., HateXplain, AAAI 2021, arXiv 2012.10289.
  """
  _validate.check_choice("background", background, ("all", "identified"))
  _validate.check_choice("on_empty", on_empty, ("error", "nan"))
  _validate.check_same_shape(
    scores=scores, labels=labels, weights=weights, mask=mask
  )
  check_rows(groups, scores)
  _validate.check_finite("scores", scores, mask)
  _validate.check_binary("labels", labels, mask)
  _validate.check_weights("weights", weights, mask)
  weight = record_weights(scores.shape, weights, mask)
  ranking = Ranking.of(masked_scores(scores, mask))
  found = _aucs_in_order(
    ranking,
    weight[ranking.order],
    (jnp.asarray(labels) == 1)[ranking.order],
    jnp.asarray(groups)[ranking.order],
    background=background,
  )
  if on_empty == "error":
    _check_classes(found)
  dropped = jnp.sum(~jnp.asarray(mask)) if mask is not None else jnp.array(0)
  return dataclasses.replace(
    found,
    n_dropped=dropped,
    variant=f"background={background}",
    protocol=protocol,
  )


def bias_aucs_bootstrap(
  scores: Real[AnyArray, " records"],
  labels: Real[AnyArray, " records"] | Bool[AnyArray, " records"],
  groups: Bool[AnyArray, "records groups"],
  *,
  key: Key[Array, ""],
  num: int = 2_000,
  background: str = "all",
  strata: str = "membership",
  method: str = "percentile",
  confidence: float = 0.95,
) -> _resampling.Bootstrap:
  """Bootstrap intervals of all AUCs of `bias_aucs`.

  Scores are sorted once; a resample is a vector of multiplicities.

  Args:
    scores: Scores; larger means more likely positive.
    labels: True labels, 0 or 1.
    groups: Membership.
    key: Typed key.
    num: Resamples.
    background: As in `bias_aucs`.
    strata: "membership" keeps the number of records of each combination of
      label and groups, so that no subgroup can lose a class; a combination
      that occurs once is always drawn, which narrows the interval a little.
      "label" keeps only the numbers of positives and negatives.
    method: "percentile" or "bca".
    confidence: Nominal coverage.

  Returns:
    A bootstrap whose estimate, low, high and replicates are `BiasAucs`.

  Raises:
    ValueError: As `bias_aucs`, or an option is unknown.
  """
  # Raises for bad input before anything is drawn.
  bias_aucs(scores, labels, groups, background=background)
  ranked = in_order(scores, labels, groups)
  return _resampling.bootstrap(
    _statistic(background),
    ranked,
    key=key,
    num=num,
    strata=strata_of(ranked, strata),
    by="weights",
    method=method,
    confidence=confidence,
  )


def in_order(
  scores: Real[AnyArray, " records"],
  labels: Real[AnyArray, " records"] | Bool[AnyArray, " records"],
  groups: Bool[AnyArray, "records groups"],
) -> tuple[Ranking, Bool[Array, " records"], Bool[Array, "records groups"]]:
  """The ranking, which records are positive and membership, both in its order.

  Args:
    scores: Finite scores.
    labels: True labels, 0 or 1.
    groups: Membership.

  Returns:
    What the statistics of a bootstrap take as data.
  """
  ranking = Ranking.of(scores)
  positive = (jnp.asarray(labels) == 1)[ranking.order]
  return ranking, positive, jnp.asarray(groups)[ranking.order]


def strata_of(
  ranked: tuple[Ranking, Bool[Array, " records"], Bool[Array, "records g"]],
  strata: str,
) -> Int[Array, " records"]:
  """Stratum of each record: its label, with "membership" its groups as well.

  Args:
    ranked: From `in_order`.
    strata: "membership" or "label".

  Returns:
    Strata in the order of the ranking.

  Raises:
    ValueError: The option is unknown.
  """
  _validate.check_choice("strata", strata, ("membership", "label"))
  _, positive, member = ranked
  pattern = np.asarray(positive)[:, None].astype(np.int8)
  if strata == "membership":
    pattern = np.concatenate([pattern, np.asarray(member)], axis=1)
  _, stratum = np.unique(pattern, axis=0, return_inverse=True)
  return jnp.asarray(stratum.ravel(), jnp.int32)


def power_mean(
  values: Real[AnyArray, "*batch groups"],
  p: float = -5.0,
  *,
  where: Bool[AnyArray, "*batch groups"] | None = None,
) -> Float[Array, "*batch"]:
  """Generalised mean (mean of v^p)^(1/p) over groups.

  A negative p leans to the worst group: p = -5 is the Jigsaw challenge's
  choice, p = 1 the arithmetic mean, p -> -inf the minimum; p = 0 is the
  geometric mean.

  Fidelity:
    Paper: the final metric of the Jigsaw Unintended Bias challenge, used for
      HateXplain.
    Here: as defined, computed relative to the largest value so that powers
      do not overflow.
    Verdict: faithful.

  Args:
    values: One number per group, not negative.
    p: Exponent.
    where: Groups that count.

  Returns:
    The mean; nan if no group counts or one that does is nan; 0 for p <= 0 if
    a value is 0.

  Raises:
    ValueError: If a value that counts is negative.
  """
  values = jnp.asarray(values, jnp.result_type(float))
  keep = jnp.ones(values.shape, bool) if where is None else jnp.asarray(where)
  if _validate.is_known(values, keep) and bool((keep & (values < 0)).any()):
    raise ValueError("values: got a negative value; allowed are >= 0")
  count = jnp.sum(keep, axis=-1)
  if p == jnp.inf or p == -jnp.inf:
    edge = -p
    ends = jnp.where(keep, values, edge)
    found = jnp.min(ends, -1) if p < 0 else jnp.max(ends, -1)
    return jnp.where(count > 0, found, jnp.nan)
  log = jnp.log(jnp.where(keep, values, 1.0))
  some = jnp.maximum(count, 1).astype(values.dtype)
  if p == 0:
    found = jnp.exp(jnp.sum(log, axis=-1) / some)
  else:
    top = jax.scipy.special.logsumexp(
      p * log, axis=-1, b=keep.astype(log.dtype)
    )
    found = jnp.exp((top - jnp.log(some)) / p)
  return jnp.where(count > 0, found, jnp.nan)


def check_rows(groups, scores):
  """Raises ValueError unless every score has a row of memberships."""
  if groups.shape[0] != scores.shape[0]:
    raise ValueError(
      f"groups: got {groups.shape[0]} rows for {scores.shape[0]} scores"
    )


def masked_scores(scores, mask):
  """Scores, or their ranks, with what masked records hold replaced by 0."""
  scores = jnp.asarray(_ordinal.ordinal(scores))
  return scores if mask is None else jnp.where(jnp.asarray(mask), scores, 0)


def record_weights(shape, weights, mask):
  """Weight of each record as floats, 0 where masked."""
  weight = jnp.ones(shape) if weights is None else jnp.asarray(weights, float)
  return weight if mask is None else jnp.where(jnp.asarray(mask), weight, 0.0)


@functools.partial(jax.jit, static_argnames="background")
def _aucs_in_order(ranking, weight, positive, member, *, background):
  """All AUCs, from arrays that are in the order of scores."""
  identified = jnp.any(member, axis=1)

  def only(where):
    return jnp.where(where, weight, 0.0)

  def of_group(inside):
    outside = ~inside
    if background == "identified":
      outside &= identified
    auc = ranking.auc_in_order
    pos_g, neg_g = only(inside & positive), only(inside & ~positive)
    pos_b, neg_b = only(outside & positive), only(outside & ~positive)
    return {
      "subgroup": auc(pos_g, neg_g),
      "bpsn": auc(pos_b, neg_g),
      "bnsp": auc(pos_g, neg_b),
      "pos_aeg": auc(pos_g, pos_b) - 0.5,
      "neg_aeg": auc(neg_g, neg_b) - 0.5,
      "n": jnp.sum(only(inside)),
      "n_positive": jnp.sum(pos_g),
    }

  return BiasAucs(
    overall=ranking.auc_in_order(only(positive), only(~positive)),
    n_dropped=jnp.array(0),
    **jax.vmap(of_group, in_axes=1)(member),
  )


@functools.cache
def _statistic(background):
  """The statistic of the bootstrap; cached, so that it compiles once."""

  def statistic(data, weights):
    ranking, positive, member = data
    return _aucs_in_order(
      ranking, weights, positive, member, background=background
    )

  return statistic


def _check_classes(found: BiasAucs) -> None:
  """Raises for the first group of which some AUC is undefined."""
  if not _validate.is_known(found.subgroup):
    return
  for name in ("subgroup", "bpsn", "bnsp"):
    undefined = np.isnan(np.asarray(getattr(found, name)))
    if undefined.any():
      group = int(np.argmax(undefined))
      raise ValueError(
        f"groups: the {name} AUC of group {group} is undefined: of its"
        f" {float(found.n[group]):g} records"
        f" {float(found.n_positive[group]):g} are positive, and group and"
        " background need both classes; leave it out, or pass on_empty='nan'"
      )
