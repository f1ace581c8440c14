"""What a role-reversal study leaves behind: record, table, figure, samples."""

import functools
import math
import pathlib

import jax
import numpy as np

from experiments._binary import _config_flags
from experiments._role_reversal import (
  _claims,
  _evaluation,
  _figure,
  _resampling,
  _training,
)
from trustjax import distillation, reporting

TEACHER = _figure.TEACHER
_COLUMNS = (
  reporting.Column("about", "teacher and texts"),
  reporting.Column("perplexity", format=".3f"),
  reporting.Column("added_perplexity", "added to baseline's", format=".1%"),
  reporting.Column("gender_ratio_mean", "mean ratio", format=".3f"),
  reporting.Column("noise_floor_mean", "balanced mean", format=".3f"),
  reporting.Column("gender_ratio_min", "minimum ratio", format=".3f"),
  reporting.Column("noise_floor_min", "balanced minimum", format=".3f"),
  reporting.Column("mixed_pronoun_share", "mixed pronouns", format=".1%"),
)
_BY_VECTORS = (
  reporting.Column(
    "gender_ratio_mean_by_vectors", "mean ratio, Gender-Max", format=".3f"
  ),
)
# Whether a gain carries over: name, column, and what a claim says of it.
_CARRY_OVER = {
  "seat": (reporting.Column("seat", "SEAT d", format=".2f"), "SEAT"),
  "ceat": (reporting.Column("ceat", "CEAT d", format=".2f"), "CEAT"),
  "probe_gap": (
    reporting.Column("probe_gap", "probe TPR gap", format=".3f"),
    "probe gap",
  ),
  "bios_gap": (
    reporting.Column("bios_gap", "biographies TPR gap", format=".3f"),
    "gap of the biographies",
  ),
}
_NO_TEXT = "no group has a gendered text"
_NUMBERS = (
  "mixed_pronoun_share",
  "distinct_1",
  "distinct_2",
  "mean_words",
  "valid_positions",
  "changed_positions",
  "num_sequences",
)


Evaluations = dict[str, list[_evaluation.Evaluation]]


def write(
  workdir: pathlib.Path,
  config: _config_flags.Config,
  study: _training.Study,
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
  columns = [*_COLUMNS]
  if study.corpus.vectors is not None:
    columns += _BY_VECTORS
  columns += [
    column
    for name, (column, _) in _CARRY_OVER.items()
    if f"{TEACHER}/{name}" in results
  ]
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
    figures={"balance_and_utility": _figure.plot(results)},
  )
  for name, seeds in evaluations.items():
    _write_samples(workdir / "samples" / f"{name}.txt", study.corpus, seeds[0])
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
  study: _training.Study,
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
    _set_arm(results, name, statistics[name], seeds, drawn)
  for name in evaluations:
    _set_differences(results, name, statistics, drawn)
  for claim in _claims.claims(config, statistics, drawn):
    results.add_claim(claim)
  return results


def _statistics(config, study, seeds):
  prompts = study.corpus.prompts
  disparity = functools.partial(
    _resampling.disparity, config, prompts.group, len(prompts.names), seeds
  )
  carry_over = {}
  if config.evaluation.carry_over:
    carry_over = {
      "seat": _resampling.seat(config, seeds),
      "ceat": _resampling.ceat(config, seeds),
      "probe_gap": _resampling.recall_gap(config, seeds, "probe"),
    }
    if study.corpus.biographies is not None:
      carry_over["bios_gap"] = _resampling.recall_gap(config, seeds, "bios")
  by_vectors = None
  if study.corpus.vectors is not None:
    by_vectors = disparity(label="label_by_vectors")
  return _claims.ArmStatistics(
    perplexity=_resampling.perplexity(config, seeds),
    disparity=disparity(),
    by_vectors=by_vectors,
    carry_over=carry_over,
  )


def _set_arm(results, name, found, seeds, drawn):
  def measure(key, resampled):
    estimate, replicates = resampled.over_seeds(drawn)
    if math.isfinite(estimate):
      measured = _resampling.interval(estimate, replicates, len(seeds))
      results.measure(f"{name}/{key}", measured)
    else:
      results.set(f"{name}/{key}", None, reason=_NO_TEXT)

  about = "the teacher itself"
  if name != TEACHER:
    about = distillation.role_reversal_arm(name).about
  results.set(f"{name}/about", about)
  measure("perplexity", found.perplexity)
  measure("gender_ratio_mean", found.disparity.mean)
  measure("gender_ratio_min", found.disparity.minimum)
  for key, value in (
    ("noise_floor_mean", found.disparity.floor_mean),
    ("noise_floor_min", found.disparity.floor_minimum),
    ("gender_ratio_mean_with_prompt", found.disparity.mean_with_prompt),
  ):
    results.set(f"{name}/{key}", value, reason=_NO_TEXT)
  results.set(f"{name}/undefined_groups", found.disparity.num_undefined)
  for kind, count in zip(("female", "male", "neutral"), found.disparity.counts):
    results.set(f"{name}/texts_{kind}", int(count))
  if found.by_vectors is not None:
    measure("gender_ratio_mean_by_vectors", found.by_vectors.mean)
    measure("gender_ratio_min_by_vectors", found.by_vectors.minimum)
  for key, resampled in found.carry_over.items():
    measure(key, resampled)
    probe, _, gap = key.partition("_")
    if gap:
      results.set(
        f"{name}/{probe}_accuracy", _resampling.accuracy(seeds, probe)
      )
  _set_numbers(results, name, seeds)


def _set_numbers(results, name, seeds):
  """What is not resampled: a mean over seeds."""
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
    reason = "no whole session of training was timed"
    if name == TEACHER:
      reason = "the teacher's own training is not an arm's"
    results.set(key, None, reason=reason)


def _set_differences(results, name, statistics, drawn):
  """Paired differences from the arm's baseline."""
  found, reason = {}, "the teacher has no baseline"
  if name != TEACHER:
    baseline = distillation.role_reversal_arm(name).baseline
    reason = f"arms: {baseline}, the baseline, was not run"
    if name == baseline:
      reason = "it is the baseline"
    elif baseline in statistics:
      reason = _NO_TEXT
      found = _claims.against_baseline(
        statistics[name], statistics[baseline], drawn
      )
  for key in ("added_perplexity", "gender_ratio_gain"):
    if key in found:
      results.measure(f"{name}/{key}", found[key])
    else:
      results.set(f"{name}/{key}", None, reason=reason)


def _notes(config, results):
  stride = config.evaluation.stride or config.length // 2
  arm = config.claims.arm
  notes = [
    "balanced: what the ratio would be if every gendered text were female with"
    " probability 1/2, at these numbers of texts. Minima from different numbers"
    " of texts do not compare.",
    f"perplexity: held-out text, windows of {config.length} tokens, stride"
    f" {stride}.",
    "added to baseline's: perplexity, as a share of that of the arm 0 of the"
    " same letter; the same windows are drawn for both.",
    "intervals: 95 %, prompts (windows, sentences, words) drawn within seeds,"
    " paired across arms.",
  ]
  if config.evaluation.carry_over:
    notes.append(
      "probe TPR gap: root mean square over occupations of the difference in"
      " recall between women and men, of a linear probe that predicts a hidden"
      " occupation from frozen states; SEAT d: association of occupations that"
      " lean to women with female words, in templates; CEAT d: the same in"
      " sentences without a leaning, pooled over drawn contexts."
    )
  if config.evaluation.bios.path:
    notes.append(
      "biographies TPR gap: of the same probe on Bias in Bios, pronouns kept."
    )
  if config.evaluation.vectors.file:
    debiased = (
      "hard-debiased" if config.evaluation.vectors.hard_debias else "raw"
    )
    notes.append(
      "Gender-Max: texts labelled by the word that leans most to she or he in"
      f" {debiased} vectors, threshold"
      f" {config.evaluation.vectors.threshold:g}; all else by counted words."
    )
  texts = {
    "disparity": "distance to the balanced mean, as a share of the baseline's",
    "utility": "added perplexity, as a share of the baseline's",
  }
  for name, part in _claims.CARRY_OVER.items():
    texts[name] = (
      f"{_CARRY_OVER[part][1]} removed, as a share of the baseline's"
    )
  for name in results.claims():
    text = texts[name]
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


def _write_samples(path, corpus, evaluation, *, per_group=2):
  """Writes a few continuations of every group, for a person to read."""
  lines, prompts = [], corpus.prompts
  for number, name in enumerate(prompts.names):
    lines.append(f"## {name}")
    for i in np.flatnonzero(prompts.group == number)[:per_group]:
      lines += [
        f"{prompts.texts[i]} |{text}" for text in evaluation.texts[i][:3]
      ]
    lines.append("")
  reporting.write_atomically(path, "\n".join(lines))
