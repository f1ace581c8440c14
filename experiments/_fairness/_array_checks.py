"""What each given array must look like, and whether it does.

A model that was evaluated elsewhere is known by its arrays alone: a column too
many, words in the place of numbers or probabilities in the place of their
logarithms would pass through a metric and come out as a number.
"""

import dataclasses
from collections.abc import Mapping

import numpy as np

# Beyond the bounds of probabilities only by what float32 rounds.
_SLACK = 1e-5
_MEANINGS = {
  "number": "numbers",
  "whole": "whole numbers",
  "flag": "true or false, or 0 and 1",
  "probability": "probabilities in [0, 1]",
  "log_probability": "logarithms of probabilities, at most 0",
}


@dataclasses.dataclass(frozen=True)
class Layout:
  """Axes and content of an array.

  Attributes:
    axes: Name of each axis, or its size. Axes of one name are of one size.
    content: "number", "whole", "flag", "probability" or "log_probability".
  """

  axes: tuple[str | int, ...]
  content: str = "number"


def _of_sides(layouts):
  return {
    f"{name}{side}": Layout(
      tuple(axis.replace("*", side) for axis in axes), content
    )
    for side in "xyab"
    for name, (axes, content) in layouts.items()
  }


LAYOUTS: dict[str, Layout] = {
  **_of_sides({"": (("words_*", "dim"), "number")}),
  **_of_sides(
    {
      "ctx_": (("ctx_words_*", "contexts_*", "ctx_dim"), "number"),
      "num_ctx_": (("ctx_words_*",), "whole"),
    }
  ),
  "stereoset_scores": Layout(("clusters", 3)),
  "target_id": Layout(("clusters",), "whole"),
  "score_more": Layout(("pairs",)),
  "score_less": Layout(("pairs",)),
  "is_anti": Layout(("pairs",), "flag"),
  "logp_target": Layout(("templates", 2), "log_probability"),
  "logp_prior": Layout(("templates", 2), "log_probability"),
  "scores": Layout(("records",), "probability"),
  "y_true": Layout(("records",), "flag"),
  "group": Layout(("records",), "whole"),
  "scores_cf": Layout(("records", "substitutions"), "probability"),
  "gender_label": Layout(("texts",), "whole"),
  "profession": Layout(("texts",), "whole"),
  "prompt": Layout(("texts",), "whole"),
}


def check_arrays(
  where: str, arrays: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
  """Checks arrays against their layouts.

  A nan passes: whether it may stand somewhere is the metric's to say.

  Args:
    where: Of the arrays, for messages.
    arrays: Name to array; every name has a layout.

  Returns:
    The arrays; whole numbers as int32, flags as bool.

  Raises:
    ValueError: An array has other axes, is empty, disagrees with another in
      size, or holds something else.
  """
  sizes: dict[str, tuple[int, str]] = {}
  for name, array in arrays.items():
    layout = LAYOUTS[name]
    fits = array.ndim == len(layout.axes) and all(
      isinstance(axis, str) or axis == size
      for axis, size in zip(layout.axes, array.shape)
    )
    if not fits or not array.size:
      raise ValueError(
        f"{where}: {name!r} has shape {list(array.shape)}; it must be"
        f" [{', '.join(map(str, layout.axes))}], and not empty"
      )
    for axis, size in zip(layout.axes, array.shape):
      first, of = sizes.setdefault(str(axis), (size, name))
      if size != first:
        raise ValueError(
          f"{where}: {name!r} has {size} {axis}, but {of!r} has {first}"
        )
  return {
    name: _content(where, name, array, LAYOUTS[name].content)
    for name, array in arrays.items()
  }


def _content(where, name, array, content):
  """The array in its type, if it holds what it should."""
  wrong = np.ones(array.shape, bool)
  if array.dtype.kind in "biuf":
    wrong = np.zeros(array.shape, bool)
    if content in ("whole", "flag"):
      wrong = array != np.round(array.astype(np.float64))
    if content == "flag":
      wrong |= (array != 0) & (array != 1)
    if content == "probability":
      wrong = (array < -_SLACK) | (array > 1 + _SLACK)
    if content == "log_probability":
      wrong = array > _SLACK
  if wrong.any():
    at = tuple(int(i) for i in np.argwhere(wrong)[0])
    raise ValueError(
      f"{where}: {name}{list(at)} is {array[at]!s}; allowed are"
      f" {_MEANINGS[content]}"
    )
  types = {"whole": np.int32, "flag": np.bool_}
  return array.astype(types.get(content, array.dtype))
