"""The numeric effect of secure aggregation, and nothing but that.

Real secure aggregation sums whole numbers modulo a power of two, so clients
round and the sum may wrap around. That is what happens here. There is no
cryptography: the simulator sees every update, and no security is claimed.
"""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key

PyTree = Any


@dataclasses.dataclass(frozen=True, kw_only=True)
class SecureSum:
  """A fixed-point sum modulo 2^modulus_bits.

  An entry x is cut to [-limit, limit] and sent as the whole number

    j = round((x + limit) / step),     step = 2 limit / (2^bits - 1);

  the server reads sum_k x_k as step * (sum_k j_k mod 2^b) - m limit. With m
  clients it cannot wrap around if b >= bits + ceil(log2 m).

  Attributes:
    limit: Largest magnitude of an entry of a weighted update.
    bits: Bits of an encoded entry, 1 to 24.
    modulus_bits: b, at most 32.
    stochastic: Whether rounding is random and without bias; otherwise to the
      nearest.
  """

  limit: float
  bits: int = 16
  modulus_bits: int = 32
  stochastic: bool = True

  def __post_init__(self):
    if not 0 < self.limit < math.inf:
      raise ValueError(
        f"limit: got {self.limit}; it must be finite and positive"
      )
    if not 1 <= self.bits <= 24:
      raise ValueError(f"bits: got {self.bits}; it must lie between 1 and 24")
    if not self.bits <= self.modulus_bits <= 32:
      raise ValueError(
        f"modulus_bits: got {self.modulus_bits}; it must lie between bits ="
        f" {self.bits} and 32"
      )

  @property
  def step(self) -> float:
    """Distance of two neighbouring levels."""
    return 2 * self.limit / (2**self.bits - 1)

  def largest_cohort(self) -> int:
    """Clients up to which the sum cannot wrap around."""
    return 2 ** (self.modulus_bits - self.bits)

  def encode(self, leaves: list[Array], key: Key[Array, ""]) -> list[Array]:
    """Whole numbers of one client's entries, uint32."""
    # Counted from the middle, and shifted as whole numbers: a float32 near
    # 2^24 has no fraction left that could be rounded at random.
    least, middle = -(2 ** (self.bits - 1)), 2 ** (self.bits - 1)
    encoded = []
    for leaf, k in zip(leaves, jax.random.split(key, len(leaves))):
      cut = jnp.clip(leaf, -self.limit, self.limit)
      # The level j lies at step (j - middle + 1 / 2).
      place = cut / self.step - 0.5
      if self.stochastic:
        lower = jnp.floor(place)
        up = jax.random.uniform(k, leaf.shape) < place - lower
        place = lower + up.astype(place.dtype)
      else:
        place = jnp.round(place)
      levels = jnp.clip(place.astype(jnp.int32), least, middle - 1)
      encoded.append((levels + middle).astype(jnp.uint32))
    return encoded

  def decode(self, total: PyTree, num_clients: Array) -> PyTree:
    """The sum of entries, given the sum of codes modulo 2^32."""
    # Centred as whole numbers first: a float32 does not hold 32 bits.
    middle = num_clients.astype(jnp.uint32) * jnp.uint32(2 ** (self.bits - 1))
    spare = 32 - self.modulus_bits

    def leaf(codes):
      centred = jax.lax.bitcast_convert_type(
        (codes - middle) << spare, jnp.int32
      )
      # In two words, since a float32 alone forgets the end of 32 bits.
      high, low = (centred >> spare) >> 12, (centred >> spare) & 0xFFF
      half = 0.5 * num_clients.astype(jnp.float32)
      levels = high.astype(jnp.float32) * 4096 + (
        low.astype(jnp.float32) + half
      )
      return jnp.float32(self.step) * levels

    return jax.tree.map(leaf, total)
