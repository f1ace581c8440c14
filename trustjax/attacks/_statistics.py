"""Per-record statistics of joint intent and slot models: what attacks see."""

import dataclasses
import typing
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from trustjax.attacks import _validate
from trustjax.attacks._validate import AnyArray

# log P is kept below this, so that a record which a model is certain of has a
# finite logit (27.6) instead of an infinite one.
_LARGEST_LOG_P = -1e-12


@typing.no_type_check  # JAX rebuilds records with placeholders of its own.
@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class RecordStatistics:
  """What each model says of the true labels of each record.

  Attributes:
    log_p_intent: log p(intent), natural logarithm.
    log_p_slots: sum over labelled tokens of log p(tag).
    joint_logit: log P - log(1 - P) of the joint probability P, the statistic
      of LiRA.
    intent_logit: The same of the intent alone.
    slots_logit: The same of all tags together.
    min_token_logit: The smallest logit of a single tag, where a rare value
      leaks; that of the intent for a record without labelled tokens.
    num_tokens: Labelled tokens of the record.
  """

  log_p_intent: Float[AnyArray, "*models records"]
  log_p_slots: Float[AnyArray, "*models records"]
  joint_logit: Float[AnyArray, "*models records"]
  intent_logit: Float[AnyArray, "*models records"]
  slots_logit: Float[AnyArray, "*models records"]
  min_token_logit: Float[AnyArray, "*models records"]
  num_tokens: Int[AnyArray, "*models records"]

  @property
  def loss(self) -> Float[AnyArray, "*models records"]:
    """-log P, the joint negative log-likelihood."""
    return -(self.log_p_intent + self.log_p_slots)

  @property
  def slots_log_p_per_token(self) -> Float[AnyArray, "*models records"]:
    """Mean of log p(tag): the slot statistic without the record's length."""
    return self.log_p_slots / np.maximum(self.num_tokens, 1)


def record_statistics(
  intent_logits: Float[AnyArray, "*models records intents"],
  slot_logits: Float[AnyArray, "*models records time labels"],
  intent: Int[AnyArray, " records"],
  slots: Int[AnyArray, "records time"],
  mask: Bool[AnyArray, "records time"],
) -> RecordStatistics:
  """Statistics of every record under every model.

    phi_y   = logit_y - logsumexp_{j != y} logit_j,  log p_y = -softplus(-phi_y)
    log P   = log p_intent + sum_t log p(tag_t)
    joint_logit = log P - log(1 - P),  log(1 - P) = log(-expm1(log P))

  log p_y is never computed as a difference from the full log-sum-exp, which
  would lose all digits of 1 - p_y for a record that the model has memorised.

  Outside of `jax.jit` the work is done in float64 on whatever precision the
  logits have, and NumPy arrays come back. Inside, it runs in the precision of
  the logits, so that scoring can be fused into the forward pass; the two agree
  to that precision.

  Fidelity:
    Paper: LiRA scales the confidence of one label as phi; the joint P of an
      utterance and its tags is this project's extension, for which the
      literature has no convention.
    Here: natural logarithms; log P <= -1e-12, so logits are at most 27.6.
    Verdict: adaptation.

  Args:
    intent_logits: Unnormalised log-probabilities of the intents.
    slot_logits: The same of the tags at each position. Data without slots has
      a single tag, which is certain: the joint statistic is the intent's.
    intent: True intents.
    slots: True tags; -1 leaves a position out.
    mask: Positions that hold a token.

  Returns:
    The statistics, one value for each model and record.

  Raises:
    ValueError: If shapes disagree, a label is out of range, or (outside of
      jit) a logit that counts is nan.

  Example:
    >>> stats = record_statistics(intent_logits, slot_logits, y, tags, mask)
    >>> stats.joint_logit.shape
    (64, 13084)

  References:
    Carlini et al., Membership Inference Attacks From First Principles,
    IEEE S&P 2022, arXiv 2112.03570.
  """
  _check_labels(intent_logits, slot_logits, intent, slots, mask)
  arrays = (intent_logits, slot_logits, intent, slots, mask)
  if not _validate.is_known(*arrays):
    return _statistics(*map(jnp.asarray, arrays))
  with jax.enable_x64(True):
    found = _compiled(
      np.asarray(intent_logits, np.float64),
      np.asarray(slot_logits, np.float64),
      *map(np.asarray, arrays[2:]),
    )
    found = jax.tree.map(np.asarray, found)
  for field in ("intent_logit", "joint_logit"):
    _validate.finite(field, getattr(found, field))
  return found


def statistics_from_log_probabilities(
  log_p_intent: Float[AnyArray, "*models records"],
  log_p_slots: Float[AnyArray, "*models records"],
  num_tokens: Int[AnyArray, " records"],
) -> RecordStatistics:
  """Statistics of models that give probabilities rather than logits.

  For a CRF, log_p_slots is minus its negative log-likelihood; token by token
  nothing is known, so `min_token_logit` is the smaller of the intent's logit
  and the logit of all tags together.

  Args:
    log_p_intent: log p(intent), at most 0.
    log_p_slots: log p(all tags), at most 0.
    num_tokens: Labelled tokens of each record.

  Returns:
    The statistics, in float64.

  Raises:
    ValueError: If a log-probability is not finite or above 0.
  """
  p_intent = _validate.finite("log_p_intent", log_p_intent)
  p_slots = _validate.finite("log_p_slots", log_p_slots)
  _validate.check_shape("log_p_slots", p_slots, p_intent.shape)
  for field, values in (("log_p_intent", p_intent), ("log_p_slots", p_slots)):
    if (values > 0).any():
      raise ValueError(
        f"{field}: got {values.max()}; log-probabilities are at most 0"
      )
  intent_logit, slots_logit = _np_logit(p_intent), _np_logit(p_slots)
  return RecordStatistics(
    log_p_intent=p_intent,
    log_p_slots=p_slots,
    joint_logit=_np_logit(p_intent + p_slots),
    intent_logit=intent_logit,
    slots_logit=slots_logit,
    min_token_logit=np.minimum(intent_logit, slots_logit),
    num_tokens=np.broadcast_to(np.asarray(num_tokens), p_intent.shape),
  )


def logit_of_log_probability(
  log_p: Float[AnyArray, "*shape"],
) -> Float[AnyArray, "*shape"]:
  """Log p - log(1 - p), from log p.

  Args:
    log_p: Log-probabilities, at most 0; values above -1e-12 count as that.

  Returns:
    The logits, in float64: at most 27.6.

  Raises:
    ValueError: If a value is not finite or above 0.
  """
  values = _validate.finite("log_p", log_p)
  if (values > 0).any():
    raise ValueError(
      f"log_p: got {values.max()}; log-probabilities are at most 0"
    )
  return _np_logit(values)


def log_softmax(
  logits: Float[np.ndarray, "*shape labels"],
) -> Float[np.ndarray, "*shape labels"]:
  """Log-probabilities that keep the digits of 1 - p for the largest p.

  log p_max = -log1p(sum of the other exponentials) instead of a difference
  from the full log-sum-exp, which is 0 from a lead of 37 on.

  Args:
    logits: Unnormalised log-probabilities, finite.

  Returns:
    The log-probabilities.
  """
  shifted = logits - logits.max(axis=-1, keepdims=True)
  others = np.exp(shifted)
  top = np.argmax(logits, axis=-1)[..., None]
  np.put_along_axis(others, top, 0.0, axis=-1)
  return shifted - np.log1p(others.sum(axis=-1, keepdims=True))


def _np_logit(log_p: np.ndarray) -> np.ndarray:
  log_p = np.minimum(log_p, _LARGEST_LOG_P)
  return np.asarray(log_p - np.log(-np.expm1(log_p)))


def _logit(log_p: Any) -> Any:
  log_p = jnp.minimum(log_p, _LARGEST_LOG_P)
  return log_p - jnp.log(-jnp.expm1(log_p))


def _label_logit(logits: Any, labels: Any) -> Any:
  """logit_y - logsumexp of the other logits."""
  is_label = jax.nn.one_hot(labels, logits.shape[-1], dtype=bool)
  own = jnp.sum(jnp.where(is_label, logits, 0), axis=-1)
  others = jax.nn.logsumexp(jnp.where(is_label, -jnp.inf, logits), axis=-1)
  return own - others


def _statistics(intent_logits, slot_logits, intent, slots, mask):
  """All statistics, in the precision of the logits."""
  models = intent_logits.shape[:-2]
  intent = jnp.broadcast_to(intent, models + intent.shape)
  counted = jnp.broadcast_to(mask & (slots >= 0), models + slots.shape)
  slots = jnp.broadcast_to(slots, models + slots.shape)
  # One label is certain: its logit is that of the largest probability.
  top = _logit(jnp.zeros((), intent_logits.dtype))
  intent_logit = jnp.minimum(_label_logit(intent_logits, intent), top)
  token_logit = jnp.minimum(_label_logit(slot_logits, slots), top)
  log_p_intent = -jax.nn.softplus(-intent_logit)
  log_p_token = jnp.where(counted, -jax.nn.softplus(-token_logit), 0)
  log_p_slots = jnp.sum(log_p_token, axis=-1)
  num_tokens = jnp.sum(counted, axis=-1)
  least = jnp.min(jnp.where(counted, token_logit, jnp.inf), axis=-1)
  return RecordStatistics(
    log_p_intent=log_p_intent,
    log_p_slots=log_p_slots,
    joint_logit=_logit(log_p_intent + log_p_slots),
    intent_logit=intent_logit,
    slots_logit=_logit(log_p_slots),
    min_token_logit=jnp.where(num_tokens > 0, least, intent_logit),
    num_tokens=num_tokens,
  )


_compiled = jax.jit(_statistics)


def _check_labels(intent_logits, slot_logits, intent, slots, mask):
  records, time = slots.shape
  models = intent_logits.shape[:-2]
  _validate.check_shape("intent", intent, (records,))
  _validate.check_shape("mask", mask, (records, time))
  for field, logits, shape in (
    ("intent_logits", intent_logits, (*models, records)),
    ("slot_logits", slot_logits, (*models, records, time)),
  ):
    _validate.check_shape(field, logits, (*shape, logits.shape[-1]))
  if intent_logits.shape[-1] < 2:
    raise ValueError("intent_logits: got 1 label; a logit needs at least 2")
  _validate.check_in_range("intent", intent, 0, intent_logits.shape[-1])
  _validate.check_in_range("slots", slots, -1, slot_logits.shape[-1], mask)
