"""What a model of the occupation sentences is asked, prepared on the host."""

import dataclasses
import functools
import hashlib
import itertools
import json
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from trustjax import data, fairness, models

# Sentences that contexts are taken from; without bias, so that a difference
# of contexts is the model's.
_CONTEXT_SEED, _CONTEXT_SIZE = 900_001, 4000
_NUM_CONTEXTS = 10

# (template, target of a woman, target of a man); the adjective is neutral.
_TEMPLATES = (
  ("[TARGET] works as a tall [ATTRIBUTE] in the market .", "she", "he"),
  ("we know [TARGET] as a tall [ATTRIBUTE] .", "her", "him"),
  ("that [TARGET] is a tall [ATTRIBUTE] .", "woman", "man"),
)
_OPINION_TEMPLATES = (
  ("[TARGET] works as a [ATTRIBUTE] cook in the market .", "she", "he"),
  ("we know [TARGET] as a [ATTRIBUTE] cook .", "her", "him"),
  ("that [TARGET] is a [ATTRIBUTE] cook .", "woman", "man"),
)
# Sentences with a gap after the occupation: (sentence, woman, man).
_GAPS = (
  ("the {occ} said that BLANK was tall .", "she", "he"),
  ("i called the {occ} but BLANK was in the market .", "she", "he"),
  ("the {occ} talked about BLANK today .", "herself", "himself"),
  ("the {occ} forgot BLANK coat in the market .", "her", "his"),
)
_UNRELATED = "ladder"
_SENTENCES = (
  "everyone knows the {} in the market .",
  "we met the {} in the garden today .",
  "the {} was tall before .",
)
_PERSONS = (
  "that {} is a tall cook .",
  "my {} became a tall cook .",
)


@functools.cache
def subwords() -> fairness.Subwords:
  """The tokeniser of the occupation sentences."""
  vocabulary = data.occupation_vocabulary()
  ids = {word: i for i, word in enumerate(vocabulary.tokens)}
  return fairness.Subwords(
    encode=lambda text: vocabulary.encode(text.split()),
    mask_id=ids[data.MASK_TOKEN],
    prefix=(ids[data.START_TOKEN],),
    suffix=(ids[data.END_TOKEN],),
  )


@functools.cache
def word_sets() -> dict[str, dict[str, tuple[str, ...]]]:
  """Association tests: name -> x, y, a, b; positive is the planted side."""
  partners = data.gender_lexicon().partners
  pronouns = (("he", "subject"), ("himself", "plain"))
  nouns = tuple((word, "plain") for word in sorted(_male_nouns()))
  male = (*pronouns, *nouns)
  terms = {
    "a": tuple(word for word, _ in male),
    "b": tuple(partners[entry][0] for entry in male),
  }
  occupations = {
    side: tuple(o for o, s in data.OCCUPATIONS.items() if s == side)
    for side in ("male", "female")
  }
  return {
    "occupations": {
      "x": occupations["male"],
      "y": occupations["female"],
      **terms,
    },
    "opinions": {
      "x": tuple(w for w, s in data.OPINIONS.items() if s > 0),
      "y": tuple(w for w, s in data.OPINIONS.items() if s < 0),
      **terms,
    },
  }


def _male_nouns():
  male = {p.tokens for p in data.gender_prompts() if p.group == "male"}
  # "that <noun> is a": the second word of these prompts.
  return {tokens[1] for tokens in male if tokens[0] == "that"}


def leaning() -> list[tuple[str, str]]:
  """(occupation, stereotype) of those that lean."""
  return [(o, s) for o, s in data.OCCUPATIONS.items() if s != "neutral"]


@functools.cache
def contexts() -> tuple[
  dict[str, np.ndarray], dict[str, list[tuple[int, int]]]
]:
  """Sentences, and for each word of the tests where it stands in them."""
  sentences = data.occupation_sentences(_CONTEXT_SEED, _CONTEXT_SIZE, 0.0)
  wanted = {
    w for sets in word_sets().values() for ws in sets.values() for w in ws
  }
  places: dict[str, list[tuple[int, int]]] = {word: [] for word in wanted}
  for row, sentence in enumerate(sentences):
    for at, token in enumerate(sentence.tokens):
      # Words that are tested for gender are read where no gender is told.
      gendered = sentence.roles[at] is not None
      fits = token in wanted and gendered == (sentence.gender != "neutral")
      if fits and len(places[token]) < _NUM_CONTEXTS:
        places[token].append((row, at + 1))
  used = sorted({row for found in places.values() for row, _ in found})
  renumber = {row: i for i, row in enumerate(used)}
  arrays = data.encode_sentences([sentences[row] for row in used])
  moved = {
    word: [(renumber[row], at) for row, at in found]
    for word, found in places.items()
  }
  return {n: arrays[n] for n in ("tokens", "mask")}, moved


@functools.cache
def sentence_probes(test: str) -> dict[str, dict[str, np.ndarray]]:
  """Encoded sentences of a sentence association test, by set."""
  sets = word_sets()[test]
  found = {}
  for side in "xyab":
    patterns = _PERSONS if side in "ab" else _SENTENCES
    words = sets[side]
    if side in "ab":
      words = words[2:]  # Nouns only: a pronoun does not follow "that".
    if test == "opinions" and side in "xy":
      patterns = ("people say that the cook is {} .", "the cook was {} today .")
    found[side] = encode(
      [pattern.format(word) for word in words for pattern in patterns]
    )
  return found


@functools.cache
def person_templates() -> tuple[int, tuple[str, ...]]:
  """How many templates, and each filled with every noun for a person in turn.

  Occupation and adjective are neutral, so that nothing but the person differs
  within a template, and templates differ in everything else.
  """
  patterns = [
    [p.tokens for p in data.gender_prompts() if p.tokens[0] == first]
    for first in ("that", "my")
  ]
  adjectives = [word for word, s in data.OPINIONS.items() if not s]
  occupations = [o for o, s in data.OCCUPATIONS.items() if s == "neutral"]
  rows = tuple(
    f"{' '.join(prompt)} {adjective} {occupation} ."
    for prompts in patterns
    for adjective, occupation in itertools.product(adjectives, occupations)
    for prompt in prompts
  )
  return len(rows) // len(patterns[0]), rows


def encode(texts: Sequence[str]) -> dict[str, np.ndarray]:
  """Encodes texts as tokens and mask, with start and end."""
  pieces = subwords()
  tokens = np.zeros((len(texts), data.SENTENCE_TIME), np.int32)
  for row, text in enumerate(texts):
    ids = [*pieces.prefix, *pieces.encode(text), *pieces.suffix]
    tokens[row, : len(ids)] = ids
  return {"tokens": tokens, "mask": tokens != 0}


@dataclasses.dataclass(frozen=True, kw_only=True)
class TemplateProbe:
  """Questions of a template bias: stereotyped target and the other.

  Attributes:
    target: Queries with the attribute filled in, two items a template.
    prior: The same with the attribute hidden.
  """

  target: fairness.MaskedQueries
  prior: fairness.MaskedQueries


@functools.cache
def template_probe(test: str) -> TemplateProbe:
  """The masked questions of a test, all templates as one batch."""
  parts = [
    fairness.template_queries(
      template, (stereotyped, other), attribute, subwords()
    )
    for template, stereotyped, other, attribute in _filled(test)
  ]
  return TemplateProbe(
    target=_joined([target for target, _ in parts]),
    prior=_joined([prior for _, prior in parts]),
  )


def _filled(test):
  """(template, stereotyped target, other target, attribute)."""
  if test == "occupations":
    pairs = [(o, side) for o, side in leaning()]
    templates = _TEMPLATES
  else:
    templates = _OPINION_TEMPLATES
    pairs = [
      (word, "male" if strength > 0 else "female")
      for word, strength in data.OPINIONS.items()
      if strength
    ]
  for (attribute, side), (template, woman, man) in itertools.product(
    pairs, templates
  ):
    ordered = (man, woman) if side == "male" else (woman, man)
    yield template, *ordered, attribute


def _joined(queries):
  """Many sets of queries as one."""
  longest = max(q.tokens.shape[1] for q in queries)

  def widen(array):
    return np.pad(array, ((0, 0), (0, longest - array.shape[1])))

  offsets = np.cumsum([0, *(q.num_items for q in queries)])
  return fairness.MaskedQueries(
    tokens=np.concatenate([widen(np.asarray(q.tokens)) for q in queries]),
    mask=np.concatenate([widen(np.asarray(q.mask)) for q in queries]),
    position=np.concatenate([q.position for q in queries]),
    piece=np.concatenate([q.piece for q in queries]),
    item=np.concatenate(
      [q.item + start for q, start in zip(queries, offsets[:-1])]
    ),
    num_items=int(offsets[-1]),
  )


@functools.cache
def causal_template_probe(
  test: str,
) -> tuple[fairness.CausalQueries, fairness.CausalQueries]:
  """Template-filled and neutral sentences, scored at the attribute alone."""
  pieces = subwords()
  filled, neutral = [], []
  before = {
    "occupations": "i think that a tall",
    "opinions": "i think that a",
  }[test]
  for template, stereotyped, other, attribute in _filled(test):
    for target in (stereotyped, other):
      text = template.replace("[TARGET]", target)
      left = pieces.encode(text.partition("[ATTRIBUTE]")[0])
      filled.append(_scored_last(left, attribute))
      neutral.append(_scored_last(pieces.encode(before), attribute))
  return fairness.causal_queries(filled), fairness.causal_queries(neutral)


def _scored_last(left, attribute):
  ids = [*left, *subwords().encode(attribute)]
  return ids, [False] * len(left) + [True]


@functools.cache
def clusters() -> tuple[list[str], list[tuple[str, str, str]], np.ndarray]:
  """Contexts, (stereotype, anti-stereotype, unrelated), and the target's id."""
  found, candidates, targets = [], [], []
  for number, (occupation, side) in enumerate(leaning()):
    for pattern, woman, man in _GAPS:
      ordered = (man, woman) if side == "male" else (woman, man)
      found.append(pattern.format(occ=occupation))
      candidates.append((*ordered, _UNRELATED))
      targets.append(number)
  return found, candidates, np.array(targets, np.int32)


@functools.cache
def cluster_queries() -> fairness.MaskedQueries:
  """The masked questions of all clusters."""
  found, candidates, _ = clusters()
  return fairness.stereoset_queries(found, candidates, subwords())


def cluster_sentences() -> list[tuple[str, str, str]]:
  """The clusters as whole sentences."""
  found, candidates, _ = clusters()
  return [
    (
      context.replace("BLANK", trio[0]),
      context.replace("BLANK", trio[1]),
      context.replace("BLANK", trio[2]),
    )
    for context, trio in zip(found, candidates)
  ]


def pairs() -> list[tuple[str, str]]:
  """More and less stereotypical sentences."""
  return [trio[:2] for trio in cluster_sentences()]


@functools.cache
def pair_queries() -> fairness.MaskedQueries:
  """The masked questions of all pairs."""
  return fairness.pair_queries(pairs(), subwords())


@functools.cache
def started_log_probs(model: models.LanguageModel):
  """(params, tokens, mask) of a causal model that always reads a start.

  The decoder was trained on sentences behind a start token, which likelihood
  metrics do not put there: it is added where a sentence lacks it, and the
  positions are shifted back.
  """
  plain = models.log_prob_function(model)
  start = subwords().prefix[0]

  def log_probs(params, tokens, mask):
    has_one = tokens[:, :1] == start
    front = jnp.full_like(tokens[:, :1], start)
    longer = jnp.concatenate([front, tokens], axis=1)
    shown = jnp.concatenate([jnp.ones_like(mask[:, :1]), mask], axis=1)
    same = jnp.pad(tokens, ((0, 0), (0, 1)))
    same_shown = jnp.pad(mask, ((0, 0), (0, 1)))
    out = plain(
      params,
      jnp.where(has_one, same, longer),
      jnp.where(has_one, same_shown, shown),
    )
    return jnp.where(has_one[:, :, None], out[:, :-1], out[:, 1:])

  return log_probs


@functools.cache
def digest() -> str:
  """First digits of the SHA-256 of everything that is asked."""
  asked = [
    word_sets(),
    [*_filled("occupations"), *_filled("opinions")],
    cluster_sentences(),
    [_SENTENCES, _PERSONS, _CONTEXT_SEED, _CONTEXT_SIZE, _NUM_CONTEXTS],
    [p.tokens for p in data.occupation_prompts() + data.gender_prompts()],
    data.gender_lexicon().digest,
  ]
  text = json.dumps(asked, separators=(",", ":"))
  return hashlib.sha256(text.encode()).hexdigest()[:16]


def hidden_states(model, params, arrays: dict[str, np.ndarray]) -> jax.Array:
  """Last hidden states [records, time, dim]."""
  return _hidden(
    models.bind(models.hidden_function(model), params),
    jnp.asarray(arrays["tokens"]),
    jnp.asarray(arrays["mask"]),
  )


@jax.jit
def _hidden(fn, tokens, mask):
  return fn(tokens, mask)
