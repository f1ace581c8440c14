"""The loop: exact resume in mid-stream, metrics, totals, refusals."""

import functools

import jax
import numpy as np
import optax
import pytest

from tests.federated import federated_task as task
from trustjax import federated, privacy, reporting, training

ROUNDS, EACH = 6, 2
SCAFFOLD = federated.scaffold(
  task.loss_fn, num_clients=task.NUM_CLIENTS, client_learning_rate=0.1
)
PLAN = federated.UserLevelPlan.make(
  num_users=task.NUM_CLIENTS,
  cohort_size=4,
  num_rounds=ROUNDS,
  noise_multiplier=0.5,
  rule=privacy.QuantileClip(clip_norm=0.1, count_noise=5.0),
)


def stream(seed=0):
  rng = np.random.default_rng(seed)
  records = 3 * sum(task.SIZES)
  return federated.ClientStream(
    examples=task.examples(records),
    owners=np.tile(np.repeat(np.arange(task.NUM_CLIENTS), task.SIZES), 3),
    periods=federated.iid_periods(records, 3, rng),
    num_clients=task.NUM_CLIENTS,
    num_periods=3,
  )


def options(**changes):
  fields = dict(
    num_rounds=ROUNDS,
    rounds_per_period=EACH,
    # One step a client, so that all rounds share a program.
    batch_size=16,
    max_examples=16,
    execution=federated.Execution(backend="scan"),
  )
  return federated.FederatedOptions(**(fields | changes))


def run(algorithm=SCAFFOLD, *, plan=None, stop_after=None, folder=None, **more):
  here = stream()
  keep = federated.Retention(kind="window", window=1)
  rounds = []

  def evaluate(params, period):
    rounds.append(period)
    return {"test/norm": float(np.linalg.norm(task.flat(params)))}

  def select(key, round, activity, available=None):
    if round == stop_after:
      raise KeyboardInterrupt
    return federated.select_clients(
      key, round, activity, size=4, strategy="tempered", available=available
    )

  checkpointer = None
  if folder is not None:
    identity = {"data": here.static().fingerprint()} | more.pop("identity", {})
    checkpointer = training.Checkpointer(folder, identity=identity)
  try:
    return federated.train_rounds(
      algorithm,
      task.params(),
      lambda period: here.store(period, keep),
      select,
      task.KEY,
      options(**more.pop("options", {})),
      plan=plan,
      evaluate=evaluate,
      checkpointer=checkpointer,
      **more,
    )
  finally:
    if checkpointer is not None:
      checkpointer.close()


def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(tmp_path):
  """Stopped inside the second of three periods, with dropouts."""
  changes = {"dropout": 0.2, "save_every_seconds": 0.0}
  whole = run(options=changes)
  with pytest.raises(KeyboardInterrupt):
    run(stop_after=3, folder=tmp_path, options=changes)
  resumed = run(folder=tmp_path, options=changes)
  assert resumed.completed and int(resumed.state.round) == ROUNDS
  jax.tree.map(np.testing.assert_array_equal, resumed.state, whole.state)
  assert resumed.num_examples == whole.num_examples > 0
  assert resumed.bytes_up == whole.bytes_up
  # Parameters and a variate, each way; a weight on the way up.
  clients = whole.bytes_down / 32
  assert whole.bytes_up == clients * 36 and clients <= 4 * ROUNDS


@pytest.mark.slow
def test_a_private_run_resumes_with_its_clip_norm(tmp_path):
  average = federated.fedadam(task.loss_fn, optax.sgd(0.1), learning_rate=0.1)
  go = functools.partial(
    run, average, plan=PLAN, options={"save_every_seconds": 0.0}
  )
  whole = go()
  drawn = PLAN.select_clients
  assert drawn(task.KEY, 0, np.array(task.SIZES)).weighting == PLAN.mark()
  half = federated.train_rounds(
    average,
    task.params(),
    lambda period: stream().store(
      period, federated.Retention(kind="window", window=1)
    ),
    drawn,
    task.KEY,
    options(num_rounds=4),
    plan=PLAN,
    checkpointer=training.Checkpointer(
      tmp_path, identity={"data": stream().static().fingerprint()}
    ),
  )
  assert int(half.state.round) == 4
  resumed = go(folder=tmp_path)
  jax.tree.map(np.testing.assert_array_equal, resumed.state, whole.state)


def test_resume_with_other_data_or_settings_is_refused(tmp_path):
  run(folder=tmp_path, options={"num_rounds": 2})
  with pytest.raises(training.CheckpointError, match="rate was None, is 2"):
    run(folder=tmp_path, identity={"rate": 2})
  other = training.Checkpointer(
    tmp_path, identity={"data": stream(1).static().fingerprint()[:8]}
  )
  with pytest.raises(training.CheckpointError, match="data was '.*', is '"):
    federated.train_rounds(
      SCAFFOLD,
      task.params(),
      lambda period: stream(1).static(),
      functools.partial(federated.select_clients, size=4),
      task.KEY,
      options(num_rounds=2),
      checkpointer=other,
    )


def test_metrics_of_rounds_periods_and_deciles(tmp_path):
  path = tmp_path / "metrics.jsonl"
  with training.MetricWriter(path) as writer:
    result = run(writer=writer)
  metrics = reporting.read_metrics(path)
  steps, periods = metrics.series("train/period")
  assert list(steps) == [1, 2, 3, 4, 5, 6]
  assert list(periods) == [0, 0, 1, 1, 2, 2]
  assert list(metrics.series("test/norm")[0]) == [2, 4, 6]
  _, examples = metrics.series("train/examples")
  _, total = metrics.series("train/total_examples")
  np.testing.assert_array_equal(np.cumsum(examples), total)
  assert total[-1] == result.num_examples
  by_decile = np.zeros(6)
  for decile in range(10):
    name = f"train/decile_{decile}/examples"
    try:
      at, values = metrics.series(name)
    except KeyError:
      continue
    by_decile[np.asarray(at) - 1] += values
  np.testing.assert_array_equal(by_decile, examples)


def test_impossible_options_are_refused():
  for message, changes in {
    "num_rounds: got 0": {"num_rounds": 0},
    "rounds_per_period: got 4": {"rounds_per_period": 4},
    "rounds_per_period: got 0": {"rounds_per_period": 0},
  }.items():
    with pytest.raises(ValueError, match=message):
      options(**changes)
  with pytest.raises(ValueError, match="num_rounds: got 8; the plan accounts"):
    run(plan=PLAN, options={"num_rounds": 8})
  secure = federated.SecureSum(limit=1.0)
  with pytest.raises(ValueError, match="secure_sum: got one with a plan"):
    run(plan=PLAN, options={"secure_sum": secure})
