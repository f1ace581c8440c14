"""A tiny teacher, its student, and a sequence with a counterfactual."""

import functools

import jax
import numpy as np

from trustjax import distillation, models

VOCAB, TIME = 12, 8
# Tokens that are exchanged: 2 and 3 are partners, and so are 4 and 5.
_PARTNER = {2: 3, 3: 2, 4: 5, 5: 4}


@functools.cache
def teacher():
  return models.transformer_decoder(
    vocab_size=VOCAB,
    max_length=TIME,
    num_layers=2,
    dim=8,
    num_heads=2,
    ff_dim=12,
  )


@functools.cache
def _teacher_params():
  rng = np.random.default_rng(0)
  shapes = jax.eval_shape(teacher().init, jax.random.key(0))
  return jax.tree.map(
    lambda leaf: rng.normal(0, 0.4, leaf.shape).astype(np.float32), shapes
  )


@functools.cache
def _student():
  return distillation.student_from_teacher(
    teacher(), _teacher_params(), layers=(1,)
  )


def student():
  return _student()[0]


def params():
  return {"student": _student()[1], "teacher": _teacher_params()}


def loss(**fields):
  return distillation.distillation_loss(student(), teacher(), **fields)


def texts(count, seed=0):
  """Random texts, about a third of whose tokens have a partner."""
  rng = np.random.default_rng(seed)
  found = []
  for _ in range(count):
    tokens = rng.integers(1, VOCAB, rng.integers(3, 12)).tolist()
    units = tuple(((t,), (_PARTNER.get(t, t),)) for t in tokens)
    found.append(distillation.CounterfactualText(units=units))
  return found


def rows(count=20, seed=0, *, control=False):
  """Packed sequences of random texts."""
  found = texts(count, seed)
  if control:
    found = [text.without_counterfactual() for text in found]
  return distillation.pack_pairs(found, length=TIME, end_of_text=0)


def example(seed, *, control=False):
  """The last sequence, which is padded, of some texts."""
  packed = rows(4, seed, control=control)
  assert not packed["mask"][-1].all()
  return {name: array[-1] for name, array in packed.items()}
