"""Lots: their distribution, their addresses, the independence of slots."""

import hypothesis
import numpy as np
import pytest
import scipy.stats
from hypothesis import strategies as st

from trustjax import privacy
from trustjax.privacy import _sampling


def grouped(**changes):
  fields = dict(
    num_records=200,
    sampling_rate=0.32,
    seed=0,
    step=0,
    num_groups=8,
    group_capacity=12,
  )
  return privacy.grouped_poisson_lot(**(fields | changes))


def members(lot):
  """Record -> group, for the records that found a slot."""
  groups = np.broadcast_to(
    np.arange(lot.indices.shape[0])[:, None], lot.indices.shape
  )
  return dict(zip(lot.indices[lot.valid].tolist(), groups[lot.valid].tolist()))


class TestPoisson:
  def test_lot_sizes_are_binomial(self):
    """Chi-square over 2,000 lots: a true null fails once in 10^4."""
    sizes = [
      privacy.poisson_lot(
        num_records=50, sampling_rate=0.2, seed=1, step=i
      ).num_records
      for i in range(2000)
    ]
    edges = [*range(5, 16)]
    observed = np.bincount(np.clip(sizes, 4, 15) - 4, minlength=12)
    cdf = scipy.stats.binom.cdf([e - 1 for e in edges], 50, 0.2)
    expected = 2000 * np.diff([0, *cdf, 1])
    assert scipy.stats.chisquare(observed, expected).pvalue > 1e-4

  def test_every_record_is_drawn_at_its_rate(self):
    """Each count within 5 standard deviations: fails once in 10^4."""
    counts = np.zeros(40)
    for i in range(2000):
      lot = privacy.poisson_lot(
        num_records=40, sampling_rate=0.3, seed=2, step=i
      )
      counts[lot.indices[lot.valid]] += 1
    assert np.all(np.abs(counts - 600) < 5 * np.sqrt(2000 * 0.3 * 0.7))

  def test_is_padded_to_a_fixed_shape_and_filled_from_the_front(self):
    shapes = set()
    for i in range(50):
      lot = privacy.poisson_lot(
        num_records=1000, sampling_rate=0.05, seed=0, step=i
      )
      shapes.add(lot.valid.shape)
      assert np.all(np.diff(lot.valid.astype(int)) <= 0)
      assert np.all(lot.indices[~lot.valid] == 0)
      drawn = lot.indices[lot.valid]
      assert len(set(drawn.tolist())) == drawn.size
    assert shapes == {(privacy.default_lot_capacity(1000, 0.05),)}

  def test_grows_beyond_its_capacity_rather_than_truncating(self, monkeypatch):
    monkeypatch.setattr(
      "trustjax.privacy._sampling.default_lot_capacity", lambda *_: 8
    )
    lot = privacy.poisson_lot(
      num_records=100, sampling_rate=0.5, seed=0, step=0
    )
    assert lot.num_records > 30
    assert lot.valid.size % 8 == 0
    assert lot.num_dropped == 0

  def test_an_empty_lot_is_legal(self):
    lot = privacy.poisson_lot(num_records=3, sampling_rate=1e-9, seed=0, step=0)
    assert lot.num_records == 0
    assert lot.valid.shape == (8,)

  def test_rate_one_takes_everything(self):
    lot = privacy.poisson_lot(num_records=20, sampling_rate=1.0, seed=0, step=0)
    assert sorted(lot.indices[lot.valid]) == list(range(20))

  @hypothesis.given(
    st.integers(1, 300),
    st.floats(0.001, 1.0),
    st.integers(0, 2**31),
    st.integers(0, 10**6),
  )
  @hypothesis.settings(max_examples=50, deadline=None)
  def test_is_a_function_of_seed_and_step(self, records, rate, seed, step):
    def draw():
      return privacy.poisson_lot(
        num_records=records, sampling_rate=rate, seed=seed, step=step
      )

    np.testing.assert_array_equal(draw().indices, draw().indices)
    assert draw().num_records <= records


class TestTruncated:
  def test_keeps_a_uniform_subset(self):
    """Over 3,000 lots from 20 records at rate 1: each kept 1/4 of the time."""
    counts = np.zeros(20)
    for i in range(3000):
      lot = privacy.truncated_poisson_lot(
        num_records=20, sampling_rate=1.0, seed=0, step=i, capacity=5
      )
      assert lot.num_records == 5 and lot.num_dropped == 15
      counts[lot.indices] += 1
    assert np.all(np.abs(counts - 750) < 5 * np.sqrt(3000 * 0.25 * 0.75))

  def test_below_its_capacity_it_is_poisson(self):
    fields = dict(num_records=100, sampling_rate=0.1, seed=3, step=4)
    plain = privacy.poisson_lot(**fields)
    truncated = privacy.truncated_poisson_lot(**fields, capacity=60)
    assert truncated.num_dropped == 0
    np.testing.assert_array_equal(
      plain.indices[plain.valid], truncated.indices[truncated.valid]
    )


class TestShuffled:
  def test_each_record_at_most_once_an_epoch(self):
    for epoch in range(3):
      seen = np.concatenate(
        [
          privacy.shuffled_lot(
            num_records=23, batch_size=5, seed=0, step=4 * epoch + i
          ).indices
          for i in range(4)
        ]
      )
      assert len(set(seen.tolist())) == 20

  def test_epochs_differ(self):
    first, second = (
      privacy.shuffled_lot(num_records=23, batch_size=5, seed=0, step=s)
      for s in (0, 4)
    )
    assert not np.array_equal(first.indices, second.indices)

  @pytest.mark.parametrize("batch", [0, 24])
  def test_batch_size_out_of_range(self, batch):
    with pytest.raises(ValueError, match=f"batch_size: got {batch}"):
      privacy.shuffled_lot(num_records=23, batch_size=batch, seed=0, step=0)


class TestGroups:
  def test_groups_are_uniform_and_independent(self):
    """Chi-square over 400 lots: a true null fails once in 10^4."""
    counts = np.zeros(8)
    for i in range(400):
      for group in members(grouped(step=i, group_capacity=64)).values():
        counts[group] += 1
    assert scipy.stats.chisquare(counts).pvalue > 1e-4

  def test_a_records_group_does_not_depend_on_the_others(self):
    """Fewer records drawn: those that stay keep their groups.

    The coin of a record is compared with the rate, so a lower rate draws a
    subset of the lot: every removal of records at once.
    """
    for step in range(20):
      many = members(grouped(step=step, group_capacity=200))
      few = members(grouped(step=step, group_capacity=200, sampling_rate=0.1))
      assert set(few) < set(many)
      assert all(many[record] == group for record, group in few.items())

  def test_overflow_is_dropped_inside_its_group(self):
    full = members(grouped(group_capacity=200))
    tight = grouped(group_capacity=4)
    kept = members(tight)
    assert tight.num_dropped == len(full) - len(kept) > 0
    assert all(full[record] == group for record, group in kept.items())
    loads = np.bincount(list(full.values()), minlength=8)
    np.testing.assert_array_equal(tight.valid.sum(axis=1), np.minimum(loads, 4))

  def test_removing_a_record_leaves_every_other_group_unchanged(
    self, monkeypatch
  ):
    """KAT-4's adversarial pair: the sum moves by 2C in one group, no more.

    Every record in turn is made absent, with all other coins as they were.
    """
    inclusion = _sampling._drawn
    with_all = members(grouped(group_capacity=200))
    for record in with_all:
      monkeypatch.setattr(
        _sampling,
        "_drawn",
        lambda *a, gone=record: inclusion(*a)[inclusion(*a) != gone],
      )
      without = members(grouped(group_capacity=200))
      assert without == {r: g for r, g in with_all.items() if r != record}
    monkeypatch.undo()

  def test_with_overflow_a_removal_still_touches_one_group(self, monkeypatch):
    """The group that loses a record may readmit one of its own."""
    inclusion = _sampling._drawn
    before = grouped(group_capacity=5)
    readmitted = 0
    for record in before.indices[before.valid]:
      monkeypatch.setattr(
        _sampling,
        "_drawn",
        lambda *a, gone=record: inclusion(*a)[inclusion(*a) != gone],
      )
      after = grouped(group_capacity=5)
      changed = [
        k
        for k in range(8)
        if set(before.indices[k][before.valid[k]])
        != set(after.indices[k][after.valid[k]])
      ]
      assert changed == [members(before)[record]]
      readmitted += before.num_dropped - after.num_dropped
    assert readmitted > 0

  def test_who_overflows_does_not_depend_on_the_place_in_the_data(self):
    """Chi-square over 2,000 lots: a true null fails once in 10^4."""
    dropped = np.zeros(200)
    for step in range(2000):
      full = members(grouped(step=step, group_capacity=200))
      kept = members(grouped(step=step, group_capacity=9))
      dropped[list(set(full) - set(kept))] += 1
    by_place = dropped.reshape(10, 20).sum(axis=1)
    assert by_place.sum() > 1000
    assert scipy.stats.chisquare(by_place).pvalue > 1e-4

  def test_an_empty_lot_is_legal(self):
    lot = grouped(sampling_rate=1e-9)
    assert lot.num_records == 0
    assert lot.valid.shape == (8, 12)

  def test_is_a_function_of_seed_and_step(self):
    for changes, same in (
      ({}, True),
      ({"step": 1}, False),
      ({"seed": 1}, False),
    ):
      equal = np.array_equal(grouped().indices, grouped(**changes).indices)
      assert equal == same

  @pytest.mark.parametrize(
    ("changes", "message"),
    [
      ({"num_groups": 0}, r"num_groups: got 0"),
      ({"group_capacity": 0}, r"group_capacity: got 0"),
      ({"sampling_rate": 0.0}, r"sampling_rate: got 0.0"),
      ({"seed": -1}, r"seed, step: got -1, 0"),
    ],
  )
  def test_bad_input(self, changes, message):
    with pytest.raises(ValueError, match=message):
      grouped(**changes)

  def test_groups_are_filled_from_the_front(self):
    lot = grouped()
    assert np.all(np.diff(lot.valid.astype(int), axis=1) <= 0)

  @pytest.mark.parametrize("packing", ["sequential", "by_length"])
  def test_other_packings_are_refused(self, packing):
    """KAT-21: one record would shift all later ones."""
    with pytest.raises(ValueError, match="2KC = 16C instead of 2C for K = 8"):
      grouped(packing=packing)

  def test_sequential_packing_would_have_sensitivity_2kc(self):
    """KAT-5: why it is refused. 17 records, groups of 2, deletion of one."""
    values = [1.0]
    for k in range(1, 17):
      values.append((2.0 if k % 2 else -2.0) - values[-1])

    def clip(group):
      return np.clip(np.mean(group), -1, 1)

    def packed(xs):
      return sum(clip(xs[i : i + 2]) for i in range(0, 16, 2))

    assert packed(values) == 8
    assert packed(values[1:]) == -8

  @pytest.mark.parametrize(
    ("size", "slots"), [(2, 5), (4, 8), (8, 12), (16, 22), (32, 40)]
  )
  def test_default_capacity_drops_little_and_pads_little(self, size, slots):
    """At most 2 % of the records, by the sum that defines the expectation."""
    assert privacy.default_group_capacity(size) == slots
    groups = 256 // size
    got = privacy.expected_dropped_share(13_084, 256 / 13_084, groups, slots)
    loads = np.arange(slots, 200)
    load = scipy.stats.binom.pmf(loads, 13_084, 256 / 13_084 / groups)
    np.testing.assert_allclose(got, np.sum((loads - slots) * load) / size)
    assert got < 0.02

  def test_expected_dropped_share_is_the_observed_one(self):
    """Over 2,000 lots, within 10 %."""
    dropped = drawn = 0
    for i in range(2000):
      lot = grouped(step=i, group_capacity=9)
      dropped += lot.num_dropped
      drawn += lot.num_dropped + lot.num_records
    want = privacy.expected_dropped_share(200, 0.32, 8, 9)
    np.testing.assert_allclose(dropped / drawn, want, rtol=0.1)


@pytest.mark.parametrize(
  ("capacity", "probability"),
  [(384, 2e-14), (320, 4.3e-5), (304, 1.4e-3), (288, 2.2e-2), (256, 0.48)],
)
def test_overflow_probability(capacity, probability):
  got = privacy.overflow_probability(13_084, 256 / 13_084, capacity)
  np.testing.assert_allclose(got, probability, rtol=0.3)
