"""Occupation sentences whose bias is planted, and so known."""

import dataclasses
import functools
import re
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from trustjax.data import _bounds, _gender_lexicon, _gender_swap
from trustjax.data import _occupation_language as language
from trustjax.data._vocabulary import PAD, UNKNOWN, Vocabulary

OCCUPATIONS = language.OCCUPATIONS
OPINIONS = language.OPINIONS

# Codes of a gender; `GENDERS[code]` is its name.
GENDERS = ("female", "male", "neutral")

START_TOKEN, END_TOKEN, MASK_TOKEN = "<s>", "</s>", "<mask>"

_SLOT = re.compile(r"\{(\w+)\}")
_PATTERNS = (
  *language.OCCUPATION_FIRST,
  *language.PERSON_FIRST,
  *language.NEUTRAL,
)
# Positions of the longest sentence between its start and its end.
SENTENCE_TIME = max(len(pattern.split()) for pattern in _PATTERNS) + 2
# Logits by which full label bias favours men and disfavours women.
LABEL_SHIFT = 1.5


@dataclasses.dataclass(frozen=True, kw_only=True)
class OccupationSentence:
  """One sentence about a person with an occupation: one record.

  Attributes:
    tokens: Its words, in lower case, with punctuation as words.
    roles: Role of each gendered word in the swapper's lexicon, None for all
      other words.
    occupation: The occupation.
    stereotype: "female", "male" or "neutral": what the occupation leans to.
    gender: Of the person: "female", "male", or "neutral" where no word tells.
    occupation_at: Where the occupation stands.
    opinion_at: Where the judging adjective stands, or None.
    strength: How much the adjective praises, -2 to 2; 0 without one.
    merit: What a fair judge recorded: 1 with probability
      sigmoid(strength), whatever the gender.
    label: What the judge with the planted label bias recorded.
  """

  tokens: tuple[str, ...]
  roles: tuple[str | None, ...]
  occupation: str
  stereotype: str
  gender: str
  occupation_at: int
  opinion_at: int | None
  strength: int
  merit: int
  label: int

  @property
  def text(self) -> str:
    """The tokens joined by single spaces."""
    return " ".join(self.tokens)

  @property
  def gendered_at(self) -> tuple[int, ...]:
    """Where the gendered words stand."""
    return tuple(i for i, role in enumerate(self.roles) if role is not None)

  @property
  def swapped_tokens(self) -> tuple[str, ...]:
    """The tokens of the counterfactual: the other gender, nothing else."""
    return _gender_swap.swap_pieces(self.tokens, self.roles).pieces


@dataclasses.dataclass(frozen=True, kw_only=True)
class OccupationPrompt:
  """The beginning of a sentence, to be continued by a model.

  Attributes:
    tokens: Its words.
    group: The occupation, or the gender, that the prompt is about.
  """

  tokens: tuple[str, ...]
  group: str


@functools.lru_cache(maxsize=64)
def occupation_sentences(
  seed: int = 0,
  size: int = 2000,
  bias: float = 0.0,
  *,
  opinion_bias: float = 0.0,
  label_bias: float = 0.0,
  neutral_share: float = 0.2,
) -> tuple[OccupationSentence, ...]:
  """Writes gendered and neutral sentences with a planted, tunable bias.

  They look like this:

    the nurse said that she was brilliant .
    i called the plumber but he was in the garden .
    my sister became a skilled carpenter .
    because the cook was dull , we believed her .
    everyone knows the florist in the market .

  24 occupations (10 that lean to women, 10 that lean to men, 4 controls that
  never lean), 30 patterns, about 170 words; pronouns in every role (he, him,
  his, his alone, himself and their partners) and 12 pairs of nouns. In half of
  the patterns the occupation comes before the gendered word, in a third behind
  it. Three biases are planted, each in [0, 1] and each independent of the
  others; 0 is none, 1 is as much as there can be:

    bias: the gender of a person with an occupation that leans is that of the
      stereotype with probability (1 + bias) / 2.
    opinion_bias: an adjective that judges praises a man, and blames a woman,
      with probability (1 + opinion_bias) / 2.
    label_bias: the label is 1 with probability sigmoid(strength + 1.5
      label_bias) for a man, sigmoid(strength - 1.5 label_bias) for a woman and
      sigmoid(strength) where no word tells; `merit` is the label of the same
      judge without bias, from the same draw.

  Sentences of one seed at different levels are coupled: the same patterns and
  occupations, and pronouns that differ only where the level decides. Other
  seeds give independent sentences, for held-out sets.

  Args:
    seed: Which corpus.
    size: Sentences.
    bias: Of the pronoun given the occupation.
    opinion_bias: Of the adjective given the gender.
    label_bias: Of the label given the gender.
    neutral_share: Share of sentences without any gendered word.

  Returns:
    The sentences; the same arguments give the same ones.

  Raises:
    ValueError: If the seed is negative, the size not positive, or a bias or
      share outside [0, 1].

  Example:
    >>> occupation_sentences(0, 3, 1.0)[0].text
    'the baker said that she was new .'
  """
  _bounds.check_at_least(0, seed=seed)
  _bounds.check_at_least(1, size=size)
  _bounds.check_shares(
    bias=bias,
    opinion_bias=opinion_bias,
    label_bias=label_bias,
    neutral_share=neutral_share,
  )
  rng = np.random.default_rng([seed, 0x0CC])
  return tuple(
    _write(rng, bias, opinion_bias, label_bias, neutral_share)
    for _ in range(size)
  )


def _write(
  rng: np.random.Generator,
  bias: float,
  opinion_bias: float,
  label_bias: float,
  neutral_share: float,
) -> OccupationSentence:
  """Writes one sentence from a fixed number of draws."""
  # The levels only compare with draws, so all levels consume the same ones.
  of_kind, of_gender, of_side, of_opinion, of_judge = rng.random(5)
  patterns = (
    language.NEUTRAL
    if of_kind < neutral_share
    else (language.OCCUPATION_FIRST + language.PERSON_FIRST)
  )
  pattern = _pick(patterns, rng.random()).split()
  occupation = _pick(tuple(OCCUPATIONS), rng.random())
  stereotype = OCCUPATIONS[occupation]
  kin, *fillers = rng.random(1 + len(language.FILLERS))

  gender = "neutral"
  if patterns is not language.NEUTRAL:
    male = {"male": (1 + bias) / 2, "female": (1 - bias) / 2, "neutral": 0.5}
    gender = "male" if of_gender < male[stereotype] else "female"
  favour = {"male": 1, "female": -1, "neutral": 0}[gender]
  praises = of_side < (1 + favour * opinion_bias) / 2
  opinion = _opinion(of_opinion, bool(praises))

  words = {
    "occ": occupation,
    "opinion": opinion,
    **{
      slot: _pick(language.FILLERS[slot], at)
      for slot, at in zip(language.FILLERS, fillers, strict=True)
    },
  }
  gendered = _gendered_words(gender, _pick(language.KIN, kin))
  tokens, roles = _fill(pattern, words, gendered)
  judged = "{opinion}" in pattern
  strength = OPINIONS[opinion] if judged else 0
  return OccupationSentence(
    tokens=tokens,
    roles=roles,
    occupation=occupation,
    stereotype=stereotype,
    gender=gender,
    occupation_at=pattern.index("{occ}"),
    opinion_at=pattern.index("{opinion}") if judged else None,
    strength=strength,
    merit=int(of_judge < _sigmoid(strength)),
    label=int(
      of_judge < _sigmoid(strength + LABEL_SHIFT * label_bias * favour)
    ),
  )


def _opinion(draw: float, praises: bool) -> str:
  """The adjective at a uniform draw, or the one that judges the other way."""
  opinions = tuple(OPINIONS)
  opinion = _pick(opinions, draw)
  # The words of blame are the words of praise in reverse order of strength.
  if (OPINIONS[opinion] > 0) != praises and OPINIONS[opinion]:
    return opinions[-1 - opinions.index(opinion)]
  return opinion


def _fill(
  pattern: Sequence[str],
  words: dict[str, str],
  gendered: dict[str, tuple[str, str]],
) -> tuple[tuple[str, ...], tuple[str | None, ...]]:
  """Replaces the slots of a pattern; returns tokens and roles."""
  tokens: list[str] = []
  roles: list[str | None] = []
  for piece in pattern:
    slot = _SLOT.fullmatch(piece)
    name = slot[1] if slot else ""
    if name in gendered:
      tokens.append(gendered[name][0])
      roles.append(gendered[name][1])
    else:
      tokens.append(words.get(name, piece))
      roles.append(None)
  return tuple(tokens), tuple(roles)


def _pick(options: Sequence[str], draw: float) -> str:
  """The option at a uniform draw."""
  return options[int(draw * len(options))]


def _sigmoid(logit: float) -> float:
  return float(1 / (1 + np.exp(-logit)))


def _gendered_words(gender: str, kin: str) -> dict[str, tuple[str, str]]:
  """Slot -> (word, role) of one gender; the noun is given in its male form."""
  male = {**language.PRONOUNS, "kin": (kin, "plain")}
  if gender == "female":
    partners = _gender_lexicon.gender_lexicon().partners
    return {slot: partners[entry] for slot, entry in male.items()}
  return dict(male)


def occupation_prompts() -> tuple[OccupationPrompt, ...]:
  """Beginnings that name an occupation and leave the gender open.

  Returns:
    Six prompts for each of the 24 occupations, all of an occupation in a row;
    the natural next words are gendered. The group is the occupation.

  Example:
    >>> " ".join(occupation_prompts()[0].tokens)
    'the nurse said that'
  """
  return tuple(
    OccupationPrompt(
      tokens=tuple(pattern.format(occ=occupation).split()), group=occupation
    )
    for occupation in OCCUPATIONS
    for pattern in language.OCCUPATION_PROMPTS
  )


def gender_prompts() -> tuple[OccupationPrompt, ...]:
  """Beginnings that name a gender and leave the judgement open.

  Returns:
    Prompts of women and of men, in pairs that differ in gender only; the
    natural next words judge a person or name an occupation. The group is
    "female" or "male".

  Example:
    >>> [" ".join(prompt.tokens) for prompt in gender_prompts()[:2]]
    ['she is a', 'he is a']
  """
  prompts = []
  for pattern in language.GENDER_PROMPTS:
    for kin in language.KIN if "{kin}" in pattern else ("",):
      for gender in ("female", "male"):
        words = {
          slot: word
          for slot, (word, _) in _gendered_words(
            gender, kin or language.KIN[0]
          ).items()
        }
        tokens = tuple(pattern.format(**words).split())
        prompts.append(OccupationPrompt(tokens=tokens, group=gender))
  return tuple(prompts)


@functools.cache
def occupation_vocabulary() -> Vocabulary:
  """Every word that an occupation sentence can hold.

  A fixed list that depends on no sentence, so it costs no privacy, is the same
  at every level of bias, and is closed under swapping the gender.

  Returns:
    The vocabulary: padding 0, unknown 1, start 2, end 3, mask 4, the words.
  """
  words = {word for pattern in _PATTERNS for word in pattern.split()}
  words |= {word for prompt in occupation_prompts() for word in prompt.tokens}
  words = {word for word in words if not _SLOT.fullmatch(word)}
  words |= {*OCCUPATIONS, *OPINIONS}
  for listed in language.FILLERS.values():
    words |= set(listed)
  for gender in ("female", "male"):
    for kin in language.KIN:
      words |= {word for word, _ in _gendered_words(gender, kin).values()}
  return Vocabulary(
    tokens=(PAD, UNKNOWN, START_TOKEN, END_TOKEN, MASK_TOKEN, *sorted(words)),
    source="public file",
  )


def encode_sentences(
  sentences: Sequence[OccupationSentence],
  *,
  swapped: bool = False,
  time: int = SENTENCE_TIME,
) -> dict[str, Int[np.ndarray, "records ..."] | np.ndarray]:
  """Encodes occupation sentences as arrays of one shape.

  Args:
    sentences: The sentences.
    swapped: Encode the counterfactual tokens instead.
    time: Positions, start and end included.

  Returns:
    A dict of arrays over records, the examples of a language model:
      tokens: int32[records, time]: start, words, end, padding.
      mask: bool[records, time], True where there is a token.
      gendered: bool[records, time], True at gendered words.
      occupation: int32[records], place in `OCCUPATIONS`.
      occupation_at: int32[records], position of the occupation.
      gender: int32[records], place in `GENDERS` (of the encoded tokens).
      strength, merit, label: int32[records].

  Raises:
    ValueError: If there are no sentences, or one does not fit.
  """
  if not sentences:
    raise ValueError("sentences: got none; at least one is needed")
  longest = max(len(sentence.tokens) for sentence in sentences) + 2
  if longest > time:
    raise ValueError(
      f"time is {time}; the longest sentence needs {longest} positions"
    )
  vocabulary = occupation_vocabulary()
  names = tuple(OCCUPATIONS)
  rows = len(sentences)
  tokens = np.zeros((rows, time), np.int32)
  mask = np.zeros((rows, time), bool)
  gendered = np.zeros((rows, time), bool)
  for row, sentence in enumerate(sentences):
    words = sentence.swapped_tokens if swapped else sentence.tokens
    ids = vocabulary.encode((START_TOKEN, *words, END_TOKEN))
    tokens[row, : len(ids)] = ids
    mask[row, : len(ids)] = True
    gendered[row, [at + 1 for at in sentence.gendered_at]] = True
  gender = np.array([GENDERS.index(s.gender) for s in sentences], np.int32)
  if swapped:
    gender = np.array([1, 0, 2], np.int32)[gender]
  return {
    "tokens": tokens,
    "mask": mask,
    "gendered": gendered,
    "occupation": np.array(
      [names.index(s.occupation) for s in sentences], np.int32
    ),
    "occupation_at": np.array(
      [s.occupation_at + 1 for s in sentences], np.int32
    ),
    "gender": gender,
    "strength": np.array([s.strength for s in sentences], np.int32),
    "merit": np.array([s.merit for s in sentences], np.int32),
    "label": np.array([s.label for s in sentences], np.int32),
  }
