"""LiRA: the likelihood ratio of a record's statistic, in against out."""

import numpy as np
from jaxtyping import Bool, Float, Float64
from scipy import stats as scipy_stats

from trustjax.attacks import _shadows, _validate
from trustjax.attacks._validate import AnyArray


def lira_scores(
  stats: Float[AnyArray, "models records"],
  member: Bool[AnyArray, "models records"],
  *,
  target: int | None,
  online: bool,
  variance: str = "auto",
  center: str = "mean",
  min_std: float = 1e-6,
) -> Float64[np.ndarray, "*models records"]:
  """Likelihood-ratio scores of the records under a target model.

  The statistic phi of a record is modelled as normal, once over the shadow
  models trained on it and once over the others:

    online   log N(phi; mu_in, s_in^2) - log N(phi; mu_out, s_out^2)
    offline  -log(1 - Phi((phi - mu_out) / s_out)) = -log Pr[Z > phi]

  The offline score is a monotone transform of the published Lambda =
  Phi(...) = 1 - exp(-score), which itself rounds to 1 from 8.3 standard
  deviations on and so ties exactly the records that matter at low FPR.

  Memberships should be independent coins. If every record is in for exactly
  half of the models, a member of the target has one shadow less "in" than
  "out": the worse fit pushes the AUC of an attack on nothing below 1/2 when
  models attack each other and shadows are few. Leaving out records with too few
  shadows does the same, since the target's own coin then decides, too: online,
  8 models give about 0.48 on nothing, 12 give 0.497, 16 no visible bias.

  Fidelity:
    Paper: Carlini et al. 2022, with global variances for few shadows.
    Authors' code: takes medians for means; the fixed variance is the standard
      deviation over all records and shadows at once (it contains the spread
      between records), and that of "in" is used for "out"; offline it scores
      by the log-density under "out", which also flags records that are far
      too improbable.
    Here: means by default (center="median" for the code's choice); "fixed"
      pools the deviations from each record's own mean; "global" contains the
      spread between records as the code does, but each side keeps its own;
      offline is one-sided, as in the paper.
    Verdict: faithful.

  Args:
    stats: Statistic of each record under each model; `joint_logit` of
      `record_statistics`, or any other for which larger means "more at home".
    member: Whether the model was trained on the record.
    target: The model under attack, the others being its shadows; None attacks
      each model by all the others.
    online: Whether shadows trained on the record may be used.
    variance: "per_record", "fixed" (pooled over records), "global", or "auto":
      per record from 64 models on, fixed below.
    center: "mean" or "median" of the shadows.
    min_std: Floor of standard deviations, for records that all shadows score
      alike.

  Returns:
    Scores [records], or [models, records] for a target of None; larger means
    more likely a member.

  Raises:
    ValueError: If a statistic is not finite, an option is unknown, or a record
      has too few shadows: one out (and one in if online), two of each for
      variances per record.

  Example:
    >>> scores = lira_scores(stats.joint_logit, keep, target=0, online=True)

  References:
    Carlini et al., IEEE S&P 2022, arXiv 2112.03570.
  """
  _validate.check_choice("center", center, _shadows.CENTERS)
  _validate.check_at_least("min_std", min_std, 1e-30)
  values = _validate.finite("stats", stats)
  member = _validate.membership("member", member, values.shape)
  num_models = values.shape[0]
  variance = _shadows.resolve_variance(variance, num_models - 1)
  scores = [
    _attack_one(
      values,
      member,
      index,
      online=online,
      least=2 if variance == "per_record" else 1,
      options={"variance": variance, "center": center, "min_std": min_std},
    )
    for index in _shadows.targets(target, num_models)
  ]
  return scores[0] if target is not None else np.stack(scores)


def _attack_one(values, member, target, *, online, least, options):
  """Scores of the records under one target."""
  shadows = np.delete(values, target, axis=0)
  inside = np.delete(member, target, axis=0)
  observed = values[target]
  _shadows.check_counts((~inside).sum(axis=0), "out", least, target)
  if online:
    _shadows.check_counts(inside.sum(axis=0), "in", least, target)
  out = _shadows.moments(shadows, ~inside, **options)
  z_out = (observed - out.mean) / out.std
  if not online:
    return -scipy_stats.norm.logsf(z_out)
  within = _shadows.moments(shadows, inside, **options)
  z_in = (observed - within.mean) / within.std
  return (z_out**2 - z_in**2) / 2 + np.log(out.std / within.std)


def lira_vector_scores(
  stats: Float[AnyArray, "models records features"],
  member: Bool[AnyArray, "models records"],
  *,
  target: int | None,
  covariance: str = "auto",
  ridge: float = 1e-2,
) -> Float64[np.ndarray, "*models records"]:
  """Online LiRA on several statistics of a record at once.

    log N(phi; mu_in, S_in + ridge I) - log N(phi; mu_out, S_out + ridge I)

  with covariances S over shadows. For a joint model, (intent_logit,
  slots_logit) lets the attack weigh the two heads by how much each memorises.

  Fidelity:
    Paper: Carlini et al. 2022 use a multivariate normal for several queries
      (augmentations) of one record.
    Here: the features are different statistics of the same query; the ridge
      keeps covariances of few shadows invertible.
    Verdict: adaptation.

  Args:
    stats: Statistics of each record under each model.
    member: Whether the model was trained on the record.
    target: The model under attack, or None for each in turn.
    covariance: "per_record", "fixed" (pooled over records), or "auto" as in
      `lira_scores`.
    ridge: Added to the diagonals.

  Returns:
    Scores [records], or [models, records] for a target of None.

  Raises:
    ValueError: As `lira_scores`, or a covariance is singular.
  """
  _validate.check_choice(
    "covariance", covariance, ("auto", "per_record", "fixed")
  )
  _validate.check_at_least("ridge", ridge, 0)
  values = _validate.finite("stats", stats)
  member = _validate.membership("member", member, values.shape[:2])
  num_models = values.shape[0]
  kind = _shadows.resolve_variance(covariance, num_models - 1)
  least = 2 if kind == "per_record" else 1
  scores = []
  for index in _shadows.targets(target, num_models):
    shadows = np.delete(values, index, axis=0)
    inside = np.delete(member, index, axis=0)
    log_density = {}
    for side, where in (("in", inside), ("out", ~inside)):
      _shadows.check_counts(where.sum(axis=0), side, least, index)
      log_density[side] = _log_normal(
        values[index], shadows, where, kind=kind, ridge=ridge
      )
    scores.append(log_density["in"] - log_density["out"])
  return scores[0] if target is not None else np.stack(scores)


def _log_normal(observed, shadows, where, *, kind, ridge):
  """Log-density of each record's normal law, up to its constant."""
  count = where.sum(axis=0)
  weight = where[..., None].astype(np.float64)
  mean = (shadows * weight).sum(axis=0) / count[:, None]
  deviation = (shadows - mean) * weight
  scatter = np.einsum("srf,srg->rfg", deviation, deviation)
  if kind == "fixed":
    freedom = (count - 1).sum()
    if freedom < 1:
      raise ValueError(
        "member: no record has two shadow models on one side, so that no"
        " covariance can be learned; train more shadow models"
      )
    pooled = scatter.sum(axis=0) / freedom
    covariance = np.broadcast_to(pooled, scatter.shape)
  else:
    covariance = scatter / (count - 1)[:, None, None]
  covariance = covariance + ridge * np.eye(shadows.shape[-1])
  try:
    root = np.linalg.cholesky(covariance)
  except np.linalg.LinAlgError as error:
    raise ValueError(
      f"ridge: got {ridge}; a covariance of the shadow models is singular (a"
      " larger ridge, covariance='fixed' or more shadow models help)"
    ) from error
  white = np.linalg.solve(root, (observed - mean)[..., None])[..., 0]
  log_volume = np.log(np.diagonal(root, axis1=1, axis2=2)).sum(axis=-1)
  return -0.5 * np.square(white).sum(axis=-1) - log_volume
