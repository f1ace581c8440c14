"""How often audits of mechanisms with a known epsilon claim too much.

A lower bound at 95 % may lie above the truth in one run of twenty. Mechanisms
whose epsilon is known are run and audited many times, and the share of runs in
which the bound exceeds that epsilon is reported with an exact interval: a lower
end above 5 % means that the audit, the mechanism or its accounting is wrong.

  randomised response  every coin is answered truthfully with probability
                       e^eps / (1 + e^eps); all coins are guessed
  Gaussian scores      a coin moves a canary's score from N(0, 1) to N(mu, 1),
                       which is mu-GDP; audited with and without using that
  Gaussian release     one number, N(0, 1) or N(mu, 1), released many times in
                       both worlds, and a threshold that was fixed before
  training             the real private step on gradient canaries; epsilon is
                       the plan's, and every repetition is a model of its own
"""

import dataclasses
import pathlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import special

from experiments._attacks import _audit_runs
from experiments._binary import _config_flags
from experiments._private_training import _arm_training, _arms
from trustjax import attacks, reporting

if TYPE_CHECKING:
  import matplotlib.figure

# A bound may err in this share of runs.
ERROR = 0.05
_RESPONSES, _SCORES, _RELEASES = range(3)
# The threshold of a release stands in the middle; half of the runs with the
# record lie beyond mu, so few enough mistakes are left at this many trials.
_RELEASE_TRIALS = 1000


@dataclasses.dataclass(frozen=True, kw_only=True)
class Repeated:
  """Bounds of many audits of one mechanism.

  Attributes:
    name: Of mechanism and audit.
    epsilon: The truth, at the audit's delta.
    bounds: Lower bounds on it, [repetitions].
    describe: What was audited, in words.
  """

  name: str
  epsilon: float
  bounds: np.ndarray
  describe: str

  @property
  def exceeded(self) -> reporting.Interval:
    """Share of runs whose bound exceeds the truth, exact interval."""
    return reporting.clopper_pearson(
      int((self.bounds > self.epsilon).sum()), len(self.bounds)
    )


def check(config: _config_flags.Config) -> None:
  """Raises ValueError if a field of the study is impossible."""
  fields = config.exceedance
  if fields.repetitions < 0:
    raise ValueError(
      f"config.exceedance.repetitions: got {fields.repetitions}; it must be at"
      " least 0, which leaves the study out"
    )
  for name in ("epsilons", "mus"):
    if not all(0 < value < np.inf for value in fields[name]):
      raise ValueError(
        f"config.exceedance.{name}: got {tuple(fields[name])}; all must be"
        " finite and positive"
      )


def simulated(config: _config_flags.Config) -> Iterator[Repeated]:
  """Audits of the mechanisms that need no training."""
  for number, epsilon in enumerate(config.exceedance.epsilons):
    yield _randomised_response(config, epsilon, number)
  for number, mu in enumerate(config.exceedance.mus):
    yield from _gaussian_scores(config, mu, number)
    yield from _gaussian_release(config, mu, number)


def _audits(plan, scores, coins, seed):
  """Bounds of many audits; equal counts of right guesses share theirs."""
  known: dict[int, float] = {}
  bounds = []
  for number, (own, own_coins) in enumerate(zip(scores, coins)):
    correct = attacks.count_correct_guesses(
      own, own_coins, num_guesses=plan.num_guesses, seed=seed + number
    )
    if correct not in known:
      known[correct] = plan.audit(
        own, own_coins, seed=seed + number
      ).epsilon_lower_bound
    bounds.append(known[correct])
  return np.array(bounds)


def _randomised_response(config, epsilon, number):
  shape = (config.exceedance.repetitions, config.audit.num_canaries)
  rng = np.random.default_rng((config.seed, _RESPONSES, number))
  coins = rng.random(shape) < 0.5
  truthful = rng.random(shape) < special.expit(epsilon)
  scores = np.where(coins == truthful, 1.0, -1.0)
  plan = attacks.OneRunPlan(
    num_canaries=shape[1], num_guesses=shape[1], delta=0.0
  )
  return Repeated(
    name=f"randomised_response_epsilon_{epsilon:g}",
    epsilon=float(epsilon),
    bounds=_audits(plan, scores, coins, config.seed),
    describe=f"{shape[1]} coins, all guessed, delta 0",
  )


def _gaussian_scores(config, mu, number):
  shape = (config.exceedance.repetitions, config.audit.num_canaries)
  rng = np.random.default_rng((config.seed, _SCORES, number))
  coins = rng.random(shape) < 0.5
  scores = rng.normal(size=shape) + mu * coins
  for method in ("epsilon_delta", "gdp"):
    plan = attacks.OneRunPlan(
      num_canaries=shape[1],
      num_guesses=attacks.choose_num_guesses(
        shape[1], separation=mu, delta=config.delta
      ),
      delta=config.delta,
      method=method,
    )
    yield Repeated(
      name=f"gaussian_scores_mu_{mu:g}_{method}",
      epsilon=attacks.gdp_epsilon(float(mu), config.delta),
      bounds=_audits(plan, scores, coins, config.seed),
      describe=(
        f"{plan.num_guesses} guesses of {shape[1]} coins, delta"
        f" {config.delta:g}"
      ),
    )


def _gaussian_release(config, mu, number):
  trials = _RELEASE_TRIALS
  rng = np.random.default_rng((config.seed, _RELEASES, number))
  found = []
  for _ in range(config.exceedance.repetitions):
    false_positives = int((rng.normal(size=trials) >= mu / 2).sum())
    false_negatives = int((rng.normal(size=trials) + mu < mu / 2).sum())
    found.append(
      attacks.audit_error_rates(
        false_positives, trials, false_negatives, trials, delta=config.delta
      )
    )
  for name, bounds in (
    ("any", [audit.epsilon_lower_bound for audit in found]),
    ("gdp", [audit.epsilon_gdp for audit in found]),
  ):
    yield Repeated(
      name=f"gaussian_release_mu_{mu:g}_{name}",
      epsilon=attacks.gdp_epsilon(float(mu), config.delta),
      bounds=np.array(bounds),
      describe=f"{trials} runs of each world, delta {config.delta:g}",
    )


def trained(
  config: _config_flags.Config,
  task: _arm_training.Task,
  arm: _arms.Arm,
  plans: dict[str, attacks.OneRunPlan],
  folder: pathlib.Path,
) -> Iterator[Repeated]:
  """Audits of the real private step, one model for each repetition.

  Args:
    config: The study.
    task: Model and data.
    arm: A private arm with noise.
    plans: Audit name to what was fixed before training; those of gradients
      are used.
    folder: Where checkpoints live.

  Raises:
    _console.Stopped: Ctrl-C.
  """
  assert arm.plan is not None
  fields = config.audit
  rows = _audit_runs.gradient_rows(
    task, fields.num_canaries, config.seed, config.exceedance.repetitions
  )
  scores = _audit_runs.gradient_scores(
    task,
    arm,
    rows,
    config.seed,
    folder,
    magnitude=fields.magnitude,
    learning_rate=fields.learning_rate,
  )
  coins = rows.member[:, -rows.num :]
  for method, plan in plans.items():
    if not method.startswith("gradients"):
      continue
    yield Repeated(
      name=f"{arm.name}_{method}",
      epsilon=arm.plan.epsilon(plan.delta).pld,
      bounds=_audits(plan, scores, coins, config.seed),
      describe=(
        f"{arm.num_steps} steps, {plan.num_guesses} guesses of"
        f" {plan.num_canaries} coins, delta {plan.delta:g}"
      ),
    )


def record(results: reporting.Results, found: Repeated) -> None:
  """Adds one mechanism: truth, exceedance, and how much of it was found."""
  key = f"exceedance/{found.name}"
  results.set(f"{key}/epsilon", found.epsilon)
  results.set(f"{key}/repetitions", len(found.bounds))
  results.measure(f"{key}/exceeded", found.exceeded)
  median = float(np.median(found.bounds))
  results.set(f"{key}/epsilon_lower_bound_median", median)
  results.set(f"{key}/share_of_epsilon", median / found.epsilon)
  low = found.exceeded.low
  assert low is not None  # An exact interval has both ends.
  results.set(f"{key}/valid", "yes" if low <= ERROR else "no")


def make_table(
  results: reporting.Results, every: list[Repeated]
) -> reporting.Table:
  """One row for each mechanism and audit."""
  columns = [
    reporting.Column("mechanism"),
    reporting.Column("epsilon", "epsilon", format=".3f"),
    reporting.Column(
      "epsilon_lower_bound_median", "median bound", format=".3f"
    ),
    reporting.Column("share_of_epsilon", "share of epsilon", format=".2f"),
    reporting.Column("exceeded", "runs above epsilon"),
    reporting.Column("valid"),
    reporting.Column("describe", "audit"),
  ]
  rows = []
  for found in every:
    key = f"exceedance/{found.name}"
    row: dict[str, Any] = {
      "mechanism": found.name.replace("_", " "),
      "describe": found.describe,
    }
    for name in ("epsilon", "epsilon_lower_bound_median", "share_of_epsilon"):
      row[name] = results[f"{key}/{name}"]
    row["exceeded"] = results.interval(f"{key}/exceeded")
    row["valid"] = results[f"{key}/valid"]
    rows.append(row)
  repetitions = len(every[0].bounds)
  return reporting.Table(
    columns=columns,
    rows=rows,
    title=f"Audits of mechanisms whose epsilon is known, {repetitions} runs",
    notes=[
      "runs above epsilon: exact 95 % intervals; valid if the lower end is at"
      f" most {ERROR:g}"
    ],
  )


def make_figure(every: list[Repeated]) -> "matplotlib.figure.Figure":
  """Where the bounds of each mechanism lie, as shares of the truth."""
  with reporting.style():
    figure, (axes,) = reporting.new_figure(
      panel_size=(6.4, 0.34 * len(every) + 1.4),
      title="Audited from below, as a share of the known epsilon",
    )
    places = range(len(every) - 1, -1, -1)
    for place, found in zip(places, every):
      shares = found.bounds / found.epsilon
      low, middle, high = np.quantile(shares, (0.0, 0.5, 1 - ERROR))
      axes.plot([low, high], [place, place], color="#0072b2", linewidth=1.4)
      axes.plot(middle, place, "o", color="#0072b2", markersize=5)
      above = shares[shares > high]
      axes.plot(
        above, np.full(len(above), place), "|", color="#0072b2", markersize=6
      )
    axes.axvline(1.0, color="#555555", linewidth=0.9)
    axes.set_yticks(list(places), [f.name.replace("_", " ") for f in every])
    axes.set_xlim(left=0.0)
    axes.set_xlabel("bound / epsilon (dot: median, ticks: highest 5 % of runs)")
  return figure
