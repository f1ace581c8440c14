"""Smooth models of embeddings that are small enough to differentiate slowly."""

import jax.numpy as jnp
import numpy as np


def small_net(seed, num_classes=3, dim=4, hidden=6):
  """A smooth model that mixes tokens and reads no padding."""
  rng = np.random.default_rng(seed)
  first = jnp.asarray(rng.normal(size=(dim, hidden)), jnp.float32)
  second = jnp.asarray(rng.normal(size=(hidden, num_classes)), jnp.float32)

  def fn(embeds, mask):
    kept = jnp.where(mask[:, :, None], embeds, 0.0)
    each = jnp.tanh(kept @ first)
    mixed = jnp.sum(jnp.where(mask[:, :, None], each, 0.0), axis=1)
    return jnp.tanh(mixed) @ second + jnp.sin(mixed) @ second

  return fn


TASK, PSM = small_net(0), small_net(1, num_classes=2)


def batch(seed=0, size=3, time=5, dim=4):
  rng = np.random.default_rng(seed)
  embeds = rng.normal(size=(size, time, dim)).astype(np.float32)
  lengths = rng.integers(2, time + 1, size)
  return embeds, np.arange(time)[None] < lengths[:, None]
