"""Streams: what devices hold, period by period, and who is refused."""

import numpy as np
import pytest

from trustjax import federated

# Device 0 receives records 0, 1 | 2 | 3, device 1 receives 4 | - | 5.
STREAM = federated.ClientStream(
  examples={"x": np.arange(6)},
  owners=np.array([0, 0, 0, 0, 1, 1]),
  periods=np.array([0, 0, 1, 2, 0, 2]),
  num_clients=2,
  num_periods=3,
)


def held(stream, period, **retention):
  store = stream.store(period, federated.Retention(**retention))
  return [
    store.indices[store.offsets[k] : store.offsets[k + 1]].tolist()
    for k in range(store.num_clients)
  ]


@pytest.mark.parametrize(
  "retention, want",
  [
    ({"kind": "window"}, [[[0, 1], [4]], [[2], []], [[3], [5]]]),
    (
      {"kind": "window", "window": 1},
      [[[0, 1], [4]], [[0, 1, 2], [4]], [[2, 3], [5]]],
    ),
    (
      {"kind": "fifo", "capacity": 2},
      [[[0, 1], [4]], [[1, 2], [4]], [[2, 3], [4, 5]]],
    ),
    (
      {"kind": "all"},
      [[[0, 1], [4]], [[0, 1, 2], [4]], [[0, 1, 2, 3], [4, 5]]],
    ),
  ],
  ids=lambda x: x["kind"] + str(x.get("window", "")) if "kind" in x else "",
)
def test_retention_by_hand(retention, want):
  assert [held(STREAM, period, **retention) for period in range(3)] == want


def test_the_static_setting_is_everything_at_once():
  static = STREAM.static()
  assert static.indices.tolist() == list(range(6))
  assert static.activity.tolist() == [4, 2]


def reservoirs(seed):
  """What a reservoir of 3 keeps of 9 records in 3 periods."""
  stream = federated.ClientStream(
    examples={"x": np.arange(9)},
    owners=np.zeros(9, int),
    periods=np.repeat(np.arange(3), 3),
    num_clients=1,
    num_periods=3,
  )
  keep = federated.Retention(kind="reservoir", capacity=3)
  return [stream.store(p, keep, seed=seed).indices for p in range(3)]


def test_a_reservoir_is_a_uniform_sample_and_only_forgets():
  counts = np.zeros(9)
  for seed in range(600):
    buffers = reservoirs(seed)
    assert [len(buffer) for buffer in buffers] == [3, 3, 3]
    for before, now, period in zip(buffers, buffers[1:], (1, 2)):
      # What is there now was there before, or has just arrived.
      assert set(now) <= set(before) | set(range(3 * period, 3 * period + 3))
    counts[buffers[-1]] += 1
  # Each of 9 records with probability 1/3: 4 standard deviations.
  assert np.all(np.abs(counts - 200) < 4 * np.sqrt(600 * 2 / 9))


def test_deletion_on_request_is_final():
  stream = federated.ClientStream(
    examples=STREAM.examples,
    owners=STREAM.owners,
    periods=STREAM.periods,
    num_clients=2,
    num_periods=3,
    deleted=np.where(np.arange(6) == 1, 1, federated.NEVER),
  )
  assert held(stream, 0, kind="all")[0] == [0, 1]
  assert held(stream, 1, kind="all")[0] == [0, 2]
  # The buffer was full of others when it was deleted: nothing comes back.
  assert held(stream, 1, kind="fifo", capacity=2)[0] == [2]
  assert held(stream, 2, kind="all")[0] == [0, 2, 3]


def test_periods_without_drift_are_equal():
  periods = federated.iid_periods(100, 4, np.random.default_rng(0))
  assert np.bincount(periods).tolist() == [25] * 4


def test_classes_arrive_one_after_the_other():
  labels = np.repeat(np.arange(6), 200)
  periods = federated.class_arrival_periods(labels, 3, np.random.default_rng(0))
  first = np.array([periods[labels == c].min() for c in range(6)])
  assert sorted(first) == [0, 0, 1, 1, 2, 2]
  early = np.flatnonzero(first == 0)[0]
  shares = np.bincount(periods[labels == early], minlength=3) / 200
  np.testing.assert_allclose(shares, 1 / 3, atol=0.15)


def test_mixtures_drift_linearly():
  labels = np.repeat(np.arange(3), 4000)
  periods = federated.drift_periods(labels, 5, np.random.default_rng(0))
  shares = np.stack(
    [np.bincount(periods[labels == c], minlength=5) / 4000 for c in range(3)]
  )
  order = np.argsort(shares[:, 0])
  # Weights 1 + s t for slopes 1, 0, -1 over times -1 ... 1.
  want = np.array([[0, 0.1, 0.2, 0.3, 0.4], [0.2] * 5, [0.4, 0.3, 0.2, 0.1, 0]])
  np.testing.assert_allclose(shares[order], want, atol=0.03)


def test_bad_streams_are_refused():
  fields = dict(
    examples=STREAM.examples,
    owners=STREAM.owners,
    periods=STREAM.periods,
    num_clients=2,
    num_periods=3,
  )
  bad = {
    "periods: got shape": {"periods": np.zeros(2, int)},
    "deleted: got shape": {"deleted": np.zeros(2, int)},
    "owners: got 0 to 1; allowed are 0 to 0": {"num_clients": 1},
    "periods: got 0 to 2; allowed are 0 to 1": {"num_periods": 2},
  }
  for message, changes in bad.items():
    with pytest.raises(ValueError, match=message):
      federated.ClientStream(**(fields | changes))
  with pytest.raises(ValueError, match="period: got 3"):
    STREAM.store(3, federated.Retention())
  with pytest.raises(ValueError, match="retention: got 'lru'"):
    federated.Retention(kind="lru")
  with pytest.raises(ValueError, match="window, capacity: got -1"):
    federated.Retention(window=-1)
  with pytest.raises(ValueError, match="num_periods: got 1"):
    federated.drift_periods(np.zeros(3), 1, np.random.default_rng(0))
