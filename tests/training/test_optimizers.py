"""Optimisers by name, their schedules and their refusals."""

import jax.numpy as jnp
import numpy as np
import pytest

from trustjax import training


def first_and_last_step(optimizer, num_steps):
  """Sizes of the first and the last update under a constant gradient."""
  params = {"w": jnp.zeros(())}
  state, sizes = optimizer.init(params), []
  for _ in range(num_steps):
    updates, state = optimizer.update({"w": jnp.float32(1)}, state, params)
    sizes.append(-float(updates["w"]))
  return sizes[0], sizes[-1]


@pytest.mark.parametrize(
  ("decay", "last"), [("constant", 0.5), ("linear", 0.05), ("cosine", 0.0122)]
)
def test_the_schedule_spans_the_run(decay, last):
  optimizer = training.make_optimizer("sgd", 0.5, 10, decay=decay)
  np.testing.assert_allclose(
    first_and_last_step(optimizer, 10), (0.5, last), rtol=0.01
  )


def test_warm_up_starts_at_zero_and_reaches_the_peak():
  optimizer = training.make_optimizer("sgd", 0.5, 10, warmup_steps=4)
  np.testing.assert_allclose(first_and_last_step(optimizer, 10), (0.0, 0.5))


def test_further_fields_reach_the_optimiser():
  plain = training.make_optimizer("adamw", 0.1, 5, weight_decay=0.0)
  params = {"w": jnp.float32(10.0)}
  decayed = training.make_optimizer("adamw", 0.1, 5, weight_decay=0.1)
  gradient = {"w": jnp.float32(1)}
  one, _ = plain.update(gradient, plain.init(params), params)
  other, _ = decayed.update(gradient, decayed.init(params), params)
  np.testing.assert_allclose(one["w"] - other["w"], 0.1 * 0.1 * 10, rtol=1e-4)


@pytest.mark.parametrize(
  ("fields", "message"),
  [
    (dict(name="lion"), "optimizer.name: got 'lion'; allowed are"),
    (dict(learning_rate=0.0), "optimizer.learning_rate: got 0.0; it must be"),
    (dict(decay="steps"), "optimizer.decay: got 'steps'; allowed are"),
    (dict(warmup_steps=10), "optimizer.warmup_steps: got 10; it must lie"),
  ],
)
def test_bad_fields_are_named(fields, message):
  with pytest.raises(ValueError, match=message):
    training.make_optimizer(
      **(dict(name="sgd", learning_rate=0.1, num_steps=10) | fields)
    )
