"""Exchanging the gender of a text, word by word and role by role."""

import dataclasses
import re
from collections.abc import Callable, Sequence

from trustjax.data import _gender_lexicon
from trustjax.data._gender_lexicon import (
  ALONE,
  DETERMINER,
  OBJECT,
  GenderLexicon,
)

AMBIGUITIES = ("role", "skip_word", "skip_text", "error")

# Pieces of a text (words and what is between them) -> a role or None each.
RoleFn = Callable[[Sequence[str]], Sequence[str | None]]

# Letters; everything else separates, so clitics stay outside of a word.
_WORD = re.compile(r"[^\W\d_]+")


@dataclasses.dataclass(frozen=True, kw_only=True)
class SwappedText:
  """A text with its gender exchanged.

  Attributes:
    text: The new text.
    pieces: Its words and separators; joined they are the text.
    roles: The role under which each piece was swapped, None for others.
      Passed to `swap_pieces` with the pieces, they give the original back.
    changed: Which pieces were replaced.
    n_ambiguous: Words whose partner depended on their role.
    n_skipped: Listed words that were left alone: their role was not to be
      resolved, their case is mixed, or they may be a name. All listed words of
      a text that is skipped as a whole.
    lexicon: Digest of the lexicon.
  """

  text: str
  pieces: tuple[str, ...]
  roles: tuple[str | None, ...]
  changed: tuple[bool, ...]
  n_ambiguous: int
  n_skipped: int
  lexicon: str

  @property
  def any_changed(self) -> bool:
    """Whether the text differs from the original."""
    return any(self.changed)


def split_pieces(text: str) -> tuple[str, ...]:
  """Cuts a text into words and separators; joined they are the text.

  Args:
    text: Any text.

  Returns:
    Pieces; a word is a run of letters, so "he's" is "he", "'", "s".
  """
  pieces, at = [], 0
  for match in _WORD.finditer(text):
    if match.start() > at:
      pieces.append(text[at : match.start()])
    pieces.append(match.group())
    at = match.end()
  if at < len(text):
    pieces.append(text[at:])
  return tuple(pieces)


def swap_gender(
  text: str,
  *,
  role_fn: RoleFn | None = None,
  ambiguity: str = "role",
  lexicon: GenderLexicon | None = None,
) -> SwappedText:
  """Exchanges female and male words of a text.

  The lexicon is a bijection on (word, role): only "her" (object or
  determiner) and "his" (determiner or alone) need a role. Case is carried
  over: lower, Title, UPPER; words of mixed case are left alone and counted.

  Args:
    text: The text.
    role_fn: Gives the role of each piece; None uses `rule_roles`. A
      part-of-speech tagger does better.
    ambiguity: What happens to "her" and "his": "role" asks `role_fn`;
      "skip_word" leaves them alone; "skip_text" leaves the whole text alone
      if one occurs; "error" raises.
    lexicon: None uses `gender_lexicon()`.

  Returns:
    The swapped text and what was done.

  Raises:
    ValueError: The option is unknown, a role is missing, or an ambiguous word
      occurs under "error".

  Example:
    >>> swap_gender("He gave him her book.").text
    'She gave her his book.'
  """
  pieces = split_pieces(text)
  roles = None
  if ambiguity == "role":
    roles = (rule_roles if role_fn is None else role_fn)(pieces)
  return swap_pieces(pieces, roles, ambiguity=ambiguity, lexicon=lexicon)


def swap_pieces(
  pieces: Sequence[str],
  roles: Sequence[str | None] | None = None,
  *,
  ambiguity: str = "role",
  lexicon: GenderLexicon | None = None,
) -> SwappedText:
  """Swaps pieces whose roles are known.

  Swapping the result again, with the roles that it carries, gives the pieces
  back.

  Args:
    pieces: Words and separators.
    roles: Role of each piece; None where the word has only one.
    ambiguity: As in `swap_gender`.
    lexicon: None uses `gender_lexicon()`.

  Returns:
    The swapped text.

  Raises:
    ValueError: The option is unknown, roles and pieces differ in number, a
      role does not fit its word, or an ambiguous word has none.
  """
  if ambiguity not in AMBIGUITIES:
    raise ValueError(
      f"ambiguity: got {ambiguity!r}; allowed are"
      f" {', '.join(map(repr, AMBIGUITIES))}"
    )
  lexicon = _gender_lexicon.gender_lexicon() if lexicon is None else lexicon
  known = [None] * len(pieces) if roles is None else list(roles)
  if len(known) != len(pieces):
    raise ValueError(f"roles: got {len(known)} for {len(pieces)} pieces")
  out, carried, changed = [], [], []
  n_ambiguous = n_skipped = n_listed = 0
  for at, (piece, role) in enumerate(zip(pieces, known, strict=True)):
    word = piece.lower()
    allowed = lexicon.roles.get(word, ())
    n_listed += bool(allowed)
    n_ambiguous += len(allowed) > 1
    found = _resolve(piece, word, role, allowed, ambiguity, at, lexicon)
    if found is None:
      n_skipped += bool(allowed)
      new = piece
    else:
      new = _in_case_of(piece, lexicon.partners[word, found][0])
    out.append(new)
    carried.append(found)
    changed.append(new != piece)
  if ambiguity == "skip_text" and n_ambiguous:
    out, n_skipped = list(pieces), n_listed
    carried, changed = [None] * len(pieces), [False] * len(pieces)
  return SwappedText(
    text="".join(out),
    pieces=tuple(out),
    roles=tuple(carried),
    changed=tuple(changed),
    n_ambiguous=n_ambiguous,
    n_skipped=n_skipped,
    lexicon=lexicon.digest,
  )


def _resolve(piece, word, role, allowed, ambiguity, at, lexicon) -> str | None:
  """The role under which a piece is swapped, or None to leave it."""
  if not allowed or _case(piece) is None:
    return None
  if word in lexicon.lower_case_only and piece != word:
    return None
  if role is not None and role not in allowed:
    raise ValueError(
      f"roles[{at}]: got {role!r} for {piece!r}; allowed are"
      f" {', '.join(map(repr, allowed))}"
    )
  if len(allowed) == 1:
    return allowed[0]
  if ambiguity == "error":
    raise ValueError(
      f"pieces[{at}]: {piece!r} is ambiguous ({', '.join(allowed)})"
    )
  if ambiguity != "role":
    return None
  if role is None:
    raise ValueError(
      f"roles[{at}]: got None for {piece!r}, which needs one of"
      f" {', '.join(map(repr, allowed))}"
    )
  return role


def _case(piece: str) -> str | None:
  """How a word is written, or None if in mixed case."""
  if piece.islower():
    return "lower"
  # A single capital letter is a capitalised word, not a shouted one.
  if piece.isupper() and len(piece) > 1:
    return "upper"
  if piece[:1].isupper() and (len(piece) == 1 or piece[1:].islower()):
    return "title"
  return None


def _in_case_of(piece: str, word: str) -> str:
  case = _case(piece)
  if case == "upper":
    return word.upper()
  return word.capitalize() if case == "title" else word


def _word_set(listed: str) -> frozenset[str]:
  return frozenset(listed.split())


# Words that cannot start what "her" or "his" determines.
_FUNCTION_WORDS = _word_set(
  """
  a an the this that these those some any each every no another i you he she
  it we they me him us them my your our their mine yours ours theirs his hers
  its and or but nor yet so because although though while whereas if unless
  until when whenever where wherever since before after as than whether about
  above across against along among around at behind below beneath beside
  between beyond by despite down during except for from in inside into like
  near of off on onto out outside over past through throughout to toward
  towards under up upon via with within without am is are was were be been
  being has have had do does did will would shall should can could may might
  must cannot who whom whose which what why how not never always often
  sometimes soon now then here there again back away too also just only still
  already yesterday today tomorrow tonight together instead anyway anymore
  once twice well anywhere somewhere everywhere nowhere all both something
  anything everything nothing someone anyone everyone
  """
)
# Verbs that take "her" and a bare infinitive.
_CAUSATIVES = _word_set(
  """
  let lets letting make makes made making help helps helped helping see sees
  saw seen hear hears heard watch watches watched have has had feel feels felt
  """
)
_BARE_INFINITIVES = _word_set(
  """
  be become begin bring buy call carry change choose come continue cry die do
  eat enter explain fall feel fight find finish fix forget get give go grow
  happen have hear improve join keep know laugh learn leave lie live look lose
  make meet move open pass pay perform play prepare realize relax remember run
  say see sell sing sit sleep smile speak stand start stay stop succeed suffer
  swim take talk teach think travel try understand wait walk want win worry
  write
  """
)
# What may stand between a determiner and its noun.
_OPENING = re.compile(r"""[\s"'\u201c\u2018(\[*_]*""")


def rule_roles(pieces: Sequence[str]) -> list[str | None]:
  """Roles of "her" and "his" by what follows them.

  A word that begins a noun phrase makes them determiners; punctuation, the end
  of the text, or a function word makes "her" an object and "his" stand alone.
  The rules do not know verbs with two objects ("gave her advice"); where that
  matters, pass a tagger's roles. Of the WinoBias sentences with "her", "his"
  or "him", a test counts how many come out as their published counterpart.

  Args:
    pieces: Words and separators.

  Returns:
    A role for each "her" and "his", None for all other pieces.
  """
  words = [_WORD.fullmatch(piece) is not None for piece in pieces]
  roles: list[str | None] = [None] * len(pieces)
  for at, piece in enumerate(pieces):
    word = piece.lower()
    if word not in ("her", "his") or not words[at]:
      continue
    other = OBJECT if word == "her" else ALONE
    determines = _starts_noun_phrase(pieces, words, at)
    roles[at] = DETERMINER if determines else other
  return roles


def _starts_noun_phrase(pieces, words, at) -> bool:
  """Whether the word behind a possessive could be its noun phrase."""
  nxt = at + 1
  if nxt < len(pieces) and not words[nxt]:
    if _OPENING.fullmatch(pieces[nxt]) is None:
      # A number may be determined ("her 2 sons"); other marks end the phrase.
      return re.match(r"\s+\d", pieces[nxt]) is not None
    nxt += 1
  if nxt >= len(pieces):
    return False
  follower = pieces[nxt].lower()
  if follower in _FUNCTION_WORDS:
    return False
  before = next(
    (pieces[i].lower() for i in range(at - 1, -1, -1) if words[i]), ""
  )
  if before in _CAUSATIVES and follower in _BARE_INFINITIVES:
    return False
  if follower.endswith("ly") and len(follower) > 4:
    # "her recently published book", but "met her recently".
    return _starts_noun_phrase(pieces, words, nxt)
  return True
