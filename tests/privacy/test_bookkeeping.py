"""Book-keeping on every kind of loss, against per-record gradients."""

import chex
import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tests.compilation import hurried_compilation  # noqa: F401
from trustjax import privacy
from trustjax.privacy._engines import _bookkeeping, _unit

UNITS, TIME, DIM, VOCAB = 5, 6, 4, 11


def weights(*shape, seed=0):
  return 0.5 * jax.random.normal(jax.random.key(seed), shape)


def record_lot():
  rng = np.random.default_rng(0)
  return privacy.Lot(
    examples={
      "x": jnp.asarray(rng.normal(size=(UNITS, TIME, DIM)), jnp.float32),
      # Few ids in use, so that they repeat inside a record.
      "ids": jnp.asarray(rng.integers(0, 4, (UNITS, TIME)), jnp.int32),
      "label": jnp.asarray(rng.integers(0, 3, UNITS), jnp.int32),
    },
    valid=jnp.arange(UNITS) < UNITS - 1,
    ids=jnp.arange(UNITS, dtype=jnp.int32),
  )


CASES = {}


def case(params, **routes):
  """Registers a loss `fn(params, example, key) -> scalar` with its routes."""

  def register(fn):
    name = fn.__name__.strip("_")
    CASES[name] = (lambda p, e, k: (fn(p, e, k), None), params, routes)
    return fn

  return register


def score(hidden):
  """A loss in which every entry and every position matters differently."""
  slope = jnp.linspace(0.5, 1.5, hidden.size).reshape(hidden.shape)
  return jnp.sum(jnp.sin(hidden) * slope)


@case({"w": weights(DIM, 3), "b": weights(3)}, w="site", b="site")
def _linear(p, e, k):
  return score(e["x"] @ p["w"] + p["b"][None, :])


@case({"w": weights(3, DIM)}, w="site")
def _parameters_on_the_left(p, e, k):
  return score(p["w"] @ e["x"].T)


@case({"w": weights(3, DIM)}, w="site")
def _transposed_and_reshaped(p, e, k):
  return score(e["x"] @ jnp.reshape(p["w"].T, (DIM, 3, 1))[:, ::-1, 0])


@case({"w": weights(DIM, 2, 3), "o": weights(2, 3, DIM)}, w="site", o="site")
def _attention_kernels(p, e, k):
  heads = jnp.einsum("td,dhk->thk", e["x"], p["w"])
  mixed = jax.nn.softmax(jnp.einsum("thk,shk->hts", heads, heads))
  heads = jnp.einsum("hts,shk->thk", mixed, heads)
  return score(jnp.einsum("thk,hkd->td", heads, p["o"]))


@case({"w": weights(2, DIM, 3)}, w="site")
def _experts(p, e, k):
  return score(jnp.einsum("etd,edp->etp", jnp.stack([e["x"], -e["x"]]), p["w"]))


@case({"table": weights(VOCAB, DIM), "w": weights(DIM, 3)}, table="site")
def _embedding(p, e, k):
  return score(p["table"][e["ids"]] @ p["w"])


@case({"table": weights(DIM, VOCAB)}, table="site")
def _embedding_by_columns(p, e, k):
  return score(p["table"][:, e["ids"]])


@case({"table": weights(3, DIM)}, table="site")
def _embedding_of_rows_that_do_not_exist(p, e, k):
  rows = p["table"].at[e["ids"]].get(mode="fill", fill_value=0.5)
  return score(rows) + score(jnp.take(p["table"], e["ids"], 0, mode="clip"))


@case({"table": weights(VOCAB, DIM)}, table="site")
def _one_row_by_a_traced_index(p, e, k):
  return score(e["x"] @ p["table"][e["label"]])


@case({"table": weights(VOCAB, DIM)}, table="site")
def _tied(p, e, k):
  return score(jnp.tanh(p["table"][e["ids"]]) @ p["table"].T)


@case({"table": weights(DIM, VOCAB)}, table="site")
def _tied_with_the_product_first(p, e, k):
  scores = jnp.tanh(e["x"] @ p["table"])
  return score(scores) + score(p["table"].T[e["ids"]])


@case({"table": weights(VOCAB, DIM)}, table="site")
def _a_gather_that_keeps_the_row_axis(p, e, k):
  rows = jax.lax.gather(
    p["table"],
    e["ids"][:, None],
    jax.lax.GatherDimensionNumbers(
      offset_dims=(1, 2), collapsed_slice_dims=(), start_index_map=(0,)
    ),
    slice_sizes=(1, DIM),
  )
  return score(jnp.tanh(rows))


@case({"w": weights(DIM, DIM)}, w="site")
def _one_matrix_three_times(p, e, k):
  hidden = jnp.tanh(e["x"] @ p["w"])
  return score(jnp.tanh(hidden @ p["w"].T) @ p["w"])


@case({"w": weights(DIM, 2, 3)}, w="explicit")
def _used_with_different_axes(p, e, k):
  once = jnp.einsum("td,dhk->thk", e["x"], p["w"])
  return score(once) + score(
    jnp.einsum("td,th,dhk->tk", e["x"], once[..., 0], p["w"])
  )


@case({"table": weights(9, DIM), "scale": weights(DIM)}, table="site")
def _positions_and_layer_norm(p, e, k):
  x = e["x"] + p["table"][:TIME]
  x = x - jnp.mean(x, axis=-1, keepdims=True)
  x = x * jax.lax.rsqrt(jnp.mean(x**2, axis=-1, keepdims=True) + 1e-6)
  return score(x * p["scale"])


@case(
  {"wx": weights(DIM, 8), "wh": weights(2, 8), "b": weights(8)},
  wx="site",
  wh="site",
  b="explicit",
)
def _lstm(p, e, k):
  def step(carry, x):
    h, c = carry
    gates = x @ p["wx"] + h @ p["wh"] + p["b"]
    i, f, g, o = jnp.split(gates, 4)
    c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
    h = jax.nn.sigmoid(o) * jnp.tanh(c)
    return (h, c), h

  return score(jax.lax.scan(step, (jnp.zeros(2), jnp.zeros(2)), e["x"])[1])


@case({"a": weights(DIM, 2), "b": weights(DIM, 3)}, a="site", b="site")
def _joined_kernels(p, e, k):
  return score(e["x"] @ jnp.concatenate([p["a"], p["b"]], axis=1))


@case({"w": weights(3, DIM, DIM), "b": weights(3, DIM)}, w="site")
def _stacked_layers(p, e, k):
  def layer(x, now):
    return jnp.tanh(x @ now["w"] + now["b"][None, :]), None

  return score(jax.lax.scan(layer, e["x"], p)[0])


@case({"w": weights(3, DIM, DIM), "v": weights(DIM, DIM)}, w="site", v="site")
def _time_inside_of_layers(p, e, k):
  def layer(x, w):
    def step(h, row):
      h = jnp.tanh(row @ w + h @ p["v"])
      return h, h

    return jax.lax.scan(step, jnp.zeros(DIM), x, reverse=True)[1], None

  return score(jax.lax.scan(layer, e["x"], p["w"])[0])


@case({"w": weights(DIM, DIM)}, w="site")
def _parameters_in_a_carry(p, e, k):
  def step(w, x):
    return 0.9 * w, x @ w

  return score(jax.lax.scan(step, p["w"], e["x"])[1])


@case({"w": weights(DIM, 3)}, w="site")
def _jit_and_remat(p, e, k):
  inner = jax.jit(jax.checkpoint(lambda w, x: jax.nn.gelu(x @ w)))
  return score(inner(p["w"], e["x"]))


@case({"w": weights(3, DIM, 5)}, w="site")
def _convolution_over_time(p, e, k):
  return score(
    jax.lax.conv_general_dilated(
      e["x"][None],
      p["w"],
      (2,),
      [(2, 1)],
      rhs_dilation=(2,),
      dimension_numbers=("NTC", "TIO", "NTC"),
    )
  )


@case({"w": weights(5, 1, 2, 3)}, w="site")
def _convolution_of_an_image(p, e, k):
  image = e["x"][None, None]
  return score(jax.lax.conv_general_dilated(image, p["w"], (1, 1), "SAME"))


@case({"w": weights(DIM, 3), "g": weights(3)}, w="explicit", g="site")
def _weight_norm(p, e, k):
  return score(e["x"] @ (p["g"] * p["w"] / jnp.linalg.norm(p["w"])))


@case({"w": weights(DIM, 3)}, w="explicit")
def _regulariser(p, e, k):
  return score(e["x"] @ p["w"]) + 0.1 * jnp.sum(jnp.square(p["w"]))


@case({"w": weights(DIM, 3)}, w="site")
def _branches(p, e, k):
  return jax.lax.cond(
    e["label"] > 0,
    lambda w: score(e["x"] @ w),
    lambda w: score(jnp.tanh(e["x"] @ w)),
    p["w"],
  )


@case({"a": weights(DIM, 2), "b": weights(2, 3)}, a="site", b="site")
def _low_rank_update(p, e, k):
  return score(e["x"] @ p["a"] @ p["b"])


@case({"a": weights(DIM, 2), "b": weights(2, 3)})
def _merged_low_rank_update(p, e, k):
  return score(e["x"] @ (p["a"] @ p["b"]))


@case({"w": weights(DIM, 3)}, w="site")
def _dropout(p, e, k):
  keep = jax.random.bernoulli(k, 0.5, e["x"].shape)
  return score(jnp.where(keep, e["x"], 0.0) @ p["w"])


@jax.custom_vjp
def hidden_product(x, w):
  return x @ w


hidden_product.defvjp(
  lambda x, w: (x @ w, (x, w)),
  lambda kept, out: (out @ kept[1].T, kept[0].T @ out),
)


@case({"w": weights(DIM, 3)}, w="site")
def _custom_vjp(p, e, k):
  return score(hidden_product(e["x"], p["w"]))


@case({"w": weights(DIM, 3), "idle": weights(7)}, w="site", idle="unused")
def _unused_leaf(p, e, k):
  return score(e["x"] @ p["w"])


@case({"w": weights(DIM, 3), "v": weights(DIM, 3)}, w="site", v="unused")
def _a_head_that_nobody_reads(p, e, k):
  heads = [e["x"] @ p[name] for name in ("w", "v")]
  return score(heads[0])


@case({"w": weights(DIM, 3)}, w="site")
def _a_complex_product(p, e, k):
  return score(jnp.real((e["x"] + 1j * e["x"][::-1]) @ (p["w"] + 0j)))


@case({"w": weights(DIM, 3)})
def _mixed_complex_product(p, e, k):
  product = jax.lax.dot_general(
    e["x"] * (1 + 2j),
    p["w"],
    (((1,), (0,)), ((), ())),
    preferred_element_type=jnp.complex64,
  )
  return score(jnp.imag(product))


@case({"table": weights(VOCAB, DIM)}, table="site")
def _a_large_unsigned_index(p, e, k):
  row = jax.lax.dynamic_slice(
    p["table"], (jnp.uint32(4294967295), jnp.uint32(0)), (1, DIM)
  )
  return score(row) + score(e["x"])


@case({"w": weights(DIM, 3)}, w="site")
def _a_print(p, e, k):
  jax.debug.callback(lambda w: None, p["w"])
  return score(e["x"] @ p["w"])


@case({"w": weights(DIM, 3)}, w="unused")
def _no_parameter_at_all(p, e, k):
  return score(e["x"])


@case({"w": weights(0, DIM, 3), "v": weights(DIM, 3)}, v="site")
def _no_layers_at_all(p, e, k):
  def layer(x, w):
    return x, jnp.sum(x @ w)

  x, sums = jax.lax.scan(layer, e["x"], p["w"])
  return score(x @ p["v"]) + jnp.sum(sums)


@case({"c": weights()}, c="site")
def _the_loss_is_a_parameter(p, e, k):
  return p["c"]


@case({"w": weights(DIM, 3)}, w="site")
def _stopped_gradient(p, e, k):
  w = jax.lax.stop_gradient(p["w"])
  return score(e["x"] @ w)


def nested(module, rngs_seed=0):
  """An nnx module as parameters and a function to rebuild it."""
  graph, params = nnx.split(module(nnx.Rngs(rngs_seed)), nnx.Param)
  return params, lambda p: nnx.merge(graph, p)


def library_case(name, params, fn):
  CASES[name] = (lambda p, e, k: (score(fn(p, e["x"])), None), params, {})


def add_library_cases():
  attention = nn.MultiHeadDotProductAttention(num_heads=2)
  x = jnp.zeros((TIME, DIM))
  library_case(
    "linen_attention",
    attention.init(jax.random.key(0), x, x),
    lambda p, x: attention.apply(p, x, x),
  )
  for cell_type in (nn.OptimizedLSTMCell, nn.LSTMCell, nn.GRUCell):
    rnn = nn.RNN(cell_type(features=3))
    library_case(
      f"linen_{cell_type.__name__}", rnn.init(jax.random.key(0), x), rnn.apply
    )
  for name, module in {
    "nnx_mlp": lambda rngs: nnx.Sequential(
      nnx.Linear(DIM, 5, rngs=rngs), jax.nn.relu, nnx.Linear(5, 3, rngs=rngs)
    ),
    "nnx_conv": lambda rngs: nnx.Conv(DIM, 3, (3,), rngs=rngs),
  }.items():
    params, build = nested(module)
    library_case(name, params, lambda p, x, build=build: build(p)(x))
  key = jax.random.key(0)
  for name, module, call in (
    (
      "equinox_mlp",
      eqx.nn.MLP(DIM, 3, 5, 2, key=key),
      lambda module, x: jax.vmap(module)(x),
    ),
    (
      "equinox_attention",
      eqx.nn.MultiheadAttention(2, DIM, key=key),
      lambda module, x: module(x, x, x),
    ),
  ):
    params, static = eqx.partition(module, eqx.is_inexact_array)
    library_case(
      name,
      params,
      lambda p, x, static=static, call=call: call(eqx.combine(p, static), x),
    )


add_library_cases()


def run(engine, loss_fn, params, lot=None, rule=None, **options):
  rule = rule or privacy.ThresholdClip(clip_norm=0.5)
  fn = privacy.clipped_grad(loss_fn, rule, engine=engine, **options)
  fn = fn if engine == "loop" else jax.jit(fn)
  return fn(params, lot or record_lot(), jax.random.key(3), rule.init())


def assert_sums_close(got, want, rtol=1e-5):
  """Relative to the largest entry of all leaves, as a sum is used."""
  largest = max(
    float(jnp.max(jnp.abs(leaf), initial=0.0)) for leaf in jax.tree.leaves(want)
  )
  chex.assert_trees_all_close(got, want, rtol=0, atol=rtol * largest)


def routes_of(loss_fn, params):
  lot = record_lot()
  program = _bookkeeping.TappedLoss(
    _unit.make_loss(loss_fn, grouped=False),
    params,
    jax.tree.map(lambda leaf: leaf[0], lot),
    jax.random.key(0),
  )
  names = [
    jax.tree_util.keystr(path, simple=True)
    for path, _ in jax.tree_util.tree_leaves_with_path(params)
  ]
  found = {names[leaf]: "explicit" for leaf in program.routes.explicit}
  found |= {names[leaf]: "unused" for leaf in program.routes.unused}
  return {name: found.get(name, "site") for name in names}


FLAT = privacy.ThresholdClip(clip_norm=0.5)
# Leaves that are clipped apart, also where a site joins them.
APART = privacy.PerLayerClip(scale="equal")


@pytest.mark.parametrize(
  ("name", "rule"),
  [(name, FLAT) for name in CASES]
  + [(n, APART) for n in ("joined_kernels", "tied", "lstm", "stacked_layers")],
  ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_equals_the_loop(name, rule):
  loss_fn, params, _ = CASES[name]
  with jax.numpy_rank_promotion("allow"):
    got = run("bookkeeping", loss_fn, params, rule=rule)
    want = run("loop", loss_fn, params, rule=rule)
  assert_sums_close(got.sum, want.sum)
  np.testing.assert_allclose(got.norms, want.norms, rtol=1e-5, atol=1e-6)
  np.testing.assert_allclose(got.losses, want.losses, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", [n for n in CASES if CASES[n][2]])
def test_takes_the_expected_route(name):
  loss_fn, params, expected = CASES[name]
  with jax.numpy_rank_promotion("allow"):
    routes = routes_of(loss_fn, params)
  assert {key: routes[key] for key in expected} == expected


@pytest.mark.parametrize("name", ["linear", "lstm", "tied", "stacked_layers"])
def test_clip_groups(name):
  """A group is one unit: its slots only add positions."""
  loss_fn, params, _ = CASES[name]
  lot = jax.tree.map(
    lambda leaf: jnp.reshape(
      jnp.stack([leaf, leaf[::-1]]), (2, 5, *leaf.shape[1:])
    ),
    record_lot(),
  )
  got, want = (
    run(engine, loss_fn, params, lot, clip_group_size=4)
    for engine in ("bookkeeping", "vmap")
  )
  assert_sums_close(got.sum, want.sum)
  np.testing.assert_allclose(got.norms, want.norms, rtol=1e-5)


def test_reduced_precision_sums_in_float32():
  """The books are exact for the gradients that bfloat16 produced."""

  def loss_fn(p, e, k):
    w, x = p["w"].astype(jnp.bfloat16), e["x"].astype(jnp.bfloat16)
    return score(jnp.tanh(x @ w).astype(jnp.float32)), None

  params = {"w": weights(DIM, 3)}
  got = run("bookkeeping", loss_fn, params)
  assert got.sum["w"].dtype == jnp.float32
  assert routes_of(loss_fn, params) == {"w": "site"}
  # The other engines round each record's gradient to bfloat16; ours does not.
  want = run("loop", loss_fn, params)
  assert_sums_close(got.sum, want.sum, rtol=1e-2)
  np.testing.assert_allclose(got.norms, want.norms, rtol=1e-2)


def test_no_retracing_over_poisson_lots():
  loss_fn, params, _ = CASES["embedding"]
  fn = jax.jit(
    chex.assert_max_traces(
      privacy.clipped_grad(
        loss_fn, privacy.ThresholdClip(), engine="bookkeeping", chunk_size=1
      ),
      n=1,
    )
  )
  rng = np.random.default_rng(0)
  for step in range(50):
    lot = record_lot()
    lot = privacy.Lot(
      examples=lot.examples, valid=rng.random(UNITS) < 0.5, ids=lot.ids
    )
    got = fn(params, lot, jax.random.key(step), ())
  assert np.all(np.isfinite(got.sum["w"]))


def test_closed_over_frozen_and_passed_frozen_agree():
  loss_fn, params, _ = CASES["low_rank_update"]
  trained, frozen = privacy.partition(params, "b")
  rule = privacy.ThresholdClip(clip_norm=0.5)
  sums = []
  for engine in ("loop", "scan", "vmap", "bookkeeping", "auto"):
    fn = privacy.clipped_grad(loss_fn, rule, engine=engine)
    got = fn(trained, record_lot(), jax.random.key(0), (), frozen=frozen)
    assert got.sum["a"] is None
    sums.append(got.sum["b"])
  for other in sums[1:]:
    np.testing.assert_allclose(other, sums[0], rtol=1e-5)
