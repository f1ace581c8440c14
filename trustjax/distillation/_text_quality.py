"""What a fairer model may lose: variety, and one gender for one person."""

import dataclasses
from collections.abc import Hashable, Sequence

import numpy as np
from jaxtyping import Bool

from trustjax import data

# Third-person pronouns: in a text about one person, both kinds are a slip.
_FEMALE = frozenset(("she", "her", "hers", "herself"))
_MALE = frozenset(("he", "him", "his", "himself"))


@dataclasses.dataclass(frozen=True, kw_only=True)
class MixedPronouns:
  """How many texts speak of a person in both genders.

  Attributes:
    share: Mixed texts among those with a pronoun; nan without any.
    mixed: Which texts have female and male pronouns.
    num_gendered: Texts with a pronoun.
  """

  share: float
  mixed: Bool[np.ndarray, " texts"]
  num_gendered: int


def distinct_n(texts: Sequence[Sequence[Hashable]], n: int) -> float:
  """Share of different n-grams among all n-grams of all texts.

  It falls with the number of texts, so compare equal numbers only.

  Args:
    texts: Tokens or words of each text.
    n: Length of a gram.

  Returns:
    The share; nan where no text is as long as n.

  Raises:
    ValueError: n is below 1.

  Example:
    >>> distinct_n([["a", "b", "a", "b"]], 2)
    0.6666666666666666

  References:
    Li et al., A Diversity-Promoting Objective Function, NAACL 2016.
  """
  if n < 1:
    raise ValueError(f"n: got {n}; it must be at least 1")
  grams = [
    tuple(text[i : i + n]) for text in texts for i in range(len(text) - n + 1)
  ]
  return len(set(grams)) / len(grams) if grams else float("nan")


def mixed_pronouns(texts: Sequence[str]) -> MixedPronouns:
  """Finds texts with female and male third-person pronouns.

  Coreference is not resolved: in a text about two people both genders are
  right. So it is meant for short texts about one person, and for comparing
  models on the same prompts.

  Args:
    texts: Prompt and continuation of each text, or the continuation.

  Returns:
    Which texts are mixed, and their share.
  """
  words = [{p.lower() for p in data.split_pieces(text)} for text in texts]
  female = np.array([bool(found & _FEMALE) for found in words], bool)
  male = np.array([bool(found & _MALE) for found in words], bool)
  mixed, count = female & male, int((female | male).sum())
  share = float(mixed.sum() / count) if count else float("nan")
  return MixedPronouns(share=share, mixed=mixed, num_gendered=count)
