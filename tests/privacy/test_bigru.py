"""The BiGRU tagger under every engine: a fused gate kernel in a scan."""

import chex
import jax
import jax.numpy as jnp
import jax_privacy
import numpy as np
import pytest

from tests.compilation import hurried_compilation  # noqa: F401
from trustjax import models, privacy

TIME, UNITS, BOUND = 4, 3, 0.4
RULE = privacy.ThresholdClip(clip_norm=BOUND)
MODEL = models.make_model(
  "bigru",
  vocab_size=9,
  num_intents=3,
  num_slots=4,
  max_length=TIME,
  dim=3,
  hidden_dim=2,
)
LOSS = models.losses.joint_loss(MODEL)


@pytest.fixture(scope="module")
def params():
  return jax.jit(MODEL.init)(jax.random.key(0))


@pytest.fixture(scope="module")
def lot():
  rng = np.random.default_rng(0)
  lengths = np.array([2, 3, 4])
  mask = np.arange(TIME) < lengths[:, None]
  return privacy.Lot(
    examples={
      # Few words, so that they repeat within a record.
      "tokens": jnp.asarray(rng.integers(0, 4, mask.shape), jnp.int32),
      "mask": jnp.asarray(mask),
      "intent": jnp.asarray(rng.integers(0, 3, UNITS), jnp.int32),
      "slots": jnp.asarray(rng.integers(0, 4, mask.shape), jnp.int32),
    },
    valid=jnp.ones(UNITS, bool),
    ids=jnp.arange(UNITS, dtype=jnp.int32),
  )


def clipped(params, lot, engine, **options):
  fn = privacy.clipped_grad(LOSS, RULE, engine=engine, **options)
  fn = fn if engine == "loop" else jax.jit(fn)
  return fn(params, lot, jax.random.key(1), ())


@pytest.fixture(scope="module")
def by_loop(params, lot):
  """Every record's gradient by itself, clipped on the host: the oracle."""
  return clipped(params, lot, "loop")


@pytest.mark.parametrize(
  "engine",
  ["vmap", "bookkeeping", pytest.param("scan", marks=pytest.mark.slow)],
)
def test_equals_the_loop(params, lot, by_loop, engine):
  got = clipped(params, lot, engine)
  chex.assert_trees_all_close(got.sum, by_loop.sum, rtol=1e-5, atol=1e-6)
  np.testing.assert_allclose(got.norms, by_loop.norms, rtol=1e-5)
  np.testing.assert_allclose(got.losses, by_loop.losses, rtol=1e-5)
  assert np.all(got.norms > BOUND)  # All of them are clipped.


def test_equals_jax_privacy(params, lot, by_loop):
  with jax.numpy_rank_promotion("allow"):
    peer = jax.jit(
      jax_privacy.clipped_grad(
        lambda p, batch: LOSS(
          p, jax.tree.map(lambda leaf: leaf[0], batch), None
        )[0],
        l2_clip_norm=BOUND,
        batch_argnums=1,
      )
    )
    theirs = peer(params, lot.examples)
  chex.assert_trees_all_close(theirs, by_loop.sum, rtol=2e-5, atol=1e-6)


def test_explain_follows_the_gates_into_the_scan(params, lot):
  example = jax.tree.map(lambda leaf: leaf[0], lot.examples)
  leaves = {
    leaf.path: leaf for leaf in privacy.explain(LOSS, params, example).leaves
  }
  assert leaves["words/embedding"].route == "rows"
  for kernel in ("gru_0/input", "gru_0/recurrent"):
    assert leaves[kernel].route in ("gram", "multiplied")
  assert leaves["gru_0/bias"].route == "direct"
  # One use in each direction, and no gradient formed for every record.
  assert leaves["gru_0/recurrent"].uses == 2
  assert not [leaf for leaf in leaves.values() if leaf.route == "fallback"]
