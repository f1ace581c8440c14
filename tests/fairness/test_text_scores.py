"""Sentiment, toxicity and regard: labels, shares, gaps and their noise."""

import jax
import numpy as np
import pytest

from trustjax import fairness

KEY = jax.random.key(0)


class TestScoring:
  def test_batches_do_not_matter(self):
    texts = [f"text {'x' * i}" for i in range(10)]
    sizes = []

    def lengths(batch):
      sizes.append(len(batch))
      return [len(text) for text in batch]

    got = fairness.score_texts(lengths, texts, batch_size=4)
    assert sizes == [4, 4, 2]
    assert got.tolist() == [len(text) for text in texts]

  def test_bad_scorers(self):
    with pytest.raises(ValueError, match=r"returned shape \(1,\) for 2 texts"):
      fairness.score_texts(lambda batch: [0.5], ["a", "b"])
    with pytest.raises(ValueError, match=r"score_fn\(texts\)\[1\]: got nan"):
      fairness.score_texts(lambda batch: [0.5, np.nan], ["a", "b"])
    with pytest.raises(ValueError, match="texts: got none"):
      fairness.score_texts(lambda batch: [], [])


class TestLabels:
  def test_sentiment_thresholds_are_inclusive(self):
    got = fairness.sentiment_label(np.array([0.5, 0.49, -0.49, -0.5]))
    names = [fairness.SENTIMENT_LABELS[i] for i in got]
    assert names == ["positive", "neutral", "neutral", "negative"]
    with pytest.raises(ValueError, match="first must be smaller"):
      fairness.sentiment_label(np.ones(1), positive=0.1, negative=0.2)

  def test_any_label_makes_a_text_toxic(self):
    scores = np.zeros((4, 6))
    scores[1, 5], scores[2, 0], scores[3, 0] = 0.5, 0.49, 0.9
    assert fairness.toxic_label(scores).tolist() == [0, 1, 0, 1]

  def test_mentions_are_masked_as_whole_words(self):
    got = fairness.mask_mentions(
      "The black woman and a Woman; womanly (black women).",
      ["woman", "black woman", "women"],
    )
    assert got == "The XYZ and a XYZ; womanly (black XYZ)."
    assert fairness.mask_mentions("as is", []) == "as is"


def many(seed=0, rates=(0.2, 0.4), size=100):
  rng = np.random.default_rng(seed)
  group = np.repeat(np.arange(len(rates)), size)
  return (rng.random(len(group)) < np.asarray(rates)[group]).astype(int), group


class TestShares:
  def test_known_answer(self):
    got = fairness.label_shares(
      np.array([0, 0, 1, 2, 2, 2, 1, 0]),
      np.array([0, 0, 0, 0, 1, 1, 1, 1]),
      num_groups=2,
      num_labels=3,
    )
    np.testing.assert_allclose(
      got.shares, [[0.5, 0.25, 0.25], [0.25, 0.25, 0.5]]
    )
    np.testing.assert_allclose(got.gap, [0.25, 0, 0.25])
    assert got.n.tolist() == [4, 4]

  def test_shares_are_a_distribution(self):
    rng = np.random.default_rng(0)
    labels, group = rng.integers(0, 4, 300), rng.integers(0, 5, 300)
    got = fairness.label_shares(labels, group, num_groups=5, num_labels=4)
    np.testing.assert_allclose(got.shares.sum(1), 1, rtol=1e-6)
    for g in range(5):
      want = np.bincount(labels[group == g], minlength=4) / (group == g).sum()
      np.testing.assert_allclose(got.shares[g], want, rtol=1e-6)

  def test_empty_group(self):
    labels, group = many()
    with pytest.raises(ValueError, match="group 2 of 3 has no texts"):
      fairness.label_shares(labels, group, num_groups=3, num_labels=2)
    got = fairness.label_shares(
      labels, group, num_groups=3, num_labels=2, on_empty="nan"
    )
    assert np.isnan(got.shares[2]).all()
    assert got.n[2] == 0


class TestGapTest:
  @pytest.mark.slow
  def test_a_planted_gap_is_found(self):
    got = fairness.label_gap_test(
      *many(), num_groups=2, num_labels=2, key=KEY, num=500
    )
    assert got.p_value[1] < 0.05
    assert got.low.gap[1] < got.estimate.gap[1] < got.high.gap[1]
    assert got.null_mean[1] < got.null_high[1] < got.estimate.gap[1]

  @pytest.mark.slow
  def test_noise_floor_of_the_religions_of_bold(self):
    """Equal rates of 10 % in groups of these sizes: about .124 and .216."""
    sizes = [94, 171, 109, 12, 134, 90, 29]
    group = np.repeat(np.arange(7), sizes)
    labels = (np.arange(len(group)) % 10 == 0).astype(int)
    got = fairness.label_gap_test(
      labels, group, num_groups=7, num_labels=2, key=KEY, num=4000
    )
    np.testing.assert_allclose(got.null_mean[1], 0.124, atol=0.01)
    np.testing.assert_allclose(got.null_high[1], 0.216, atol=0.015)

  @pytest.mark.slow
  def test_texts_of_a_prompt_stay_together(self):
    """Ten copies of each text are no more evidence than one."""
    labels, group = many(size=40)
    alone = fairness.label_gap_test(
      labels, group, num_groups=2, num_labels=2, key=KEY, num=1000
    )
    copies = fairness.label_gap_test(
      np.repeat(labels, 10),
      np.repeat(group, 10),
      num_groups=2,
      num_labels=2,
      key=KEY,
      num=1000,
      prompt=np.repeat(np.arange(80), 10),
    )
    np.testing.assert_allclose(alone.low.gap, copies.low.gap, atol=1e-6)
    np.testing.assert_allclose(alone.p_value, copies.p_value, atol=1e-6)

  def test_a_prompt_of_two_groups_is_refused(self):
    with pytest.raises(ValueError, match="prompt 0 belongs to more than one"):
      fairness.label_gap_test(
        *many(),
        num_groups=2,
        num_labels=2,
        key=KEY,
        prompt=np.zeros(200, int),
      )


class TestPromptedToxicity:
  SCORES = np.array([[0.1, 0.5, 0.2], [0.4, 0.3, 0.9], [0.1, 0.2, 0.3]])

  def test_known_answer(self):
    got = fairness.prompted_toxicity(self.SCORES)
    np.testing.assert_allclose(
      got.expected_maximum, (0.5 + 0.9 + 0.3) / 3, rtol=1e-6
    )
    np.testing.assert_allclose(got.probability, 2 / 3, rtol=1e-6)
    np.testing.assert_allclose(got.fraction, 2 / 9, rtol=1e-6)
    strict = fairness.prompted_toxicity(self.SCORES, strict=True)
    np.testing.assert_allclose(strict.probability, 1 / 3, rtol=1e-6)

  def test_invalid_continuations_are_inert(self):
    valid = np.array([[1, 0, 1], [1, 1, 1], [0, 0, 0]], bool)
    got = fairness.prompted_toxicity(
      np.where(valid, self.SCORES, np.nan), valid
    )
    np.testing.assert_allclose(got.expected_maximum, (0.2 + 0.9) / 2)
    np.testing.assert_allclose(got.fraction, 1 / 5)
    assert (int(got.n), float(got.k)) == (2, 2.5)
    empty = fairness.prompted_toxicity(self.SCORES, np.zeros((3, 3), bool))
    assert np.isnan(empty.probability)
    assert int(empty.n) == 0

  @pytest.mark.slow
  def test_grows_with_k(self):
    rng = np.random.default_rng(0)
    scores = rng.random((200, 25))
    values = [
      float(fairness.prompted_toxicity(scores[:, :k]).expected_maximum)
      for k in (1, 5, 25)
    ]
    assert values == sorted(values)
    assert values[0] < 0.6
    assert values[-1] > 0.9
