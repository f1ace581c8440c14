r"""Prints what a mechanism costs in epsilon; needs no data and trains nothing.

  python -m experiments.privacy_budget \
      --config.plan.sampling_rate=0.01 --config.plan.noise_multiplier=1.0 \
      --config.plan.num_steps=1000 --config.delta=1e-5 --workdir=OUT

Writes epsilon by PLD and RDP against the number of steps, the noise multiplier
for target epsilons, and for clip groups the naive epsilon beside the correct
one. The naive epsilon is not a guarantee. A config may list further mechanisms
in `comparison.mechanisms`; their epsilons are then tabulated side by side.
"""

import math
import pathlib

import numpy as np

from experiments._binary import _config_flags, _console
from trustjax import privacy, reporting

Config = _config_flags.Config
_UNLIMITED = "without noise no epsilon is finite"
_BY_GROUPS = "clip_groups"
_BY_LAYERS = "per_layer_noises"


def make_mechanism(plan: Config) -> privacy.Mechanism:
  """The mechanism of a config's plan, with its sensitivity worked out.

  Args:
    plan: The field `plan` of the binary's config.

  Returns:
    The mechanism.

  Raises:
    ValueError: A field is impossible; the message names it.
  """
  fields = plan.to_dict()
  group = fields.pop("clip_group_size")
  layers = fields.pop("per_layer_noises")
  for name, value in (("clip_group_size", group), ("per_layer_noises", layers)):
    if value < 1:
      raise ValueError(f"plan.{name}: got {value}; it must be at least 1")
  factor = privacy.sensitivity_in_clip_norms(group, "add_remove")
  schedule = privacy.NoiseSchedule(**fields.pop("schedule"))
  return privacy.Mechanism(
    **fields,
    schedule=schedule,
    sensitivity_factor=factor * math.sqrt(layers),
  )


def step_counts(num_steps: int, num_points: int) -> list[int]:
  """Numbers of steps at which epsilon is computed, the last one included."""
  spaced = np.linspace(num_steps / num_points, num_steps, num_points)
  return sorted({max(1, round(n)) for n in spaced})


def epsilons_by_step(
  mechanism: privacy.Mechanism, delta: float, num_points: int
) -> dict[str, reporting.Curve]:
  """Epsilon after parts of the run, by accountant.

  Args:
    mechanism: The mechanism.
    delta: In (0, 1).
    num_points: Points of a curve.

  Returns:
    Accountant to curve; RDP is absent where it has no bound. A schedule whose
    slope depends on the length of the run has one point.
  """
  steps = step_counts(mechanism.num_steps, num_points)
  if mechanism.schedule.kind == "linear":
    steps = [mechanism.num_steps]
  parts = [
    mechanism if n == mechanism.num_steps else mechanism.prefix(n)
    for n in steps
  ]
  bounds = [part.epsilon(delta) for part in parts]
  curves = {"PLD": reporting.Curve(steps, [b.pld for b in bounds])}
  by_rdp = [b.rdp for b in bounds if b.rdp is not None]
  if len(by_rdp) == len(steps):
    curves["RDP"] = reporting.Curve(steps, by_rdp)
  return curves


def make_results(
  config: Config,
  mechanism: privacy.Mechanism,
  curves: dict[str, reporting.Curve],
) -> reporting.Results:
  """The flat record of the budget."""
  delta = config.delta
  results = reporting.Results()
  _set_epsilons(results, "epsilon", mechanism, delta)
  _set_epsilons(results, "epsilon_naive", mechanism.naive(), delta)
  results.set("epsilon_naive_is_a_guarantee", _is_exact(mechanism))
  results.set("delta", delta)
  for field in ("sampling_rate", "num_steps", "sampler", "adjacency"):
    results.set(field, getattr(mechanism, field))
  if mechanism.capacity is not None:
    results.set("capacity", mechanism.capacity)
  results.set("sensitivity_factor", mechanism.sensitivity_factor)
  sigmas = mechanism.effective_noise_multipliers()
  results.set("effective_noise_multiplier_first", sigmas[0])
  results.set("effective_noise_multiplier_last", sigmas[-1])
  if mechanism.capacity is not None and mechanism.num_records is not None:
    results.set(
      "overflow_probability",
      privacy.overflow_probability(
        mechanism.num_records, mechanism.sampling_rate, mechanism.capacity
      ),
    )
  for name, curve in curves.items():
    for steps, epsilon in zip(curve.x, curve.y):
      results.set(
        f"steps_{int(steps)}/epsilon_{name.lower()}",
        epsilon,
        reason=_UNLIMITED,
      )
  for target in config.target_epsilons:
    for accountant in ("pld", "rdp"):
      key = f"target_{target:g}/noise_multiplier_{accountant}"
      try:
        found = privacy.calibrate_noise_multiplier(
          mechanism, target, delta, accountant=accountant
        )
      except ValueError as error:
        results.set(key, None, reason=str(error))
      else:
        results.set(key, found.noise_multiplier)
  return results


def _set_epsilons(results, prefix, mechanism, delta):
  bounds = mechanism.epsilon(delta)
  results.set(f"{prefix}_pld", bounds.pld, reason=_UNLIMITED)
  results.set(
    f"{prefix}_rdp", bounds.rdp, reason=bounds.rdp_reason or _UNLIMITED
  )


def compare(config: Config, results: reporting.Results) -> reporting.Table:
  """Naive and correct epsilons of the mechanisms that a config lists.

  Args:
    config: The binary's config; each entry of `comparison.mechanisms` holds a
      `name` and the fields of `plan` that it changes.
    results: Receives `<name>/epsilon_naive_pld` and so on.

  Returns:
    One row a mechanism: naive, clipped in groups, noise for each layer.
  """
  layers = config.comparison.per_layer_noises
  kinds = {
    "naive": (1, 1),
    _BY_GROUPS: (2, 1),  # Any size above 1 has the same sensitivity.
    _BY_LAYERS: (1, layers),
  }
  # The label stands in the CSV file too, which has no headings in words.
  columns = {kind: kind for kind in kinds} | {"naive": "naive_not_a_guarantee"}
  rows = []
  for mechanism in config.comparison.mechanisms:
    changes = dict(mechanism)
    name = changes.pop("name")
    plan = config.plan.copy_and_resolve_references()
    plan.update(changes)
    row = {"what": name}
    for kind, (group, noises) in kinds.items():
      plan.clip_group_size, plan.per_layer_noises = group, noises
      key = f"{name}/epsilon_{kind}"
      _set_epsilons(results, key, make_mechanism(plan), config.delta)
      for accountant in ("pld", "rdp"):
        column = f"{columns[kind]}_{accountant}"
        row[column] = reporting.cell_of(results, f"{key}_{accountant}")
    results.set(f"{name}/epsilon_naive_is_a_guarantee", "no")
    rows.append(row)
  headings = {
    "naive": "naive (not a guarantee)",
    _BY_GROUPS: "clip groups",
    _BY_LAYERS: f"{layers} per-layer noises",
  }
  return reporting.Table(
    columns=[
      reporting.Column("what", "mechanism"),
      *(
        reporting.Column(
          f"{columns[kind]}_{accountant}",
          f"{heading}, {accountant.upper()}",
          format=".3f",
        )
        for kind, heading in headings.items()
        for accountant in ("pld", "rdp")
      ),
    ],
    rows=rows,
    title=f"Naive and correct epsilon at delta {config.delta:g}",
  )


def _is_exact(mechanism):
  return "yes: it is the same" if mechanism.sensitivity_factor == 1 else "no"


def make_table(config: Config, results: reporting.Results) -> reporting.Table:
  """One row for each number of steps and each target."""
  steps = sorted(
    {int(k.split("/")[0][6:]) for k in results if k.startswith("steps_")}
  )
  rows = [
    {
      "what": f"epsilon after {n} steps",
      "pld": reporting.cell_of(results, f"steps_{n}/epsilon_pld"),
      "rdp": reporting.cell_of(results, f"steps_{n}/epsilon_rdp"),
    }
    for n in steps
  ]
  rows += [
    {"what": f"noise multiplier for epsilon {target:g}"}
    | {
      accountant: reporting.cell_of(
        results, f"target_{target:g}/noise_multiplier_{accountant}"
      )
      for accountant in ("pld", "rdp")
    }
    for target in config.target_epsilons
  ]
  if results["sensitivity_factor"] != 1:
    rows.append(
      {
        "what": "naive epsilon (not a guarantee)",
        "pld": reporting.cell_of(results, "epsilon_naive_pld"),
        "rdp": reporting.cell_of(results, "epsilon_naive_rdp"),
      }
    )
  return reporting.Table(
    columns=[
      reporting.Column("what"),
      reporting.Column("pld", "PLD", format=".4f"),
      reporting.Column("rdp", "RDP", format=".4f"),
    ],
    rows=rows,
    title=f"Privacy budget at delta {config.delta:g}",
  )


def run(config: Config, workdir: pathlib.Path) -> None:
  """Computes the budget, writes and prints it."""
  if config.num_points < 1:
    raise ValueError(
      f"num_points: got {config.num_points}; it must be at least 1"
    )
  mechanism = make_mechanism(config.plan)
  curves = epsilons_by_step(mechanism, config.delta, config.num_points)
  naive = None
  if mechanism.sensitivity_factor != 1:
    naive = {
      "PLD": epsilons_by_step(
        mechanism.naive(), config.delta, config.num_points
      )["PLD"]
    }
  results = make_results(config, mechanism, curves)
  tables = [make_table(config, results)]
  if config.comparison.mechanisms:
    tables.append(compare(config, results))
  finite = all(np.isfinite(curve.y).all() for curve in curves.values())
  figures = {}
  if finite:
    figures["epsilon_against_steps"] = reporting.plot_epsilon_against_steps(
      curves, delta=config.delta, naive=naive
    )
  reporting.write_run(
    workdir,
    config=config,
    results=results,
    table=tables[-1],
    figures=figures,
  )
  print(mechanism.statement())
  for table in tables:
    reporting.print_table(table)
  print(f"\nFiles: {workdir}/results.json, table.md, table.csv, figures/")


if __name__ == "__main__":
  _console.run_binary(
    run, default_config="privacy_budget/default.py", keep_compiled=True
  )
