"""Utterances and corpora: what every data set becomes before it is encoded."""

import collections
import dataclasses
import functools
from collections.abc import Mapping, Sequence

SPLITS = ("train", "validation", "test")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Utterance:
  """One annotated utterance: one record, the unit that is protected.

  Attributes:
    tokens: The words, at least one.
    slots: One BIO tag per word: "O", "B-<type>" or "I-<type>".
    intent: What the speaker wants.
    user: Who said it, where the source tells.
    domain: The scenario the intent belongs to, where the source tells.
    mark: A remark of the source about this record. The synthetic corpus marks
      its memorisable records "singleton".

  Raises:
    ValueError: If there are no tokens, if tokens and slots differ in number,
      if one is empty or holds a space, or if a tag is not a BIO tag.
  """

  tokens: tuple[str, ...]
  slots: tuple[str, ...]
  intent: str
  user: str | None = None
  domain: str | None = None
  mark: str | None = None

  def __post_init__(self):
    if not self.tokens:
      raise ValueError("an utterance needs at least one token")
    if len(self.tokens) != len(self.slots):
      raise ValueError(f"{len(self.tokens)} tokens but {len(self.slots)} tags")
    for word in (*self.tokens, *self.slots):
      if not word or " " in word:
        raise ValueError(f"{word!r} is empty or holds a space")
    for tag in self.slots:
      if tag != "O" and (tag[:2] not in ("B-", "I-") or len(tag) < 3):
        raise ValueError(
          f"tag {tag!r} is not a BIO tag (O, B-<type> or I-<type>)"
        )
    if not self.intent:
      raise ValueError("an utterance needs an intent")

  @property
  def text(self) -> str:
    """The tokens joined by single spaces."""
    return " ".join(self.tokens)


@dataclasses.dataclass(frozen=True, kw_only=True)
class NluCorpus:
  """A data set of intents and slots in three splits.

  The label inventories come from the training split. Like a vocabulary built
  from training data they are facts about that data: an accountant of the
  training run does not cover them. Task definitions usually fix them
  publicly; where they do not, pass a public list to `encode_split`.

  Attributes:
    name: The data set's name.
    splits: The utterances of "train", "validation" and "test".
    license: The licence of the data.
    notes: What a reader of a result should know about this copy of the data
      (layout read, splits carved, rows left out).

  Raises:
    ValueError: If a split is missing, unknown or empty.
  """

  name: str
  splits: Mapping[str, tuple[Utterance, ...]]
  license: str
  notes: tuple[str, ...] = ()

  def __post_init__(self):
    if set(self.splits) != set(SPLITS):
      raise ValueError(
        f"corpus {self.name!r} has splits {sorted(self.splits)}; it needs "
        f"exactly {list(SPLITS)}"
      )
    for split in SPLITS:
      if not self.splits[split]:
        raise ValueError(f"corpus {self.name!r}: split {split!r} is empty")

  @property
  def train(self) -> tuple[Utterance, ...]:
    """The training utterances."""
    return self.splits["train"]

  @property
  def validation(self) -> tuple[Utterance, ...]:
    """The validation utterances."""
    return self.splits["validation"]

  @property
  def test(self) -> tuple[Utterance, ...]:
    """The test utterances."""
    return self.splits["test"]

  @functools.cached_property
  def intents(self) -> tuple[str, ...]:
    """The intents of the training split, sorted."""
    return tuple(sorted({u.intent for u in self.train}))

  @functools.cached_property
  def slot_labels(self) -> tuple[str, ...]:
    """The BIO labels of the training split: "O" first, the others sorted."""
    seen = {tag for u in self.train for tag in u.slots} - {"O"}
    return ("O", *sorted(seen))

  @functools.cached_property
  def slot_types(self) -> tuple[str, ...]:
    """The slot types of the training split (labels without B- and I-)."""
    return tuple(sorted({label[2:] for label in self.slot_labels[1:]}))

  def replace_split(
    self, split: str, utterances: Sequence[Utterance], note: str
  ) -> "NluCorpus":
    """Returns this corpus with one split exchanged and the note added."""
    if split not in SPLITS:
      raise ValueError(f"split is {split!r}; it must be one of {list(SPLITS)}")
    splits = {**self.splits, split: tuple(utterances)}
    return dataclasses.replace(self, splits=splits, notes=(*self.notes, note))


def drop_repeats(corpus: NluCorpus) -> NluCorpus:
  """Keeps one record of each text, and no training text that is tested on.

  A record-level guarantee protects one row. A text that occurs k times is
  protected k times less, and a test text that was trained on measures memory
  instead of generalisation; results are therefore reported with and without
  repeats.

  Args:
    corpus: The corpus.

  Returns:
    The corpus whose training split has each text once (the first occurrence)
    and none of the texts of the validation and test splits.
  """
  held_out = {u.text for s in ("validation", "test") for u in corpus.splits[s]}
  kept = {}
  for utterance in corpus.train:
    if utterance.text not in held_out:
      kept.setdefault(utterance.text, utterance)
  dropped = len(corpus.train) - len(kept)
  return corpus.replace_split(
    "train",
    tuple(kept.values()),
    f"{dropped} repeated or held-out training texts were dropped",
  )


@dataclasses.dataclass(frozen=True, kw_only=True)
class CorpusStatistics:
  """Counts that identify a copy of a data set.

  Attributes:
    utterances: Records per split.
    intents: Intents in the training split.
    slot_labels: BIO labels in the training split, "O" included.
    slot_types: Slot types in the training split.
    word_types: Different words in the training split (no special tokens).
    max_length: Words of the longest utterance, per split.
    surplus_copies: Training records beyond the first of their text.
    most_copies: Occurrences of the most repeated training text.
    test_texts_in_train: Test records whose text is also a training text.
    majority_accuracy: Test accuracy of always answering with the commonest
      training intent.
    unseen_intents: Test records whose intent no training record has.
    unseen_slot_tags: Test tags whose label no training record has.
    users: Different users in the training split (0 where none are known).
    singletons: Training records marked as memorisable singletons.
  """

  utterances: Mapping[str, int]
  intents: int
  slot_labels: int
  slot_types: int
  word_types: int
  max_length: Mapping[str, int]
  surplus_copies: int
  most_copies: int
  test_texts_in_train: int
  majority_accuracy: float
  unseen_intents: int
  unseen_slot_tags: int
  users: int
  singletons: int


def describe(corpus: NluCorpus) -> CorpusStatistics:
  """Counts what identifies a corpus and what weakens a record-level promise.

  Args:
    corpus: The corpus.

  Returns:
    The statistics.

  Example:
    >>> corpus = load_corpus("synthetic")
    >>> describe(corpus).utterances["train"]
    2000
  """
  train, test = corpus.train, corpus.test
  copies = collections.Counter(u.text for u in train)
  majority = collections.Counter(u.intent for u in train).most_common(1)[0][0]
  intents, labels = set(corpus.intents), set(corpus.slot_labels)
  return CorpusStatistics(
    utterances={s: len(corpus.splits[s]) for s in SPLITS},
    intents=len(corpus.intents),
    slot_labels=len(corpus.slot_labels),
    slot_types=len(corpus.slot_types),
    word_types=len({w for u in train for w in u.tokens}),
    max_length={
      s: max(len(u.tokens) for u in corpus.splits[s]) for s in SPLITS
    },
    surplus_copies=len(train) - len(copies),
    most_copies=max(copies.values()),
    test_texts_in_train=sum(u.text in copies for u in test),
    majority_accuracy=sum(u.intent == majority for u in test) / len(test),
    unseen_intents=sum(u.intent not in intents for u in test),
    unseen_slot_tags=sum(tag not in labels for u in test for tag in u.slots),
    users=len({u.user for u in train if u.user is not None}),
    singletons=sum(u.mark == "singleton" for u in train),
  )
