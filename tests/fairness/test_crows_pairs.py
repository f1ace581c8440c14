"""CrowS-Pairs: counting, ties, alignment, and the public file."""

import collections
import csv

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from tests.fairness import small_models as small
from trustjax import fairness


def naive(more, less, is_anti):
  """The published evaluation, pair by pair."""
  preferred = {False: 0, True: 0}
  counted = {False: 0, True: 0}
  neutral = 0
  for first, second, anti in zip(more, less, is_anti):
    first, second = round(float(first), 3), round(float(second), 3)
    if first == second:
      neutral += 1
      continue
    counted[bool(anti)] += 1
    preferred[bool(anti)] += first > second
  n = len(more)
  return (
    100 * sum(preferred.values()) / n,
    100 * preferred[False] / counted[False],
    100 * preferred[True] / counted[True],
    100 * neutral / n,
  )


def random_pairs(seed, n=300):
  rng = np.random.default_rng(seed)
  more = rng.normal(-50, 2, n).round(4)
  less = np.where(rng.random(n) < 0.1, more, rng.normal(-50, 2, n).round(4))
  return more, less, rng.random(n) < 0.2


def test_known_answer():
  got = fairness.crows_pairs(
    np.array([-1.0, -2.0, -3.0, -4.0]),
    np.array([-2.0, -1.0, -3.0, -5.0]),
    np.array([False, False, True, True]),
  )
  np.testing.assert_allclose(
    (got.overall, got.stereo, got.anti, got.neutral_rate), (50, 50, 100, 25)
  )
  assert (int(got.n), int(got.n_stereo), int(got.n_anti)) == (4, 2, 1)


@pytest.mark.parametrize("seed", range(3))
def test_equals_pair_by_pair(seed):
  arrays = random_pairs(seed)
  got = fairness.crows_pairs(*arrays)
  np.testing.assert_allclose(
    (got.overall, got.stereo, got.anti, got.neutral_rate),
    naive(*arrays),
    rtol=1e-5,
  )


def test_rounding_decides_ties():
  more, less = np.array([-1.0001]), np.array([-1.0002])
  anti = np.array([False])
  assert fairness.crows_pairs(more, less, anti).neutral_rate == 100
  assert fairness.crows_pairs(more, less, anti, round_to=None).overall == 100
  assert fairness.crows_pairs(more, less, anti, round_to=4).overall == 100


def test_large_scores_are_rounded_as_in_python():
  """At 300 the steps of float32 are 3e-5: too coarse to round to 1e-3."""
  rng = np.random.default_rng(0)
  more = -300 * rng.random(2000)
  less = more + rng.choice([-6e-4, -4e-4, 4e-4, 6e-4], 2000)
  got = fairness.crows_pairs(more, less, np.zeros(2000, bool))
  ones, others = ([round(float(s), 3) for s in part] for part in (more, less))
  ties = np.mean(np.equal(ones, others))
  np.testing.assert_allclose(got.neutral_rate, 100 * ties, rtol=1e-6)
  np.testing.assert_allclose(
    got.overall, 100 * np.mean(np.greater(ones, others)), rtol=1e-6
  )


def test_swapping_the_sentences_mirrors():
  more, less, anti = random_pairs(0)
  one = fairness.crows_pairs(more, less, anti)
  other = fairness.crows_pairs(less, more, anti)
  np.testing.assert_allclose(
    one.overall + other.overall, 100 - one.neutral_rate, rtol=1e-5
  )
  np.testing.assert_allclose(one.stereo, 100 - other.stereo, rtol=1e-5)


def test_categories_and_mask():
  more, less, anti = random_pairs(0)
  category = np.arange(300) % 4
  keep = category != 3
  got = fairness.crows_pairs(
    np.where(keep, more, np.nan),
    less,
    anti,
    category=category,
    num_categories=4,
    mask=keep,
  )
  for c in range(3):
    rows = category == c
    alone = fairness.crows_pairs(more[rows], less[rows], anti[rows])
    np.testing.assert_allclose(got.by_category[c], alone.overall, rtol=1e-5)
  assert np.isnan(got.by_category[3])
  assert got.n_by_category.tolist() == [75, 75, 75, 0]
  assert int(got.n_dropped) == 75


def test_interval_is_wilsons():
  more, less, anti = random_pairs(0)
  got = fairness.crows_pairs(more, less, anti)
  successes = round(float(got.overall) * 3)
  want = stats.binomtest(successes, 300).proportion_ci(method="wilson")
  np.testing.assert_allclose(
    (got.low, got.high), (100 * want.low, 100 * want.high), rtol=1e-4
  )
  low, high = fairness.wilson_bounds(
    jnp.array([0, 5]), jnp.array([5, 5]), confidence=0.9
  )
  for i, k in enumerate((0, 5)):
    want = stats.binomtest(k, 5).proportion_ci(0.9, method="wilson")
    np.testing.assert_allclose(
      (low[i], high[i]), (want.low, want.high), atol=1e-6
    )


def test_jit_equals_eager_and_nothing_is_nan():
  arrays = [jnp.asarray(a) for a in random_pairs(0)]
  chex.assert_trees_all_close(
    fairness.crows_pairs(*arrays),
    jax.jit(fairness.crows_pairs)(*arrays),
    rtol=1e-5,
  )
  empty = fairness.crows_pairs(*arrays, mask=np.zeros(300, bool))
  assert np.isnan(empty.overall)
  assert int(empty.n) == 0


def test_bad_input():
  more, less, anti = random_pairs(0)
  with pytest.raises(ValueError, match=r"score_less\[7\]: got nan"):
    fairness.crows_pairs(
      more, np.where(np.arange(300) == 7, np.nan, less), anti
    )
  with pytest.raises(ValueError, match=r"category\[0\]: got 0"):
    fairness.crows_pairs(more, less, anti, category=np.zeros(300, int))


class TestAlignment:
  @pytest.mark.parametrize(
    ("first", "second", "want"),
    [
      ([1, 2, 3], [1, 9, 3], ([0, 2], [0, 2])),
      ([1, 2, 3], [1, 8, 9, 3], ([0, 2], [0, 3])),
      ([1, 2], [3, 4], ([], [])),
      ([5, 6], [5, 6], ([0, 1], [0, 1])),
    ],
  )
  def test_known(self, first, second, want):
    assert fairness.shared_positions(first, second) == want

  def test_long_sentences_have_no_junk(self):
    """Popular ids of more than 200 tokens would be dropped as junk."""
    ids = [1, 2] * 150
    got, other = fairness.shared_positions([*ids, 3], [*ids, 4])
    assert got == other == list(range(300))


class TestQuestions:
  PAIRS = (
    ("The women cook well.", "The men cook well."),
    ("Grandmothers like tea.", "They like tea."),
  )

  def test_equals_asking_one_sentence_at_a_time(self):
    subwords = small.subwords()
    queries = fairness.pair_queries(self.PAIRS, subwords)
    got = fairness.sum_by_item(
      fairness.score_masked(small.masked_model, queries), queries
    ).reshape(-1, 2)
    for i, pair in enumerate(self.PAIRS):
      for side, text in enumerate(pair):
        ids = subwords.encode(text)
        other = subwords.encode(pair[1 - side])
        total = 0
        for at, piece in enumerate(ids):
          if piece not in other:
            continue
          whole = [small.CLS, *ids, small.SEP]
          whole[at + 1] = small.MASK
          total += small.ask(whole, at + 1, piece)
        np.testing.assert_allclose(got[i, side], total, rtol=1e-4)

  def test_modified_tokens_are_visible_and_specials_are_not_asked(self):
    subwords = small.subwords()
    queries = fairness.pair_queries(self.PAIRS[:1], subwords)
    women = subwords.encode("women")[0]
    of_first = np.asarray(queries.item) == 0
    assert (np.asarray(queries.tokens)[of_first] == women).any(1).all()
    assert not np.isin(queries.piece, [small.CLS, small.SEP, women]).any()
    assert (np.asarray(queries.position) > 0).all()

  def test_a_pair_without_shared_tokens_has_no_rows(self):
    queries = fairness.pair_queries(
      [("abc", "xyz"), ("abc q", "xyz q")], small.subwords()
    )
    assert queries.rows_per_item.tolist() == [0, 0, 1, 1]

  def test_causal_variant(self):
    subwords = small.subwords(mask_id=None, prefix=(), suffix=())
    got = fairness.causal_pair_scores(
      small.causal_model, self.PAIRS, subwords, start_id=small.START
    )
    for i, pair in enumerate(self.PAIRS):
      for side, text in enumerate(pair):
        want = sum(small.ask_causal(subwords.encode(text)))
        np.testing.assert_allclose(got[i, side], want, rtol=1e-4)

  def test_an_empty_sentence_is_refused(self):
    subwords = small.subwords(mask_id=None, prefix=(), suffix=())
    with pytest.raises(ValueError, match=r"pairs\[1\]\[0\]: has no tokens"):
      fairness.causal_pair_scores(
        small.causal_model,
        [self.PAIRS[0], ("", "a")],
        subwords,
        start_id=small.START,
      )


def test_sizes_of_the_public_file(data_dir):
  path = data_dir / "crows_pairs/crows_pairs_anonymized.csv"
  with path.open(encoding="utf-8", newline="") as lines:
    rows = list(csv.DictReader(lines))
  assert len(rows) == 1508
  direction = collections.Counter(row["stereo_antistereo"] for row in rows)
  assert direction == {"stereo": 1290, "antistereo": 218}
  names = sorted({row["bias_type"] for row in rows})
  category = np.array([names.index(row["bias_type"]) for row in rows])
  subwords = small.subwords(
    encode=lambda text: [sum(map(ord, w)) % 300 + 5 for w in text.split()]
  )
  pairs = [(row["sent_more"], row["sent_less"]) for row in rows]
  queries = fairness.pair_queries(pairs, subwords)
  # Shorter sentences are likelier: a scorer that knows nothing else.
  scores = -np.array([[len(more), len(less)] for more, less in pairs], float)
  got = fairness.crows_pairs(
    scores[:, 0],
    scores[:, 1],
    np.array([row["stereo_antistereo"] == "antistereo" for row in rows]),
    category=category,
    num_categories=len(names),
  )
  sizes = dict(zip(names, got.n_by_category.tolist()))
  assert sizes == {
    "race-color": 516,
    "gender": 262,
    "socioeconomic": 172,
    "nationality": 159,
    "religion": 105,
    "age": 87,
    "sexual-orientation": 84,
    "physical-appearance": 63,
    "disability": 60,
  }
  both = np.asarray(queries.rows_per_item).reshape(-1, 2)
  assert (both[:, 0] == both[:, 1]).all()
  assert (both > 0).all(1).mean() > 0.99
