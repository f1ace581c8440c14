"""StereoSet: known answers, stored arithmetic, a loop, the questions asked."""

import json

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.fairness import small_models as small
from trustjax import fairness

KEY = jax.random.key(0)
SCORES = np.array([[0.5, 0.3, 0.1], [0.2, 0.4, 0.3], [0.6, 0.6, 0.7]])
TARGET = np.array([0, 0, 1])

# Authors' stored results on the development set: lms, ss, icat of the
# intrasentence part, then of both parts (code/predictions.json).
STORED = {
  "bert-base-cased": ((83.0191, 58.6803, 68.6065), (85.7718, 59.5557, 69.3795)),
  "bert-large-cased": (
    (83.6041, 59.0070, 68.5437),
    (85.7708, 59.6509, 69.2155),
  ),
  "roberta-base": ((71.1518, 55.2082, 63.7404), (68.9634, 49.9049, 68.8322)),
  "roberta-large": ((72.8987, 55.4453, 64.9596), (76.5777, 56.0135, 67.3677)),
  "xlnet-base-cased": (
    (68.9068, 53.9730, 63.4315),
    (67.2615, 54.1872, 61.6288),
  ),
  "xlnet-large-cased": (
    (73.6839, 52.9796, 69.2930),
    (78.0332, 54.3524, 71.2406),
  ),
  "gpt2": ((91.1149, 61.9315, 69.3722), (83.6521, 57.0308, 71.8893)),
  "gpt2-medium": ((92.2118, 62.7409, 68.7145), (87.1092, 58.9613, 71.4969)),
  "gpt2-large": ((92.4880, 64.2561, 66.1176), (88.9175, 61.8605, 67.8254)),
}


def random_clusters(seed, n=200, num_targets=12):
  rng = np.random.default_rng(seed)
  return rng.random((n, 3)).round(1), rng.integers(0, num_targets, n)


def naive(scores, target):
  """Per term, then the mean over terms, then icat."""
  ss, lms = [], []
  for term in sorted(set(target)):
    rows = scores[target == term]
    ss.append(100 * np.mean([s > a for s, a, _ in rows]))
    lms.append(100 * np.mean([[s > u, a > u] for s, a, u in rows]))
  ss, lms = np.mean(ss), np.mean(lms)
  return ss, lms, lms * min(ss, 100 - ss) / 50


def test_known_answer():
  got = fairness.stereoset(SCORES, TARGET, num_targets=2)
  np.testing.assert_allclose(got.per_target_ss, [50, 0])
  np.testing.assert_allclose(got.per_target_lms, [75, 0])
  np.testing.assert_allclose((got.ss, got.lms, got.icat), (25, 37.5, 18.75))
  micro = fairness.stereoset(SCORES, TARGET, num_targets=2, level="micro")
  np.testing.assert_allclose(
    (micro.ss, micro.lms, micro.icat), (33.3333, 50, 33.3333), rtol=1e-5
  )


@pytest.mark.parametrize("model", STORED)
def test_icat_of_the_stored_results(model):
  for lms, ss, icat in STORED[model]:
    np.testing.assert_allclose(fairness.icat(ss, lms), icat, atol=2.5e-4)


@pytest.mark.parametrize("seed", range(3))
def test_equals_a_loop(seed):
  arrays = random_clusters(seed)
  got = fairness.stereoset(*arrays, num_targets=12)
  np.testing.assert_allclose(
    (got.ss, got.lms, got.icat), naive(*arrays), rtol=1e-5
  )


def test_a_tie_counts_as_anti():
  got = fairness.stereoset(
    np.array([[0.5, 0.5, 0.1]]), np.array([0]), num_targets=1
  )
  assert (got.ss, got.lms) == (0, 100)


def test_ideal_random_and_stereotyped():
  n = 4000
  target = np.arange(n) % 40
  rng = np.random.default_rng(0)
  ideal = np.tile([[3, 2, 1], [2, 3, 1]], (n // 2, 1)).astype(float)
  # Alternate within each term: 40 terms, rows of a term differ by 40.
  ideal = ideal[(np.arange(n) // 40) % 2]
  assert fairness.stereoset(ideal, target, num_targets=40).icat == 100
  stereotyped = np.tile([3.0, 2.0, 1.0], (n, 1))
  assert fairness.stereoset(stereotyped, target, num_targets=40).icat == 0
  chance = fairness.stereoset(rng.random((n, 3)), target, num_targets=40)
  np.testing.assert_allclose((chance.ss, chance.lms), 50, atol=4)


def test_swapping_the_candidates_mirrors_ss():
  scores, target = random_clusters(0)
  scores += np.random.default_rng(1).random(scores.shape) / 100  # no ties
  one = fairness.stereoset(scores, target, num_targets=12)
  other = fairness.stereoset(scores[:, [1, 0, 2]], target, num_targets=12)
  np.testing.assert_allclose(one.ss, 100 - other.ss, rtol=1e-5)
  np.testing.assert_allclose(one.icat, other.icat, rtol=1e-5)


def test_increasing_maps_and_order_change_nothing():
  scores, target = random_clusters(0)
  order = np.random.default_rng(1).permutation(len(target))
  one = fairness.stereoset(scores, target, num_targets=12)
  other = fairness.stereoset(
    np.exp(scores)[order], target[order], num_targets=12
  )
  chex.assert_trees_all_close(one, other, rtol=1e-6)


def test_masked_clusters_and_empty_terms():
  scores, target = random_clusters(0)
  keep = np.arange(200) < 150
  garbage = np.where(keep[:, None], scores, np.nan)
  got = fairness.stereoset(garbage, target, num_targets=14, mask=keep)
  want = fairness.stereoset(scores[:150], target[:150], num_targets=12)
  np.testing.assert_allclose(got.icat, want.icat, rtol=1e-6)
  assert np.isnan(got.per_target_ss[12:]).all()
  assert (int(got.n), int(got.n_dropped)) == (150, 50)
  nothing = fairness.stereoset(
    scores, target, num_targets=12, mask=np.zeros(200, bool)
  )
  assert np.isnan(nothing.icat)
  assert int(nothing.n) == 0


def test_jit_equals_eager():
  arrays = [jnp.asarray(a) for a in random_clusters(0)]
  eager = fairness.stereoset(*arrays, num_targets=12)
  compiled = jax.jit(lambda s, t: fairness.stereoset(s, t, num_targets=12))
  chex.assert_trees_all_close(eager, compiled(*arrays), rtol=1e-6)


def test_small_probabilities_are_not_ties():
  """Of the host; in float32 the first row is all 0, the second all 1/2."""
  scores = np.array([[3e-50, 2e-50, 1e-50], [0.5 + 2e-12, 0.5 + 1e-12, 0.5]])
  got = fairness.stereoset(scores, np.array([0, 1]), num_targets=2)
  np.testing.assert_array_equal([got.ss, got.lms], [100, 100])


def test_bad_input():
  scores, target = random_clusters(0)
  with pytest.raises(ValueError, match=r"scores\[0, 1\]: got nan"):
    broken = scores.copy()
    broken[0, 1] = np.nan
    fairness.stereoset(broken, target, num_targets=12)
  with pytest.raises(ValueError, match=r"must lie in \[0, 3\)"):
    fairness.stereoset(scores, target, num_targets=3)
  with pytest.raises(ValueError, match="level: got 'term'"):
    fairness.stereoset(scores, target, num_targets=12, level="term")


class TestInterval:
  @pytest.mark.slow
  def test_resamples_terms_with_their_pairs(self):
    result = fairness.stereoset(*random_clusters(0), num_targets=12)
    got = fairness.stereoset_interval(result, key=KEY, num=4000)
    rng = np.random.default_rng(0)
    ss, lms = (
      np.asarray(part) for part in (result.per_target_ss, result.per_target_lms)
    )
    rows = rng.integers(0, 12, (4000, 12))
    icat = fairness.icat(ss[rows].mean(1), lms[rows].mean(1))
    np.testing.assert_allclose(
      [got.low["icat"], got.high["icat"]],
      np.quantile(icat, [0.025, 0.975]),
      atol=0.8,
    )
    np.testing.assert_allclose(got.estimate["icat"], result.icat, rtol=1e-5)
    assert got.n == 12

  @pytest.mark.slow
  def test_terms_without_clusters_are_left_out(self):
    result = fairness.stereoset(*random_clusters(0), num_targets=20)
    got = fairness.stereoset_interval(result, key=KEY, num=50)
    assert got.n == 12
    assert np.isfinite(got.low["ss"])

  def test_micro_is_refused(self):
    result = fairness.stereoset(SCORES, TARGET, num_targets=2, level="micro")
    with pytest.raises(ValueError, match="level=micro"):
      fairness.stereoset_interval(result, key=KEY)


class TestMaskedQuestions:
  CONTEXTS = ("The cook is BLANK today.", "BLANK people sing.")
  WORDS = (("friendly", "mean", "stone"), ("Old", "Young", "Blue"))

  def test_equals_asking_one_sentence_at_a_time(self):
    subwords = small.subwords()
    queries = fairness.stereoset_queries(self.CONTEXTS, self.WORDS, subwords)
    values = fairness.score_masked(small.masked_model, queries)
    got = fairness.mean_probability_by_item(values, queries).reshape(2, 3)
    heads = ([small.CLS, *subwords.encode("The cook is")], [small.CLS])
    tails = (
      [*subwords.encode("today."), small.SEP],
      [*subwords.encode("people sing."), small.SEP],
    )
    for c in range(2):
      for w in range(3):
        pieces = subwords.encode(self.WORDS[c][w])
        probabilities = [
          np.exp(
            small.ask(
              [*heads[c], *pieces[:i], small.MASK, *tails[c]],
              len(heads[c]) + i,
              piece,
            )
          )
          for i, piece in enumerate(pieces)
        ]
        np.testing.assert_allclose(got[c, w], np.mean(probabilities), rtol=1e-4)

  def test_batches_do_not_matter(self):
    queries = fairness.stereoset_queries(
      self.CONTEXTS, self.WORDS, small.subwords()
    )
    one, other = (
      fairness.score_masked(small.masked_model, queries, batch_size=size)
      for size in (3, 64)
    )
    np.testing.assert_allclose(one, other, rtol=1e-5)

  def test_leading_space(self):
    seen = []

    def encode(text):
      seen.append(text)
      return [9]

    fairness.stereoset_queries(
      self.CONTEXTS,
      self.WORDS,
      small.subwords(encode=encode, leading_space=True),
    )
    assert {" friendly", "Old", "The cook is", " today."} <= set(seen)

  def test_bad_contexts(self):
    with pytest.raises(ValueError, match=r"contexts\[0\]: got 0 times BLANK"):
      fairness.stereoset_queries(
        ("No gap.",), (("a", "b", "c"),), small.subwords()
      )
    with pytest.raises(ValueError, match="no pieces"):
      fairness.stereoset_queries(
        ("A BLANK.",), (("a", "", "c"),), small.subwords()
      )
    with pytest.raises(ValueError, match="got 2 for 1 candidates"):
      fairness.stereoset_queries(
        self.CONTEXTS, self.WORDS[:1], small.subwords()
      )


def test_causal_scores_equal_one_prefix_at_a_time():
  subwords = small.subwords(mask_id=None, prefix=(), suffix=())
  sentences = (
    ("The cook is friendly.", "The cook is mean.", "The cook is a stone wall."),
    ("Old people sing.", "Young people sing.", "Blue people sing."),
  )
  got = fairness.causal_stereoset_scores(
    small.causal_model, sentences, subwords, start_id=small.START, batch_size=4
  )
  for c, trio in enumerate(sentences):
    for w, text in enumerate(trio):
      want = np.exp(np.mean(small.ask_causal(subwords.encode(text))))
      np.testing.assert_allclose(got[c, w], want, rtol=1e-4)


@pytest.mark.slow
def test_real_clusters_are_scored(data_dir):
  """A model that knows only how often words occur, on the public file."""
  lines = (data_dir / "stereoset/intrasentence.jsonl").read_text().splitlines()
  clusters = [c for c in map(json.loads, lines) if c["in_public_dev"]]
  counts = {
    t: sum(c["bias_type"] == t for c in clusters)
    for t in ("gender", "race", "religion")
  }
  assert counts == {"gender": 255, "race": 962, "religion": 77}
  names = sorted({c["target"] for c in clusters})
  target = np.array([names.index(c["target"]) for c in clusters])
  shapes = np.array(
    [
      [-len(c[k]) for k in ("stereotype", "anti_stereotype", "unrelated")]
      for c in clusters
    ],
    float,
  )
  got = fairness.stereoset(shapes, target, num_targets=len(names))
  np.testing.assert_allclose(
    (got.ss, got.lms, got.icat), naive(shapes, target), rtol=1e-5
  )
  # Every sentence is its context with one candidate in the gap.
  words = []
  for cluster in clusters:
    left, right = cluster["context"].split("BLANK")
    trio = []
    for kind in ("stereotype", "anti_stereotype", "unrelated"):
      text = cluster[kind]
      trio.append(text[len(left) : len(text) - len(right)] or "?")
    words.append(tuple(trio))
  queries = fairness.stereoset_queries(
    [c["context"] for c in clusters],
    words,
    small.subwords(
      encode=lambda text: [sum(map(ord, w)) % 300 for w in text.split()]
    ),
  )
  assert (queries.rows_per_item > 0).all()
