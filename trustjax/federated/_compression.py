"""Compressed updates: their numeric effect, and what they weigh.

A compression is applied to one client's update on the client; the server sums
what comes out. What is cut off is lost, unless clients keep it
(`with_error_feedback`).
"""

import dataclasses
import math
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key

PyTree = Any
_WORD = 32


class Payload(NamedTuple):
  """What an update weighs on the wire.

  Attributes:
    values: Numbers sent.
    bits: Bits of each.
    index_bits: Bits that say where each belongs; 0 when all are sent.
    overhead_bytes: Scales and the like.
  """

  values: int
  bits: int = _WORD
  index_bits: int = 0
  overhead_bytes: int = 0

  @property
  def num_bytes(self) -> int:
    """Bytes, rounded up."""
    return -(-self.values * (self.bits + self.index_bits) // 8) + (
      self.overhead_bytes
    )


@runtime_checkable
class Compression(Protocol):
  """A lossy step of the upload."""

  def __call__(self, update: PyTree, key: Key[Array, ""]) -> PyTree:
    """What the server sees of an update."""
    ...

  def payload(self, payload: Payload, num_leaves: int) -> Payload:
    """What is sent, given what would have been."""
    ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class TopK:
  """Sends the largest entries of the whole update, by magnitude.

  Attributes:
    share: Share of the entries that is sent, in (0, 1]; at least one is.

  References:
    Aji and Heafield, Sparse Communication for Distributed Gradient Descent,
    EMNLP 2017 (arXiv 1704.05021).
  """

  share: float

  def __post_init__(self):
    if not 0 < self.share <= 1:
      raise ValueError(f"share: got {self.share}; it must lie in (0, 1]")

  def count(self, size: int) -> int:
    """Entries sent of so many."""
    return max(1, math.ceil(self.share * size))

  def __call__(self, update: PyTree, key: Key[Array, ""]) -> PyTree:
    del key
    return self.cut(update)

  def cut(self, update: PyTree) -> PyTree:
    """The update without its small entries; needs no randomness."""
    leaves, treedef = jax.tree.flatten(update)
    flat = jnp.concatenate([jnp.ravel(leaf) for leaf in leaves])
    _, kept = jax.lax.top_k(jnp.abs(flat), self.count(flat.size))
    sparse = jnp.zeros_like(flat).at[kept].set(flat[kept])
    parts, start = [], 0
    for leaf in leaves:
      part = sparse[start : start + leaf.size]
      parts.append(jnp.reshape(part, leaf.shape).astype(leaf.dtype))
      start += leaf.size
    return jax.tree.unflatten(treedef, parts)

  def payload(self, payload: Payload, num_leaves: int) -> Payload:
    del num_leaves
    return payload._replace(values=self.count(payload.values), index_bits=_WORD)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Quantize:
  """Rounds each leaf to 2^bits levels between -max and max, without bias.

  An entry x goes to one of its two neighbouring levels, with the probability
  that makes the mean x.

  Attributes:
    bits: Bits of an entry, 1 to 16.

  References:
    Alistarh et al., QSGD, NeurIPS 2017 (arXiv 1610.02132), with levels between
    the extremes of each leaf instead of its norm.
  """

  bits: int = 8

  def __post_init__(self):
    if not 1 <= self.bits <= 16:
      raise ValueError(f"bits: got {self.bits}; it must lie between 1 and 16")

  def __call__(self, update: PyTree, key: Key[Array, ""]) -> PyTree:
    leaves, treedef = jax.tree.flatten(update)
    keys = jax.random.split(key, len(leaves))
    return jax.tree.unflatten(
      treedef, [self._leaf(leaf, k) for leaf, k in zip(leaves, keys)]
    )

  def _leaf(self, leaf, key):
    largest = jnp.max(jnp.abs(leaf), initial=0.0)
    step = 2 * largest / (2**self.bits - 1)
    safe = jnp.where(step > 0, step, 1.0)
    place = (leaf + largest) / safe
    lower = jnp.floor(place)
    up = jax.random.uniform(key, leaf.shape) < place - lower
    rounded = (lower + up.astype(leaf.dtype)) * step - largest
    return jnp.where(step > 0, rounded, leaf).astype(leaf.dtype)

  def payload(self, payload: Payload, num_leaves: int) -> Payload:
    return payload._replace(
      bits=self.bits, overhead_bytes=payload.overhead_bytes + 4 * num_leaves
    )
