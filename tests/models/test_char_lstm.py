"""The next-character model: causal, masked, and able to learn a cycle."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from trustjax import models

VOCAB, TIME = 5, 12
MODEL = models.make_language_model(
  "char_lstm", vocab_size=VOCAB, max_length=TIME, dim=4, hidden_dim=16
)


@pytest.fixture(scope="module")
def params():
  return jax.jit(MODEL.init)(jax.random.key(0))


def record(length=TIME):
  tokens = np.arange(TIME) % VOCAB
  return {"tokens": tokens, "mask": np.arange(TIME) < length}


def test_scores_depend_on_the_past_only(params):
  example = record()
  other = example | {"tokens": example["tokens"].copy()}
  other["tokens"][6] = 0
  apply = jax.jit(MODEL.apply)
  ours, theirs = apply(params, example), apply(params, other)
  assert ours.shape == (TIME, VOCAB)
  np.testing.assert_array_equal(ours[:6], theirs[:6])
  assert not np.allclose(ours[6:], theirs[6:])


def test_two_layers_are_the_textbook_recursion(params):
  """The same network, one step and one gate at a time, in NumPy."""
  example, numbers = record(), jax.tree.map(np.asarray, params)

  def sigmoid(x):
    return 1 / (1 + np.exp(-x))

  inputs = numbers["words"]["embedding"][example["tokens"]]
  for name in ("lstm_0", "lstm_1"):
    layer, outputs = numbers[name], []
    hidden, cell = np.zeros(16), np.zeros(16)
    for x in inputs:
      gates = x @ layer["input"] + hidden @ layer["recurrent"] + layer["bias"]
      i, f, g, o = np.split(gates, 4)
      cell = sigmoid(f) * cell + sigmoid(i) * np.tanh(g)
      hidden = sigmoid(o) * np.tanh(cell)
      outputs.append(hidden)
    inputs = np.stack(outputs)
  want = inputs @ numbers["unembed"]["kernel"] + numbers["unembed"]["bias"]
  np.testing.assert_allclose(
    MODEL.apply(params, example), want, rtol=1e-4, atol=1e-5
  )


def test_padding_leaves_the_loss_alone(params):
  loss_fn = models.losses.language_model_loss(MODEL)
  long = loss_fn(params, record(8), None)[0]
  short = {name: leaf[:8] for name, leaf in record(8).items()}
  np.testing.assert_allclose(long, loss_fn(params, short, None)[0], rtol=1e-6)


def test_it_learns_a_cycle(params):
  loss_fn = models.losses.language_model_loss(MODEL)
  optimizer = optax.adam(0.03)

  @jax.jit
  def train(params):
    def step(carry, _):
      params, state = carry
      (loss, aux), gradient = jax.value_and_grad(loss_fn, has_aux=True)(
        params, record(), None
      )
      updates, state = optimizer.update(gradient, state)
      return (optax.apply_updates(params, updates), state), (
        loss,
        aux["token_correct"],
      )

    start = (params, optimizer.init(params))
    return jax.lax.scan(step, start, length=60)[1]

  losses, correct = train(params)
  assert abs(float(losses[0]) - np.log(VOCAB)) < 0.5
  assert losses[-1] < 0.1 and correct[-1] == 1.0
  assert jnp.all(jnp.isfinite(losses))


def test_impossible_fields_are_named():
  for field, value in (("hidden_dim", 0), ("num_layers", 0), ("dropout", 1.0)):
    with pytest.raises(ValueError, match=f"{field}: got {value!r}"):
      models.make_language_model(
        "char_lstm", vocab_size=3, max_length=4, **{field: value}
      )
