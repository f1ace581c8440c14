"""The planted-bias sentences: planted levels, coupling, counterfactuals."""

import collections
import dataclasses

import numpy as np
import pytest
from scipy import stats

from trustjax import data

LEVELS = (0.0, 0.4, 1.0)
SIZE = 4000


def leaning(sentences):
  """Sentences with a gendered word and an occupation that leans."""
  return [
    s for s in sentences if s.gender != "neutral" and s.stereotype != "neutral"
  ]


@pytest.mark.parametrize("level", LEVELS)
def test_pronouns_follow_the_planted_level(level):
  """Chi-square of the 2 x 2 table against the planted probabilities.

  One test in a thousand would fail by chance; the seed is fixed.
  """
  sentences = leaning(data.occupation_sentences(3, SIZE, level))
  for side in ("female", "male"):
    genders = [s.gender for s in sentences if s.stereotype == side]
    agree = sum(gender == side for gender in genders)
    expected = np.array([1 + level, 1 - level]) / 2 * len(genders)
    if level == 1:
      assert agree == len(genders)
    else:
      found = stats.chisquare([agree, len(genders) - agree], expected)
      assert found.pvalue > 1e-3


@pytest.mark.parametrize("level", LEVELS)
def test_pronouns_of_the_controls_are_balanced(level):
  sentences = data.occupation_sentences(3, SIZE, level)
  counts = collections.Counter(
    s.gender for s in sentences if s.stereotype == "neutral"
  )
  assert stats.chisquare([counts["male"], counts["female"]]).pvalue > 1e-3


@pytest.mark.parametrize("level", LEVELS)
def test_adjectives_follow_the_planted_level(level):
  sentences = data.occupation_sentences(5, SIZE, 0.5, opinion_bias=level)
  for gender, sign in (("male", 1), ("female", -1), ("neutral", 0)):
    strengths = [s.strength for s in sentences if s.gender == gender]
    polar = [strength > 0 for strength in strengths if strength]
    expected = (1 + sign * level) / 2
    if expected in (0, 1):
      assert np.mean(polar) == expected
    else:
      assert stats.binomtest(sum(polar), len(polar), expected).pvalue > 1e-3


@pytest.mark.parametrize("level", LEVELS)
def test_labels_follow_the_planted_level(level):
  """Log-likelihood ratio of the planted probabilities, by cell."""
  sentences = data.occupation_sentences(7, SIZE, 0.0, label_bias=level)
  cells = collections.defaultdict(list)
  for s in sentences:
    cells[s.gender, s.strength].append((s.label, s.merit))
  statistic = 0.0
  for (gender, strength), pairs in cells.items():
    shift = 1.5 * level * {"male": 1, "female": -1, "neutral": 0}[gender]
    labels, merits = np.array(pairs).T
    for recorded, logit in ((labels, strength + shift), (merits, strength)):
      rate = 1 / (1 + np.exp(-logit))
      z = (recorded.mean() - rate) / np.sqrt(rate * (1 - rate) / len(pairs))
      statistic += z**2
  # 15 cells, twice; label and merit share their draw, so the two halves are
  # dependent and the bound is on twice a chi-square of 15.
  assert len(cells) == 15
  assert statistic < 2 * stats.chi2(15).ppf(0.999)


def test_the_three_biases_do_not_touch_one_another():
  plain = data.occupation_sentences(1, 500, 0.5)
  judged = data.occupation_sentences(1, 500, 0.5, label_bias=1.0)
  assert [s.tokens for s in plain] == [s.tokens for s in judged]
  assert [s.merit for s in plain] == [s.merit for s in judged]
  assert [s.label for s in plain] == [s.merit for s in plain]
  assert [s.label for s in judged] != [s.merit for s in judged]
  praised = data.occupation_sentences(1, 500, 0.5, opinion_bias=1.0)
  assert [s.gender for s in plain] == [s.gender for s in praised]


def test_deterministic_and_coupled_across_levels():
  one = data.occupation_sentences(2, 300, 0.2)
  assert one == data.occupation_sentences.__wrapped__(2, 300, 0.2)
  assert one == data.occupation_sentences(2, 600, 0.2)[:300]
  other = data.occupation_sentences(2, 300, 0.8)
  assert [s.occupation for s in one] == [s.occupation for s in other]
  changed = [a.gender != b.gender for a, b in zip(one, other, strict=True)]
  # Of 0.8 x 20/24 sentences, the share whose draw lies between the levels.
  assert 0.1 < np.mean(changed) < 0.3
  assert one != data.occupation_sentences(3, 300, 0.2)


def test_every_role_and_occupation_occurs():
  sentences = data.occupation_sentences(0, SIZE, 0.0)
  words = {
    (token, role)
    for s in sentences
    for token, role in zip(s.tokens, s.roles, strict=True)
    if role is not None
  }
  for pair in (
    ("he", "subject"),
    ("she", "subject"),
    ("him", "object"),
    ("her", "object"),
    ("his", "determiner"),
    ("her", "determiner"),
    ("his", "alone"),
    ("hers", "alone"),
    ("himself", "plain"),
    ("herself", "plain"),
    ("grandmother", "plain"),
  ):
    assert pair in words
  assert {s.occupation for s in sentences} == set(data.OCCUPATIONS)
  before = [
    s.occupation_at < min(s.gendered_at) for s in sentences if s.gendered_at
  ]
  assert 0.5 < np.mean(before) < 0.65
  neutral = np.mean([s.gender == "neutral" for s in sentences])
  assert abs(neutral - 0.2) < 0.03


def test_swapping_is_an_involution_that_keeps_all_but_the_gender():
  lexicon = data.gender_lexicon()
  listed = set(lexicon.roles)
  for sentence in data.occupation_sentences(4, 1500, 0.3):
    swapped = sentence.swapped_tokens
    again = data.swap_pieces(
      swapped, data.swap_pieces(sentence.tokens, sentence.roles).roles
    )
    assert again.pieces == sentence.tokens
    gendered = set(sentence.gendered_at)
    assert bool(gendered) == (sentence.gender != "neutral")
    for at, (one, other) in enumerate(
      zip(sentence.tokens, swapped, strict=True)
    ):
      assert (one != other) == (at in gendered)
      assert (one in listed) == (at in gendered)


def test_the_rules_of_the_swapper_agree_with_the_roles():
  """Roles come with the sentence; a reader of the text alone finds the same."""
  for sentence in data.occupation_sentences(4, 1500, 0.3):
    swapped = data.swap_gender(sentence.text)
    assert swapped.text == " ".join(sentence.swapped_tokens)
    assert data.swap_gender(swapped.text).text == sentence.text


def test_opinions_stand_where_they_are_said_to():
  for sentence in data.occupation_sentences(4, 1500):
    assert sentence.tokens[sentence.occupation_at] == sentence.occupation
    opinions = [t for t in sentence.tokens if t in data.OPINIONS]
    if sentence.opinion_at is None:
      assert not opinions and sentence.strength == 0
    else:
      word = sentence.tokens[sentence.opinion_at]
      assert opinions == [word]
      assert sentence.strength == data.OPINIONS[word]


def test_prompts_leave_open_what_they_ask_for():
  prompts = data.occupation_prompts()
  assert len({p.tokens for p in prompts}) == len(prompts) == 6 * 24
  listed = set(data.gender_lexicon().roles)
  for prompt in prompts:
    assert prompt.group in prompt.tokens
    assert not listed & set(prompt.tokens)
  pairs = data.gender_prompts()
  assert collections.Counter(p.group for p in pairs) == {
    "female": len(pairs) // 2,
    "male": len(pairs) // 2,
  }
  for female, male in zip(pairs[::2], pairs[1::2], strict=True):
    assert data.swap_pieces(female.tokens).pieces == male.tokens
    assert not set(data.OPINIONS) & set(female.tokens)


def test_vocabulary_knows_every_word_and_its_partner():
  vocabulary = data.occupation_vocabulary()
  assert vocabulary.tokens[:5] == ("<pad>", "<unk>", "<s>", "</s>", "<mask>")
  for sentence in data.occupation_sentences(4, 1000, 0.3):
    assert 1 not in vocabulary.encode(sentence.tokens)
    assert 1 not in vocabulary.encode(sentence.swapped_tokens)
  for prompt in data.occupation_prompts() + data.gender_prompts():
    assert 1 not in vocabulary.encode(prompt.tokens)
  used = {word for s in data.occupation_sentences(4, 3000) for word in s.tokens}
  assert set(vocabulary.tokens[5:]) - used == set()


def test_encoding():
  sentences = data.occupation_sentences(4, 200, 0.3)
  arrays = data.encode_sentences(sentences)
  vocabulary = data.occupation_vocabulary()
  for row, sentence in enumerate(sentences):
    ids = arrays["tokens"][row][arrays["mask"][row]]
    words = vocabulary.decode(ids)
    assert words == ["<s>", *sentence.tokens, "</s>"]
    assert words[arrays["occupation_at"][row]] == sentence.occupation
    assert not arrays["tokens"][row][~arrays["mask"][row]].any()
  swapped = data.encode_sentences(sentences, swapped=True)
  differ = arrays["tokens"] != swapped["tokens"]
  np.testing.assert_array_equal(differ, arrays["gendered"])
  partner = np.array([1, 0, 2])
  np.testing.assert_array_equal(partner[arrays["gender"]], swapped["gender"])
  names = [data.GENDERS[g] for g in arrays["gender"]]
  assert names == [s.gender for s in sentences]
  for field in ("strength", "merit", "label"):
    np.testing.assert_array_equal(
      arrays[field], [getattr(s, field) for s in sentences]
    )


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    ({"seed": -1}, "seed is -1"),
    ({"size": 0}, "size is 0"),
    ({"bias": 1.5}, "bias is 1.5"),
    ({"opinion_bias": -0.1}, "opinion_bias is -0.1"),
    ({"label_bias": float("nan")}, "label_bias is nan"),
    ({"neutral_share": 2.0}, "neutral_share is 2.0"),
  ],
)
def test_bad_arguments(arguments, message):
  with pytest.raises(ValueError, match=message):
    data.occupation_sentences(**arguments)


def test_bad_encodings():
  with pytest.raises(ValueError, match="got none"):
    data.encode_sentences(())
  with pytest.raises(ValueError, match="time is 5; the longest sentence needs"):
    data.encode_sentences(data.occupation_sentences(0, 20), time=5)


def test_records_are_frozen():
  sentence = data.occupation_sentences(0, 1)[0]
  with pytest.raises(dataclasses.FrozenInstanceError):
    sentence.label = 1  # pyright: ignore
