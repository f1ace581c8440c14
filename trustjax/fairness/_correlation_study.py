"""Do metrics inside a model predict metrics of what it does?

Small float64 statistics over a dozen or two models, on the host.
"""

import dataclasses
import itertools
import math
from collections.abc import Sequence

import jax
import numpy as np
from jaxtyping import Array, Bool, Float64, Int, Key, Real
from scipy import stats

from trustjax.fairness import _validate
from trustjax.fairness._validate import AnyArray

Grid = Float64[np.ndarray, "intrinsic extrinsic"]

# Kind -> (centre, sign): the metric's fair point, and whether larger values
# are less fair (1), fairer (-1), or both directions are unfair (0).
_KINDS = {
  "per_cent": (50.0, 0),
  "signed": (0.0, 0),
  "gap": (0.0, 1),
  "auc": (1.0, -1),
  "ratio": (1.0, -1),
}
_EXACT = 8


@dataclasses.dataclass(frozen=True, kw_only=True)
class CorrelationStudy:
  """Correlations of every intrinsic with every extrinsic metric.

  "Not significant" is not "uncorrelated": read the intervals.

  Attributes:
    pearson: Correlation over models; nan if a column is constant or fewer
      than three models have both metrics.
    pearson_low: Lower end of its bootstrap interval over models.
    pearson_high: Upper end.
    spearman: Correlation of average ranks.
    spearman_low: Lower end.
    spearman_high: Upper end.
    p_pearson: Two-sided permutation p-value.
    p_spearman: The same of the ranks.
    p_holm: `p_pearson` adjusted over the declared cells; nan elsewhere.
    p_holm_spearman: `p_spearman` adjusted over the declared cells.
    family_low: Smallest Pearson correlation with one family left out.
    family_high: Largest.
    partial: Pearson correlation given the logarithm of the model's size.
    disattenuated: Pearson divided by the root of both reliabilities.
    n: Models behind each cell.
  """

  pearson: Grid
  pearson_low: Grid
  pearson_high: Grid
  spearman: Grid
  spearman_low: Grid
  spearman_high: Grid
  p_pearson: Grid
  p_spearman: Grid
  p_holm: Grid
  p_holm_spearman: Grid
  family_low: Grid
  family_high: Grid
  partial: Grid
  disattenuated: Grid
  n: Int[np.ndarray, "intrinsic extrinsic"]


def orient(
  values: Real[AnyArray, "*shape"], kind: str, *, fold: bool = True
) -> Float64[np.ndarray, "*shape"]:
  """Turns a metric so that larger means more biased.

    per_cent   StereoSet ss, CrowS-Pairs     |x - 50|
    signed     CEAT, WEAT d, LPBS            |x|
    auc        AUCs and their power mean     1 - x
    ratio      min(F / M, M / F)             1 - x
    gap        gaps                          x

  Folding turns estimation noise into apparent bias (a true spread of 0.3 with
  noise 0.1 loses 0.07 of its correlation with the truth): run the study with
  fold=False beside it. icat mixes quality with bias and is refused.

  Args:
    values: Values of one metric.
    kind: Which metric it is.
    fold: Whether both directions count as bias.

  Returns:
    Oriented values.

  Raises:
    ValueError: If the kind is unknown, or is "icat".
  """
  if kind == "icat":
    raise ValueError(
      "kind: got 'icat', which mixes language quality with bias; use ss"
    )
  _validate.check_choice("kind", kind, _KINDS)
  centre, sign = _KINDS[kind]
  away = np.asarray(values, np.float64) - centre
  if sign == 0:
    return np.abs(away) if fold else away
  return sign * away


def correlation_study(
  intrinsic: Real[AnyArray, "models intrinsic"],
  extrinsic: Real[AnyArray, "models extrinsic"],
  *,
  key: Key[Array, ""],
  num_perm: int = 9_999,
  num_boot: int = 2_000,
  declared: Bool[np.ndarray, "intrinsic extrinsic"] | None = None,
  family: Int[AnyArray, " models"] | None = None,
  log_size: Real[AnyArray, " models"] | None = None,
  reliability_intrinsic: Sequence[float] | None = None,
  reliability_extrinsic: Sequence[float] | None = None,
  confidence: float = 0.95,
) -> CorrelationStudy:
  """Correlates intrinsic with extrinsic metrics over models.

  Permutation p-values are (b + 1) / (B + 1) over sampled permutations, and
  exact over all of them for up to eight models. Intervals resample models.
  Cells use the models that have both metrics (nan is missing).

  Fidelity:
    Paper: Cao et al. 2022 report Pearson correlations with p-values over 19
      models; the model list and coefficients are not known here.
    Here: ranks, permutation tests, intervals, Holm's correction over the
      declared grid, families and size.
    Verdict: adaptation.

  Args:
    intrinsic: Metrics inside the models, oriented (`orient`).
    extrinsic: Metrics of what they do, oriented.
    key: Typed key.
    num_perm: Sampled permutations a cell.
    num_boot: Resamples a cell.
    declared: Cells that were to be tested before looking; None is all.
    family: Family of each model; sizes of one family are not independent.
    log_size: Logarithm of the number of parameters of each model.
    reliability_intrinsic: Reliability of each intrinsic metric, in (0, 1].
    reliability_extrinsic: The same of each extrinsic metric.
    confidence: Nominal coverage.

  Returns:
    The study.

  Raises:
    ValueError: If shapes differ, an entry is infinite, or a reliability is
      out of range.

  References:
    Cao et al., ACL 2022, arXiv 2203.13928.
    Holm, Scandinavian Journal of Statistics 6 (1979).
  """
  _validate.check_between("confidence", confidence, 0, 1)
  _validate.check_at_least("num_perm", num_perm, 1)
  _validate.check_at_least("num_boot", num_boot, 1)
  x, y = (np.asarray(a, np.float64) for a in (intrinsic, extrinsic))
  _check_models(x, y, family=family, log_size=log_size)
  shape = (x.shape[1], y.shape[1])
  names = [
    field.name
    for field in dataclasses.fields(CorrelationStudy)
    if field.name != "n"
  ]
  grids: dict[str, np.ndarray] = {
    name: np.full(shape, np.nan) for name in names
  }
  n = np.zeros(shape, int)
  seed = np.asarray(jax.random.key_data(key))
  for i, e in itertools.product(*map(range, shape)):
    generator = np.random.default_rng([*seed.tolist(), i, e])
    both = ~(np.isnan(x[:, i]) | np.isnan(y[:, e]))
    n[i, e] = both.sum()
    cell = _cell(
      x[both, i],
      y[both, e],
      None if family is None else np.asarray(family)[both],
      None if log_size is None else np.asarray(log_size, np.float64)[both],
      generator,
      num_perm,
      num_boot,
      confidence,
    )
    for name, value in cell.items():
      grids[name][i, e] = value
  chosen = np.ones(shape, bool) if declared is None else np.asarray(declared)
  if chosen.shape != shape:
    raise ValueError(f"declared: got shape {chosen.shape}; must be {shape}")
  for name in ("p_holm", "p_holm_spearman"):
    raw = "p_spearman" if name.endswith("spearman") else "p_pearson"
    grids[name] = _holm_grid(grids[raw], chosen)
  if reliability_intrinsic is not None and reliability_extrinsic is not None:
    grids["disattenuated"] = grids["pearson"] / np.sqrt(
      np.outer(
        _reliability("reliability_intrinsic", reliability_intrinsic, shape[0]),
        _reliability("reliability_extrinsic", reliability_extrinsic, shape[1]),
      )
    )
  return CorrelationStudy(n=n, **grids)


def _check_models(x, y, **of_models):
  """Refuses tables and columns that are not of the same models."""
  if len(x) != len(y):
    raise ValueError(f"intrinsic, extrinsic: got {len(x)} and {len(y)} models")
  for name, values in (("intrinsic", x), ("extrinsic", y)):
    if np.isinf(values).any():
      raise ValueError(f"{name}: holds an infinite value")
  for name, column in of_models.items():
    if column is not None and len(column) != len(x):
      raise ValueError(f"{name}: got {len(column)} for {len(x)} models")


def holm(p: Real[AnyArray, " tests"]) -> Float64[np.ndarray, " tests"]:
  """Holm's step-down adjustment of p-values.

  Args:
    p: p-values in [0, 1].

  Returns:
    Adjusted p-values, in the order given.

  Raises:
    ValueError: If a p-value leaves [0, 1] or is nan.
  """
  values = np.asarray(p, np.float64)
  if not ((values >= 0) & (values <= 1)).all():
    raise ValueError("p: got a value outside [0, 1]")
  order = np.argsort(values, kind="stable")
  factors = len(values) - np.arange(len(values))
  adjusted = np.minimum(1, np.maximum.accumulate(factors * values[order]))
  out = np.empty_like(values)
  out[order] = adjusted
  return out


def critical_correlation(
  num_models: int, *, alpha: float = 0.05, num_tests: int = 1
) -> float:
  """Smallest |r| that a t-test of that many models calls significant.

  Args:
    num_models: Number of models, more than 2.
    alpha: Two-sided level.
    num_tests: Cells of the grid: the first step of Holm's procedure tests at
      alpha / num_tests.

  Returns:
    |r|, so that a study can say beforehand what it could find.

  Raises:
    ValueError: If there are too few models.
  """
  _validate.check_at_least("num_models", num_models, 3)
  _validate.check_between("alpha", alpha, 0, 1)
  _validate.check_at_least("num_tests", num_tests, 1)
  freedom = num_models - 2
  t = float(stats.t.isf(alpha / num_tests / 2, freedom))
  return t / math.sqrt(t * t + freedom)


def _cell(
  x, y, family, log_size, generator, num_perm, num_boot, confidence
) -> dict[str, float]:
  """All statistics of one pair of metrics."""
  if len(x) < 3 or not (_varies(x) and _varies(y)):
    return {}
  ranks = stats.rankdata(x), stats.rankdata(y)
  pearson, spearman = _pearson(x, y), _pearson(*ranks)
  orders = _orders(len(x), generator, num_perm)
  found = {
    "pearson": pearson,
    "spearman": spearman,
    "p_pearson": _permutation_p(x, y, pearson, *orders),
    "p_spearman": _permutation_p(*ranks, spearman, *orders),
  }
  rows = generator.integers(0, len(x), size=(num_boot, len(x)))
  tail = (1 - confidence) / 2
  for name, pair in (
    ("pearson", (x[rows], y[rows])),
    (
      "spearman",
      tuple(stats.rankdata(part[rows], axis=1) for part in (x, y)),
    ),
  ):
    replicates = _pearson(*pair)
    replicates = replicates[np.isfinite(replicates)]
    if replicates.size:
      ends = np.quantile(replicates, [tail, 1 - tail])
      found[f"{name}_low"], found[f"{name}_high"] = ends
  if family is not None:
    left_out = [
      _pearson(x[family != f], y[family != f])
      for f in np.unique(family)
      if (family != f).sum() >= 3
    ]
    left_out = [r for r in left_out if np.isfinite(r)]
    if left_out:
      found["family_low"], found["family_high"] = min(left_out), max(left_out)
  if log_size is not None and len(x) > 3:
    found["partial"] = _partial(x, y, log_size)
  return found


def _varies(values):
  """Whether values differ by more than the rounding of the largest."""
  rounding = 8 * np.finfo(np.float64).eps * np.abs(values).max()
  return np.ptp(values) > rounding


def _pearson(x, y):
  """Pearson correlation over the last axis; nan for a constant side."""
  x = x - x.mean(-1, keepdims=True)
  y = y - y.mean(-1, keepdims=True)
  scale = np.sqrt((x * x).sum(-1) * (y * y).sum(-1))
  with np.errstate(invalid="ignore", divide="ignore"):
    return np.where(scale > 0, (x * y).sum(-1) / scale, np.nan)[()]


def _orders(size, generator, num_perm):
  """Permutations of the models, and whether these are all."""
  if size <= _EXACT:
    return np.array(list(itertools.permutations(range(size)))), True
  return generator.random((num_perm, size)).argsort(axis=1), False


def _permutation_p(x, y, observed, orders, exact):
  """Share of permutations with a correlation at least as large in size."""
  permuted = _pearson(np.broadcast_to(x, orders.shape), y[orders])
  # Rounding must not turn a tie into a smaller value.
  extreme = np.count_nonzero(np.abs(permuted) >= abs(observed) - 1e-12)
  if exact:
    return extreme / len(orders)
  return (extreme + 1) / (len(orders) + 1)


def _partial(x, y, z):
  """Correlation of x and y after removing a linear effect of z."""
  xy, xz, yz = _pearson(x, y), _pearson(x, z), _pearson(y, z)
  rest = (1 - xz**2) * (1 - yz**2)
  # A metric that is a function of size has nothing left to correlate.
  return (xy - xz * yz) / math.sqrt(rest) if rest > 1e-12 else np.nan


def _holm_grid(p, declared):
  out = np.full(p.shape, np.nan)
  tested = declared & np.isfinite(p)
  out[tested] = holm(p[tested])
  return out


def _reliability(name, values, size):
  array = np.asarray(values, np.float64)
  if array.shape != (size,):
    raise ValueError(f"{name}: got shape {array.shape}; must be ({size},)")
  if not ((array > 0) & (array <= 1)).all():
    raise ValueError(f"{name}: got {array.tolist()}; must lie in (0, 1]")
  return array
