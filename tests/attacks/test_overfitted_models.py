"""All membership attacks on real models: overfitted, and untrained.

Sixteen linear models on more dimensions than members learn random intents by
heart; the same models at their random start know nothing.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from trustjax import attacks

MODELS, RECORDS, DIM, INTENTS = 16, 200, 150, 5


@functools.cache
def trained(steps):
  """Statistics, logits and memberships of all models on all records."""
  rng = np.random.default_rng(0)
  features = jnp.asarray(rng.normal(size=(RECORDS, DIM)), jnp.float32)
  intent = rng.integers(0, INTENTS, RECORDS)
  # Independent coins, none of them always or never in.
  member = rng.random((MODELS, RECORDS)) < 0.5
  member[0], member[1] = ~member[2], ~member[3]
  label = jnp.asarray(intent)

  def fit(keep, key):
    def loss(weights):
      log_p = jax.nn.log_softmax(features @ weights)
      own = jnp.take_along_axis(log_p, label[:, None], axis=1)[:, 0]
      return -jnp.sum(jnp.where(keep, own, 0.0)) / jnp.sum(
        keep.astype(jnp.float32)
      )

    start = 0.05 * jax.random.normal(key, (DIM, INTENTS))
    return jax.lax.fori_loop(
      0, steps, lambda _, w: w - 0.5 * jax.grad(loss)(w), start
    )

  weights = jax.vmap(fit)(
    jnp.asarray(member), jax.random.split(jax.random.key(0), MODELS)
  )
  logits = np.asarray(jnp.einsum("rd,mdi->mri", features, weights), np.float64)
  stats = attacks.record_statistics(
    logits,
    np.zeros((MODELS, RECORDS, 1, 2)),
    intent,
    np.zeros((RECORDS, 1), int),
    np.zeros((RECORDS, 1), bool),
  )
  return stats, logits, intent, member


def attack_scores(name, steps):
  """Scores of all models, and the memberships they are judged by."""
  stats, logits, intent, member = trained(steps)
  if name == "yeom":
    return attacks.loss_threshold_scores(stats.loss), member
  if name == "salem_max":
    return attacks.confidence_scores(logits), member
  if name in ("shokri", "salem"):
    labels = intent if name == "shokri" else None
    features = attacks.posterior_features(logits, labels)
    # The first model is the shadow, the others are targets.
    with jax.numpy_dtype_promotion("standard"):
      classifier = attacks.fit_attack_classifier(
        features[0], member[0], jax.random.key(1), steps=200
      )
    scores = attacks.attack_classifier_scores(classifier, features[1:])
    return scores, member[1:]
  if name.startswith("lira"):
    scores = attacks.lira_scores(
      stats.joint_logit, member, target=None, online=name == "lira_online"
    )
    return scores, member
  half = RECORDS // 2
  scores = attacks.rmia_scores(
    -stats.loss[:, :half],
    member[:, :half],
    -stats.loss[:, half:],
    population_member=member[:, half:],
    target=None,
    online=name == "rmia_online",
  )
  return scores, member[:, :half]


@pytest.mark.parametrize(
  ("name", "least"),
  [
    ("yeom", 0.9),
    ("lira_online", 0.9),
    ("lira_offline", 0.9),
    ("rmia_online", 0.9),
    ("rmia_offline", 0.9),
    ("shokri", 0.9),
    ("salem", 0.55),
    ("salem_max", 0.55),
  ],
)
def test_random_labels_learned_by_heart_are_found(name, least):
  scores, member = attack_scores(name, 200)
  metrics = attacks.attack_metrics(scores, member, num_resamples=100)
  assert metrics.auc.low > least


@pytest.mark.parametrize(
  "name",
  [
    "yeom",
    "lira_online",
    "lira_offline",
    "rmia_online",
    "rmia_offline",
    "shokri",
    "salem",
    "salem_max",
  ],
)
def test_untrained_models_leak_nothing(name):
  scores, member = attack_scores(name, 0)
  # Eight attacks on fixed seeds; intervals of 99.9 % let chance off.
  metrics = attacks.attack_metrics(
    scores, member, fprs=(0.1,), num_resamples=2_000, confidence=0.999
  )
  for estimate, chance in (
    (metrics.auc, 0.5),
    (metrics.balanced_accuracy, 0.5),
    (metrics.tpr_at_fpr[0.1], 0.1),
  ):
    assert estimate.low < chance < estimate.high
