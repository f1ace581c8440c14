"""The plan: all is read off one record, which refuses contradictions."""

import dataclasses
import json

import numpy as np
import pytest

from trustjax import privacy


def make_plan(**changes):
  fields = dict(
    num_records=1000,
    expected_batch_size=100,
    rule=privacy.ThresholdClip(),
    num_steps=20,
    noise_multiplier=1.0,
  )
  return privacy.DpSgdPlan.make(**(fields | changes))


def test_sampling_rate_is_batch_over_records():
  assert make_plan().mechanism.sampling_rate == 0.1


@pytest.mark.parametrize("adjacency", ["add_remove", "zero_out", "replace_one"])
def test_clip_groups_double_the_sensitivity(adjacency):
  alone = make_plan(adjacency=adjacency, noise_multiplier=1.0)
  groups = make_plan(
    adjacency=adjacency, noise_multiplier=2.0, clip_group_size=10
  )
  assert groups.mechanism.sensitivity_factor == 2
  np.testing.assert_allclose(
    groups.epsilon(1e-5).pld, alone.epsilon(1e-5).pld, rtol=1e-9
  )


def test_naive_epsilon_is_that_of_half_the_sensitivity():
  groups = make_plan(clip_group_size=10)
  alone = make_plan()
  assert groups.naive_epsilon(1e-5) == alone.epsilon(1e-5)
  assert groups.epsilon(1e-5).pld > 2 * groups.naive_epsilon(1e-5).pld
  assert alone.naive_epsilon(1e-5) == alone.epsilon(1e-5)


def test_divides_by_a_constant():
  assert make_plan().expected_units == 100
  assert make_plan(clip_group_size=10).expected_units == 10


def test_lots_have_the_plans_shape():
  assert make_plan().lot_indices(0, 0).indices.ndim == 1
  grouped = make_plan(clip_group_size=10, group_capacity=14)
  assert grouped.lot_indices(0, 0).indices.shape == (10, 14)
  shuffled = make_plan(
    clip_group_size=10, sampler="shuffled", adjacency="zero_out"
  )
  assert shuffled.lot_indices(0, 0).indices.shape == (10, 10)
  truncated = make_plan(sampler="truncated_poisson", capacity=104)
  assert truncated.lot_indices(0, 0).indices.shape == (104,)


def test_lots_are_a_function_of_seed_and_step():
  plan = make_plan()
  one, again = plan.lot_indices(3, 7), plan.lot_indices(3, 7)
  np.testing.assert_array_equal(one.indices, again.indices)
  for seed, step in ((4, 7), (3, 8)):
    other = plan.lot_indices(seed, step)
    assert not np.array_equal(one.indices, other.indices)


def test_statement_says_what_matters():
  text = make_plan(clip_group_size=10).statement()
  for part in (
    "one record is added or removed",
    "Poisson",
    "0.1",
    "sensitivity 2",
    "not cryptographic",
    "vocabulary",
    "twice the clip norm",
  ):
    assert part in text


def test_description_is_json_and_fingerprints_differ():
  plan = make_plan()
  assert json.loads(json.dumps(plan.describe())) == plan.describe()
  assert plan.fingerprint() == make_plan().fingerprint()
  for change in (
    {"noise_multiplier": 1.1},
    {"num_steps": 21},
    {"clip_group_size": 10},
    {"rule": privacy.AutoClip()},
    {"adjacency": "zero_out"},
    {"schedule": privacy.NoiseSchedule(kind="inverse", decay=0.1)},
  ):
    assert make_plan(**change).fingerprint() != plan.fingerprint()


def test_replace_mechanism_keeps_the_rest():
  plan = make_plan(clip_group_size=10).replace_mechanism(noise_multiplier=3.0)
  assert plan.mechanism.noise_multiplier == 3.0
  assert plan.clip_group_size == 10


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    (
      {"expected_batch_size": 1001},
      "expected_batch_size: got 1001; it must be positive and at most the"
      " data set's 1000 records",
    ),
    ({"expected_batch_size": 0}, "expected_batch_size: got 0"),
    ({"clip_group_size": 0}, "clip_group_size: got 0"),
    ({"clip_group_size": 7}, "clip_group_size: got 7; it must divide"),
    ({"group_capacity": 4}, "group_capacity: got 4; it only applies"),
    (
      {"clip_group_size": 10, "group_capacity": 0},
      "group_capacity: got 0",
    ),
    (
      {
        "clip_group_size": 10,
        "sampler": "truncated_poisson",
        "capacity": 104,
      },
      "sensitivity 4C",
    ),
    (
      {"sampler": "shuffled"},
      "adjacency: got 'add_remove' with the sampler 'shuffled'",
    ),
    (
      {"rule": privacy.QuantileClip(count_noise=0.4)},
      "count_noise: got 0.4",
    ),
    ({"noise_multiplier": -1.0}, "noise_multiplier: got -1.0"),
    ({"num_steps": 0}, "num_steps: got 0"),
    ({"capacity": 100}, "capacity: got 100; it only applies"),
    ({"sampler": "truncated_poisson"}, "capacity: got None"),
  ],
)
def test_contradictions_are_refused(changes, message):
  with pytest.raises(ValueError, match=message):
    make_plan(**changes)


def test_a_typed_in_sensitivity_is_refused():
  plan = make_plan(clip_group_size=10)
  with pytest.raises(ValueError, match="sensitivity_factor: got 1.0; with"):
    dataclasses.replace(
      plan,
      mechanism=dataclasses.replace(plan.mechanism, sensitivity_factor=1.0),
    )


def test_a_sampling_rate_that_is_not_the_batch_is_refused():
  plan = make_plan()
  with pytest.raises(ValueError, match="mechanism.sampling_rate: got 0.2"):
    plan.replace_mechanism(sampling_rate=0.2)


def test_calibrate_meets_the_target_with_the_groups_sensitivity():
  alone, grouped = make_plan(), make_plan(clip_group_size=10)
  sigma = alone.calibrate(2.0, 1e-4).mechanism.noise_multiplier
  found = grouped.calibrate(2.0, 1e-4)
  assert 1.99 < found.epsilon(1e-4).pld <= 2.0
  np.testing.assert_allclose(
    found.mechanism.noise_multiplier, 2 * sigma, rtol=1e-3
  )


@pytest.mark.parametrize("clip_group_size", [1, 10])
def test_draw_lot_fetches_the_records_of_the_indices(clip_group_size):
  plan = make_plan(clip_group_size=clip_group_size)
  examples = {"x": np.arange(1000.0), "y": np.arange(3000).reshape(1000, 3)}
  lot = plan.draw_lot(examples, seed=3, step=7)
  drawn = plan.lot_indices(3, 7)
  np.testing.assert_array_equal(lot.ids, drawn.indices)
  np.testing.assert_array_equal(lot.valid, drawn.valid)
  np.testing.assert_array_equal(lot.examples["x"], drawn.indices)
  np.testing.assert_array_equal(lot.examples["y"][..., 0], 3 * drawn.indices)


def test_draw_lot_refuses_arrays_of_other_data():
  with pytest.raises(ValueError, match=r"examples\['x'\]: got shape \(7,\)"):
    make_plan().draw_lot({"x": np.zeros(7)}, seed=0, step=0)
