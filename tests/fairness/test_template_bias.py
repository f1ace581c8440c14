"""ILPS and LPBS: known answers, where a probability is read, composition."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.fairness import small_models as small
from trustjax import fairness

KEY = jax.random.key(0)


def test_known_answers():
  got = fairness.ilps(np.log([0.4, 0.1]), np.log([0.2, 0.2]))
  np.testing.assert_allclose(got, [np.log(2), -np.log(2)], rtol=1e-6)
  np.testing.assert_allclose(fairness.lpbs(got[0], got[1]), 1.386294, rtol=1e-6)
  same = fairness.ilps(np.log([0.4, 0.1]), np.log([0.4, 0.1]))
  assert fairness.lpbs(same[0], same[1]) == 0


def test_swapping_targets_negates():
  rng = np.random.default_rng(0)
  one, other = rng.normal(size=(2, 9))
  np.testing.assert_array_equal(
    fairness.lpbs(one, other), -fairness.lpbs(other, one)
  )


def test_sets_add_probabilities_before_the_logarithm():
  target, prior = np.array([[0.1, 0.3]]), np.array([[0.05, 0.05]])
  got = fairness.ilps(np.log(target), np.log(prior), combine="logsumexp")
  np.testing.assert_allclose(got, [np.log(0.4 / 0.1)], rtol=1e-6)


def test_causal_score_has_its_own_name():
  got = fairness.causal_ilps(np.log([0.4]), np.log([0.1]))
  np.testing.assert_allclose(got, np.log(4), rtol=1e-6)


def scores(template, targets, attribute, subwords, model, **options):
  pair = fairness.template_queries(
    template, targets, attribute, subwords, **options
  )
  return [
    np.asarray(fairness.sum_by_item(fairness.score_masked(model, q), q))
    for q in pair
  ]


@pytest.mark.parametrize(
  "template", ["[TARGET] is a [ATTRIBUTE].", "The [ATTRIBUTE] is [TARGET]."]
)
def test_prior_is_read_at_the_mask_of_the_target(template):
  """A model with another distribution at every position tells them apart."""

  def by_position(tokens, mask):
    del mask
    place = jnp.arange(tokens.shape[1])[None, :, None]
    word = jnp.arange(small.VOCAB)[None, None, :]
    score = -(place * 1000 + word).astype(jnp.float32)
    return jnp.broadcast_to(score, (tokens.shape[0], *score.shape[1:]))

  subwords = small.subwords()
  filled, prior = fairness.template_queries(
    template, ["he", "she"], "cook", subwords
  )
  he, she = subwords.encode("he")[0], subwords.encode("she")[0]
  at = 1 if template.startswith("[TARGET]") else 4
  want = [-(at * 1000.0 + he), -(at * 1000.0 + she)]
  for query in (filled, prior):
    np.testing.assert_array_equal(
      fairness.score_masked(by_position, query), want
    )
  cook = subwords.encode("cook")[0]
  assert (np.asarray(filled.tokens) == cook).any(1).all()
  assert not (np.asarray(prior.tokens) == cook).any()
  assert (np.asarray(filled.tokens) == small.MASK).sum(1).tolist() == [1, 1]
  assert (np.asarray(prior.tokens) == small.MASK).sum(1).tolist() == [2, 2]


def test_equals_asking_one_sentence_at_a_time():
  subwords = small.subwords()
  target, prior = scores(
    "[TARGET] is a [ATTRIBUTE].",
    ["he", "she"],
    "programmer",
    subwords,
    small.masked_model,
  )
  head, tail = [small.CLS], subwords.encode("is a")
  attribute = subwords.encode("programmer")
  assert len(attribute) == 3
  end = [*subwords.encode("."), small.SEP]
  for i, word in enumerate(("he", "she")):
    (piece,) = subwords.encode(word)
    filled = [*head, small.MASK, *tail, *attribute, *end]
    open_ = [*head, small.MASK, *tail, *[small.MASK] * 3, *end]
    np.testing.assert_allclose(
      target[i], small.ask(filled, 1, piece), rtol=1e-5
    )
    np.testing.assert_allclose(prior[i], small.ask(open_, 1, piece), rtol=1e-5)


def test_targets_of_several_pieces():
  subwords = small.subwords()
  template = "[TARGET] is a [ATTRIBUTE]."
  with pytest.raises(ValueError, match="'grandmother' has 3 pieces"):
    fairness.template_queries(template, ["grandmother"], "cook", subwords)
  first, _ = scores(
    template,
    ["grandmother"],
    "cook",
    subwords,
    small.masked_model,
    compose="first_piece",
  )
  chain, _ = scores(
    template,
    ["grandmother"],
    "cook",
    subwords,
    small.masked_model,
    compose="chain",
  )
  pieces = subwords.encode("grandmother")
  rest = [*subwords.encode("is a cook."), small.SEP]
  np.testing.assert_allclose(
    first, small.ask([small.CLS, small.MASK, *rest], 1, pieces[0]), rtol=1e-5
  )
  want = sum(
    small.ask(
      [small.CLS, *pieces[:i], *[small.MASK] * (3 - i), *rest], 1 + i, pieces[i]
    )
    for i in range(3)
  )
  np.testing.assert_allclose(chain, want, rtol=1e-5)


def test_leading_space_reaches_words_inside():
  seen = []

  def encode(text):
    seen.append(text)
    return [7]

  for leading in (True, False):
    seen.clear()
    fairness.template_queries(
      "[TARGET] is a [ATTRIBUTE].",
      ["he"],
      "cook",
      small.subwords(encode=encode, leading_space=leading),
    )
    words = set(seen)
    assert ("he" in words) and (" he" not in words)
    assert (" cook" in words) == leading
    assert (" is a" in words) == leading
    assert "." in words


def test_bad_templates():
  subwords = small.subwords()
  with pytest.raises(ValueError, match=r"got 2 times \[TARGET\]"):
    fairness.template_queries(
      "[TARGET] [TARGET] [ATTRIBUTE]", ["he"], "cook", subwords
    )
  with pytest.raises(ValueError, match=r"got 0 times \[ATTRIBUTE\]"):
    fairness.template_queries("[TARGET]", ["he"], "cook", subwords)
  with pytest.raises(ValueError, match="needs? a masked model|need a masked"):
    fairness.template_queries(
      "[TARGET] [ATTRIBUTE]", ["he"], "cook", small.subwords(mask_id=None)
    )


def test_vocabulary_of_the_model_must_hold_the_pieces():
  subwords = small.subwords(encode=lambda text: [small.VOCAB])
  query, _ = fairness.template_queries(
    "[TARGET] [ATTRIBUTE]", ["he"], "cook", subwords
  )
  with pytest.raises(ValueError, match="do not belong together"):
    fairness.score_masked(small.masked_model, query)


class TestTemplateBias:
  ONE = np.array([0.3, 0.1, -0.4, 0.2])
  OTHER = np.array([0.1, 0.2, -0.2, -0.3])

  def test_aggregates(self):
    mean = fairness.template_bias(self.ONE, self.OTHER, key=KEY)
    size = fairness.template_bias(
      self.ONE, self.OTHER, key=KEY, aggregate="mean_abs"
    )
    np.testing.assert_allclose(mean.value, 0.1, rtol=1e-5)
    np.testing.assert_allclose(size.value, 0.25, rtol=1e-5)
    assert mean.low < mean.value < mean.high
    assert size.value >= abs(mean.value)
    with pytest.raises(ValueError, match="variant"):
      fairness.check_comparable(mean, size)

  def test_swapping_targets_negates(self):
    one = fairness.template_bias(self.ONE, self.OTHER, key=KEY)
    other = fairness.template_bias(self.OTHER, self.ONE, key=KEY)
    np.testing.assert_allclose(one.value, -other.value, rtol=1e-6)
    np.testing.assert_allclose(one.low, -other.high, atol=1e-6)

  def test_masked_templates_are_inert(self):
    keep = np.array([1, 1, 0, 1], bool)
    got = fairness.template_bias(self.ONE, self.OTHER, key=KEY, mask=keep)
    np.testing.assert_allclose(got.value, (0.2 - 0.1 + 0.5) / 3, rtol=1e-5)
    assert (got.n, got.n_dropped) == (3, 1)
    with pytest.raises(ValueError, match="leaves no template"):
      fairness.template_bias(
        self.ONE, self.OTHER, key=KEY, mask=np.zeros(4, bool)
      )

  def test_bad_input(self):
    with pytest.raises(ValueError, match="aggregate: got 'max'"):
      fairness.template_bias(self.ONE, self.OTHER, key=KEY, aggregate="max")
    with pytest.raises(ValueError, match=r"logp_prior\[1\]: got -inf"):
      fairness.ilps(np.zeros(2), np.array([0, -np.inf]))
