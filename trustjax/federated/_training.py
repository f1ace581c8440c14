"""The federated loop: select, fetch, run, log, evaluate, save, repeat."""

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from trustjax import training
from trustjax.federated import (
  _activity,
  _algorithm,
  _availability,
  _clients,
  _cohort,
  _compression,
  _execution,
  _rounds,
  _secure_sum,
  _user_level,
  _wire,
)

PyTree = Any
SelectFn = Callable[..., _cohort.Cohort]
_DEFAULT_EXECUTION = _execution.Execution()


@dataclasses.dataclass(frozen=True, kw_only=True)
class FederatedOptions:
  """How long, on which batches, and how often the loop looks up.

  Attributes:
    num_rounds: Rounds of the whole run, all periods together.
    rounds_per_period: Rounds between two arrivals of data; None for one period.
    batch_size: Examples of a local step.
    num_epochs: Local epochs.
    max_examples: Most examples of a client in an epoch; None takes all.
    dropout: Share of the devices that cannot be reached in a round.
    evaluate_every: Rounds between evaluations; 0 evaluates at the end of
      periods only.
    save_every_seconds: Seconds between checkpoints.
    execution: Backend and placement.
    compression: Of the updates.
    secure_sum: Numeric effect of secure aggregation.
    title: On the progress bar.
    show_progress: None shows the bar on a terminal only.

  Raises:
    ValueError: A count is not positive, or periods do not divide the run.
  """

  num_rounds: int
  rounds_per_period: int | None = None
  batch_size: int = 10
  num_epochs: int = 1
  max_examples: int | None = None
  dropout: float = 0.0
  evaluate_every: int = 0
  save_every_seconds: float = 60.0
  execution: _execution.Execution = _DEFAULT_EXECUTION
  compression: Sequence[_compression.Compression] = ()
  secure_sum: _secure_sum.SecureSum | None = None
  title: str = "federated"
  show_progress: bool | None = None

  def __post_init__(self):
    if self.num_rounds < 1:
      raise ValueError(
        f"num_rounds: got {self.num_rounds}; it must be at least 1"
      )
    each = self.rounds_per_period
    if each is not None and (each < 1 or self.num_rounds % each):
      raise ValueError(
        f"rounds_per_period: got {each}; it must divide the {self.num_rounds}"
        " rounds"
      )

  @property
  def num_periods(self) -> int:
    """Periods of the run."""
    return self.num_rounds // (self.rounds_per_period or self.num_rounds)


@dataclasses.dataclass(frozen=True, kw_only=True)
class FederatedResult:
  """Where a session ended.

  Attributes:
    state: The last state.
    completed: Whether `num_rounds` were reached.
    num_examples: Examples that clients trained on, over all sessions.
    bytes_up: Bytes that clients uploaded, over all sessions.
    bytes_down: Bytes that clients downloaded.
    seconds_per_round: Median of this session, less its first round.
  """

  state: _algorithm.ServerState
  completed: bool
  num_examples: float
  bytes_up: float
  bytes_down: float
  seconds_per_round: float


def train_rounds(
  algorithm: _algorithm.FederatedAlgorithm,
  params: PyTree,
  store_of: Callable[[int], _clients.ClientStore],
  select: SelectFn,
  key: jax.Array,
  options: FederatedOptions,
  *,
  seed: int = 0,
  plan: _user_level.UserLevelPlan | None = None,
  writer: training.MetricWriter | None = None,
  evaluate: Callable[[PyTree, int], dict[str, float]] | None = None,
  checkpointer: training.Checkpointer | None = None,
) -> FederatedResult:
  """Trains to `options.num_rounds`, resuming from the newest checkpoint.

  Cohorts, batches and buffers are functions of (key, seed, round, period), so a
  resumed run continues the interrupted one bit for bit on the same backend.

  Args:
    algorithm: The algorithm.
    params: First parameters.
    store_of: Period to what the devices hold in it.
    select: `(key, round, activity, available=...) -> Cohort`, such as
      `select_clients` with its options filled in; ignored with a plan.
    key: Root key of the run.
    options: How long, and on what.
    seed: Of the clients' shuffles.
    plan: Makes the run private at the user level.
    writer: Where metrics go: per round train/..., per activity decile
      train/decile_0 ... 9, and what `evaluate` returns.
    evaluate: (parameters, period) to named numbers.
    checkpointer: Its identity should hold the stores' fingerprints, so that a
      resume with other data is refused.

  Returns:
    The result; `completed` is False after Ctrl-C, with everything saved.

  Raises:
    ValueError: The plan is shorter than the run, or what a round refuses.
  """
  _check_plan(plan, options)
  state, totals, elapsed = _begin(algorithm, params, plan, checkpointer)
  wire = _wire_of(algorithm, state, plan, options)
  each = options.rounds_per_period or options.num_rounds
  period, store, deciles = -1, None, np.zeros(0, np.int64)
  seconds, saved_at = [], time.monotonic()
  start = int(state.round)
  with (
    training.StopOnInterrupt() as stop,
    training.progress_bar(
      options.title,
      options.num_rounds,
      start=start,
      enabled=options.show_progress,
    ) as progress,
  ):
    for r in range(start, options.num_rounds):
      began = time.perf_counter()
      if r // each != period or store is None:
        period = r // each
        store = store_of(period)
        deciles = _activity.activity_deciles(store.activity)
      cohort = _draw(select, plan, key, seed, r, store, options)
      state, metrics = _step(algorithm, state, cohort, key, plan, options)
      seen = jax.device_get(metrics)
      seconds.append(time.perf_counter() - began)
      totals["examples"] += float(seen.num_examples)
      totals["clients"] += float(cohort.num_clients)
      done = r + 1
      progress(done, f"loss {float(seen.loss):.3f}")
      if writer is not None:
        row = _row(seen, cohort, deciles, totals, wire, period)
        if evaluate is not None and _due(done, each, options):
          row |= evaluate(state.params, period)
        writer.write(done, row)
      if stop.requested:
        break
      if time.monotonic() - saved_at > options.save_every_seconds:
        _save(checkpointer, state, totals, elapsed + sum(seconds))
        saved_at = time.monotonic()
    _save(checkpointer, state, totals, elapsed + sum(seconds))
  return _result(state, options, totals, wire, seconds, stop.requested)


def _begin(algorithm, params, plan, checkpointer):
  """(state, totals, elapsed seconds) of the newest checkpoint, or the first."""
  state = algorithm.init(params)
  if plan is not None:
    state = dataclasses.replace(state, clip_state=plan.rule.init())
  totals = {"examples": 0.0, "clients": 0.0}
  if checkpointer is not None:
    restored = checkpointer.restore(_to_saved(state, totals))
    if restored is not None:
      return *_from_saved(state, restored[0]), restored[1]
  return state, totals, 0.0


def _result(state, options, totals, wire, seconds, stopped):
  return FederatedResult(
    state=state,
    # Ctrl-C in the last round is for the caller to see.
    completed=int(state.round) >= options.num_rounds and not stopped,
    num_examples=totals["examples"],
    bytes_up=totals["clients"] * wire.up,
    bytes_down=totals["clients"] * wire.down,
    seconds_per_round=float(np.median(seconds[1:])) if seconds[1:] else np.nan,
  )


def _check_plan(plan, options):
  if plan is None:
    return
  if plan.mechanism.num_steps < options.num_rounds:
    raise ValueError(
      f"num_rounds: got {options.num_rounds}; the plan accounts for"
      f" {plan.mechanism.num_steps}"
    )
  if options.secure_sum is not None:
    raise ValueError(
      "secure_sum: got one with a plan; rounding may lift an update above its"
      " bound, which is not accounted for"
    )


def _draw(select, plan, key, seed, r, store, options):
  available = None
  if options.dropout > 0:
    available = _availability.draw_available(
      key, r, store.num_clients, dropout=options.dropout
    )
  choose = plan.select_clients if plan is not None else select
  cohort = choose(key, r, store.activity, available=available)
  return store.fetch(
    cohort,
    batch_size=options.batch_size,
    num_epochs=options.num_epochs,
    max_examples=options.max_examples,
    seed=seed,
    round=r,
  )


def _step(algorithm, state, cohort, key, plan, options):
  how = {
    field.name: getattr(options.execution, field.name)
    for field in dataclasses.fields(options.execution)
  }
  how["compression"] = options.compression
  if plan is not None:
    return _rounds.run_private_round(algorithm, state, cohort, key, plan, **how)
  return _rounds.run_round(
    algorithm, state, cohort, key, secure_sum=options.secure_sum, **how
  )


def _row(seen, cohort, deciles, totals, wire, period):
  """What is logged of a round."""
  row: dict[str, float] = {
    "train/period": period,
    "train/loss": float(seen.loss),
    "train/examples": float(seen.num_examples),
    "train/clients": float(seen.num_clients),
    "train/nonfinite": float(seen.num_nonfinite),
    "train/update_norm": float(seen.update_norm),
    "train/clipped_share": float(seen.clipped_share),
    "train/total_examples": totals["examples"],
    "train/total_bytes_up": totals["clients"] * wire.up,
    "train/total_bytes_down": totals["clients"] * wire.down,
  }
  valid = np.asarray(cohort.valid)
  of = deciles[np.asarray(cohort.ids)[valid]]
  for name, values in (
    ("clients", np.ones(of.size)),
    ("examples", seen.client_examples[valid]),
    ("loss", seen.client_loss[valid]),
  ):
    sums = np.bincount(of, weights=values, minlength=10)
    for decile in np.flatnonzero(np.bincount(of, minlength=10)):
      row[f"train/decile_{decile}/{name}"] = float(sums[decile])
  return row


def _wire_of(algorithm, state, plan, options):
  """Bytes of a client; SCAFFOLD's variate travels both ways."""
  return _wire.wire_bytes(
    state.params,
    control=state.control,
    side=state.control,
    compression=options.compression,
    secure_sum=options.secure_sum,
    adaptive_clip=plan is not None and bool(jax.tree.leaves(state.clip_state)),
  )


def _due(done, each, options):
  every = options.evaluate_every
  return (
    done == options.num_rounds
    or done % each == 0
    or (every and not done % every)
  )


def _to_saved(state, totals):
  """The state in the form that checkpoints know."""
  parts = {
    name: getattr(state, name)
    for name in ("opt_state", "control", "memory")
    if jax.tree.leaves(getattr(state, name))
  }
  counters = {name: jnp.float32(value) for name, value in totals.items()}
  # Two words, since a float32 alone forgets small cohorts of a long run.
  counters |= {
    f"{name}_rest": jnp.float32(value - float(np.float32(value)))
    for name, value in totals.items()
  }
  return training.TrainState(
    step=state.round,
    params=state.params,
    opt_state=parts | {"counters": counters},
    clip_state=state.clip_state,
  )


def _from_saved(template, saved):
  """(state, totals) of a checkpoint."""
  parts = dict(saved.opt_state)
  counters = parts.pop("counters")
  totals = {
    name: float(counters[name]) + float(counters[f"{name}_rest"])
    for name in ("examples", "clients")
  }
  state = dataclasses.replace(
    template,
    round=saved.step,
    params=saved.params,
    clip_state=saved.clip_state,
    **parts,
  )
  return state, totals


def _save(checkpointer, state, totals, elapsed):
  if checkpointer is not None:
    checkpointer.save(_to_saved(state, totals), elapsed)
