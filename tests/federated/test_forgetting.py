"""Scores by mixture, backward transfer and forgetting: known answers."""

import numpy as np
import pytest

from trustjax import federated


def test_shares_are_those_of_the_groups():
  shares = federated.class_shares(
    np.array([0, 0, 1, 2, 2, 2]),
    np.array([0, 0, 0, 2, 2, 2]),
    num_classes=3,
    num_groups=3,
  )
  np.testing.assert_allclose(shares, [[2 / 3, 1 / 3, 0], [0, 0, 0], [0, 0, 1]])


def test_a_mixture_is_scored_by_the_classes_that_the_test_set_has():
  by_class = np.array([1.0, 0.5, np.nan])
  shares = np.array([[0.5, 0.5, 0.0], [0.25, 0.25, 0.5], [0.0, 0.0, 1.0]])
  got = federated.mixture_accuracy(by_class, shares)
  np.testing.assert_allclose(got, [0.75, 0.75, np.nan])


def test_the_mixture_of_the_test_set_gives_its_accuracy():
  rng = np.random.default_rng(0)
  truth, right = rng.integers(0, 4, 200), rng.random(200) < 0.6
  counts = np.bincount(truth, minlength=4)
  by_class = np.bincount(truth[right], minlength=4) / counts
  shares = federated.class_shares(
    truth, np.zeros(200, int), num_classes=4, num_groups=1
  )
  got = federated.mixture_accuracy(by_class, shares)
  np.testing.assert_allclose(got, [right.mean()])


def test_transfer_by_hand():
  accuracy = np.array([[0.9, 0.1, 0.0], [0.95, 0.8, 0.2], [0.5, 0.9, 0.7]])
  got = federated.transfer(accuracy)
  assert got.final_earlier == pytest.approx((0.5 + 0.9) / 2)
  assert got.backward == pytest.approx((0.5 - 0.9 + 0.9 - 0.8) / 2)
  # The best of period 0 came after period 1; period 1 ended at its best.
  assert got.forgetting == pytest.approx((0.95 - 0.5 + 0.9 - 0.9) / 2)


@pytest.mark.parametrize(
  "run, message",
  [
    (lambda: federated.transfer(np.ones((1, 1))), r"accuracy: got shape \(1,"),
    (lambda: federated.transfer(np.ones((2, 3))), r"accuracy: got shape \(2,"),
    (
      lambda: federated.class_shares(
        np.array([3]), np.array([0]), num_classes=3, num_groups=1
      ),
      "labels: got 3 to 3",
    ),
    (
      lambda: federated.class_shares(
        np.array([0]), np.array([-1]), num_classes=3, num_groups=1
      ),
      "groups: got -1 to -1",
    ),
  ],
)
def test_impossible_arguments_are_named(run, message):
  with pytest.raises(ValueError, match=message):
    run()
