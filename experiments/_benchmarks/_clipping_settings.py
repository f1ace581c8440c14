"""Models and methods of the clipping race."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments._benchmarks import _methods
from experiments._binary import _config_flags
from trustjax import models, privacy

Setting = _methods.Setting
Method = _methods.Method


def chosen_models(config: _config_flags.Config) -> dict[str, dict[str, Any]]:
  """Label to fields of the models that `config.only` leaves, in their order.

  Raises:
    ValueError: It names one that `config.models` lacks.
  """
  labels = list(config.models)
  unknown = sorted(set(config.only) - set(labels))
  if unknown:
    raise ValueError(
      f"config.only: got {unknown}; the models of config.models are {labels}"
    )
  return {
    label: config.models[label].to_dict()
    for label in labels
    if not config.only or label in config.only
  }


def make_setting(
  label: str,
  *,
  model: str,
  batch_size: int,
  length: int,
  vocab_size: int,
  num_intents: int,
  num_slots: int,
  intent_only: bool = False,
  compute_dtype: str = "float32",
  optimizer: str = "adam",
  only_shapes: bool = False,
  **fields: Any,
) -> Setting:
  """Builds a model, its loss and records for it.

  Args:
    label: Prefix of the results.
    model: A tagger's name, or "decoder" for a causal language model.
    batch_size: Records of a batch.
    length: Positions of a record, all of them used.
    vocab_size: Rows of the word table.
    num_intents: Intents.
    num_slots: Slot labels.
    intent_only: Classify records and leave the slots alone.
    compute_dtype: "float32", or "bfloat16" for mixed precision: parameters and
      optimiser stay float32, the loss computes on rounded copies.
    optimizer: "adam" or "sgd".
    only_shapes: Leave the parameters at their shapes, for those who compile
      and do not run.
    **fields: Further fields of the model.

  Returns:
    The setting, the same whenever it is built.

  Raises:
    ValueError: Unknown `compute_dtype` or `optimizer`, or an impossible field.
  """
  if model in models.language_model_names():
    setting = _language_setting(
      label, model, batch_size, length, vocab_size, only_shapes, fields
    )
    setting = dataclasses.replace(setting, optimizer=optimizer)
    return _in_precision(setting, compute_dtype)
  setting = _methods.make_setting(
    model,
    batch_size,
    vocab_size=vocab_size,
    length=length,
    num_intents=num_intents,
    num_slots=num_slots,
    only_shapes=only_shapes,
    **fields,
  )
  changes: dict[str, Any] = {"label": label, "optimizer": optimizer}
  if intent_only:
    tagger = models.make_model(
      model,
      vocab_size=vocab_size,
      num_intents=num_intents,
      num_slots=num_slots,
      max_length=length,
      **fields,
    )
    changes["loss_fn"] = _intent_loss(tagger)
  setting = dataclasses.replace(setting, **changes)
  return _in_precision(setting, compute_dtype)


def _in_precision(setting, compute_dtype):
  """The setting with a loss that computes on rounded parameters."""
  loss_fn = models.in_precision(setting.loss_fn, compute_dtype)
  return dataclasses.replace(setting, loss_fn=loss_fn)


def _intent_loss(tagger):
  def loss_fn(params, example, key):
    logits = tagger.apply(params, example, key).intent
    return -jax.nn.log_softmax(logits)[example["intent"]], None

  return loss_fn


def _language_setting(
  label, name, batch_size, length, vocab_size, only_shapes, fields
):
  model = models.make_language_model(
    name, vocab_size=vocab_size, max_length=length, **fields
  )
  words = _methods.draw_words(
    np.random.default_rng(0), batch_size, vocab_size=vocab_size, length=length
  )
  return Setting(
    name=model.name,
    label=label,
    batch_size=batch_size,
    examples={"tokens": words, "mask": np.ones(words.shape, bool)},
    params=_methods.make_params(model, only_shapes=only_shapes),
    loss_fn=models.losses.language_model_loss(model),
  )


def make_methods(
  setting: Setting,
  *,
  chunk_sizes: Sequence[int],
  engines: Sequence[str],
  drawn: Sequence[str],
  deferred: bool = False,
) -> list[Method]:
  """Builds the methods of TrustJAX for a setting.

  `bookkeeping` runs at the chunk size that `auto` would give it, so that the
  table shows what a user gets; every chunk size is raced beside it.

  Args:
    setting: Model and batch.
    chunk_sizes: Records at a time; those that do not divide are left out.
    engines: Engines to race.
    drawn: Names of the methods that are timed on drawn lots as well.
    deferred: Race deferred noise, too.

  Returns:
    The methods, non-private ones first.

  Raises:
    ValueError: Unknown engine, or deferred noise where it is not exact.
  """
  unknown = sorted(set(engines) - set(privacy.ENGINES))
  if unknown:
    raise ValueError(
      f"engines: got {unknown}; allowed are {list(privacy.ENGINES)}"
    )
  chunks = [c for c in chunk_sizes if setting.batch_size % c == 0]
  methods = [_methods.non_private(setting, chunk) for chunk in (None, *chunks)]
  methods.append(_methods.non_private_noise(setting))
  for engine in engines:
    takes_chunks = engine in ("vmap", "bookkeeping")
    for chunk in chunks if takes_chunks else (None,):
      name = engine if chunk is None else f"{engine}_chunk{chunk}"
      methods.append(_methods.dp_sgd(setting, engine, chunk, name))
    if engine == "bookkeeping":
      chosen = _chosen_chunk(setting)
      methods.append(_methods.dp_sgd(setting, engine, chosen, "bookkeeping"))
  if deferred:
    methods.append(_methods.deferred_noise(setting))
  return [
    method if method.name in drawn else dataclasses.replace(method, draw=None)
    for method in methods
  ]


def _chosen_chunk(setting):
  example = {name: leaf[0] for name, leaf in setting.examples.items()}
  explained = privacy.explain(setting.loss_fn, setting.params, example)
  return explained.choice(setting.batch_size).chunk_size


def check_same_size(setting: Setting, num_params: int, name: str) -> None:
  """Refuses a peer's model that is not the size of ours.

  Raises:
    ValueError: The numbers of parameters differ.
  """
  ours = sum(jnp.size(leaf) for leaf in jax.tree.leaves(setting.params))
  if num_params != ours:
    raise ValueError(
      f"{name}: its model of {setting.key} has {num_params} parameters, ours"
      f" {ours}; they must be equal for a fair race"
    )
