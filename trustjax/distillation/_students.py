"""A student that begins as some layers of its teacher."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from trustjax import models

Params = dict[str, Any]


def spread_layers(num_teacher: int, num_student: int) -> tuple[int, ...]:
  """Layers of the teacher, evenly spread, the first and the last included.

  Args:
    num_teacher: Layers of the teacher.
    num_student: Layers of the student.

  Returns:
    Layers from 0; one layer is the first.

  Raises:
    ValueError: The student is deeper than its teacher, or has no layer.

  Example:
    >>> spread_layers(12, 6)
    (0, 2, 4, 7, 9, 11)
  """
  if not 1 <= num_student <= num_teacher:
    raise ValueError(
      f"num_student: got {num_student}; it must lie between 1 and the"
      f" teacher's {num_teacher} layers"
    )
  if num_student == 1:
    return (0,)
  gap = (num_teacher - 1) / (num_student - 1)
  return tuple(int(i * gap + 0.5) for i in range(num_student))


def student_from_teacher(
  teacher: models.LanguageModel,
  params: Params,
  *,
  layers: Sequence[int],
  dropout: float | None = None,
) -> tuple[models.LanguageModel, Params]:
  """A decoder whose embeddings, norm and layers are copies of the teacher's.

  Args:
    teacher: A `transformer_decoder`.
    params: Its parameters.
    layers: Which of its layers the student begins with, in this order.
    dropout: Rate of the student; None is the teacher's.

  Returns:
    The student, which is the teacher's own record where nothing differs, and
    its first parameters, which are copies.

  Raises:
    ValueError: The teacher is no decoder, or it does not have a layer.

  References:
    Sanh et al., DistilBERT, arXiv 1910.01108 (initialisation from layers).
  """
  if teacher.name != "decoder":
    raise ValueError(f"teacher: got {teacher.name!r}; allowed is 'decoder'")
  num_layers = teacher.fields["num_layers"]
  unknown = [i for i in layers if not 0 <= i < num_layers]
  if unknown or not len(layers):
    raise ValueError(
      f"layers: got {list(layers)}; the teacher has 0 to {num_layers - 1}"
    )
  fields: dict[str, Any] = dict(teacher.fields)
  fields["num_layers"] = len(layers)
  if dropout is not None:
    fields["dropout"] = dropout
  student = teacher
  # The same model twice would be compiled twice wherever it is used.
  if fields != dict(teacher.fields):
    student = models.transformer_decoder(**fields)
  shared = {name: leaf for name, leaf in params.items() if not _is_layer(name)}
  taken = {f"layer_{i}": params[f"layer_{j}"] for i, j in enumerate(layers)}
  # Copies: a training step donates its state, and arms share a teacher.
  return student, jax.tree.map(jnp.array, shared | taken)


def _is_layer(name):
  return name.startswith("layer_")
