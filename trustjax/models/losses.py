"""Losses of ONE record, the unit that privacy protects."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from trustjax.models import _image_cnn, _language_model, _model, _precision


def joint_loss(
  model: _model.Model,
  *,
  intent_weight: float = 1.0,
  slot_weight: float = 1.0,
  unknown_rate: float = 0.0,
  unknown_id: int = 1,
) -> Callable[..., tuple[Float[Array, ""], dict[str, Any]]]:
  """Cross-entropy of the intent plus mean cross-entropy of the slots.

  The slot mean runs over this record's own positions (`slot_mask` if the
  example has one, else `mask`), which a per-record clip allows. Labels of -1
  are ignored, and so is all of a record without a single token (the padding of
  a lot): its loss and gradient are zero.

  Args:
    model: The model.
    intent_weight: Weight of the intent's cross-entropy.
    slot_weight: Weight of the slots' mean cross-entropy.
    unknown_rate: Share of the words that training replaces by the unknown
      word, drawn by the record's key, so that the model learns to read
      context and characters.
    unknown_id: Token of the unknown word.

  Returns:
    `loss_fn(params, example, key) -> (loss, aux)`; aux holds `intent_correct`
    and `slot_correct` (mean over the positions). A key of None evaluates:
    no dropout, no hidden words.

  Raises:
    ValueError: A weight or the rate is out of range.
  """
  _model.check_rate("unknown_rate", unknown_rate)
  for field, weight in (
    ("intent_weight", intent_weight),
    ("slot_weight", slot_weight),
  ):
    if not 0 <= weight < float("inf"):
      raise ValueError(f"{field}: got {weight}; it must be finite and >= 0")

  def loss_fn(params, example, key):
    example = jax.tree.map(jnp.asarray, example)
    dropout_key = None
    if key is not None:
      dropout_key, word_key = jax.random.split(key)
      if unknown_rate > 0:
        tokens = example["tokens"]
        hide = jax.random.bernoulli(word_key, unknown_rate, tokens.shape)
        hide = hide & example["mask"]
        example = example | {"tokens": jnp.where(hide, unknown_id, tokens)}
    logits = model.apply(params, example, dropout_key)
    slot_mask = example.get("slot_mask", example["mask"]) & example["mask"]
    intent_loss, intent_correct = _cross_entropy(
      logits.intent[None, :],
      example["intent"][None],
      jnp.any(example["mask"])[None],
    )
    slot_loss, slot_correct = _cross_entropy(
      logits.slots, example["slots"], slot_mask
    )
    loss = intent_weight * intent_loss + slot_weight * slot_loss
    return loss, {
      "intent_correct": intent_correct,
      "slot_correct": slot_correct,
    }

  return loss_fn


def language_model_loss(
  model: _language_model.LanguageModel,
) -> Callable[..., tuple[Float[Array, ""], dict[str, Any]]]:
  """Mean cross-entropy of the next token, in nats.

  A position counts where it and the next one are in the mask: the first token
  of a record is given, and nothing is predicted behind its end. The mean runs
  over this record's own positions, which a per-record clip allows; a record
  with fewer than two tokens (the padding of a lot) has zero loss and gradient.

  Args:
    model: The language model.

  Returns:
    `loss_fn(params, example, key) -> (loss, aux)` of examples with tokens
    [time] and mask [time]; aux holds `token_correct` (mean over the predicted
    positions) and `num_predicted`, so that loss x num_predicted is the
    negative log-likelihood of the record. A key of None evaluates.

  Raises:
    ValueError: (from loss_fn) An example has a single position.
  """

  def loss_fn(params, example, key):
    tokens, mask = jnp.asarray(example["tokens"]), jnp.asarray(example["mask"])
    if tokens.shape[0] < 2:
      raise ValueError(
        f"tokens: got {tokens.shape[0]} positions; predicting the next token"
        " needs at least 2"
      )
    embeddings = model.embed(params, example)
    hidden = model.encode(params, embeddings, mask, key)
    # The last position predicts nothing, so it is not scored at all.
    logits = model.logits(params, hidden[:-1])
    predicted = mask[:-1] & mask[1:]
    loss, correct = _cross_entropy(logits, tokens[1:], predicted)
    return loss, {
      "token_correct": correct,
      "num_predicted": predicted.astype(loss.dtype).sum(),
    }

  return loss_fn


def label_loss(
  model: _image_cnn.ImageClassifier,
) -> Callable[..., tuple[Float[Array, ""], dict[str, Any]]]:
  """Cross-entropy of an image's label, in nats.

  Args:
    model: The classifier.

  Returns:
    `loss_fn(params, example, key) -> (loss, aux)` of examples with image and
    label []; aux holds `correct`. A label of -1 has zero loss and gradient. A
    key of None evaluates.
  """

  def loss_fn(params, example, key):
    logits = model.apply(params, example, key)
    label = jnp.asarray(example["label"])
    loss, correct = _cross_entropy(
      logits[None, :], label[None], jnp.ones((1,), bool)
    )
    return loss, {"correct": correct}

  return loss_fn


def _cross_entropy(
  logits: Float[Array, "n labels"], labels: Int[Array, " n"], mask
):
  """Mean cross-entropy and accuracy over labelled positions of the mask."""
  logits = _precision.at_least_float32(logits)
  counted = (mask & (labels >= 0)).astype(logits.dtype)
  total = jnp.maximum(counted.sum(), 1.0)
  log_probs = jax.nn.log_softmax(logits)
  chosen = jnp.take_along_axis(
    log_probs, jnp.maximum(labels, 0)[:, None], axis=1
  )[:, 0]
  correct = (jnp.argmax(logits, axis=1) == labels).astype(logits.dtype)
  return -(counted @ chosen) / total, (counted @ correct) / total
