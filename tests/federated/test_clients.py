"""Client data: what is fetched, in which order, and what is refused."""

import jax
import numpy as np
import pytest

from tests.federated import federated_task as task
from trustjax import federated

STORE = task.store()


def numbered(sizes):
  """A store whose records are their own numbers."""
  offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
  return federated.ClientStore(
    examples={"record": np.arange(offsets[-1])},
    indices=np.arange(offsets[-1]),
    offsets=offsets,
  )


def fetch(store, size=None, *, round=0, **options):
  cohort = federated.select_clients(
    task.KEY, round, store.activity, size=size or store.num_clients
  )
  options = dict(batch_size=4, seed=0, round=round) | options
  return store.fetch(cohort, **options)


def records_of(cohort, slot):
  return cohort.data.examples["record"][slot][cohort.data.valid[slot]]


def test_every_record_of_a_client_once_an_epoch():
  store = numbered(task.SIZES)
  cohort = fetch(store, num_epochs=3)
  assert cohort.data.valid.sum() == 3 * sum(task.SIZES)
  for slot, client in enumerate(cohort.ids):
    held = store.indices[store.offsets[client] : store.offsets[client + 1]]
    got = records_of(cohort, slot)
    assert sorted(got) == sorted(np.tile(held, 3))
    # Epochs do not mix: a client's steps come epoch by epoch.
    for epoch in np.split(got, 3):
      assert sorted(epoch) == sorted(held)


def test_live_steps_come_first_and_slots_by_falling_work():
  cohort = fetch(numbered(task.SIZES))
  live = cohort.data.valid.any(axis=-1)
  steps = live.sum(axis=1)
  assert np.all(np.diff(steps) <= 0)
  assert np.all(live == (np.arange(live.shape[1]) < steps[:, None]))
  assert live.shape[1] == 4  # Three steps, in the next power of two.
  np.testing.assert_array_equal(
    steps, [-(-task.SIZES[client] // 4) for client in cohort.ids]
  )


def test_empty_places_hold_a_record_of_their_client():
  store = numbered((3, 2))
  cohort = fetch(store, batch_size=8)
  for slot, client in enumerate(cohort.ids):
    filler = cohort.data.examples["record"][slot][~cohort.data.valid[slot]]
    first, end = store.offsets[client : client + 2]
    assert filler.size and set(filler) <= set(range(first, end))


def test_the_order_is_addressed_by_seed_round_and_client():
  store = numbered((40, 40))
  base = records_of(fetch(store), 0)
  np.testing.assert_array_equal(base, records_of(fetch(store), 0))
  other = fetch(store, seed=1)
  assert not np.array_equal(base, records_of(other, 0))
  assert not np.array_equal(base, records_of(fetch(store, round=1), 0))
  # More clients beside it do not change a client's order.
  more = fetch(numbered((40, 40, 7)))
  slot = int(np.flatnonzero(more.ids == 0)[0])
  np.testing.assert_array_equal(base, records_of(more, slot))


def test_shuffles_are_uniform():
  """First place of 5 records over 2,000 rounds: chi-square, error 1e-4."""
  store = numbered((5,))
  cohort = federated.select_clients(task.KEY, 0, store.activity, size=1)
  firsts = []
  for r in range(2000):
    data = store.fetch(cohort, batch_size=4, seed=0, round=r).data
    firsts.append(data.examples["record"][0, 0, 0])
  counts = np.bincount(firsts, minlength=5)
  assert np.sum((counts - 400) ** 2 / 400) < 23.5  # 4 degrees of freedom.


def test_a_cap_takes_a_random_subset():
  store = numbered((30, 2))
  cohort = fetch(store, max_examples=8)
  slot = int(np.flatnonzero(cohort.ids == 0)[0])
  got = records_of(cohort, slot)
  assert len(set(got)) == 8
  later = fetch(store, max_examples=8, round=1)
  slot = int(np.flatnonzero(later.ids == 0)[0])
  assert set(got) != set(records_of(later, slot))


def test_weights_and_inclusion_move_with_their_client():
  cohort = federated.select_clients(
    task.KEY, 0, STORE.activity, size=5, strategy="tempered", sampling="poisson"
  )
  fetched = STORE.fetch(cohort, batch_size=4, seed=0, round=0)
  for field in ("weights", "inclusion"):
    before = dict(zip(cohort.ids[cohort.valid], getattr(cohort, field)))
    after = dict(zip(fetched.ids[fetched.valid], getattr(fetched, field)))
    assert before == after
  assert fetched.num_clients == cohort.num_clients


def test_the_fingerprint_sees_data_and_owners():
  prints = {
    STORE.fingerprint(),
    task.store((1, *task.SIZES[1:-1], 19)).fingerprint(),
    federated.ClientStore(
      examples=STORE.examples,
      indices=STORE.indices[::-1].copy(),
      offsets=STORE.offsets,
    ).fingerprint(),
    federated.ClientStore(
      examples=jax.tree.map(lambda leaf: leaf + 1, STORE.examples),
      indices=STORE.indices,
      offsets=STORE.offsets,
    ).fingerprint(),
  }
  assert len(prints) == 4
  assert task.store().fingerprint() in prints


def test_a_million_devices_are_three_arrays():
  activity = federated.lognormal_activity(10**6, np.random.default_rng(0))
  store = federated.ClientStore(
    examples={"x": np.zeros((100, 2), np.int8)},
    indices=np.arange(activity.sum(), dtype=np.int32) % 100,
    offsets=np.concatenate([[0], np.cumsum(activity)]),
  )
  assert store.indices.nbytes + store.offsets.nbytes < 100e6
  cohort = fetch(store, 20, batch_size=8)
  assert cohort.data.examples["x"].shape[0] == 20
  assert cohort.data.valid.sum() == activity[cohort.ids].sum()


def test_bad_stores_and_requests_are_refused():
  fields = dict(
    examples=STORE.examples, indices=STORE.indices, offsets=STORE.offsets
  )
  bad = {
    r"examples: got leading axes \[2, 52\]": {
      "examples": STORE.examples | {"y": np.zeros(2)}
    },
    "indices: got 1 to 52": {"indices": STORE.indices + 1},
    r"offsets: got ends \(0, 51\)": {
      "offsets": np.append(STORE.offsets[:-1], 51)
    },
  }
  for message, changes in bad.items():
    with pytest.raises(ValueError, match=message):
      federated.ClientStore(**(fields | changes))
  with pytest.raises(ValueError, match="partition: got one of 9 records"):
    federated.ClientStore.from_partition(
      STORE.examples,
      federated.uniform_partition(9, 2, np.random.default_rng(0)),
    )
  for field in ("batch_size", "num_epochs", "max_examples"):
    with pytest.raises(ValueError, match=f"{field}: got 0"):
      fetch(STORE, **{field: 0})


def test_clients_without_data_cannot_be_fetched():
  store = numbered((3, 0, 2))
  cohort = federated.select_clients(task.KEY, 0, np.ones(3), size=3)
  with pytest.raises(ValueError, match=r"cohort.ids: clients \[1\] hold no"):
    store.fetch(cohort, batch_size=2, seed=0, round=0)
  far = cohort.replace(ids=cohort.ids + 5)
  with pytest.raises(ValueError, match="cohort.ids: got 5 to 7; the registry"):
    store.fetch(far, batch_size=2, seed=0, round=0)
  # Selection by the store's own activity never draws them.
  assert 1 not in fetch(store, 3).ids[fetch(store, 3).valid]
