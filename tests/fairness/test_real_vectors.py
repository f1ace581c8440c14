"""WEAT on the word vectors and word sets of the data folder."""

import json

import jax
import numpy as np
import pytest

from trustjax import fairness

# Test -> target sets, attribute sets; effect size that Caliskan et al. publish
# for word2vec; effect size of WEFE 1.0.1 (ddof 0) on the same file, computed by
# WEAT().run_query(...)["effect_size"] in an environment of its own.
TESTS = {
  "C1": (
    ("flowers", "insects", "pleasant_5", "unpleasant_5a"),
    1.54,
    1.5549757534728188,
  ),
  "C6": (
    ("male_names", "female_names", "career", "family"),
    1.89,
    1.9518473239720835,
  ),
  "C7": (
    ("math", "arts", "male_terms", "female_terms"),
    0.97,
    0.998107902328515,
  ),
  "C8": (
    ("science", "arts_2", "male_terms_2", "female_terms_2"),
    1.24,
    1.2846478914155455,
  ),
  "C9": (
    ("mental_disease", "physical_disease", "temporary", "permanent"),
    1.30,
    1.354404237914638,
  ),
}


@pytest.fixture(scope="module")
def word_sets(data_dir):
  return json.loads((data_dir / "weat_wefe/WEAT.json").read_text())


@pytest.fixture(scope="module")
def word2vec(data_dir):
  lines = (data_dir / "weat_wefe/weat_w2v_300d.txt").read_text().split("\n")
  rows = [line.split(" ") for line in lines[1:] if line]
  return {row[0]: np.array(row[1:301], np.float64) for row in rows}


@pytest.fixture(scope="module")
def glove(data_dir):
  path = data_dir / "glove_50d_5k/glove-50d-5k.json"
  return {
    word: np.array(vector)
    for word, vector in json.loads(path.read_text()).items()
  }


def vectors_of(test, vectors, sets):
  return [
    np.stack([vectors[word] for word in sets[name]]) for name in TESTS[test][0]
  ]


@pytest.mark.parametrize(
  "test",
  [
    # One test of five by default: they differ in words alone.
    name if name == "C6" else pytest.param(name, marks=pytest.mark.slow)
    for name in TESTS
  ],
)
def test_word2vec_gives_the_published_effect(test, word2vec, word_sets):
  _, published, of_wefe = TESTS[test]
  x, y, a, b = vectors_of(test, word2vec, word_sets)
  result = fairness.weat(x, y, a, b)
  np.testing.assert_allclose(result.effect_size, published, atol=0.0051)
  by_n = fairness.weat(x, y, a, b, ddof=0)
  np.testing.assert_allclose(by_n.effect_size, of_wefe, rtol=1e-5)


@pytest.mark.slow
def test_p_value_of_career_and_family(word2vec, word_sets):
  """C6: the published 10^-4 is the exact share of 12,870 partitions."""
  x, y, a, b = vectors_of("C6", word2vec, word_sets)
  with jax.enable_x64(True):
    result = fairness.weat(x, y, a, b)
  s = np.concatenate([result.s_x, result.s_y])
  strict = fairness.weat_pvalue(s, len(x))
  loose = fairness.weat_pvalue(s, len(x), tie="conservative")
  assert (strict.n_partitions, strict.exact) == (12_870, True)
  assert 0 <= strict.p_value < loose.p_value
  np.testing.assert_allclose(loose.p_value, 1e-4, atol=5e-5)


def in_both(words, others, vectors):
  """The words that have a vector, as many of both sets."""
  kept = [
    [w.lower() for w in s if w.lower() in vectors] for s in (words, others)
  ]
  size = min(map(len, kept))
  return [np.stack([vectors[w] for w in s[:size]]) for s in kept]


@pytest.mark.slow
@pytest.mark.parametrize(
  ("targets", "attributes", "least"),
  [
    (("male_terms", "female_terms"), ("career", "family"), 0.8),
    (("instruments", "weapons"), ("pleasant_5", "unpleasant_5a"), 0.8),
  ],
)
def test_glove_has_the_known_sign(targets, attributes, least, glove, word_sets):
  x, y = in_both(*(word_sets[name] for name in targets), glove)
  a, b = in_both(*(word_sets[name] for name in attributes), glove)
  assert len(x) >= 3
  result = fairness.weat(x, y, a, b)
  assert result.effect_size > least
  found = fairness.weat_interval(result, key=jax.random.key(0), num=500)
  assert found.low < result.effect_size < found.high
