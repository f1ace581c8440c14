"""Continuing prompts: one compiled loop over a cache of keys and values."""

import dataclasses
import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Key

from trustjax.models import _kv_cache, _language_model, _model, _token_choice


@dataclasses.dataclass(frozen=True, kw_only=True)
class Continuations:
  """What a model wrote behind its prompts.

  Attributes:
    tokens: New tokens; behind `lengths` they mean nothing.
    lengths: New tokens of each text, the end of the text not counted.
  """

  tokens: Int[np.ndarray, "prompts samples new"]
  lengths: Int[np.ndarray, "prompts samples"]

  def texts(self) -> list[list[list[int]]]:
    """The new tokens of every prompt's samples, as lists."""
    return [
      [row[:length].tolist() for row, length in zip(rows, lengths)]
      for rows, lengths in zip(self.tokens, self.lengths)
    ]


def continue_prompts(
  model: _language_model.LanguageModel,
  params: _model.Params,
  prompts: Sequence[Sequence[int]],
  key: Key[Array, ""],
  *,
  max_new_tokens: int,
  sampling: _token_choice.Sampling,
  num_samples: int = 1,
  chunk_size: int = 256,
) -> Continuations:
  """Samples continuations of prompts.

  Token t of sample s of prompt p is drawn with fold_in(fold_in(fold_in(key,
  p), s), t) and depends on nothing else that is random: neither on the chunks
  nor on the number of other samples. Many libraries reset one seed for every
  prompt instead, which correlates the samples of all prompts.

  Args:
    model: A `transformer_decoder`.
    params: Its parameters.
    prompts: Tokens of each prompt, at least one each.
    key: Key of the whole set.
    max_new_tokens: Tokens to write; a text may end before.
    sampling: How a token is drawn.
    num_samples: Continuations of each prompt.
    chunk_size: Texts at a time; bounds memory, changes nothing else.

  Returns:
    The continuations.

  Raises:
    ValueError: The model has no cache, a number is below 1, there is no
      prompt, a token is unknown, or a prompt is empty or leaves too little of
      the model's context.

  Example:
    >>> sampling = Sampling(top_p=0.9)
    >>> continue_prompts(
    ...   model, params, [[5, 7]], key, max_new_tokens=4, sampling=sampling
    ... ).tokens.shape
    (1, 1, 4)

  References:
    Holtzman et al., The Curious Case of Neural Text Degeneration, ICLR 2020
    (top-p); Fan et al., Hierarchical Neural Story Generation, ACL 2018 (top-k).
  """
  _kv_cache.check_decoder(model)
  _model.check_sizes(
    max_new_tokens=max_new_tokens,
    num_samples=num_samples,
    chunk_size=chunk_size,
  )
  _check_prompts(prompts, max_new_tokens, model.fields)
  width = max(len(prompt) for prompt in prompts)
  tokens = np.zeros((len(prompts), width), np.int32)
  for row, prompt in zip(tokens, prompts):
    row[width - len(prompt) :] = prompt
  padding = np.array([width - len(prompt) for prompt in prompts], np.int32)
  num_texts = len(prompts) * num_samples
  chunk_size = min(chunk_size, num_texts)
  run = _program(model, sampling, max_new_tokens)
  written, lengths = [], []
  for start in range(0, num_texts, chunk_size):
    # The last chunk repeats its last text, so that one program serves all.
    text = np.minimum(np.arange(start, start + chunk_size), num_texts - 1)
    prompt, sample = np.divmod(text, num_samples)
    out = run(params, tokens[prompt], padding[prompt], key, prompt, sample)
    for found, part in zip((written, lengths), jax.device_get(out)):
      found.append(part)
  shape = (len(prompts), num_samples)
  return Continuations(
    tokens=np.concatenate(written)[:num_texts].reshape(*shape, max_new_tokens),
    lengths=np.concatenate(lengths)[:num_texts].reshape(shape),
  )


def _check_prompts(prompts, max_new_tokens, fields):
  if not len(prompts):
    raise ValueError("prompts: there are none")
  for i, prompt in enumerate(prompts):
    needed = len(prompt) + max_new_tokens
    if not len(prompt):
      raise ValueError(f"prompts[{i}]: is empty; it needs at least one token")
    if needed > fields["max_length"]:
      raise ValueError(
        f"prompts[{i}]: got {len(prompt)} tokens; with {max_new_tokens} new"
        f" ones they need {needed} positions, and the model has"
        f" {fields['max_length']} (max_length)"
      )
    if min(prompt) < 0 or max(prompt) >= fields["vocab_size"]:
      raise ValueError(
        f"prompts[{i}]: has a token outside of 0 to {fields['vocab_size'] - 1}"
      )


@functools.lru_cache(maxsize=32)
def _program(model, sampling, max_new_tokens):
  """(params, prompts, padding, key, prompt and sample ids) -> the new texts."""

  def run(params, tokens, padding, key, prompt, sample):
    size, width = tokens.shape
    keys = jax.vmap(
      lambda p, s: jax.random.fold_in(jax.random.fold_in(key, p), s)
    )(prompt, sample)
    # One batched cache, filled in one slot of every text at a time.
    cache = jax.tree.map(
      lambda leaf: jnp.zeros((size, *leaf.shape)),
      _kv_cache.empty_cache(model.fields, width + max_new_tokens - 1),
    )
    extend = jax.vmap(
      functools.partial(_kv_cache.extend, model.fields, params),
      in_axes=(0, None, 0, 0),
    )

    def draw(hidden, t):
      logits = model.logits(params, hidden[:, -1])
      uniform = jax.vmap(
        lambda key: jax.random.uniform(jax.random.fold_in(key, t))
      )(keys)
      return jax.vmap(
        lambda row, u: _token_choice.choose_token(row, u, sampling)
      )(logits, uniform).astype(jnp.int32)

    def ends(token, done):
      if sampling.end_of_text is None:
        return done
      return done | (token == sampling.end_of_text)

    def advance(carry):
      t, token, done, lengths, out, cache = carry
      hidden, cache = extend(token[:, None], width + t - 1, padding, cache)
      token = draw(hidden, t)
      done = ends(token, done)
      out = jax.lax.dynamic_update_slice_in_dim(out, token[:, None], t, axis=1)
      return t + 1, token, done, lengths + ~done, out, cache

    def unfinished(carry):
      t, _, done, _, _, _ = carry
      return (t < max_new_tokens) & ~jnp.all(done)

    hidden, cache = extend(tokens, 0, padding, cache)
    token = draw(hidden, 0)
    done = ends(token, jnp.zeros(size, bool))
    out = jnp.zeros((size, max_new_tokens), jnp.int32).at[:, 0].set(token)
    first = (jnp.int32(1), token, done, (~done).astype(jnp.int32), out, cache)
    _, _, _, lengths, out, _ = jax.lax.while_loop(unfinished, advance, first)
    return out, lengths

  return jax.jit(run)
