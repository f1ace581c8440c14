"""Does a per-record metric agree with people's judgement of the records?"""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, Real
from scipy import stats

from trustjax.fairness import (
  _bias_aucs,
  _linear_association,
  _ordinal,
  _resampling,
  _validate,
)
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
    steiger_z: Steiger's test of the two dependent point-biserial correlations;
      nan if a metric or the label is constant.
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
  return _of_columns(_columns(scores), jnp.asarray(labels, float))


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
  data = (_columns(first), _columns(second), jnp.asarray(labels, float))
  run = functools.partial(
    _resampling.bootstrap,
    data=data,
    key=key,
    num=num,
    strata=jnp.asarray(labels, jnp.int32),
    confidence=confidence,
  )
  correlations = (
    float(one.point_biserial),
    float(other.point_biserial),
    float(_linear_association.pearson(data[0][0], data[1][0])),
  )
  z, p = math.nan, math.nan
  if np.isfinite(correlations).all():
    one_r, other_r, both_r = (max(-1.0, min(r, 1.0)) for r in correlations)
    z, p = steiger_test(one_r, other_r, both_r, len(labels))
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
    Z and the two-sided p-value; Z is infinite if just one correlation is 1 or
    -1, which leaves no error to test against.

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
  if r_first == r_second:
    return 0.0, 1.0
  if max(abs(r_first), abs(r_second)) == 1:
    return math.copysign(math.inf, r_first - r_second), 0.0
  mean = (r_first + r_second) / 2
  square = mean * mean
  covariance = r_between * (1 - 2 * square) - 0.5 * square * (
    1 - 2 * square - r_between**2
  )
  shared = covariance / (1 - square) ** 2
  apart = math.atanh(r_first) - math.atanh(r_second)
  if shared >= 1:
    return 0.0, 1.0
  z = apart * math.sqrt((n - 3) / (2 - 2 * shared))
  return z, float(2 * stats.norm.sf(abs(z)))


def average_ranks(x: Float[Array, " records"]) -> Float[Array, " records"]:
  """Ranks from 1; ties share the mean of their ranks."""
  ranking = _bias_aucs.Ranking.of(x)
  ordered = (ranking.start + ranking.end + 1).astype(x.dtype) / 2
  return jnp.zeros_like(x).at[ranking.order].set(ordered)


def _columns(scores):
  """Values for correlations, and numbers in the same order for ranks.

  Wide numbers of the host are moved to mean 0 before they are made narrow: no
  correlation depends on where they lie, but their rounding does.
  """
  values = scores
  if isinstance(scores, np.ndarray):
    wide = scores.astype(np.float64)
    varies = len(wide) and np.ptp(wide)
    values = wide - wide.mean() if varies else np.zeros_like(wide)
  dtype = jnp.result_type(float)
  return jnp.asarray(values, dtype), jnp.asarray(
    _ordinal.ordinal(scores), dtype
  )


@jax.jit
def _of_columns(columns, label):
  values, order = columns
  return Agreement(
    point_biserial=_linear_association.pearson(values, label),
    spearman=_linear_association.pearson(
      average_ranks(order), average_ranks(label)
    ),
    auc=_bias_aucs.auc(order, label),
  )


def _first(data):
  return _of_columns(data[0], data[2])


def _second(data):
  return _of_columns(data[1], data[2])


def _difference(data):
  return jax.tree.map(jnp.subtract, _first(data), _second(data))
