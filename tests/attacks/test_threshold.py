"""Attacks without shadows: by definition, and by scikit-learn and SciPy."""

import numpy as np
import pytest
from scipy import special
from scipy import stats as scipy_stats

from trustjax import attacks


def test_loss_threshold():
  loss = np.array([[0.1, 2.0, 0.5], [1.0, 0.2, 3.0]])
  np.testing.assert_array_equal(attacks.loss_threshold_scores(loss), -loss)
  guesses = attacks.loss_threshold_guesses(loss, np.array([0.5, 0.9]))
  assert guesses.tolist() == [[True, False, True], [False, True, False]]
  assert attacks.loss_threshold_guesses(loss[0], 0.5).tolist() == [
    True,
    False,
    True,
  ]


def test_yeom_advantage_is_a_point_of_the_curve():
  rng = np.random.default_rng(0)
  member = rng.random(500) < 0.5
  loss = rng.exponential(np.where(member, 1.0, 2.0))
  bound = loss[member].mean()
  guesses = attacks.loss_threshold_guesses(loss, bound)
  curve = attacks.roc_curve(attacks.loss_threshold_scores(loss), member)
  tpr, fpr = guesses[member].mean(), guesses[~member].mean()
  index = np.searchsorted(-curve.thresholds, bound, side="right") - 1
  np.testing.assert_allclose((curve.tpr[index], curve.fpr[index]), (tpr, fpr))
  assert 0 < tpr - fpr <= curve.advantage


def test_confidence_scores():
  logits = np.random.default_rng(0).normal(size=(3, 7, 5))
  p = special.softmax(logits, axis=-1)
  np.testing.assert_allclose(
    attacks.confidence_scores(logits), np.log(p.max(-1))
  )
  np.testing.assert_allclose(
    attacks.confidence_scores(logits, kind="entropy"),
    -scipy_stats.entropy(p, axis=-1),
  )
  uniform = attacks.confidence_scores(np.zeros((1, 4)), kind="entropy")
  np.testing.assert_allclose(uniform, -np.log(4))


def test_certain_posteriors_do_not_tie():
  # In double precision all of these p are 1.
  lead = np.array([40.0, 50.0, 60.0])
  logits = np.stack([lead, 0 * lead, 0 * lead], axis=-1)
  np.testing.assert_allclose(
    attacks.confidence_scores(logits), -2 * np.exp(-lead)
  )
  loss = attacks.posterior_features(logits, np.zeros(3, int), top_k=1)[:, 2]
  np.testing.assert_allclose(loss, 2 * np.exp(-lead))


def test_random_input_threshold():
  scores = np.arange(101.0)
  assert attacks.random_input_threshold(scores, quantile=0.9) == 90.0


def test_bad_input():
  with pytest.raises(ValueError, match=r"loss\[1\]: got nan"):
    attacks.loss_threshold_scores(np.array([0.0, np.nan]))
  with pytest.raises(ValueError, match=r"kind: got 'margin'"):
    attacks.confidence_scores(np.zeros((1, 4)), kind="margin")
  with pytest.raises(ValueError, match=r"quantile: got 2"):
    attacks.random_input_threshold(np.zeros(3), quantile=2)
  with pytest.raises(ValueError, match=r"random_scores: got none"):
    attacks.random_input_threshold(np.zeros(0))
