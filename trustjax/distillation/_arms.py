"""The arms of a study: what teaches, and on which texts."""

import dataclasses
from collections.abc import Sequence
from types import MappingProxyType

import numpy as np

from trustjax.distillation import _alignment, _loss, _teacher

TEXTS = ("original", "augmented", "coin_flip")
# Without a teacher: the next-token loss alone.
NO_TEACHER = "none"
_COIN = 0xC01


@dataclasses.dataclass(frozen=True, kw_only=True)
class RoleReversalArm:
  """One way to distil, or to fine-tune, a language model.

  Attributes:
    name: "D0" to "D11" distil a student that begins as layers of its teacher;
      "F0" to "F11" fine-tune the pretrained model itself, with its frozen
      original as the teacher; "P0", "P5" and "P10" fine-tune it without one.
    teacher: "original", a combination of `combine_teacher`, or "none".
    texts: "original", "augmented" (the texts and their swapped copies that
      differ) or "coin_flip" (each text or its copy: the size is kept).
    control: Whether the counterfactual is the text itself, so that D11 must
      equal D0, and F11 F0, unless words are swapped back.
    about: For tables.
  """

  name: str
  teacher: str
  texts: str
  control: bool = False
  about: str

  @property
  def fine_tunes(self) -> bool:
    """Whether the student begins as the whole pretrained model."""
    return self.name[0] in "FP"

  @property
  def baseline(self) -> str:
    """Name of the arm with the same student and loss that changes nothing.

    It differs from this arm in the texts, in the teacher's probabilities, or
    in both, and in nothing else.
    """
    return f"{self.name[0]}0"


def _arms():
  for letter in "DF":
    add = _adder(letter)
    # A fine-tuned baseline is taught, too: without a teacher, an arm with a
    # modified one would differ from it by distillation itself.
    yield add(0, _loss.ORIGINAL, "original", "baseline")
    for i, how in enumerate(_teacher.COMBINATIONS, start=1):
      yield add(i, how, "original", f"teacher: {how}")
    yield add(5, _loss.ORIGINAL, "augmented", "augmented texts")
    for i, how in enumerate(_teacher.COMBINATIONS, start=6):
      yield add(i, how, "augmented", f"augmented texts, teacher: {how}")
    yield add(10, _loss.ORIGINAL, "coin_flip", "coin flip")
    yield dataclasses.replace(
      add(11, "expMean", "original", "control: x_cf = x"), control=True
    )
  add = _adder("P")
  yield add(0, NO_TEACHER, "original", "no teacher: baseline")
  yield add(5, NO_TEACHER, "augmented", "no teacher: augmented texts")
  yield add(10, NO_TEACHER, "coin_flip", "no teacher: coin flip")


def _adder(letter):
  def add(number, teacher, texts, about):
    return RoleReversalArm(
      name=f"{letter}{number}", teacher=teacher, texts=texts, about=about
    )

  return add


ARMS = MappingProxyType({arm.name: arm for arm in _arms()})


def role_reversal_arm(name: str) -> RoleReversalArm:
  """The arm of a name.

  Args:
    name: "D0" to "D11", "F0" to "F11", "P0", "P5" or "P10".

  Returns:
    The arm.

  Raises:
    ValueError: There is no such arm.

  References:
    Gupta et al., Findings of ACL 2022, for the two changes; which arms there
    are is a choice made here, but for D0, D5 and their kind.
  """
  if name not in ARMS:
    raise ValueError(f"arms: got {name!r}; allowed are {list(ARMS)}")
  return ARMS[name]


def texts_of_arm(
  arm: RoleReversalArm,
  texts: Sequence[_alignment.CounterfactualText],
  *,
  seed: int,
) -> list[_alignment.CounterfactualText]:
  """The texts that an arm is trained on, each with its counterfactual.

  Args:
    arm: The arm.
    texts: The corpus D.
    seed: Seed of the coins.

  Returns:
    D; or D and its swapped copies that differ, each with its original as the
    counterfactual; or one of the two for each text.
  """
  if arm.control:
    return [text.without_counterfactual() for text in texts]
  if arm.texts == "augmented":
    return [*texts, *(text.swapped() for text in texts if text.changed)]
  if arm.texts == "coin_flip":
    coins = np.random.default_rng([seed, _COIN]).random(len(texts)) < 0.5
    return [
      text.swapped() if coin else text for text, coin in zip(texts, coins)
    ]
  return list(texts)
