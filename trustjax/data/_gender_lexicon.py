"""Which word stands for which when the gender of a text is exchanged.

The list was written for this project from the rules below; it is a bijection
on (word, role), so that swapping twice gives the text back.

  Every word has one partner; where usage offers several, one was chosen
  (Mr. and Ms., gentleman and lady, guy and gal).
  No personal names, no anatomical terms, nothing about pregnancy.
  Words that are also names (king, guy) swap in lower case only.
"""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Iterable, Mapping

# A word may have several roles; only `her` and `his` do.
SUBJECT, OBJECT, DETERMINER, ALONE = "subject", "object", "determiner", "alone"
PLAIN = "plain"

Entry = tuple[str, str]

_PRONOUNS = (
  ("he", "she", SUBJECT),
  ("him", "her", OBJECT),
  ("his", "her", DETERMINER),
  ("his", "hers", ALONE),
  ("himself", "herself", PLAIN),
)

# Male and female, singular; the plural adds an s to both.
_REGULAR = """
  boy girl, father mother, dad mom, daddy_ mommy_, papa mama, son daughter,
  brother sister, uncle aunt, nephew niece, grandfather grandmother,
  grandson granddaughter, grandpa grandma, stepfather stepmother,
  stepson stepdaughter, stepbrother stepsister, godfather godmother,
  godson goddaughter, boyfriend girlfriend, groom bride, widower widow,
  male female, schoolboy schoolgirl, cowboy cowgirl, monk nun,
  patriarch matriarch, schoolmaster_ schoolmistress_
"""

# Male and female, as written.
_IRREGULAR = """
  man woman, men women, husband wife, husbands wives, gentleman lady,
  gentlemen ladies, lad lass, lads lasses, sir madam, mr ms,
  actor actress, actors actresses, waiter waitress, waiters waitresses,
  host hostess, hosts hostesses, steward stewardess,
  stewards stewardesses, heir heiress, heirs heiresses, hero heroine,
  heroes heroines, landlord landlady, landlords landladies, wizard witch,
  wizards witches, sorcerer sorceress, sorcerers sorceresses,
  policeman policewoman, policemen policewomen, fireman firewoman,
  firemen firewomen, businessman businesswoman, businessmen businesswomen,
  chairman chairwoman, chairmen chairwomen, spokesman spokeswoman,
  spokesmen spokeswomen, congressman congresswoman,
  congressmen congresswomen, salesman saleswoman, salesmen saleswomen,
  sportsman sportswoman, sportsmen sportswomen, craftsman craftswoman,
  craftsmen craftswomen, cameraman camerawoman, cameramen camerawomen,
  councilman councilwoman, councilmen councilwomen,
  serviceman servicewoman, servicemen servicewomen, horseman horsewoman,
  horsemen horsewomen, gentlemanly ladylike, masculine feminine,
  masculinity femininity, manhood womanhood, fatherhood motherhood,
  brotherhood sisterhood, boyhood girlhood, fatherly motherly,
  brotherly sisterly, manly womanly, boyish girlish, paternal maternal,
  patriarchal matriarchal, patriarchy matriarchy, fraternity sorority,
  fraternities sororities
"""

# These are also names or titles in front of names.
_LOWER_CASE_ONLY = """
  king queen, kings queens, prince princess, princes princesses,
  duke duchess, dukes duchesses, baron baroness, barons baronesses,
  emperor empress, emperors empresses, guy gal, guys gals, priest priestess,
  priests priestesses
"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class GenderLexicon:
  """A bijection on (word, role).

  Attributes:
    partners: (word, role) -> (word, role), in lower case, its own inverse.
    lower_case_only: Words that are left alone when capitalised.
  """

  partners: Mapping[Entry, Entry]
  lower_case_only: frozenset[str] = frozenset()

  def __post_init__(self):
    for (word, role), (partner, other) in self.partners.items():
      for text in (word, partner):
        if text != text.lower() or not text.isalpha():
          raise ValueError(
            f"partners: got {text!r}; words must be lower-case letters"
          )
      if self.partners.get((partner, other)) != (word, role):
        raise ValueError(
          f"partners: ({word!r}, {role!r}) has the partner ({partner!r},"
          f" {other!r}), which does not lead back"
        )
    unknown = self.lower_case_only - {word for word, _ in self.partners}
    if unknown:
      raise ValueError(f"lower_case_only: {sorted(unknown)} have no partner")

  @functools.cached_property
  def roles(self) -> dict[str, tuple[str, ...]]:
    """The roles of every word."""
    found: dict[str, list[str]] = {}
    for word, role in self.partners:
      found.setdefault(word, []).append(role)
    return {word: tuple(roles) for word, roles in found.items()}

  @functools.cached_property
  def digest(self) -> str:
    """First 16 hexadecimal digits of the SHA-256 of the content."""
    content = [
      sorted([*entry, *partner] for entry, partner in self.partners.items()),
      sorted(self.lower_case_only),
    ]
    text = json.dumps(content, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]

  @property
  def ambiguous(self) -> frozenset[str]:
    """Words whose partner depends on their role."""
    return frozenset(
      word for word, roles in self.roles.items() if len(roles) > 1
    )

  @classmethod
  def from_pairs(
    cls,
    pairs: Iterable[tuple[str, str, str]],
    *,
    lower_case_only: Iterable[str] = (),
  ) -> "GenderLexicon":
    """Builds a lexicon from (word, partner, role).

    Args:
      pairs: Each pair once; both directions follow.
      lower_case_only: Words that are left alone when capitalised.

    Returns:
      The lexicon.

    Raises:
      ValueError: If a (word, role) has two partners.
    """
    partners: dict[Entry, Entry] = {}
    for word, partner, role in pairs:
      for one, other in ((word, partner), (partner, word)):
        if (one, role) in partners:
          raise ValueError(
            f"pairs: ({one!r}, {role!r}) has two partners,"
            f" {partners[one, role][0]!r} and {other!r}"
          )
        partners[one, role] = (other, role)
    return cls(partners=partners, lower_case_only=frozenset(lower_case_only))


@functools.cache
def gender_lexicon() -> GenderLexicon:
  """The reviewed lexicon of this project.

  Returns:
    The lexicon; its digest belongs in every result that depends on it.
  """
  guarded = _words(_LOWER_CASE_ONLY)
  pairs = [*_PRONOUNS]
  for male, female in _words(_REGULAR):
    # An underscore marks a word without a regular plural.
    single, partner = male.rstrip("_"), female.rstrip("_")
    pairs.append((single, partner, PLAIN))
    if single == male:
      pairs.append((single + "s", partner + "s", PLAIN))
  pairs += [(*pair, PLAIN) for pair in (*_words(_IRREGULAR), *guarded)]
  return GenderLexicon.from_pairs(
    pairs, lower_case_only=[word for pair in guarded for word in pair]
  )


def _words(listed: str) -> list[tuple[str, str]]:
  pairs = [tuple(pair.split()) for pair in listed.split(",")]
  return [(male, female) for male, female in pairs]
