"""What a membership study leaves behind: record, table, figures."""

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np

from experiments._attacks import _membership_attacks
from experiments._private_training import _arms
from trustjax import attacks, reporting

if TYPE_CHECKING:
  import matplotlib.figure

_NO_MECHANISM = "no mechanism was run"
# An audit of fewer says nothing.
_LEAST_CANARIES = 10
# With fewer models, online attacks of models on each other are biased.
_ENOUGH_MODELS = 16
_LABELS = {
  "yeom": "loss threshold",
  "salem": "largest posterior",
  "shadow_classifier": "shadow classifier",
  "lira_online": "LiRA online",
  "lira_offline": "LiRA offline",
  "lira_vector": "LiRA, intent and slots",
  "rmia": "RMIA",
  "rmia_offline": "RMIA offline",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Attacked:
  """One arm with everything that was found out about it.

  Attributes:
    name: Its name.
    arm: How it was trained; None for statistics from outside.
    found: Statistics of its models.
    usable: Records that every attack can use.
    scores: Attack name to scores [models, usable records].
  """

  name: str
  arm: _arms.Arm | None
  found: dict[str, np.ndarray]
  usable: np.ndarray
  scores: dict[str, np.ndarray]

  @property
  def member(self) -> np.ndarray:
    """Memberships of the usable records."""
    return self.found["member"][:, self.usable]


def put(results: reporting.Results, key: str, estimate: Any) -> None:
  """Records an `attacks.Estimate`."""
  if estimate.value is None:
    results.set(key, None, reason=estimate.reason)
  elif estimate.low is None:
    results.set(key, estimate.value)
  else:
    results.measure(
      key,
      reporting.Interval(
        estimate.value, estimate.low, estimate.high, estimate.n
      ),
    )


def record_arm(
  results: reporting.Results,
  attacked: Attacked,
  fields: Any,
  delta: float,
  canaries: np.ndarray,
  seed: int,
) -> None:
  """Adds an arm: privacy, utility, success of each attack, audited bound.

  Args:
    results: The record.
    attacked: The arm.
    fields: The config's `attack`.
    delta: delta of every epsilon.
    canaries: Usable records that are the audit's canaries.
    seed: Seed of bootstraps and ties.
  """
  name, found = attacked.name, attacked.found
  _record_privacy(results, name, attacked.arm, delta, fields.fprs)
  member = attacked.member
  loss = -found["log_p"][:, attacked.usable]
  for key, where in (("loss_members", member), ("loss_non_members", ~member)):
    by_model = [float(row[w].mean()) for row, w in zip(loss, where)]
    results.measure(f"{name}/{key}", reporting.mean_interval(by_model))
  for key in ("intent_accuracy", "slot_f1"):
    if key in found:
      results.measure(
        f"{name}/{key}", reporting.mean_interval(found[key].tolist())
      )
  if "train_seconds" in found:
    results.set(f"{name}/train_seconds", float(found["train_seconds"]))
  results.set(f"{name}/models", len(member))
  for attack in fields.attacks:
    if attack not in attacked.scores:
      reason = _membership_attacks.missing(attack, found)
      for metric in ("auc", "balanced_accuracy", "advantage"):
        results.set(f"{name}/{attack}/{metric}", None, reason=reason)
      for fpr in fields.fprs:
        results.set(f"{name}/{attack}/{tpr_key(fpr)}", None, reason=reason)
      continue
    metrics = attacks.attack_metrics(
      attacked.scores[attack],
      member,
      fprs=tuple(fields.fprs),
      num_resamples=fields.num_resamples,
      seed=seed,
    )
    for metric in ("auc", "balanced_accuracy", "advantage"):
      put(results, f"{name}/{attack}/{metric}", getattr(metrics, metric))
    for fpr, estimate in metrics.tpr_at_fpr.items():
      put(results, f"{name}/{attack}/{tpr_key(fpr)}", estimate)
  _record_audit(results, attacked, fields, delta, canaries, seed)


def tpr_key(fpr: float) -> str:
  """Name of the TPR at an FPR in results."""
  return f"tpr_at_fpr_{fpr:g}"


def _record_privacy(results, name, arm, delta, fprs):
  """Both epsilons, and the success that each would allow any attack."""
  plan = None if arm is None else arm.plan
  bounds: dict[str, float | None] = {"epsilon": None, "epsilon_naive": None}
  if plan is not None:
    bounds["epsilon"] = plan.epsilon(delta).pld
    bounds["epsilon_naive"] = plan.naive_epsilon(delta).pld
    mechanism = plan.mechanism
    results.set(f"{name}/noise_multiplier", mechanism.noise_multiplier)
    results.set(f"{name}/clip_group_size", plan.clip_group_size)
    results.set(f"{name}/plan", plan.fingerprint())
    results.set(f"{name}/delta", delta)
  for which, epsilon in bounds.items():
    reason = "without noise no epsilon is finite"
    if plan is None:
      reason = _NO_MECHANISM
    results.set(f"{name}/{which}", epsilon, reason=reason)
    finite = epsilon is not None and np.isfinite(epsilon)
    suffix = which.replace("epsilon", "ceiling")
    for fpr in fprs:
      ceiling = None
      if finite:
        assert epsilon is not None
        ceiling = float(
          attacks.tpr_ceiling(float(fpr), epsilon=epsilon, delta=delta)
        )
      results.set(f"{name}/{suffix}/{tpr_key(fpr)}", ceiling, reason=reason)


def _record_audit(results, attacked, fields, delta, canaries, seed):
  """The one-run audit of model 0, its records being the canaries."""
  key = f"{attacked.name}/epsilon_lower_bound"
  if "lira_online" not in attacked.scores:
    results.set(key, None, reason="the audit guesses by scores of lira_online")
    return
  if len(canaries) < _LEAST_CANARIES:
    results.set(
      key, None, reason=f"only {len(canaries)} records have a fair coin left"
    )
    return
  plan = attacks.OneRunPlan(
    num_canaries=len(canaries),
    num_guesses=attacks.choose_num_guesses(
      len(canaries),
      separation=fields.audit_separation,
      delta=delta,
    ),
    delta=delta,
  )
  outcome = plan.audit(
    attacked.scores["lira_online"][0, canaries],
    attacked.member[0, canaries],
    seed=seed,
  )
  results.set(key, outcome.epsilon_lower_bound)
  results.set(
    f"{attacked.name}/audit_method",
    f"one run, model 0, {plan.num_canaries} records,"
    f" {plan.num_guesses} guesses by lira_online, fixed before training",
  )
  results.set(f"{attacked.name}/audit_correct_guesses", outcome.num_correct)


def add_claims(results: reporting.Results, fields: Any) -> None:
  """LiRA against the loss threshold, and attacks against what DP allows."""
  fprs = sorted(fields.fprs)
  for arm in results.arms():
    for fpr in fprs:
      lira, yeom = (
        results.interval(key) if key in results else None
        for key in (
          f"{arm}/lira_online/{tpr_key(fpr)}",
          f"{arm}/yeom/{tpr_key(fpr)}",
        )
      )
      if arm == "non_private" and lira and yeom and yeom.high is not None:
        results.add_claim(
          reporting.Claim(
            name=f"lira_above_loss_threshold_{tpr_key(fpr)}",
            estimate=lira,
            relation="at_least",
            threshold=yeom.high,
            source="Carlini et al. 2022, Table I; intervals apart",
          )
        )
      _add_ceiling_claim(results, arm, tpr_key(fpr), lira)


def _add_ceiling_claim(results, arm, rate, everything):
  """The guarantee of one record, held against records without copies."""
  ceiling = results.get(f"{arm}/ceiling/{rate}")
  key = f"{arm}/lira_online/single_copies/{rate}"
  known = key in results
  lira = results.interval(key) if known else everything
  if not isinstance(ceiling, float) or lira is None:
    return
  of = "records without copies" if known else "records whose texts are unknown"
  results.add_claim(
    reporting.Claim(
      name=f"{arm}_below_its_ceiling_{rate}",
      estimate=lira,
      relation="at_most",
      threshold=ceiling,
      source=f"the guarantee itself: e^eps FPR + delta, of {of}",
    )
  )


def make_table(
  results: reporting.Results, fields: Any, *, title: str
) -> reporting.Table:
  """One row for each arm and attack."""
  rates = [
    reporting.Column(tpr_key(fpr), f"TPR at {fpr:.1%} FPR")
    for fpr in fields.fprs
  ]
  columns = [
    reporting.Column("arm"),
    reporting.Column("attack"),
    reporting.Column("auc", "AUC"),
    reporting.Column("balanced_accuracy", "balanced accuracy"),
    *rates,
    reporting.Column("epsilon", "epsilon", format=".2f"),
    reporting.Column("epsilon_naive", "naive: no guarantee", format=".2f"),
    reporting.Column("epsilon_lower_bound", "audited from below", format=".2f"),
  ]
  rows = []
  for arm in results.arms():
    for attack in fields.attacks:
      row: dict[str, Any] = {
        "arm": reporting.arm_label(arm),
        "attack": _LABELS[attack],
      }
      for column in columns[2:]:
        own = f"{arm}/{column.key}"
        key = own if own in results else f"{arm}/{attack}/{column.key}"
        row[column.key] = reporting.cell_of(results, key)
      rows.append(row)
      rows += _group_rows(results, fields, arm, attack, columns)
  return reporting.Table(
    columns=columns, rows=rows, title=title, notes=_notes(results)
  )


def _group_rows(results, fields, arm, attack, columns):
  """A row for each group of records that the attack was judged on."""
  rows = []
  for group in fields.groups:
    if f"{arm}/{attack}/{group}/auc" not in results:
      continue
    records = results[f"{arm}/{group}/records"]
    row: dict[str, Any] = {
      "arm": reporting.arm_label(arm),
      "attack": (
        f"{_LABELS[attack]}: {group.replace('_', ' ')} ({records:,} records)"
      ),
    }
    for column in columns[2:]:
      key = f"{arm}/{attack}/{group}/{column.key}"
      if key in results:
        row[column.key] = reporting.cell_of(results, key)
    rows.append(row)
  return rows


def _notes(results):
  notes = [
    "intervals: 95 %, bootstrap over models and records; every model is the"
    " target of all the others",
    "audited from below: 95 % lower bound by one run, see audit_method",
  ]
  few = min(results[f"{arm}/models"] for arm in results.arms())
  if few < _ENOUGH_MODELS:
    notes.append(
      f"{few} models: with so few shadows LiRA online is biased downwards (on"
      " nothing its AUC is about 0.48 with 8 models, 0.49 with 10),"
      f" so values near 0.5 are no evidence of privacy; use {_ENOUGH_MODELS} or"
      " more"
    )
  return notes


def make_figures(
  results: reporting.Results, attacked: list[Attacked], fields: Any
) -> "dict[str, matplotlib.figure.Figure]":
  """ROC curves, and theoretical beside practical privacy."""
  return {
    "roc": _roc_figure(attacked, fields),
    "theory_and_practice": _theory_figure(results, attacked, fields),
  }


def _roc_figure(attacked, fields):
  styles = reporting.arm_styles([each.name for each in attacked])
  shown = [a for a in fields.attacks if any(a in e.scores for e in attacked)]
  least = 0.5 / max(int((~each.member).sum()) for each in attacked)
  with reporting.style():
    figure, axes = reporting.new_figure(
      panels=len(shown), panel_size=(3.0, 2.9), title="Membership: ROC curves"
    )
    handles: dict[str, Any] = {}
    for panel, attack in zip(axes, shown):
      for each in attacked:
        if attack not in each.scores:
          continue
        curve = attacks.roc_curve(each.scores[attack], each.member)
        # Steps below one non-member carry nothing; a log axis ends there.
        fpr = np.maximum(curve.fpr, least)
        (line,) = panel.plot(
          fpr,
          np.maximum(curve.tpr, least),
          color=styles[each.name].color,
          linestyle=styles[each.name].linestyle,
          linewidth=1.3,
        )
        handles[styles[each.name].label] = line
      panel.plot([least, 1], [least, 1], color="#999999", linewidth=0.8)
      panel.set(
        xscale="log", yscale="log", xlim=(2 * least, 1), ylim=(least, 1)
      )
      panel.set_title(_LABELS[attack])
      panel.set_xlabel("false positive rate")
      panel.set_ylabel("true positive rate")
    figure.legend(
      list(handles.values()),
      list(handles),
      loc="outside lower left",
      ncols=len(handles),
    )
  return figure


_SHAPES = {"yeom": "s", "lira_online": "o", "rmia": "D"}


def _theory_figure(results, attacked, fields):
  """Left: what is promised. Right: what an attack gets, and may get."""
  names = [each.name for each in attacked]
  styles = reporting.arm_styles(names)
  places = dict(zip(names, range(len(names) - 1, -1, -1)))
  handles: dict[str, Any] = {}
  with reporting.style():
    figure, (left, right) = reporting.new_figure(
      panels=2,
      panel_size=(4.6, 0.5 * len(names) + 1.9),
      title="Theoretical and practical privacy",
    )
    for name, place in places.items():
      color = styles[name].color
      _draw_epsilons(left, results, name, place, color, handles)
      _draw_success(right, results, name, place, color, fields, handles)
    for panel in (left, right):
      panel.set_yticks(list(places.values()), [styles[n].label for n in names])
      panel.set_ylim(-0.6, len(names) - 0.4)
    left.set_xscale("symlog", linthresh=1.0)
    left.set_xlim(-0.1, 2 * max(left.get_xlim()[1], 1.0))
    left.set_xlabel("epsilon (linear below 1)")
    fpr = max(fields.fprs)
    handles["chance"] = right.axvline(fpr, color="#999999", linewidth=0.8)
    right.set_xscale("log")
    right.set_xlim(right=1.3)
    right.set_xlabel(f"true positive rate at {fpr:.0%} false positives")
    figure.legend(
      list(handles.values()),
      list(handles),
      loc="outside lower left",
      ncols=-(-len(handles) // 2),
    )
  return figure


def _draw_epsilons(axes, results, name, place, color, handles):
  epsilon = results[f"{name}/epsilon"]
  for which, marker, fill, label in (
    ("epsilon", "o", True, "epsilon"),
    ("epsilon_naive", "o", False, "naive epsilon (not a guarantee)"),
    ("epsilon_lower_bound", ">", True, "audited from below"),
  ):
    value = results[f"{name}/{which}"]
    if value is None or (which == "epsilon_naive" and value == epsilon):
      continue
    style: dict[str, Any] = dict(marker=marker, linestyle="", markersize=7)
    axes.plot(
      value, place, color=color, mfc=color if fill else "white", **style
    )
    if label not in handles:
      (handles[label],) = axes.plot(
        [], [], color="#555555", mfc="#555555" if fill else "white", **style
      )


def _draw_success(axes, results, name, place, color, fields, handles):
  key = tpr_key(max(fields.fprs))
  shown = [attack for attack in _SHAPES if attack in fields.attacks]
  for offset, attack in zip((0.22, 0.0, -0.22), shown):
    rate = results.interval(f"{name}/{attack}/{key}")
    if rate is None:
      continue
    low = rate.estimate if rate.low is None else rate.low
    high = rate.estimate if rate.high is None else rate.high
    style: dict[str, Any] = dict(
      marker=_SHAPES[attack], markersize=4.5, linewidth=1.1
    )
    axes.errorbar(
      rate.estimate,
      place + offset,
      xerr=[[rate.estimate - low], [high - rate.estimate]],
      color=color,
      **style,
    )
    if _LABELS[attack] not in handles:
      (handles[_LABELS[attack]],) = axes.plot([], [], color="#555555", **style)
  for which, line, label in (
    ("ceiling", "-", "most that epsilon allows"),
    ("ceiling_naive", ":", "most that naive epsilon allows"),
  ):
    limit = results[f"{name}/{which}/{key}"]
    if limit is not None:
      handles[label] = axes.vlines(
        limit, place - 0.35, place + 0.35, color="#555555", linestyle=line
      )
