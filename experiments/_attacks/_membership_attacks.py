"""Membership attacks by name, on the statistics of many models."""

import pathlib

import jax
import numpy as np

from trustjax import attacks

NAMES = (
  "yeom",
  "salem",
  "shadow_classifier",
  "lira_online",
  "lira_offline",
  "lira_vector",
  "rmia",
  "rmia_offline",
)
_NEEDS = {
  "salem": ("features",),
  "shadow_classifier": ("features",),
  "lira_vector": ("intent_logit", "slots_logit"),
  "rmia": ("population_log_p",),
  "rmia_offline": ("population_log_p",),
}
# Examples that a shadow classifier is trained on.
_CLASSIFIER_EXAMPLES = 20_000


def missing(name: str, found: dict[str, np.ndarray]) -> str:
  """Why an attack cannot run on these statistics; empty if it can."""
  absent = [key for key in _NEEDS.get(name, ()) if key not in found]
  return f"the statistics lack {', '.join(absent)}" if absent else ""


def scores(name: str, found: dict[str, np.ndarray], seed: int) -> np.ndarray:
  """Scores of every record under every model, each attacked by the others.

  Args:
    name: One of `NAMES`.
    found: `member`, `log_p` and `joint_logit`, and what else the attack needs.
    seed: Of the shadow classifier's examples and weights.

  Returns:
    [models, records]; larger means more likely a member.
  """
  member = found["member"]
  if name == "yeom":
    return attacks.loss_threshold_scores(-found["log_p"])
  if name == "salem":
    return np.log(np.maximum(found["features"][..., 0], 1e-30))
  if name == "shadow_classifier":
    return _classifier_scores(found, seed)
  if name in ("lira_online", "lira_offline"):
    return attacks.lira_scores(
      found["joint_logit"], member, target=None, online=name == "lira_online"
    )
  if name == "lira_vector":
    both = np.stack([found["intent_logit"], found["slots_logit"]], axis=-1)
    return attacks.lira_vector_scores(both, member, target=None)
  return _rmia_scores(found, online=name == "rmia")


def _classifier_scores(found, seed):
  """Two attackers: each learns on one half of the models, scores the other."""
  member, features = found["member"], found["features"]
  half = np.arange(len(member)) % 2 == 0
  scored = np.empty(member.shape)
  for side, own in enumerate((half, ~half)):
    inputs = features[own].reshape(-1, features.shape[-1])
    truth = member[own].ravel()
    rng = np.random.default_rng((seed, side))
    rows = rng.permutation(len(truth))[:_CLASSIFIER_EXAMPLES]
    key = jax.random.fold_in(jax.random.key(seed), side)
    attacker = attacks.fit_attack_classifier(inputs[rows], truth[rows], key)
    scored[~own] = attacks.attack_classifier_scores(attacker, features[~own])
  return scored


def _rmia_scores(found, *, online):
  """RMIA; offline, a reference model that is not the target chooses `a`."""
  log_p, member = found["log_p"], found["member"]
  population = found["population_log_p"]
  if online:
    return attacks.rmia_scores(
      log_p, member, population, target=None, online=True
    )
  half = np.arange(len(member)) % 2 == 0
  scored = np.empty(member.shape)
  for own in (half, ~half):
    # The reference needs a model without the record among its own half.
    known = (~member[own][1:]).any(axis=0)
    a = attacks.tune_rmia_a(
      log_p[own][:, known],
      member[own][:, known],
      population[own],
      reference=0,
    )
    every = attacks.rmia_scores(
      log_p, member, population, target=None, online=False, a=a
    )
    scored[~own] = every[~own]
  return scored


def read_outside(path: str) -> dict[str, np.ndarray]:
  """Statistics of models that were trained elsewhere.

  Args:
    path: An .npz file with `member` [models, records] and `log_p` (log
      probability of the truth), `joint_logit` (its logit) or both; further
      `population_log_p` [models, population], `features` [models, records,
      features] (largest posterior first), `intent_logit` and `slots_logit`.

  Returns:
    The arrays, with what follows from others filled in.

  Raises:
    ValueError: An array is missing, not finite, or of another shape.
    FileNotFoundError: There is no such file.
  """
  if not pathlib.Path(path).is_file():
    raise FileNotFoundError(f"config.statistics_file: there is no {path!r}")
  with np.load(path) as file:
    found = dict(file)
  if "member" not in found or not {"log_p", "joint_logit"} & set(found):
    raise ValueError(
      f"{path}: got arrays {sorted(found)}; needed are 'member' and 'log_p' or"
      " 'joint_logit'"
    )
  found["member"] = np.asarray(found["member"]).astype(bool)
  models, records = found["member"].shape
  known = {"member", "log_p", "joint_logit"} | {
    need for needs in _NEEDS.values() for need in needs
  }
  for name in sorted(known & set(found)):
    array = found[name]
    expected = (models,) if name == "population_log_p" else (models, records)
    if array.shape[: len(expected)] != expected:
      raise ValueError(
        f"{path}: {name!r} has shape {array.shape}; it must begin with"
        f" {expected}, as 'member' does"
      )
    if not np.isfinite(array).all():
      raise ValueError(f"{path}: {name!r} holds values that are not finite")
  if "joint_logit" not in found:
    found["joint_logit"] = attacks.logit_of_log_probability(found["log_p"])
  if "log_p" not in found:
    found["log_p"] = -np.logaddexp(0, -found["joint_logit"])
  return found
