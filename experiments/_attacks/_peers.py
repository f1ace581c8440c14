"""The peers' attack statistics against ours, on the same arrays.

A peer that is not installed is left out by name; the record says so. What the
two compute is compared, too, so that a fast wrong answer would show: each race
has a `difference`, which is rounding where both compute the same number.
"""

import dataclasses
import importlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from experiments._binary import _config_flags
from trustjax import attacks

# Peer -> distribution, module.
_MODULES = {
  "tensorflow_lira": (
    "tensorflow-empirical-privacy",
    "tensorflow_privacy.privacy.privacy_tests.membership_inference_attack"
    ".advanced_mia",
  ),
  "privacy_meter_reference": (
    "privacy-meter",
    "privacy_meter.hypothesis_test",
  ),
  "art_tpr": (
    "adversarial-robustness-toolbox",
    "art.metrics.privacy.worst_case_mia_score",
  ),
  "art_classifier": (
    "adversarial-robustness-toolbox",
    "art.attacks.inference.membership_inference",
  ),
}
NAMES = tuple(_MODULES)
_FPRS = (0.001, 0.01, 0.1)
_LABELS = 7


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rivals:
  """One piece of work, done by us and by a peer.

  Attributes:
    ours: Does it here.
    peer: Does it there.
    difference: Largest difference of what the two find, given the same.
    note: What the difference is of, and what had to be made equal.
  """

  ours: Callable[[], Any]
  peer: Callable[[], Any]
  difference: Callable[[], float]
  note: str


def missing(name: str) -> str:
  """Why a peer cannot be raced; empty if it can.

  Raises:
    ValueError: Unknown peer.
  """
  if name not in _MODULES:
    raise ValueError(f"config.peers: got {name!r}; allowed are {list(NAMES)}")
  distribution, module = _MODULES[name]
  try:
    importlib.import_module(module)
  except ImportError as error:
    return f"needs {distribution}: {error}"
  return ""


def make_rivals(
  config: _config_flags.Config,
) -> tuple[dict[str, Rivals], dict[str, str]]:
  """Prepares the races.

  Args:
    config: `peers` names them, `scoring` has the sizes.

  Returns:
    (name -> race, name of a peer that is left out -> why).
  """
  made, skipped = {}, {}
  for name in config.peers:
    reason = missing(name)
    if reason:
      skipped[name] = reason
      continue
    module = importlib.import_module(_MODULES[name][1])
    made[name] = _MAKERS[name](module, config.scoring)
  return made, skipped


def _statistics(fields):
  """Logits of models and records, members one unit higher; memberships."""
  rng = np.random.default_rng(0)
  shape = (fields.num_models, fields.num_records)
  member = rng.random(shape) < 0.5
  return rng.normal(size=shape) + member, member


def _stretched(side):
  """Shadows whose variance over n is that of the given ones over n - 1."""
  count = len(side)
  mean = side.mean(axis=0)
  return mean + (side - mean) * np.sqrt(count / (count - 1))


def _tensorflow_lira(module, fields) -> Rivals:
  """Online LiRA of one target, with variances by record."""
  logits, member = _statistics(fields)
  shadows, inside = logits[1:], member[1:]
  sides = [
    [column[mask, None] for column, mask in zip(shadows.T, where.T)]
    for where in (inside, ~inside)
  ]

  def ours():
    return attacks.lira_scores(
      logits, member, target=0, online=True, variance="per_record"
    )

  def peer(stretch=False):
    stat_in, stat_out = (
      [_stretched(s) if stretch else s for s in side] for side in sides
    )
    return module.compute_score_lira(
      logits[0][:, None], stat_in, stat_out, median_or_mean="mean"
    )

  return Rivals(
    ours=ours,
    peer=peer,
    difference=lambda: np.abs(ours() + peer(stretch=True)).max(),
    note=(
      "scores, of the opposite sign; the peer's variances divide by n, ours by"
      " n - 1, which is made equal"
    ),
  )


def _privacy_meter_reference(module, fields) -> Rivals:
  """Offline, on losses: the reference attack's thresholds and decisions."""
  logits, _ = _statistics(fields)
  loss = np.logaddexp(0, -logits)
  alphas = np.array(_FPRS)
  nobody = np.zeros(loss.shape, bool)

  def ours():
    scores = attacks.lira_scores(
      -loss, nobody, target=0, online=False, variance="per_record"
    )
    return scores > -np.log(alphas)[:, None]

  def peer(stretch=False):
    references = _stretched(loss[1:]) if stretch else loss[1:]
    # For many records it takes the quantile 1 - alpha of the losses, where
    # its own code for one law, and its documentation, take alpha.
    thresholds = module.gaussian_threshold_func(references.T, 1 - alphas)
    return loss[0] < thresholds

  return Rivals(
    ours=ours,
    peer=peer,
    difference=lambda: float((ours() != peer(stretch=True)).mean()),
    note=(
      "share of decisions at FPR 0.1, 1 and 10 % that differ; the peer's"
      " variances divide by n, ours by n - 1, which is made equal; asked for an"
      " FPR it returns the threshold of 1 - FPR, so 1 - FPR is asked for"
    ),
  )


def _art_tpr(module, fields) -> Rivals:
  """TPR at low FPR, all models pooled."""
  scores, member = _statistics(fields)

  def ours():
    curve = attacks.roc_curve(scores, member)
    return np.array([curve.tpr[curve.at_fpr(fpr)] for fpr in _FPRS])

  def peer():
    _, tpr, _ = module.get_roc_for_multi_fprs(
      scores.ravel(), member.ravel(), np.array(_FPRS)
    )
    return np.array(tpr)

  return Rivals(
    ours=ours,
    peer=peer,
    difference=lambda: np.abs(ours() - peer()).max(),
    note="TPR at FPR 0.1, 1 and 10 %",
  )


def _art_classifier(module, fields) -> Rivals:
  """A logistic attacker on posteriors and labels, trained and applied."""
  classification = importlib.import_module("art.estimators.classification")
  rng = np.random.default_rng(0)
  examples = fields.num_records
  member = rng.random(examples) < 0.5
  labels = rng.integers(_LABELS, size=examples)
  logits = rng.normal(size=(examples, _LABELS))
  logits[np.arange(examples), labels] += 1 + member
  posterior = np.exp(logits)
  posterior /= posterior.sum(axis=1, keepdims=True)
  one_hot = np.eye(_LABELS)[labels]
  features = np.concatenate([posterior, one_hot], axis=1)

  def ours():
    attacker = attacks.fit_attack_classifier(
      features, member, jax.random.key(0), hidden=0
    )
    return attacks.attack_classifier_scores(attacker, features)

  def peer():
    attack = module.MembershipInferenceBlackBox(
      classification.BlackBoxClassifier(lambda x: x, (_LABELS,), _LABELS),
      attack_model_type="lr",
    )
    attack.fit(
      pred=posterior[member],
      y=labels[member],
      test_pred=posterior[~member],
      test_y=labels[~member],
    )
    return attack.infer(
      None, labels, pred=posterior, probabilities=True
    ).ravel()

  return Rivals(
    ours=ours,
    peer=peer,
    difference=lambda: abs(
      attacks.auc(ours(), member) - attacks.auc(peer(), member)
    ),
    note="AUC; penalties and stopping rules are each one's own",
  )


def race(
  config: _config_flags.Config, timed: Callable[[Callable[[], Any]], float]
) -> tuple[dict[str, list[float]], dict[str, Rivals], dict[str, str]]:
  """Times all races, interleaved.

  Args:
    config: `peers` and `scoring`, which has their sizes and rounds.
    timed: Runs something and returns its seconds.

  Returns:
    (seconds by "<name>/ours" and "<name>/peer", races, peer -> why it is left
    out).
  """
  made, skipped = make_rivals(config)
  seconds: dict[str, list[float]] = {}
  for rivals in made.values():
    rivals.ours()  # What is compiled is compiled outside the clock.
  for _ in range(config.scoring.rounds):
    for name, rivals in made.items():
      for side in ("ours", "peer"):
        spent = timed(getattr(rivals, side))
        seconds.setdefault(f"{name}/{side}", []).append(spent)
  return seconds, made, skipped


_MAKERS = {
  "tensorflow_lira": _tensorflow_lira,
  "privacy_meter_reference": _privacy_meter_reference,
  "art_tpr": _art_tpr,
  "art_classifier": _art_classifier,
}
