"""What prediction sensitivity is given, and the baseline it is held against."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from trustjax.fairness import (
  _counterfactual,
  _prediction_sensitivity,
  _validate,
)
from trustjax.fairness._validate import AnyArray


def lexicon_weights(
  token_ids: Int[AnyArray, "batch time"], lexicon_ids: Int[AnyArray, " ids"]
) -> Float[Array, "batch time"]:
  """Weight 1 for tokens that are identity terms, 0 for others.

  Args:
    token_ids: Tokens.
    lexicon_ids: Ids of identity terms.

  Returns:
    Weights for `v`.
  """
  found = jnp.isin(jnp.asarray(token_ids), jnp.asarray(lexicon_ids))
  return found.astype(jnp.result_type(float))


def swap_weights(
  embeds: Float[AnyArray, "batch time dim"],
  embeds_cf: Float[AnyArray, "batch time dim"],
) -> Float[Array, "batch time dim"]:
  """Weight |E(x') - E(x)|: the coordinates that a swap changes.

  Args:
    embeds: Embeddings of the originals.
    embeds_cf: Embeddings of counterfactuals of the same length.

  Returns:
    Weights for `v`.

  Raises:
    ValueError: If shapes differ.
  """
  _validate.check_same_shape(embeds=embeds, embeds_cf=embeds_cf)
  return jnp.abs(jnp.asarray(embeds_cf) - jnp.asarray(embeds))


def counterfactual_sensitivity(
  class_fn: _prediction_sensitivity.ClassFn,
  embeds: Float[AnyArray, "batch time dim"],
  mask: Bool[AnyArray, "batch time"],
  embeds_cf: Float[AnyArray, "batch substitutions time_cf dim"],
  mask_cf: Bool[AnyArray, "batch substitutions time_cf"],
  valid: Bool[AnyArray, "batch substitutions"],
) -> _counterfactual.CounterfactualGap:
  """The counterfactual-fairness baseline: how far the prediction moves.

  The score of a record is the probability of the class that is predicted for
  the original, and `counterfactual_gap` compares it with each substitution;
  `per_item` is what to correlate beside the sensitivity.

  Fidelity:
    Paper: Krishna et al. 2022 compare with counterfactual fairness (Garg et
      al. 2019).
    Verdict: faithful to Garg et al.; which class the paper scores is not
      known.

  Args:
    class_fn: The classifier.
    embeds: Embeddings of the originals.
    mask: Positions that hold a token.
    embeds_cf: Embeddings of the substitutions.
    mask_cf: Their masks.
    valid: Substitutions that exist and differ from the original.

  Returns:
    The gap; the threshold of `flip_rate` is 1/2.
  """
  original = jax.nn.softmax(class_fn(jnp.asarray(embeds), jnp.asarray(mask)))
  predicted = jnp.argmax(original, axis=-1)
  batch, substitutions = valid.shape
  flat = jnp.asarray(embeds_cf).reshape(-1, *embeds_cf.shape[2:])
  changed = jax.nn.softmax(
    class_fn(flat, jnp.asarray(mask_cf).reshape(-1, mask_cf.shape[-1]))
  ).reshape(batch, substitutions, -1)
  return _counterfactual.counterfactual_gap(
    jnp.take_along_axis(original, predicted[:, None], axis=1)[:, 0],
    jnp.take_along_axis(changed, predicted[:, None, None], axis=2)[..., 0],
    valid,
  )
