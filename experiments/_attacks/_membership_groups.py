"""Groups of records under attack: where leakage gathers, what DP covers."""

from typing import Any

import numpy as np

from experiments._attacks import _membership_record, _shadow_training
from trustjax import attacks, reporting

NAMES = ("rare_intents", "singletons", "single_copies")
# A smaller group says nothing at the rates of interest.
_LEAST_RECORDS = 20
# Records of an intent that is called rare are at most this share of those it
# would have if all intents were alike.
_RARE = 0.5


def make_groups(pool: _shadow_training.Pool) -> dict[str, np.ndarray]:
  """Records of each group of a pool.

  rare_intents   the intent has at most half of the records that it would have
                 if all intents of the pool were equally frequent
  singletons     a word of the record stands in no other record of the pool
  single_copies  no other record of the pool has the same text. Copies share a
                 coin, so that an epsilon for one record does not cover them;
                 the claims about ceilings are of this group

  Args:
    pool: The records.

  Returns:
    Name -> [records].
  """
  intents, own, counts = np.unique(
    pool.examples["intent"], return_inverse=True, return_counts=True
  )
  usual = pool.num_records / len(intents)
  _, group, copies = np.unique(
    pool.text, return_inverse=True, return_counts=True
  )
  return {
    "rare_intents": counts[own.ravel()] <= _RARE * usual,
    "singletons": _holds_a_word_of_its_own(
      pool.examples["tokens"], pool.examples["mask"]
    ),
    "single_copies": copies[group.ravel()] == 1,
  }


def _holds_a_word_of_its_own(tokens, mask):
  """Whether a token of each row is in no other row, [rows]."""
  rows = np.broadcast_to(np.arange(len(tokens))[:, None], tokens.shape)
  # Each pair once, so that a word said twice in a record counts once.
  pairs = np.unique(np.stack([rows[mask], tokens[mask]]), axis=1)
  _, token, records = np.unique(
    pairs[1], return_inverse=True, return_counts=True
  )
  found = np.zeros(len(tokens), bool)
  found[pairs[0][records[token.ravel()] == 1]] = True
  return found


def too_small(name: str, member: np.ndarray) -> str:
  """Why a group cannot be judged by itself; empty if it can.

  Args:
    name: Of the group.
    member: Memberships of its usable records, [models, records].
  """
  records = member.shape[1]
  if records < _LEAST_RECORDS:
    return (
      f"{records} usable records are {name.replace('_', ' ')}, at least"
      f" {_LEAST_RECORDS} are needed"
    )
  inside = member.sum(axis=1)
  if ((inside == 0) | (inside == records)).any():
    return f"a model has only members, or none, among the {name}"
  return ""


def record(
  results: reporting.Results,
  attacked: _membership_record.Attacked,
  fields: Any,
  groups: dict[str, np.ndarray],
  seed: int,
) -> None:
  """Adds the success of attacks on groups of records, each by itself.

  `single_copies` is always recorded for LiRA, since claims about ceilings are
  of its records.

  Args:
    results: The record.
    attacked: The arm.
    fields: The config's `attack`.
    groups: Name to records of the pool; empty where nothing is known of them.
    seed: Seed of bootstraps.
  """
  for group, inside in groups.items():
    wanted = set(fields.group_attacks) if group in fields.groups else set()
    if group == "single_copies":
      wanted.add("lira_online")
    own = inside[attacked.usable]
    member = attacked.member[:, own]
    results.set(f"{attacked.name}/{group}/records", int(own.sum()))
    reason = too_small(group, member)
    for attack in sorted(wanted & set(attacked.scores)):
      key = f"{attacked.name}/{attack}/{group}"
      if reason:
        for metric in (
          "auc",
          "balanced_accuracy",
          *map(_membership_record.tpr_key, fields.fprs),
        ):
          results.set(f"{key}/{metric}", None, reason=reason)
        continue
      metrics = attacks.attack_metrics(
        attacked.scores[attack][:, own],
        member,
        fprs=tuple(fields.fprs),
        num_resamples=fields.num_resamples,
        seed=seed,
      )
      _membership_record.put(results, f"{key}/auc", metrics.auc)
      _membership_record.put(
        results, f"{key}/balanced_accuracy", metrics.balanced_accuracy
      )
      for fpr, estimate in metrics.tpr_at_fpr.items():
        _membership_record.put(
          results, f"{key}/{_membership_record.tpr_key(fpr)}", estimate
        )
