r"""How much privacy does training really give, at least to be seen?

  python -m experiments.audit
  python -m experiments.audit --config=configs/audit/snips.py \
      --config.data.manual_dir=DIR --workdir=OUT
  python -m experiments.audit --config=configs/audit/exceedance.py

Canaries with fair coins are put into the training data of the real step; right
guesses of the coins bound epsilon from below. Three audits for each arm:

  records    mislabelled utterances, guessed from the trained model's outputs
  gradients  gradients chosen by the auditor, guessed from the parameters
  release    one release in two worlds, many times: the naive claim for clip
             groups, 1 / sigma, against the correct one, 2 / sigma

`config.audit.method` names, before training, the audit whose bound is reported
as epsilon_lower_bound. With `config.exceedance.repetitions` the audits are
audited instead: how often do they claim more than an epsilon that is known?
"""

import json
import pathlib
from typing import TYPE_CHECKING, Any

from experiments import membership_inference, private_training
from experiments._attacks import _audit_runs, _exceedance
from experiments._binary import _config_flags, _console
from experiments._private_training import _arm_training, _arms
from trustjax import attacks, privacy, reporting

if TYPE_CHECKING:
  import matplotlib.figure

METHODS = ("records", "gradients", "gradients_gdp")
_COLUMNS = (
  reporting.Column("epsilon", "epsilon", format=".2f"),
  reporting.Column("epsilon_naive", "naive: no guarantee", format=".2f"),
  reporting.Column("records/epsilon_lower_bound", "records", format=".2f"),
  reporting.Column("gradients/epsilon_lower_bound", "gradients", format=".2f"),
  reporting.Column(
    "gradients_gdp/epsilon_lower_bound", "gradients, GDP", format=".2f"
  ),
  reporting.Column("release/mu_lower_bound", "release: mu at least"),
  reporting.Column("release/mu_naive", "naive mu"),
  reporting.Column("release/naive_rejected", "naive rejected"),
  reporting.Column("release/mu", "mu"),
  reporting.Column("release/correct_rejected", "correct rejected"),
)


def check(config: _config_flags.Config) -> None:
  """Raises ValueError if a field of the audit is impossible."""
  _exceedance.check(config)
  fields = config.audit
  if fields.method not in METHODS:
    raise ValueError(
      f"config.audit.method: got {fields.method!r}; allowed are {list(METHODS)}"
    )
  for field, least in (
    ("num_canaries", 10),
    ("num_references", 1),
    ("release_trials", 100),
  ):
    if fields[field] < least:
      raise ValueError(
        f"config.audit.{field}: got {fields[field]}; it must be at least"
        f" {least}"
      )


def run(config: _config_flags.Config, workdir: pathlib.Path) -> None:
  """Audits every arm, writes and prints the record.

  Args:
    config: The study.
    workdir: Where everything is written.

  Raises:
    _console.Stopped: Ctrl-C, with everything saved.
  """
  check(config)
  as_json = json.loads(json.dumps(config.to_dict()))
  private_training.check_workdir(workdir, as_json)
  task = private_training.make_task(config)
  fields = config.audit
  arms = membership_inference.make_arms(
    config, task.corpus.num_train + fields.num_canaries // 2
  )
  reporting.write_config(workdir, as_json)
  results = reporting.Results()
  results.set_protocol(
    {
      "data": task.describe["data"],
      "model": task.describe["model"],
      "delta": config.delta,
      "seed": config.seed,
      "audit": fields.to_dict(),
      "exceedance": config.exceedance.to_dict(),
    }
  )
  plans = _plans(fields, config.delta)
  if config.exceedance.repetitions:
    _run_exceedance(results, config, workdir, task, arms, plans)
    return
  for arm in arms:
    _audit_arm(results, config, task, arm, plans, workdir / "arms" / arm.name)
    print(f"{arm.name}: audited", flush=True)
  table = reporting.arm_table(
    results,
    _COLUMNS,
    title=(
      f"Audit, {task.corpus.name}, {task.model.name}, {fields.num_canaries}"
      f" canaries, delta {config.delta:g}"
    ),
    notes=[
      f"reported as epsilon_lower_bound: {fields.method}; all bounds at 95 %",
      *(
        f"{name}: {plan.num_guesses} guesses of {plan.num_canaries} coins,"
        " fixed before training"
        for name, plan in plans.items()
      ),
      f"release: {fields.release_trials} runs of each world",
    ],
  )
  reporting.write_run(
    workdir,
    config=config,
    results=results,
    table=table,
    figures={"bounds": make_figure(results)},
  )
  reporting.print_table(table)
  for claim in results.claims():
    print(f"claim {claim}: {results[f'claim/{claim}']}")
  print(f"\nFiles: {workdir}/results.json, table.md, table.csv, figures/")


def _run_exceedance(results, config, workdir, task, arms, plans):
  """Audits mechanisms whose epsilon is known, many times each."""
  every = list(_exceedance.simulated(config))
  for arm in arms:
    if arm.plan is None or arm.plan.mechanism.noise_multiplier == 0:
      raise ValueError(
        f"config.arms: got {arm.name!r}, whose epsilon is not finite; a study"
        " of exceedance needs arms with noise"
      )
    folder = workdir / "arms" / arm.name
    every += _exceedance.trained(config, task, arm, plans, folder)
    print(f"{arm.name}: audited", flush=True)
  for found in every:
    _exceedance.record(results, found)
  table = _exceedance.make_table(results, every)
  reporting.write_run(
    workdir,
    config=config,
    results=results,
    table=table,
    figures={"exceedance": _exceedance.make_figure(every)},
  )
  reporting.print_table(table)
  print(f"\nFiles: {workdir}/results.json, table.md, table.csv, figures/")


def _plans(fields, delta) -> dict[str, attacks.OneRunPlan]:
  """What is fixed before training."""
  plans = {}
  for name, separation in (
    ("records", fields.record_separation),
    ("gradients", fields.gradient_separation),
  ):
    plans[name] = attacks.OneRunPlan(
      num_canaries=fields.num_canaries,
      num_guesses=attacks.choose_num_guesses(
        fields.num_canaries, separation=separation, delta=delta
      ),
      delta=delta,
    )
  plans["gradients_gdp"] = attacks.OneRunPlan(
    num_canaries=fields.num_canaries,
    num_guesses=plans["gradients"].num_guesses,
    delta=delta,
    method="gdp",
  )
  return plans


def _audit_arm(
  results: reporting.Results,
  config: _config_flags.Config,
  task: _arm_training.Task,
  arm: _arms.Arm,
  plans: dict[str, attacks.OneRunPlan],
  folder: pathlib.Path,
) -> None:
  fields, seed = config.audit, config.seed
  records = _audit_runs.mislabelled(
    task, fields.num_canaries, 1 + fields.num_references, seed
  )
  rows = _audit_runs.gradient_rows(task, fields.num_canaries, seed)
  gradient_scores = _audit_runs.gradient_scores(
    task,
    arm,
    rows,
    seed,
    folder / "gradients",
    magnitude=fields.magnitude,
    learning_rate=fields.learning_rate,
  )[0]
  scored = {
    "records": (
      records,
      _audit_runs.record_scores(task, arm, records, seed, folder / "records"),
    ),
    "gradients": (rows, gradient_scores),
    "gradients_gdp": (rows, gradient_scores),
  }
  for method, (canaries, scores) in scored.items():
    found = plans[method].audit(scores, canaries.coins, seed=seed)
    key = f"{arm.name}/{method}"
    results.set(f"{key}/epsilon_lower_bound", found.epsilon_lower_bound)
    results.set(f"{key}/correct_guesses", found.num_correct)
    results.set(f"{key}/guesses", found.num_guesses)
    if method == fields.method:
      results.set(f"{arm.name}/epsilon_lower_bound", found.epsilon_lower_bound)
  results.set(
    f"{arm.name}/audit_method",
    f"one run, {fields.method}, {fields.num_canaries} canaries,"
    f" {plans[fields.method].num_guesses} guesses",
  )
  _record_theory(results, config, arm)


def _record_theory(results, config, arm):
  """Epsilons of the plan, the audit of a release, and contradictions."""
  key, plan = arm.name, arm.plan
  noisy = plan is not None and plan.mechanism.noise_multiplier > 0
  if not noisy:
    reason = "no noise was added, so no epsilon is finite"
    for name in ("epsilon", "epsilon_naive"):
      results.set(f"{key}/{name}", None, reason=reason)
    for name in ("mu_lower_bound", "mu_naive", "mu"):
      results.set(f"{key}/release/{name}", None, reason=reason)
    return
  assert plan is not None
  results.set(f"{key}/epsilon", plan.epsilon(config.delta).pld)
  results.set(f"{key}/epsilon_naive", plan.naive_epsilon(config.delta).pld)
  results.set(f"{key}/noise_multiplier", plan.mechanism.noise_multiplier)
  results.set(f"{key}/clip_group_size", plan.clip_group_size)
  results.set(f"{key}/plan", plan.fingerprint())
  _record_release(results, config, arm)
  for method in METHODS:
    bound = results[f"{key}/{method}/epsilon_lower_bound"]
    epsilon = results[f"{key}/epsilon"]
    assert isinstance(bound, float) and isinstance(epsilon, float)
    if bound > epsilon:
      results.set(
        f"{key}/{method}/warning",
        "the bound exceeds epsilon: a mistake in training or accounting, or"
        " the one run in twenty in which the audit errs",
      )


def _record_release(results, config, arm):
  """The audit of a single release, where it is one Gaussian query."""
  key, plan = arm.name, arm.plan
  if isinstance(plan.rule, privacy.QuantileClip):
    for name in ("mu_lower_bound", "mu_naive", "mu"):
      results.set(
        f"{key}/release/{name}",
        None,
        reason="a release of a rule that learns holds a count, too",
      )
    return
  engine = "vmap" if arm.engine in privacy.HOST_ENGINES else arm.engine
  found = _audit_runs.release_audit(
    plan,
    engine,
    trials=config.audit.release_trials,
    delta=config.delta,
    seed=config.seed,
  )
  sigma = plan.mechanism.noise_multiplier
  correct = plan.mechanism.sensitivity_factor / sigma
  results.set(f"{key}/release/mu_lower_bound", found.mu_lower_bound)
  results.set(f"{key}/release/epsilon_lower_bound", found.epsilon_gdp)
  for name, mu in (("mu_naive", 1 / sigma), ("mu", correct)):
    results.set(f"{key}/release/{name}", mu)
  for name, mu in (("naive", 1 / sigma), ("correct", correct)):
    answer = "yes" if found.rejects_mu(mu) else "no"
    results.set(f"{key}/release/{name}_rejected", answer)


def make_figure(results: reporting.Results) -> "matplotlib.figure.Figure":
  """What each arm promises, and what each audit found."""
  names = results.arms()
  styles = reporting.arm_styles(names)
  marks = (
    ("epsilon", "o", True, "epsilon"),
    ("epsilon_naive", "o", False, "naive epsilon (not a guarantee)"),
    ("records/epsilon_lower_bound", "s", True, "audit: records"),
    ("gradients/epsilon_lower_bound", ">", True, "audit: gradients"),
    ("gradients_gdp/epsilon_lower_bound", "D", True, "audit: gradients, GDP"),
  )
  handles: dict[str, Any] = {}
  with reporting.style():
    figure, (axes,) = reporting.new_figure(
      panel_size=(6.4, 0.55 * len(names) + 1.9),
      title="Epsilon: promised, and audited from below",
    )
    for place, name in enumerate(reversed(names)):
      color = styles[name].color
      for step, (key, marker, fill, label) in enumerate(marks):
        value = results[f"{name}/{key}"]
        if not isinstance(value, float):
          continue
        if key == "epsilon_naive" and value == results[f"{name}/epsilon"]:
          continue  # Without clip groups there is only one.
        style: dict[str, Any] = dict(
          marker=marker, linestyle="", markersize=6.5
        )
        axes.plot(
          value,
          place + 0.12 * (2 - step),
          color=color,
          mfc=color if fill else "white",
          **style,
        )
        if label not in handles:
          (handles[label],) = axes.plot(
            [], [], color="#555555", mfc="#555555" if fill else "white", **style
          )
    axes.set_yticks(
      range(len(names)), [styles[name].label for name in reversed(names)]
    )
    axes.set_ylim(-0.6, len(names) - 0.4)
    axes.set_xscale("symlog", linthresh=1.0)
    axes.set_xlim(-0.1, 1.5 * max(axes.get_xlim()[1], 1.0))
    axes.set_xlabel("epsilon (linear below 1)")
    figure.legend(
      list(handles.values()),
      list(handles),
      loc="outside lower left",
      ncols=-(-len(handles) // 2),
    )
  return figure


if __name__ == "__main__":
  _console.run_binary(
    run, default_config="audit/default.py", keep_compiled=True
  )
