"""Canaries for audits: records that no honest data would contain."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from trustjax.attacks import _validate
from trustjax.attacks._validate import AnyArray

PyTree = Any


def mislabelled_records(
  key: Key[Array, ""],
  mask: Bool[AnyArray, "canaries time"],
  *,
  num_intents: int,
  num_slots: int,
) -> tuple[Int[Array, " canaries"], Int[Array, "canaries time"]]:
  """Random intents and random tags for the tokens of existing utterances.

  A model can only get them right by memorising them.

  Fidelity:
    Paper: Steinke et al. 2023 use mislabelled images as black-box canaries.
    Here: intent and tags are drawn uniformly, independent of the text.
    Verdict: adaptation.

  Args:
    key: Typed key.
    mask: Positions that hold a token.
    num_intents: Intents to draw from.
    num_slots: Tags to draw from.

  Returns:
    Intents, and tags with -1 where the mask is False.

  Raises:
    ValueError: If there is nothing to draw from.
  """
  _validate.check_at_least("num_intents", num_intents, 1)
  _validate.check_at_least("num_slots", num_slots, 1)
  intent_key, slot_key = jax.random.split(key)
  mask = jnp.asarray(mask)
  intent = jax.random.randint(intent_key, mask.shape[:1], 0, num_intents)
  slots = jax.random.randint(slot_key, mask.shape, 0, num_slots)
  return intent, jnp.where(mask, slots, -1)


def gradient_canaries(
  key: Key[Array, ""], params: PyTree, num_canaries: int, *, norm: float
) -> PyTree:
  """Random directions in parameter space, to be used as records' gradients.

  In d dimensions two of them have an inner product of about norm^2 / sqrt(d):
  nearly orthogonal, so that each canary can be recognised by itself.

  Fidelity:
    Paper: Nasr et al. 2023 and Steinke et al. 2023 use fixed gradients
      ("Dirac" or random) as white-box canaries.
    Verdict: faithful.

  Args:
    key: Typed key.
    params: Parameters, for their shapes.
    num_canaries: Number of directions.
    norm: Length of each, over all leaves together.

  Returns:
    A pytree like params with a leading axis [canaries].

  Raises:
    ValueError: If a size is out of range.
  """
  _validate.check_at_least("num_canaries", num_canaries, 1)
  _validate.check_at_least("norm", norm, 0)
  leaves, treedef = jax.tree.flatten(params)
  keys = jax.random.split(key, len(leaves))
  drawn = [
    jax.random.normal(k, (num_canaries, *leaf.shape), leaf.dtype)
    for k, leaf in zip(keys, leaves)
  ]
  squares = sum(
    jnp.sum(jnp.square(leaf), axis=tuple(range(1, leaf.ndim))) for leaf in drawn
  )
  scale = norm / jnp.sqrt(squares)
  scaled = [
    leaf * jnp.reshape(scale, (-1,) + (1,) * (leaf.ndim - 1)) for leaf in drawn
  ]
  return jax.tree.unflatten(treedef, scaled)


def gradient_canary_scores(
  update: PyTree, canaries: PyTree
) -> Float[Array, " canaries"]:
  """<released update, canary's clipped gradient>, the white-box score.

  Linear in the update: sum the released updates of a run, or sum the scores.

  Fidelity:
    Paper: Steinke et al. 2023 and Nasr et al. 2023, white-box audits.
    Verdict: faithful.

  Args:
    update: What was released: a noisy sum of clipped gradients.
    canaries: Clipped gradients with a leading axis [canaries].

  Returns:
    Scores; larger means more likely included.

  Raises:
    ValueError: If the trees or their shapes do not match.
  """
  if jax.tree.structure(update) != jax.tree.structure(canaries):
    raise ValueError(
      f"canaries: got {jax.tree.structure(canaries)}; it must be"
      f" {jax.tree.structure(update)} with a leading axis"
    )
  products = []
  for one, many in zip(jax.tree.leaves(update), jax.tree.leaves(canaries)):
    _validate.check_shape("canaries", many, (many.shape[0], *one.shape))
    flat = jnp.reshape(many, (many.shape[0], one.size))
    products.append(flat @ jnp.reshape(one, (one.size,)))
  return jnp.sum(jnp.stack(products), axis=0)
