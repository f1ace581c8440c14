"""Prediction sensitivity of a classifier, weighed by a model of status."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from experiments._fairness import _measured, _planted_models, _probes
from trustjax import fairness


def sensitivity_metrics(
  classifier: _planted_models.TextClassifier,
  params: _planted_models.Params,
  status: _planted_models.TextClassifier,
  status_params: _planted_models.Params,
  arrays: dict[str, np.ndarray],
  key: jax.Array,
) -> _measured.Measures:
  """Accumulated prediction sensitivity, relative to that to anything at all."""
  found = {}
  for space in ("prob", "logit"):
    result = sensitivities(
      classifier, params, status, status_params, arrays, space=space
    )
    relative = np.asarray(result.relative)
    known = relative[np.isfinite(relative)]
    interval = fairness.bootstrap(
      jnp.mean, jnp.asarray(known), key=key, num=_measured.NUM_BOOT
    )
    found[f"prediction_sensitivity/{space}"] = _measured.measured(
      interval.estimate, len(known), interval.low, interval.high
    )
  return found


def sensitivities(
  classifier,
  params,
  status,
  status_params,
  arrays,
  *,
  space,
  special_ids: tuple[int, ...] | None = None,
  **options,
) -> fairness.PredictionSensitivity:
  """Sensitivities of all records, weighed by a protected-status model.

  Args:
    classifier: The task model.
    params: Its parameters.
    status: The protected-status model, on the same word table.
    status_params: Its parameters.
    arrays: tokens and mask.
    space: "prob", "logit" or "log_prob".
    special_ids: Tokens that do not count; None takes the start and the end of
      an occupation sentence.
    **options: Of `fairness.prediction_sensitivity`.

  Returns:
    The sensitivities.
  """
  if special_ids is None:
    special_ids = (*_probes.subwords().prefix, *_probes.subwords().suffix)
  tokens = jnp.asarray(arrays["tokens"])
  mask = jnp.asarray(arrays["mask"])
  return fairness.prediction_sensitivity(
    jax.tree_util.Partial(classifier.classes, params),
    jax.tree_util.Partial(status.classes, status_params),
    _embedded(classifier, params, tokens, mask),
    mask,
    space=space,
    psm_space="logit",
    special=np.isin(arrays["tokens"], special_ids),
    **options,
  )


@functools.partial(jax.jit, static_argnums=0)
def _embedded(classifier, params, tokens, mask):
  return classifier.embeddings(params, tokens, mask)
