"""Uploads: compression, fixed-point sums, bytes, partial training, lateness."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.federated import federated_task as task
from trustjax import federated, privacy

UPDATE = {
  "b": jnp.float32(-5.0),
  "w": jnp.array([[1.0, -3.0], [0.5, 0.0]], jnp.float32),
}
AVERAGE = federated.fedavg(task.loss_fn, optax.sgd(0.1))


def test_top_k_keeps_the_largest_of_the_whole_update():
  got = federated.TopK(share=0.4)(UPDATE, task.KEY)
  np.testing.assert_array_equal(got["b"], -5.0)
  np.testing.assert_array_equal(got["w"], [[0, -3], [0, 0]])
  everything = federated.TopK(share=1.0)(UPDATE, task.KEY)
  jax.tree.map(np.testing.assert_array_equal, everything, UPDATE)


def test_quantised_entries_are_unbiased_levels():
  leaf = jnp.linspace(-1, 1, 7)
  quantize = jax.jit(federated.Quantize(bits=2).__call__)
  draws = np.stack(
    [
      quantize({"w": leaf}, jax.random.fold_in(task.KEY, i))["w"]
      for i in range(2000)
    ]
  )
  levels = np.array([-1, -1 / 3, 1 / 3, 1])
  assert np.abs(draws[..., None] - levels).min(axis=-1).max() < 1e-6
  # A step of 2/3 has standard deviation at most 1/3: 5 standard errors.
  np.testing.assert_allclose(draws.mean(axis=0), leaf, atol=5 / 3 / 2000**0.5)
  zeros = federated.Quantize()({"w": jnp.zeros(3)}, task.KEY)
  np.testing.assert_array_equal(zeros["w"], 0.0)


def test_bytes_are_those_of_what_is_sent():
  params = {"a": jnp.zeros((30, 7)), "b": jnp.zeros(11)}
  dense = federated.wire_bytes(params)
  assert dense.down == sum(leaf.nbytes for leaf in jax.tree.leaves(params))
  assert dense.up == dense.down + 4  # And the weight.
  sent = federated.TopK(share=0.1)(
    jax.tree.map(jnp.ones_like, params), task.KEY
  )
  count = sum(int(np.count_nonzero(leaf)) for leaf in jax.tree.leaves(sent))
  packed = np.zeros(count, np.int32).nbytes + np.zeros(count, np.float32).nbytes
  top = federated.wire_bytes(params, compression=[federated.TopK(share=0.1)])
  assert top.up == packed + 4
  codes = np.packbits(np.zeros(221 * 4, np.uint8))
  scales = np.zeros(2, np.float32)
  four = federated.wire_bytes(params, compression=[federated.Quantize(bits=4)])
  assert four.up == codes.nbytes + scales.nbytes + 4
  secure = federated.wire_bytes(
    params, secure_sum=federated.SecureSum(limit=1.0, bits=8, modulus_bits=16)
  )
  assert secure.up == 221 * 2 + 4
  private = federated.wire_bytes(params, adaptive_clip=True)
  assert private.up == dense.up + 4


def test_partial_training_sends_and_moves_its_part_only():
  trained, frozen = privacy.partition(task.params(), "w")
  algorithm = federated.fedavg(
    federated.partial_loss(task.loss_fn, frozen), optax.sgd(0.1)
  )
  state, _ = federated.run_round(
    algorithm, algorithm.init(trained), task.cohort(), task.KEY, backend="loop"
  )
  merged = privacy.merge(state.params, frozen)
  assert float(merged["b"]) == pytest.approx(0.1)
  assert np.all(np.asarray(merged["w"]) != np.asarray(task.params()["w"]))
  assert federated.wire_bytes(trained) == (12, 16)
  every = federated.wire_bytes(trained, frozen=frozen, frozen_every_round=True)
  assert every == (16, 16)


def test_a_compressed_round_is_the_mean_of_compressed_updates():
  cohort = task.cohort()
  state = AVERAGE.init(task.params())
  compression = [federated.TopK(share=0.5)]
  total = np.zeros(4)
  for slot in range(5):
    single = cohort.replace(
      valid=np.arange(5) == slot, weights=np.ones(5, np.float32)
    )
    alone, _ = federated.run_round(
      AVERAGE, state, single, task.KEY, backend="loop"
    )
    update = task.flat(state.params) - task.flat(alone.params)
    update[np.argsort(np.abs(update))[:2]] = 0
    total += cohort.weights[slot] * update
  after, _ = federated.run_round(
    AVERAGE, state, cohort, task.KEY, backend="loop", compression=compression
  )
  moved = task.flat(state.params) - task.flat(after.params)
  np.testing.assert_allclose(moved, total, atol=1e-6)


def secure_sum_of(secure, values):
  """Encodes each row, adds modulo 2^32, decodes."""
  total = jnp.zeros(values.shape[1], jnp.uint32)
  for i, row in enumerate(values):
    key = jax.random.fold_in(task.KEY, i)
    total = total + secure.encode([jnp.asarray(row, jnp.float32)], key)[0]
  return np.asarray(secure.decode(total, jnp.int32(len(values))))


def test_a_fixed_point_sum_is_as_exact_as_its_step():
  values = np.random.default_rng(0).uniform(-1, 1, (10, 50))
  nearest = federated.SecureSum(limit=1.0, bits=12, stochastic=False)
  error = secure_sum_of(nearest, values) - values.sum(axis=0)
  assert np.abs(error).max() <= 10 * nearest.step / 2 * 1.01
  random = dataclasses.replace(nearest, stochastic=True)
  error = secure_sum_of(random, values) - values.sum(axis=0)
  assert np.std(error) < 1.2 * np.sqrt(10) * random.step / 2
  assert np.abs(np.mean(error)) < 4 * np.sqrt(10 / 50) * random.step / 2


def test_24_bits_are_rounded_at_random_and_summed_exactly():
  """A float32 near 2^24 has no fraction left, and its sums lose their end."""
  secure = federated.SecureSum(limit=1.0, bits=24)
  assert secure.largest_cohort() == 256
  small = np.full((1, 4000), 0.3 * secure.step)
  mean = secure_sum_of(secure, small).mean() / secure.step
  # A coin of a whole step: 5 standard errors.
  assert abs(mean - 0.3) < 5 * 0.5 / 4000**0.5
  # The largest sum of the largest cohort, less a few levels.
  for missing in (0, 1, 2, 12345):
    total = 256 * (2**24 - 1) - missing
    got = secure.decode(jnp.uint32(total), jnp.int32(256))
    exact = secure.step * (total - 256 * (2**24 - 1) / 2)
    np.testing.assert_allclose(float(got), exact, rtol=2**-23)


def test_one_bit_less_wraps_around():
  values = np.full((8, 1), 0.9)
  enough = federated.SecureSum(
    limit=1.0, bits=8, modulus_bits=11, stochastic=False
  )
  assert enough.largest_cohort() == 8
  np.testing.assert_allclose(secure_sum_of(enough, values), 7.2, atol=0.05)
  short = dataclasses.replace(enough, modulus_bits=10)
  assert abs(secure_sum_of(short, values)[0] - 7.2) > 1


def test_error_feedback_sends_later_what_was_cut_off():
  """Two entries, one sent a round: gradients (2, 1) of a linear loss."""

  def loss(params, example, key):
    del key
    return jnp.vdot(params["w"], example["g"]), {}

  top = federated.TopK(share=0.5)
  store = federated.ClientStore(
    examples={"g": np.array([[2.0, 1.0]], np.float32)},
    indices=np.array([0]),
    offsets=np.array([0, 1]),
  )
  plain = federated.fedavg(loss, optax.sgd(1.0))
  minded = federated.with_error_feedback(plain, top, num_clients=1)
  moved = {}
  for algorithm in (plain, minded):
    state = algorithm.init({"w": jnp.zeros(2)})
    moved[algorithm.name] = []
    for r in range(3):
      cohort = federated.select_clients(task.KEY, r, store.activity, size=1)
      cohort = store.fetch(cohort, batch_size=1, seed=0, round=r)
      state, _ = federated.run_round(
        algorithm, state, cohort, task.KEY, backend="loop", compression=[top]
      )
      moved[algorithm.name].append(np.asarray(state.params["w"]).tolist())
  assert moved["fedavg"] == [[-2, 0], [-4, 0], [-6, 0]]
  # The residual grows to (0, 1), (0, 2) and 3 > 2: then the second is sent.
  assert moved["fedavg_error_feedback"] == [[-2, 0], [-4, 0], [-4, -3]]
  np.testing.assert_array_equal(state.memory["w"], [[2, 0]])
  # What is cut off is never lost.
  total = np.asarray(state.params["w"]) - np.asarray(state.memory["w"][0])
  np.testing.assert_array_equal(total, [-6, -3])


def test_error_feedback_needs_clients_without_a_memory():
  scaffold = federated.scaffold(
    task.loss_fn, num_clients=7, client_learning_rate=0.1
  )
  minded = federated.with_error_feedback(
    scaffold, federated.TopK(share=0.5), num_clients=7
  )
  with pytest.raises(ValueError, match="'scaffold', whose clients keep"):
    minded.init(task.params())


def test_a_secure_round_is_close_to_a_plain_one():
  state, cohort = AVERAGE.init(task.params()), task.cohort()
  plain, _ = federated.run_round(
    AVERAGE, state, cohort, task.KEY, backend="loop"
  )
  secure = federated.SecureSum(limit=1.0, bits=20)
  rounded, _ = federated.run_round(
    AVERAGE, state, cohort, task.KEY, backend="loop", secure_sum=secure
  )
  difference = task.flat(plain.params) - task.flat(rounded.params)
  assert 0 < np.abs(difference).max() < 5 * secure.step
  tight = federated.SecureSum(limit=1.0, bits=20, modulus_bits=22)
  with pytest.raises(ValueError, match="secure_sum.modulus_bits: got 22"):
    federated.run_round(AVERAGE, state, cohort, task.KEY, secure_sum=tight)


@pytest.mark.parametrize(
  "make, message",
  [
    (lambda: federated.TopK(share=0), "share: got 0"),
    (lambda: federated.Quantize(bits=17), "bits: got 17"),
    (
      lambda: federated.with_error_feedback(
        AVERAGE, federated.TopK(share=0.5), num_clients=0
      ),
      "num_clients: got 0",
    ),
    (lambda: federated.SecureSum(limit=0), "limit: got 0"),
    (lambda: federated.SecureSum(limit=1, bits=25), "bits: got 25"),
    (
      lambda: federated.SecureSum(limit=1, bits=9, modulus_bits=8),
      "modulus_bits: got 8",
    ),
    (
      lambda: federated.draw_available(task.KEY, 0, 3, dropout=1.0),
      "dropout: got 1.0",
    ),
    (
      lambda: federated.device_speeds(task.KEY, 3, spread=-1.0),
      "spread: got -1.0",
    ),
    (
      lambda: federated.drop_stragglers(
        task.cohort(), np.ones(7), deadline=0.0
      ),
      "deadline: got 0.0",
    ),
  ],
)
def test_impossible_options_are_named(make, message):
  with pytest.raises(ValueError, match=message):
    make()


def test_dropouts_are_addressed_by_device_and_round():
  here = federated.draw_available(task.KEY, 0, 5000, dropout=0.3)
  assert abs(here.mean() - 0.7) < 4 * (0.21 / 5000) ** 0.5
  more = federated.draw_available(task.KEY, 0, 6000, dropout=0.3)
  np.testing.assert_array_equal(here, more[:5000])
  later = federated.draw_available(task.KEY, 1, 5000, dropout=0.3)
  assert abs(np.mean(here == later) - 0.58) < 0.04
  assert federated.draw_available(task.KEY, 0, 9, dropout=0.0).all()


def test_stragglers_leave_and_the_rest_share_their_weight():
  cohort = task.cohort(size=7)
  speeds = federated.device_speeds(task.KEY, 7, spread=0.5)
  steps = cohort.data.valid.any(axis=-1).sum(axis=-1)
  times = steps / speeds[cohort.ids]
  deadline = float(np.median(times))
  kept = federated.drop_stragglers(cohort, speeds, deadline=deadline)
  np.testing.assert_array_equal(kept.valid, times <= deadline)
  assert kept.num_clients == 4
  np.testing.assert_allclose(kept.weights.sum(), 1, rtol=1e-6)
  uniform = task.cohort(size=7, weighting="uniform")
  kept = federated.drop_stragglers(uniform, speeds, deadline=deadline)
  np.testing.assert_allclose(kept.weights[kept.valid], 1 / 7, rtol=1e-6)
