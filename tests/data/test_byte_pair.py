"""Byte pairs: lossless, deterministic, GPT-2's known tokens."""

import itertools
import json

import hypothesis
import hypothesis.strategies as st
import pytest

from trustjax import data

_TEXTS = (
  "the nurse said that she was brilliant .",
  "the pilot said that he was late .",
  "The pilot's brother and the nurse's sister said hello, hello!",
) * 3


@pytest.fixture(scope="module")
def tokenizer():
  return data.train_byte_pair(_TEXTS, vocab_size=300)


@pytest.fixture(scope="module")
def gpt2(data_dir):
  return data.load_byte_pair(data_dir / "tokenizers" / "gpt2")


@hypothesis.settings(max_examples=200, deadline=None)
@hypothesis.given(text=st.text())
def test_any_text_survives(tokenizer, text):
  assert tokenizer.decode(tokenizer.encode(text)) == text
  assert tokenizer.end_of_text not in tokenizer.encode(text)


def test_frequent_words_become_one_piece(tokenizer):
  assert len(tokenizer) == 300
  for word in (" nurse", " said", " pilot"):
    assert len(tokenizer.encode(word)) == 1
  assert len(tokenizer.encode(" zebra")) > 1


def test_training_is_deterministic_and_reads_a_stream(tokenizer):
  again = data.train_byte_pair(iter(_TEXTS), vocab_size=300)
  assert again == tokenizer and again.digest == tokenizer.digest
  other = data.train_byte_pair(_TEXTS[:1] * 2, vocab_size=300)
  assert other.digest != tokenizer.digest
  assert len(other) < 300  # There are no more pairs.


def test_an_end_of_text_cannot_be_spelt(tokenizer):
  text = f"one{data.END_OF_TEXT}two"
  ids = tokenizer.encode(text)
  assert tokenizer.end_of_text not in ids
  assert tokenizer.decode(ids) == text
  parts = [*tokenizer.encode("one"), tokenizer.end_of_text]
  assert tokenizer.decode(parts + tokenizer.encode("two")) == text


def test_spans_cover_the_text_in_order(tokenizer):
  text = "the nurse's caf\u00e9 \U0001f600 said  hello"
  ((ids, spans),) = tokenizer.encode_with_spans([text])
  assert ids == tokenizer.encode(text) == tokenizer.encode_batch([text])[0]
  assert spans[0][0] == 0 and spans[-1][1] == len(text)
  for (_, stop), (start, _) in itertools.pairwise(spans):
    # A gap never; an overlap only within one character of several bytes.
    assert start in (stop, stop - 1)
  at = text.index(" said")
  assert (at, at + 5) in spans


def test_saved_files_give_the_same_tokenizer(tokenizer, tmp_path):
  tokenizer.save(tmp_path)
  again = data.load_byte_pair(tmp_path)
  assert (again.tokens, again.merges) == (tokenizer.tokens, tokenizer.merges)
  assert "public file" in again.guarantee_note
  assert "without noise" in tokenizer.guarantee_note


class TestBadFiles:
  def test_nothing_there(self, tmp_path):
    with pytest.raises(FileNotFoundError, match="encoder.json and vocab.bpe"):
      data.load_byte_pair(tmp_path)

  @pytest.mark.parametrize(
    ("change", "message"),
    [
      (lambda ids: ids.pop(data.END_OF_TEXT), "the ids are not 0, 1, 2"),
      (lambda ids: ids.update(new=5), "the ids are not 0, 1, 2"),
    ],
  )
  def test_vocabulary(self, tokenizer, tmp_path, change, message):
    tokenizer.save(tmp_path)
    path = tmp_path / "vocab.json"
    ids = json.loads(path.read_text())
    change(ids)
    path.write_text(json.dumps(ids))
    with pytest.raises(ValueError, match=f"vocab.json: {message}"):
      data.load_byte_pair(tmp_path)

  def test_merges(self, tokenizer, tmp_path):
    tokenizer.save(tmp_path)
    path = tmp_path / "merges.txt"
    path.write_text(path.read_text() + "one two three\n")
    with pytest.raises(
      ValueError, match=r"merges.txt:\d+: got 'one two three'"
    ):
      data.load_byte_pair(tmp_path)
    path.write_text("#version: 0.2\nzz qq\n")
    with pytest.raises(ValueError, match="'zz' and 'qq' make no piece"):
      data.load_byte_pair(tmp_path)

  def test_fields(self, tokenizer):
    fields = {"merges": (), "source": "public file"}
    with pytest.raises(ValueError, match="listed twice"):
      data.BytePairTokenizer(tokens=(*tokenizer.tokens, "a"), **fields)
    with pytest.raises(ValueError, match=r"endoftext.*is missing"):
      data.BytePairTokenizer(tokens=tuple("abc"), **fields)
    with pytest.raises(ValueError, match="1 single characters; the 256"):
      data.BytePairTokenizer(tokens=("a", data.END_OF_TEXT), **fields)
    with pytest.raises(ValueError, match="source: got 'somewhere'"):
      data.BytePairTokenizer(
        tokens=tokenizer.tokens, merges=(), source="somewhere"
      )

  def test_size(self):
    with pytest.raises(ValueError, match="vocab_size: got 256"):
      data.train_byte_pair(_TEXTS, vocab_size=256)


class TestGpt2:
  """Against the published files and tokens that are known of them."""

  def test_known_tokens(self, gpt2):
    assert len(gpt2) == 50_257 and gpt2.end_of_text == 50_256
    assert gpt2.encode("Hello world") == [15496, 995]
    assert gpt2.encode("The nurse said that she") == [464, 15849, 531, 326, 673]

  def test_real_text_survives(self, gpt2, data_dir):
    path = data_dir / "gutenberg_books" / "alice_in_wonderland.txt"
    text = path.read_text(encoding="utf-8")
    ids = gpt2.encode(text)
    assert gpt2.decode(ids) == text
    assert 3 < len(text) / len(ids) < 5
