"""SEAT: pooling position by position, and equality with WEAT."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from trustjax import fairness

# [CLS] w w w [SEP] pad ; [CLS] w [SEP] pad pad pad
MASK = np.array([[1, 1, 1, 1, 1, 0], [1, 1, 1, 0, 0, 0]], bool)
SPECIAL = np.array([[1, 0, 0, 0, 1, 0], [1, 0, 1, 0, 0, 0]], bool)
HIDDEN = np.random.default_rng(0).normal(size=(2, 6, 3)).astype(np.float32)


@pytest.mark.parametrize(
  ("pooling", "rows"),
  [
    ("cls", ([0], [0])),
    ("first_piece", ([1], [1])),
    ("mean", ([1, 2, 3], [1])),
    ("last", ([3], [1])),
  ],
)
def test_pooling_reads_these_positions(pooling, rows):
  got = fairness.pool_hidden(HIDDEN, MASK, pooling=pooling, special=SPECIAL)
  want = [HIDDEN[i, at].mean(axis=0) for i, at in enumerate(rows)]
  np.testing.assert_allclose(got, want, rtol=1e-6)


@pytest.mark.parametrize("pooling", fairness.POOLINGS)
def test_padding_is_inert(pooling):
  broken = HIDDEN.copy()
  broken[~MASK] = np.nan
  one, other = (
    fairness.pool_hidden(hidden, MASK, pooling=pooling, special=SPECIAL)
    for hidden in (HIDDEN, broken)
  )
  np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("pooling", fairness.POOLINGS)
def test_jit_equals_eager(pooling):
  eager = fairness.pool_hidden(HIDDEN, MASK, pooling=pooling, special=SPECIAL)
  compiled = jax.jit(
    lambda h, m, s: fairness.pool_hidden(h, m, pooling=pooling, special=s)
  )(HIDDEN, MASK, SPECIAL)
  np.testing.assert_allclose(compiled, eager, rtol=1e-6)


def test_without_special_tokens():
  got = fairness.pool_hidden(HIDDEN, MASK, pooling="last")
  np.testing.assert_array_equal(got, [HIDDEN[0, 4], HIDDEN[1, 2]])
  with pytest.raises(ValueError, match="does not start with a special token"):
    fairness.pool_hidden(HIDDEN, MASK, pooling="cls")
  with pytest.raises(ValueError, match="pooling: got 'max'"):
    fairness.pool_hidden(HIDDEN, MASK, pooling="max")


def test_sentence_of_special_tokens_only_is_undefined():
  mask = np.array([[1, 1, 0, 0, 0, 0]] * 2, bool)
  special = mask
  for pooling in ("mean", "first_piece", "last"):
    got = fairness.pool_hidden(HIDDEN, mask, pooling=pooling, special=special)
    assert np.isnan(np.asarray(got)).all()


def test_is_weat_under_its_own_name():
  sets = [np.random.default_rng(seed).normal(size=(6, 4)) for seed in range(4)]
  one = fairness.seat(*sets, pooling="mean")
  np.testing.assert_array_equal(
    one.effect_size, fairness.weat(*sets).effect_size
  )
  assert one.metric == "seat"
  interval = fairness.weat_interval(one, key=jax.random.key(0), num=100)
  assert jnp.isfinite(interval.low)
  with pytest.raises(ValueError, match="variant"):
    fairness.check_comparable(one, fairness.seat(*sets, pooling="last"))
