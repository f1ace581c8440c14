"""Which parameters are trained: frozen backbones, adapters, heads."""

import re
from collections.abc import Callable
from typing import Any

import jax

PyTree = Any


def partition(
  params: PyTree, trainable: str | Callable[[str, Any], Any]
) -> tuple[PyTree, PyTree]:
  """Splits parameters into those to train and those to keep.

  Clipping, noise, optimiser and checkpoints see the trained part only, so that
  frozen parameters cost no gradient, no norm and no noise.

  Args:
    params: Parameters.
    trainable: Regular expression searched in a leaf's path (keys joined by
      "/"), or a function of the path and the leaf, true for those to train.

  Returns:
    (trained, frozen): two trees shaped like `params`, with None where the
    other one holds the leaf.

  Raises:
    ValueError: Nothing is selected; the message lists the paths.

  Example:
    >>> trained, frozen = partition(params, r"head|lora_[ab]")
    >>> fn = clipped_grad(loss_fn, rule)
    >>> clipped = fn(trained, lot, key, (), frozen=frozen)
  """
  named, treedef = jax.tree_util.tree_flatten_with_path(params)
  paths = [
    jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in named
  ]
  if callable(trainable):
    chosen = [
      bool(trainable(path, leaf)) for path, (_, leaf) in zip(paths, named)
    ]
  else:
    chosen = [bool(re.search(trainable, path)) for path in paths]
  if not any(chosen):
    raise ValueError(
      f"trainable: {trainable!r} matches none of the {len(paths)} parameters;"
      f" their paths are {', '.join(paths[:20])}"
      f"{', ...' if len(paths) > 20 else ''}"
    )
  leaves = [leaf for _, leaf in named]
  return tuple(
    jax.tree.unflatten(
      treedef,
      [leaf if taken == side else None for leaf, taken in zip(leaves, chosen)],
    )
    for side in (True, False)
  )


def merge(trained: PyTree, frozen: PyTree) -> PyTree:
  """Puts the two parts of `partition` together again.

  Args:
    trained: Trained part, with None for frozen leaves.
    frozen: Frozen part; None where everything is trained.

  Returns:
    The parameters.
  """
  if frozen is None:
    return trained
  return jax.tree.map(
    lambda a, b: b if a is None else a,
    trained,
    frozen,
    is_leaf=lambda leaf: leaf is None,
  )
