"""Norms and sums by the matrix units of an accelerator, never too short.

Gram matrices in float64 cost an accelerator as much as a whole step, and so
does a clipped sum in full float32 beside a model that multiplies in bfloat16 or
TF32. So both are multiplied as the model is, and what that can lose is added to
the norm. With the computed Gram matrices L and M of left and right vectors,
their lengths l_t and m_t, and A = sum_t l_t m_t:

1. Scalar products. Matrix units add several products at a time, each cut off
   behind the last bit of the largest, and then cut the sum off. For four
   products or more at a time, d of them are within eps = (5 d / 4 + 2) 2^-23 of
   |x| |y|. So the square of the norm is

     sum_ts L_ts M_ts  +-  eps_L sum_ts |M_ts| l_t l_s
                       +-  eps_M sum_ts |L_ts| m_t m_s  +-  eps_L eps_M A^2.

   Where positions do not resemble each other, |M_ts| is far below m_t m_s, and
   this far below (eps_L + eps_M) A^2.
2. Entries of the clipped sum. Of the two sides, the narrower one is scaled by
   the clip factor and rounded to the type of the units, off by at most r of
   each entry. If that is the left one, what a record adds is off by
   D = sum_t d_t (x) m_t with |d_t| <= r l_t, and

     |D|^2 <= r^2 sum_ts |M_ts| l_t l_s;  likewise for the right side.

3. The sum itself: T products, added up in the same way.

These are bounds, not estimates. The price is a record that is clipped a little
more than needed. A model that multiplies with precision "highest" gets float64
and full float32 here, too.
"""

import dataclasses
import functools
import itertools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from trustjax.privacy._engines import _float64
from trustjax.privacy._engines._bookkeeping import _grams, _sites

Factors = _sites.Factors

# Matrix units cut off what they add up, where others round it.
_CUT = 2.0**-23
# Not None, which would take on `jax.default_matmul_precision`.
_DEFAULT = jax.lax.Precision.DEFAULT
_FLOAT64 = 2.0**-53
# Roundings of an entry of the clipped sum beside those of adding positions up:
# by the clip factor, by the multiplication, and by adding up parts and blocks.
MORE_ROUNDINGS = 4
# Products below 1e-38 are lost. With this much in every squared length the
# relative bounds cover that: (a^2 + f)(b^2 + f) >= (a b + f)^2.
_FLOOR = 2.0**-100
# Vectors as long as a vocabulary are multiplied in pieces, added in float64.
_LONGEST = 4096
_PIECE = 1024
_ALIGNMENT = 8


@dataclasses.dataclass(frozen=True, kw_only=True)
class Units:
  """How an accelerator multiplies, and what it loses.

  Attributes:
    dtype: Type that entries are handed over in.
    gram_precision: JAX's name for how scalar products are taken.
    gram_error: Of one product within them, relative.
    sum_precision: JAX's name for how the clipped sum is.
    plain_error: Of an entry of the clipped sum that is not scaled, relative.
    scaled_error: Of one that is.
  """

  dtype: Any
  gram_precision: Any
  gram_error: float
  sum_precision: Any
  plain_error: float
  scaled_error: float


# Products of two bfloat16 are exact in float32; scaled entries keep 8 bits.
BFLOAT16 = Units(
  dtype=jnp.bfloat16,
  gram_precision=_DEFAULT,
  gram_error=0.0,
  sum_precision=_DEFAULT,
  plain_error=0.0,
  scaled_error=2.0**-8,
)
# TF32 keeps 11 bits of a float32. Its scalar products are taken of two bfloat16
# halves, all but low by low: cut off, these lose 3 * 2^-14 at most. XLA adds up
# the two lesser products first and the greater one to them, for which there is
# the rest of the error.
TFLOAT32 = Units(
  dtype=jnp.float32,
  gram_precision=jax.lax.DotAlgorithmPreset.BF16_BF16_F32_X3,
  gram_error=2.0**-12,
  sum_precision=_DEFAULT,
  plain_error=2.0**-10,
  scaled_error=2.0**-10,
)
# TPUs have no float64 to fall back on; this is their float32.
TPU_FLOAT32 = Units(
  dtype=jnp.float32,
  gram_precision=jax.lax.Precision.HIGHEST,
  gram_error=2.0**-18,
  sum_precision=jax.lax.Precision.HIGHEST,
  plain_error=2.0**-20,
  scaled_error=2.0**-20,
)


def units_of(parts: Sequence[Factors]) -> dict[str, Units]:
  """How each platform multiplies these outer products.

  Args:
    parts: Outer products of one node.

  Returns:
    Platform to units, "default" being all others. What is missing, and a CPU
    always, computes in float64 and full float32.
  """
  vectors = [part.right for part in parts]
  vectors += [part.left for part in parts if not part.is_index]
  if any(part.is_precise for part in parts):
    return {"tpu": TPU_FLOAT32}
  if all(vector.dtype == jnp.bfloat16 for vector in vectors):
    return {"default": BFLOAT16}
  return {"cuda": TFLOAT32, "tpu": TPU_FLOAT32}


def norms(units: Units, parts: Sequence[Factors]) -> jax.Array:
  """Norm of each unit's gradient, from above.

  Args:
    units: How to multiply.
    parts: Outer products of all units, arrays with a leading axis [units].

  Returns:
    Norms, float64 [units], at least those of what `weighted_product` adds.
  """
  pairs = list(itertools.combinations_with_replacement(range(len(parts)), 2))
  gram = functools.partial(_gram, units)
  lefts = {(i, j): _grams.left_gram(gram, parts[i], parts[j]) for i, j in pairs}
  rights = {(i, j): gram(parts[i].right, parts[j].right) for i, j in pairs}
  eps_left = max(error for _, error in lefts.values())
  eps_right = max(error for _, error in rights.values())
  each = range(len(parts))
  in_left = [_lengths(lefts[i, i][0], eps_left) for i in each]
  in_right = [_lengths(rights[i, i][0], eps_right) for i in each]

  # sum_ts L_ts M_ts, sum_ts |L_ts| m_t m_s, sum_ts |M_ts| l_t l_s.
  sums = jnp.zeros((), jnp.float64)
  for i, j in pairs:
    (left, _), (right, _) = lefts[i, j], rights[i, j]
    by_position = (
      jnp.sum(left * right, axis=-1),
      jnp.sum(jnp.abs(left) * in_right[j][..., None, :], axis=-1) * in_right[i],
      jnp.sum(jnp.abs(right) * in_left[j][..., None, :], axis=-1) * in_left[i],
    )
    # Stacked, so that what is left to add is one kernel.
    sums += (1.0 if i == j else 2.0) * jnp.sum(
      jnp.stack(by_position), axis=(2, 3)
    )
  square, by_left, by_right = sums
  blocks = sum(jnp.sum(in_left[i] * in_right[i], axis=-1) for i in each)
  most = jnp.sum(jnp.square(blocks), axis=-1)
  by_left += eps_left * most
  by_right += eps_right * most

  positions = sum(lengths.shape[-1] for lengths in in_right)
  terms = in_left[0].shape[1] * positions**2
  square = jnp.maximum(square, 0.0) + terms * _FLOAT64 * most
  square += eps_left * by_right + eps_right * by_left
  left_error, right_error = _entry_errors(units, parts)
  entries = left_error * jnp.sqrt(by_right) + right_error * jnp.sqrt(by_left)
  # Both sides off at once; roundings of what is off, by a percent at most.
  rounding = left_error * right_error
  rounding += 1.01 * (_lost(positions) + MORE_ROUNDINGS * _CUT)
  return jnp.sqrt(square) + entries + rounding * jnp.sqrt(most)


def _entry_errors(units, parts):
  """Of entries on the left and on the right, the worst of all parts."""
  left = right = 0.0  # Rows of a table are added in float32.
  for part in parts:
    if not part.is_index:
      errors = units.plain_error, units.scaled_error
      of_left, of_right = reversed(errors) if part.scales_left else errors
      left, right = max(left, of_left), max(right, of_right)
  return left, right


def _gram(units, a, b):
  """((a_t . b_s) [units, blocks, t, s] in float64, its relative error)."""
  size = a.shape[-1]
  if a.shape[2] == b.shape[2] == 1:
    # No matrix, which a compiler would find out, and then round otherwise.
    a, b = _float64.widen(a, jnp.float32), _float64.widen(b, jnp.float32)
    product = jnp.sum(a * b, axis=-1)[..., None]
  elif size <= _LONGEST:
    product = _multiply("uetd,uesd->uets", units, a, b)
  else:
    size = _PIECE
    pieces = _multiply(
      "uektd,ueksd->uekts", units, _in_pieces(a), _in_pieces(b)
    )
    product = jnp.sum(pieces.astype(jnp.float64), axis=2)
    product = product[..., : a.shape[2], : b.shape[2]]
  return product.astype(jnp.float64), _lost(size) + units.gram_error


def _lost(count):
  """What a sum of so many products can lose, relative to their lengths."""
  return (1.25 * count + 2) * _CUT


def _multiply(subscripts, units, a, b):
  return jnp.einsum(
    subscripts,
    _handed_over(a, units),
    _handed_over(b, units),
    precision=units.gram_precision,
    preferred_element_type=jnp.float32,
  )


def _handed_over(x, units):
  """In the type of the units, as rounded as it was."""
  return x if x.dtype == units.dtype else _float64.widen(x, units.dtype)


def _in_pieces(x):
  """[..., t, d] to [..., d / piece, t, piece], padded with zeros.

  Positions are padded as well, to the alignment that matrix units want; else
  the compiler copies everything once more to do so.
  """
  *batch, positions, size = x.shape
  widths = [(0, 0)] * len(batch)
  widths += [(0, -positions % _ALIGNMENT), (0, -size % _PIECE)]
  x = jnp.pad(x, widths)
  x = jnp.reshape(x, (*batch, x.shape[-2], -1, _PIECE))
  return jnp.moveaxis(x, -2, -3)


def _lengths(gram, error):
  """Lengths of vectors, [units, blocks, positions], by their Gram matrix."""
  squares = jnp.diagonal(gram, axis1=-2, axis2=-1)
  return jnp.sqrt((1.0 + 2.0 * error) * squares + _FLOOR)


def weighted_product(units: Units, left, right) -> jax.Array:
  """sum_{u,t} left (x) right, float32, one of them scaled."""
  return jnp.einsum(
    "uetd,uetp->edp",
    _handed_over(left, units),
    _handed_over(right, units),
    precision=units.sum_precision,
    preferred_element_type=jnp.float32,
  )
