"""The decoder over a few new tokens, given keys and values of the past."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from trustjax.models import _language_model, _model

# Far below any score, and finite, as in the decoder's own attention.
_MASKED = -1e9

# For each layer: keys and values, both [heads, slots, head_dim].
Cache = tuple[tuple[Array, Array], ...]


def check_decoder(model: _language_model.LanguageModel) -> None:
  """Raises ValueError unless the model is a `transformer_decoder`."""
  if model.name != "decoder":
    raise ValueError(
      f"model: got {model.name!r}; a cache of keys and values is known for"
      " 'decoder' only"
    )


def empty_cache(fields: Mapping[str, Any], num_slots: int) -> Cache:
  """A cache of ONE sequence with nothing in it.

  Args:
    fields: Of the decoder.
    num_slots: Tokens that it will hold, padding included.

  Returns:
    Zeros.
  """
  heads = fields["num_heads"]
  shape = (heads, num_slots, fields["dim"] // heads)
  return tuple(
    (jnp.zeros(shape), jnp.zeros(shape)) for _ in range(fields["num_layers"])
  )


def extend(
  fields: Mapping[str, Any],
  params: _model.Params,
  tokens: Int[Array, " new"],
  start: Int[Array, ""] | int,
  padding: Int[Array, ""],
  cache: Cache,
) -> tuple[Float[Array, "new hidden"], Cache]:
  """Hidden states of new tokens, which see the cache and one another.

  The computation is the decoder's in evaluation, cut so that the past is not
  computed again. A sequence lies in slots; the first `padding` of them are
  empty and are seen by nobody, so that sequences of several lengths end in the
  same slot, and `start` is one number for all of a batch.

  Args:
    fields: Of the decoder.
    params: Its parameters.
    tokens: New tokens, for the slots start, start + 1, ...
    start: Slots that are filled already.
    padding: Empty slots at the beginning.
    cache: Keys and values of the slots before `start`.

  Returns:
    (hidden, cache with the new slots filled); hidden states of padding are
    finite and mean nothing.
  """
  num_slots = cache[0][0].shape[1]
  slots = start + jnp.arange(tokens.shape[0])
  order = jnp.arange(num_slots)[None, :]
  allowed = (order <= slots[:, None]) & (order >= padding)
  positions = jnp.maximum(slots - padding, 0)
  hidden = params["words"]["embedding"][tokens] + params["positions"][positions]
  filled = []
  for i, (keys, values) in enumerate(cache):
    layer = params[f"layer_{i}"]
    qkv = _linear(layer["qkv"], _norm(layer["attention_norm"], hidden, fields))
    queries, new_keys, new_values = _heads(qkv, fields["num_heads"])
    keys = jax.lax.dynamic_update_slice_in_dim(keys, new_keys, start, axis=1)
    values = jax.lax.dynamic_update_slice_in_dim(
      values, new_values, start, axis=1
    )
    filled.append((keys, values))
    mixed = _attend(queries, keys, values, allowed)
    hidden = hidden + _linear(layer["out"], mixed)
    widened = _linear(layer["ff_in"], _norm(layer["ff_norm"], hidden, fields))
    widened = jax.nn.gelu(widened, approximate=True)
    hidden = hidden + _linear(layer["ff_out"], widened)
  return _norm(params["norm"], hidden, fields), tuple(filled)


def _linear(params, inputs):
  return inputs @ params["kernel"] + params["bias"][None, :]


def _norm(params, inputs, fields):
  centred = inputs - inputs.mean(axis=-1, keepdims=True)
  variance = jnp.square(centred).mean(axis=-1, keepdims=True)
  scaled = centred * jax.lax.rsqrt(variance + fields["norm_epsilon"])
  return scaled * params["scale"][None, :] + params["bias"][None, :]


def _heads(qkv, num_heads):
  """Queries, keys and values, each [heads, new, head_dim]."""
  new, width = qkv.shape
  split = jnp.reshape(qkv, (new, 3, num_heads, width // (3 * num_heads)))
  return jnp.moveaxis(split, (1, 2), (0, 1))


def _attend(queries, keys, values, allowed):
  """Mixed values of every head, side by side: [new, dim]."""
  scores = jnp.einsum("hqd,hkd->hqk", queries, keys)
  scores = scores * (queries.shape[-1] ** -0.5)
  scores = jnp.where(allowed[None, :, :], scores, _MASKED)
  mixed = jnp.einsum("hqk,hkd->qhd", jax.nn.softmax(scores, axis=-1), values)
  return jnp.reshape(mixed, (mixed.shape[0], -1))
