"""RMIA: a record against a population, ratio by ratio."""

import dataclasses

import numpy as np
from jaxtyping import Bool, Float, Float64, Int
from scipy import special

from trustjax.attacks import _roc, _shadows, _validate
from trustjax.attacks._validate import AnyArray

# Equal ratios count as dominated, although those of records and of population
# points are summed in another order and so rounded differently.
_SLACK = 1e-11


def rmia_scores(
  log_p: Float[AnyArray, "models records"],
  member: Bool[AnyArray, "models records"],
  population_log_p: Float[AnyArray, "models population"],
  *,
  target: int | None,
  online: bool,
  population_member: Bool[AnyArray, "models population"] | None = None,
  a: float = 0.3,
  gamma: float = 1.0,
) -> Float64[np.ndarray, "*models records"]:
  """Share of the population that a record dominates.

    ratio(x) = p(x | target) / p(x)
    p(x)     = (mean_in p + mean_out p) / 2                online
             = ((1 + a) mean_out p + (1 - a)) / 2          offline
    score(x) = share of population points z with ratio(x) / ratio(z) >= gamma

  The means run over the shadow models that were, and were not, trained on the
  point. The ratios of the population are sorted once, so the cost is that of
  a sort, not of all pairs.

  Fidelity:
    Paper: Zarifzadeh et al. 2024.
    Authors' code: counts ratios strictly above 1 and ignores gamma; averages
      the largest `num_reference_models` of the out-signals with zeros in
      place of the models trained on the record: for population points the
      larger half, which raises all scores; divides by p with no floor.
    Here: ratio >= gamma as in the paper; plain means over exactly the models
      that qualify; everything in logarithms.
    Verdict: faithful.

  Args:
    log_p: log p(true labels of the record) under each model.
    member: Whether the model was trained on the record.
    population_log_p: The same for population points: records of the same
      distribution that are not themselves under attack.
    target: The model under attack, or None for each in turn.
    online: Whether shadows trained on a point may be used.
    population_member: Whether the model was trained on the population point;
      None means that no model was. Points that the target was trained on are
      left out.
    a: Offline only: how far the mean over the models without the record is
      from the mean over all; `tune_rmia_a` finds it on a shadow.
    gamma: How strongly a record must dominate a population point.

  Returns:
    Scores in [0, 1], shaped [records], or [models, records] for a target of
    None.

  Raises:
    ValueError: If a log-probability is not finite or above 0, an option is
      out of range, a point lacks a shadow that the attack needs, or no
      population point is left.

  References:
    Zarifzadeh, Liu, Shokri, Low-Cost High-Power Membership Inference Attacks,
    ICML 2024, arXiv 2312.03262.
  """
  _validate.check_within("a", a, 0, 1)
  _validate.check_positive("gamma", gamma)
  records = _Points.read("", log_p, member, online=online, a=a)
  population = _Points.read(
    "population_", population_log_p, population_member, online=online, a=a
  )
  if len(records.log_p) != len(population.log_p):
    raise ValueError(
      f"log_p and population_log_p: got {len(records.log_p)} and"
      f" {len(population.log_p)} models; both need the same"
    )
  indices = _shadows.targets(target, len(records.log_p))
  usable = _usable_population(population.member, indices)
  everything = np.ones((len(indices), records.log_p.shape[1]), bool)
  ratios = records.log_ratios(target, everything)
  ratios_z = population.log_ratios(target, usable)
  scores = [
    _share_dominated(ratio - np.log(gamma), ratio_z[use])
    for ratio, ratio_z, use in zip(ratios, ratios_z, usable)
  ]
  return scores[0] if target is not None else np.stack(scores)


def _share_dominated(ratio, others):
  """Share of the other ratios that are at most each ratio."""
  ordered = np.sort(others)
  reached = np.searchsorted(ordered, ratio + _SLACK, side="right")
  return reached / ordered.size


def _usable_population(inside, indices):
  """Points that each target was not trained on, [targets, population]."""
  if not inside.shape[1]:
    raise ValueError("population_log_p: got no points; at least 1 is needed")
  usable = ~inside[indices]
  found = usable.any(axis=1)
  if not found.all():
    raise ValueError(
      f"population_member[{indices[int(np.argmin(found))]}]: the target was"
      " trained on every population point; give points that it never saw"
    )
  return usable


def tune_rmia_a(
  log_p: Float[AnyArray, "models records"],
  member: Bool[AnyArray, "models records"],
  population_log_p: Float[AnyArray, "models population"],
  *,
  reference: int,
  gamma: float = 1.0,
  grid: tuple[float, ...] = tuple(i / 10 for i in range(11)),
) -> float:
  """The `a` with which offline RMIA attacks a reference model best.

  The reference model's memberships are known to the attacker. The target must
  not be among the models that are passed in.

  Fidelity:
    Paper: grid search on a pair of reference models.
    Authors' code: one pair of the target's neighbours, largest AUC, the first
      of equals; here likewise with all other models passed in.
    Verdict: faithful.

  Args:
    log_p: As in `rmia_scores`, without the target.
    member: As in `rmia_scores`.
    population_log_p: As in `rmia_scores`.
    reference: The model that is attacked to compare values of `a`.
    gamma: As in `rmia_scores`.
    grid: Values to compare.

  Returns:
    The value with the largest AUC, the first of equals.

  Raises:
    ValueError: As `rmia_scores`.
  """
  _validate.check_target(reference, np.shape(log_p)[0])
  truth = np.asarray(member)[reference]
  found = [
    _roc.auc(
      rmia_scores(
        log_p,
        member,
        population_log_p,
        target=reference,
        online=False,
        a=a,
        gamma=gamma,
      ),
      truth,
    )
    for a in grid
  ]
  return float(grid[int(np.argmax(found))])


def taylor_softmax_log_probability(
  logits: Float[AnyArray, "*shape labels"],
  labels: Int[AnyArray, "..."],
  *,
  temperature: float = 2.0,
  margin: float = 0.6,
  order: int = 4,
) -> Float64[np.ndarray, "*shape"]:
  """Log of the soft-margin Taylor softmax of the true label.

    e(u) = sum_{i <= order} u^i / i!,  u = logit / temperature
    p_y  = e(u_y - margin) / (e(u_y - margin) + sum_{j != y} e(u_j))

  The confidence that RMIA's research configuration uses in place of the
  softmax; pass the result to `rmia_scores` as log_p.

  Fidelity:
    Paper: Zarifzadeh et al. 2024, confidence of the research configuration
      with temperature 2, margin 0.6, order 4.
    Here: as stated; the order must be even, which makes e(u) positive.
    Verdict: faithful.

  Args:
    logits: Unnormalised scores.
    labels: True labels, shaped as logits without their last axis (leading
      axes may be left out).
    temperature: Divides the logits.
    margin: Subtracted from the true label's score.
    order: Degree of the polynomial, even.

  Returns:
    Log-probabilities.

  Raises:
    ValueError: If an option or a label is out of range.
  """
  _validate.check_positive("temperature", temperature)
  if order < 2 or order % 2:
    raise ValueError(f"order: got {order}; it must be even and at least 2")
  scaled = _validate.finite("logits", logits) / temperature
  _validate.check_in_range("labels", labels, 0, scaled.shape[-1])
  index = np.broadcast_to(np.asarray(labels), scaled.shape[:-1])[..., None]
  own = np.take_along_axis(scaled, index, axis=-1)
  shifted = scaled.copy()
  np.put_along_axis(shifted, index, own - margin, axis=-1)
  powers = np.arange(order + 1)
  terms = shifted[..., None] ** powers / special.factorial(powers)
  each = terms.sum(axis=-1)
  chosen = np.take_along_axis(each, index, axis=-1)[..., 0]
  return np.log(chosen) - np.log(each.sum(axis=-1))


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Points:
  """Records, or the population: what their ratios are made of.

  Attributes:
    prefix: Of the arguments' names, for messages.
    log_p: log p(true labels) under each model.
    member: Whether the model was trained on the point.
    online: Whether p(x) is the mean over both kinds of model.
    a: Where it is not, how p(x) follows from the mean of p over the others.
  """

  prefix: str
  log_p: Float64[np.ndarray, "models points"]
  member: Bool[np.ndarray, "models points"]
  online: bool
  a: float

  @classmethod
  def read(cls, prefix, log_p, member, *, online, a) -> "_Points":
    """Checks the arguments; a member of None is nobody."""
    values = _validate.finite(f"{prefix}log_p", log_p)
    if (values > 0).any():
      raise ValueError(
        f"{prefix}log_p: got {values.max()}; log-probabilities are at most 0"
      )
    if member is not None:
      inside = _validate.membership(f"{prefix}member", member, values.shape)
      return cls(prefix=prefix, log_p=values, member=inside, online=online, a=a)
    # Both kinds of mean are the one over all models.
    return cls(
      prefix=prefix,
      log_p=values,
      member=np.zeros(values.shape, bool),
      online=False,
      a=1.0 if online else a,
    )

  def log_ratios(self, target, used) -> Float64[np.ndarray, "targets points"]:
    """Log p(x | target) - log p(x).

    Each target's means leave that target out: sums over the models before it
    and behind it are joined, so that a point which the target alone has
    memorised does not drown the others by a subtraction.
    """
    log_out = self._log_mean_of_others(~self.member, target, used, "out")
    if self.online:
      log_in = self._log_mean_of_others(self.member, target, used, "in")
      log_mean = np.logaddexp(log_out, log_in) - np.log(2)
    else:
      with np.errstate(divide="ignore"):
        log_mean = np.logaddexp(
          np.log((1 + self.a) / 2) + log_out, np.log((1 - self.a) / 2)
        )
    return self.log_p[_shadows.targets(target, len(self.log_p))] - log_mean

  def _log_mean_of_others(self, where, target, used, side):
    """Log of the mean of p over the other models that count.

    Points that a target does not use may lack such a model.
    """
    indices = _shadows.targets(target, len(self.log_p))
    count = where.sum(axis=0) - where[indices]
    count = np.where(used, count, np.maximum(count, 1))
    for row, index in enumerate(indices):
      _shadows.check_counts(
        count[row], side, 1, index, field=f"{self.prefix}member"
      )
    counted = np.where(where, self.log_p, -np.inf)
    if target is not None:
      others = np.delete(counted, target, axis=0)
      total = np.asarray(special.logsumexp(others, axis=0))[None]
    else:
      none = np.full((1, counted.shape[1]), -np.inf)
      before = np.concatenate([none, np.logaddexp.accumulate(counted[:-1])])
      behind = np.logaddexp.accumulate(counted[:0:-1])[::-1]
      total = np.logaddexp(before, np.concatenate([behind, none]))
    return total - np.log(count)
