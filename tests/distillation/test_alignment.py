"""Alignment: words by hand, texts of random words, packed sequences."""

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from trustjax import data, distillation

_END = 99


def _align(words, words_cf, policy):
  found = distillation.align(words, words_cf, policy=policy)
  return found.idx.tolist(), found.valid.tolist()


class TestAlign:
  # "the nurse / he / likes / his": the third word has two pieces on one side.
  _WORDS = [[1, 2], [3], [4, 5], [6]]
  _WORDS_CF = [[1, 2], [7], [8], [6]]

  def test_word_level(self):
    idx, valid = _align(self._WORDS, self._WORDS_CF, "word_level")
    assert idx == [0, 1, 2, 3, 3, 4]
    assert valid == [True, True, True, False, True, True]

  def test_single_token(self):
    idx, valid = _align(self._WORDS, self._WORDS_CF, "single_token")
    assert idx == [0, 1, 2, 3, 3, 4]
    assert valid == [True, True, True, False, False, True]

  def test_skip_row(self):
    _, valid = _align(self._WORDS, self._WORDS_CF, "skip_row")
    assert not any(valid)
    _, valid = _align([[1], [3]], [[1], [7]], "skip_row")
    assert all(valid)

  def test_a_longer_counterfactual_shifts_what_follows(self):
    idx, valid = _align([[1], [2], [3]], [[1], [7, 8, 9], [3]], "word_level")
    assert (idx, valid) == ([0, 3, 4], [True] * 3)

  def test_bad_input(self):
    with pytest.raises(ValueError, match="policy: got 'all'"):
      _align([[1]], [[1]], "all")
    with pytest.raises(ValueError, match="got 2 words for 1 words"):
      _align([[1]], [[1], [2]], "word_level")
    with pytest.raises(ValueError, match=r"words\[0\]: is empty on one side"):
      _align([[1]], [[]], "word_level")


_WORDS = [
  *("he", "she", "Her", "his", "HIM", "himself", "mother", "nephews", "king"),
  *("nurse", "said", "it's", "caf\u00e9", "\U0001f600", ",", "'", '"', "\n"),
]


@pytest.fixture(scope="module")
def tokenizer():
  """Few merges, so that many words have several pieces."""
  text = "he she her his him said mother father nurse " * 5
  return data.train_byte_pair([text], vocab_size=280)


def _pairs(tokenizer, *texts):
  swaps = [(text, data.swap_gender(text)) for text in texts]
  return distillation.counterfactual_texts(swaps, tokenizer)


class TestCounterfactualTexts:
  @hypothesis.settings(max_examples=150, deadline=None)
  @hypothesis.given(
    words=st.lists(st.sampled_from(_WORDS), max_size=12),
    gap=st.sampled_from([" ", "", "  "]),
  )
  def test_units_are_both_texts_and_correspond(self, tokenizer, words, gap):
    text = gap.join(words)
    (pair,) = _pairs(tokenizer, text)
    swap = data.swap_gender(text)
    assert pair.tokens == tokenizer.encode(text)
    assert pair.tokens_cf == tokenizer.encode(swap.text)
    assert pair.changed == swap.any_changed
    assert pair.swapped().swapped() == pair
    assert not pair.without_counterfactual().changed
    for one, other in pair.units:
      assert one and other
      if one == other:
        assert len(one) == 1
      else:
        here, there = tokenizer.decode(one), tokenizer.decode(other)
        assert data.swap_gender(here).any_changed or here != there

  def test_a_quote_that_a_tokenizer_joins_to_a_word(self, tokenizer):
    """GPT-2 cuts "'sister" into "'s" and "ister", but "'brother" otherwise."""
    text = "the 'sister said"
    (pair,) = _pairs(tokenizer, text)
    assert pair.tokens == tokenizer.encode(text)
    assert pair.tokens_cf == tokenizer.encode("the 'brother said")
    changed = [unit for unit in pair.units if unit[0] != unit[1]]
    assert len(changed) == 1
    # The words around are cut off the unit.
    assert "the" not in tokenizer.decode(changed[0][0])
    assert "said" not in tokenizer.decode(changed[0][0])

  def test_a_swap_of_another_text(self, tokenizer):
    with pytest.raises(ValueError, match="does not belong to 'she left'"):
      distillation.counterfactual_texts(
        [("she left", data.swap_gender("she stayed"))], tokenizer
      )

  def test_occupation_sentences_swap_as_their_planted_roles_say(self):
    sentences = data.occupation_sentences(3, 400, 0.5)
    for sentence in sentences:
      found = data.swap_gender(sentence.text)
      assert found.text == " ".join(sentence.swapped_tokens)


class TestSingleTokenLexicon:
  def test_keeps_words_of_one_piece_in_every_form(self):
    forms = "he she He She"
    text = " ".join([forms] * 30)
    tokenizer = data.train_byte_pair(
      [text, "he", "He", "she", "She"] * 3, vocab_size=270
    )
    lexicon = distillation.single_token_lexicon(tokenizer)
    assert set(lexicon.roles) == {"he", "she"}
    assert not lexicon.lower_case_only

  def test_gpt2(self, data_dir):
    tokenizer = data.load_byte_pair(data_dir / "tokenizers" / "gpt2")
    lexicon = distillation.single_token_lexicon(tokenizer)
    assert {"he", "she", "her", "his", "woman"} <= set(lexicon.roles)
    # "Him" without a space has two pieces, "stepdaughter" has them anyhow.
    assert not {"him", "hers", "stepdaughter"} & set(lexicon.roles)

  def test_other_words_are_left_alone(self):
    lexicon = data.GenderLexicon.from_pairs(
      [("his", "her", "determiner"), ("he", "she", "subject")]
    )
    text = "He took his coat, not his, from her mother."
    found = distillation.keep_listed(text, data.swap_gender(text), lexicon)
    assert found.text == "She took her coat, not his, from his mother."
    assert sum(found.changed) == 3 and found.n_skipped == 2
    assert found.lexicon == lexicon.digest
    everything = data.swap_gender(text)
    kept = distillation.keep_listed(text, everything, data.gender_lexicon())
    assert kept == everything

  def test_nothing_left(self):
    tokenizer = data.train_byte_pair(["zz"], vocab_size=257)
    with pytest.raises(ValueError, match="no pair is one piece"):
      distillation.single_token_lexicon(tokenizer)


class TestPackPairs:
  _TEXTS = ("he said she was his mother", "the nurse said", "her father")

  @pytest.mark.parametrize("policy", distillation.POLICIES)
  @pytest.mark.parametrize("length", [8, 13, 64])
  def test_rows_hold_both_streams(self, tokenizer, policy, length):
    pairs = _pairs(tokenizer, *self._TEXTS)
    rows = distillation.pack_pairs(
      pairs, length=length, end_of_text=_END, policy=policy
    )
    ours = [t for pair in pairs for t in (_END, *pair.tokens)]
    theirs = [t for pair in pairs for t in (_END, *pair.tokens_cf)]
    kept = rows["tokens"][rows["mask"]].tolist()
    kept_cf = rows["tokens_cf"][rows["mask_cf"]].tolist()
    # A last row of a single token is dropped.
    assert len(kept) >= len(ours) - 1
    assert kept == ours[: len(kept)] and kept_cf == theirs[: len(kept_cf)]
    assert rows["idx"].min() >= 0 and rows["idx"].max() < length
    assert not np.any(rows["valid"] & ~rows["mask"])
    counterparts = np.take_along_axis(rows["mask_cf"], rows["idx"], axis=1)
    assert np.all(counterparts[rows["mask"]])

  def test_positions_of_unswapped_words_hold_the_same_token(self, tokenizer):
    pairs = _pairs(tokenizer, *self._TEXTS)
    rows = distillation.pack_pairs(
      pairs, length=64, end_of_text=_END, policy="word_level"
    )
    theirs = np.take_along_axis(rows["tokens_cf"], rows["idx"], axis=1)
    same = rows["tokens"] == theirs
    words = [
      tokenizer.decode([t]).strip()
      for t in rows["tokens"][rows["valid"] & ~same].tolist()
    ]
    assert words and set(words) <= {
      "he",
      "she",
      "his",
      "mother",
      "her",
      "father",
    }

  def test_by_hand(self):
    text = distillation.CounterfactualText(
      units=(((1,), (1,)), ((2,), (3, 4)), ((5,), (5,)))
    )
    rows = distillation.pack_pairs(
      [text], length=6, end_of_text=_END, policy="word_level"
    )
    assert rows["tokens"].tolist() == [[_END, 1, 2, 5, 0, 0]]
    assert rows["tokens_cf"].tolist() == [[_END, 1, 3, 4, 5, 0]]
    assert rows["idx"].tolist() == [[0, 1, 3, 4, 0, 0]]
    assert rows["valid"].tolist() == [[True] * 4 + [False] * 2]
    shares = distillation.alignment_shares(rows)
    assert shares == {"valid": 1.0, "changed": 0.5}
    for policy, valid in (
      ("single_token", [True, True, False, True, False, False]),
      ("skip_row", [False] * 6),
    ):
      rows = distillation.pack_pairs(
        [text], length=6, end_of_text=_END, policy=policy
      )
      assert rows["valid"].tolist() == [valid]

  def test_bad_input(self):
    text = distillation.CounterfactualText(units=(((1, 2, 3), (4,)),))
    pack = distillation.pack_pairs
    with pytest.raises(ValueError, match="policy: got 'x'"):
      pack([text], length=8, end_of_text=_END, policy="x")
    with pytest.raises(ValueError, match="length: got 1"):
      pack([text], length=1, end_of_text=_END)
    with pytest.raises(ValueError, match="a swapped word has 3 pieces"):
      pack([text], length=2, end_of_text=_END)
    with pytest.raises(ValueError, match="fewer tokens than one sequence"):
      pack([], length=4, end_of_text=_END)
