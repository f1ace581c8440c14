"""A small federated regression, shared by the tests of rounds."""

import jax
import jax.numpy as jnp
import numpy as np

from trustjax import federated

KEY = jax.random.key(0)
NUM_CLIENTS, DIM = 7, 3
# Unequal on purpose: other numbers of steps, and a last batch that is short.
# Any five of them need 8 slots for steps, so that rounds share a program.
SIZES = (9, 1, 10, 7, 2, 12, 11)


def loss_fn(params, example, key):
  """Squared error with dropout, so that a record's key matters."""
  keep = jax.random.bernoulli(key, 0.8, example["x"].shape)
  hidden = jnp.where(keep, example["x"], 0.0) @ params["w"] + params["b"]
  return 0.5 * jnp.square(hidden - example["y"]), {}


def params():
  return {"w": jnp.array([0.5, -1.0, 2.0]), "b": jnp.float32(0.1)}


def examples(count):
  rng = np.random.default_rng(0)
  return {
    "x": rng.normal(size=(count, DIM)).astype(np.float32),
    "y": rng.normal(size=count).astype(np.float32),
  }


def store(sizes=SIZES):
  offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
  return federated.ClientStore(
    examples=examples(int(offsets[-1])),
    indices=np.arange(offsets[-1]),
    offsets=offsets,
  )


def cohort(round=0, *, clients=None, key=KEY, **options):
  """A fetched cohort: 5 of the 7 clients by lot, or the given ones."""
  here = clients or store()
  options = dict(size=5) | options
  drawn = federated.select_clients(key, round, here.activity, **options)
  return here.fetch(drawn, batch_size=4, num_epochs=2, seed=0, round=round)


def scalar_task(points, counts):
  """Quadratics (w - c_k)^2 / 2 with n_k copies of c_k on client k."""
  offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
  values = np.repeat(np.asarray(points, np.float32), counts)
  return federated.ClientStore(
    examples={"c": values}, indices=np.arange(values.size), offsets=offsets
  )


def scalar_loss(params, example, key):
  del key
  return 0.5 * jnp.square(params["w"] - example["c"]), {}


def flat(state):
  """All numbers of a state in one vector."""
  return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(state)])
