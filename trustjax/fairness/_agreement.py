"""Does a per-record metric agree with people's judgement of the records?"""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, Real
from scipy import stats

from trustjax.fairness import _bias_aucs, _resampling, _validate
from trustjax.fairness._validate import AnyArray


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Agreement:
  """Association of a score with a 0/1 label.

  Attributes:
    point_biserial: Pearson correlation with the label.
    spearman: Correlation of average ranks.
    auc: Chance that a record labelled 1 scores higher.
  """

  point_biserial: Float[Array, "*batch"]
  spearman: Float[Array, "*batch"]
  auc: Float[Array, "*batch"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class AgreementComparison:
  """Two metrics against one label, on the same records.

  Attributes:
    first: Bootstrap of the first metric's agreement.
    second: Of the second.
    difference: Paired bootstrap of first minus second.
    steiger_z: Steiger's test of the two dependent point-biserial correlations.
    steiger_p: Its two-sided p-value.
  """

  first: _resampling.Bootstrap
  second: _resampling.Bootstrap
  difference: _resampling.Bootstrap
  steiger_z: float
  steiger_p: float


def label_agreement(
  scores: Real[AnyArray, " records"], labels: Real[AnyArray, " records"]
) -> Agreement:
  """Correlates a score with a label.

  Args:
    scores: One number a record; larger should mean less fair.
    labels: 1 where people call the record unfair, else 0.

  Returns:
    Three views of the association; nan if a side is constant.

  Raises:
    ValueError: If shapes differ, a score is not finite or a label is not 0 or
      1.
  """
  _validate.check_same_shape(scores=scores, labels=labels)
  _validate.check_finite("scores", scores)
  _validate.check_binary("labels", labels)
  dtype = jnp.result_type(float)
  score, label = jnp.asarray(scores, dtype), jnp.asarray(labels, dtype)
  return Agreement(
    point_biserial=pearson(score, label),
    spearman=pearson(average_ranks(score), average_ranks(label)),
    auc=_bias_aucs.auc(score, label),
  )


def compare_agreement(
  first: Real[AnyArray, " records"],
  second: Real[AnyArray, " records"],
  labels: Real[AnyArray, " records"],
  *,
  key: Key[Array, ""],
  num: int = 2_000,
  confidence: float = 0.95,
) -> AgreementComparison:
  """Which of two metrics agrees better with people?

  Records are resampled within labels, the same ones for both metrics.

  Args:
    first: Scores of one metric.
    second: Scores of the other.
    labels: 1 where people call the record unfair, else 0.
    key: Typed key.
    num: Resamples.
    confidence: Nominal coverage.

  Returns:
    Intervals of both and of the difference, and Steiger's test.

  Raises:
    ValueError: As `label_agreement`.

  References:
    Steiger, Psychological Bulletin 87 (1980), equation 15.
  """
  one, other = label_agreement(first, labels), label_agreement(second, labels)
  dtype = jnp.result_type(float)
  data = tuple(jnp.asarray(a, dtype) for a in (first, second, labels))
  run = functools.partial(
    _resampling.bootstrap,
    data=data,
    key=key,
    num=num,
    strata=jnp.asarray(labels, jnp.int32),
    confidence=confidence,
  )
  z, p = steiger_test(
    float(one.point_biserial),
    float(other.point_biserial),
    float(np.corrcoef(np.asarray(first), np.asarray(second))[0, 1]),
    len(labels),
  )
  return AgreementComparison(
    first=run(_first),
    second=run(_second),
    difference=run(_difference),
    steiger_z=z,
    steiger_p=p,
  )


def steiger_test(
  r_first: float, r_second: float, r_between: float, n: int
) -> tuple[float, float]:
  """Steiger's Z for two correlations that share a variable.

  With z = atanh r and the mean r of both correlations,

    Z = (z_1 - z_2) sqrt((n - 3) / (2 - 2 c)),
    c = (b (1 - 2 r^2) - r^2 (1 - 2 r^2 - b^2) / 2) / (1 - r^2)^2,

  where b is the correlation of the two that are compared.

  Args:
    r_first: Correlation of the first with the shared variable.
    r_second: Correlation of the second with it.
    r_between: Correlation of the first with the second.
    n: Number of records, more than 3.

  Returns:
    Z and the two-sided p-value.

  Raises:
    ValueError: If n is too small or a correlation leaves [-1, 1].
  """
  _validate.check_at_least("n", n, 4)
  for name, r in (
    ("r_first", r_first),
    ("r_second", r_second),
    ("r_between", r_between),
  ):
    if not -1 <= r <= 1:
      raise ValueError(f"{name}: got {r}; it must lie in [-1, 1]")
  mean = (r_first + r_second) / 2
  square = mean * mean
  covariance = r_between * (1 - 2 * square) - 0.5 * square * (
    1 - 2 * square - r_between**2
  )
  shared = covariance / (1 - square) ** 2
  apart = math.atanh(r_first) - math.atanh(r_second)
  if apart == 0 or shared >= 1:
    return 0.0, 1.0
  z = apart * math.sqrt((n - 3) / (2 - 2 * shared))
  return z, float(2 * stats.norm.sf(abs(z)))


def pearson(
  x: Float[Array, " records"], y: Float[Array, " records"]
) -> Float[Array, ""]:
  """Pearson correlation; nan if a side is constant."""
  x, y = x - jnp.mean(x), y - jnp.mean(y)
  scale = jnp.sqrt(jnp.sum(x * x) * jnp.sum(y * y))
  some = scale > 0
  return jnp.where(some, jnp.sum(x * y) / jnp.where(some, scale, 1), jnp.nan)


def average_ranks(x: Float[Array, " records"]) -> Float[Array, " records"]:
  """Ranks from 1; ties share the mean of their ranks."""
  ranking = _bias_aucs.Ranking.of(x)
  ordered = (ranking.start + ranking.end + 1).astype(x.dtype) / 2
  return jnp.zeros_like(x).at[ranking.order].set(ordered)


def _first(data):
  return label_agreement(data[0], data[2])


def _second(data):
  return label_agreement(data[1], data[2])


def _difference(data):
  return jax.tree.map(jnp.subtract, _first(data), _second(data))
