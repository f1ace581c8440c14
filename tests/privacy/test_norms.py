"""Norms that engines clip by: right, and never shorter than what is added.

The worst inputs for a Gram sum are positions that oppose each other, and for
rounding they are constant vectors, whose every term rounds the same way.
"""

import warnings

import hypothesis
import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from trustjax import privacy
from trustjax.privacy._engines._bookkeeping import _norms, _sites

finite = st.floats(-100, 100, width=32)


@jax.jit
def norm_of(part):
  return _norms.norms([part])[0]


def factors(left, right, dtype=jnp.float32):
  """One unit, one block."""
  left, right = jnp.asarray(left, dtype), jnp.asarray(right, dtype)
  return _sites.Factors(left=left[None, None], right=right[None, None])


def exact_norm(left, right):
  left, right = np.asarray(left, np.float64), np.asarray(right, np.float64)
  return np.linalg.norm(left.T @ right)


@hypothesis.given(
  x=hnp.arrays(np.float32, (6, 3), elements=finite),
  cotangent=hnp.arrays(np.float32, (6, 2), elements=finite),
  tiny=st.floats(0, 2**-10, width=32),
)
@hypothesis.settings(max_examples=200, deadline=None)
def test_is_never_underestimated(x, cotangent, tiny):
  """Positions that cancel: what is left must not be lost to rounding."""
  x = np.concatenate([x, x])
  cotangent = np.concatenate([cotangent, -cotangent + np.float32(tiny)])
  got = float(norm_of(factors(x, cotangent)))
  exact = exact_norm(x, cotangent)
  # float32 has no norm below 1e-38, and no rule divides by one below 1e-15.
  assert got >= exact * (1 - 1e-7) or exact < 1e-37


def opposed(rng, ratio, eps, kind, width=768, positions=32):
  """Positions of two kinds that nearly cancel: (inputs, cotangents)."""
  is_few = np.arange(positions) < positions // (ratio + 1)
  sign = np.where(is_few, ratio, -1.0).astype(np.float32)
  if kind == "constant":
    one, right = np.full(width, rng.uniform(0.5, 1)), rng.uniform(0.5, 1)
    right = np.full(width, right)
    other = one * (1 + eps)
  else:
    one, right = np.abs(rng.normal(size=(2, width)))
    other = one * (1 + eps * rng.normal(size=width))
  left = np.where(is_few[:, None], one, other).astype(np.float32)
  return left, (sign[:, None] * right).astype(np.float32)


@pytest.mark.parametrize("kind", ["constant", "half_normal"])
@pytest.mark.parametrize("ratio", [1, 3, 7])
@pytest.mark.parametrize("engine", ["bookkeeping", "vmap"])
def test_a_clipped_record_is_no_longer_than_the_clip_norm(engine, ratio, kind):
  clip = jax.jit(
    privacy.clipped_grad(
      lambda w, e, key: (jnp.sum((e["x"] @ w) * e["b"]), None),
      privacy.ThresholdClip(clip_norm=1.0),
      engine=engine,
    )
  )
  longest = 0.0
  for seed in range(2):
    for eps in (-8e-3, -1e-3, 3e-2):
      left, right = opposed(np.random.default_rng(seed), ratio, eps, kind)
      lot = privacy.Lot(
        examples={"x": left[None], "b": right[None]},
        valid=np.ones(1, bool),
        ids=np.zeros(1, np.int32),
      )
      got = clip(jnp.zeros((768, 768)), lot, jax.random.key(0), ())
      length = np.linalg.norm(np.asarray(got.sum, np.float64))
      # The unclipped record was longer, so that the bound is at work.
      assert exact_norm(left, right) > 1.0
      longest = max(longest, length)
  assert longest <= 1.0
  # And clipping cost it little, whatever the cancellation.
  assert longest > 0.999


@pytest.mark.parametrize("engine", ["bookkeeping", "vmap", "scan"])
@pytest.mark.parametrize("group", [1, 2])
def test_an_outer_vmap_keeps_float64(engine, group):
  """Many models side by side: the engine is traced again, batched."""
  clip = privacy.clipped_grad(
    lambda w, e, key: (jnp.sum((e["x"] @ w) * e["b"]), None),
    privacy.ThresholdClip(clip_norm=1.0),
    engine=engine,
    clip_group_size=group,
  )
  left, right = opposed(np.random.default_rng(1), 3, -8e-3, "constant")
  shape = (1,) if group == 1 else (1, 2)
  lot = privacy.Lot(
    examples={
      "x": np.broadcast_to(left, (*shape, *left.shape)),
      "b": np.broadcast_to(right, (*shape, *right.shape)),
    },
    valid=np.ones(shape, bool),
    ids=np.zeros(shape, np.int32),
  )
  many = jnp.zeros((2, 768, 768))
  with warnings.catch_warnings():
    warnings.simplefilter("error")  # Truncation to float32 is a warning.
    got = jax.jit(jax.vmap(jax.jit(clip), in_axes=(0, None, None, None)))(
      many, lot, jax.random.key(0), ()
    )
  for total in got.sum:
    length = np.linalg.norm(np.asarray(total, np.float64))
    assert 0.9 < length <= 1.0
  alone = clip(many[0], lot, jax.random.key(0), ())
  np.testing.assert_allclose(got.norms[0], alone.norms, rtol=1e-6)


def test_block_norms_are_never_too_short():
  """By leaves and blocks, alone and under `vmap`, against long doubles."""
  rng = np.random.default_rng(0)
  scales = np.float32([1e-12, 0.1, 0.3, 1e17])[:, None]
  update = {
    "a": scales * np.ones((1, 100_000), np.float32),
    "b": scales * rng.normal(size=(4, 3500)).astype(np.float32),
    "c": scales[:, 0] * np.float32(3),
  }
  blocks = (1, 0, 1)

  def exact(*leaves):
    squares = [
      np.square(np.longdouble(x)).reshape(4, -1).sum(1) for x in leaves
    ]
    return np.sqrt(sum(squares))

  want = np.stack([exact(update["b"]), exact(update["a"], update["c"])], axis=1)
  many = jax.jit(jax.vmap(lambda u: privacy.block_norms(u, blocks)))(update)
  update = jax.tree.map(jnp.asarray, update)
  one = jax.jit(
    lambda i: privacy.block_norms(jax.tree.map(lambda x: x[i], update), blocks)
  )
  each = np.stack([one(i) for i in range(4)])
  for got in (np.longdouble(many), np.longdouble(each)):
    assert np.all(got >= want) and np.all(got <= want * (1 + 2e-7))


def test_squares_outside_of_float32():
  """Squares of the left side are zero in float32, the product is not small."""
  left, right = np.full((2, 1), 1e-30), np.full((2, 2), 1e28)
  np.testing.assert_allclose(
    norm_of(factors(left, right)), exact_norm(left, right), rtol=1e-5
  )
  left, right = np.full((2, 1), 1e30), np.full((2, 2), 1e-28)
  np.testing.assert_allclose(
    norm_of(factors(left, right)), exact_norm(left, right), rtol=1e-5
  )


@pytest.mark.parametrize("positions", [1, 8, 32])
def test_the_guard_is_small_where_nothing_cancels(positions):
  rng = np.random.default_rng(positions)
  left = rng.normal(size=(positions, 64)).astype(np.float32)
  right = rng.normal(size=(positions, 32)).astype(np.float32)
  np.testing.assert_allclose(
    norm_of(factors(left, right)), exact_norm(left, right), rtol=2e-5
  )


def test_rows_that_cancel():
  """One row, opposed cotangents: added up first, and still a bound."""
  right = np.array([[1e4, 1.0], [-1e4, 1.0], [1e-3, 0.0]], np.float32)
  part = _sites.Factors(
    left=jnp.asarray([[[2, 2, 5]]], jnp.int32),
    right=jnp.asarray(right)[None, None],
    is_index=True,
  )
  exact = np.sqrt(2.0**2 + 1e-6)
  got = float(norm_of(part))
  assert exact <= got <= exact + 2e4 * 8 * 2**-24
