"""The README's example runs as printed, and so do its Flax and Equinox kin."""

import pathlib
import re

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from trustjax import privacy, training

_README = pathlib.Path(__file__).parent.parent / "README.md"


def _example() -> str:
  blocks = re.findall(r"```python\n(.*?)```", _README.read_text(), re.DOTALL)
  assert len(blocks) == 1
  return blocks[0]


def test_the_example_trains_and_states_its_guarantee(capsys):
  code = _example()
  assert len([line for line in code.splitlines() if line.strip()]) <= 28
  names: dict = {}
  exec(compile(code, str(_README), "exec"), names)
  w, b = (np.asarray(names["state"].params[name]) for name in ("w", "b"))
  predicted = np.argmax(names["examples"]["x"] @ w + b, axis=1)
  assert np.mean(predicted == names["examples"]["y"]) > 0.9
  printed = capsys.readouterr().out
  epsilon = float(re.search(r"epsilon (\S+)", printed).group(1))
  assert 1.9 < epsilon <= 2.0
  assert "Unit: one record" in printed


@pytest.fixture
def data():
  x = np.random.default_rng(0).normal(size=(512, 8)).astype(np.float32)
  return {"x": x, "y": np.tanh(x[:, 0] - x[:, 1])}


@pytest.fixture
def plan():
  return privacy.DpSgdPlan.make(
    num_records=512,
    expected_batch_size=128,
    num_steps=40,
    noise_multiplier=0.5,
    rule=privacy.ThresholdClip(clip_norm=1.0),
  )


def _train(plan, data, loss_fn, params):
  """Mean loss of the first and of the last five steps."""
  init, step = training.make_private_step(loss_fn, optax.adam(0.02), plan)
  state, losses = init(params), []
  for t in range(plan.mechanism.num_steps):
    lot = plan.draw_lot(data, seed=0, step=t)
    state, metrics = step(state, lot, jax.random.key(1))
    losses.append(float(metrics.loss))
  return np.mean(losses[:5]), np.mean(losses[-5:])


def test_a_flax_model_trains_through_a_plan(plan, data):
  model = nnx.Sequential(
    nnx.Linear(8, 16, rngs=nnx.Rngs(0)),
    jnp.tanh,
    nnx.Linear(16, 1, rngs=nnx.Rngs(1)),
  )
  graph, params = nnx.split(model, nnx.Param)

  def loss_fn(params, example, key):
    del key
    predicted = nnx.merge(graph, params)(example["x"][None])[0, 0]
    return jnp.square(predicted - example["y"]), {}

  with jax.numpy_rank_promotion("allow"):  # nnx.Linear adds its bias so.
    first, last = _train(plan, data, loss_fn, params)
  assert last < 0.6 * first


def test_an_equinox_model_trains_through_a_plan(plan, data):
  model = eqx.nn.MLP(8, "scalar", 16, 1, key=jax.random.key(0))
  params, static = eqx.partition(model, eqx.is_inexact_array)

  def loss_fn(params, example, key):
    del key
    predicted = eqx.combine(params, static)(example["x"])
    return jnp.square(predicted - example["y"]), {}

  first, last = _train(plan, data, loss_fn, params)
  assert last < 0.6 * first
