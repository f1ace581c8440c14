"""The arms of the device-selection study, and one of them with one seed."""

import dataclasses
import functools
import json
import pathlib
from typing import Any

import numpy as np

from experiments._binary import _config_flags, _console
from experiments._federated import _setup
from experiments._private_training import _arms
from trustjax import federated, reporting, training

EQUAL = "equal_examples"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arm:
  """One line of the study.

  Attributes:
    setting: "central", "static" or "continual".
    strategy: Selection strategy; "all_data" for central training.
    budgeted: Whether the arm stops, in each period, at as many examples as the
      baseline of its setting used there: the equal-examples control.
  """

  setting: str
  strategy: str
  budgeted: bool = False

  @property
  def name(self) -> str:
    """Key of the results."""
    end = f"_{EQUAL}" if self.budgeted else ""
    return f"{self.setting}/{self.strategy}{end}"


def make_arms(config: _config_flags.Config) -> tuple[Arm, ...]:
  """The arms of a config.

  Args:
    config: The study.

  Returns:
    Central training, then for every setting each strategy, and each but the
    baseline once more with the baseline's examples.

  Raises:
    ValueError: A setting is unknown or named twice, or there is nothing to
      compare.
  """
  known = ("static", "continual")
  if not config.settings or set(config.settings) - set(known):
    raise ValueError(
      f"config.settings: got {tuple(config.settings)}; allowed are {known}"
    )
  strategies = tuple(config.strategies)
  if len(strategies) < 2 or len(set(strategies)) < len(strategies):
    raise ValueError(
      f"config.strategies: got {strategies}; at least two different ones are"
      " compared, the baseline first"
    )
  arms = [Arm(setting="central", strategy="all_data")] if config.central else []
  for setting in config.settings:
    arms += [Arm(setting=setting, strategy=name) for name in strategies]
    arms += [
      Arm(setting=setting, strategy=name, budgeted=True)
      for name in strategies[1:]
    ]
  return tuple(arms)


class World:
  """The devices of one seed, shared by its arms."""

  def __init__(
    self, task: _setup.Task, config: _config_flags.Config, seed: int
  ):
    self.task, self.config, self.seed = task, config, seed
    partition = _setup.make_partition(task, config.population, seed)
    self.stream = _setup.make_stream(task, partition, config.stream, seed)
    self.retention = federated.Retention(
      kind=config.stream.retention,
      window=config.stream.window,
      capacity=config.stream.capacity,
    )
    self.key = _setup.root_key(seed)
    periods = config.stream.num_periods
    if periods < 1 or config.num_rounds % periods:
      raise ValueError(
        f"stream.num_periods: got {periods}; it must divide the"
        f" {config.num_rounds} rounds"
      )
    self.rounds_per_period = config.num_rounds // periods
    self._static = self.stream.static()
    self._buffers: dict[int, federated.ClientStore] = {}
    self._mixtures = self._make_mixtures()

  def _make_mixtures(self):
    """Mixture of classes in each period's arrivals, and in each decile."""
    if self.task.by_class is None:
      return {}
    deciles = federated.activity_deciles(self._static.activity)
    groups = {
      "period": (self.stream.periods, self.config.stream.num_periods),
      "decile": (deciles[self.stream.owners], 10),
    }
    return {
      name: federated.class_shares(
        self.task.classes,
        of,
        num_classes=self.task.num_classes,
        num_groups=count,
      )
      for name, (of, count) in groups.items()
    }

  def scores(self, params) -> dict[str, float]:
    """Test scores, also on the mixture of each period and activity decile."""
    found = _setup.scores(self.task, params, "test")
    if self.task.by_class is None:
      return found
    by_class = self.task.by_class(params)
    for name, shares in self._mixtures.items():
      values = federated.mixture_accuracy(by_class, shares)
      found |= {
        f"test/{name}_{number}": float(value)
        for number, value in enumerate(values)
        if np.isfinite(value)
      }
    return found

  def store(self, arm: Arm, period: int) -> federated.ClientStore:
    """What the devices of an arm hold in a period."""
    if arm.setting == "central":
      total = self._static.indices.size
      return dataclasses.replace(
        self._static, offsets=np.array([0, total], np.int64)
      )
    if arm.setting == "static":
      return self._static
    if period not in self._buffers:
      self._buffers[period] = self.stream.store(
        period, self.retention, seed=self.seed
      )
    return self._buffers[period]

  def select(self, arm: Arm, round: int, activity: np.ndarray):
    """The cohort of a round, before any budget."""
    selection = self.config.selection
    if arm.setting == "central":
      return federated.select_clients(self.key, round, activity, size=1)
    return federated.select_clients(
      self.key,
      round,
      activity,
      strategy=_setup.strategy_of(selection, arm.strategy),
      size=selection.size,
      weighting=selection.weighting,
    )

  def examples(self, arm: Arm) -> np.ndarray:
    """Examples of every round: selection needs no training to be known."""
    counts = np.zeros(self.config.num_rounds, np.int64)
    for r in range(self.config.num_rounds):
      activity = self.store(arm, r // self.rounds_per_period).activity
      cohort = self.select(arm, r, activity)
      held = activity[np.asarray(cohort.ids)[np.asarray(cohort.valid)]]
      if self.config.max_examples is not None:
        held = np.minimum(held, self.config.max_examples)
      counts[r] = held.sum() * self.config.num_epochs
    return counts

  def rounds_used(self, arm: Arm) -> np.ndarray:
    """Which rounds an arm runs, bool [rounds].

    A budgeted arm runs the rounds of a period until one more would exceed what
    the baseline used in it; its first round is always run.
    """
    if not arm.budgeted:
      return np.ones(self.config.num_rounds, bool)
    baseline = Arm(setting=arm.setting, strategy=self.config.strategies[0])
    each = self.rounds_per_period
    budget = self.examples(baseline).reshape(-1, each).sum(axis=1)
    spent = np.cumsum(self.examples(arm).reshape(-1, each), axis=1)
    used = spent <= budget[:, None]
    used[:, 0] = True
    return used.ravel()


def run_arm(
  world: World,
  arm: Arm,
  algorithm: federated.FederatedAlgorithm,
  folder: pathlib.Path,
) -> dict[str, Any]:
  """Trains and scores one arm, or reads the scores of a finished run.

  Args:
    world: The devices of the seed.
    arm: The arm.
    algorithm: Shared by all arms and seeds, so that they compile once.
    folder: The arm's own folder.

  Returns:
    accuracy (final), and the curve: rounds, examples, bytes, accuracies; for
    tagging also periods (row t: after period t, on the mixture of each period)
    and deciles (at the end, on the mixture of each), None without records.

  Raises:
    _console.Stopped: Ctrl-C, with everything saved.
  """
  identity = _identity(world, arm)
  finished = folder / "scores.json"
  if finished.exists():
    saved = json.loads(finished.read_text(encoding="utf-8"))
    training.check_identity(finished, saved.get("identity"), identity)
    return saved["scores"]
  checkpoints = _setup.checkpointer(folder, identity)
  try:
    with training.MetricWriter(
      folder / "metrics.jsonl", resume_at=checkpoints.latest_step()
    ) as writer:
      result = federated.train_rounds(
        algorithm,
        _setup.first_params(world.task, world.seed),
        functools.partial(world.store, arm),
        _budgeted_selection(world, arm),
        world.key,
        _options(world, arm),
        seed=world.seed,
        writer=writer,
        evaluate=lambda params, period: world.scores(params),
        checkpointer=checkpoints,
      )
  finally:
    checkpoints.close()
  if not result.completed:
    raise _console.Stopped(
      f"stopped after round {int(result.state.round)} of {arm.name}, seed"
      f" {world.seed}; all is saved in {folder}"
    )
  scores = _curve(folder, world.task.headline) | _by_mixture(folder, world)
  reporting.write_atomically(
    finished,
    json.dumps({"identity": identity, "scores": scores}, indent=2) + "\n",
  )
  return scores


def _budgeted_selection(world, arm):
  """The arm's cohorts; a round beyond the budget has nobody in it."""
  used = world.rounds_used(arm)

  def select(key, round, activity, available=None):
    del key, available
    cohort = world.select(arm, round, activity)
    if used[round]:
      return cohort
    return cohort.replace(valid=np.zeros_like(np.asarray(cohort.valid)))

  return select


def _options(world, arm):
  config = world.config
  return federated.FederatedOptions(
    num_rounds=config.num_rounds,
    rounds_per_period=world.rounds_per_period,
    batch_size=config.batch_size,
    num_epochs=config.num_epochs,
    max_examples=_max_examples(world, arm),
    evaluate_every=config.evaluate_every,
    save_every_seconds=config.save_every_seconds,
    execution=federated.Execution(**_arms.given(config.execution)),
    title=arm.name,
  )


def _max_examples(world, arm):
  """Central training sees as much in a round as the baseline's devices."""
  if arm.setting != "central":
    return world.config.max_examples
  baseline = Arm(setting="static", strategy=world.config.strategies[0])
  mean = world.examples(baseline).mean() / world.config.num_epochs
  return max(1, round(float(mean)))


def _identity(world, arm):
  config = json.loads(json.dumps(world.config.to_dict()))
  for name in ("data", "num_seeds", "save_every_seconds", "central"):
    config.pop(name)
  return {
    "scores": ["curve", "periods", "deciles"],
    "arm": arm.name,
    "seed": world.seed,
    "config": config,
    "data": world.stream.static().fingerprint(),
    "task": world.task.describe,
  }


def _curve(folder, headline):
  """What was evaluated, against rounds, examples and uploaded bytes."""
  metrics = reporting.read_metrics(folder / "metrics.jsonl")
  rounds, accuracy = metrics.series(f"test/{headline}")
  places = np.asarray(rounds).astype(int) - 1
  return {
    "accuracy": float(accuracy[-1]),
    "rounds": [int(r) for r in rounds],
    "examples": metrics.series("train/total_examples")[1][places].tolist(),
    "bytes_up": metrics.series("train/total_bytes_up")[1][places].tolist(),
    "accuracies": [float(value) for value in accuracy],
  }


def _by_mixture(folder, world):
  """Accuracy after each period by period, and at the end by decile."""
  if world.task.by_class is None:
    return {}
  metrics = reporting.read_metrics(folder / "metrics.jsonl")
  periods, each = world.config.stream.num_periods, world.rounds_per_period

  def at(name, round):
    try:
      rounds, values = metrics.series(name)
    except KeyError:
      return None  # Nothing of it in the test set.
    return float(values[np.flatnonzero(np.asarray(rounds) == round)[0]])

  return {
    "periods": [
      [at(f"test/period_{s}", (t + 1) * each) for s in range(periods)]
      for t in range(periods)
    ],
    "deciles": [at(f"test/decile_{d}", periods * each) for d in range(10)],
  }
