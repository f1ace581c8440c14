"""Record statistics: known answers, SciPy in float64, extremes, jit."""

import chex
import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from trustjax import attacks


def logits_of(probability, labels=3):
  """Logits of a label 0 with this probability, the others sharing the rest."""
  rest = (1 - probability) / (labels - 1)
  return np.log([probability] + [rest] * (labels - 1))


def batch(seed=0, models=3, records=5, time=4, intents=6, labels=7, scale=3):
  rng = np.random.default_rng(seed)
  mask = np.arange(time)[None] < rng.integers(0, time + 1, records)[:, None]
  return (
    (scale * rng.normal(size=(models, records, intents))).astype(np.float32),
    (scale * rng.normal(size=(models, records, time, labels))).astype(
      np.float32
    ),
    rng.integers(0, intents, records),
    rng.integers(-1, labels, (records, time)),
    mask,
  )


def slow(intent_logits, slot_logits, intent, slots, mask):
  """One record of one model at a time, in extended precision."""
  out = {"log_p_intent": [], "log_p_slots": [], "joint_logit": []}
  out |= {"num_tokens": [], "min_token_logit": []}
  for model in range(intent_logits.shape[0]):
    for r in range(intent.size):
      log_p = special.log_softmax(intent_logits[model, r].astype(np.longdouble))
      log_intent = log_p[intent[r]]
      tokens = [
        special.log_softmax(slot_logits[model, r, t].astype(np.longdouble))[
          slots[r, t]
        ]
        for t in range(mask.shape[1])
        if mask[r, t] and slots[r, t] >= 0
      ]
      total = log_intent + sum(tokens)
      each = tokens or [log_intent]
      out["log_p_intent"].append(log_intent)
      out["log_p_slots"].append(sum(tokens))
      out["joint_logit"].append(total - np.log1p(-np.exp(total)))
      out["num_tokens"].append(len(tokens))
      out["min_token_logit"].append(min(x - np.log1p(-np.exp(x)) for x in each))
  shape = intent_logits.shape[:2]
  return {k: np.array(v, np.float64).reshape(shape) for k, v in out.items()}


@pytest.mark.parametrize(
  ("p", "phi"), [(0.9, 2.19722), (0.5, 0.0), (0.999, 6.90675)]
)
def test_logit_known_answers(p, phi):
  got = attacks.logit_of_log_probability(np.log(np.array([p])))
  np.testing.assert_allclose(got, phi, atol=1e-5)
  stats = attacks.record_statistics(
    logits_of(p)[None, None],
    np.zeros((1, 1, 1, 2)),
    np.array([0]),
    np.array([[0]]),
    np.array([[False]]),
  )
  np.testing.assert_allclose(stats.intent_logit, phi, atol=1e-5)
  np.testing.assert_allclose(stats.joint_logit, phi, atol=1e-5)


def test_joint_known_answer():
  slots = np.stack([logits_of(0.8), logits_of(0.95)])[None, None]
  stats = attacks.record_statistics(
    logits_of(0.9)[None, None],
    slots,
    np.array([0]),
    np.array([[0, 0]]),
    np.ones((1, 2), bool),
  )
  np.testing.assert_allclose(stats.joint_logit, 0.77222, atol=1e-5)
  np.testing.assert_allclose(stats.loss, -np.log(0.684), rtol=1e-12)
  assert stats.num_tokens.tolist() == [[2]]
  np.testing.assert_allclose(
    stats.slots_log_p_per_token, np.log(0.8 * 0.95) / 2
  )


@pytest.mark.parametrize("seed", range(3))
def test_equals_one_record_at_a_time(seed):
  arrays = batch(seed)
  got, want = attacks.record_statistics(*arrays), slow(*arrays)
  for name, value in want.items():
    np.testing.assert_allclose(
      getattr(got, name), value, rtol=1e-9, atol=1e-9, err_msg=name
    )
    assert getattr(got, name).shape == (3, 5)
  assert got.joint_logit.dtype == np.float64


@pytest.mark.parametrize("seed", range(3))
def test_inside_jit_in_the_precision_of_the_logits(seed):
  arrays = batch(seed)
  want = attacks.record_statistics(*arrays)
  got = jax.jit(attacks.record_statistics)(*map(jnp.asarray, arrays))
  assert got.joint_logit.dtype == jnp.float32
  chex.assert_trees_all_close(
    [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(got)],
    [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(want)],
    rtol=1e-4,
    atol=1e-5,
  )


def test_a_memorised_record_keeps_its_digits():
  # 1 - p is e^-40: a difference of log-sum-exps would round it away.
  logits = np.array([[40.0, 0.0], [25.0, 0.0]])[:, None]
  stats = attacks.record_statistics(
    logits,
    np.zeros((2, 1, 1, 2)),
    np.array([0]),
    np.array([[-1]]),
    np.array([[True]]),
  )
  assert np.isfinite(stats.joint_logit).all()
  np.testing.assert_allclose(stats.joint_logit[1, 0], 25.0, rtol=1e-9)
  # The clamp: log(1e12).
  np.testing.assert_allclose(stats.joint_logit[0, 0], 27.631, atol=1e-3)
  assert stats.joint_logit[0, 0] == attacks.logit_of_log_probability(
    np.array(-1e-13)
  )


def test_statistics_from_probabilities_agree():
  arrays = batch(1)
  stats = attacks.record_statistics(*arrays)
  got = attacks.statistics_from_log_probabilities(
    stats.log_p_intent, stats.log_p_slots, stats.num_tokens[0]
  )
  for name in ("joint_logit", "intent_logit", "slots_logit", "num_tokens"):
    np.testing.assert_allclose(
      getattr(got, name), getattr(stats, name), rtol=1e-9, atol=1e-9
    )


@hypothesis.settings(deadline=None, max_examples=25)
@hypothesis.given(seed=st.integers(0, 10**6), shift=st.floats(-50, 50))
def test_properties(seed, shift):
  arrays = batch(seed)
  stats = attacks.record_statistics(*arrays)
  # Adding a constant to logits changes nothing.
  shifted = attacks.record_statistics(
    arrays[0].astype(np.float64) + shift,
    arrays[1].astype(np.float64) - shift,
    *arrays[2:],
  )
  chex.assert_trees_all_close(stats, shifted, rtol=1e-6, atol=1e-6)
  assert (stats.log_p_intent <= 0).all() and (stats.log_p_slots <= 0).all()
  # The joint event is rarer than each of its parts.
  assert (stats.joint_logit <= stats.intent_logit + 1e-9).all()
  assert (stats.joint_logit <= stats.slots_logit + 1e-9).all()
  # Records do not see each other.
  order = np.random.default_rng(seed).permutation(5)
  permuted = attacks.record_statistics(
    arrays[0][:, order], arrays[1][:, order], *(a[order] for a in arrays[2:])
  )
  chex.assert_trees_all_close(
    permuted, jax.tree.map(lambda leaf: leaf[:, order], stats), rtol=1e-12
  )


def test_a_single_tag_leaves_the_intent():
  """Data without slots: the only tag is certain, token by token."""
  arrays = batch(scale=1)
  slots = np.where(arrays[3] >= 0, 0, -1)
  stats = attacks.record_statistics(
    arrays[0], arrays[1][..., :1], arrays[2], slots, arrays[4]
  )
  np.testing.assert_allclose(stats.log_p_slots, 0, atol=1e-11)
  np.testing.assert_allclose(stats.joint_logit, stats.intent_logit, atol=1e-9)


def test_bad_input():
  arrays = batch()
  nan = arrays[0].copy()
  nan[1, 2, 0] = np.nan
  with pytest.raises(ValueError, match=r"intent_logit\[1, 2\]: got nan"):
    attacks.record_statistics(nan, *arrays[1:])
  with pytest.raises(ValueError, match=r"intent\[0\]: got 99"):
    attacks.record_statistics(*arrays[:2], np.full(5, 99), arrays[3], arrays[4])
  with pytest.raises(ValueError, match=r"slots\[0, 0\]: got 7"):
    attacks.record_statistics(
      *arrays[:3], np.full((5, 4), 7), np.ones((5, 4), bool)
    )
  with pytest.raises(ValueError, match=r"log-probabilities are at most 0"):
    attacks.logit_of_log_probability(np.array([0.1]))
  with pytest.raises(ValueError, match=r"log_p_slots: got 0.5"):
    attacks.statistics_from_log_probabilities(
      np.zeros((1, 2)) - 1, np.full((1, 2), 0.5), np.array([1, 1])
    )
  with pytest.raises(ValueError, match=r"a logit needs at least 2"):
    attacks.record_statistics(arrays[0][..., :1], *arrays[1:])
