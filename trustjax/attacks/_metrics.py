"""How well an attack does, with intervals, for all records and for groups."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Float, Float64, Int

from trustjax.attacks import _intervals, _roc, _validate
from trustjax.attacks._validate import AnyArray

RESAMPLES = ("both", "models", "records")


@dataclasses.dataclass(frozen=True, kw_only=True)
class AttackMetrics:
  """Success of an attack.

  Attributes:
    auc: Area under the pooled ROC curve.
    balanced_accuracy: (TPR + TNR) / 2 at held-out thresholds, mean over
      models.
    advantage: TPR - FPR at the same thresholds: 2 balanced accuracy - 1.
    tpr_at_fpr: TPR at each false positive rate asked for.
    num_members: Pooled members.
    num_nonmembers: Pooled non-members.
    num_models: Target models.
    interval: What the intervals are made of.
  """

  auc: _intervals.Estimate
  balanced_accuracy: _intervals.Estimate
  advantage: _intervals.Estimate
  tpr_at_fpr: Mapping[float, _intervals.Estimate]
  num_members: int
  num_nonmembers: int
  num_models: int
  interval: str

  def flat(self, prefix: str = "") -> dict[str, float | int | str | None]:
    """As entries of a flat record.

    Args:
      prefix: Put in front of each key, for instance "dp/lira_online/".

    Returns:
      auc, balanced_accuracy, advantage and tpr_at_fpr_<f>, each with its
      _low, _high, _n and, if something is missing, _reason.
    """
    entries = self.auc.flat(f"{prefix}auc")
    entries |= self.balanced_accuracy.flat(f"{prefix}balanced_accuracy")
    entries |= self.advantage.flat(f"{prefix}advantage")
    for fpr, estimate in self.tpr_at_fpr.items():
      entries |= estimate.flat(f"{prefix}tpr_at_fpr_{fpr:g}")
    return entries


def attack_metrics(
  scores: Float[AnyArray, "*models records"],
  member: Bool[AnyArray, "*models records"],
  *,
  fprs: Sequence[float] = (0.001, 0.01),
  confidence: float = 0.95,
  num_resamples: int = 1_000,
  resample: str = "both",
  seed: int = 0,
) -> AttackMetrics:
  """AUC, balanced accuracy, advantage and TPR at low FPR, with intervals.

  With several target models the scores are pooled into one curve. Its scores
  are dependent both ways: those of one model share its training, and those of
  one record share the shadows that it was scored with when models attack each
  other. The intervals are percentile bootstraps that resample models and
  records (a score weighs the product of both multiplicities), which errs on
  the wide side. Resampling models alone is right only if each target has
  shadows of its own: for models that attack each other on pure noise it holds
  the true AUC far too rarely.

  With one model, TPR intervals are Clopper-Pearson's at the threshold and the
  others are bootstraps over records. Where all resamples are 0, or all are 1,
  the interval is the exact one for as many independent trials.

  The balanced accuracy never comes from the records that chose its threshold:
  with several models the others choose it, with one the two halves of the
  records do for each other. Its interval holds thresholds fixed.

  Fidelity:
    Paper: Carlini et al. 2022 (low FPR), Yeom et al. 2018 (advantage). Both
      publish point estimates and choose thresholds on the records judged.
    Here: held-out thresholds; intervals.
    Verdict: faithful.

  Args:
    scores: Scores [records] of one target, or [models, records].
    member: True memberships.
    fprs: False positive rates of interest.
    confidence: Nominal coverage of the intervals.
    num_resamples: Bootstrap draws.
    resample: "both", "models" or "records"; one model resamples its records.
    seed: Seed of the draws and of the halves.

  Returns:
    The metrics.

  Raises:
    ValueError: If a score is not finite, memberships are not 0/1, a model
      lacks members or non-members (of which one target needs two each), or an
      option is out of range.

  Example:
    >>> metrics = attack_metrics(scores, keep)
    >>> metrics.tpr_at_fpr[0.01].low
    0.031

  References:
    Owen, The Pigeonhole Bootstrap, Annals of Applied Statistics 1 (2007).
  """
  _check_options(fprs, confidence, num_resamples, resample)
  values, truth = _checked_scores(scores, member)
  curve = _roc.roc_curve(values, truth)
  generator = np.random.default_rng(seed)
  guesses = _held_out_guesses(values, truth, generator)
  if len(values) == 1:
    resample = "records"
  resolved = [f for f in fprs if not _roc.unresolved(f, curve.num_nonmembers)]
  weights = _multiplicities(values.shape, resample, num_resamples, generator)
  draws = _bootstrap(values, truth, guesses, resolved, weights)
  pairs = min(curve.num_members, curve.num_nonmembers)
  options = {"n": len(values), "confidence": confidence}
  accuracy = _accuracy(guesses, truth, np.ones(values.shape[1])).mean()
  balanced = _interval(accuracy, draws["balanced_accuracy"], pairs, **options)
  return AttackMetrics(
    auc=_interval(curve.auc, draws["auc"], pairs, **options),
    balanced_accuracy=balanced,
    advantage=_advantage(balanced),
    tpr_at_fpr=_rates(values, truth, curve, fprs, draws, options),
    num_members=curve.num_members,
    num_nonmembers=curve.num_nonmembers,
    num_models=len(values),
    interval=_interval_name(resample, len(values)),
  )


def group_metrics(
  scores: Float[AnyArray, "*models records"],
  member: Bool[AnyArray, "*models records"],
  groups: Mapping[str, Bool[AnyArray, " records"]],
  *,
  fprs: Sequence[float] = (0.001, 0.01),
  confidence: float = 0.95,
  num_resamples: int = 1_000,
  resample: str = "both",
  seed: int = 0,
) -> dict[str, AttackMetrics]:
  """`attack_metrics` of each group of records by itself.

  A group's curve has its own thresholds, so that a group whose scores are all
  large does not look exposed merely for that; an FPR that the group is too
  small for has no value.

  Fidelity:
    Paper: none defines groups; rare records are where leakage concentrates.
    Verdict: original.

  Args:
    scores: As in `attack_metrics`.
    member: As in `attack_metrics`.
    groups: Name -> records of the group (rare intents, singletons, heavy
      users, ...); groups may overlap.
    fprs: As in `attack_metrics`.
    confidence: As in `attack_metrics`.
    num_resamples: As in `attack_metrics`.
    resample: As in `attack_metrics`.
    seed: As in `attack_metrics`.

  Returns:
    Name -> metrics.

  Raises:
    ValueError: As `attack_metrics`, or a group has no records.
  """
  num_records = np.shape(scores)[-1]
  found = {}
  for name, group in groups.items():
    inside = _validate.membership(f"groups[{name!r}]", group, (num_records,))
    if not inside.any():
      raise ValueError(f"groups[{name!r}]: got no records; leave it out")
    found[name] = attack_metrics(
      np.asarray(scores)[..., inside],
      np.asarray(member)[..., inside],
      fprs=fprs,
      confidence=confidence,
      num_resamples=num_resamples,
      resample=resample,
      seed=seed,
    )
  return found


def _check_options(fprs, confidence, num_resamples, resample):
  _validate.check_between("confidence", confidence, 0, 1)
  _validate.check_at_least("num_resamples", num_resamples, 1)
  _validate.check_choice("resample", resample, RESAMPLES)
  for fpr in fprs:
    _validate.check_within("fprs", fpr, 0, 1)


def _checked_scores(scores, member):
  """Scores and memberships as [models, records]."""
  truth = _validate.membership("member", member, np.shape(scores))
  values = _validate.finite("scores", scores)
  if values.ndim not in (1, 2):
    raise ValueError(
      f"scores: got shape {values.shape}; allowed are [records] and"
      " [models, records]"
    )
  values, truth = np.atleast_2d(values), np.atleast_2d(truth)
  _check_both_kinds(truth)
  return values, truth


def _interval_name(resample, num_models):
  names = {"both": "models and records"}.get(resample, resample)
  exact = ", TPR Clopper-Pearson" if num_models == 1 else ""
  return f"bootstrap over {names}{exact}"


def _advantage(accuracy: _intervals.Estimate) -> _intervals.Estimate:
  """TPR - FPR from (TPR + TNR) / 2."""
  ends = (accuracy.value, accuracy.low, accuracy.high)
  value, low, high = (None if end is None else 2 * end - 1 for end in ends)
  return dataclasses.replace(accuracy, value=value, low=low, high=high)


def _rates(values, truth, curve, fprs, draws, options):
  """TPR at each FPR: exact for one model, else from resamples."""
  found = {}
  for fpr in fprs:
    if len(values) == 1 or f"tpr{fpr}" not in draws:
      found[fpr] = _roc.tpr_at_fpr(
        values, truth, fpr, confidence=options["confidence"]
      )
    else:
      found[fpr] = _interval(
        curve.tpr[curve.at_fpr(fpr)],
        draws[f"tpr{fpr}"],
        curve.num_members,
        **options,
      )
  return found


def _interval(point, draws, trials, *, n, confidence) -> _intervals.Estimate:
  """Percentiles of the draws; exact where the draws have no spread.

  Resamples of a perfect attack are perfect. Its TPR has so many independent
  trials as there are members; of an AUC or a balanced accuracy of 1, so many
  disjoint pairs of a member and a non-member have all been won.
  """
  point, tail = float(point), (1 - confidence) / 2
  # A resample of a tiny group may lack members or non-members.
  if np.isnan(draws).all():
    return _intervals.Estimate(
      value=point, n=n, reason="no resample had both kinds of record"
    )
  low, high = map(float, np.nanquantile(draws, [tail, 1 - tail]))
  if {low, point, high} in ({0.0}, {1.0}):
    hits = trials if point else 0
    exact = _intervals.clopper_pearson(hits, trials, confidence=confidence)
    low, high = map(float, exact)
  # The percentile bootstrap of a skewed statistic may miss its own estimate.
  return _intervals.Estimate(
    value=point, low=min(low, point), high=max(high, point), n=n
  )


def _check_both_kinds(truth):
  least = 1 if len(truth) > 1 else 2
  for model, row in enumerate(truth):
    count = int(row.sum())
    if not least <= count <= row.size - least:
      raise ValueError(
        f"member[{model}]: got {count} members of {row.size} records; at least"
        f" {least} of both kinds are needed"
      )


def _multiplicities(shape, resample, num, generator):
  """Weights of models and records in each resample, one pair at a time."""
  counts = [np.ones(size) for size in shape]
  for _ in range(num):
    yield tuple(
      generator.multinomial(size, np.full(size, 1 / size)).astype(np.float64)
      if resample in ("both", axis)
      else ones
      for axis, size, ones in zip(("models", "records"), shape, counts)
    )


def _bootstrap(values, truth, guesses, fprs, multiplicities):
  """Draws of each statistic: AUC, balanced accuracy, TPR at each FPR.

  Scores are sorted once; a resample is a weight for each of them.
  """
  inside, outside = (_Sorted.of(values, side) for side in (truth, ~truth))
  first = np.searchsorted(outside.scores, inside.scores, side="left")
  last = np.searchsorted(outside.scores, inside.scores, side="right")
  draws: dict[str, list[float]] = {"auc": [], "balanced_accuracy": []}
  draws |= {f"tpr{fpr}": [] for fpr in fprs}
  for models, records in multiplicities:
    won = inside.running(models, records)
    lost = outside.running(models, records)
    weight = np.diff(won)
    with np.errstate(invalid="ignore", divide="ignore"):
      area = weight @ (lost[first] + lost[last]) / (2 * won[-1] * lost[-1])
      accuracy = _accuracy(guesses, truth, records)
      # A model whose records of one kind were not drawn says nothing.
      known = ~np.isnan(accuracy)
      balanced = models[known] @ accuracy[known] / models[known].sum()
    draws["auc"].append(area)
    draws["balanced_accuracy"].append(balanced)
    for fpr in fprs:
      # The first place from which on few enough non-members are left; the
      # threshold lies just above the non-member before it.
      spared = lost[-1] * (1 - fpr * (1 + 1e-12)) - 1e-9
      place = int(np.searchsorted(lost, spared, side="left"))
      beaten = 0
      if place > 0:
        threshold = outside.scores[place - 1]
        beaten = np.searchsorted(inside.scores, threshold, side="right")
      draws[f"tpr{fpr}"].append(
        1 - won[beaten] / won[-1] if won[-1] else np.nan
      )
  return draws


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Sorted:
  """Scores of one kind in increasing order, with their origin."""

  scores: Float64[np.ndarray, " n"]
  model: Int[np.ndarray, " n"]
  record: Int[np.ndarray, " n"]

  @classmethod
  def of(cls, values, where) -> "_Sorted":
    model, record = np.nonzero(where)
    scores = values[where]
    order = np.argsort(scores, kind="stable")
    return cls(scores=scores[order], model=model[order], record=record[order])

  def running(self, models, records) -> Float64[np.ndarray, " totals"]:
    """Running total of the weights, from 0."""
    total = np.zeros(self.scores.size + 1)
    np.cumsum(models[self.model] * records[self.record], out=total[1:])
    return total


def _accuracy(guesses, truth, records) -> Float64[np.ndarray, " models"]:
  """Balanced accuracy of the guesses of each model, records weighted."""
  tpr = (guesses & truth) @ records / (truth @ records)
  fpr = (guesses & ~truth) @ records / (~truth @ records)
  return (1 + tpr - fpr) / 2


def _held_out_guesses(
  values, truth, generator
) -> Bool[np.ndarray, "models records"]:
  """Guesses at thresholds that other models, or other records, chose."""
  if len(values) > 1:
    return values >= _thresholds_of_others(values, truth)[:, None]
  half = np.zeros(values.shape, bool)
  # Both kinds are halved, so that neither half lacks one.
  for kind in (truth, ~truth):
    places = generator.permutation(np.flatnonzero(kind[0]))
    half[0, places[: places.size // 2]] = True
  guesses = np.zeros(values.shape, bool)
  for own in (half, ~half):
    curve = _roc.roc_curve(values[~own], truth[~own])
    best = int(np.argmax(curve.tpr - curve.fpr))
    guesses |= own & (values >= curve.thresholds[best])
  return guesses


def _thresholds_of_others(values, truth) -> Float64[np.ndarray, " models"]:
  """For each model, the threshold with the best accuracy on the others."""
  order = np.argsort(-values, axis=None, kind="stable")
  ordered = values.ravel()[order]
  hit = truth.ravel()[order]
  model = np.repeat(np.arange(len(values)), values.shape[1])[order]
  # A threshold lies behind the last of equal scores.
  ends = np.append(np.diff(ordered) != 0, True)
  all_true, all_false = np.cumsum(hit), np.cumsum(~hit)
  thresholds = np.empty(len(values))
  for index in range(len(values)):
    own = model == index
    rest_true = all_true - np.cumsum(own & hit)
    rest_false = all_false - np.cumsum(own & ~hit)
    gain = rest_true / rest_true[-1] - rest_false / rest_false[-1]
    best = int(np.argmax(np.where(ends, gain, -np.inf)))
    # Guessing "nobody" is a threshold, too.
    thresholds[index] = ordered[best] if gain[best] > 0 else np.inf
  return thresholds
