"""Arrays: padding, masks, truncation, unseen labels, gathering."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trustjax import data

INTENTS = ("go", "play")
SLOTS = ("O", "B-x", "I-x")


def utterance(text, slots, intent="play"):
  return data.Utterance(
    tokens=tuple(text.split()), slots=tuple(slots.split()), intent=intent
  )


EXAMPLES = [
  utterance("play a b", "O B-x I-x"),
  utterance("go", "O", "go"),
  utterance("new words here now", "O B-y O B-x", "unseen"),
]
VOCABULARY = data.build_vocabulary(EXAMPLES[:2])  # pad unk a b go play
WORDPIECES = data.WordpieceTokenizer(
  tokens=("[PAD]", "[UNK]", "[CLS]", "[SEP]", "pla", "##y", "a", "b", "go")
)


def encode(utterances=EXAMPLES, tokenizer=VOCABULARY, **sizes):
  sizes = {"max_length": 5, **sizes}
  return data.encode_split(utterances, tokenizer, INTENTS, SLOTS, **sizes)


def test_words_counted_by_hand():
  arrays = encode()
  assert arrays["tokens"].tolist() == [
    [5, 2, 3, 0, 0],
    [4, 0, 0, 0, 0],
    [1, 1, 1, 1, 0],
  ]
  assert arrays["mask"].sum(1).tolist() == [3, 1, 4]
  assert arrays["intent"].tolist() == [1, 0, -1]
  assert arrays["slots"].tolist() == [
    [0, 1, 2, 0, 0],
    [0, 0, 0, 0, 0],
    [0, -1, 0, 1, 0],
  ]
  np.testing.assert_array_equal(arrays["slot_mask"], arrays["mask"])
  assert {key: array.dtype.name for key, array in arrays.items()} == {
    "tokens": "int32",
    "mask": "bool",
    "intent": "int32",
    "slots": "int32",
    "slot_mask": "bool",
  }


def test_wordpieces_counted_by_hand():
  arrays = encode(EXAMPLES[:1], WORDPIECES, max_length=7)
  pieces = WORDPIECES.decode(arrays["tokens"][0])
  assert pieces == ["[CLS]", "pla", "##y", "a", "b", "[SEP]", "[PAD]"]
  assert arrays["mask"][0].tolist() == [True] * 6 + [False]
  assert arrays["slot_mask"][0].nonzero()[0].tolist() == [1, 3, 4]
  assert arrays["slots"][0].tolist() == [0, 0, 0, 1, 2, 0, 0]


def test_characters_counted_by_hand():
  arrays = encode([utterance("go\u00e9", "O")], max_length=2, max_chars=4)
  ids = {char: i for i, char in enumerate(data.CHARACTERS)}
  assert arrays["chars"].tolist() == [[[ids["g"], ids["o"], 1, 0], [0] * 4]]
  assert data.CHARACTERS[:2] == ("<pad>", "<unk>")


def test_truncation_is_counted_and_logged(caplog):
  with caplog.at_level("WARNING", logger="absl"):
    arrays = encode(max_length=2)
  assert "2 of 3 utterances are longer than max_length=2" in caplog.text
  assert arrays["tokens"].shape == (3, 2)
  assert data.count_truncation(
    EXAMPLES, VOCABULARY, max_length=2, max_chars=3
  ) == data.Truncation(utterances=2, words=3, longest=4, long_words=3)
  assert data.count_truncation(
    EXAMPLES, VOCABULARY, max_length=4
  ) == data.Truncation(longest=4)


def test_truncated_wordpieces_keep_the_separator():
  arrays = encode(EXAMPLES[:1], WORDPIECES, max_length=4)
  pieces = WORDPIECES.decode(arrays["tokens"][0])
  assert pieces == ["[CLS]", "pla", "##y", "[SEP]"]
  assert arrays["slot_mask"][0].tolist() == [False, True, False, False]
  cut = data.count_truncation(EXAMPLES[:1], WORDPIECES, max_length=4)
  assert cut == data.Truncation(utterances=1, words=2, longest=6)


@given(
  st.lists(
    st.lists(st.sampled_from("abcd"), min_size=1, max_size=6), min_size=1
  ),
  st.integers(1, 7),
)
def test_kept_and_lost_words_add_up(texts, max_length):
  many = [utterance(" ".join(t), " ".join("O" * len(t))) for t in texts]
  arrays = encode(many, max_length=max_length)
  lost = data.count_truncation(many, VOCABULARY, max_length=max_length).words
  assert arrays["slot_mask"].sum() + lost == sum(len(t) for t in texts)
  # Valid positions come first, and padding is zero everywhere.
  assert (np.diff(arrays["mask"].astype(int), axis=1) <= 0).all()
  for key in ("tokens", "slots"):
    assert not arrays[key][~arrays["mask"]].any()


@pytest.mark.parametrize(
  ("sizes", "message"),
  [
    ({"max_length": 0}, "max_length is 0; it must be >= 1"),
    ({"max_chars": 0}, "max_chars is 0"),
    ({"tokenizer": WORDPIECES, "max_length": 2}, "it must be >= 3"),
    ({"tokenizer": WORDPIECES, "max_chars": 3}, "wordpieces have no word"),
  ],
)
def test_impossible_sizes(sizes, message):
  with pytest.raises(ValueError, match=message):
    encode(**sizes)


def test_an_inventory_with_a_repeated_name_is_refused():
  with pytest.raises(ValueError, match="slot_labels lists a name more than"):
    data.encode_split(EXAMPLES, VOCABULARY, INTENTS, ("O", "O"), max_length=3)


@pytest.mark.parametrize("shape", [(4,), (2, 3), (0,), (2, 0)])
def test_gather_puts_the_axes_of_the_indices_first(shape):
  arrays = encode(max_chars=2)
  indices = np.random.default_rng(0).integers(0, 3, size=shape)
  lot = data.gather(arrays, indices)
  assert set(lot) == set(arrays)
  for key, array in arrays.items():
    assert lot[key].shape == shape + array.shape[1:]
    assert lot[key].dtype == array.dtype
    for place in np.ndindex(*shape):
      np.testing.assert_array_equal(lot[key][place], array[indices[place]])


def test_gather_refuses_indices_out_of_range():
  with pytest.raises(IndexError, match=r"\[-1, 0\]; the arrays have records"):
    data.gather(encode(), np.array([-1, 0]))
  with pytest.raises(IndexError, match="records 0 to 2"):
    data.gather(encode(), np.array([3]))
  with pytest.raises(ValueError, match="disagree on the number of records"):
    data.gather({"a": np.zeros(2), "b": np.zeros(3)}, np.array([0]))
