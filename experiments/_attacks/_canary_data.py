"""A corpus with room for canaries, and the canaries of every trial."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments._binary import _config_flags
from experiments._private_training import _arms
from trustjax import attacks, data

_POOL, _CODES = range(2)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cell:
  """One kind of canary.

  Attributes:
    pattern: Its shape.
    length: Tokens of the code.
    copies: How often it stands in the training data.
  """

  pattern: attacks.CanaryPattern
  length: int
  copies: int

  @property
  def name(self) -> str:
    """Its name in results."""
    return f"{self.pattern.name}_n{self.length}_r{self.copies}"


def make_patterns(
  config: _config_flags.Config,
) -> dict[str, attacks.CanaryPattern]:
  """The patterns by name: call, pin, colour and the user's own.

  Raises:
    ValueError: A pattern of the config is impossible.
  """
  patterns = {p.name: p for p in (attacks.CALL, attacks.PIN, attacks.COLOUR)}
  for fields in config.patterns:
    own = attacks.CanaryPattern(
      name=fields["name"],
      prefix=tuple(fields["prefix"]),
      candidates=tuple(fields["candidates"]),
    )
    patterns[own.name] = own
  return patterns


def make_cells(config: _config_flags.Config) -> list[Cell]:
  """The canaries of a study.

  Raises:
    ValueError: A pattern is unknown or a number impossible.
  """
  patterns = make_patterns(config)
  cells = []
  for name, length, copies in config.canaries:
    if name not in patterns:
      raise ValueError(
        f"config.canaries: got pattern {name!r}; allowed are {sorted(patterns)}"
      )
    for field, value, least in (("length", length, 1), ("copies", copies, 0)):
      if value < least:
        raise ValueError(
          f"config.canaries: got {field} {value} for {name!r}; it must be at"
          f" least {least}"
        )
    cells.append(Cell(pattern=patterns[name], length=length, copies=copies))
  if not cells:
    raise ValueError("config.canaries: got none; at least one is needed")
  return cells


@dataclasses.dataclass(frozen=True, kw_only=True)
class CanaryData:
  """Clean splits, and how to add canaries to training.

  Attributes:
    name: Of the corpus.
    splits: Arrays of "train" (the pool), "validation" and "test".
    vocabulary: Knows all words of all patterns, whatever codes are drawn.
    intents: With the canaries' intent.
    slot_labels: With the canaries' tags.
    max_length: Positions of an example.
    max_chars: Characters of a word, or None.
  """

  name: str
  splits: dict[str, dict[str, np.ndarray]]
  vocabulary: data.Vocabulary
  intents: tuple[str, ...]
  slot_labels: tuple[str, ...]
  max_length: int
  max_chars: int | None

  def encode(
    self, utterances: Sequence[data.Utterance]
  ) -> dict[str, np.ndarray]:
    """Arrays of utterances."""
    return data.encode_split(
      utterances,
      self.vocabulary,
      self.intents,
      self.slot_labels,
      max_length=self.max_length,
      max_chars=self.max_chars,
    )

  def canaries(
    self, pattern: attacks.CanaryPattern, codes: np.ndarray
  ) -> dict[str, np.ndarray]:
    """Arrays of the canaries with these codes, one for each."""
    made = [attacks.make_canary(pattern, code) for code in codes]
    return self.encode(
      [
        data.Utterance(tokens=c.words, slots=c.tags, intent=c.intent)
        for c in made
      ]
    )

  def candidates(self, pattern: attacks.CanaryPattern) -> dict[str, np.ndarray]:
    """Arrays whose positions are the pattern's candidates."""
    word_ids = {word: i for i, word in enumerate(self.vocabulary.tokens)}
    ids = attacks.candidate_ids(
      pattern, word_ids, unknown_id=self.vocabulary.unk
    )
    found: dict[str, Any] = {
      "tokens": ids.astype(np.int32),
      "mask": np.ones(len(ids), bool),
    }
    if self.max_chars is not None:
      words = [
        data.Utterance(tokens=(w,), slots=("O",), intent=self.intents[0])
        for w in pattern.candidates
      ]
      found["chars"] = self.encode(words)["chars"][:, 0]
    return found


def make_data(config: _config_flags.Config, *, chars: bool) -> CanaryData:
  """Loads a corpus and makes room for canaries.

  Args:
    config: The study.
    chars: Whether characters are encoded, too.

  Returns:
    The data; the pool is the same with and without characters.

  Raises:
    ValueError: The pool is larger than the training split.
  """
  fields = _arms.given(config.data)
  corpus = data.load_corpus(
    fields["name"],
    manual_dir=fields["manual_dir"] or None,
    data_dir=fields["data_dir"] or None,
    seed=config.seed,
  )
  size = config.attack.pool_size
  if not 1 <= size <= len(corpus.train):
    raise ValueError(
      f"config.attack.pool_size: got {size}; it must lie between 1 and the"
      f" {len(corpus.train)} training utterances"
    )
  order = np.random.default_rng((config.seed, _POOL)).permutation(
    len(corpus.train)
  )
  pool = [corpus.train[i] for i in np.sort(order[:size])]
  patterns = make_patterns(config).values()
  words = dict.fromkeys(
    word for p in patterns for word in (*p.prefix, *p.candidates)
  )
  # Built from clean text, so that no drawn code can be read off it.
  known = data.build_vocabulary(pool, min_count=fields["min_count"])
  added = [word for word in words if word not in known.tokens]
  vocabulary = dataclasses.replace(known, tokens=(*known.tokens, *added))
  tags = dict.fromkeys(t for p in patterns for t in (p.first_tag, p.next_tag))
  longest = max(
    len(cell.pattern.prefix) + cell.length for cell in make_cells(config)
  )
  made = CanaryData(
    name=corpus.name,
    splits={},
    vocabulary=vocabulary,
    intents=(*corpus.intents, *dict.fromkeys(p.intent for p in patterns)),
    slot_labels=(*corpus.slot_labels, *tags),
    max_length=max(
      longest, fields.get("max_length") or max(len(u.tokens) for u in pool)
    ),
    max_chars=config.attack.max_chars if chars else None,
  )
  splits = {
    "train": made.encode(pool),
    "validation": made.encode(corpus.validation),
    "test": made.encode(corpus.test),
  }
  return dataclasses.replace(made, splits=splits)


def draw_codes(cell: Cell, trials: int, seed: int) -> np.ndarray:
  """A fresh code for each trial; the same in every arm."""
  name = sum(ord(c) << (8 * (i % 4)) for i, c in enumerate(cell.name))
  return attacks.draw_codes(
    cell.pattern,
    cell.length,
    trials,
    np.random.default_rng((seed, _CODES, name)),
  )


def insert(
  made: CanaryData,
  cells: Sequence[Cell],
  trials: int,
  seed: int,
  *,
  deduplicate: bool,
) -> tuple[dict[str, np.ndarray], np.ndarray]:
  """The pool with every model's canaries behind it, and who sees which.

  A batch is cut from a permutation, so copies stand at random places.

  Args:
    made: The data.
    cells: Kinds of canaries; their models follow each other.
    trials: Models of each kind.
    seed: Seed of the codes.
    deduplicate: Whether repeats are dropped before training.

  Returns:
    Arrays, and memberships [cells * trials, records].
  """
  clean = made.splits["train"]
  size = len(clean["intent"])
  parts, owners = [clean], [np.full(size, -1)]
  for number, cell in enumerate(cells):
    own = made.canaries(cell.pattern, draw_codes(cell, trials, seed))
    copies = min(cell.copies, 1) if deduplicate else cell.copies
    parts.append({k: np.repeat(v, copies, axis=0) for k, v in own.items()})
    models = np.arange(trials) + number * trials
    owners.append(np.repeat(models, copies))
  owner = np.concatenate(owners)
  models = np.arange(len(cells) * trials)
  member = (owner[None, :] == -1) | (owner[None, :] == models[:, None])
  return {k: np.concatenate([p[k] for p in parts]) for k in clean}, member
