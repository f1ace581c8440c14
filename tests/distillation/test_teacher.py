"""The combined teacher: known answers, identities, bad input."""

import functools

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from trustjax import data, distillation

_P, _Q = (0.7, 0.2, 0.1), (0.1, 0.2, 0.7)
# The vocabulary (he, she, nurse).
_BACK = np.array([1, 0, 2], np.int32)
_HOW = distillation.COMBINATIONS


@pytest.fixture(params=[False, True], ids=["without_jit", "with_jit"])
def combine(request):
  """Combines two distributions at one position, given as probabilities."""

  def call(p, q, how, *, shift=0.0, shift_cf=0.0, valid=True, **options):
    fn = functools.partial(distillation.combine_teacher, how=how, **options)
    logits = jnp.log(jnp.array([p])) + shift
    logits_cf = jnp.log(jnp.array([q])) + shift_cf
    fn = jax.jit(fn) if request.param else fn
    out = fn(logits, logits_cf, jnp.zeros(1, jnp.int32), jnp.array([valid]))
    return np.exp(out[0])

  return call


@pytest.mark.parametrize(
  ("how", "expected"),
  [
    ("max", (0.4375, 0.125, 0.4375)),
    ("mean", (0.362854, 0.274292, 0.362854)),
    ("expMean", (0.4, 0.2, 0.4)),
    ("swap", _Q),
  ],
)
def test_known_answers(combine, how, expected):
  np.testing.assert_allclose(combine(_P, _Q, how), expected, atol=1e-6)


def _tempered(p, temperature):
  p = np.asarray(p, np.float64) ** (1 / temperature)
  return p / p.sum()


@pytest.mark.parametrize(
  ("p", "q", "how", "first", "last"),
  [
    (_P, _Q, "max", (0.394552, 0.210897, 0.394552), None),
    (_P, _Q, "mean", (0.3485, 0.3030, 0.3485), (0.3485, 0.3030, 0.3485)),
    (
      _P,
      _Q,
      "expMean",
      (0.369398, 0.261204, 0.369398),
      (0.360255, 0.279491, 0.360255),
    ),
    (
      _P,
      _Q,
      "swap",
      (0.197630, 0.279491, 0.522879),
      (0.197630, 0.279491, 0.522879),
    ),
    (
      _P,
      (0.25, 0.6, 0.15),
      "max",
      (0.418632, 0.387578, 0.193789),
      (0.427882, 0.381412, 0.190706),
    ),
    (
      _P,
      (0.25, 0.6, 0.15),
      "expMean",
      (0.411412, 0.377538, 0.211050),
      (0.411870, 0.372792, 0.215338),
    ),
  ],
)
def test_the_order_of_combining_and_tempering(combine, p, q, how, first, last):
  found = _tempered(combine(p, q, how), 2)
  np.testing.assert_allclose(found, first, atol=5e-5 if how == "mean" else 1e-6)
  if last is not None:
    found = combine(_tempered(p, 2), _tempered(q, 2), how)
    np.testing.assert_allclose(
      found, last, atol=5e-5 if how == "mean" else 1e-6
    )


def test_mean_commutes_with_the_temperature(combine):
  q = (0.25, 0.6, 0.15)
  first = _tempered(combine(_P, q, "mean"), 2)
  last = combine(_tempered(_P, 2), _tempered(q, 2), "mean")
  np.testing.assert_allclose(first, last, atol=1e-6)


@pytest.mark.parametrize("how", _HOW)
def test_shifts_of_the_logits_change_nothing(combine, how):
  found = combine(_P, _Q, how, shift=-2.0, shift_cf=3.0)
  np.testing.assert_allclose(found, combine(_P, _Q, how), atol=1e-6)


def test_on_raw_logits_shifts_matter(combine):
  options = {"domain": "logit", "shift_cf": 3.0}
  for how, expected in (
    ("expMean", (0.128456, 0.2, 0.671544)),
    ("max", (0.1, 0.2, 0.7)),
    ("mean", (0.362854, 0.274292, 0.362854)),
    ("swap", _Q),
  ):
    found = combine(_P, _Q, how, **options)
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("how", _HOW)
def test_equal_texts_and_positions_that_are_not_valid(combine, how):
  np.testing.assert_allclose(combine(_P, _P, how), _P, atol=1e-6)
  np.testing.assert_allclose(combine(_P, _Q, how, valid=False), _P, atol=1e-6)
  raw = combine(_P, _Q, how, valid=False, domain="logit", shift=5.0)
  np.testing.assert_allclose(raw, _P, atol=1e-6)


@pytest.mark.parametrize("how", ["max", "mean", "expMean"])
def test_exchanging_the_texts_changes_nothing(combine, how):
  q = (0.25, 0.6, 0.15)
  found = combine(_P, q, how), combine(q, _P, how)
  np.testing.assert_allclose(*found, atol=1e-6)


@pytest.mark.parametrize(
  ("p", "q", "with_back", "without"),
  [
    ((0.6, 0.1, 0.3), (0.1, 0.6, 0.3), (0.6, 0.1, 0.3), (0.35, 0.35, 0.3)),
    ((0.6, 0.1, 0.3), (0.1, 0.4, 0.5), (0.5, 0.1, 0.4), (0.35, 0.25, 0.4)),
  ],
)
def test_swapping_back(combine, p, q, with_back, without):
  found = combine(p, q, "expMean", vocab_perm=_BACK)
  np.testing.assert_allclose(found, with_back, atol=1e-6)
  np.testing.assert_allclose(combine(p, q, "expMean"), without, atol=1e-6)


@hypothesis.settings(max_examples=30, deadline=None)
@hypothesis.given(seed=st.integers(0, 9_999), how=st.sampled_from(_HOW))
def test_rows_are_distributions(seed, how):
  rng = np.random.default_rng(seed)
  logits, logits_cf = rng.normal(0, 30, (2, 2, 4, 6)).astype(np.float32)
  idx = rng.integers(0, 4, (2, 4)).astype(np.int32)
  valid = rng.random((2, 4)) < 0.7
  out = _COMPILED[how](logits, logits_cf, idx, valid)
  assert out.shape == (2, 4, 6) and np.all(np.isfinite(out))
  np.testing.assert_allclose(np.exp(out).sum(-1), 1, atol=1e-6)
  # The batch and the positions are independent of one another.
  one = distillation.combine_teacher(
    logits[1, 2:3], logits_cf[1], idx[1, 2:3], valid[1, 2:3], how=how
  )
  np.testing.assert_allclose(out[1, 2:3], one, rtol=1e-5, atol=1e-5)


_COMPILED = {
  how: jax.jit(functools.partial(distillation.combine_teacher, how=how))
  for how in _HOW
}


def test_strict_dtypes(strict_dtypes):
  logits = jnp.zeros((2, 3))
  for how in _HOW:
    out = distillation.combine_teacher(
      logits, logits, jnp.zeros(2, jnp.int32), jnp.ones(2, bool), how=how
    )
    assert out.dtype == jnp.float32


class TestBadInput:
  def test_options(self, combine):
    with pytest.raises(ValueError, match="how: got 'median'"):
      combine(_P, _Q, "median")
    with pytest.raises(ValueError, match="domain: got 'prob'"):
      combine(_P, _Q, "max", domain="prob")

  def test_vocabularies_that_differ(self, combine):
    with pytest.raises(
      ValueError, match="a vocabulary of 2; the original has 3"
    ):
      combine(_P, (0.5, 0.5), "max")

  def test_permutations(self, combine):
    with pytest.raises(ValueError, match="no involution: 0 goes to 1"):
      combine(_P, _Q, "max", vocab_perm=np.array([1, 2, 0]))
    with pytest.raises(ValueError, match="no involution: 2 goes to 7"):
      combine(_P, _Q, "max", vocab_perm=np.array([1, 0, 7]))
    with pytest.raises(ValueError, match=r"vocab_perm: got shape \(2,\)"):
      combine(_P, _Q, "max", vocab_perm=np.array([1, 0]))


class TestVocabularyPermutation:
  _TEXTS = (
    "he she him her his hers He She Her His Him Hers mother father nurse "
  ) * 20

  @pytest.fixture
  def tokenizer(self):
    return data.train_byte_pair([self._TEXTS] * 3, vocab_size=400)

  def test_is_an_involution_of_the_words_that_are_one_token(self, tokenizer):
    perm = distillation.vocabulary_permutation(tokenizer)
    np.testing.assert_array_equal(perm[perm], np.arange(len(tokenizer)))
    for one, other in (
      (" he", " she"),
      (" He", " She"),
      (" his", " her"),
      (" mother", " father"),
      (" him", " him"),
      (" hers", " hers"),
      (" nurse", " nurse"),
    ):
      (a,), (b,) = tokenizer.encode(one), tokenizer.encode(other)
      assert perm[a] == b, (one, other)

  def test_gpt2(self, data_dir):
    tokenizer = data.load_byte_pair(data_dir / "tokenizers" / "gpt2")
    perm = distillation.vocabulary_permutation(tokenizer)
    np.testing.assert_array_equal(perm[perm], np.arange(len(tokenizer)))
    assert 150 < np.sum(perm != np.arange(len(tokenizer))) < 800
