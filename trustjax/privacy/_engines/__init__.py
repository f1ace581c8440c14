"""Clipping engines: one contract, several ways to run it.

  _unit      the gradient of one clip unit, its norm, its clipped gradient
  _loop      engine `loop`: Python loop over units, the oracle
  _chunked   engines `scan` and `vmap`: one program, bounded memory
  _choose    engine `auto`: engine and chunk size by memory

A new engine is a function `(loss_fn, rule, grouped, chunk_size) -> run` with
`run(params, lot, key, clip_state) -> ClippedGrads`, entered in `_ENGINES`. It
may use `_unit.make_unit`, or rewrite the loss and never form a unit's gradient.
`tests/privacy/test_engines.py` is the contract suite every entry must pass.
"""

import functools
from collections.abc import Callable

import jax

from trustjax.privacy import _lot, _rules
from trustjax.privacy._engines import _choose, _chunked, _loop, _unit

EngineChoice = _choose.EngineChoice
choose_engine = _choose.choose_engine

_ENGINES: dict[str, Callable] = {
  "loop": _loop.loop_engine,
  "loop_eager": functools.partial(_loop.loop_engine, compiled=False),
  "scan": _chunked.scan_engine,
  "vmap": _chunked.vmap_engine,
}
# Engines that run on the host and cannot be part of a compiled step.
HOST_ENGINES = frozenset({"loop", "loop_eager"})
ENGINES = (*_ENGINES, "auto")


def clipped_grad(
  loss_fn: _unit.LossFn,
  rule: _rules.ClippingRule,
  *,
  clip_group_size: int = 1,
  engine: str = "auto",
  chunk_size: int | None = None,
) -> Callable[..., _lot.ClippedGrads]:
  """Transforms one record's loss into the clipped gradient sum of a lot.

  With clip_group_size 1 the sum is sum_i clip(grad loss_i); otherwise it is
  sum_k clip(mean of the gradients in group k).

  Guarantee:
    The sum's L2 sensitivity to one record is
    `rule.sensitivity(clip_state, clip_group_size, adjacency)`, provided that
    `loss_fn` reads nothing but its arguments and that a record's slot does not
    depend on other records. A record that is not finite, and an invalid slot,
    contribute exactly zero. The sum is not private until noise is added, and
    the other outputs never are.

  Args:
    loss_fn: `(params, example, key) -> (scalar loss, aux)` for ONE record.
    rule: Clipping rule.
    clip_group_size: Nominal records per clip unit. Above 1 the lot has leading
      axes [groups, slots].
    engine: "loop", "loop_eager", "scan", "vmap" or "auto".
    chunk_size: Clip units held in memory at a time; must divide the lot's
      leading axis. None leaves it to the engine. It never changes the result
      beyond rounding.

  Returns:
    `fn(params, lot, key, clip_state) -> ClippedGrads`; the record in a slot
    sees the key `fold_in(key, lot.ids[slot])`.

  Raises:
    ValueError: Unknown engine, impossible chunk size, or a lot whose axes do
      not fit `clip_group_size`.

  Example:
    >>> fn = clipped_grad(loss_fn, ThresholdClip(clip_norm=1.0))
    >>> clipped = fn(params, lot, jax.random.key(0), ())

  References:
    Abadi et al., CCS 2016; Dupuy et al., ICASSP 2022 (clip groups).
  """
  if engine not in ENGINES:
    raise ValueError(f"engine: got {engine!r}; allowed are {list(ENGINES)}")
  if clip_group_size < 1:
    raise ValueError(
      f"clip_group_size: got {clip_group_size}; it must be at least 1"
    )
  if chunk_size is not None and chunk_size < 1:
    raise ValueError(f"chunk_size: got {chunk_size}; it must be at least 1")
  grouped = clip_group_size > 1

  def fn(params, lot: _lot.Lot, key, clip_state) -> _lot.ClippedGrads:
    _check_axes(lot, grouped)
    name, size = engine, chunk_size
    if name == "auto":
      choice = _choose.choose_engine(
        params,
        lot.valid.shape[0],
        slots_per_unit=lot.valid.shape[1] if grouped else 1,
      )
      name = choice.engine if size is None else "vmap"
      size = choice.chunk_size if size is None else size
    run = _ENGINES[name](loss_fn, rule, grouped, size)
    return run(params, lot, key, clip_state)

  return fn


def _check_axes(lot, grouped):
  expected = 2 if grouped else 1
  axes = "[groups, slots]" if grouped else "[slots]"
  if lot.valid.ndim != expected:
    raise ValueError(
      f"lot.valid: got shape {lot.valid.shape}; with clip_group_size"
      f" {'above 1' if grouped else '1'} its axes are {axes}"
    )
  for path, leaf in jax.tree_util.tree_leaves_with_path(lot.examples):
    if leaf.shape[:expected] != lot.valid.shape:
      raise ValueError(
        f"lot.examples{jax.tree_util.keystr(path)}: got shape {leaf.shape};"
        f" its leading axes must be {axes} = {lot.valid.shape}"
      )
