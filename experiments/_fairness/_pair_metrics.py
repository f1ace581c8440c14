"""Metrics of pairs of texts that differ in the person alone."""

import jax
import numpy as np

from experiments._fairness import _measured, _planted_models, _probes
from trustjax import fairness


def counterfactual_metrics(
  scores: np.ndarray,
  swapped: np.ndarray,
  group: np.ndarray,
  key: jax.Array,
  *,
  threshold: float = 0.5,
) -> _measured.Measures:
  """How far a score moves when only the gender changes.

  Args:
    scores: Probability of the favourable class.
    swapped: The same of the counterfactual of each record.
    group: FEMALE or MALE.
    key: Of resamples.
    threshold: Above it the decision is favourable.

  Returns:
    `<metric>/gender` to number.
  """
  # The woman is the original, whichever of the two was written: the signed gap
  # is what she loses.
  of_woman, of_man = (
    np.where(group == which, scores, swapped)
    for which in (fairness.FEMALE, fairness.MALE)
  )
  gap = fairness.counterfactual_gap_bootstrap(
    of_woman,
    of_man[:, None],
    np.ones((len(scores), 1), bool),
    key=key,
    num=_measured.NUM_BOOT,
    threshold=threshold,
  )
  return {
    f"counterfactual_{name}/gender": _measured.measured(
      gap.estimate[field], len(scores), gap.low[field], gap.high[field]
    )
    for name, field in (
      ("gap", "mean"),
      ("signed", "signed"),
      ("flip_rate", "flip_rate"),
    )
  }


def template_metrics(
  classifier: _planted_models.TextClassifier,
  params: _planted_models.Params,
  key: jax.Array,
) -> _measured.Measures:
  """Gaps between fillings of a template that differ in the person alone.

  Args:
    classifier: The classifier.
    params: Its parameters.
    key: Of resamples, over templates.

  Returns:
    `template_gap/persons` and `template_flip_rate/persons`.
  """
  templates, rows = _probes.person_templates()
  scores = _planted_models.class_probabilities(
    classifier, params, _probes.encode(rows)
  )[:, 1]
  by_template = np.reshape(scores, (templates, -1))
  gap = fairness.template_gap_bootstrap(
    by_template,
    np.ones(by_template.shape, bool),
    key=key,
    num=_measured.NUM_BOOT,
  )
  persons = by_template.shape[1]
  return {
    f"template_{name}/persons": _measured.measured(
      gap.estimate[field],
      templates * persons * (persons - 1) // 2,
      gap.low[field],
      gap.high[field],
    )
    for name, field in (("gap", "mean"), ("flip_rate", "flip_rate"))
  }
