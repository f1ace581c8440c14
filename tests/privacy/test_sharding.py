"""One lot over several devices: the same sums, and noise drawn once."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.compilation import hurried_compilation  # noqa: F401
from trustjax import privacy, training

DIM, SLOTS = 3, 8


def loss_fn(params, example, key):
  """Dropout, so that a record's key matters."""
  keep = jax.random.bernoulli(key, 0.7, example.shape)
  hidden = jnp.where(keep, example, 0.0) @ params["w"]
  return jnp.sum(jnp.sin(hidden + params["b"])), {"first": hidden[0]}


def params():
  return {
    "w": jax.random.normal(jax.random.key(0), (DIM, DIM)),
    "b": jnp.ones(DIM),
  }


def lot(groups=False):
  rng = np.random.default_rng(0)
  examples = jnp.asarray(rng.normal(size=(SLOTS, DIM)), jnp.float32)
  examples = examples.at[3].set(jnp.nan)
  whole = privacy.Lot(
    examples=examples,
    valid=jnp.arange(SLOTS) < SLOTS - 1,
    ids=jnp.asarray(rng.permutation(50)[:SLOTS], jnp.int32),
  )
  if not groups:
    return whole
  return jax.tree.map(lambda x: jnp.reshape(x, (4, 2, *x.shape[1:])), whole)


def mesh(count):
  return jax.make_mesh((count,), ("data",), devices=jax.devices()[:count])


@pytest.mark.parametrize(
  ("engine", "group", "counts"),
  [
    *((e, g, (2,)) for e in ("scan", "vmap", "bookkeeping") for g in (1, 2)),
    ("auto", 1, (1, 2)),
    # It is one of the others, and a mesh of one device splits nothing.
    pytest.param("auto", 2, (1, 2), marks=pytest.mark.slow),
    *(
      pytest.param(engine, group, (1,), marks=pytest.mark.slow)
      for engine in ("scan", "vmap", "bookkeeping")
      for group in (1, 2)
    ),
  ],
)
def test_devices_that_share_a_lot_give_what_one_gives(engine, group, counts):
  results = []
  for devices in (None, *map(mesh, counts)):
    fn = privacy.clipped_grad(
      loss_fn,
      privacy.ThresholdClip(clip_norm=0.5),
      clip_group_size=group,
      engine=engine,
      mesh=devices,
    )
    results.append(jax.jit(fn)(params(), lot(group > 1), jax.random.key(1), ()))
  for other in results[1:]:
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
      results[0],
      other,
    )
  assert int(results[0].num_nonfinite) == 1


def test_a_private_step_draws_its_noise_once():
  """With two devices the parameters land where one device puts them."""
  plan = privacy.DpSgdPlan.make(
    num_records=100,
    expected_batch_size=8,
    num_steps=3,
    rule=privacy.ThresholdClip(),
    noise_multiplier=1.0,
  )
  ends = []
  for devices in (None, mesh(2)):
    init, step = training.make_private_step(
      loss_fn, optax.sgd(0.1), plan, mesh=devices
    )
    state, _ = step(init(params()), lot(), jax.random.key(2))
    ends.append(state.params)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), *ends
  )


def test_a_lot_that_cannot_be_split():
  odd = jax.tree.map(lambda x: x[:7], lot())
  fn = privacy.clipped_grad(loss_fn, privacy.ThresholdClip(), mesh=mesh(2))
  with pytest.raises(ValueError, match="mesh: got 2 devices, which do not"):
    fn(params(), odd, jax.random.key(0), ())


def test_a_host_engine_on_a_mesh():
  fn = privacy.clipped_grad(
    loss_fn, privacy.ThresholdClip(), engine="loop", mesh=mesh(2)
  )
  with pytest.raises(ValueError, match="engine: got 'loop' with a mesh"):
    fn(params(), lot(), jax.random.key(0), ())


@pytest.mark.slow
def test_four_devices_in_a_process_of_their_own():
  program = """
import jax, jax.numpy as jnp, numpy as np
from trustjax import privacy
def loss_fn(w, e, k):
  return jnp.sum(jnp.sin(e @ w)), None
lot = privacy.Lot(
  examples=jnp.arange(24.0).reshape(8, 3), valid=jnp.ones(8, bool),
  ids=jnp.arange(8, dtype=jnp.int32))
sums = []
for n in (1, 2, 4):
  mesh = jax.make_mesh((n,), ("data",), devices=jax.devices()[:n])
  fn = privacy.clipped_grad(
    loss_fn, privacy.AutoClip(), engine="bookkeeping", mesh=mesh)
  sums.append(np.asarray(fn(jnp.eye(3), lot, jax.random.key(0), ()).sum))
np.testing.assert_allclose(sums[1], sums[0], rtol=1e-5)
np.testing.assert_allclose(sums[2], sums[0], rtol=1e-5)
print(jax.device_count())
"""
  ran = subprocess.run(
    [sys.executable, "-c", program],
    env={
      "XLA_FLAGS": "--xla_force_host_platform_device_count=4",
      "JAX_PLATFORMS": "cpu",
      "PYTHONPATH": ":".join(sys.path),
    },
    capture_output=True,
    text=True,
    check=False,
  )
  assert ran.returncode == 0, ran.stderr
  assert ran.stdout.strip() == "4"
