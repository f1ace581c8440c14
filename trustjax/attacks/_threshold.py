"""Attacks that need no shadow model: one threshold on one statistic."""

import numpy as np
from jaxtyping import Bool, Float, Float64

from trustjax.attacks import _statistics, _validate
from trustjax.attacks._validate import AnyArray


def loss_threshold_scores(
  loss: Float[AnyArray, "*models records"],
) -> Float64[np.ndarray, "*models records"]:
  """Minus the loss: the shadow-free score of Yeom et al.

  Fidelity:
    Paper: Yeom et al. 2018 predict "member" when the loss is at most the mean
      training loss (`loss_threshold_guesses`); sweeping the threshold gives
      the ROC curve that later papers report under the same name.
    Verdict: faithful.

  Args:
    loss: Loss of each record, for instance `RecordStatistics.loss`.

  Returns:
    Scores; larger means more likely a member.

  Raises:
    ValueError: If a loss is not finite.

  References:
    Yeom et al., Privacy Risk in Machine Learning, CSF 2018, arXiv 1709.01604.
  """
  return -_validate.finite("loss", loss)


def loss_threshold_guesses(
  loss: Float[AnyArray, "*models records"],
  training_loss: float | Float[AnyArray, "*models"],
) -> Bool[np.ndarray, "*models records"]:
  """The one decision of Yeom et al.: member if loss <= mean training loss.

  Their membership advantage is the guesses' TPR minus their FPR.

  Fidelity:
    Paper: adversary with knowledge of the average training loss.
    Verdict: faithful.

  Args:
    loss: Loss of each record.
    training_loss: Mean loss of the training set of each model.

  Returns:
    Guesses.

  Raises:
    ValueError: If a loss is not finite.
  """
  values = _validate.finite("loss", loss)
  bound = _validate.finite("training_loss", training_loss)
  _validate.check_shape("training_loss", bound, values.shape[:-1])
  return values <= bound[..., None]


def confidence_scores(
  logits: Float[AnyArray, "*models records labels"], *, kind: str = "max"
) -> Float64[np.ndarray, "*models records"]:
  """Label-free scores of a posterior: how sure is the model of anything?

    "max"      log max_j p_j
    "entropy"  sum_j p_j log p_j  (minus the entropy)

  Fidelity:
    Paper: Salem et al. 2019, third adversary: no shadow model, a threshold on
      the largest posterior or on the entropy.
    Here: the score; the paper sets the threshold by a quantile of the scores
      of random inputs, see `random_input_threshold`.
    Verdict: faithful.

  Args:
    logits: Unnormalised log-probabilities.
    kind: "max" or "entropy".

  Returns:
    Scores; larger means more likely a member.

  Raises:
    ValueError: If a logit is not finite or the kind is unknown.

  References:
    Salem et al., ML-Leaks, NDSS 2019, arXiv 1806.01246.
  """
  _validate.check_choice("kind", kind, ("max", "entropy"))
  log_p = _statistics.log_softmax(_validate.finite("logits", logits))
  if kind == "max":
    return log_p.max(axis=-1)
  return (np.exp(log_p) * log_p).sum(axis=-1)


def random_input_threshold(
  random_scores: Float[AnyArray, " inputs"], *, quantile: float = 0.9
) -> float:
  """Threshold from the scores of random inputs, which no model trained on.

  Fidelity:
    Paper: Salem et al. 2019 take a top percentile of the maximal posteriors of
      random points; which one is left open.
    Here: the quantile is an option.
    Verdict: faithful.

  Args:
    random_scores: Scores of inputs drawn at random.
    quantile: Share of the random inputs that stays below.

  Returns:
    The threshold: guess "member" at or above it.

  Raises:
    ValueError: If a score is not finite or there are none.
  """
  _validate.check_within("quantile", quantile, 0, 1)
  scores = _validate.finite("random_scores", random_scores)
  if not scores.size:
    raise ValueError("random_scores: got none; at least 1 is needed")
  return float(np.quantile(scores, quantile))
