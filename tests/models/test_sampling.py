"""Sampling with a cache: against full recomputation and exact probabilities."""

import dataclasses
import functools

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from trustjax import models
from trustjax.models import _token_choice

_VOCAB, _LONGEST, _KEY = 7, 12, jax.random.key(0)


@functools.cache
def _model():
  return models.transformer_decoder(
    vocab_size=_VOCAB,
    max_length=_LONGEST,
    num_layers=2,
    dim=12,
    num_heads=3,
    ff_dim=20,
    norm_epsilon=1e-3,
  )


@functools.cache
def _params():
  """Random weights, biases and norms; positions that matter a great deal."""
  rng = np.random.default_rng(4)
  shapes = jax.eval_shape(_model().init, _KEY)
  params = jax.tree.map(
    lambda leaf: rng.normal(0, 0.5, leaf.shape).astype(np.float32), shapes
  )
  params["positions"] *= 6
  return params


_APPLY = jax.jit(lambda params, example: _model().apply(params, example))


def _next_logits(tokens):
  """Scores behind a text, all of it computed again."""
  padded = np.zeros(_LONGEST, np.int32)
  padded[: len(tokens)] = tokens
  mask = np.arange(_LONGEST) < len(tokens)
  logits = _APPLY(_params(), {"tokens": padded, "mask": mask})
  return np.asarray(logits[len(tokens) - 1])


def _continue(prompts, key=_KEY, *, num=6, chunk=5, num_samples=1, **fields):
  return models.continue_prompts(
    _model(),
    _params(),
    prompts,
    key,
    max_new_tokens=num,
    sampling=models.Sampling(**fields),
    num_samples=num_samples,
    chunk_size=chunk,
  )


_PROMPTS = [[3], [1, 2, 3, 4], [6, 0], [5, 5, 1, 2, 0]]


def test_greedy_equals_full_recomputation():
  found = _continue(_PROMPTS, temperature=0)
  for prompt, (text,) in zip(_PROMPTS, found.texts()):
    expected = []
    for _ in range(6):
      expected.append(int(np.argmax(_next_logits([*prompt, *expected]))))
    assert text == expected
  assert len({tuple(text) for (text,) in found.texts()}) == len(_PROMPTS)
  np.testing.assert_array_equal(found.lengths, 6)


def test_pairs_of_tokens_have_their_exact_probabilities():
  """Chi-square over the joint of two tokens; a false alarm in 10,000 runs."""
  fields = {"temperature": 1.5, "top_k": 6, "top_p": 0.95}
  sampling, prompt = models.Sampling(**fields), [2, 4, 1]
  expected = np.zeros((_VOCAB, _VOCAB))
  first = _numpy_kept(_next_logits(prompt), sampling)
  for token in range(_VOCAB):
    second = _numpy_kept(_next_logits([*prompt, token]), sampling)
    expected[token] = first[token] * second
  drawn = _continue([prompt], num=2, chunk=4_000, num_samples=4_000, **fields)
  counts = np.zeros((_VOCAB, _VOCAB))
  np.add.at(counts, tuple(drawn.tokens[0].T), 1)
  assert not np.any(counts[expected == 0])
  often = expected * 4_000 >= 5
  observed = np.array([*counts[often], counts[~often].sum()])
  wanted = np.array([*expected[often], expected[~often].sum()]) * 4_000
  some = wanted > 0
  assert 5 < some.sum() < 40
  found = scipy.stats.chisquare(observed[some], wanted[some])
  assert found.pvalue > 1e-4


def _numpy_kept(logits, sampling):
  """Temperature, top-k and top-p by sorting, normalised."""
  scores = np.asarray(logits, np.float64) / sampling.temperature
  p = np.exp(scores - scores.max())
  p /= p.sum()
  if sampling.top_k is not None and sampling.top_k < len(p):
    p[p < np.sort(p)[-sampling.top_k]] = 0
    p /= p.sum()
  if sampling.top_p < 1:
    falling = np.sort(p)[::-1]
    last = np.argmax(np.cumsum(falling) >= sampling.top_p * (1 - 1e-9))
    p[p < falling[last]] = 0
    p /= p.sum()
  return p


@functools.cache
def _kept(sampling):
  return jax.jit(lambda logits: models.kept_probabilities(logits, sampling))


@pytest.mark.parametrize(
  ("top_k", "top_p"),
  [(None, 0.5), (None, 0.999), (10, 1.0), (20, 0.9), (1_000, 0.05)],
)
def test_kept_probabilities_equal_those_of_a_sort(top_k, top_p):
  sampling = models.Sampling(temperature=0.7, top_k=top_k, top_p=top_p)
  for seed in range(3):
    logits = np.random.default_rng(seed).normal(0, 2, 300).astype(np.float32)
    found = np.asarray(_kept(sampling)(logits))
    expected = _numpy_kept(logits, sampling)
    np.testing.assert_array_equal(found > 0, expected > 0)
    np.testing.assert_allclose(found / found.sum(), expected, atol=1e-6)


def test_ties_are_kept_together():
  logits = jnp.log(jnp.array([0.4, 0.2, 0.2, 0.2]))
  for fields, expected in (
    ({"top_k": 1}, [1, 0, 0, 0]),
    ({"top_k": 2}, [1, 1, 1, 1]),
    ({"top_p": 0.3}, [1, 0, 0, 0]),
    ({"top_p": 0.5}, [1, 1, 1, 1]),
  ):
    kept = models.kept_probabilities(logits, models.Sampling(**fields))
    np.testing.assert_array_equal(kept > 0, expected)


def test_top_p_survives_extreme_logits():
  sampling = models.Sampling(top_p=0.9)
  sure = jnp.array([-1e4, 1e4, -jnp.inf, 0.0])
  np.testing.assert_array_equal(_kept(sampling)(sure), [0, 1, 0, 0])
  flat = _kept(sampling)(jnp.zeros(50_257))
  assert np.all(flat > 0)


@hypothesis.settings(max_examples=60, deadline=None)
@hypothesis.given(
  seed=st.integers(0, 10_000), uniform=st.floats(0, 1, exclude_max=True)
)
def test_a_draw_inverts_the_running_sum(seed, uniform):
  rng = np.random.default_rng(seed)
  weights = rng.gamma(0.3, size=300).astype(np.float32)
  weights[rng.random(300) < 0.5] = 0
  sums = np.cumsum(weights.astype(np.float64))
  goal = uniform * sums[-1]
  drawn = int(_INVERT(weights, jnp.float32(uniform)))
  # Rounding may move the goal by a hair, over the edge of a small token.
  slack = 1e-5 * sums[-1]
  low = sums[drawn - 1] if drawn else 0.0
  assert low - slack <= goal <= sums[drawn] + slack


_INVERT = jax.jit(_token_choice._invert)
_CHOOSE = jax.jit(_token_choice.choose_token, static_argnums=2)


@pytest.mark.parametrize("uniform", [0.0, 0.5, 1 - 2**-24])
def test_a_draw_never_is_a_token_that_was_cut(uniform):
  sampling = models.Sampling(top_k=2)
  logits = np.full(200, -3.0, np.float32)
  logits[[3, 190]] = 1.0, 2.0
  token = int(_CHOOSE(logits, jnp.float32(uniform), sampling))
  assert token in (3, 190)
  assert token == (3 if uniform == 0.0 else 190)


class TestKeys:
  def test_neither_chunks_nor_further_samples_nor_length_matter(self):
    whole = _continue(_PROMPTS, num_samples=3).tokens
    np.testing.assert_array_equal(
      _continue(_PROMPTS, num_samples=3, chunk=12, num=4).tokens,
      whole[:, :, :4],
    )
    np.testing.assert_array_equal(
      _continue(_PROMPTS, num_samples=2).tokens, whole[:, :2]
    )

  def test_equal_prompts_and_samples_differ(self):
    tokens = _continue([_PROMPTS[-1]] * 2, num_samples=8).tokens
    texts = {tuple(text) for text in tokens.reshape(16, 6).tolist()}
    assert len(texts) > 12

  def test_the_key_matters(self):
    one, other = (
      _continue(_PROMPTS, jax.random.key(i), num_samples=2) for i in (1, 2)
    )
    assert np.any(one.tokens != other.tokens)


def test_a_text_ends_at_its_end_of_text():
  plain = _continue(_PROMPTS, temperature=0).tokens
  end = int(plain[1, 0, 2])
  found = _continue(_PROMPTS, temperature=0, end_of_text=end)
  for before, text, length in zip(plain[:, 0], found.tokens, found.lengths):
    hits = np.flatnonzero(before == end)
    assert length[0] == (hits[0] if hits.size else 6)
    np.testing.assert_array_equal(text[0, : length[0]], before[: length[0]])
  assert found.lengths.min() < 6
  assert [len(t[0]) for t in found.texts()] == found.lengths[:, 0].tolist()


def test_all_chunks_share_one_program():
  traced = []

  def logits(params, hidden):
    traced.append(hidden.shape)
    return _model().logits(params, hidden)

  model = dataclasses.replace(_model(), logits=logits)
  for seed in range(2):
    models.continue_prompts(
      model,
      _params(),
      _PROMPTS,
      jax.random.key(seed),
      max_new_tokens=2,
      sampling=models.Sampling(),
      chunk_size=3,
    )
  # Behind the prompt, and in the loop.
  assert len(traced) == 2


class TestBadInput:
  @pytest.mark.parametrize(
    ("fields", "message"),
    [
      ({"temperature": -1.0}, "temperature: got -1.0"),
      ({"temperature": float("nan")}, "temperature: got nan"),
      ({"top_k": 0}, "top_k: got 0"),
      ({"top_p": 0.0}, "top_p: got 0.0"),
      ({"top_p": 1.5}, "top_p: got 1.5"),
      ({"end_of_text": -2}, "end_of_text: got -2"),
    ],
  )
  def test_sampling(self, fields, message):
    with pytest.raises(ValueError, match=message):
      models.Sampling(**fields)

  def test_a_prompt_longer_than_the_context(self):
    with pytest.raises(
      ValueError,
      match=r"prompts\[1\]: got 10 tokens; with 6 new ones they need 16"
      r" positions, and the model has 12",
    ):
      _continue([[1], [1] * 10])

  def test_prompts(self):
    with pytest.raises(ValueError, match=r"prompts\[0\]: is empty"):
      _continue([[]])
    with pytest.raises(ValueError, match="there are none"):
      _continue([])
    with pytest.raises(ValueError, match=r"prompts\[0\]: has a token outside"):
      _continue([[_VOCAB]])
    with pytest.raises(ValueError, match="max_new_tokens: got 0"):
      _continue([[1]], num=0)

  def test_a_model_without_a_cache(self):
    other = dataclasses.replace(_model(), name="other")
    with pytest.raises(ValueError, match="model: got 'other'"):
      models.continue_prompts(
        other,
        _params(),
        [[1]],
        _KEY,
        max_new_tokens=1,
        sampling=models.Sampling(),
      )
