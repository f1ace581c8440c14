"""Draws of devices: without replacement, Poisson, with replacement.

Every device has a uniform of its own, addressed by its id, so that a device
added to the registry never changes the draw of another.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

_LOG_STEP = 0.02


def id_bits(key: Key[Array, ""], num_clients: int) -> Array:
  """Random 32-bit words, one per device; word k depends on (key, k) alone.

  Args:
    key: Typed Threefry key, JAX's default.
    num_clients: Devices.

  Returns:
    uint32 [clients].

  Raises:
    ValueError: A key of another generator, whose words depend on the count.
  """
  check_key(key)
  with jax.threefry_partitionable(True):
    return _bits(key, num_clients)


def check_key(key: Key[Array, ""]) -> None:
  """Raises ValueError unless words of the key are addressed by their place."""
  if jax.random.key_impl(key) != "threefry2x32":
    raise ValueError(
      f"key: got one of {jax.random.key_impl(key)}; selection needs a Threefry"
      " key (jax.random.key), whose draws are addressed by the device's id"
    )


@functools.partial(jax.jit, static_argnums=1)
def _bits(key, num_clients):
  return jax.random.bits(key, (num_clients,), jnp.uint32)


def _exponentials(bits):
  """-log(1 - u), accurate for small u: those are the ones that win a race."""
  uniform = (bits.astype(jnp.float32) + 0.5) * jnp.float32(2**-32)
  return -jnp.log1p(-jnp.minimum(uniform, jnp.float32(1 - 2**-24)))


@functools.partial(jax.jit, static_argnames="size")
def draw_without_replacement(
  bits: Array, log_scores: Float[Array, " clients"], size: int
) -> tuple[Int[Array, " size"], Bool[Array, " size"]]:
  """Gumbel-top-k: as if drawn one by one with probability by score.

  log f_k + G_k with Gumbel noise G_k = -log E_k, E_k exponential; the `size`
  largest win.

  Args:
    bits: uint32 [clients], from `id_bits`.
    log_scores: log f_k, -inf for those who cannot be drawn.
    size: Devices to draw.

  Returns:
    Ids and validity, [size]; the valid ones come first.

  References:
    Efraimidis and Spirakis, Information Processing Letters 2006; Kool et al.,
    Stochastic Beams and Where to Find Them, ICML 2019.
  """
  noisy = log_scores - jnp.log(_exponentials(bits))
  values, ids = jax.lax.top_k(noisy, size)
  return ids.astype(jnp.int32), values > -jnp.inf


def draw_top(
  bits: Array, log_scores: Float[Array, " clients"], size: int
) -> tuple[np.ndarray, np.ndarray]:
  """The `size` largest scores; the last places go to a random one of equals.

  On the host: a second search among a million scores, nearly all of them equal,
  takes XLA's partial sort a second.

  Args:
    bits: uint32 [clients], from `id_bits`.
    log_scores: log f_k, -inf for those who cannot be drawn.
    size: Devices to draw.

  Returns:
    Ids and validity, [size]; those of larger scores first.
  """
  last = float(jax.lax.top_k(log_scores, size)[0][-1])
  scores = np.asarray(log_scores)
  chosen = np.flatnonzero(scores > last)
  if last > -math.inf:
    equals = np.flatnonzero(scores == last)
    lots = np.asarray(bits)[equals]
    winners = np.argsort(lots, kind="stable")[: size - chosen.size]
    chosen = np.concatenate([chosen, equals[winners]])
  ids = np.zeros(size, np.int32)
  ids[: chosen.size] = chosen
  return ids, np.arange(size) < chosen.size


def poisson_rates(
  scores: np.ndarray, size: float, *, cap: float = 1.0
) -> tuple[np.ndarray, float]:
  """Rates q_k = min(cap, lambda f_k) whose sum is the expected size.

  Water-filling: devices at the cap are fixed, and the rest is scaled again.

  Args:
    scores: f_k >= 0, [clients].
    size: Expected cohort, at most cap times the devices of positive score.
    cap: Largest rate, in (0, 1].

  Returns:
    (q, lambda), float64 [clients] and the factor of the unsaturated devices.

  Raises:
    ValueError: The size cannot be reached under the cap.
  """
  scores = np.asarray(scores, np.float64)
  if not 0 < cap <= 1:
    raise ValueError(f"cap: got {cap}; it must lie in (0, 1]")
  positive = np.sum(scores > 0)
  if not 0 < size <= cap * positive * (1 + 1e-12):
    raise ValueError(
      f"size: got {size}; with a cap of {cap} and {positive} devices to choose"
      f" from it must be positive and at most {cap * positive}"
    )
  # With the scores in falling order the j largest are saturated, where j is
  # the first number at which the next one is not. Each takes the cap, so there
  # are at most size / cap of them, and only so many need be sorted.
  most = min(scores.size, math.floor(size / cap) + 1)
  order = np.argpartition(-scores, most - 1)
  falling = -np.sort(-scores[order[:most]])
  rest = scores[order[most:]].sum()
  tails = rest + np.cumsum(falling[::-1])[::-1]
  with np.errstate(divide="ignore", invalid="ignore"):
    factors = (size - cap * np.arange(most)) / tails
    fits = factors * falling <= cap * (1 + 1e-12)
  fits &= tails > 0
  if not np.any(fits):
    return np.where(scores > 0, cap, 0.0), math.inf
  factor = float(factors[np.argmax(fits)])
  return np.minimum(cap, factor * scores), factor


def draw_poisson(bits: np.ndarray, rates: np.ndarray) -> np.ndarray:
  """Ids of independent coin flips.

  Compared as whole numbers, rounded down, so that no device's true rate
  exceeds the stated one.

  Args:
    bits: uint32 [clients], from `id_bits`.
    rates: q_k in [0, 1], float64 [clients].

  Returns:
    int32 ids, rising.
  """
  thresholds = np.floor(rates * 2.0**32).astype(np.uint64)
  return np.flatnonzero(bits.astype(np.uint64) < thresholds).astype(np.int32)


def draw_with_replacement(
  key: Key[Array, ""], scores: np.ndarray, size: int
) -> tuple[np.ndarray, np.ndarray]:
  """`size` independent draws with probability by score.

  Args:
    key: Typed key.
    scores: f_k >= 0, float64 [clients].
    size: Draws.

  Returns:
    (ids, counts): the distinct devices drawn, rising, and how often each.
  """
  ends = np.cumsum(scores)
  words = np.asarray(jax.random.bits(key, (2, size), jnp.uint32), np.float64)
  # 53 bits: a device's share of a million may be smaller than 2^-32.
  uniforms = (words[0] + (words[1] + 0.5) / 2.0**32) / 2.0**32
  drawn = np.searchsorted(ends, uniforms * ends[-1], side="right")
  # Rounding may carry the product onto the end itself.
  drawn = np.minimum(drawn, np.flatnonzero(scores)[-1])
  ids, counts = np.unique(drawn, return_counts=True)
  return ids.astype(np.int32), counts


def successive_inclusion(scores: np.ndarray, size: int) -> np.ndarray:
  """Inclusion probabilities of a draw without replacement, by quadrature.

  With arrival times E_k / f_k of an exponential race,

    pi_k = integral f_k exp(-f_k t) P(fewer than `size` others before t) dt,

  where the number of others is a sum of independent coin flips. They differ
  from size x f / sum(f). The cost is quadratic in the number of devices.

  Args:
    scores: f_k > 0, [clients]; at most some hundreds.
    size: Devices drawn.

  Returns:
    float64 [clients], accurate to about 1e-9.

  Raises:
    ValueError: A score is not positive.

  Example:
    >>> successive_inclusion(np.array([1.0, 2.0, 3.0, 4.0]), 2).round(4)
    array([0.2345, 0.4413, 0.6083, 0.7159])
  """
  scores = np.asarray(scores, np.float64)
  if not np.all(np.isfinite(scores) & (scores > 0)):
    raise ValueError("scores: each must be finite and positive")
  if size >= scores.size:
    return np.ones_like(scores)
  # In log t the integrand is smooth and dies out on both sides, where the
  # trapezoidal rule converges fastest.
  low = math.log(1e-13 / scores.max())
  high = math.log(40.0 / scores.min())
  logs = np.arange(low, high, _LOG_STEP)
  times = np.exp(logs)
  before = -np.expm1(-scores[:, None] * times)
  result = np.empty_like(scores)
  for k in range(scores.size):
    counts = np.zeros((size, times.size))
    counts[0] = 1.0
    for j in range(scores.size):
      if j != k:
        moved = counts[:-1] * before[j]
        counts *= 1 - before[j]
        counts[1:] += moved
    density = scores[k] * times * np.exp(-scores[k] * times)
    result[k] = np.sum(density * counts.sum(axis=0)) * _LOG_STEP
  return np.minimum(result, 1.0)
