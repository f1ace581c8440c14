"""What a role-reversal study leaves behind: record, claims, table, figure."""

import dataclasses
import pathlib
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from experiments import (
  _config_flags,
  _role_reversal_evaluation,
  _role_reversal_training,
)
from experiments import _role_reversal_resampling as _resampling
from trustjax import distillation, reporting

if TYPE_CHECKING:
  import matplotlib.figure

TEACHER = "teacher"
_SOURCE = "Gupta et al. 2022, abstract; the threshold is a choice made here"
_COLUMNS = (
  reporting.Column("about", "teacher and texts"),
  reporting.Column("perplexity", format=".3f"),
  reporting.Column("gender_ratio_mean", "mean ratio", format=".3f"),
  reporting.Column("noise_floor_mean", "balanced mean", format=".3f"),
  reporting.Column("gender_ratio_min", "minimum ratio", format=".3f"),
  reporting.Column("noise_floor_min", "balanced minimum", format=".3f"),
  reporting.Column("mixed_pronoun_share", "mixed pronouns", format=".1%"),
  reporting.Column("distinct_2", "distinct-2", format=".3f"),
)
_CARRY_OVER = (
  reporting.Column("seat", "SEAT d", format=".2f"),
  reporting.Column("probe_gap", "probe TPR gap", format=".3f"),
)
_LAST = (
  reporting.Column("changed_positions", "changed positions", format=".1%"),
  reporting.Column("seconds_per_step", "time per step", "s", format=".4f"),
)
_NUMBERS = (
  "mixed_pronoun_share",
  "distinct_1",
  "distinct_2",
  "mean_words",
  "valid_positions",
  "changed_positions",
  "num_sequences",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _ArmStatistics:
  """The resampled statistics of one arm."""

  perplexity: _resampling.Resampled
  disparity: _resampling.Disparity
  seat: _resampling.Resampled | None
  probe_gap: _resampling.Resampled | None


# Colours that people with a colour-vision deficiency tell apart.
_COLORS = {
  "original": "#0072B2",
  "augmented": "#D55E00",
  "coin_flip": "#009E73",
}
_MARKERS = {
  "original": "o",
  "none": "o",
  "max": "^",
  "mean": "v",
  "expMean": "D",
  "swap": "s",
}

Evaluations = dict[str, list[_role_reversal_evaluation.Evaluation]]


def write(
  workdir: pathlib.Path,
  config: _config_flags.Config,
  study: _role_reversal_training.Study,
  evaluations: Evaluations,
) -> None:
  """Writes results.json, table, figure and samples, and prints the table.

  Args:
    workdir: The study's folder.
    config: The study's config.
    study: What all arms share.
    evaluations: Arm (or the teacher) -> evaluation of each seed.
  """
  results = make_results(config, study, evaluations)
  columns = [*_COLUMNS, *_LAST]
  if config.evaluation.carry_over:
    columns = [*_COLUMNS, *_CARRY_OVER, *_LAST]
  table = reporting.arm_table(
    results,
    columns,
    title=(
      f"Role reversal, {config.num_seeds} seeds, {config.num_steps} steps,"
      f" {study.corpus.prompts.source}"
    ),
    notes=_notes(config, results),
  )
  reporting.write_run(
    workdir,
    config=config,
    results=results,
    table=table,
    figures={"disparity_against_perplexity": plot(results)},
  )
  for name, seeds in evaluations.items():
    _role_reversal_training.write_samples(
      workdir / "samples" / f"{name}.txt", study.corpus, seeds[0]
    )
  print()
  reporting.print_table(table)
  for name in results.claims():
    print(f"claim {name}: {results[f'claim/{name}']}")
  print(
    f"\nFiles: {workdir}/results.json, table.md, table.csv, figures/,"
    f" samples/; per arm and seed: {workdir}/arms/"
  )


def make_results(
  config: _config_flags.Config,
  study: _role_reversal_training.Study,
  evaluations: Evaluations,
) -> reporting.Results:
  """Gathers the record; no number in it comes from anywhere but this run."""
  results = reporting.Results()
  results.set_protocol(
    study.describe
    | {
      "evaluation": config.evaluation.to_dict(),
      "claims": config.claims.to_dict(),
      "seeds": list(range(config.seed, config.seed + config.num_seeds)),
    }
  )
  results.set("device", f"{jax.default_backend()} ({jax.devices()[0]})")
  for name, count in study.corpus.swap_counts.items():
    results.set(name, count)
  drawn, statistics = _resampling.draw_seeds(config), {}
  for name, seeds in evaluations.items():
    # The teacher has no seeds; it stands for each of them in a resample.
    all_seeds = seeds * config.num_seeds if name == TEACHER else seeds
    statistics[name] = _statistics(config, study, all_seeds)
    _set_arm(results, config, name, statistics[name], seeds, drawn)
  for claim in _claims(config, statistics, drawn):
    results.add_claim(claim)
  return results


def _statistics(config, study, seeds):
  carry_over = config.evaluation.carry_over
  return _ArmStatistics(
    perplexity=_resampling.perplexity(config, seeds),
    disparity=_resampling.disparity(
      config,
      study.corpus.prompts.group,
      len(study.corpus.prompts.names),
      seeds,
    ),
    seat=_resampling.seat(config, seeds) if carry_over else None,
    probe_gap=_resampling.probe_gap(config, seeds) if carry_over else None,
  )


def _set_arm(results, config, name, found, seeds, drawn):
  def measure(key, resampled):
    estimate, replicates = resampled.over_seeds(drawn)
    results.measure(
      f"{name}/{key}",
      _resampling.interval(estimate, replicates, len(seeds)),
    )

  about = "the teacher itself"
  if name != TEACHER:
    about = distillation.role_reversal_arm(name).about
  results.set(f"{name}/about", about)
  measure("perplexity", found.perplexity)
  measure("gender_ratio_mean", found.disparity.mean)
  measure("gender_ratio_min", found.disparity.minimum)
  results.set(f"{name}/noise_floor_mean", found.disparity.floor_mean)
  results.set(f"{name}/noise_floor_min", found.disparity.floor_minimum)
  results.set(f"{name}/undefined_groups", found.disparity.num_undefined)
  results.set(
    f"{name}/gender_ratio_mean_with_prompt",
    found.disparity.mean_with_prompt,
    reason="no group has a gendered text",
  )
  for kind, count in zip(("female", "male", "neutral"), found.disparity.counts):
    results.set(f"{name}/texts_{kind}", int(count))
  if found.seat is not None:
    measure("seat", found.seat)
    measure("probe_gap", found.probe_gap)
    results.set(f"{name}/probe_accuracy", _resampling.probe_accuracy(seeds))
  for key in _NUMBERS:
    values = [s.numbers[key] for s in seeds if key in s.numbers]
    if values:
      results.measure(f"{name}/{key}", reporting.mean_interval(values))
    else:
      reason = "the teacher is not trained on pairs of texts"
      if name != TEACHER:
        reason = "no text has what it counts"
      results.set(f"{name}/{key}", None, reason=reason)
  times = [
    s.numbers["seconds_per_step"]
    for s in seeds
    if "seconds_per_step" in s.numbers
  ]
  key = f"{name}/seconds_per_step"
  if times:
    results.measure(key, reporting.bootstrap_median(times))
  else:
    results.set(key, None, reason="no whole session of training was timed")


def _claims(config, statistics, drawn):
  """Substantial reduction, minor loss, no automatic carry-over."""
  arm, limits = config.claims.arm, config.claims
  baseline = f"{arm[:1]}0"
  missing = [name for name in (arm, baseline) if name not in statistics]

  def claim(name, threshold, of):
    """The statistic of (arm, baseline) is at most the threshold."""
    estimate, reason = None, ""
    if missing:
      reason = f"arms: {', '.join(missing)} was not run"
    else:
      estimate, reason = of(statistics[arm], statistics[baseline])
    return reporting.Claim(
      name=name,
      estimate=estimate,
      relation="at_most",
      threshold=threshold,
      source=_SOURCE,
      reason=reason,
    )

  def ratio(above, below, shift=0.0):
    """Estimate and replicates of a ratio of two paired statistics."""
    if below[0] <= 0 or np.any(below[1] <= 0):
      return None, "the baseline's own value may be zero: nothing to reduce"
    replicates = above[1] / below[1] + shift
    estimate = above[0] / below[0] + shift
    return _resampling.interval(estimate, replicates, drawn.shape[1]), ""

  def distance(of):
    estimate, replicates = of.disparity.mean.over_seeds(drawn)
    floor = of.disparity.floor_mean
    return floor - estimate, floor - replicates

  def removed(part):
    """Share of the baseline's absolute value that the arm has removed."""

    def of(arm, baseline):
      if getattr(arm, part) is None:
        return None, "evaluation.carry_over is off"
      one, other = (
        getattr(which, part).over_seeds(drawn) for which in (arm, baseline)
      )
      # 1 - a / b is (b - a) / b: the same ratio with another numerator.
      above = other[0] - abs(one[0]), other[1] - np.abs(one[1])
      return ratio(above, other)

    return of

  yield claim(
    "disparity",
    limits.remaining_distance,
    lambda a, b: ratio(distance(a), distance(b)),
  )
  yield claim(
    "utility",
    limits.perplexity_cost,
    lambda a, b: ratio(
      a.perplexity.over_seeds(drawn), b.perplexity.over_seeds(drawn), -1.0
    ),
  )
  yield claim("carry_over", limits.carry_over_margin, removed("probe_gap"))
  yield claim("carry_over_embedding", limits.carry_over_margin, removed("seat"))


def _notes(config, results):
  stride = config.evaluation.stride or config.length // 2
  arm = config.claims.arm
  notes = [
    "balanced: what the ratio would be if every gendered text were female with"
    " probability 1/2, at these numbers of texts. Minima from different numbers"
    " of texts do not compare.",
    f"perplexity: held-out text, windows of {config.length} tokens, stride"
    f" {stride}.",
    "intervals: 95 %, prompts (windows, sentences, words) drawn within seeds,"
    " paired across arms.",
  ]
  if config.evaluation.carry_over:
    notes.append(
      "probe TPR gap: root mean square over occupations of the difference in"
      " recall between women and men, of a linear probe that predicts a hidden"
      " occupation from frozen states; SEAT d: association of occupations that"
      " lean to women with female words."
    )
  for name, text in (
    (
      "disparity",
      "distance to the balanced mean, as a share of the baseline's",
    ),
    ("utility", "added perplexity, as a share of the baseline's"),
    ("carry_over", "probe gap removed, as a share of the baseline's"),
    ("carry_over_embedding", "SEAT removed, as a share of the baseline's"),
  ):
    key = f"claim/{name}"
    measured = results.interval(f"{key}/estimate")
    said = results.reason(f"{key}/estimate")
    if measured is not None:
      said = reporting.format_interval(measured, ".3f")
    notes.append(
      f"claim {name}, {arm}: {results[key]}; {text}: {said}, at most"
      f" {results[f'{key}/threshold']:g}."
    )
  return notes


def plot(results: reporting.Results) -> "matplotlib.figure.Figure":
  """Mean gender ratio against perplexity, an arm a point.

  Args:
    results: The record.

  Returns:
    The figure.
  """
  arms = [arm for arm in results.arms() if f"{arm}/perplexity" in results]
  rows = -(-len(arms) // 2)
  with reporting.style():
    figure, (axes,) = reporting.new_figure(
      # The legend stands below; the axes keep their height.
      panel_size=(5.4, 3.3 + 0.19 * rows),
      title="Gender balance of continuations and utility",
    )
    found = [results.interval(f"{arm}/noise_floor_mean") for arm in arms]
    floors = [floor.estimate for floor in found if floor is not None]
    axes.axhspan(
      min(floors), max(floors), color="#888888", alpha=0.35, linewidth=0
    )
    axes.axhline(float(np.mean(floors)), color="#888888", linewidth=0.8)
    axes.annotate(
      "balanced texts",
      (0.995, float(np.mean(floors))),
      xycoords=("axes fraction", "data"),
      textcoords="offset points",
      xytext=(0, 4),
      ha="right",
      color="#555555",
    )
    for arm in arms:
      ppl = results.interval(f"{arm}/perplexity")
      ratio = results.interval(f"{arm}/gender_ratio_mean")
      assert ppl is not None and ratio is not None
      about = str(results[f"{arm}/about"])
      axes.errorbar(
        ppl.estimate,
        ratio.estimate,
        xerr=_errors(ppl),
        yerr=_errors(ratio),
        label=arm if arm == TEACHER else f"{arm}: {about}",
        markersize=7,
        **_looks(arm),
        linestyle="none",
        elinewidth=1.0,
        capsize=2,
      )
    axes.set_ylim(0, 1.02)
    axes.set_xlabel("perplexity of held-out text (lower is better)")
    axes.set_ylabel("mean gender ratio (1 is balanced)")
    figure.legend(loc="outside lower left", ncols=2)
  return figure


def _looks(name: str) -> dict[str, Any]:
  """Texts give the colour, the teacher the marker; fine-tuning is hollow."""
  if name == TEACHER:
    return {"color": "#000000", "marker": "*", "markeredgecolor": "white"}
  arm = distillation.role_reversal_arm(name)
  color = "#888888" if arm.control else _COLORS[arm.texts]
  looks = {"color": color, "marker": _MARKERS[arm.teacher]}
  if arm.fine_tunes:
    return looks | {"markerfacecolor": "white", "markeredgecolor": color}
  return looks | {"markeredgecolor": "white", "markeredgewidth": 0.7}


def _errors(measured):
  if measured.low is None:
    return None
  return [
    [measured.estimate - measured.low],
    [measured.high - measured.estimate],
  ]
