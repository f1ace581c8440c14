"""Which position of the swapped text belongs to which of the original."""

import dataclasses
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Int

from trustjax import data

POLICIES = ("single_token", "word_level", "skip_row")

Pieces = tuple[int, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Alignment:
  """Positions of a text x and of its counterfactual x_cf that correspond.

  Attributes:
    idx: For each position of x the one of x_cf to combine with.
    valid: Whether the two next-token distributions may be combined.
  """

  idx: Int[np.ndarray, " time"]
  valid: Bool[np.ndarray, " time"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class CounterfactualText:
  """A text and its counterfactual, cut into units that correspond.

  Attributes:
    units: Pieces of x and of x_cf: one piece on both sides where nothing was
      swapped, all pieces of the word where it was.
  """

  units: tuple[tuple[Pieces, Pieces], ...]

  @property
  def changed(self) -> bool:
    """Whether x_cf differs from x."""
    return any(one != other for one, other in self.units)

  @property
  def tokens(self) -> list[int]:
    """The pieces of x."""
    return [token for one, _ in self.units for token in one]

  @property
  def tokens_cf(self) -> list[int]:
    """The pieces of x_cf."""
    return [token for _, other in self.units for token in other]

  def swapped(self) -> "CounterfactualText":
    """The counterfactual as the text, and the other way round."""
    return CounterfactualText(
      units=tuple((other, one) for one, other in self.units)
    )

  def without_counterfactual(self) -> "CounterfactualText":
    """The text with itself as its counterfactual."""
    return CounterfactualText(units=tuple((one, one) for one, _ in self.units))


@runtime_checkable
class SpanTokenizer(Protocol):
  """What is needed of a tokenizer, such as `data.BytePairTokenizer`."""

  def encode_with_spans(
    self, texts: Sequence[str]
  ) -> list[tuple[list[int], list[tuple[int, int]]]]:
    """For each text its ids and the characters that each one covers."""
    ...


def check_policy(policy: str) -> None:
  """Raises ValueError for a policy that is not known."""
  if policy not in POLICIES:
    raise ValueError(f"policy: got {policy!r}; allowed are {list(POLICIES)}")


def align(
  words: Sequence[Sequence[int]],
  words_cf: Sequence[Sequence[int]],
  *,
  policy: str = "single_token",
) -> Alignment:
  """Aligns the pieces of a text with those of its counterfactual.

  The logits at position t predict the token behind it, so two distributions
  correspond where a word ends: at every piece of a word that was not swapped,
  and at the last piece of one that was. Inside of a swapped word of several
  pieces the rest of the word is still to come, which is not comparable.

  Args:
    words: Pieces of each word of x.
    words_cf: Pieces of each word of x_cf.
    policy: "single_token": a swapped word counts where it is one piece on both
      sides, and the lexicon is best restricted to such words
      (`single_token_lexicon`). "word_level": a swapped word counts at its last
      piece. "skip_row": one swapped word of several pieces discards the text.

  Returns:
    The alignment; where it is not valid the original distribution stays, and
    idx is any position in range.

  Raises:
    ValueError: The policy is unknown, the texts differ in their number of
      words, or a word is empty.
  """
  check_policy(policy)
  if len(words) != len(words_cf):
    raise ValueError(
      f"words_cf: got {len(words_cf)} words for {len(words)} words; a"
      " counterfactual has as many words as its text"
    )
  idx: list[int] = []
  valid: list[bool] = []
  at, skip = 0, False
  for i, (one, other) in enumerate(zip(words, words_cf, strict=True)):
    if not len(one) or not len(other):
      raise ValueError(f"words[{i}]: is empty on one side")
    single = len(one) == len(other) == 1
    if list(one) == list(other):
      idx += range(at, at + len(one))
      valid += [True] * len(one)
    else:
      idx += [at + len(other) - 1] * len(one)
      ends = single or policy == "word_level"
      valid += [False] * (len(one) - 1) + [ends]
      skip |= policy == "skip_row" and not single
    at += len(other)
  return Alignment(
    idx=np.array(idx, np.int32), valid=np.array(valid, bool) & (not skip)
  )


def counterfactual_texts(
  swaps: Sequence[tuple[str, data.SwappedText]], tokenizer: SpanTokenizer
) -> list[CounterfactualText]:
  """Encodes texts and their swapped copies, cut where they correspond.

  Both texts are encoded as they stand, because a tokenizer may cut a word
  otherwise when it sees it alone. They are cut where a piece ends in both and
  the characters in front are as many words.

  Args:
    swaps: (text, what `data.swap_gender` made of it).
    tokenizer: Says which characters a piece covers.

  Returns:
    The pairs.

  Raises:
    ValueError: A swapped text does not belong to its text.
  """
  encoded = tokenizer.encode_with_spans([text for text, _ in swaps])
  encoded_cf = tokenizer.encode_with_spans([swap.text for _, swap in swaps])
  return [
    CounterfactualText(units=tuple(_units(text, swap, one, other)))
    for (text, swap), one, other in zip(swaps, encoded, encoded_cf)
  ]


def _units(text, swap, encoded, encoded_cf):
  """Pieces of both texts between common cuts."""
  if not swap.any_changed:
    for token in encoded[0]:
      yield (token,), (token,)
    return
  place = _places(text, swap)
  cuts_cf = dict(_cuts(encoded_cf[1]))
  ids, ids_cf, at, at_cf = encoded[0], encoded_cf[0], 0, 0
  for end, upto in _cuts(encoded[1]):
    upto_cf = cuts_cf.get(place.get(end))
    if upto_cf is None:
      continue
    one, other = tuple(ids[at:upto]), tuple(ids_cf[at_cf:upto_cf])
    if one == other:
      for token in one:
        yield (token,), (token,)
    else:
      yield one, other
    at, at_cf = upto, upto_cf


def _cuts(spans):
  """(character, number of pieces before it) wherever a piece ends cleanly."""
  for i, (_, stop) in enumerate(spans):
    # Bytes of one character share its span; only behind the last is a cut.
    if i + 1 == len(spans) or spans[i + 1][0] >= stop:
      yield stop, i + 1


def _places(text, swap):
  """Character of x -> character of x_cf, where no swapped word is cut."""
  place, at, at_cf = {0: 0}, 0, 0
  for one, other, changed in zip(
    _pieces(text, swap), swap.pieces, swap.changed
  ):
    if not changed:
      place.update({at + i: at_cf + i for i in range(1, len(one))})
    at, at_cf = at + len(one), at_cf + len(other)
    place[at] = at_cf
  return place


def _pieces(text, swap):
  """The pieces of the text, which the swapped text must fit."""
  pieces = data.split_pieces(text)
  fits = len(pieces) == len(swap.pieces) and all(
    changed or one == other
    for one, other, changed in zip(pieces, swap.pieces, swap.changed)
  )
  if not fits:
    raise ValueError(
      f"swaps: the swapped text {swap.text!r} does not belong to {text!r}"
    )
  return pieces


def single_token_lexicon(
  tokenizer: data.BytePairTokenizer, lexicon: data.GenderLexicon | None = None
) -> data.GenderLexicon:
  """The part of a lexicon whose words are one piece, and so are partners.

  Args:
    tokenizer: The tokenizer.
    lexicon: None uses `data.gender_lexicon()`.

  Returns:
    The pairs whose words are a single piece in every form: with a space in
    front and without, in lower case and capitalised.

  Raises:
    ValueError: No pair is left.
  """
  lexicon = data.gender_lexicon() if lexicon is None else lexicon
  words = {word for word, _ in lexicon.partners}
  single = {
    word
    for word in words
    if all(len(tokenizer.encode(form)) == 1 for form in word_forms(word))
  }
  partners = {
    entry: partner
    for entry, partner in lexicon.partners.items()
    if entry[0] in single and partner[0] in single
  }
  if not partners:
    raise ValueError(
      "lexicon: no pair is one piece on both sides in every form; use the"
      " policy 'word_level', or a tokenizer with more pieces"
    )
  kept = {word for word, _ in partners}
  return data.GenderLexicon(
    partners=partners, lower_case_only=lexicon.lower_case_only & kept
  )


def keep_listed(
  text: str, swap: data.SwappedText, lexicon: data.GenderLexicon
) -> data.SwappedText:
  """Takes back the swaps of words that a smaller lexicon does not list.

  Swapping with the smaller lexicon from the start would not do: where it lists
  "his" as a determiner only, a "his" that stands alone would be taken for one.

  Args:
    text: The text.
    swap: What `data.swap_gender` made of it, with a lexicon that contains the
      smaller one.
    lexicon: Words and roles that may be swapped (`single_token_lexicon`).

  Returns:
    The text with these words swapped only; the others are counted as skipped.

  Raises:
    ValueError: The swapped text does not belong to the text.
  """
  original = _pieces(text, swap)
  keep = [
    changed and (one.lower(), role) in lexicon.partners
    for one, role, changed in zip(original, swap.roles, swap.changed)
  ]
  pieces = [
    other if kept else one
    for one, other, kept in zip(original, swap.pieces, keep)
  ]
  return dataclasses.replace(
    swap,
    text="".join(pieces),
    pieces=tuple(pieces),
    roles=tuple(r if kept else None for r, kept in zip(swap.roles, keep)),
    changed=tuple(keep),
    n_skipped=swap.n_skipped + sum(swap.changed) - sum(keep),
    lexicon=lexicon.digest,
  )


def word_forms(word: str) -> tuple[str, ...]:
  """A word with and without a space in front, also capitalised."""
  title = word.capitalize()
  return (word, f" {word}", title, f" {title}")
