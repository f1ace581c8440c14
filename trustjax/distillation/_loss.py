"""The distillation loss, of arrays and of ONE record."""

import dataclasses
import typing
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from trustjax import models
from trustjax.distillation import _teacher

AnyArray = Array | np.ndarray

# The teacher as it is, without a counterfactual.
ORIGINAL = "original"


@typing.no_type_check  # JAX rebuilds records with placeholders of its own.
@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class DistillLoss:
  """A distillation loss and its parts, in nats.

  Attributes:
    total: alpha_kd kd + alpha_lm lm.
    kd: T^2 times the mean divergence from the teacher.
    lm: Mean cross-entropy of the next token.
  """

  total: Float[Array, "*batch"]
  kd: Float[Array, "*batch"]
  lm: Float[Array, "*batch"]


def distill_loss(
  student_logits: Float[AnyArray, "*batch time vocab"],
  target_logp: Float[AnyArray, "*batch time vocab_teacher"],
  labels: Int[AnyArray, "*batch time"],
  mask: Bool[AnyArray, "*batch time"],
  *,
  temperature: float,
  alpha_kd: float,
  alpha_lm: float,
) -> DistillLoss:
  """Divergence from the teacher's distribution plus the next-token loss.

    kd = T^2 mean_M KL(softmax(target / T) || softmax(student / T))
    lm = - mean log softmax(student)[label]

  T^2 makes up for the 1 / T^2 in the gradient. The divergence runs over all
  positions of the mask, the last one included.

  Args:
    student_logits: Scores of the student.
    target_logp: Log-probabilities of the teacher at temperature 1, such as
      `combine_teacher` returns.
    labels: The token that each position should predict; -1 for none.
    mask: Positions that hold a token.
    temperature: T.
    alpha_kd: Weight of the divergence.
    alpha_lm: Weight of the next-token loss.

  Returns:
    The loss of each leading index; means run over its own positions.

  Raises:
    ValueError: An option is out of range, or the vocabularies differ.
  """
  _check_weights(temperature, alpha_kd=alpha_kd, alpha_lm=alpha_lm)
  if student_logits.shape[-1] != target_logp.shape[-1]:
    raise ValueError(
      f"target_logp: got a vocabulary of {target_logp.shape[-1]}; the student"
      f" has {student_logits.shape[-1]}"
    )
  student, target = jnp.asarray(student_logits), jnp.asarray(target_logp)
  labels, mask = jnp.asarray(labels), jnp.asarray(mask)
  log_p = jax.nn.log_softmax(target / temperature)
  log_q = jax.nn.log_softmax(student / temperature)
  p = jnp.exp(log_p)
  # A token that the teacher excludes adds nothing, whatever the student says.
  terms = jnp.where(p > 0, p * (log_p - log_q), 0.0)
  kd = temperature**2 * _mean(jnp.sum(terms, axis=-1), mask)
  # A comparison, because the slope of a gather is a scatter, which is slow.
  token = jax.lax.broadcasted_iota(
    labels.dtype, student.shape, student.ndim - 1
  )
  log_probs = jax.nn.log_softmax(student)
  chosen = jnp.sum(
    jnp.where(token == labels[..., None], log_probs, 0.0), axis=-1
  )
  lm = -_mean(chosen, mask & (labels >= 0))
  return DistillLoss(total=alpha_kd * kd + alpha_lm * lm, kd=kd, lm=lm)


def _mean(values, mask):
  """Mean over the last axis; 0 where nothing is in the mask."""
  kept = jnp.where(mask, values, 0.0)
  count = jnp.sum(mask, axis=-1).astype(kept.dtype)
  return jnp.sum(kept, axis=-1) / jnp.maximum(count, 1.0)


def distillation_loss(
  student: models.LanguageModel,
  teacher: models.LanguageModel,
  *,
  how: str = ORIGINAL,
  domain: str = "logprob",
  vocab_perm: Int[AnyArray, " vocab"] | None = None,
  temperature: float = 2.0,
  alpha_kd: float = 0.5,
  alpha_lm: float = 0.5,
  alpha_cos: float = 0.0,
) -> Callable[..., tuple[Float[Array, ""], dict[str, Any]]]:
  """The loss of ONE sequence, private or not, through the same trainer.

    alpha_kd kd + alpha_lm lm + alpha_cos mean(1 - cos(h_student, h_teacher))

  Parameters are {"student": ..., "teacher": ...}. The teacher is evaluated
  without dropout and receives no gradient; as the frozen part of
  `privacy.partition(params, "^student/")` it costs no clipping and no noise.
  A teacher that has read the private records would break the guarantee of a
  private student: it must be public, or trained privately itself.

  Args:
    student: The student.
    teacher: The teacher.
    how: "original", or a combination of `combine_teacher`, which needs
      tokens_cf, mask_cf, idx and valid in the example (`pack_pairs`).
    domain: As in `combine_teacher`.
    vocab_perm: As in `combine_teacher`.
    temperature: T.
    alpha_kd: Weight of the divergence.
    alpha_lm: Weight of the next-token loss.
    alpha_cos: Weight of the angle between the last hidden states.

  Returns:
    `loss_fn(params, example, key) -> (loss, aux)`; aux holds `kd` and `lm`. A
    key of None evaluates: no dropout.

  Raises:
    ValueError: An option is out of range, or the two vocabularies differ.
  """
  allowed = (ORIGINAL, *_teacher.COMBINATIONS)
  if how not in allowed:
    raise ValueError(f"how: got {how!r}; allowed are {list(allowed)}")
  _check_weights(
    temperature, alpha_kd=alpha_kd, alpha_lm=alpha_lm, alpha_cos=alpha_cos
  )
  _check_models(student, teacher, alpha_cos)
  target_fn = _target_fn(teacher, how, domain, vocab_perm)

  def loss_fn(params, example, key):
    tokens, mask = jnp.asarray(example["tokens"]), jnp.asarray(example["mask"])
    hidden = student.encode(
      params["student"], student.embed(params["student"], example), mask, key
    )
    logits = student.logits(params["student"], hidden)
    frozen = jax.lax.stop_gradient(params["teacher"])
    target, teacher_hidden = target_fn(frozen, example)
    following = jnp.concatenate([tokens[1:], tokens[:1]])
    known = jnp.concatenate([mask[1:], jnp.zeros(1, bool)])
    loss = distill_loss(
      logits,
      target,
      jnp.where(known, following, -1),
      mask,
      temperature=temperature,
      alpha_kd=alpha_kd,
      alpha_lm=alpha_lm,
    )
    total = loss.total
    if alpha_cos > 0:
      angle = 1 - _cosine(hidden, teacher_hidden)
      total = total + alpha_cos * _mean(angle, mask)
    return total, {"kd": loss.kd, "lm": loss.lm}

  return loss_fn


def _target_fn(teacher, how, domain, vocab_perm):
  """(params, example) -> log-probabilities, and hidden states of the text."""

  def scores(params, tokens, mask):
    embeddings = teacher.embed(params, {"tokens": tokens, "mask": mask})
    hidden = teacher.encode(params, embeddings, mask)
    return teacher.logits(params, hidden), hidden

  def original(params, example):
    logits, hidden = scores(params, example["tokens"], example["mask"])
    return jax.nn.log_softmax(logits), hidden

  def combined(params, example):
    # Both texts as one batch: larger products, one pass over the weights.
    both, hidden = jax.vmap(scores, in_axes=(None, 0, 0))(
      params,
      jnp.stack([example["tokens"], example["tokens_cf"]]),
      jnp.stack([example["mask"], example["mask_cf"]]),
    )
    logp = _teacher.combine_teacher(
      both[0],
      both[1],
      example["idx"],
      example["valid"],
      how=how,
      domain=domain,
      vocab_perm=vocab_perm,
    )
    return logp, hidden[0]

  return original if how == ORIGINAL else combined


def _cosine(one, other):
  """Cosine of the rows; 0 where one of them is all zero."""
  product = jnp.sum(one * other, axis=-1)
  # The squared norms are guarded, not their root, whose slope at 0 is infinite.
  squares = jnp.sum(one**2, axis=-1) * jnp.sum(other**2, axis=-1)
  some = squares > 0
  return jnp.where(some, product, 0.0) / jnp.sqrt(jnp.where(some, squares, 1.0))


def _check_weights(temperature, **weights):
  if not 0 < temperature < float("inf"):
    raise ValueError(
      f"temperature: got {temperature}; it must be positive and finite"
    )
  for field, weight in weights.items():
    if not 0 <= weight < float("inf"):
      raise ValueError(f"{field}: got {weight}; it must be finite and >= 0")


def _check_models(student, teacher, alpha_cos):
  sizes = student.fields["vocab_size"], teacher.fields["vocab_size"]
  if sizes[0] != sizes[1]:
    raise ValueError(
      f"teacher: its vocabulary has {sizes[1]} tokens, the student's"
      f" {sizes[0]}; a student is distilled over one vocabulary"
    )
  widths = student.fields.get("dim"), teacher.fields.get("dim")
  if alpha_cos > 0 and widths[0] != widths[1]:
    raise ValueError(
      f"alpha_cos: got {alpha_cos}; hidden states of width {widths[0]} and"
      f" {widths[1]} have no angle. Use 0, or a student as wide as its teacher"
    )
