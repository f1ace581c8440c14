"""Canary extraction: relaxed gradients, planted codes, real models, batches."""

import dataclasses
import functools
import itertools
import operator

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import special

from trustjax import attacks
from trustjax.attacks import _extraction

KEY = jax.random.key(0)
CODE = jnp.array([1, 2, 3, 4])
QUICK = attacks.RelaxedSearch(steps=200, patience=40, restarts=3)


@pytest.fixture(autouse=True)
def standard_promotion():
  # optax promotes inside Adam.
  with jax.numpy_dtype_promotion("standard"):
    yield


def planted_loss(mixture, code):
  """Expected Hamming distance to the code: linear in the mixture."""
  return jnp.mean(1 - jnp.take_along_axis(mixture, code[:, None], axis=1))


@pytest.mark.parametrize(
  ("tau", "expected"), [(1.0, (0.25, -0.25)), (0.5, (0.5, -0.5))]
)
def test_relaxed_gradient_known_answer(tau, expected):
  table = jnp.eye(2)

  def loss(logits):
    mixture = attacks.relaxed_mixture(
      logits, jnp.float32(tau), jnp.zeros((1, 2))
    )
    return attacks.mix_candidates(mixture, table)[0, 0]

  np.testing.assert_allclose(
    jax.grad(loss)(jnp.zeros((1, 2)))[0], expected, atol=1e-6
  )


def test_relaxed_gradient_equals_the_formula_and_finite_differences():
  rng = np.random.default_rng(0)
  table = rng.normal(size=(5, 3))
  weights = rng.normal(size=(2, 3))
  logits, noise, tau = rng.normal(size=(2, 5)), rng.normal(size=(2, 5)), 0.7

  def energy(mixed):
    return np.sum(np.sin(mixed) * weights)

  def slow(logits):
    return energy(special.softmax((logits + noise) / tau, axis=1) @ table)

  def loss(logits):
    mixture = attacks.relaxed_mixture(
      logits, jnp.float32(tau), jnp.asarray(noise, jnp.float32)
    )
    mixed = attacks.mix_candidates(mixture, jnp.asarray(table, jnp.float32))
    return jnp.sum(jnp.sin(mixed) * jnp.asarray(weights, jnp.float32))

  got = jax.grad(loss)(jnp.asarray(logits, jnp.float32))
  a = special.softmax((logits + noise) / tau, axis=1)
  g = (np.cos(a @ table) * weights) @ table.T
  np.testing.assert_allclose(
    got, a * (g - (a * g).sum(1, keepdims=True)) / tau, atol=1e-5
  )
  for index in np.ndindex(2, 5):
    step = np.zeros((2, 5))
    step[index] = 1e-6
    slope = (slow(logits + step) - slow(logits - step)) / 2e-6
    np.testing.assert_allclose(got[index], slope, atol=1e-5)


def test_mixture_known_answers():
  got = attacks.relaxed_mixture(
    jnp.array([[1.0, 2.0, 3.0]]), jnp.float32(0.5), jnp.zeros((1, 3))
  )
  np.testing.assert_allclose(got[0], (0.01588, 0.11731, 0.86681), atol=1e-5)
  # With beta = 1 the argmax is a draw from softmax(z), whatever tau is.
  logits = jnp.array([[0.0, 1.0, 2.0]])
  noise = jax.random.gumbel(KEY, (20_000, 1, 3))
  draws = jax.vmap(
    lambda g: jnp.argmax(attacks.relaxed_mixture(logits, jnp.float32(0.3), g))
  )(noise)
  shares = np.bincount(np.asarray(draws), minlength=3) / 20_000
  # Four standard errors of a share are at most 0.014.
  np.testing.assert_allclose(
    shares, special.softmax([0.0, 1.0, 2.0]), atol=0.014
  )


def test_temperature_schedule():
  search = attacks.RelaxedSearch(
    temperature=1.0, final_temperature=0.1, anneal_steps=500
  )
  steps = (0, 250, 500, 900)
  got = [float(search.temperature_at(jnp.int32(step))) for step in steps]
  np.testing.assert_allclose(got, [1, 0.1**0.5, 0.1, 0.1], rtol=1e-5)
  fixed = attacks.RelaxedSearch(final_temperature=0.5, anneal_steps=0)
  np.testing.assert_allclose(fixed.temperature_at(jnp.int32(0)), 0.5)


@pytest.mark.parametrize(
  ("gumbel", "final"),
  [(0.0, 1.0), pytest.param(1.0, 0.1, marks=pytest.mark.slow)],
)
def test_planted_codes_are_always_found(gumbel, final):
  search = attacks.RelaxedSearch(
    steps=400,
    patience=100,
    restarts=2,
    gumbel=gumbel,
    final_temperature=final,
    sweeps=0,
  )
  codes = jax.random.randint(jax.random.key(1), (8, 4), 0, 10)
  found = attacks.extract_canaries(
    planted_loss,
    4,
    10,
    jax.random.split(KEY, 8),
    trials=codes,
    search=search,
  )
  metrics = attacks.extraction_metrics(
    np.asarray(found.tokens), np.asarray(codes), num_candidates=10
  )
  assert metrics.accuracy.value == 1.0
  np.testing.assert_allclose(found.loss, 0.0, atol=1e-6)


def test_trials_in_one_program_equal_separate_runs():
  # The search over positions has tests of its own; here it only compiles.
  search = dataclasses.replace(QUICK, sweeps=0)
  keys = jax.random.split(KEY, 4)
  codes = jax.random.randint(jax.random.key(1), (4, 3), 0, 6)
  run = functools.partial(
    attacks.extract_canaries, planted_loss, 3, 6, search=search
  )
  together = run(keys, trials=codes)
  chunked = run(keys, trials=codes, chunk_size=2)
  chex.assert_trees_all_close(chunked, together, atol=1e-6)

  @jax.jit
  def alone(key, code):
    return attacks.extract_canary(
      planted_loss, 3, 6, key, args=(code,), search=search
    )

  separate = [alone(key, code) for key, code in zip(keys, codes)]
  stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *separate)
  chex.assert_trees_all_close(stacked, together, atol=1e-6)
  # They stop at different times, and none is held up by another.
  assert np.unique(together.num_steps).size > 1
  # They need some steps to turn, and stop `patience` after they rest.
  assert (together.num_steps > search.patience).all()
  assert (together.num_steps < search.steps).any()


def slow_search(loss, shape, start, *, steps, rate):
  """Adam on the logits in NumPy, gradients by finite differences."""
  z = np.array(start, np.float64)
  m, v = np.zeros(shape), np.zeros(shape)
  for step in range(1, steps + 1):
    g = np.zeros(shape)
    for index in np.ndindex(*shape):
      h = np.zeros(shape)
      h[index] = 1e-5
      up, down = (loss(special.softmax(z + s * h, axis=1)) for s in (1, -1))
      g[index] = (up - down) / 2e-5
    m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
    scale = (v / (1 - 0.999**step)) ** 0.5 + 1e-8
    z = z - rate * m / (1 - 0.9**step) / scale
  return z.argmax(1)


def test_a_restart_equals_adam_by_hand():
  rng = np.random.default_rng(0)
  table = rng.normal(size=(3, 4))
  pull = rng.normal(size=(4, 4))

  def loss(mixture, xp=np, dtype=np.float64):
    first = xp.sum(xp.asarray(table, dtype) * mixture)
    pairs = mixture[:-1] @ xp.asarray(pull, dtype) * mixture[1:]
    return first + xp.sum(pairs)

  search = attacks.RelaxedSearch(steps=60, patience=60, learning_rate=0.05)
  got, steps = _extraction._relaxed_search(
    lambda mixture: loss(mixture, jnp, jnp.float32), (3, 4), KEY, search
  )
  start = jax.random.uniform(
    jax.random.split(KEY)[0],
    (3, 4),
    minval=-((6 / 7) ** 0.5),
    maxval=(6 / 7) ** 0.5,
  )
  want = slow_search(loss, (3, 4), start, steps=int(steps), rate=0.05)
  np.testing.assert_array_equal(got, want)


def test_search_over_positions_reaches_a_coordinatewise_minimum():
  rng = np.random.default_rng(1)
  table = jnp.asarray(rng.normal(size=(5,) * 3), jnp.float32)

  def loss(mixture):
    # Multilinear: exact on hard tokens, misleading between them.
    return jnp.einsum("a,b,c,abc->", *mixture, table)

  search = attacks.RelaxedSearch(steps=1, restarts=1, sweeps=10)
  found = attacks.extract_canary(loss, 3, 5, KEY, search=search)
  tokens = np.array(found.tokens)
  np.testing.assert_allclose(found.loss, table[tuple(tokens)], rtol=1e-5)
  for position, candidate in itertools.product(range(3), range(5)):
    other = tokens.copy()
    other[position] = candidate
    assert table[tuple(other)] >= found.loss - 1e-6
  assert found.loss <= found.relaxed_losses[0]


def test_a_loss_that_overflows_does_not_win():
  def loss(mixture):
    broken = mixture[0, 0] == 1
    return jnp.where(broken, jnp.nan, planted_loss(mixture, CODE))

  found = attacks.extract_canary(loss, 4, 10, KEY, search=QUICK)
  np.testing.assert_array_equal(found.tokens, CODE)


def test_the_outer_and_inner_character_relaxations_meet_at_hard_tokens():
  # A word's characters [char, dim] -> convolution of width 2 and maximum.
  rng = np.random.default_rng(2)
  chars = jnp.asarray(rng.normal(size=(6, 4, 3)), jnp.float32)
  kernel = jnp.asarray(rng.normal(size=(2, 3, 5)), jnp.float32)

  def cnn(word):
    windows = jnp.stack([word[:-1], word[1:]], axis=1)
    return jnp.max(jnp.einsum("twd,wdf->tf", windows, kernel), axis=0)

  def outer(mixture):
    return attacks.mix_candidates(mixture, jax.vmap(cnn)(chars))

  def inner(mixture):
    return jax.vmap(cnn)(attacks.mix_candidates(mixture, chars))

  hard = jax.nn.one_hot(jnp.array([4, 0]), 6)
  want = jnp.stack([cnn(chars[4]), cnn(chars[0])])
  np.testing.assert_allclose(outer(hard), want, atol=1e-5)
  np.testing.assert_allclose(inner(hard), want, atol=1e-5)
  soft = jnp.full((2, 6), 1 / 6)
  assert np.abs(outer(soft) - inner(soft)).max() > 0.01


def small_model():
  """Embedding, mixing with neighbours, intent and slot heads, by hand."""
  keys = jax.random.split(KEY, 4)
  params = {
    "table": 0.5 * jax.random.normal(keys[0], (16, 8)),
    "mix": 0.3 * jax.random.normal(keys[1], (3, 8, 24)),
    "intent": 0.3 * jax.random.normal(keys[2], (24, 4)),
    "slots": 0.3 * jax.random.normal(keys[3], (24, 5)),
  }

  def logits(params, embeddings):
    padded = jnp.pad(embeddings, ((1, 1), (0, 0)))
    hidden = jnp.tanh(
      sum(
        padded[i : i + embeddings.shape[0]] @ params["mix"][i] for i in range(3)
      )
    )
    return jnp.max(hidden, axis=0) @ params["intent"], hidden @ params["slots"]

  return params, logits


def canary_example(code):
  """Prefix 10 11, then the code, whose candidates are tokens 0 .. 7."""
  tokens = jnp.concatenate([jnp.array([10, 11]), jnp.asarray(code)])
  return tokens, jnp.array(3), jnp.array([0, 0, 3, 4, 4])


def test_relaxed_loss_equals_discrete_loss_at_hard_tokens():
  params, logits = small_model()
  tokens, intent, slots = canary_example([5, 2, 7])
  context = params["table"][tokens].at[2:].set(0.0)
  frozen = functools.partial(jax.jit(logits), params)
  intent_logits, slot_logits = frozen(params["table"][tokens])
  log_p = special.log_softmax(np.asarray(slot_logits), axis=1)
  for part in ("both", "intent", "slots"):
    loss = attacks.canary_loss(
      frozen,
      context,
      jnp.arange(2, 5),
      params["table"][:8],
      intent,
      slots,
      jnp.array([False] + [True] * 4),
      part=part,
    )
    got = loss(jax.nn.one_hot(tokens[2:], 8))
    want = 0.0
    if part != "slots":
      want -= special.log_softmax(np.asarray(intent_logits))[3]
    if part != "intent":
      want -= sum(log_p[t, slots[t]] for t in range(1, 5))
    np.testing.assert_allclose(got, want, rtol=1e-5)


def train_on_canaries(codes, copies=20, steps=200):
  """A model for each code, on random utterances and copies of its canary."""
  start, logits = small_model()
  rng = np.random.default_rng(3)
  others = jnp.asarray(rng.integers(0, 10, (60, 5)))
  intents = jnp.asarray(np.append(rng.integers(0, 3, 60), [3] * copies))
  _, _, slots = canary_example([0, 0, 0])
  tags = jnp.concatenate(
    [jnp.asarray(rng.integers(0, 3, (60, 5))), jnp.tile(slots, (copies, 1))]
  )
  optimizer = optax.adam(0.03)

  def one(params, tokens, intent, tags):
    intent_logits, slot_logits = logits(params, params["table"][tokens])
    log_p = jax.nn.log_softmax(slot_logits)
    own = jnp.take_along_axis(log_p, tags[:, None], axis=1)
    return -jax.nn.log_softmax(intent_logits)[intent] - jnp.sum(own)

  def train(code):
    canary, _, _ = canary_example(code)
    tokens = jnp.concatenate([others, jnp.tile(canary, (copies, 1))])

    def loss(params):
      each = jax.vmap(one, (None, 0, 0, 0))(params, tokens, intents, tags)
      return jnp.mean(each)

    def step(carry, _):
      params, state = carry
      updates, state = optimizer.update(jax.grad(loss)(params), state)
      return (optax.apply_updates(params, updates), state), None

    first = (start, optimizer.init(start))
    return jax.lax.scan(step, first, length=steps)[0][0]

  return jax.jit(jax.vmap(train))(jnp.asarray(codes))


def attack_loss(mixture, params):
  _, logits = small_model()
  tokens, intent, slots = canary_example([0, 0, 0])
  return attacks.canary_loss(
    functools.partial(logits, params),
    params["table"][tokens],
    jnp.arange(2, 5),
    params["table"][:8],
    intent,
    slots,
    jnp.ones(5, bool),
  )(mixture)


def test_a_memorised_code_is_extracted_and_a_control_is_not():
  codes = [[5, 2, 7], [1, 6, 0], [3, 3, 4], [7, 0, 2]]
  trained = train_on_canaries(codes)
  found = attacks.extract_canaries(
    attack_loss,
    3,
    8,
    jax.random.split(KEY, 4),
    trials=trained,
    search=QUICK,
  )

  def hard_loss(tokens, params):
    return attack_loss(jax.nn.one_hot(tokens, 8), params)

  each = [jax.tree.map(operator.itemgetter(i), trained) for i in range(4)]
  losses = [
    np.asarray(attacks.score_completions(hard_loss, 3, 8, args=(params,)))
    for params in each
  ]
  truth = attacks.completion_index(np.array(codes), 8)
  own = attacks.exposure(np.stack(losses), truth)
  # Rotated: each model is asked for a code that it was not given.
  control = attacks.exposure(np.stack(losses), np.roll(truth, 1))
  assert own.exposure.mean() > 6
  assert own.exposure.min() > control.exposure.max()
  # The search reaches the smallest loss there is.
  np.testing.assert_allclose(
    found.loss, [one.min() for one in losses], atol=1e-4
  )
  hits = (np.asarray(found.tokens) == np.array(codes)).all(1)
  np.testing.assert_array_equal(hits, own.rank == 1)


def test_bad_input():
  for field, value in (
    ("steps", 0),
    ("restarts", 0),
    ("gumbel", -1),
    ("temperature", 0),
    ("learning_rate", float("inf")),
  ):
    with pytest.raises(ValueError, match=rf"{field}: got"):
      attacks.RelaxedSearch(**{field: value})
  with pytest.raises(ValueError, match=r"num_positions: got 0"):
    attacks.extract_canary(planted_loss, 0, 10, KEY)
  with pytest.raises(ValueError, match=r"shape \(3, 4\) for 2 keys"):
    attacks.extract_canaries(
      planted_loss,
      4,
      10,
      jax.random.split(KEY, 2),
      trials=jnp.zeros((3, 4), jnp.int32),
    )
  with pytest.raises(ValueError, match=r"part: got 'all'"):
    attacks.canary_loss(
      lambda e: (e[0], e),
      jnp.zeros((2, 3)),
      jnp.array([1]),
      jnp.zeros((4, 3)),
      jnp.array(0),
      jnp.array([0, 0]),
      jnp.ones(2, bool),
      part="all",
    )
