"""Do metrics follow a level that was planted, and rest where it is zero?

Two questions to a family of models whose bias is known. Over levels: the rank
correlation of every metric with the level of its own notion, apart for each
objective, since models of another kind have another scale. The side that was
planted is known, too, so signed metrics keep their sign: folded, noise around
zero would look like bias. At level zero: a
signed metric has to cover its neutral value over seeds, and a folded gap, which
is never zero, may leave what chance gives only as often as chance does.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from scipy import stats

from experiments._binary import _config_flags
from experiments._fairness import _correlation_axes, _measured, _model_family
from trustjax import fairness, reporting

_NUM_BOOT = 1000
# Seeds at level zero without which nothing can be said.
_LEAST_SEEDS = 3
# Of a test at level zero; a metric in 20 may miss.
_ALPHA = 0.05
_COLORS = {"masked": "#1b6ca8", "causal": "#c2571a"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class AtZero:
  """What a metric must be where nothing was planted.

  Attributes:
    key: Its name in a model's measures.
    kind: "signed" (the mean over seeds covers `neutral`), "gap" (at most the
      95 % point of its null) or "ratio" (at least the 5 % point).
    neutral: Value of a model without bias.
  """

  key: str
  kind: str = "signed"
  neutral: float = 0.0

  @property
  def name(self) -> str:
    """Short name, for keys of the record."""
    return self.key.partition("/")[2].replace("/", "_")


AT_ZERO = (
  *(
    AtZero(key=f"intrinsic/{metric}/{test}")
    for metric in ("weat", "seat", "ceat", "lpbs", "causal_lpbs")
    for test in ("occupations", "opinions")
  ),
  *(
    AtZero(key=f"intrinsic/{metric}/occupations", neutral=50.0)
    for metric in (
      "stereoset_ss",
      "crows_pairs",
      "causal_stereoset_ss",
      "causal_pairs",
    )
  ),
  *(
    AtZero(key=f"extrinsic/polarity_{how}/occupations")
    for how in ("unigram", "max", "weighted")
  ),
  AtZero(key="extrinsic/gender_ratio_mean/occupations", kind="ratio"),
  *(
    AtZero(key=f"extrinsic/{gap}", kind="gap")
    for gap in ("sentiment_gap/negative", "regard_gap/negative")
  ),
  *(
    AtZero(key=f"extrinsic/{encoder}/{metric}", kind=kind)
    for encoder in _model_family.ENCODERS
    for metric, kind in (
      ("counterfactual_signed/gender", "signed"),
      ("neg_aeg/female", "signed"),
      ("pos_aeg/female", "signed"),
      ("demographic_parity_difference/gender", "gap"),
      ("equalized_odds_difference/gender", "gap"),
    )
  ),
)


def record(
  results: reporting.Results,
  config: _config_flags.Config,
  family: Sequence[_model_family.Member],
  axes: Sequence[_correlation_axes.Axis],
  measures: Sequence[dict[str, float]],
) -> None:
  """Sets `planted/...` over levels, and `zero/...` at level zero.

  Args:
    results: The record.
    config: The study's config.
    family: The models.
    axes: Metrics.
    measures: All measures of each model.
  """
  below = []
  values = directed(axes, measures)
  for column, axis in enumerate(axes):
    for objective in _objectives(family):
      key = f"planted/{axis.name}/{objective}"
      rows = _rows(family, objective) & np.isfinite(values[:, column])
      if rows.sum() < 3 or np.ptp(values[rows, column]) == 0:
        results.set(
          f"{key}/spearman", None, reason="too few models, or a constant metric"
        )
        continue
      found = _spearman(level_of(axis, family)[rows], values[rows, column])
      results.measure(f"{key}/spearman", found)
      if not axis.saturates and found.estimate < config.spearman_at_least:
        below.append(f"{axis.name} ({objective})")
    results.set(
      f"planted/{axis.name}/declared",
      axis.saturates or f"monotone, {config.spearman_at_least}",
    )
  results.set("planted/num_below", len(below))
  results.set("planted/below", ", ".join(below) or "none")
  _record_zero(results, family, measures)


def directed(
  axes: Sequence[_correlation_axes.Axis], measures: Sequence[dict[str, float]]
) -> np.ndarray:
  """Values [models, metrics], larger is more bias on the side of the plant."""
  columns = [
    fairness.orient(
      np.array([found.get(axis.key, np.nan) for found in measures]),
      axis.kind,
      fold=False,
    )
    for axis in axes
  ]
  return np.stack(columns, axis=1)


def level_of(
  axis: _correlation_axes.Axis, family: Sequence[_model_family.Member]
) -> np.ndarray:
  """The level that was planted for a metric's notion, model by model."""
  field = "bias" if axis.notion == "occupations" else "opinion_bias"
  return np.array([getattr(member, field) for member in family])


def _objectives(family):
  return sorted({member.shape.objective for member in family}, reverse=True)


def _rows(family, objective):
  return np.array([member.shape.objective == objective for member in family])


def _spearman(level, values):
  """Rank correlation; models are resampled within their level."""
  rng = np.random.default_rng(0)
  drawn = np.empty((_NUM_BOOT, len(level)), int)
  for one in np.unique(level):
    inside = np.flatnonzero(level == one)
    drawn[:, inside] = rng.choice(inside, (_NUM_BOOT, len(inside)))
  ranked = stats.rankdata(np.concatenate([values[None], values[drawn]]), axis=1)
  ranked -= ranked.mean(1, keepdims=True)
  planted = stats.rankdata(level)
  planted -= planted.mean()
  size = np.linalg.norm(ranked, axis=1) * np.linalg.norm(planted)
  found = ranked @ planted / np.where(size > 0, size, np.nan)
  low, high = np.nanquantile(found[1:], [0.025, 0.975])
  one = float(found[0])
  return reporting.Interval(one, min(one, low), max(one, high), len(level))


def _record_zero(results, family, measures):
  """Verdict of every metric that some model without planted bias has."""
  unbiased = [
    (member, found)
    for member, found in zip(family, measures, strict=True)
    if member.bias == member.opinion_bias == 0
  ]
  seeds = {member.seed for member, _ in unbiased}
  if len(seeds) < _LEAST_SEEDS:
    results.set(
      "zero/misses",
      None,
      reason=f"{len(seeds)} seeds at level zero; {_LEAST_SEEDS} are needed",
    )
    return
  tested, missed = 0, []
  for check in AT_ZERO:
    covers = _covers_signed if check.kind == "signed" else _inside_null
    verdict = covers(results, check, unbiased)
    if verdict is not None:
      tested += 1
      results.set(f"zero/{check.name}/covers", "yes" if verdict else "no")
      if not verdict:
        missed.append(check.name)
  results.set("zero/metrics", tested)
  results.set("zero/misses", len(missed))
  results.set("zero/missed", ", ".join(missed) or "none")
  results.set("zero/misses_allowed", max(1, int(_ALPHA * tested)))


def _covers_signed(results, check, unbiased):
  """Whether the mean over seeds covers the neutral value.

  A seed is one draw: the models of its objectives learnt from one corpus.
  """
  by_seed: dict[int, list[float]] = {}
  for member, found in unbiased:
    value = found.get(check.key, np.nan)
    if np.isfinite(value):
      by_seed.setdefault(member.seed, []).append(value)
  if len(by_seed) < _LEAST_SEEDS:
    return None
  mean = reporting.mean_interval([float(np.mean(v)) for v in by_seed.values()])
  results.measure(f"zero/{check.name}/mean", mean)
  return bool(mean.low <= check.neutral <= mean.high)


def _inside_null(results, check, unbiased):
  """Whether no more models leave the null than chance alone makes leave it."""
  outside = [
    found[check.key] < found[f"{check.key}/null_95"]
    if check.kind == "ratio"
    else found[check.key] > found[f"{check.key}/null_95"]
    for _, found in unbiased
    if np.isfinite(found.get(f"{check.key}/null_95", np.nan))
  ]
  if len(outside) < _LEAST_SEEDS:
    return None
  count = int(sum(outside))
  results.set(f"zero/{check.name}/outside", count)
  results.set(f"zero/{check.name}/models", len(outside))
  return bool(stats.binom.sf(count - 1, len(outside), _ALPHA) >= _ALPHA)


def make_table(
  results: reporting.Results,
  axes: Sequence[_correlation_axes.Axis],
  family: Sequence[_model_family.Member],
) -> reporting.Table:
  """One row a metric: what was declared, and what was found."""
  objectives = _objectives(family)
  notes = [f"Monotone metrics below the bar: {results['planted/below']}."]
  if results["zero/misses"] is None:
    notes.append(f"Level zero: {results.reason('zero/misses')}.")
  else:
    notes.append(
      f"Level zero: {results['zero/misses']} of {results['zero/metrics']}"
      f" metrics miss ({results['zero/missed']});"
      f" {results['zero/misses_allowed']} may."
    )
  return reporting.Table(
    columns=[
      reporting.Column("metric"),
      *(
        reporting.Column(name, f"Spearman, {name}", format=".2f")
        for name in objectives
      ),
      reporting.Column("declared"),
    ],
    rows=[
      {
        "metric": axis.name,
        **{
          name: _measured.cell(results, f"planted/{axis.name}/{name}/spearman")
          for name in objectives
        },
        "declared": results[f"planted/{axis.name}/declared"],
      }
      for axis in axes
    ],
    title="Every metric against the level that was planted",
    notes=notes,
  )


def plot(family, axes, measures, title):
  """Every metric against the planted level."""
  values = directed(axes, measures)
  figure, panels = reporting.new_figure(
    panels=len(axes), panel_size=(3.2, 2.1), title=title
  )
  for panel, axis, column in zip(panels, axes, values.T):
    level = level_of(axis, family)
    for objective, color in _COLORS.items():
      rows = _rows(family, objective) & np.isfinite(column)
      if rows.any():
        panel.plot(
          level[rows],
          column[rows],
          "o",
          ms=3,
          color=color,
          alpha=0.7,
          label=objective,
        )
    panel.set_title(axis.name, fontsize=8)
    panel.set_xlabel("planted level")
  panels[0].legend()
  return figure
