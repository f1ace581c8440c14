"""Gender polarity of texts: known answers and properties."""

import jax
import numpy as np
import pytest

from trustjax import fairness

F, M, N, T = (fairness.FEMALE, fairness.MALE, fairness.NEUTRAL, fairness.TIE)


class TestWords:
  def test_lists_hold_nine_words_each(self):
    assert len(fairness.FEMALE_WORDS) == len(fairness.MALE_WORDS) == 9
    assert not fairness.FEMALE_WORDS & fairness.MALE_WORDS

  @pytest.mark.parametrize(
    ("text", "female", "male"),
    [
      ("She said he left. SHE did.", 2, 1),
      ("The woman's men; she's here, he\u2019s not", 2, 2),
      ("Heroes there shed themes.", 0, 0),
      ("", 0, 0),
      ("she.", 1, 0),
      ("she'll ask her-self", 2, 0),
    ],
  )
  def test_counts(self, text, female, male):
    got = fairness.gender_word_counts([text])
    assert (int(got[0][0]), int(got[1][0])) == (female, male)

  def test_own_lists(self):
    got = fairness.gender_word_counts(
      ["The queen met a king."], female={"queen"}, male={"king"}
    )
    assert (got[0].tolist(), got[1].tolist()) == ([1], [1])


class TestLabel:
  def test_known_answers(self):
    got = fairness.gender_label(np.array([2, 1, 0, 3]), np.array([1, 2, 0, 3]))
    assert got.tolist() == [F, M, N, T]
    assert [fairness.GENDER_LABELS[i] for i in got] == [
      "female",
      "male",
      "neutral",
      "tie",
    ]

  def test_swapping_counts_swaps_labels(self):
    rng = np.random.default_rng(0)
    one, other = rng.integers(0, 4, (2, 50))
    swapped = np.array([M, F, N, T])[fairness.gender_label(one, other)]
    np.testing.assert_array_equal(fairness.gender_label(other, one), swapped)

  def test_bad_counts(self):
    with pytest.raises(ValueError, match="female_count: got a negative"):
      fairness.gender_label(np.array([-1]), np.array([0]))


class TestPolarity:
  def test_known_answers(self):
    b, mask = np.array([0.1, 0.1, -0.1, 0.4]), np.ones(4, bool)
    for how, value in (("weighted", 0.2428571), ("max", 0.4), ("mean", 0.125)):
      got = fairness.gender_polarity(b, mask, how=how)
      np.testing.assert_allclose(got.value, value, rtol=1e-6)

  def test_labels_of_the_specification(self):
    b = np.array([[0.1, -0.4, 0.3], [0.2, -0.24, 9], [9, 9, 9]])
    mask = np.array([[1, 1, 1], [1, 1, 0], [0, 0, 0]], bool)
    got = fairness.gender_polarity(b, mask)
    assert got.label.tolist() == [M, N, N]
    assert got.n.tolist() == [3, 2, 0]
    assert got.value[2] == 0

  def test_threshold_is_strict(self):
    got = fairness.gender_polarity(
      np.array([[0.25], [0.2500001]]), np.ones((2, 1), bool)
    )
    assert got.label.tolist() == [N, F]

  @pytest.mark.parametrize("how", ["max", "weighted", "mean"])
  def test_properties(self, how):
    rng = np.random.default_rng(0)
    b, mask = rng.uniform(-1, 1, (40, 9)), rng.random((40, 9)) < 0.7
    got = fairness.gender_polarity(b, mask, how=how)
    negated = fairness.gender_polarity(-b, mask, how=how)
    np.testing.assert_allclose(got.value, -negated.value, rtol=1e-5)
    order = rng.permutation(9)
    shuffled = fairness.gender_polarity(b[:, order], mask[:, order], how=how)
    np.testing.assert_allclose(got.value, shuffled.value, rtol=1e-5)
    inert = fairness.gender_polarity(np.where(mask, b, np.nan), mask, how=how)
    np.testing.assert_array_equal(got.value, inert.value)
    compiled = jax.jit(
      lambda b, m: fairness.gender_polarity(b, m, how=how).value
    )(b, mask)
    np.testing.assert_allclose(compiled, got.value, rtol=1e-5)
    for i in range(40):
      kept = b[i, mask[i]]
      want = {
        "max": lambda kept: kept[np.abs(kept).argmax()],
        "weighted": lambda kept: (
          (np.sign(kept) * kept**2).sum() / np.abs(kept).sum()
        ),
        "mean": np.mean,
      }[how](kept)
      np.testing.assert_allclose(got.value[i], want, rtol=1e-5)

  def test_bad_input(self):
    with pytest.raises(ValueError, match="how: got 'median'"):
      fairness.gender_polarity(np.ones(2), np.ones(2, bool), how="median")
    with pytest.raises(ValueError, match=r"b\[1\]: got nan"):
      fairness.gender_polarity(np.array([1, np.nan]), np.ones(2, bool))


def test_projection():
  she, he = np.array([0.0, 2.0]), np.array([0.0, -1.0])
  got = fairness.gender_projection(
    np.array([[0, 5.0], [3, 0], [1, -1]]), she, he
  )
  np.testing.assert_allclose(got, [1, 0, -np.sqrt(0.5)], atol=1e-6)
  swapped = fairness.gender_projection(
    np.array([[0, 5.0], [3, 0], [1, -1]]), he, she
  )
  np.testing.assert_allclose(got, -swapped, atol=1e-6)
  with pytest.raises(ValueError, match="they span no direction"):
    fairness.gender_projection(np.ones((1, 2)), she, she)
