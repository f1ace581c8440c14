"""Pairs of texts packed into sequences: the records of distillation."""

from collections.abc import Iterable

import numpy as np

from trustjax.distillation import _alignment


def pack_pairs(
  texts: Iterable[_alignment.CounterfactualText],
  *,
  length: int,
  end_of_text: int,
  policy: str = "single_token",
) -> dict[str, np.ndarray]:
  """Packs texts so that a sequence and its counterfactual both fit.

  As in `data.pack_texts` texts follow one another, each behind an end of text,
  and may span sequences. A sequence ends where the next unit would not fit on
  either side, so the longer side is full and the other one is padded. One
  sequence is one record.

  Args:
    texts: The pairs.
    length: Positions of a sequence, on both sides.
    end_of_text: Token in front of every text, on both sides.
    policy: As in `align`; a text that "skip_row" discards keeps its tokens and
      is not valid anywhere.

  Returns:
    Arrays [sequences, length]: tokens, mask, tokens_cf, mask_cf, and idx and
    valid of the alignment.

  Raises:
    ValueError: The policy is unknown, the length is below 2, there is no text,
      or one word does not fit into a sequence.
  """
  _alignment.check_policy(policy)
  if length < 2:
    raise ValueError(f"length: got {length}; it must be at least 2")
  rows: list[list] = []
  row: list = []
  used = used_cf = 0
  end = ((end_of_text,), (end_of_text,))
  for text in texts:
    keep = policy != "skip_row" or not any(map(_is_long, text.units))
    for one, other in (end, *text.units):
      if max(len(one), len(other)) > length:
        raise ValueError(
          f"length: got {length}; a swapped word has {len(one)} pieces, and"
          f" its partner {len(other)}"
        )
      if used + len(one) > length or used_cf + len(other) > length:
        rows.append(row)
        row, used, used_cf = [], 0, 0
      row.append((one, other, keep))
      used, used_cf = used + len(one), used_cf + len(other)
  if used > 1:
    rows.append(row)
  if not rows:
    raise ValueError(f"texts: fewer tokens than one sequence of {length} holds")
  return _arrays(rows, length, policy)


def _is_long(unit):
  """A swapped word of several pieces."""
  one, other = unit
  return one != other and (len(one), len(other)) != (1, 1)


def _arrays(rows, length, policy):
  shape = (len(rows), length)
  out = {
    "tokens": np.zeros(shape, np.int32),
    "mask": np.zeros(shape, bool),
    "tokens_cf": np.zeros(shape, np.int32),
    "mask_cf": np.zeros(shape, bool),
    "idx": np.zeros(shape, np.int32),
    "valid": np.zeros(shape, bool),
  }
  # A text that is skipped is marked here; its neighbours in the row are not.
  within = "single_token" if policy == "skip_row" else policy
  for i, row in enumerate(rows):
    ours = [one for one, _, _ in row]
    theirs = [other for _, other, _ in row]
    aligned = _alignment.align(ours, theirs, policy=within)
    kept = [keep for one, _, keep in row for _ in one]
    for suffix, words in (("", ours), ("_cf", theirs)):
      tokens = [token for word in words for token in word]
      out[f"tokens{suffix}"][i, : len(tokens)] = tokens
      out[f"mask{suffix}"][i, : len(tokens)] = True
    out["idx"][i, : len(kept)] = aligned.idx
    out["valid"][i, : len(kept)] = aligned.valid & kept
  return out


def alignment_shares(rows: dict[str, np.ndarray]) -> dict[str, float]:
  """How much of a set of sequences the counterfactual teacher can change.

  Args:
    rows: From `pack_pairs`.

  Returns:
    valid: share of the positions where the two teachers are combined;
    changed: share where, besides, the two have read different tokens. At all
    other positions combining is the identity.
  """
  mask = rows["mask"]
  theirs = np.take_along_axis(rows["tokens_cf"], rows["idx"], axis=1)
  differs = mask & (rows["tokens"] != theirs)
  read = np.logical_or.accumulate(differs, axis=1)
  total = max(int(mask.sum()), 1)
  return {
    "valid": float(rows["valid"].sum() / total),
    "changed": float((rows["valid"] & read).sum() / total),
  }
