"""Perplexity of a language model on a stream of tokens, with its stride."""

import dataclasses
import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from trustjax.models import _language_model, _model, _precision

# Windows at a time, unless a large vocabulary makes their logits large.
_MOST_WINDOWS, _MOST_LOGITS = 64, 1 << 26


@dataclasses.dataclass(frozen=True, kw_only=True)
class Perplexity:
  """How well a model predicts held-out tokens.

  Attributes:
    value: exp of the mean negative log-likelihood of a token, in nats.
    num_tokens: Tokens that were predicted: all but the first.
    nll: Sum over the tokens that each window predicts; windows are what a
      bootstrap of the value draws.
    counts: Tokens that each window predicts.
    length: Tokens of a window.
    stride: Tokens by which windows move on.
  """

  value: float
  num_tokens: int
  nll: Float[np.ndarray, " windows"]
  counts: Int[np.ndarray, " windows"]
  length: int
  stride: int


def perplexity(
  model: _language_model.LanguageModel,
  params: _model.Params,
  tokens: Sequence[int] | Int[np.ndarray, " tokens"],
  *,
  length: int,
  stride: int | None = None,
  chunk_size: int | None = None,
) -> Perplexity:
  """Perplexity of one stream of tokens in overlapping windows.

    exp(- sum_t log p(x_t | x_{max(0, start)} ... x_{t-1}) / number of t)

  Windows of `length` tokens move on by `stride`; a window predicts those of
  its tokens that no earlier one did, so that every token but the first counts
  once, with at least length - stride tokens before it wherever the stream has
  them. A smaller stride gives more context and a lower perplexity, so a value
  says nothing without its length, its stride and its tokenisation.

  Args:
    model: The model.
    params: Its parameters.
    tokens: The stream.
    length: Tokens of a window, at most the model's positions.
    stride: At most length - 1; None is half of the length.
    chunk_size: Windows at a time; None takes what keeps their logits small.

  Returns:
    The perplexity.

  Raises:
    ValueError: The stream has fewer than 2 tokens, or the length or the stride
      is impossible.
  """
  tokens = np.asarray(tokens, np.int32)
  stride = length // 2 if stride is None else stride
  if tokens.size < 2:
    raise ValueError(f"tokens: got {tokens.size}; at least 2 are needed")
  if length < 2:
    raise ValueError(f"length: got {length}; it must be at least 2")
  if not 1 <= stride < length:
    raise ValueError(
      f"stride: got {stride}; it must lie between 1 and length - 1 ="
      f" {length - 1}"
    )
  if chunk_size is None:
    each = length * model.word_table(params).shape[0]
    chunk_size = max(1, min(_MOST_WINDOWS, _MOST_LOGITS // each))
  _model.check_sizes(chunk_size=chunk_size)
  starts, first_new = [0], [1]
  while starts[-1] + length < tokens.size:
    first_new.append(starts[-1] + length)
    starts.append(starts[-1] + stride)
  at = np.array(starts)[:, None] + np.arange(length)
  mask = at < tokens.size
  # Position t of a window is predicted from what stands before it.
  predicted = mask & (at >= np.array(first_new)[:, None])
  windows = tokens[np.minimum(at, tokens.size - 1)] * mask
  run, nll = _program(model), []
  for start in range(0, len(starts), chunk_size):
    rows = np.minimum(np.arange(start, start + chunk_size), len(starts) - 1)
    found = run(params, windows[rows], mask[rows], predicted[rows])
    nll.append(np.asarray(found, np.float64))
  sums = np.concatenate(nll)[: len(starts)]
  counts = predicted.sum(axis=1)
  return Perplexity(
    value=float(np.exp(sums.sum() / counts.sum())),
    num_tokens=int(counts.sum()),
    nll=sums,
    counts=counts,
    length=length,
    stride=stride,
  )


@functools.lru_cache(maxsize=8)
def _program(model):
  """(params, windows, mask, predicted) -> summed loss of each window."""

  def one(params, tokens, mask, predicted):
    logits = model.apply(params, {"tokens": tokens, "mask": mask})
    log_probs = jax.nn.log_softmax(_precision.at_least_float32(logits[:-1]))
    chosen = jnp.take_along_axis(log_probs, tokens[1:, None], axis=1)[:, 0]
    return -jnp.sum(jnp.where(predicted[1:], chosen, 0.0))

  return jax.jit(jax.vmap(one, in_axes=(None, 0, 0, 0)))
