"""SEAT: WEAT on the vectors of sentences."""

import dataclasses

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Real

from trustjax.fairness import _association, _validate
from trustjax.fairness._validate import AnyArray

POOLINGS = ("cls", "first_piece", "mean", "last")


def pool_hidden(
  hidden: Real[AnyArray, "batch time dim"],
  mask: Bool[AnyArray, "batch time"],
  *,
  pooling: str,
  special: Bool[AnyArray, "batch time"] | None = None,
) -> Float[Array, "batch dim"]:
  """Turns hidden states into one vector a sentence.

    cls          the first position, which must hold a special token
    first_piece  the first position without a special token
    mean         the mean of the positions without a special token
    last         the last position without a special token

  Args:
    hidden: Hidden states.
    mask: Positions that hold a token.
    pooling: One of the above; it belongs to the protocol.
    special: Positions that hold a special token ([CLS], [SEP], <s>); None
      where there are none.

  Returns:
    The vectors; nan for a sentence without a usable position.

  Raises:
    ValueError: If the pooling is unknown, "cls" is asked for a sentence that
      does not start with a special token, or shapes differ.
  """
  _validate.check_choice("pooling", pooling, POOLINGS)
  _validate.check_same_shape(mask=mask, special=special)
  hidden, mask = jnp.asarray(hidden), jnp.asarray(mask)
  if hidden.shape[:2] != mask.shape:
    raise ValueError(
      f"hidden and mask: got {hidden.shape[:2]} and {mask.shape} positions"
    )
  marks = jnp.zeros_like(mask) if special is None else jnp.asarray(special)
  if pooling == "cls":
    if _validate.is_known(mask, marks) and not bool(
      jnp.all((marks & mask)[:, 0])
    ):
      raise ValueError(
        "pooling: got 'cls', but a sentence does not start with a special"
        " token; allowed there are 'first_piece', 'mean' and 'last'"
      )
    return hidden[:, 0]
  usable = mask & ~marks
  some = jnp.any(usable, axis=1)[:, None]
  if pooling == "mean":
    weight = usable.astype(hidden.dtype)
    weight /= jnp.maximum(jnp.sum(weight, axis=1, keepdims=True), 1)
    # `where`, not a product with 0: padding may hold nan.
    kept = jnp.where(usable[:, :, None], hidden, 0.0)
    return jnp.where(some, jnp.sum(weight[:, :, None] * kept, axis=1), jnp.nan)
  at = jnp.argmax(usable, axis=1)
  if pooling == "last":
    at = usable.shape[1] - 1 - jnp.argmax(usable[:, ::-1], axis=1)
  found = jnp.take_along_axis(hidden, at[:, None, None], axis=1)[:, 0]
  return jnp.where(some, found, jnp.nan)


def seat(
  x: Real[AnyArray, "sentences_x dim"],
  y: Real[AnyArray, "sentences_y dim"],
  a: Real[AnyArray, "first dim"],
  b: Real[AnyArray, "second dim"],
  *,
  pooling: str,
  ddof: int = 1,
  protocol: str = "",
) -> _association.WeatResult:
  """Sentence encoder association test: WEAT on sentence vectors.

  Sentences are neutral templates ("This is a ...") filled with the words of
  the sets, one sentence per word and template, so that X and Y stay equal in
  size. Vectors come from `pool_hidden`.

  Fidelity:
    Paper: May et al. 2019.
    Authors' code: its BERT path takes position 0 without adding special
      tokens, which is the first word piece and not [CLS].
    Here: the pooling is named by the caller and kept in the variant, so that
      two poolings are not compared by accident.
    Verdict: faithful, given the authors' pooling ("first_piece" for BERT).

  Args:
    x: Vectors of the sentences of X.
    y: Vectors of the sentences of Y, as many.
    a: Vectors of the sentences of A.
    b: Vectors of the sentences of B.
    pooling: How the vectors were made.
    ddof: As in `weat`.
    protocol: Digest of the protocol, kept in the result.

  Returns:
    The test.

  Raises:
    ValueError: As `weat`, or the pooling is unknown.

  References:
    May et al., NAACL 2019, arXiv 1903.10561.
  """
  _validate.check_choice("pooling", pooling, POOLINGS)
  return dataclasses.replace(
    _association.weat(x, y, a, b, ddof=ddof, protocol=protocol),
    metric="seat",
    variant=f"ddof={ddof},pooling={pooling}",
  )
