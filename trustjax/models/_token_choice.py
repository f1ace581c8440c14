"""Choosing the next token: temperature, top-k, top-p, without a sort."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

# Tokens whose probabilities are summed before a draw looks inside of them.
_BLOCK = 128


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sampling:
  """How the next token is drawn.

  The logits are divided by the temperature, cut to the k best, and of these to
  the smallest set whose share reaches p, in this order. Tokens as likely as
  the last one that is kept are kept, too, so that a tie is not broken by a
  token's number.

  Attributes:
    temperature: 0 takes the most likely token.
    top_k: Best tokens to keep; None keeps all.
    top_p: Share of the probability to keep; 1 keeps all.
    end_of_text: Token that ends a text; None goes on to the last token.

  Raises:
    ValueError: A field is impossible.
  """

  temperature: float = 1.0
  top_k: int | None = None
  top_p: float = 1.0
  end_of_text: int | None = None

  def __post_init__(self):
    if not 0 <= self.temperature < float("inf"):
      raise ValueError(
        f"temperature: got {self.temperature}; it must be finite and >= 0"
      )
    if self.top_k is not None and self.top_k < 1:
      raise ValueError(f"top_k: got {self.top_k}; it must be at least 1")
    if not 0 < self.top_p <= 1:
      raise ValueError(f"top_p: got {self.top_p}; it must lie in (0, 1]")
    if self.end_of_text is not None and self.end_of_text < 0:
      raise ValueError(
        f"end_of_text: got {self.end_of_text}; it must be a token"
      )


def kept_probabilities(
  logits: Float[Array, " vocab"], sampling: Sampling
) -> Float[Array, " vocab"]:
  """Probabilities that the next token is drawn with, not yet summing to 1.

  Args:
    logits: Scores of the next token.
    sampling: Temperature, top-k and top-p; the temperature is above 0.

  Returns:
    Probability of each token at the temperature, 0 where it is cut.
  """
  weights = jax.nn.softmax(logits / sampling.temperature)
  if sampling.top_k is not None and sampling.top_k < logits.shape[0]:
    least = _threshold(weights, jnp.ones_like(weights), sampling.top_k)
    weights = jnp.where(weights >= least, weights, 0.0)
  if sampling.top_p < 1:
    least = _threshold(weights, weights, sampling.top_p * weights.sum())
    weights = jnp.where(weights >= least, weights, 0.0)
  return weights


def choose_token(
  logits: Float[Array, " vocab"],
  uniform: Float[Array, ""],
  sampling: Sampling,
) -> Int[Array, ""]:
  """The next token.

  Args:
    logits: Its scores.
    uniform: A uniform number in [0, 1): all the randomness of the draw.
    sampling: How it is drawn.

  Returns:
    The token.
  """
  likeliest = jnp.argmax(logits)
  if sampling.temperature == 0:
    return likeliest
  weights = kept_probabilities(logits, sampling)
  token = _invert(weights, uniform)
  # Rounding may leave the draw on a token that is cut.
  return jnp.where(weights[token] > 0, token, likeliest)


def _threshold(values, weights, target):
  """The largest value such that the weight at or above it is >= target.

  Positive floats are ordered like their bits, so bisection over the bits finds
  the exact value in as many passes as there are bits between the bounds, where
  a sort needs the order of everything.
  """

  def reached(bits):
    least = jax.lax.bitcast_convert_type(bits, jnp.float32)
    return jnp.sum(jnp.where(values >= least, weights, 0.0)) >= target

  def halve(bounds):
    low, high = bounds
    middle = low + (high - low + 1) // 2
    enough = reached(middle)
    return jnp.where(enough, middle, low), jnp.where(enough, high, middle - 1)

  largest = jax.lax.bitcast_convert_type(values.max(), jnp.int32)
  low, _ = jax.lax.while_loop(
    lambda bounds: bounds[0] < bounds[1], halve, (jnp.int32(0), largest)
  )
  return jax.lax.bitcast_convert_type(low, jnp.float32)


def _invert(weights, uniform):
  """Where the running sum of the weights passes a share of their total.

  A running sum over a vocabulary is slow and loses digits; here it runs over
  blocks first, and then within one of them.
  """
  size = weights.shape[0]
  padded = jnp.pad(weights, (0, -size % _BLOCK))
  blocks = jnp.reshape(padded, (-1, _BLOCK))
  ends = jnp.cumsum(blocks.sum(axis=1))
  goal = uniform * ends[-1]
  block = jnp.minimum(jnp.sum(ends <= goal), ends.shape[0] - 1)
  before = jnp.where(block > 0, ends[block - 1], 0.0)
  within = jnp.cumsum(blocks[block])
  offset = jnp.minimum(jnp.sum(within <= goal - before), _BLOCK - 1)
  return jnp.minimum(block * _BLOCK + offset, size - 1)
