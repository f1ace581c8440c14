"""The loop on a step whose noise is deferred: what leaves it is settled."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.training import tiny_run, tiny_task
from trustjax import privacy, training

ROWS, READ, DIM, RECORDS, STEPS = 2000, 20, 4, 64, 8
RATE = dict(learning_rate=0.5, num_steps=STEPS, decay="linear", warmup_steps=2)


def classifier(params, example, key):
  """Of the mean of two rows."""
  del key
  words = jnp.mean(params["table"][example["tokens"]], axis=0)
  logits = words @ params["head"]
  return -jax.nn.log_softmax(logits)[example["label"]], {}


def reading(params, example, key):
  """Linear, so that a step's gradient does not depend on the noise."""
  del key
  total = jnp.sum(params["table"][example["tokens"]])
  return total + jnp.sum(params["head"]), {}


def first():
  keys = jax.random.split(jax.random.key(0), 2)
  return {
    "head": jax.random.normal(keys[0], (DIM, 2)),
    "table": jax.random.normal(keys[1], (ROWS, DIM)),
  }


def examples():
  rng = np.random.default_rng(0)
  return {
    # The other rows are never read.
    "tokens": rng.integers(0, READ, (RECORDS, 2)).astype(np.int32),
    "label": rng.integers(0, 2, RECORDS).astype(np.int32),
  }


def example():
  return {name: leaf[0] for name, leaf in examples().items()}


def build(plan, loss_fn=reading):
  return training.make_deferred_step(
    loss_fn, training.make_learning_rate(**RATE), plan, first(), example()
  )


@pytest.fixture(scope="module")
def built():
  """A plan and its compiled functions, which most tests share."""
  plan = tiny_task.plan(num_records=RECORDS)
  return plan, build(plan)


@pytest.fixture(scope="module")
def whole(built, tmp_path_factory):
  """The uninterrupted run and its result."""
  run = make_run(tmp_path_factory.mktemp("whole"), built)
  return run, run.start()


def make_run(folder, built):
  return tiny_run.Run(folder, *built, first(), examples())


def pending(state):
  """Rows that lack noise."""
  return int(jnp.sum(state.since["table"] < state.step))


def saved(run, init):
  """The newest checkpoint's state."""
  return run.checkpointer().restore(init(first()))[0]


@pytest.mark.parametrize("stops", [(1, 4), (2,), (5,)])
def test_a_resumed_run_is_the_uninterrupted_one(tmp_path, built, whole, stops):
  """Stopped within spans, right at an evaluation, and after it."""
  parts = make_run(tmp_path, built)
  for stop in stops:
    result = parts.start(stop_at=stop)
    assert not result.completed and result.params is None
    settled = (stop + 1) % 3 == 0
    assert (pending(result.state) == 0) == settled
    assert tiny_task.trees_equal(saved(parts, built[1][0]), result.state)
  result = parts.start()
  run, expected = whole
  assert result.completed and parts.drawn == list(range(STEPS))
  assert tiny_task.trees_equal(result.params, expected.params)
  assert tiny_task.trees_equal(result.state, expected.state)
  assert parts.rows() == run.rows()


def test_only_settled_parameters_are_seen(built, whole):
  """Those of the step's own functions, settled where the loop evaluates."""
  plan, (init, step, settle) = built
  run, result = whole
  state, seen = init(first()), []
  for t in range(STEPS):
    lot = plan.draw_lot(examples(), seed=3, step=t)
    state, _ = step(state, lot, tiny_run.KEY)
    if t + 1 in (3, 6, STEPS):
      assert pending(state) > ROWS - READ - 1
      params, state = settle(state, tiny_run.KEY)
      seen.append(params)
  assert tiny_task.trees_equal(run.seen, seen)
  assert tiny_task.trees_equal(result.params, seen[-1])
  assert pending(result.state) == 0
  unseen = result.params["table"][READ:] - first()["table"][READ:]
  assert float(jnp.min(jnp.abs(unseen))) > 0


def test_a_finished_run_settles_nothing_anew(tmp_path, built, whole):
  run = make_run(tmp_path, built)
  run.start()
  again = run.start()
  assert again.completed and run.drawn == list(range(STEPS))
  assert tiny_task.trees_equal(again.params, whole[1].params)


def test_ctrl_c_in_the_last_step_keeps_what_was_drawn(tmp_path, built, whole):
  run = make_run(tmp_path, built)
  assert not run.start(stop_at=STEPS - 1).completed
  assert tiny_task.trees_equal(run.start().params, whole[1].params)


def test_a_crash_while_evaluating_leaves_nothing_to_see(tmp_path, built, whole):
  run = make_run(tmp_path, built)
  with pytest.raises(OSError, match="crashed"):
    run.start(crash=True)
  assert run.checkpointer().latest_step() == 0
  assert not any("eval/first" in row for row in run.rows())
  assert tiny_task.trees_equal(run.start().params, whole[1].params)


def test_what_was_seen_is_what_training_goes_on_from(tmp_path, built):
  """Killed after a row was written; resumed with another `evaluate_every`."""
  plan, (init, step, settle) = built

  def killed(state, lot, key):
    if int(state.step) == 4:
      raise SystemExit
    return step(state, lot, key)

  run = make_run(tmp_path, (plan, (init, killed, settle)))
  with pytest.raises(SystemExit):
    run.start()
  state = saved(run, init)
  assert int(state.step) == 3 and pending(state) == 0
  assert tiny_task.trees_equal(jax.device_get(state.unsettled), run.seen[0])
  run.built = built[1]
  run.start(evaluate_every=5)
  assert [row["step"] for row in run.rows() if "eval/first" in row] == [3, 5, 8]


def test_a_run_that_is_made_longer_goes_on_from_what_left_it(tmp_path, built):
  """An unsettled checkpoint of the same step gives way to the settled one."""
  init = built[1][0]
  run = make_run(tmp_path, built)
  run.start(stop_at=4)
  assert pending(saved(run, init)) > 0
  result = run.start(num_steps=5)
  assert result.completed and pending(saved(run, init)) == 0
  assert tiny_task.trees_equal(saved(run, init).unsettled, result.params)
  assert run.start().completed and run.drawn == list(range(STEPS))


def test_without_noise_it_is_the_flat_run(tmp_path):
  plan = tiny_task.plan(num_records=RECORDS, noise_multiplier=0.0)
  optimizer = training.make_optimizer("sgd", **RATE)
  runs = {
    "flat": training.make_private_step(classifier, optimizer, plan),
    "deferred": build(plan, classifier),
  }
  results, rows = {}, {}
  for name, steps in runs.items():
    run = make_run(tmp_path / name, (plan, steps))
    results[name], rows[name] = run.start(), run.rows()
  for name, leaf in results["flat"].params.items():
    np.testing.assert_allclose(
      results["deferred"].params[name], leaf, rtol=1e-5, atol=1e-6
    )
    assert not np.array_equal(leaf, first()[name])
  for one, other in zip(rows["deferred"], rows["flat"], strict=True):
    assert one.keys() == other.keys()
    for name, value in other.items():
      np.testing.assert_allclose(one[name], value, rtol=1e-4, atol=1e-6)


def test_the_law_is_that_of_flat_noise(tmp_path, built, whole):
  """Moments of the difference of two runs: 8,000 independent entries.

  Their lots and so their gradients are the same. Seven statistics within 4.5
  standard errors: by chance one is not in 1 of 20,000 seeds.
  """
  other = make_run(tmp_path, built)
  other.key = jax.random.key(7)
  other.start()
  tables = [
    np.stack([params["table"] for params in run.seen])
    for run in (whole[0], other)
  ]
  schedule = training.make_learning_rate(**RATE)
  rates = np.array([float(schedule(t)) for t in range(STEPS)])
  # Twice the flat one: learning rate * sigma * C / expected batch.
  variances = 2 * np.square(rates * 0.7 * 0.5 / 16)
  spans = np.diff(tables[1] - tables[0], axis=0, prepend=0.0)
  for i, (begin, end) in enumerate([(0, 3), (3, 6), (6, STEPS)]):
    spans[i] /= np.sqrt(variances[begin:end].sum())
  count = ROWS * DIM
  got = np.einsum("ird,jrd->ij", spans, spans) / count
  error = np.sqrt((1 + np.eye(3)) / count)
  assert np.all(np.abs(got - np.eye(3)) < 4.5 * error), got
  read = spans[:, :READ]  # Drawn in the steps that read them, too.
  np.testing.assert_allclose(
    np.mean(np.square(read)), 1, atol=4.5 * np.sqrt(2 / read.size)
  )


def test_a_forgotten_settle_is_refused(built):
  plan, (init, step, _) = built
  with pytest.raises(ValueError, match="settle: got none for a state with def"):
    training.train(
      init(first()),
      step,
      lambda t: plan.draw_lot(examples(), seed=3, step=t),
      tiny_run.KEY,
      training.LoopOptions(num_steps=1),
    )


def test_checkpoints_of_another_kind_are_refused(tmp_path, built):
  """By the identity; and where that was kept silent, by what they hold."""
  plan, steps = built
  run = make_run(tmp_path, built)
  run.start(stop_at=0)
  other = tiny_task.plan(num_records=RECORDS, noise_multiplier=0.6)
  with pytest.raises(training.CheckpointError, match="noise_multiplier was"):
    make_run(tmp_path, (other, steps)).start()
  init, _ = training.make_private_step(reading, optax.sgd(0.1), plan)
  with pytest.raises(training.CheckpointError, match="cannot be restored"):
    run.checkpointer().restore(init(first()))


def test_a_damaged_state_is_found_by_its_digest(tmp_path, built):
  run = make_run(tmp_path, built)
  run.start(stop_at=0)
  files = (tmp_path / "checkpoints/1/about").glob("*")
  (about,) = (p for p in files if "digest" in p.read_text())
  content = json.loads(about.read_text())
  about.write_text(json.dumps(content | {"digest": "0" * 64}))
  with pytest.raises(training.CheckpointError, match="changed on disk"):
    run.start()


def test_what_is_not_exact_is_refused():
  plan = tiny_task.plan(rule=privacy.QuantileClip(count_noise=5.0))
  with pytest.raises(ValueError, match="learns its threshold"):
    build(plan)
  plan = tiny_task.plan()
  with pytest.raises(ValueError, match="got an optimiser"):
    training.make_deferred_step(
      reading, optax.sgd(0.1), plan, first(), example()
    )
