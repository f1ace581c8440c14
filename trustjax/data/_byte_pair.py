"""Byte-level byte-pair encoding, the tokenisation of GPT-2."""

import dataclasses
import functools
import hashlib
import json
import os
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int

END_OF_TEXT = "<|endoftext|>"

# Names of the two files, as OpenAI and as transformers call them.
_FILES = (("encoder.json", "vocab.bpe"), ("vocab.json", "merges.txt"))
_NOTES = {
  "training data": (
    "The tokeniser was trained on the given texts without noise; which byte"
    " pairs it merged may reveal a training record and is not covered by"
    " epsilon."
  ),
  "public file": (
    "The tokeniser was read from a public file and does not depend on the"
    " training data."
  ),
}
_BYTES = 256


@dataclasses.dataclass(frozen=True, kw_only=True)
class BytePairTokenizer:
  """Cuts text into pieces of bytes that occur together often.

  Every text can be encoded and decoded without loss: single bytes are pieces,
  too. Text is first cut into words with the space in front of them, numbers
  and punctuation, as GPT-2 does; no piece crosses such a cut.

  The end of a text is a token of its own that no text can spell: the same
  characters inside of a text are encoded as characters.

  Attributes:
    tokens: The pieces, in the order of the ids, in GPT-2's printable spelling
      of bytes; END_OF_TEXT is among them.
    merges: Pairs of pieces that are joined, the earliest first.
    source: "training data" or "public file".

  Raises:
    ValueError: A piece repeats, END_OF_TEXT or a single byte is missing, or a
      merge makes no piece.
  """

  tokens: tuple[str, ...]
  merges: tuple[tuple[str, str], ...]
  source: str

  def __post_init__(self):
    if self.source not in _NOTES:
      raise ValueError(
        f"source: got {self.source!r}; allowed are {list(_NOTES)}"
      )
    if len(self._ids) < len(self.tokens):
      raise ValueError("tokens: a piece is listed twice")
    if END_OF_TEXT not in self._ids:
      raise ValueError(f"tokens: {END_OF_TEXT!r} is missing")
    single = sum(len(token) == 1 for token in self.tokens)
    if single < _BYTES:
      raise ValueError(
        f"tokens: {single} single characters; the {_BYTES} of GPT-2's spelling"
        " of bytes are needed, so that any text can be encoded"
      )
    for one, other in self.merges:
      if one + other not in self._ids:
        raise ValueError(f"merges: {one!r} and {other!r} make no piece")

  @functools.cached_property
  def _ids(self) -> dict[str, int]:
    return {token: i for i, token in enumerate(self.tokens)}

  @functools.cached_property
  def _fast(self) -> Any:
    # Imported here: only byte pairs and wordpieces need it.
    import tokenizers

    fast = tokenizers.Tokenizer(
      tokenizers.models.BPE(vocab=self._ids, merges=list(self.merges))
    )
    fast.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(
      add_prefix_space=False
    )
    fast.decoder = tokenizers.decoders.ByteLevel()
    return fast

  def __len__(self) -> int:
    return len(self.tokens)

  @property
  def end_of_text(self) -> int:
    """The id of the token between two texts."""
    return self._ids[END_OF_TEXT]

  @property
  def guarantee_note(self) -> str:
    """What the choice of the tokeniser means for a privacy guarantee."""
    return _NOTES[self.source]

  @functools.cached_property
  def digest(self) -> str:
    """First 16 hexadecimal digits of the SHA-256 of the content."""
    content = json.dumps([self.tokens, self.merges]).encode()
    return hashlib.sha256(content).hexdigest()[:16]

  def encode(self, text: str) -> list[int]:
    """Returns the ids of a text's pieces, without an end of text."""
    return self._fast.encode(text).ids

  def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
    """Encodes many texts, which is faster than one by one."""
    return [encoding.ids for encoding in self._fast.encode_batch(list(texts))]

  def encode_with_spans(
    self, texts: Sequence[str]
  ) -> list[tuple[list[int], list[tuple[int, int]]]]:
    """Encodes texts and says which characters each piece covers.

    Args:
      texts: Any texts.

    Returns:
      For each text its ids and (start, stop) of their characters. Pieces of
      one character, such as the bytes of an emoji, share its span.
    """
    encodings = self._fast.encode_batch(list(texts))
    return [(encoding.ids, encoding.offsets) for encoding in encodings]

  def decode(self, ids: Sequence[int] | Int[np.ndarray, " ids"]) -> str:
    """Returns the text of some ids, an end of text written as END_OF_TEXT."""
    parts: list[list[int]] = [[]]
    for token in (int(i) for i in ids):
      if token == self.end_of_text:
        parts.append([])
      else:
        parts[-1].append(token)
    return END_OF_TEXT.join(self._fast.decode(part) for part in parts)

  def save(self, folder: str | os.PathLike[str]) -> None:
    """Writes vocab.json and merges.txt, which transformers reads."""
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary, merges = (folder / name for name in _FILES[1])
    vocabulary.write_text(json.dumps(self._ids), encoding="utf-8")
    lines = ["#version: 0.2", *(" ".join(pair) for pair in self.merges)]
    merges.write_text("\n".join(lines) + "\n", encoding="utf-8")


def train_byte_pair(
  texts: Iterable[str], *, vocab_size: int
) -> BytePairTokenizer:
  """Learns byte pairs from texts.

  Guarantee:
    None. The pieces are a function of the texts, computed without noise.

  Args:
    texts: The texts, read once.
    vocab_size: Pieces: 256 bytes, the end of text, and as many merges as fit;
      fewer if the texts have no more pairs that occur twice.

  Returns:
    The tokenizer; the same texts give the same one.

  Raises:
    ValueError: The size is below 257.
  """
  if vocab_size < _BYTES + 1:
    raise ValueError(
      f"vocab_size: got {vocab_size}; it must be at least {_BYTES + 1}, the"
      " bytes and the end of text"
    )
  # Imported here: only byte pairs and wordpieces need it.
  import tokenizers

  learner = tokenizers.Tokenizer(tokenizers.models.BPE())
  learner.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(
    add_prefix_space=False
  )
  learner.train_from_iterator(
    texts,
    tokenizers.trainers.BpeTrainer(
      vocab_size=vocab_size,
      min_frequency=2,
      show_progress=False,
      special_tokens=[END_OF_TEXT],
      initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
    ),
  )
  learned = json.loads(learner.to_str())["model"]
  ids = learned["vocab"]
  return BytePairTokenizer(
    tokens=tuple(sorted(ids, key=ids.__getitem__)),
    merges=tuple((one, other) for one, other in learned["merges"]),
    source="training data",
  )


def load_byte_pair(folder: str | os.PathLike[str]) -> BytePairTokenizer:
  """Reads a byte-level tokenizer, such as GPT-2's.

  Args:
    folder: Holds encoder.json and vocab.bpe, or vocab.json and merges.txt.

  Returns:
    The tokenizer.

  Raises:
    FileNotFoundError: Neither pair of files is there.
    ValueError: A file is malformed; the message names it.
  """
  folder = pathlib.Path(folder)
  for names in _FILES:
    vocabulary, merges = (folder / name for name in names)
    if vocabulary.is_file() and merges.is_file():
      break
  else:
    allowed = " or ".join(" and ".join(names) for names in _FILES)
    raise FileNotFoundError(f"{folder}: holds no tokenizer; needed: {allowed}")
  try:
    ids = json.loads(vocabulary.read_text(encoding="utf-8"))
    tokens = tuple(sorted(ids, key=ids.__getitem__))
    if sorted(ids.values()) != list(range(len(ids))):
      raise ValueError("the ids are not 0, 1, 2, ...")
  except (AttributeError, TypeError, ValueError) as error:
    raise ValueError(f"{vocabulary}: {error}") from error
  pairs = []
  for number, line in enumerate(
    merges.read_text(encoding="utf-8").split("\n"), start=1
  ):
    if not line.strip() or (number == 1 and line.startswith("#version")):
      continue
    pair = line.rstrip("\r").split(" ")
    if len(pair) != 2:
      raise ValueError(f"{merges}:{number}: got {line!r}; a line is two pieces")
    pairs.append((pair[0], pair[1]))
  try:
    return BytePairTokenizer(
      tokens=tokens, merges=tuple(pairs), source="public file"
    )
  except ValueError as error:
    raise ValueError(f"{folder}: {error}") from None
