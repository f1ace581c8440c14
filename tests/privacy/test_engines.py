"""The contract that every clipping engine must pass."""

import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import jax_privacy
import numpy as np
import optax
import pytest

from trustjax import privacy

LOOP, WHOLE = ("loop", None), ("vmap", None)
ENGINES = [
  LOOP,
  ("scan", None),
  WHOLE,
  ("vmap", 4),
  ("bookkeeping", 4),
]
DIM, SLOTS = 3, 8


def quadratic(params, example, key):
  """Loss whose gradient is `params - example`, exactly."""
  del key
  loss = 0.5 * jnp.sum(jnp.square(params - example))
  return loss, {"first": example[0]}


def network(params, example, key):
  """A small network with dropout, an embedding and a bias."""
  embedded = params["table"][example["tokens"]]
  keep = jax.random.bernoulli(key, 0.7, embedded.shape)
  hidden = jnp.tanh(
    jnp.where(keep, embedded, 0.0) @ params["kernel"] + params["bias"][None, :]
  )
  logits = jnp.mean(hidden, axis=0)
  loss = -jax.nn.log_softmax(logits)[example["label"]]
  return loss, {"predicted": jnp.argmax(logits)}


def network_params(seed=0):
  keys = jax.random.split(jax.random.key(seed), 3)
  return {
    "bias": 0.1 * jax.random.normal(keys[0], (5,)),
    "kernel": jax.random.normal(keys[1], (4, 5)),
    "table": jax.random.normal(keys[2], (11, 4)),
  }


def network_lot(num_valid=6, slots=SLOTS, seed=1):
  rng = np.random.default_rng(seed)
  return privacy.Lot(
    examples={
      "tokens": jnp.asarray(rng.integers(0, 11, (slots, 7)), jnp.int32),
      "label": jnp.asarray(rng.integers(0, 5, slots), jnp.int32),
    },
    valid=jnp.arange(slots) < num_valid,
    ids=jnp.asarray(rng.permutation(100)[:slots], jnp.int32),
  )


def gradient_lot(gradients, valid=None, groups=None):
  """A lot on which `quadratic` at 0 has exactly these gradients."""
  examples = -jnp.asarray(gradients, jnp.float32)
  shape = examples.shape[:1] if groups is None else groups
  valid = jnp.ones(shape, bool) if valid is None else jnp.asarray(valid)
  return privacy.Lot(
    examples=jnp.reshape(examples, shape + examples.shape[-1:]),
    valid=jnp.reshape(valid, shape),
    ids=jnp.reshape(jnp.arange(valid.size, dtype=jnp.int32), shape),
  )


def as_groups(lot, slots):
  return jax.tree.map(
    lambda leaf: jnp.reshape(leaf, (-1, slots, *leaf.shape[1:])), lot
  )


@functools.cache
def program(loss_fn, rule, engine, chunk, group):
  """An engine's function, compiled once for all tests with these shapes."""
  fn = privacy.clipped_grad(
    loss_fn, rule, clip_group_size=group, engine=engine, chunk_size=chunk
  )
  return fn if engine == "loop" else jax.jit(fn)


def clipped(loss_fn, rule, params, lot, engine, chunk=None, group=1, key=7):
  fn = program(loss_fn, rule, engine, chunk, group)
  return fn(params, lot, jax.random.key(key), rule.init())


def clipped_quadratic(gradients, engine, chunk, group=1, rule=None, valid=None):
  """Clipped sum of given gradients, in one shape for all: [SLOTS, DIM].

  Behind the gradients, slots are empty and entries zero. With `group` 4 they
  are the first group's.
  """
  gradients = np.asarray(gradients, np.float32)
  padded = np.zeros((SLOTS, DIM), np.float32)
  padded[: gradients.shape[0], : gradients.shape[1]] = gradients
  taken = np.arange(SLOTS) < len(gradients)
  if valid is not None:
    taken[: len(gradients)] = valid
  got = clipped(
    quadratic,
    rule or privacy.ThresholdClip(),
    jnp.zeros(DIM),
    gradient_lot(padded, taken, (2, 4) if group > 1 else None),
    engine,
    chunk and chunk // group,
    group,
  )
  assert np.all(got.sum[gradients.shape[1] :] == 0)
  return np.asarray(got.sum[: gradients.shape[1]])


RULES = [
  privacy.ThresholdClip(clip_norm=0.3),
  privacy.AutoClip(),
  privacy.AutoClip(gamma=0.0),
  privacy.PerLayerClip(clip_norm=0.5),
  privacy.PerLayerClip(scale="equal", gamma=0.01),
  privacy.PerLayerClip(scale="dimension", allocation="uniform"),
  privacy.QuantileClip(clip_norm=0.2, expected_units=6),
]


# Of the rules that each engine is tried with by default, every third. A rule
# only sees the norms, which are what book-keeping is tried with all rules for.
THIRDS = {"scan": 0, "vmap": 1}


def _loop_cases():
  """Every engine with every rule; by default every rule with two engines."""
  for engine, chunk in ENGINES:
    if (engine, chunk) in (LOOP, WHOLE):
      continue
    for number, rule in enumerate(RULES):
      third = THIRDS.get(engine, number % 3)
      marks = pytest.mark.slow if number % 3 != third else ()
      yield pytest.param(engine, chunk, rule, 1, marks=marks)
      if number % 3 == 0:
        marks = pytest.mark.slow if engine == "scan" and number else ()
        yield pytest.param(engine, chunk, rule, 4, marks=marks)


@pytest.mark.parametrize(
  ("engine", "chunk", "rule", "group"),
  list(_loop_cases()),
  ids=lambda value: repr(value)[:40],
)
def test_equals_the_loop(engine, chunk, rule, group):
  lot = network_lot()
  if group > 1:
    lot, chunk = as_groups(lot, 4), chunk and 1
  params = network_params()
  got = clipped(network, rule, params, lot, engine, chunk, group)
  want = clipped(network, rule, params, lot, "loop", None, group)
  chex.assert_trees_all_close(got, want, rtol=1e-5, atol=1e-6)


@pytest.fixture(scope="module")
def clipped_by_peers():
  """The clipped sum of a full network lot by optax and by jax-privacy."""
  params, lot = network_params(), network_lot(num_valid=SLOTS)
  keys = jax.vmap(lambda i: jax.random.fold_in(jax.random.key(7), i))(lot.ids)
  gradients = jax.jit(
    jax.vmap(lambda e, k: jax.grad(lambda p: network(p, e, k)[0])(params))
  )(lot.examples, keys)
  leaves, treedef = jax.tree.flatten(gradients)
  by_optax = jax.tree.unflatten(
    treedef,
    optax.per_example_global_norm_clip(leaves, 0.3)[0],  # pyright: ignore
  )
  with jax.numpy_rank_promotion("allow"):
    by_jax_privacy = jax.jit(
      jax_privacy.clipped_grad(
        lambda p, batch: network(
          p,
          jax.tree.map(lambda leaf: leaf[0], batch[0]),
          batch[1][0],
        )[0],
        l2_clip_norm=0.3,
        batch_argnums=1,
      )
    )(params, (lot.examples, keys))
  return by_optax, by_jax_privacy


@pytest.mark.parametrize(("engine", "chunk"), ENGINES)
def test_equals_jax_privacy_and_optax(engine, chunk, clipped_by_peers):
  rule = privacy.ThresholdClip(clip_norm=0.3)
  lot = network_lot(num_valid=SLOTS)
  got = clipped(network, rule, network_params(), lot, engine, chunk)
  for theirs in clipped_by_peers:
    chex.assert_trees_all_close(got.sum, theirs, rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize(("engine", "chunk"), [*ENGINES, ("auto", None)])
def test_norms_losses_and_aux_are_the_records_own(engine, chunk):
  gradients = np.array([[3.0, 4.0, 0.0]] * 3 + [[0.0, 0.5, 0.0]] * 5)
  lot = gradient_lot(gradients, valid=[True] * 6 + [False] * 2)
  got = clipped(
    quadratic, privacy.ThresholdClip(), jnp.zeros(DIM), lot, engine, chunk
  )
  np.testing.assert_allclose(
    got.norms, [5, 5, 5, 0.5, 0.5, 0.5, 0, 0], rtol=3e-7
  )
  np.testing.assert_allclose(got.losses, [12.5] * 3 + [0.125] * 3 + [0] * 2)
  np.testing.assert_allclose(got.aux["first"], [-3.0] * 3 + [0.0] * 5)
  np.testing.assert_allclose(got.sum, [1.8, 2.4 + 1.5, 0.0], rtol=2e-6)
  assert int(got.num_nonfinite) == 0


@pytest.mark.parametrize(("engine", "chunk"), ENGINES)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_nonfinite_record_contributes_exactly_zero(engine, chunk, bad):
  gradients = np.ones((SLOTS, DIM), np.float32)
  want = clipped(
    quadratic,
    privacy.ThresholdClip(),
    jnp.zeros(DIM),
    gradient_lot(gradients, valid=np.arange(SLOTS) != 2),
    engine,
    chunk,
  )
  gradients[2, 1] = bad
  got = clipped(
    quadratic,
    privacy.ThresholdClip(),
    jnp.zeros(DIM),
    gradient_lot(gradients),
    engine,
    chunk,
  )
  np.testing.assert_array_equal(got.sum, want.sum)
  assert int(got.num_nonfinite) == 1
  assert np.isinf(got.norms[2])


@pytest.mark.parametrize(("engine", "chunk"), ENGINES)
def test_a_nonfinite_loss_with_a_finite_gradient_is_dropped(engine, chunk):
  def loss_fn(params, example, key):
    loss, aux = quadratic(params, example, key)
    return loss + jax.lax.stop_gradient(
      jnp.where(example[0] < -50, jnp.inf, 0.0)
    ), aux

  gradients = np.ones((SLOTS, DIM), np.float32)
  gradients[5, 0] = 99.0
  got = clipped(
    loss_fn,
    privacy.ThresholdClip(),
    jnp.zeros(DIM),
    gradient_lot(gradients),
    engine,
    chunk,
  )
  np.testing.assert_allclose(got.sum, 7 * np.ones(DIM) / np.sqrt(3), rtol=1e-5)
  assert int(got.num_nonfinite) == 1


@pytest.mark.parametrize("group", [1, 4])
@pytest.mark.parametrize(("engine", "chunk"), ENGINES)
def test_garbage_in_invalid_slots_changes_nothing(engine, chunk, group):
  gradients = np.random.default_rng(0).normal(size=(SLOTS, DIM))
  valid = np.array([1, 1, 0, 1, 1, 1, 0, 0], bool)
  garbage = gradients.copy()
  garbage[~valid] = np.nan
  groups = (2, 4) if group > 1 else None
  results = [
    clipped(
      quadratic,
      privacy.AutoClip(),
      jnp.zeros(DIM),
      gradient_lot(g, valid, groups),
      engine,
      chunk and chunk // group,
      group,
    )
    for g in (gradients, garbage)
  ]
  chex.assert_trees_all_equal(*results)
  assert int(results[0].num_nonfinite) == 0


@pytest.mark.parametrize("group", [1, 4])
@pytest.mark.parametrize(("engine", "chunk"), ENGINES)
def test_an_empty_lot_gives_zero(engine, chunk, group):
  loss_fn, params, lot = network, network_params(), network_lot(num_valid=0)
  if group > 1:
    loss_fn, params = quadratic, jnp.ones(DIM)
    lot = gradient_lot(
      np.ones((SLOTS, DIM)), valid=np.zeros(SLOTS, bool), groups=(2, 4)
    )
    chunk = chunk and 1
  got = clipped(
    loss_fn, privacy.AutoClip(gamma=0.0), params, lot, engine, chunk, group
  )
  chex.assert_trees_all_equal(got, jax.tree.map(jnp.zeros_like, got))
  chex.assert_trees_all_equal_shapes(got.sum, params)


def quadratic_in_a_dict(params, example, key):
  return quadratic(params["a"], example, key)


@pytest.mark.parametrize(
  ("rule", "group"),
  [(rule, 1) for rule in RULES] + [(rule, 4) for rule in RULES[::3]],
  ids=lambda value: repr(value)[:40],
)
@pytest.mark.parametrize(
  ("engine", "chunk"), [e for e in ENGINES if e != WHOLE]
)
def test_no_unit_exceeds_its_bound(engine, chunk, rule, group):
  """One unit alone, with huge gradients: its norm is the sensitivity's half."""
  lot = gradient_lot(1e4 * np.ones((group, DIM)), groups=(1, group))
  if group == 1:
    lot = jax.tree.map(lambda leaf: leaf[0], lot)
  got = clipped(
    quadratic_in_a_dict,
    rule,
    {"a": jnp.ones(DIM)},
    lot,
    engine,
    1 if chunk else None,
    group,
  )
  norm = np.linalg.norm(np.asarray(got.sum["a"], np.float64))
  assert norm <= rule.clip_norm * (1 + 1e-7)
  assert norm >= rule.clip_norm * (1 - 1e-4)


@pytest.mark.parametrize(("engine", "chunk"), ENGINES)
def test_bfloat16_gradients_are_clipped_in_float32(engine, chunk):
  """Rounding the clipped gradient to bfloat16 would lift it above C."""
  rng = np.random.default_rng(3)
  examples = jnp.asarray(rng.normal(size=(SLOTS, 64)), jnp.bfloat16)
  for i in range(SLOTS):
    lot = privacy.Lot(
      examples=examples[i : i + 1],
      valid=jnp.ones(1, bool),
      ids=jnp.zeros(1, jnp.int32),
    )
    got = clipped(
      quadratic,
      privacy.ThresholdClip(),
      jnp.zeros(64, jnp.bfloat16),
      lot,
      engine,
      1 if chunk else None,
    )
    assert got.sum.dtype == jnp.float32
    assert np.linalg.norm(np.asarray(got.sum, np.float64)) <= 1.0


@pytest.mark.parametrize(("engine", "chunk"), ENGINES)
def test_a_record_keeps_its_key_wherever_it_sits(engine, chunk):
  lot = network_lot(num_valid=SLOTS)
  order = np.random.default_rng(5).permutation(SLOTS)
  moved = jax.tree.map(lambda leaf: leaf[order], lot)
  args = (network, privacy.ThresholdClip(clip_norm=0.3), network_params())
  there = clipped(*args, lot, engine, chunk)
  back = clipped(*args, moved, engine, chunk)
  np.testing.assert_allclose(back.losses, there.losses[order], rtol=1e-6)
  chex.assert_trees_all_close(back.sum, there.sum, rtol=1e-5, atol=1e-7)
  other_key = clipped(*args, lot, engine, chunk, key=8)
  assert np.max(np.abs(other_key.losses - there.losses)) > 1e-3


@pytest.mark.parametrize(("engine", "chunk"), ENGINES)
class TestKnownAnswers:
  def test_opposed_gradients(self, engine, chunk):
    """KAT-3: clipped alone they cancel; averaged first they do not."""
    gradients = [[-10.0, 0.0], [30.0, 0.0]]
    alone = clipped_quadratic(gradients, engine, chunk)
    np.testing.assert_allclose(alone, [0, 0], atol=1e-6)
    group = clipped_quadratic(gradients, engine, chunk, 4)
    np.testing.assert_allclose(group, [1, 0], atol=2e-6)

  @pytest.mark.parametrize("change", ["zeroed", "replaced"])
  def test_a_clip_group_has_sensitivity_2c(self, engine, chunk, change):
    """KAT-4: one record moves the clipped mean from one pole to the other."""
    before = clipped_quadratic([[-10.0], [30.0]], engine, chunk, 4)
    if change == "zeroed":
      after = clipped_quadratic(
        [[-10.0], [30.0]], engine, chunk, 4, valid=[True, False]
      )
    else:
      after = clipped_quadratic([[-10.0], [-30.0]], engine, chunk, 4)
    moved = (before - after)[0]
    np.testing.assert_allclose(moved, 2.0, rtol=1e-5)
    assert moved <= privacy.ThresholdClip().sensitivity((), 4, "zero_out")

  def test_scalar_quadratic(self, engine, chunk):
    """Norms 1, 2, 5 clipped at 2.5, with and without a mask."""
    gradients = [[1.0], [-2.0], [-5.0]]
    rule = privacy.ThresholdClip(clip_norm=2.5)
    for valid, want in (
      ([True, True, True], -3.5),
      ([True, False, False], 1.0),
      ([False, False, False], 0.0),
    ):
      got = clipped_quadratic(gradients, engine, chunk, rule=rule, valid=valid)
      np.testing.assert_allclose(got, [want], rtol=2e-6)

  @pytest.mark.parametrize(("bound", "want"), [(1.25, 1.75), (1e30, 7.0)])
  def test_optax_documentation_example(self, engine, chunk, bound, want):
    gradients = [[0, 0, 0], [0, 3, 4], [4, 0, 3], [3, 4, 0]]
    rule = privacy.ThresholdClip(clip_norm=bound)
    got = clipped_quadratic(gradients, engine, chunk, rule=rule)
    np.testing.assert_allclose(got, [want] * 3, rtol=2e-6)

  @pytest.mark.parametrize(
    ("gamma", "want"), [(0.01, [0.598802, 0.798403]), (0.0, [0.6, 0.8])]
  )
  def test_automatic_clipping(self, engine, chunk, gamma, want):
    """KAT-10, and 0 / 0 = 0 for AUTO-V."""
    rule = privacy.AutoClip(gamma=gamma)
    got = clipped_quadratic([[3.0, 4.0]], engine, chunk, rule=rule)
    np.testing.assert_allclose(got, want, rtol=3e-6)
    zero = clipped_quadratic([[0.0, 0.0]], engine, chunk, rule=rule)
    np.testing.assert_array_equal(zero, [0.0, 0.0])


def test_group_of_one_is_dp_sgd():
  """KAT-2: clip groups with one slot each equal per-record clipping."""
  lot = network_lot()
  args = (network, privacy.ThresholdClip(clip_norm=0.3), network_params())
  alone = clipped(*args, lot, "loop")
  grouped = clipped(*args, as_groups(lot, 1), "vmap", None, 2)
  chex.assert_trees_all_close(grouped.sum, alone.sum, rtol=1e-6, atol=1e-7)


def test_a_nonfinite_record_takes_its_whole_group_with_it():
  gradients = np.ones((SLOTS, DIM), np.float32)
  gradients[1, 0] = np.nan
  got = clipped(
    quadratic,
    privacy.ThresholdClip(),
    jnp.zeros(DIM),
    gradient_lot(gradients, groups=(2, 4)),
    "vmap",
    None,
    4,
  )
  np.testing.assert_allclose(got.sum, np.ones(DIM) / np.sqrt(3), rtol=1e-5)
  assert int(got.num_nonfinite) == 1


def test_chunks_behind_the_last_record_are_not_run():
  """A huge lot with one record costs one chunk: counted by a callback."""
  calls = []

  def counting_loss(params, example, key):
    jax.debug.callback(lambda _: calls.append(1), example[0])
    return quadratic(params, example, key)

  lot = gradient_lot(np.ones((64, DIM)), valid=np.arange(64) < 1)
  got = clipped(
    counting_loss, privacy.ThresholdClip(), jnp.zeros(DIM), lot, "vmap", 4
  )
  jax.block_until_ready(got)
  jax.effects_barrier()
  assert len(calls) == 4


@pytest.mark.parametrize(
  "filled", [(0, 3), pytest.param((8, 12), marks=pytest.mark.slow)]
)
@pytest.mark.parametrize(
  ("engine", "chunk"),
  [
    pytest.param(*engine, marks=pytest.mark.slow if engine == WHOLE else ())
    for engine in ENGINES[1:]  # Slots are cut off before groups are chunked.
  ],
)
def test_groups_with_empty_last_slots_equal_the_loop(engine, chunk, filled):
  """Groups of 12 slots run on 8 where no record sits behind."""
  lot = as_groups(network_lot(num_valid=0, slots=24), 12)
  valid = np.arange(12) < np.array(filled)[:, None]
  lot = dataclasses.replace(lot, valid=jnp.asarray(valid))
  args = (network, privacy.AutoClip(), network_params(), lot)
  got = clipped(*args, engine, chunk and 1, 8)
  want = clipped(*args, "loop", None, 8)
  # Book-keeping's norms bound the rounding of its sums, slot by slot.
  chex.assert_trees_all_close(got, want, rtol=3e-5, atol=1e-6)


def test_a_hole_in_a_group_is_not_its_end():
  lot = as_groups(network_lot(num_valid=0, slots=12), 12)
  valid = np.isin(np.arange(12), [0, 3, 11])[None]
  lot = dataclasses.replace(lot, valid=jnp.asarray(valid))
  args = (network, privacy.AutoClip(), network_params(), lot)
  got = clipped(*args, "scan", None, 8)
  want = clipped(*args, "loop", None, 8)
  assert np.count_nonzero(np.asarray(got.losses)) == 3
  chex.assert_trees_all_close(got, want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
  ("filled", "records"), [((8, 5), 16), ((9, 8), 20), ((0, 0), 0)]
)
def test_empty_last_slots_of_groups_are_not_run(filled, records):
  calls = []

  def counting_loss(params, example, key):
    jax.debug.callback(lambda _: calls.append(1), example[0])
    return quadratic(params, example, key)

  lot = gradient_lot(
    np.ones((24, DIM)),
    valid=np.arange(12) < np.array(filled)[:, None],
    groups=(2, 12),
  )
  got = clipped(
    counting_loss,
    privacy.ThresholdClip(),
    jnp.zeros(DIM),
    lot,
    "scan",
    None,
    8,
  )
  jax.block_until_ready(got)
  jax.effects_barrier()
  assert len(calls) == records


def test_the_loop_compiles_its_unit_once():
  traces = []

  def loss_fn(params, example, key):
    traces.append(1)
    return quadratic(params, example, key)

  lot = gradient_lot(np.ones((SLOTS, DIM)))
  fn = privacy.clipped_grad(loss_fn, privacy.ThresholdClip(), engine="loop")
  for _ in range(3):
    fn(jnp.zeros(DIM), lot, jax.random.key(0), ())
  assert len(traces) == 1


def test_one_program_serves_every_lot():
  chex.clear_trace_counter()
  rule = privacy.ThresholdClip()
  inner = privacy.clipped_grad(network, rule, engine="vmap", chunk_size=4)

  @jax.jit
  @chex.assert_max_traces(n=1)
  def fn(params, lot, key):
    return inner(params, lot, key, ())

  for num_valid in (0, 3, 8):
    fn(network_params(), network_lot(num_valid), jax.random.key(0))


class TestBadInput:
  def run(self, lot=None, **options):
    fn = privacy.clipped_grad(quadratic, privacy.ThresholdClip(), **options)
    lot = lot or gradient_lot(np.ones((SLOTS, DIM)))
    return fn(jnp.zeros(DIM), lot, jax.random.key(0), ())

  def test_unknown_engine(self):
    with pytest.raises(ValueError, match="engine: got 'ghost'; allowed are"):
      self.run(engine="ghost")

  def test_chunk_size_that_does_not_divide(self):
    with pytest.raises(
      ValueError, match="chunk_size: got 3, which does not divide.* 8 slots"
    ):
      self.run(engine="vmap", chunk_size=3)

  @pytest.mark.parametrize("engine", ["loop", "scan"])
  def test_chunks_of_an_engine_that_has_none(self, engine):
    with pytest.raises(ValueError, match="chunk_size: got 4.* only None or 1"):
      self.run(engine=engine, chunk_size=4)

  def test_axes_that_do_not_fit(self):
    with pytest.raises(ValueError, match=r"lot.valid: got shape \(8,\)"):
      self.run(clip_group_size=2)

  def test_examples_that_do_not_fit(self):
    lot = privacy.Lot(
      examples={"x": jnp.ones((4, DIM))},
      valid=jnp.ones(SLOTS, bool),
      ids=jnp.zeros(SLOTS, jnp.int32),
    )
    with pytest.raises(ValueError, match=r"lot.examples\['x'\]: got shape"):
      self.run(lot)
