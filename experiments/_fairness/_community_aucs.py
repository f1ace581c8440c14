"""Bias AUCs of a classifier by community: record and table."""

from collections.abc import Sequence

import jax
import numpy as np

from experiments._fairness import _measured
from trustjax import fairness, reporting

AUCS = ("subgroup", "bpsn", "bnsp")
# Records of either class that a community needs for an AUC of some use.
_LEAST = 10


def community_aucs(
  scores: np.ndarray,
  labels: np.ndarray,
  groups: np.ndarray,
  names: Sequence[str],
  key: jax.Array,
  *,
  num: int,
) -> _measured.Measures:
  """Subgroup, BPSN and BNSP AUC of every community, with intervals.

  Args:
    scores: Probability of the toxic class.
    labels: The toxic class, or not.
    groups: Communities of each text, [texts, groups].
    names: Names of the communities.
    key: Of resamples.
    num: Resamples.

  Returns:
    `<auc>_auc/<community>` to number, and the power mean over communities.
    A community with fewer than ten texts of either class has nan.
  """
  toxic = labels == 1
  enough = np.array(
    [
      min((member & toxic).sum(), (member & ~toxic).sum()) >= _LEAST
      for member in groups.T
    ]
  )
  found: _measured.Measures = {}
  if enough.any():
    boot = fairness.bias_aucs_bootstrap(
      scores.astype(np.float32), labels, groups[:, enough], key=key, num=num
    )
    means = boot.map(_power_means)
    places = np.cumsum(enough) - 1
  for auc in AUCS:
    for index, name in enumerate(names):
      n = int(groups[:, index].sum())
      if not enough[index]:
        found[f"{auc}_auc/{name}"] = _measured.Measured(
          value=float("nan"),
          n=n,
          ideal=1.0,
          reason=f"fewer than {_LEAST} texts of either class",
        )
        continue
      at = int(places[index])
      found[f"{auc}_auc/{name}"] = _measured.measured(
        getattr(boot.estimate, auc)[at],
        n,
        getattr(boot.low, auc)[at],
        getattr(boot.high, auc)[at],
        ideal=1.0,
      )
    if enough.any():
      found[f"{auc}_auc/power_mean"] = _measured.measured(
        means.estimate[auc],
        int(groups[:, enough].any(1).sum()),
        means.low[auc],
        means.high[auc],
        ideal=1.0,
      )
  return found


def _power_means(aucs):
  return {auc: fairness.power_mean(getattr(aucs, auc)) for auc in AUCS}


def table(
  results: reporting.Results, names: Sequence[str], title: str
) -> reporting.Table:
  """One row a community."""
  return reporting.Table(
    columns=[
      reporting.Column("community"),
      *(reporting.Column(auc, f"{auc} AUC", format=".3f") for auc in AUCS),
      reporting.Column("n", "texts", format=",d"),
    ],
    rows=[
      {
        "community": name,
        **{
          auc: _measured.cell(results, f"{auc}_auc/{name}/value")
          for auc in AUCS
        },
        "n": results.get(f"subgroup_auc/{name}/n"),
      }
      for name in (*names, "power_mean")
    ],
    title=title,
    notes=[
      "A low BPSN AUC: harmless texts about the community score above toxic"
      " texts about others."
    ],
  )
