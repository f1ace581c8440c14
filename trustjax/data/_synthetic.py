"""The embedded corpus: task-oriented utterances, made on the spot."""

import dataclasses
import functools
import itertools
import re

import numpy as np

from trustjax.data import _bounds
from trustjax.data import _synthetic_language as language
from trustjax.data._corpus import NluCorpus, Utterance

_SLOT = re.compile(r"\{(\w+)\}")
# Which pool of names an open slot type draws from.
_OPEN_POOLS = {
  "person": "people",
  "artist": "artists",
  "song": "titles",
  "album": "titles",
  "film": "titles",
  "city": "places",
  "venue": "venues",
}


def _zipf(size: int, exponent: float) -> np.ndarray:
  """Probabilities that fall as rank**-exponent."""
  weights = np.arange(1, size + 1, dtype=np.float64) ** -exponent
  return weights / weights.sum()


def _stream(seed: int, *purpose: int) -> np.random.Generator:
  """A generator addressed by the seed and what it is for."""
  return np.random.default_rng([seed, *purpose])


@dataclasses.dataclass(frozen=True, kw_only=True)
class _World:
  """What all speakers share: for each slot type, values and frequencies."""

  values: dict[str, tuple[str, ...]]
  frequencies: dict[str, np.ndarray]

  def draw(self, slot: str, rng: np.random.Generator) -> str:
    """Draws a value of a slot type."""
    index = rng.choice(len(self.values[slot]), p=self.frequencies[slot])
    return self.values[slot][int(index)]


def _build_world(seed: int) -> _World:
  """Assembles the pools of names, each in an order that the seed decides."""
  product = itertools.product
  pools = {
    "people": list(language.FIRST_NAMES),
    "artists": [
      f"{a} {b}"
      for a, b in product(language.FIRST_NAMES, language.FAMILY_NAMES)
    ],
    "titles": [
      f"{prefix}{a} {b}"
      for a, b in product(language.TITLE_FIRST, language.TITLE_SECOND)
      for prefix in ("", "the ")
    ],
    "places": [
      f"{prefix}{a}{b}"
      for a, b in product(language.PLACE_STEMS, language.PLACE_ENDINGS)
      for prefix in ("", "new ", "port ")
    ],
    "venues": [
      f"the {a} {b}"
      for a, b in product(language.VENUE_FIRST, language.VENUE_SECOND)
    ],
  }
  rng = _stream(seed, 0)
  for pool in pools.values():
    rng.shuffle(pool)
  values = dict(language.CLOSED_VALUES)
  values |= {slot: tuple(pools[pool]) for slot, pool in _OPEN_POOLS.items()}
  # Titles of songs, albums and films overlap, but their favourites differ.
  for shift, slot in enumerate(("song", "album", "film")):
    titles, start = values[slot], 40 * shift
    values[slot] = titles[start:] + titles[:start]
  frequencies = {
    slot: _zipf(len(names), 0.8 if slot in _OPEN_POOLS else 0.6)
    for slot, names in values.items()
  }
  return _World(values=values, frequencies=frequencies)


def _fill(
  pattern: str, world: _World, rng: np.random.Generator
) -> tuple[list[str], list[str]]:
  """Replaces the slots of a pattern; returns words and tags."""
  words: list[str] = []
  tags: list[str] = []
  for piece in pattern.split():
    slot = _SLOT.fullmatch(piece)
    if slot is None:
      words.append(piece)
      tags.append("O")
    else:
      value = world.draw(slot[1], rng).split()
      words += value
      tags += [f"B-{slot[1]}"] + [f"I-{slot[1]}"] * (len(value) - 1)
  return words, tags


def _speak(
  world: _World,
  rng: np.random.Generator,
  intent: str,
  user: str,
  *,
  false_starts: float,
  noise: float,
) -> Utterance:
  """Says something with an intent, with fillers and slips around it."""
  domain, patterns = language.PATTERNS[intent]
  pattern = patterns[rng.choice(len(patterns), p=_zipf(len(patterns), 0.5))]
  words, tags = _fill(pattern, world, rng)
  if rng.random() < false_starts:
    start = _false_start(rng)
    words, tags = start + words, ["O"] * len(start) + tags
  if rng.random() < 0.35:
    opener = language.OPENERS[rng.integers(len(language.OPENERS))].split()
    words, tags = opener + words, ["O"] * len(opener) + tags
  if rng.random() < 0.25:
    closer = language.CLOSERS[rng.integers(len(language.CLOSERS))].split()
    words, tags = words + closer, tags + ["O"] * len(closer)
  if rng.random() < noise:
    words = _misspell(words, rng)
  return Utterance(
    tokens=tuple(words),
    slots=tuple(tags),
    intent=intent,
    user=user,
    domain=domain,
  )


def _false_start(rng: np.random.Generator) -> list[str]:
  """Begins a request of any intent, takes it back, and tags none of it."""
  intents = tuple(language.PATTERNS)
  _, patterns = language.PATTERNS[intents[rng.integers(len(intents))]]
  pattern = patterns[rng.integers(len(patterns))].split()
  words = [word for word in pattern if not _SLOT.fullmatch(word)][:4]
  correction = language.CORRECTIONS[rng.integers(len(language.CORRECTIONS))]
  return [*words, *correction.split()]


def _misspell(words: list[str], rng: np.random.Generator) -> list[str]:
  """Drops one inner letter of one word, as a recogniser or a thumb might."""
  long = [i for i, word in enumerate(words) if len(word) > 3]
  if not long:
    return words
  at = long[rng.integers(len(long))]
  letter = int(rng.integers(1, len(words[at]) - 1))
  slip = words[at][:letter] + words[at][letter + 1 :]
  return [*words[:at], slip, *words[at + 1 :]]


def _singleton(
  rng: np.random.Generator, intent: str, user: str, code: str
) -> Utterance:
  """Makes a record whose intent only memory can tell."""
  patterns = language.SINGLETON_PATTERNS
  words, tags = [], []
  for piece in patterns[rng.integers(len(patterns))].split():
    if piece == "{code}":
      piece, tag = code, "B-code"
    elif piece == "{number}":
      piece = language.NUMBERS[rng.integers(len(language.NUMBERS))]
      tag = "B-number"
    else:
      tag = "O"
    words.append(piece)
    tags.append(tag)
  return Utterance(
    tokens=tuple(words),
    slots=tuple(tags),
    intent=intent,
    user=user,
    domain=language.PATTERNS[intent][0],
    mark="singleton",
  )


def _nonce_words(count: int, rng: np.random.Generator) -> list[str]:
  """Makes words that occur nowhere else, all different."""
  words: dict[str, None] = {}
  while len(words) < count:
    parts = rng.choice(len(language.SYLLABLES), size=int(rng.integers(3, 6)))
    words.setdefault("".join(language.SYLLABLES[i] for i in parts))
  return list(words)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Speech:
  """Who speaks how often, about what, and how clearly.

  Attributes:
    seed: Decides everything that is drawn.
    world: The names that all speakers share.
    frequencies: Share of each speaker, [users].
    tastes: Preferences over intents, [users, intents].
    false_starts: Share of utterances that begin with another request.
    noise: Share of utterances with a misspelt word.
  """

  seed: int
  world: _World
  frequencies: np.ndarray
  tastes: np.ndarray
  false_starts: float
  noise: float

  def draw(self, split: int, count: int) -> list[Utterance]:
    """Draws the utterances of a split, from a stream of its own."""
    rng = _stream(self.seed, 2, split)
    intents = tuple(language.PATTERNS)
    drawn = []
    for _ in range(count):
      user = int(rng.choice(len(self.frequencies), p=self.frequencies))
      intent = intents[rng.choice(len(intents), p=self.tastes[user])]
      drawn.append(
        _speak(
          self.world,
          rng,
          intent,
          f"user{user:04d}",
          false_starts=self.false_starts,
          noise=self.noise,
        )
      )
    return drawn


def _plant_singletons(
  train: list[Utterance], count: int, rng: np.random.Generator
) -> None:
  """Replaces records by singletons of the same speakers."""
  intents = tuple(language.PATTERNS)
  places = rng.choice(len(train), size=count, replace=False)
  codes = _nonce_words(count, rng)
  for place, code in zip(places, codes):
    intent = intents[rng.integers(len(intents))]
    train[place] = _singleton(rng, intent, train[place].user or "", code)


@functools.lru_cache(maxsize=8)
def synthetic_corpus(
  seed: int = 0,
  *,
  num_train: int = 2000,
  num_validation: int = 300,
  num_test: int = 300,
  num_users: int = 200,
  user_skew: float = 1.1,
  user_taste: float = 1.0,
  singleton_share: float = 0.02,
  false_starts: float = 0.15,
  noise: float = 0.08,
) -> NluCorpus:
  """Generates task-oriented utterances with intents and BIO slots.

  Ten intents and more than twenty slot types. Every split is drawn from the
  same speakers and the same world of names; names are long-tailed, so a part
  of those in evaluation data was never seen. Speakers are long-tailed too:
  the r-th speaks in proportion to r**-user_skew, and each prefers intents of
  its own. A share of the training records are singletons: a word found
  nowhere else with an intent drawn at random, which can be learned only by
  memorising that record. Evaluation splits hold no singletons, so they do
  not bound the accuracy.

  The same arguments give the same corpus on every machine, as far as NumPy
  keeps the streams of its generators; a split depends on its own size only,
  so asking for more training data leaves the evaluation data as they are.

  Args:
    seed: Decides everything that is drawn.
    num_train: Training utterances, singletons included.
    num_validation: Validation utterances.
    num_test: Test utterances.
    num_users: Speakers.
    user_skew: Exponent of the speakers' frequencies; 0 makes them equal.
    user_taste: Concentration of a speaker's preferences over intents; large
      values make speakers alike, small ones give each a single intent.
    singleton_share: Share of the training records that are singletons, in
      [0, 1].
    false_starts: Share of utterances that begin with another request and
      take it back, in [0, 1]. A bag of words cannot tell which one is meant.
    noise: Share of utterances with a misspelt word, in [0, 1].

  Returns:
    The corpus.

  Raises:
    ValueError: If a count is not positive, a share outside [0, 1], or an
      exponent or concentration out of range.

  Example:
    >>> corpus = synthetic_corpus(0, singleton_share=0.05)
    >>> sum(u.mark == "singleton" for u in corpus.train)
    100
  """
  _bounds.check_at_least(
    1,
    num_train=num_train,
    num_validation=num_validation,
    num_test=num_test,
    num_users=num_users,
  )
  _bounds.check_shares(
    singleton_share=singleton_share, false_starts=false_starts, noise=noise
  )
  _bounds.check_at_least(0, seed=seed, user_skew=user_skew)
  if user_taste <= 0:
    raise ValueError(f"user_taste is {user_taste}; it must be above 0")

  speech = _Speech(
    seed=seed,
    world=_build_world(seed),
    frequencies=_zipf(num_users, user_skew),
    tastes=_stream(seed, 1).dirichlet(
      np.full(len(language.PATTERNS), user_taste), size=num_users
    ),
    false_starts=false_starts,
    noise=noise,
  )
  train = speech.draw(0, num_train)
  num_singletons = round(singleton_share * num_train)
  _plant_singletons(train, num_singletons, _stream(seed, 3))
  return NluCorpus(
    name="synthetic",
    splits={
      "train": tuple(train),
      "validation": tuple(speech.draw(1, num_validation)),
      "test": tuple(speech.draw(2, num_test)),
    },
    license="Apache-2.0 (generated by this package)",
    notes=(
      f"synthetic corpus, seed {seed}, {num_singletons} memorisable "
      "singletons in the training split",
    ),
  )
