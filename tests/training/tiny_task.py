"""A linear regression small enough to train in a test, and its plans."""

import jax
import jax.numpy as jnp
import numpy as np

from trustjax import privacy

NUM_RECORDS, DIM, NUM_STEPS = 64, 3, 8


def loss_fn(params, example, key):
  """Squared error, with a key that must not matter."""
  del key
  error = example["x"] @ params["w"] + params["b"] - example["y"]
  return 0.5 * jnp.square(error), {"error": error}


def params():
  return {"w": jnp.array([0.5, -1.0, 2.0]), "b": jnp.float32(0.1)}


def examples():
  rng = np.random.default_rng(0)
  return {
    "x": rng.normal(size=(NUM_RECORDS, DIM)).astype(np.float32),
    "y": rng.normal(size=NUM_RECORDS).astype(np.float32),
  }


def plan(**changes):
  fields = dict(
    num_records=NUM_RECORDS,
    expected_batch_size=16,
    rule=privacy.ThresholdClip(clip_norm=0.5),
    num_steps=NUM_STEPS,
    noise_multiplier=0.7,
  )
  return privacy.DpSgdPlan.make(**(fields | changes))


def trees_equal(one, other):
  """Whether two pytrees hold the same bits."""
  if jax.tree.structure(one) != jax.tree.structure(other):
    return False
  pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
  return all(np.array_equal(a, b) for a, b in pairs)
