"""Canaries: utterances with a secret code, put into training data on purpose.

A canary is a known prefix and a code of n tokens drawn uniformly from a
candidate set that was fixed before. Rules that keep the experiment honest: the
code is fresh for each model; copies go into the training split only; every
candidate has its own word in the vocabulary whatever the drawn code is.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from trustjax.attacks import _validate
from trustjax.attacks._validate import AnyArray

DIGITS = tuple("0123456789")
# The eleven basic colour terms of English (Berlin and Kay 1969) but for
# "grey", so that guessing has the chance of guessing a digit.
COLOURS = (
  "black",
  "white",
  "red",
  "green",
  "yellow",
  "blue",
  "brown",
  "purple",
  "pink",
  "orange",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class CanaryPattern:
  """The shape of a canary.

  Attributes:
    name: For tables and result names.
    prefix: Known words in front of the code.
    candidates: Words that a code is made of.
    outside_tag: Tag of the prefix.
    first_tag: Tag of the code's first word.
    next_tag: Tag of its other words.
    intent: Intent of the canary.
  """

  name: str
  prefix: tuple[str, ...]
  candidates: tuple[str, ...] = DIGITS
  outside_tag: str = "O"
  first_tag: str = "B-canary"
  next_tag: str = "I-canary"
  intent: str = "canary"

  def __post_init__(self):
    if not self.name:
      raise ValueError("name: got ''; a pattern needs a name")
    if len(self.candidates) < 2:
      raise ValueError(
        f"candidates: got {len(self.candidates)}; a code needs at least 2"
      )
    if len(set(self.candidates)) < len(self.candidates):
      raise ValueError("candidates: got a word twice; they must be distinct")
    for field in ("prefix", "candidates"):
      for word in getattr(self, field):
        if not word or word.split() != [word]:
          raise ValueError(
            f"{field}: got {word!r}; words are not empty and have no spaces"
          )


CALL = CanaryPattern(name="call", prefix=("call",))
PIN = CanaryPattern(name="pin", prefix=("my", "pin", "code", "is"))
COLOUR = CanaryPattern(name="colour", prefix=("colour",), candidates=COLOURS)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Canary:
  """One utterance with its secret.

  Attributes:
    words: Prefix and code.
    tags: Tag of each word.
    intent: Its intent.
    code: The secret, as indices into the pattern's candidates.
    positions: Where the code stands in the words.
  """

  words: tuple[str, ...]
  tags: tuple[str, ...]
  intent: str
  code: tuple[int, ...]
  positions: tuple[int, ...]


def make_canary(
  pattern: CanaryPattern, code: Sequence[int] | Int[AnyArray, " positions"]
) -> Canary:
  """Writes a code in a pattern.

  Fidelity:
    Paper: Parikh et al. 2022, patterns with a phone number, a pin code and
      colours; the colour vocabulary and the tags are not known.
    Authors' code: none found; tags and the first two patterns follow a public
      replication.
    Verdict: adaptation.

  Args:
    pattern: Shape of the canary.
    code: Index of each token among the candidates.

  Returns:
    The canary.

  Raises:
    ValueError: If the code is empty or a token is not one of the candidates.
  """
  tokens = tuple(int(token) for token in code)
  if not tokens:
    raise ValueError("code: got no tokens; at least 1 is needed")
  _validate.check_in_range("code", tokens, 0, len(pattern.candidates))
  start = len(pattern.prefix)
  return Canary(
    words=pattern.prefix + tuple(pattern.candidates[t] for t in tokens),
    tags=(
      (pattern.outside_tag,) * start
      + (pattern.first_tag,)
      + (pattern.next_tag,) * (len(tokens) - 1)
    ),
    intent=pattern.intent,
    code=tokens,
    positions=tuple(range(start, start + len(tokens))),
  )


def draw_codes(
  pattern: CanaryPattern,
  num_positions: int,
  num_trials: int,
  generator: np.random.Generator,
) -> Int[np.ndarray, "trials positions"]:
  """A fresh uniform code for each trial.

  Args:
    pattern: Whose candidates to draw from.
    num_positions: Tokens of a code.
    num_trials: Trials; each is to be used for one model only.
    generator: Source of randomness.

  Returns:
    The codes.

  Raises:
    ValueError: If a size is below 1.
  """
  _validate.check_at_least("num_positions", num_positions, 1)
  _validate.check_at_least("num_trials", num_trials, 1)
  return generator.integers(
    0, len(pattern.candidates), (num_trials, num_positions)
  )


def candidate_ids(
  pattern: CanaryPattern, word_ids: dict[str, int], *, unknown_id: int
) -> Int[np.ndarray, " candidates"]:
  """Vocabulary entry of each candidate.

  Args:
    pattern: Whose candidates to look up.
    word_ids: Word -> token.
    unknown_id: Token of the unknown word, which no candidate may have.

  Returns:
    The tokens, distinct.

  Raises:
    ValueError: If a word of the prefix or a candidate is not in the
      vocabulary, or two candidates share a token.
  """
  for field in ("prefix", "candidates"):
    for word in getattr(pattern, field):
      if word_ids.get(word, unknown_id) == unknown_id:
        raise ValueError(
          f"{field}: {word!r} is not in the vocabulary; add all words of a"
          " pattern before the code is drawn"
        )
  ids = np.array([word_ids[word] for word in pattern.candidates])
  if np.unique(ids).size < ids.size:
    raise ValueError(
      "word_ids: two candidates share a token; codes could not be told apart"
    )
  return ids


def insertion_positions(
  num_records: int, copies: int, generator: np.random.Generator
) -> Int[np.ndarray, " total"]:
  """Order of a training set with copies of a canary at random places.

  Args:
    num_records: Records of the training split.
    copies: R, copies of the canary; 0 is the control without it.
    generator: Source of randomness.

  Returns:
    For each place of the enlarged set, the record that stands there, -1 for
    the canary. Records keep their order.

  Raises:
    ValueError: If a number is negative.
  """
  _validate.check_at_least("num_records", num_records, 0)
  _validate.check_at_least("copies", copies, 0)
  total = num_records + copies
  order = np.full(total, -1)
  places = generator.choice(total, size=num_records, replace=False)
  order[np.sort(places)] = np.arange(num_records)
  return order
