"""The learned attacker: scikit-learn, a NumPy loop, groups, chance."""

import jax
import numpy as np
import pytest
from scipy import special
from sklearn import linear_model

from trustjax import attacks
from trustjax.attacks import _shadow_classifier

KEY = jax.random.key(0)


@pytest.fixture(autouse=True)
def standard_promotion():
  # optax promotes inside Adam.
  with jax.numpy_dtype_promotion("standard"):
    yield


def shadow_posteriors(seed=0, n=400, labels=5, gain=1.5):
  """Posteriors that are surer of members, by `gain` in the true logit."""
  rng = np.random.default_rng(seed)
  member = rng.random(n) < 0.4
  label = rng.integers(0, labels, n)
  logits = rng.normal(size=(n, labels))
  logits[np.arange(n), label] += 1 + gain * member
  return logits, label, member


def test_posterior_features():
  logits, label, _ = shadow_posteriors(n=20)
  p = special.softmax(logits, axis=1)
  got = attacks.posterior_features(logits, label, top_k=2)
  for row, y, value in zip(p, label, got):
    np.testing.assert_allclose(
      value, [*sorted(row)[::-1][:2], row[y], -np.log(row[y])]
    )
  np.testing.assert_allclose(
    attacks.posterior_features(logits[None], top_k=2)[0], got[:, :2]
  )


def test_logistic_regression_equals_scikit_learn():
  logits, label, member = shadow_posteriors()
  features = attacks.posterior_features(logits, label)
  l2 = 1e-2
  classifier = attacks.fit_attack_classifier(
    features, member, KEY, hidden=0, l2=l2
  )
  scaled = (features - features.mean(0)) / features.std(0)
  # Weights that sum to 1: the same objective as ours, times 1 / l2.
  reference = linear_model.LogisticRegression(C=1 / l2, tol=1e-10)
  share = np.where(member, member.mean(), 1 - member.mean())
  reference.fit(scaled, member, sample_weight=0.5 / share / member.size)
  np.testing.assert_allclose(
    classifier.params["kernel"][0], reference.coef_[0], atol=1e-5
  )
  np.testing.assert_allclose(
    attacks.attack_classifier_scores(classifier, features),
    reference.decision_function(scaled),
    atol=1e-5,
  )


def test_logistic_regression_without_a_penalty():
  rng = np.random.default_rng(0)
  x = rng.normal(size=(60, 2))
  noisy = x[:, 0] + rng.normal(size=60) > 0
  # Copies of a feature leave the curvature singular and share its weight.
  alone = attacks.fit_attack_classifier(x, noisy, KEY, hidden=0, l2=0.0)
  copied = attacks.fit_attack_classifier(
    x[:, [0, 0, 1]], noisy, KEY, hidden=0, l2=0.0
  )
  first, second, third = copied.params["kernel"][0]
  np.testing.assert_allclose(first, second)
  np.testing.assert_allclose(
    (first + second, third), alone.params["kernel"][0], rtol=1e-6
  )
  # What can be separated is, and the weights stay finite.
  member = x[:, 0] > 0
  perfect = attacks.fit_attack_classifier(x, member, KEY, hidden=0, l2=0.0)
  scores = attacks.attack_classifier_scores(perfect, x)
  assert np.isfinite(scores).all() and attacks.auc(scores, member) == 1
  assert 0 <= perfect.loss[0] < 1e-6


def test_a_constant_feature_tells_nothing():
  rng = np.random.default_rng(0)
  x = rng.normal(size=100)
  member = x + rng.normal(size=100) > 0
  # The mean of 0.1, and so the deviation from it, is rounded.
  constant = np.full(100, 0.1)
  assert constant.std() > 0
  classifier = attacks.fit_attack_classifier(
    np.stack([x, constant], axis=1), member, KEY, hidden=0
  )
  alone = attacks.fit_attack_classifier(x[:, None], member, KEY, hidden=0)
  want = attacks.attack_classifier_scores(alone, x[:, None])
  for value in (0.1, 0.1 + 1e-9):
    got = attacks.attack_classifier_scores(
      classifier, np.stack([x, np.full(100, value)], axis=1)
    )
    np.testing.assert_allclose(got, want, atol=1e-6)


def slow_mlp(params, x, y, weight, *, steps, rate, l2):
  """Full-batch Adam with back-propagation written out, in float64."""
  params = {k: np.array(v, np.float64) for k, v in params.items()}
  first = {k: np.zeros_like(v) for k, v in params.items()}
  second = {k: np.zeros_like(v) for k, v in params.items()}
  for step in range(1, steps + 1):
    raw = x @ params["hidden_kernel"] + params["hidden_bias"]
    hidden = np.maximum(raw, 0)
    logit = hidden @ params["kernel"] + params["bias"]
    d_logit = weight * (special.expit(logit) - y)
    d_raw = d_logit[:, None] * params["kernel"] * (raw > 0)
    grad = {
      "kernel": hidden.T @ d_logit + l2 * params["kernel"],
      "bias": d_logit.sum(),
      "hidden_kernel": x.T @ d_raw + l2 * params["hidden_kernel"],
      "hidden_bias": d_raw.sum(0),
    }
    for name, g in grad.items():
      first[name] = 0.9 * first[name] + 0.1 * g
      second[name] = 0.999 * second[name] + 0.001 * g**2
      m = first[name] / (1 - 0.9**step)
      v = second[name] / (1 - 0.999**step)
      params[name] = params[name] - rate * m / (v**0.5 + 1e-8)
  hidden = np.maximum(x @ params["hidden_kernel"] + params["hidden_bias"], 0)
  return hidden @ params["kernel"] + params["bias"]


def test_network_equals_adam_by_hand():
  logits, label, member = shadow_posteriors(n=100)
  features = attacks.posterior_features(logits, label)
  options = {"steps": 40, "l2": 1e-2}
  classifier = attacks.fit_attack_classifier(
    features, member, KEY, hidden=6, learning_rate=0.02, **options
  )
  start = _shadow_classifier._initial(KEY, 1, features.shape[1], 6)
  scaled = (features - features.mean(0)) / features.std(0)
  share = np.where(member, member.mean(), 1 - member.mean())
  want = slow_mlp(
    {name: leaf[0] for name, leaf in start.items()},
    scaled,
    member,
    0.5 / share / member.size,
    rate=0.02,
    **options,
  )
  got = attacks.attack_classifier_scores(classifier, features)
  np.testing.assert_allclose(got, want, atol=1e-3)


def test_attacks_a_target_it_has_not_seen():
  shadow, shadow_label, shadow_member = shadow_posteriors(1, n=2_000)
  target, label, member = shadow_posteriors(2, n=2_000)
  classifier = attacks.fit_attack_classifier(
    attacks.posterior_features(shadow, shadow_label), shadow_member, KEY
  )
  scores = attacks.attack_classifier_scores(
    classifier, attacks.posterior_features(target, label)
  )
  assert attacks.auc(scores, member) > 0.7
  # Without labels (Salem) it sees less.
  blind = attacks.fit_attack_classifier(
    attacks.posterior_features(shadow), shadow_member, KEY
  )
  blind_scores = attacks.attack_classifier_scores(
    blind, attacks.posterior_features(target)
  )
  assert 0.55 < attacks.auc(blind_scores, member) < attacks.auc(scores, member)


def test_chance_without_a_leak():
  shadow, shadow_label, shadow_member = shadow_posteriors(1, n=1_000, gain=0)
  target, label, member = shadow_posteriors(2, n=4_000, gain=0)
  classifier = attacks.fit_attack_classifier(
    attacks.posterior_features(shadow, shadow_label), shadow_member, KEY
  )
  scores = attacks.attack_classifier_scores(
    classifier, attacks.posterior_features(target, label)
  )
  # Standard error 0.0093.
  assert abs(attacks.auc(scores, member) - 0.5) < 4 * 0.0093


def test_groups_learn_apart():
  rng = np.random.default_rng(0)
  n = 1_200
  group = rng.integers(0, 3, n)
  member = rng.random(n) < 0.5
  # The sign of the leak depends on the group, and the last has none.
  sign = np.array([1.0, -1.0, 0.0])[group]
  features = (rng.normal(size=n) + 2 * sign * member)[:, None]
  classifier = attacks.fit_attack_classifier(
    features, member, KEY, group=group, num_groups=3, hidden=8, steps=150
  )
  scores = attacks.attack_classifier_scores(classifier, features, group=group)
  found = [attacks.auc(scores[group == g], member[group == g]) for g in (0, 1)]
  assert min(found) > 0.85
  # A line for all groups cannot follow either of them.
  single = attacks.fit_attack_classifier(features, member, KEY, hidden=0)
  pooled = attacks.attack_classifier_scores(single, features)
  assert attacks.auc(pooled, member) < 0.75
  # A group alone gives the same attacker as among others.
  alone = attacks.fit_attack_classifier(
    np.concatenate([features, features]),
    np.concatenate([member, member]),
    KEY,
    group=np.concatenate([group, group]),
    num_groups=3,
    hidden=8,
    steps=150,
  )
  np.testing.assert_allclose(alone.loss, classifier.loss, rtol=1e-3)


def test_logistic_regression_of_a_group_is_that_of_the_group_alone():
  rng = np.random.default_rng(1)
  group = rng.integers(0, 3, 300)
  features = rng.normal(size=(300, 2))
  member = features[:, 0] * (group - 1) + rng.normal(size=300) > 0
  # Without a penalty the scale of the features, which groups share, is free.
  options = {"hidden": 0, "l2": 0.0}
  classifier = attacks.fit_attack_classifier(
    features, member, KEY, group=group, num_groups=3, **options
  )
  scores = attacks.attack_classifier_scores(classifier, features, group=group)
  for number in range(3):
    own = group == number
    alone = attacks.fit_attack_classifier(
      features[own], member[own], KEY, **options
    )
    np.testing.assert_allclose(
      scores[own],
      attacks.attack_classifier_scores(alone, features[own]),
      atol=1e-6,
    )


def test_scores_of_many_models_are_those_of_each():
  logits, label, member = shadow_posteriors()
  features = attacks.posterior_features(logits, label)
  classifier = attacks.fit_attack_classifier(features, member, KEY, steps=50)
  both = attacks.attack_classifier_scores(
    classifier, np.stack([features, features[::-1]])
  )
  one = attacks.attack_classifier_scores(classifier, features)
  np.testing.assert_allclose(both, [one, one[::-1]])


def test_bad_input():
  logits, label, member = shadow_posteriors(n=20)
  features = attacks.posterior_features(logits, label)
  with pytest.raises(ValueError, match=r"top_k: got 6; .* \[1, 5\]"):
    attacks.posterior_features(logits, top_k=6)
  with pytest.raises(ValueError, match=r"labels\[0\]: got 9"):
    attacks.posterior_features(logits, np.full(20, 9))
  with pytest.raises(ValueError, match=r"got no members in group 1"):
    attacks.fit_attack_classifier(
      features, member, KEY, group=np.zeros(20, int), num_groups=2
    )
  with pytest.raises(ValueError, match=r"got no non-members in group 0"):
    attacks.fit_attack_classifier(features, np.ones(20, bool), KEY)
  with pytest.raises(ValueError, match=r"hidden: got -1"):
    attacks.fit_attack_classifier(features, member, KEY, hidden=-1)
  classifier = attacks.fit_attack_classifier(features, member, KEY, steps=1)
  with pytest.raises(ValueError, match=r"got 2; .* trained on 5"):
    attacks.attack_classifier_scores(classifier, features[:, :2])
  with pytest.raises(ValueError, match=r"group\[0\]: got 1"):
    attacks.attack_classifier_scores(
      classifier, features, group=np.ones(20, int)
    )
