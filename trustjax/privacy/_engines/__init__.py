"""Clipping engines: one contract, several ways to run it.

  _unit          the gradient of one clip unit, its norm, its clipped gradient
  _loop          engine `loop`: Python loop over units, the oracle
  _chunked       engines `scan` and `vmap`: one program, bounded memory
  _bookkeeping   engine `bookkeeping`: norms and sums without gradients
  _costs         what a unit costs under each engine
  _choose        engine `auto`: engine and chunk size by cost
  _explain       the route of every parameter, for people
  _sharding      one lot over several devices

A new engine is a function `(loss_fn, rule, grouped, chunk_size) -> run` with
`run(params, lot, key, clip_state, frozen) -> ClippedGrads`, entered in
`_ENGINES`. It may use `_unit.make_unit`, or rewrite the loss and never form a
unit's gradient. `tests/privacy/test_engines.py` is the contract suite that
every entry must pass.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from trustjax.privacy import _lot, _rules
from trustjax.privacy._engines import (
  _bookkeeping,
  _choose,
  _chunked,
  _explain,
  _loop,
  _sharding,
  _unit,
)

EngineChoice = _choose.EngineChoice
choose_engine = _choose.choose_engine
Explanation = _explain.Explanation
LeafRoute = _explain.LeafRoute
explain = _explain.explain

_ENGINES: dict[str, Callable] = {
  "loop": _loop.loop_engine,
  "loop_eager": functools.partial(_loop.loop_engine, compiled=False),
  "scan": _chunked.scan_engine,
  "vmap": _chunked.vmap_engine,
  "bookkeeping": _bookkeeping.bookkeeping_engine,
}
# Engines that run on the host and cannot be part of a compiled step.
HOST_ENGINES = _sharding.HOST_ENGINES
ENGINES = (*_ENGINES, "auto")


def clipped_grad(
  loss_fn: _unit.LossFn,
  rule: _rules.ClippingRule,
  *,
  clip_group_size: int = 1,
  engine: str = "auto",
  chunk_size: int | None = None,
  budget_bytes: int | None = None,
  mesh: jax.sharding.Mesh | None = None,
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
    engine: "loop", "loop_eager", "scan", "vmap", "bookkeeping" or "auto".
    chunk_size: Clip units held in memory at a time; must divide the lot's
      leading axis. None leaves it to the engine. It never changes the result
      beyond rounding.
    budget_bytes: Temporary memory that "auto" may plan with; None leaves it to
      the backend (`choose_engine`).
    mesh: Devices that share the lot, each an equal part of its leading axis;
      None runs on one. Records keep their keys, so the result is the same up
      to the order of a sum. `chunk_size` then divides each device's part.

  Returns:
    `fn(params, lot, key, clip_state, *, frozen=None) -> ClippedGrads`; the
    record in a slot sees the key `fold_in(key, lot.ids[slot])`. With `frozen`
    from `partition`, `params` are the trained part and the loss sees both.

  Raises:
    ValueError: Unknown engine, impossible chunk size, a budget below one
      record, a lot whose axes do not fit `clip_group_size`, parameters that
      are not real, or a loss that is not one record's.

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

  def fn(
    params, lot: _lot.Lot, key, clip_state, *, frozen=None
  ) -> _lot.ClippedGrads:
    _check_axes(lot, grouped)
    _check_params(params)
    if mesh is not None:
      return _sharding.over_devices(run, mesh, engine)(
        params, lot, key, clip_state, frozen
      )
    return run(params, lot, key, clip_state, frozen)

  def run(params, lot, key, clip_state, frozen):
    name, size = engine, chunk_size
    if name == "auto":
      choice = _choose.choose_engine(
        loss_fn, params, lot, key, frozen=frozen, budget_bytes=budget_bytes
      )
      name = choice.engine
      if size is None:
        size = choice.chunk_size
      elif name == "scan":
        name = "vmap"
    engine_fn = _ENGINES[name](loss_fn, rule, grouped, size)
    return engine_fn(params, lot, key, clip_state, frozen)

  return fn


def _check_params(params):
  for path, leaf in jax.tree_util.tree_leaves_with_path(params):
    if not jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
      raise ValueError(
        f"params{jax.tree_util.keystr(path)}: got type"
        f" {jnp.result_type(leaf)}; trained parameters must be real"
        " floating-point arrays (keep others in the frozen part)"
      )


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
