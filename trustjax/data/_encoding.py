"""From utterances to fixed-shape masked arrays, and from arrays to lots."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from absl import logging
from jaxtyping import Int

from trustjax.data._corpus import Utterance
from trustjax.data._vocabulary import Vocabulary
from trustjax.data._wordpiece import WordpieceTokenizer

Tokenizer = Vocabulary | WordpieceTokenizer

# Padding, an unknown character, then printable ASCII. A fixed public
# alphabet: unlike one collected from the training data it costs no privacy.
CHARACTERS = ("<pad>", "<unk>", *(chr(code) for code in range(33, 127)))
_CHARACTER_IDS = {char: i for i, char in enumerate(CHARACTERS)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Truncation:
  """What an encoding cut off.

  Slots of words that were cut are not in the arrays, so a span F1 computed
  from the arrays does not count them as missed: compare results only where
  `words` is 0 or equal.

  Attributes:
    utterances: Utterances that lost at least one word.
    words: Words that were lost.
    longest: Positions that the longest utterance needs ([CLS] and [SEP]
      included for wordpieces).
    long_words: Words that lost characters to max_chars.
  """

  utterances: int = 0
  words: int = 0
  longest: int = 0
  long_words: int = 0


def _encode_words(
  utterance: Utterance, tokenizer: Tokenizer
) -> tuple[list[int], list[int]]:
  """Returns the token ids and, for each, the word it starts or -1."""
  if isinstance(tokenizer, Vocabulary):
    return tokenizer.encode(utterance.tokens), list(
      range(len(utterance.tokens))
    )
  ids, starts = tokenizer.encode_words(utterance.tokens)
  return [tokenizer.cls, *ids, tokenizer.sep], [-1, *starts, -1]


def _cut(
  ids: list[int], starts: list[int], max_length: int, tokenizer: Tokenizer
) -> tuple[list[int], list[int]]:
  """Cuts to max_length, keeping the closing [SEP] of wordpieces."""
  if len(ids) <= max_length:
    return ids, starts
  if isinstance(tokenizer, WordpieceTokenizer):
    kept = max_length - 1
    return [*ids[:kept], ids[-1]], [*starts[:kept], -1]
  return ids[:max_length], starts[:max_length]


def encoded_length(utterance: Utterance, tokenizer: Tokenizer) -> int:
  """Positions an utterance needs, special tokens included."""
  return len(_encode_words(utterance, tokenizer)[0])


def count_truncation(
  utterances: Sequence[Utterance],
  tokenizer: Tokenizer,
  *,
  max_length: int,
  max_chars: int | None = None,
) -> Truncation:
  """Counts what `encode_split` with the same arguments cuts off.

  Args:
    utterances: The utterances.
    tokenizer: A vocabulary of words, or a wordpiece tokenizer.
    max_length: Positions of an encoded utterance.
    max_chars: Characters kept of a word; None where none are encoded.

  Returns:
    The counts.
  """
  cut = words = longest = long_words = 0
  for utterance in utterances:
    ids, starts = _encode_words(utterance, tokenizer)
    longest = max(longest, len(ids))
    kept = sum(s >= 0 for s in _cut(ids, starts, max_length, tokenizer)[1])
    lost = len(utterance.tokens) - kept
    cut += len(ids) > max_length
    words += lost
    if max_chars is not None:
      long_words += sum(len(w) > max_chars for w in utterance.tokens)
  return Truncation(
    utterances=cut, words=words, longest=longest, long_words=long_words
  )


def _check_sizes(
  tokenizer: Tokenizer, max_length: int, max_chars: int | None
) -> None:
  least = 1 if isinstance(tokenizer, Vocabulary) else 3
  if max_length < least:
    raise ValueError(f"max_length is {max_length}; it must be >= {least}")
  if max_chars is not None and max_chars < 1:
    raise ValueError(f"max_chars is {max_chars}; it must be >= 1 or None")
  if max_chars is not None and isinstance(tokenizer, WordpieceTokenizer):
    raise ValueError(
      f"max_chars is {max_chars}, but wordpieces have no word-level "
      "characters; use max_chars=None"
    )


def encode_split(
  utterances: Sequence[Utterance],
  tokenizer: Tokenizer,
  intents: Sequence[str],
  slot_labels: Sequence[str],
  *,
  max_length: int,
  max_chars: int | None = None,
) -> dict[str, np.ndarray]:
  """Encodes utterances as arrays of one shape, padded and masked.

  An intent or slot label that is not in the inventory (it occurs only in
  evaluation data) becomes -1. No model predicts -1, so metrics count it as
  wrong, as they should. What does not fit into max_length is cut; the loss
  is logged here and counted by `count_truncation`.

  Args:
    utterances: The utterances, in the order of the records.
    tokenizer: A vocabulary of words, or a wordpiece tokenizer.
    intents: The intents; the id of an intent is its place.
    slot_labels: The BIO labels; the id of a label is its place.
    max_length: Positions of an encoded utterance ("time").
    max_chars: Characters kept of each word; None encodes no characters.

  Returns:
    A dict of arrays over records:
      tokens: int32[records, time], 0 where padded.
      mask: bool[records, time], True where there is a token.
      intent: int32[records].
      slots: int32[records, time], 0 where slot_mask is False.
      slot_mask: bool[records, time], True where a slot label is predicted
        and scored: every word, or the first piece of every word.
      chars: int32[records, time, char], only when max_chars is given; ids
        of `CHARACTERS`.

  Raises:
    ValueError: If a size is impossible or an inventory lists a name twice.
  """
  _check_sizes(tokenizer, max_length, max_chars)
  inventories = {}
  for field, names in (("intents", intents), ("slot_labels", slot_labels)):
    inventories[field] = {name: i for i, name in enumerate(names)}
    if len(inventories[field]) != len(names):
      raise ValueError(f"{field} lists a name more than once")
  intent_ids, slot_ids = inventories["intents"], inventories["slot_labels"]

  count = len(utterances)
  arrays: dict[str, np.ndarray] = {
    "tokens": np.zeros((count, max_length), np.int32),
    "mask": np.zeros((count, max_length), bool),
    "intent": np.array(
      [intent_ids.get(u.intent, -1) for u in utterances], np.int32
    ),
    "slots": np.zeros((count, max_length), np.int32),
    "slot_mask": np.zeros((count, max_length), bool),
  }
  if max_chars is not None:
    arrays["chars"] = np.zeros((count, max_length, max_chars), np.int32)
  num_cut = 0
  for row, utterance in enumerate(utterances):
    full = _encode_words(utterance, tokenizer)
    ids, starts = _cut(*full, max_length, tokenizer)
    num_cut += len(ids) < len(full[0])
    arrays["tokens"][row, : len(ids)] = ids
    arrays["mask"][row, : len(ids)] = True
    for position, word in enumerate(starts):
      if word >= 0:
        tag = utterance.slots[word]
        arrays["slots"][row, position] = slot_ids.get(tag, -1)
        arrays["slot_mask"][row, position] = True
    if max_chars is not None:
      for position, word in enumerate(utterance.tokens[: len(ids)]):
        codes = [_CHARACTER_IDS.get(c, 1) for c in word[:max_chars]]
        arrays["chars"][row, position, : len(codes)] = codes
  if num_cut:
    logging.warning(
      "%d of %d utterances are longer than max_length=%d and were cut",
      num_cut,
      count,
      max_length,
    )
  return arrays


def gather(
  arrays: Mapping[str, Any], indices: Int[np.ndarray, "..."]
) -> dict[str, np.ndarray]:
  """Picks records: the leading axes of the result are those of the indices.

  With indices of shape [slots] this builds a lot, with [groups, slots] a lot
  of clip groups. Padding slots need an index too; any valid one (0) will do,
  because the lot's `valid` mask decides what counts.

  Args:
    arrays: Arrays whose first axis is the record, as `encode_split` returns.
    indices: Record indices of any shape.

  Returns:
    The same keys, each array with the record axis replaced by the axes of
    indices.

  Raises:
    IndexError: If an index is negative or beyond the last record. (NumPy
      alone would read -1 as the last record.)
  """
  indices = np.asarray(indices)
  sizes = {len(array) for array in arrays.values()}
  if len(sizes) != 1:
    raise ValueError(
      f"arrays disagree on the number of records: {sorted(sizes)}"
    )
  num_records = sizes.pop()
  if indices.size and (indices.min() < 0 or indices.max() >= num_records):
    raise IndexError(
      f"indices span [{indices.min()}, {indices.max()}]; the arrays have "
      f"records 0 to {num_records - 1}"
    )
  return {key: np.asarray(array)[indices] for key, array in arrays.items()}
