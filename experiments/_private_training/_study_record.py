"""What a private-training study leaves behind: record, table, figures."""

import pathlib

import jax

from experiments._binary import _config_flags
from experiments._private_training import _arm_training, _arms
from trustjax import privacy, reporting

_SCORES = ("intent_accuracy", "slot_f1", "exact_frame_accuracy")
_TIMES = ("seconds_per_step", "train_seconds", "compile_seconds")
_NO_MECHANISM = "no mechanism was run"
_COLUMNS = (
  reporting.Column("intent_accuracy", "intent accuracy", format=".3f"),
  reporting.Column("slot_f1", "slot F1", format=".3f"),
  reporting.Column("epsilon", "epsilon (PLD)", format=".3f"),
  reporting.Column("epsilon_rdp", "epsilon (RDP)", format=".3f"),
  reporting.Column(
    "epsilon_naive", "naive epsilon: not a guarantee", format=".3f"
  ),
  reporting.Column("noise_multiplier", "sigma", format=".4f"),
  reporting.Column("seconds_per_step", "time per step", "s", format=".4f"),
  reporting.Column("train_seconds", "training", "s", format=".1f"),
)


def write(
  workdir: pathlib.Path,
  config: _config_flags.Config,
  task: _arm_training.Task,
  arms: tuple[_arms.Arm, ...],
  scores: dict[str, list[dict[str, float]]],
) -> None:
  """Writes results.json, table.md, table.csv and figures, and prints the table.

  Args:
    workdir: The study's folder.
    config: The study's config.
    task: What all arms share.
    arms: The arms that were run.
    scores: Arm name to the scores of its seeds.
  """
  results = make_results(config, task, arms, scores)
  table = reporting.arm_table(
    results,
    _COLUMNS,
    title=f"{task.corpus.name}, {task.model.name}, delta {config.delta:g}",
    notes=_notes(arms, results),
  )
  reporting.write_run(
    workdir,
    config=config,
    results=results,
    table=table,
    figures=_figures(workdir, config, arms, results),
  )
  for arm in arms:
    if arm.plan is not None and arm.name != "dp_sgd_loop":
      print(f"\n{arm.name}: {arm.plan.statement()}")
  print()
  reporting.print_table(table)
  print(
    f"\nFiles: {workdir}/results.json, table.md, table.csv, figures/; per arm"
    f" and seed: {workdir}/arms/"
  )


def make_results(
  config: _config_flags.Config,
  task: _arm_training.Task,
  arms: tuple[_arms.Arm, ...],
  scores: dict[str, list[dict[str, float]]],
) -> reporting.Results:
  """Gathers the record; no number in it comes from anywhere but this run."""
  results = reporting.Results()
  results.set_protocol(
    {
      "data": task.describe["data"],
      "model": task.describe["model"],
      "loss": task.describe["loss"],
      "delta": config.delta,
      "seeds": list(range(config.seed, config.seed + config.num_seeds)),
    }
  )
  results.set("device", f"{jax.default_backend()} ({jax.devices()[0]})")
  for arm in arms:
    for name in (*_SCORES, *_TIMES, "num_nonfinite", "max_difference"):
      _measure(results, arm, name, scores[arm.name])
    results.set(f"{arm.name}/steps", arm.num_steps)
    _set_privacy(results, arm, config.delta)
  return results


def _measure(results, arm, name, by_seed):
  key = f"{arm.name}/{name}"
  found = [scores[name] for scores in by_seed if name in scores]
  if found and name == "compile_seconds":
    results.set(key, found[0])  # Later seeds find the step compiled.
  elif found and name in _TIMES:
    # The median: one seed that shared the machine must not speak for all.
    results.measure(key, reporting.bootstrap_median(found))
  elif found:
    results.measure(key, reporting.mean_interval(found))
  elif name in _SCORES and arm.name == "dp_sgd_loop":
    results.set(key, None, reason="a few timed steps are not a training run")


def _set_privacy(results, arm, delta):
  """Both epsilons of the mechanism that ran, or null and the reason."""
  fields = ("epsilon", "epsilon_rdp", "epsilon_naive", "delta")
  if arm.plan is None or arm.name == "dp_sgd_loop":
    reason = _NO_MECHANISM
    if arm.plan is not None:
      reason = "a few timed steps were run, not the whole mechanism"
    for field in fields:
      results.set(f"{arm.name}/{field}", None, reason=reason)
    return
  bounds = arm.plan.epsilon(delta)
  infinite = "without noise no epsilon is finite"
  results.set(f"{arm.name}/epsilon", bounds.pld, reason=infinite)
  results.set(
    f"{arm.name}/epsilon_rdp", bounds.rdp, reason=bounds.rdp_reason or infinite
  )
  results.set(
    f"{arm.name}/epsilon_naive",
    arm.plan.naive_epsilon(delta).pld,
    reason=infinite,
  )
  results.set(f"{arm.name}/delta", delta)
  mechanism = arm.plan.mechanism
  results.set(f"{arm.name}/noise_multiplier", mechanism.noise_multiplier)
  results.set(f"{arm.name}/sampling_rate", mechanism.sampling_rate)
  results.set(f"{arm.name}/adjacency", mechanism.adjacency)
  results.set(f"{arm.name}/sampler", mechanism.sampler)
  results.set(f"{arm.name}/noise", arm.noise)
  results.set(f"{arm.name}/clip_group_size", arm.plan.clip_group_size)
  results.set(f"{arm.name}/plan", arm.plan.fingerprint())
  if arm.plan.clip_group_size > 1 and mechanism.sampler == "poisson":
    results.set(f"{arm.name}/group_capacity", arm.plan.slots_per_group)
    results.set(
      f"{arm.name}/expected_dropped_share",
      privacy.expected_dropped_share(
        arm.plan.num_records,
        mechanism.sampling_rate,
        int(arm.plan.expected_units),
        arm.plan.slots_per_group,
      ),
    )


def _notes(arms, results):
  notes = [
    "epsilon counts clip groups with sensitivity 2C; the naive one with C,"
    " which is false for them and shown for comparison only."
  ]
  deferred = [arm.name for arm in arms if arm.noise == "deferred"]
  if deferred:
    notes.append(
      f"{', '.join(deferred)}: the noise of a table's row is drawn when the row"
      " is read, and what is pending before each evaluation and at the end,"
      " which is in the training time but not in the time per step."
    )
  for arm in arms:
    if arm.name == "dp_sgd_loop" and "dp_sgd" in results.arms():
      slower = _ratio(results, "dp_sgd_loop", "dp_sgd")
      said = f"dp_sgd_loop is {slower:.1f} times as slow as dp_sgd"
      if "non_private" in results.arms():
        said += (
          f" and {_ratio(results, 'dp_sgd_loop', 'non_private'):.1f} times"
          " as slow as a non-private step (of its own batch size)"
        )
      notes.append(
        f"{said}; their parameters differ by"
        f" {results['dp_sgd_loop/max_difference']:.1e} (relative)."
      )
  return notes


def _ratio(results, one, other):
  key = "seconds_per_step"
  return results[f"{one}/{key}"] / results[f"{other}/{key}"]


def _figures(workdir, config, arms, results):
  figures = {
    "learning_curves": reporting.plot_learning_curves(
      _learning_curves(workdir, config, arms)
    )
  }
  panels = {
    "Intent accuracy": reporting.utility_points(results, "intent_accuracy"),
    "Slot F1": reporting.utility_points(results, "slot_f1"),
  }
  if any(point.epsilon for point in panels["Intent accuracy"]):
    figures["utility_against_epsilon"] = reporting.plot_utility_against_epsilon(
      panels, delta=config.delta
    )
  return figures


def _learning_curves(workdir, config, arms):
  """Panel title to arm to the mean curve over seeds."""
  panels: dict[str, dict[str, reporting.Curve]] = {}
  for title, name in (
    ("Training loss", "train/loss"),
    ("Validation intent accuracy", "validation/intent_accuracy"),
    ("Validation slot F1", "validation/slot_f1"),
  ):
    for arm in arms:
      if arm.name == "dp_sgd_loop":
        continue
      curves = []
      for seed in range(config.seed, config.seed + config.num_seeds):
        metrics = reporting.read_metrics(
          workdir / "arms" / arm.name / f"seed_{seed}" / "metrics.jsonl"
        )
        curves.append(reporting.Curve(*metrics.series(name)))
      panels.setdefault(title, {})[arm.name] = reporting.mean_curve(curves)
  return panels
