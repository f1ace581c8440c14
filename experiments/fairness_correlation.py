r"""Correlates metrics inside models with metrics of what the models do.

  python -m experiments.fairness_correlation
  python -m experiments.fairness_correlation \
      --config=configs/fairness_correlation/planted_levels.py --workdir=OUT

Trains a family of models on corpora of varying bias, with two objectives and
sizes; measures each inside (association, likelihood) and outside (decisions of
a classifier on the frozen and on the tuned model, generated text); and
correlates over models, with permutation tests, bootstrap intervals and Holm's
correction over the declared cells. Then the same table for what alignment is
said to cure: only cells of one notion, only the frozen or the tuned model.
The 16 models of the default take about five minutes on two cores; for a first
look, `--config.levels='((0.0,0.67),(1.0,0.33))'` trains half of them.
planted_levels/table.md holds every metric against the level that was planted.
"""

import pathlib

import jax
import numpy as np

from experiments._binary import _config_flags, _console
from experiments._fairness import (
  _correlation_axes,
  _measured,
  _model_family,
  _planted_levels,
)
from trustjax import fairness, reporting

Config = _config_flags.Config


def study(
  config: Config,
  family: list[_model_family.Member],
  x: np.ndarray,
  y: np.ndarray,
  declared: np.ndarray,
) -> fairness.CorrelationStudy:
  """The correlations of a declared grid."""
  kinds = sorted({member.family for member in family})
  return fairness.correlation_study(
    x,
    y,
    key=jax.random.key(config.seed),
    num_perm=config.num_perm,
    num_boot=config.num_boot,
    declared=declared,
    family=np.array([kinds.index(member.family) for member in family]),
    log_size=np.log([member.shape.dim for member in family]),
  )


def record_cells(results, intrinsic, extrinsic, found):
  """`<intrinsic>__<extrinsic>/pearson`, `/spearman`, `/p_holm` and more."""
  for i, one in enumerate(intrinsic):
    for e, other in enumerate(extrinsic):
      cell = f"{one.name}__{other.name}"
      n = int(found.n[i, e])
      reason = f"{n} models have both metrics, or one of them is constant"
      for name in ("pearson", "spearman"):
        value = float(getattr(found, name)[i, e])
        low, high = (
          float(getattr(found, f"{name}_{end}")[i, e])
          for end in ("low", "high")
        )
        if np.isfinite([value, low, high]).all() and n > 0:
          # A percentile interval may miss its estimate.
          results.measure(
            f"{cell}/{name}",
            reporting.Interval(value, min(low, value), max(high, value), n),
          )
        else:
          results.set(f"{cell}/{name}", value, reason=reason)
      for name in ("p_pearson", "p_holm", "partial"):
        results.set(
          f"{cell}/{name}", float(getattr(found, name)[i, e]), reason=reason
        )
      results.set(f"{cell}/n", n)


def record_grid(results, name, found, grid):
  """What is left of a grid, had only its cells been declared beforehand."""
  sizes = np.abs(np.asarray(found.pearson, float))[grid]
  p_values = np.asarray(found.p_pearson, float)[grid]
  known = np.isfinite(sizes) & np.isfinite(p_values)
  adjusted = fairness.holm(p_values[known]) if known.any() else np.array([])
  key = f"ablation/{name}"
  results.set(f"{key}/cells", int(known.sum()))
  results.set(f"{key}/significant", int((np.asarray(adjusted) < 0.05).sum()))
  results.set(
    f"{key}/median_size",
    float(np.median(sizes[known])) if known.any() else float("nan"),
    reason="no cell has enough models",
  )


def plot_heat_map(intrinsic, extrinsic, found, title):
  """Pearson correlations; a star where Holm's p is below 0.05."""
  figure, (axis,) = reporting.new_figure(
    panel_size=(2.6 + 0.62 * len(extrinsic), 1.9 + 0.36 * len(intrinsic)),
    title=title,
  )
  values = np.asarray(found.pearson, float)
  image = axis.imshow(values, vmin=-1, vmax=1, cmap="RdBu_r", aspect="auto")
  for i in range(len(intrinsic)):
    for e in range(len(extrinsic)):
      if np.isfinite(values[i, e]):
        star = "*" if found.p_holm[i, e] < 0.05 else ""
        axis.text(
          e,
          i,
          f"{values[i, e]:.2f}{star}",
          ha="center",
          va="center",
          fontsize=7,
          color="white" if abs(values[i, e]) > 0.6 else "black",
        )
  axis.set_xticks(
    range(len(extrinsic)), [e.name for e in extrinsic], rotation=40, ha="right"
  )
  axis.set_yticks(range(len(intrinsic)), [i.name for i in intrinsic])
  axis.grid(visible=False)
  axis.tick_params(length=0)
  figure.colorbar(image, ax=axis, label="Pearson correlation over models")
  return figure


def make_table(results, intrinsic, extrinsic, grids):
  """One row a cell, the declared notions beside it."""
  rows = []
  for one in intrinsic:
    for other in extrinsic:
      cell = f"{one.name}__{other.name}"
      rows.append(
        {
          "intrinsic": one.name,
          "extrinsic": other.name,
          "notions": "same" if one.notion == other.notion else "different",
          **{
            name: _measured.cell(results, f"{cell}/{name}")
            for name in ("pearson", "spearman", "p_holm")
          },
          "n": results[f"{cell}/n"],
        }
      )
  lines = [
    f"{name}: {results[f'ablation/{name}/significant']} of"
    f" {results[f'ablation/{name}/cells']} cells below Holm's 0.05, median"
    f" |r| {results[f'ablation/{name}/median_size']:.2f}."
    for name in grids
    if results[f"ablation/{name}/cells"]
  ]
  return reporting.Table(
    columns=[
      reporting.Column("intrinsic"),
      reporting.Column("extrinsic"),
      reporting.Column("notions"),
      reporting.Column("pearson", "Pearson", format=".2f"),
      reporting.Column("spearman", "Spearman", format=".2f"),
      reporting.Column("p_holm", "p (Holm)", format=".3f"),
      reporting.Column("n", "models", format="d"),
    ],
    rows=rows,
    title="Intrinsic and extrinsic metrics, oriented: larger is more biased",
    notes=[
      "Not significant is not uncorrelated: read the interval.",
      *lines,
    ],
  )


def run(config: Config, workdir: pathlib.Path) -> None:
  """Trains and measures the family, then writes and prints the study.

  Args:
    config: The study.
    workdir: Where everything is written; measured models are kept.

  Raises:
    _console.Stopped: Ctrl-C, with measured models kept.
  """
  family = _model_family.members(config)
  measures = []
  for number, member in enumerate(family, start=1):
    measures.append(
      _model_family.measure(config, member, workdir / "models" / member.name)
    )
    print(f"{number} of {len(family)}: {member.name}", flush=True)
  intrinsic, x = _correlation_axes.oriented(
    measures, _correlation_axes.INTRINSIC
  )
  extrinsic, y = _correlation_axes.oriented(
    measures, _correlation_axes.EXTRINSIC
  )
  grids = _correlation_axes.ablations(intrinsic, extrinsic)
  results = reporting.Results()
  results.set_protocol(
    {"config": {k: str(v) for k, v in config.to_dict().items()}}
  )
  results.set("num_models", len(family))
  full = study(config, family, x, y, grids["all"])
  record_cells(results, intrinsic, extrinsic, full)
  for name, grid in grids.items():
    record_grid(results, name, full, grid)
  axes = intrinsic + extrinsic
  _planted_levels.record(results, config, family, axes, measures)
  table = make_table(results, intrinsic, extrinsic, grids)
  planted = _planted_levels.make_table(results, axes, family)
  reporting.write_table(workdir / "planted_levels", planted)
  title = f"{len(family)} models"
  reporting.write_run(
    workdir,
    config=config,
    results=results,
    table=table,
    figures={
      "heat_map": plot_heat_map(intrinsic, extrinsic, full, title),
      "planted_levels": _planted_levels.plot(family, axes, measures, title),
    },
  )
  reporting.print_table(planted)
  _measured.print_finished(workdir, table)


if __name__ == "__main__":
  _console.run_binary(
    run, default_config="fairness_correlation/default.py", keep_compiled=True
  )
