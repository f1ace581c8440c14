"""Norms and sums in what an accelerator multiplies in: bounds all the same.

The units of an accelerator are imitated at their worst: every addition cuts
off, and every entry of TF32 is cut off as well. Constant vectors lose the same
in every term.
"""

import dataclasses
import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from trustjax import models, privacy, training
from trustjax.privacy._engines import _float64
from trustjax.privacy._engines._bookkeeping import (
  _factors,
  _norms,
  _reduced,
  _sites,
)

UNITS = {"bfloat16": _reduced.BFLOAT16, "tfloat32": _reduced.TFLOAT32}


def cut(values, bits):
  """Cuts float64 numbers off after so many significant bits."""
  mantissa, exponent = np.frexp(values)
  return np.ldexp(np.trunc(np.ldexp(mantissa, bits)), exponent - bits)


def cut_sum(a, b):
  """(a_t . b_s) [..., t, s], one product after the other, cut to float32."""
  total = np.zeros((*a.shape[:-1], b.shape[-2]))
  for left, right in zip(np.moveaxis(a, -1, 0), np.moveaxis(b, -1, 0)):
    total = cut(total + left[..., :, None] * right[..., None, :], 24)
  return total


@pytest.fixture
def worst_units(monkeypatch):
  """Scalar products as the worst units would take them, in NumPy."""

  def multiply(subscripts, units, a, b):
    del subscripts
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if units is _reduced.BFLOAT16:
      return jnp.asarray(cut_sum(a, b), jnp.float32)
    # Three products of bfloat16 halves.
    a_high, b_high = cut(a, 8), cut(b, 8)
    a_low, b_low = cut(a - a_high, 8), cut(b - b_high, 8)
    parts = [(a_high, b_high), (a_high, b_low), (a_low, b_high)]
    return jnp.asarray(sum(cut_sum(x, y) for x, y in parts), jnp.float32)

  monkeypatch.setattr(_reduced, "_multiply", multiply)


def added(units, parts, factor):
  """What one unit adds to the clipped sum, as the units would form it."""
  bits = 8 if units is _reduced.BFLOAT16 else 11
  rows = max(part.left.shape[-1] for part in parts if not part.is_index)
  total = 0.0
  for part in parts:
    left, right = (np.asarray(x[0, 0]) for x in (part.left, part.right))
    if part.is_index:
      left = np.eye(rows)[left]
      total += left.T @ (np.float32(factor) * right.astype(np.float64))
      continue
    sides = [left.astype(np.float64), right.astype(np.float64)]
    scaled = 0 if part.scales_left else 1
    sides[scaled] = np.asarray(
      np.float32(factor) * sides[scaled].astype(np.float32), np.float64
    )
    # bfloat16 is rounded to nearest, TF32 is cut off.
    if units is _reduced.BFLOAT16:
      sides[scaled] = np.asarray(
        jnp.asarray(sides[scaled], jnp.bfloat16), np.float64
      )
    else:
      sides = [cut(side, bits) for side in sides]
    total += sides[0].T @ sides[1]
  return total


def opposed(rng, kind, positions, rows, cols):
  """Positions of two kinds that nearly cancel: (inputs, cotangents)."""
  is_few = np.arange(positions) < positions // 4
  sign = np.where(is_few, 3.0, -1.0)
  if kind == "constant":
    one, right = np.full(rows, rng.uniform(0.5, 1)), np.full(cols, 0.7)
    other = one * 1.01
  else:
    one, right = np.abs(rng.normal(size=rows)), np.abs(rng.normal(size=cols))
    other = one * (1 + 1e-2 * rng.normal(size=rows))
  return np.where(is_few[:, None], one, other), sign[:, None] * right


def one_unit(left, right, units, *, is_index=False):
  left = jnp.asarray(left, jnp.int32 if is_index else units.dtype)
  right = jnp.asarray(right, units.dtype)
  return _sites.Factors(
    left=left[None, None], right=right[None, None], is_index=is_index
  )


def gradient(parts):
  """The gradient of one unit in float64."""
  rows = max(part.left.shape[-1] for part in parts if not part.is_index)
  total = 0.0
  for part in parts:
    left, right = np.asarray(part.left[0, 0]), np.asarray(part.right[0, 0])
    left = np.eye(rows)[left] if part.is_index else left.astype(np.float64)
    total += left.T @ right.astype(np.float64)
  return total


def bound(units, parts):
  with jax.enable_x64(True):
    return float(_reduced.norms(units, parts)[0])


CASES = [
  ("constant", 8, 300, 100),
  ("half_normal", 8, 100, 300),
  ("constant", 16, 64, 64),
  ("half_normal", 4, 4500, 8),
]


@pytest.mark.parametrize("name", UNITS)
@pytest.mark.parametrize(("kind", "positions", "rows", "cols"), CASES)
def test_what_is_added_is_no_longer_than_the_bound(
  worst_units, name, kind, positions, rows, cols
):
  units = UNITS[name]
  for seed in range(2):
    rng = np.random.default_rng(seed)
    part = one_unit(*opposed(rng, kind, positions, rows, cols), units)
    norm = bound(units, [part])
    assert norm >= np.linalg.norm(gradient([part]))
    length = np.linalg.norm(added(units, [part], 1.0 / norm))
    # What is left of these records after cancelling is 1 % of them.
    assert 0.1 < length <= 1.0


OPPOSED = np.array([[1 + 2**-7] * 2, [1.0] * 2])
HALVES = np.array([[1.0] * 8, [-0.5] * 8])
SIGNS = np.array([[1.0, 1.0], [1.0, -1.0]])
NEAR_ONE = np.array([[1 + 2**-7 - 2**-15] * 8, [1.0] * 8])
# Factors by which 1 is rounded up, or down, by nearly half a bit of bfloat16.
UP, DOWN = 1 + 2**-8 + 2**-20, 1 + 2**-8 - 2**-20


@pytest.mark.parametrize(
  ("name", "left", "right", "factor", "least"),
  [
    # Every scaled entry is off by as much as it can be.
    ("bfloat16", np.ones((1, 8)), np.ones((1, 8)), UP, 0.999),
    ("bfloat16", SIGNS, np.ones((2, 8)), UP, 0.99),
    ("bfloat16", np.ones((2, 8)), SIGNS, UP, 0.99),
    # Positions that oppose each other in one of the Gram matrices.
    ("bfloat16", OPPOSED, HALVES, DOWN, 0.99),
    ("bfloat16", HALVES, OPPOSED, DOWN, 0.99),
    # What the lesser halves lose is all that is left of the record.
    ("tfloat32", NEAR_ONE, np.array([[1.0], [-1.0]]), 1.0, 0.1),
  ],
)
def test_entries_at_their_worst(worst_units, name, left, right, factor, least):
  """Records that leave nothing between what is added and the bound."""
  units = UNITS[name]
  part = one_unit(left, right, units)
  length = np.linalg.norm(added(units, [part], factor)) / factor
  length = max(length, np.linalg.norm(gradient([part])))
  assert least < length / bound(units, [part]) <= 1.0


def test_the_narrower_side_is_scaled(monkeypatch):
  """The bounds are of the side that `scales_left` names."""
  seen = []
  monkeypatch.setattr(
    _factors, "_product", lambda _, *sides: seen.append(sides) or 0.0
  )
  for rows, cols, scaled in ((2, 3, 0), (3, 2, 1), (2, 2, 1)):
    part = one_unit(np.ones((4, rows)), np.ones((4, cols)), UNITS["bfloat16"])
    zeros = jnp.zeros((1, rows, cols))
    _factors.add_weighted_sum(zeros, [part], jnp.asarray([0.5]))
    sides = seen.pop()
    assert part.scales_left == (scaled == 0)
    errors = _reduced._entry_errors(_reduced.BFLOAT16, [part])
    assert errors[scaled] == 2.0**-8 and errors[1 - scaled] == 0.0
    assert jnp.all(sides[scaled] == 0.5) and jnp.all(sides[1 - scaled] == 1.0)


def test_rounding_is_kept_where_types_are_mixed_or_positions_are_one():
  """Else a compiler may round for the sum and not for the norm."""
  half, full = jnp.ones((3, 1, 2, 4), jnp.bfloat16), jnp.ones((3, 1, 2, 4))
  cases = [
    (_reduced.TFLOAT32, _sites.Factors(left=half, right=full)),
    (
      _reduced.BFLOAT16,
      _sites.Factors(left=half[:, :, :1], right=half[:, :, :1]),
    ),
  ]
  for units, part in cases:
    here = dataclasses.replace(units, gram_precision=None)
    with jax.enable_x64(True):
      norms = jax.jit(lambda p, here=here: _reduced.norms(here, [p]))
      assert "reduce_precision" in norms.lower(part).as_text()


def test_an_ambient_precision_does_not_reach_the_sum():
  """Its bounds are of the units' own."""
  array = jnp.ones((1, 1, 2, 3))
  with jax.default_matmul_precision("BF16_BF16_F32"):
    product = jax.jit(
      lambda x: _reduced.weighted_product(UNITS["tfloat32"], x, x)
    )
    assert "algorithm" not in product.lower(array).as_text()


@pytest.mark.parametrize("name", UNITS)
def test_several_uses_of_one_table(worst_units, name):
  """Rows that are looked up and the same table as a matrix, cross terms too."""
  units, rng = UNITS[name], np.random.default_rng(0)
  ids = rng.integers(12, size=6)
  right = rng.normal(size=(6, 20))
  parts = [
    one_unit(ids, right, units, is_index=True),
    one_unit(rng.normal(size=(5, 12)), -right[:5], units),
  ]
  norm, exact = bound(units, parts), np.linalg.norm(gradient(parts))
  assert bound(units, parts[::-1]) == pytest.approx(norm, rel=1e-6)
  assert exact <= norm <= 1.05 * exact
  assert 0.9 < np.linalg.norm(added(units, parts, 1.0 / norm)) <= 1.0


@pytest.mark.parametrize(
  ("name", "percent"), [("bfloat16", 1), ("tfloat32", 1)]
)
def test_the_price_is_small_where_positions_do_not_resemble_each_other(
  name, percent
):
  units, rng = UNITS[name], np.random.default_rng(0)
  left, right = rng.normal(size=(32, 768)), rng.normal(size=(32, 256))
  # CPUs have no products of halves; theirs are better than promised.
  part = one_unit(left, right, units)
  here = dataclasses.replace(units, gram_precision=None)
  exact = np.linalg.norm(gradient([part]))
  assert exact <= bound(here, [part]) <= (1 + percent / 100) * exact


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_the_price_on_a_trained_encoder(dtype, monkeypatch):
  """Positions of a real model resemble each other: still about a percent."""
  model = models.make_model(
    "transformer",
    vocab_size=1000,
    num_intents=7,
    num_slots=72,
    max_length=32,
    num_layers=4,
    dim=256,
    num_heads=4,
    ff_dim=1024,
  )
  loss_fn, optimizer = models.losses.joint_loss(model), optax.adam(1e-3)
  tokens = np.random.default_rng(0).integers(1000, size=(512, 32))
  examples = {
    "tokens": tokens.astype(np.int32),
    "mask": np.ones(tokens.shape, bool),
    "intent": (tokens.sum(axis=1) % 7).astype(np.int32),
    "slots": (tokens % 72).astype(np.int32),
  }
  init, step = training.make_step(loss_fn, optimizer, chunk_size=8)
  state = init(model.init(jax.random.key(0)))
  for i in range(100):
    ids = (np.arange(32) + 32 * i).astype(np.int32) % 512
    lot = privacy.Lot(
      examples={name: leaf[ids] for name, leaf in examples.items()},
      valid=np.ones(32, bool),
      ids=ids,
    )
    state, _ = step(state, lot, jax.random.key(1))

  @_float64.batched
  def reduced_norms(parts):
    units = _reduced.units_of(parts)
    units = units.get("default") or units["cuda"]
    # No CPU multiplies halves for a float32.
    return _reduced.norms(
      dataclasses.replace(units, gram_precision=None), parts
    )

  found = []
  for norms in (_norms.norms, reduced_norms):
    monkeypatch.setattr(_norms, "norms", norms)
    clip = privacy.clipped_grad(
      models.in_precision(loss_fn, dtype),
      privacy.ThresholdClip(clip_norm=1.0),
      engine="bookkeeping",
      chunk_size=8,
    )
    got = jax.jit(lambda *args, clip=clip: clip(*args).norms)(
      state.params, lot, jax.random.key(0), ()
    )
    found.append(np.asarray(got, np.float64))
  longer = found[1] / found[0] - 1
  print(f"{dtype}: {longer.mean():.2%} on average, {longer.max():.2%} at most")
  assert np.all(longer > 0) and longer.max() < 0.02


def test_vectors_of_a_vocabulary_are_multiplied_in_pieces():
  """Of one sum over 20,000 entries little could be promised."""
  rng = np.random.default_rng(0)
  probabilities = np.abs(rng.normal(size=(5, 20_000)))
  right = 1.0 + 0.1 * rng.normal(size=(5, 16))
  part = one_unit(probabilities, right, _reduced.BFLOAT16)
  with jax.enable_x64(True):
    product, error = _reduced._gram(_reduced.BFLOAT16, part.left, part.left)
    product = np.asarray(product)
  exact = np.asarray(part.left[0, 0], np.float64)
  lengths = np.linalg.norm(exact, axis=1)
  off = np.abs(product[0, 0] - exact @ exact.T)
  assert error < 2e-4
  assert np.all(off <= error * lengths[:, None] * lengths)


def test_products_too_small_for_float32_are_covered():
  """Squared lengths below 1e-38 on one side, and a gradient that is not."""
  left = np.full((2, 4), 1e-22)
  right = np.full((2, 4), 1e18)
  part = one_unit(left, right, _reduced.BFLOAT16)
  assert bound(_reduced.BFLOAT16, [part]) >= np.linalg.norm(gradient([part]))


def test_sums_agree_with_the_exact_ones():
  """The product of the units, and that of everyone else, on either side."""
  rng = np.random.default_rng(0)
  for rows, cols in ((5, 9), (9, 5)):
    part = _sites.Factors(
      left=jnp.asarray(rng.normal(size=(3, 1, 7, rows)), jnp.bfloat16),
      right=jnp.asarray(rng.normal(size=(3, 1, 7, cols)), jnp.bfloat16),
    )
    weights = jnp.asarray([0.3, 1.0, 0.0])
    zeros = jnp.zeros((1, rows, cols))
    got = jax.jit(_factors.add_weighted_sum)(zeros, [part], weights)
    left, right = (np.asarray(x, np.float64) for x in (part.left, part.right))
    want = np.einsum("uetd,uetp,u->edp", left, right, np.asarray(weights))
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)
    sides = [part.left.astype(jnp.float32), part.right.astype(jnp.float32)]
    sides[0 if part.scales_left else 1] *= weights[:, None, None, None]
    fast = jax.jit(_reduced.weighted_product, static_argnums=0)(
      _reduced.BFLOAT16, *sides
    )
    most = np.einsum("uetd,uetp,u->edp", abs(left), abs(right), weights)
    assert np.all(np.abs(fast - want) <= 2.0**-8 * most + 1e-6)


def products(dtype, *, precision=None, platform="cuda"):
  """Operand types, algorithm and shapes of all products of a clipped sum."""
  with jax.default_matmul_precision(precision):
    model = models.make_model(
      "transformer",
      vocab_size=50,
      num_intents=3,
      num_slots=5,
      max_length=16,
      num_layers=2,
      dim=128,
      num_heads=4,
      ff_dim=512,
    )
    loss_fn = models.in_precision(models.losses.joint_loss(model), dtype)
    params = jax.eval_shape(model.init, jax.random.key(0))
    tokens = np.ones((4, 16), np.int32)
    examples = {
      "tokens": tokens,
      "mask": np.ones((4, 16), bool),
      "intent": tokens[:, 0],
      "slots": tokens,
    }
    lot = privacy.Lot(
      examples=examples,
      valid=np.ones(4, bool),
      ids=np.arange(4, dtype=np.int32),
    )
    clip = privacy.clipped_grad(
      loss_fn, privacy.ThresholdClip(clip_norm=1.0), engine="bookkeeping"
    )
    private = jax.jit(lambda p, lot: clip(p, lot, jax.random.key(0), ()).sum)

    def mean_loss(p, examples):
      losses, _ = jax.vmap(loss_fn, in_axes=(None, 0, None))(
        p, examples, jax.random.key(0)
      )
      return jnp.mean(losses)

    texts = [
      fn.trace(params, arg).lower(lowering_platforms=(platform,)).as_text()
      for fn, arg in ((private, lot), (jax.jit(jax.grad(mean_loss)), examples))
    ]
  return [list(_products(text)) for text in texts]


def _products(text):
  for line in text.splitlines():
    found = re.search(
      r"dot_general .*contracting_dims = \[([\d, ]*)\] x .*"
      r": \(tensor<([\dx]*)x(\w+)>, tensor<[\dx]*x(\w+)>\)"
      r" -> tensor<([\dx]*)x\w+>",
      line,
    )
    if found:
      axes, shape, left, right, out = found.groups()
      sizes = [int(n) for n in shape.split("x")]
      contracted = [sizes[int(axis)] for axis in axes.split(",") if axis]
      work = np.prod([int(n) for n in out.split("x")]) * np.prod(contracted)
      yield {left, right}, line, 2 * int(work)


def test_a_bfloat16_step_multiplies_as_the_non_private_one_does():
  """No wide products, and few more of them: the whole claim about speed."""
  private, plain = products("bfloat16")
  assert all("f64" not in types for types, _, _ in private)
  wide = sum(work for types, _, work in private if types != {"bf16"})
  total = sum(work for *_, work in private)
  # Sums of biases over units are matrix times vector; no product of positions.
  assert wide < 0.01 * total
  # The clipped sum, a third, stands there twice: once for chunks in which a
  # record is not finite. Gram matrices are a tenth of this small model.
  assert total < (1 + 1 / 3 + 1 / 10) * sum(work for *_, work in plain)


def test_a_float32_step_takes_gram_matrices_of_halves_on_cuda():
  private, _ = products("float32")
  assert all("f64" not in types for types, _, _ in private)
  grams = [line for _, line, _ in private if "num_primitive_operations" in line]
  assert len(grams) >= 16
  # The clipped sums are left at the default, which is TF32.
  full = [w for _, line, w in private if "precision = [HIGHEST" in line]
  assert sum(full) < 0.01 * sum(work for *_, work in private)


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_a_model_that_asks_for_precision_gets_it(dtype):
  private, _ = products(dtype, precision="highest")
  in_float64 = [types for types, *_ in private if types == {"f64"}]
  assert len(in_float64) >= 16
  assert not any("num_primitive_operations" in line for _, line, _ in private)


def test_a_cpu_computes_in_float64_whatever_the_model():
  for dtype in ("bfloat16", "float32"):
    private, _ = products(dtype, platform="cpu")
    assert any(types == {"f64"} for types, *_ in private)


def test_what_was_rounded_stays_rounded_in_a_wider_type():
  """Or a compiler may skip the rounding for the sum and not for the norm."""
  x = jnp.asarray([0.3, -1.7, 3e38, 1e-40])
  widened = jax.jit(
    lambda x: _float64.widen(x.astype(jnp.bfloat16), jnp.float32)
  )
  np.testing.assert_array_equal(
    widened(x), np.asarray(x.astype(jnp.bfloat16), np.float32)
  )
  assert "reduce_precision" in widened.lower(x).as_text()
  same = jax.jit(lambda x: _float64.widen(x, jnp.float32))
  assert "reduce_precision" not in same.lower(x).as_text()


def test_units_of_parts():
  def part(dtype, **fields):
    array = jnp.zeros((1, 1, 2, 3), dtype)
    return _sites.Factors(left=array, right=array, **fields)

  half, full = part(jnp.bfloat16), part(jnp.float32)
  rows = _sites.Factors(
    left=jnp.zeros((1, 1, 2), jnp.int32), right=full.right, is_index=True
  )
  assert _reduced.units_of([half, half]) == {"default": _reduced.BFLOAT16}
  by_platform = {"cuda": _reduced.TFLOAT32, "tpu": _reduced.TPU_FLOAT32}
  for parts in ([full], [half, full], [rows, half], [rows]):
    for order in itertools.permutations(parts):
      assert _reduced.units_of(order) == by_platform
  precise = part(jnp.bfloat16, is_precise=True)
  for parts in ([precise], [precise, half], [half, precise]):
    assert _reduced.units_of(parts) == {"tpu": _reduced.TPU_FLOAT32}


def test_several_lookups_of_rows_alone():
  """No matrix among the parts: only additions in float32."""
  rng = np.random.default_rng(0)
  parts = [
    one_unit(
      rng.integers(4, size=5), rng.normal(size=(5, 3)), units, is_index=True
    )
    for units in (_reduced.TFLOAT32, _reduced.TFLOAT32)
  ]
  dense = [np.eye(4)[np.asarray(p.left[0, 0])] for p in parts]
  want = np.linalg.norm(
    sum(x.T @ np.asarray(p.right[0, 0]) for x, p in zip(dense, parts))
  )
  assert want <= float(jax.jit(_norms.norms)(parts)[0]) <= want * (1 + 1e-5)
  here = dataclasses.replace(_reduced.TFLOAT32, gram_precision=None)
  assert want <= bound(here, parts) <= want * 1.01
