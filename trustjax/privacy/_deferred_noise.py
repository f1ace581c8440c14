"""Private SGD that draws the noise of a table's row when the row is read.

An embedding-dominated model spends its step on noise: one normal for every
entry of the table, though a lot reads few of its rows. But a row that nobody
reads need not carry its noise yet. With plain SGD a row moves by

  w_{t+1} = w_t - eta_t (S_t + sigma_t a N(0, I)) / divisor,

so while it is not read it only gathers independent Gaussians, and their sum is
one Gaussian with the summed variance. It is drawn just before the row is read
again, or before the parameters leave.
"""

import dataclasses
import functools
import typing
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from trustjax.privacy import _lot, _noise, _normals, _plan
from trustjax.privacy._engines import _bookkeeping, _choose, _costs

PyTree = Any

# What a step's key is split into; records and noise as in `training`.
_RECORDS, _NOISE, _ROWS, _SETTLE = 0, 1, 4, 5
# Parts of a lot's reads that a draw may cover: a lot reads many rows more than
# once, and a loop over short blocks costs more than it saves.
_PARTS = (8, 4, 2, 1)


@typing.no_type_check  # JAX rebuilds records with placeholders of its own.
@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class DeferredState:
  """Parameters in training; NOT private until settled.

  Attributes:
    unsettled: Parameters whose tables lack noise. Together with `since` they
      tell which rows were read, so they must not leave the training.
    since: For each table the first step whose noise a row lacks, int32 [rows];
      None for the other parameters.
    step: Steps taken.
  """

  unsettled: PyTree
  since: PyTree
  step: Int[Array, ""]


@dataclasses.dataclass(frozen=True, kw_only=True)
class DeferredSgd:
  """A private step with deferred noise, as pure functions.

  Attributes:
    tables: Paths of the parameters whose noise is deferred.
    init: params -> state. It copies them.
    step: (state, lot, key) -> (state, seen). `key` is the root key of the run,
      the same for every step. What the step has seen is raw and outside the
      guarantee; its `sum`, which is the gradient, is None. It donates the
      state.
    settle: (state, key) -> (params, state). Draws all that is pending; the
      parameters are what `add_noise` with SGD would have released, and
      training goes on from the returned state. It donates the state: going on
      from the old one would draw the same noise anew.
  """

  tables: tuple[str, ...]
  init: Callable[[PyTree], DeferredState]
  step: Callable[..., tuple[DeferredState, _lot.ClippedGrads]]
  settle: Callable[..., tuple[PyTree, DeferredState]]


def deferred_noise_sgd(
  loss_fn: Callable,
  plan: _plan.DpSgdPlan,
  learning_rate: Any,
  params: PyTree,
  example: PyTree,
  *,
  tables: tuple[str, ...] | None = None,
  chunk_size: int | None = None,
) -> DeferredSgd:
  """Builds private SGD whose noise waits where nobody looks.

  Guarantee:
    Everything the loss reads, and every `settle`, has exactly the joint
    distribution of `plan.clipped_grad`, `add_noise` and `optax.sgd`, so the
    settled parameters satisfy `plan.epsilon`. For the loss, the other
    parameters and what is released depend on a row only through its value when
    it is read or settled; between two such moments the row's noise enters as
    one sum of independent Gaussians, fixed in its variance before training;
    and sums over disjoint spans are independent. Drawing the sum instead of
    its terms is post-processing of a row that nobody saw. Voided by looking at
    `DeferredState.unsettled`, by going on from a state that was settled
    before, and by a key used for two runs. How long a step takes depends on how
    many rows the lot reads, and is not protected.

  It is exact only where a row's steps add up, so it takes a learning rate, not
  an optimiser: momentum, Adam and weight decay all read a row's noise again.

  Args:
    loss_fn: `(params, example, key) -> (scalar, aux)` for ONE record.
    plan: The plan. Its rule's thresholds and noise must be constants.
    learning_rate: Of plain SGD: a number, or a function of the step such as an
      optax schedule. Anything else is refused.
    params: Parameters, or their shapes.
    example: One record, or its shapes, without a leading axis.
    tables: Paths of the parameters to defer, keys joined by "/". None takes
      every matrix of which the loss only looks up rows.
    chunk_size: Clip units in memory at a time; None takes `auto`'s choice. It
      then divides 8 or more slots of a lot, as lots are padded.

  Returns:
    The step's functions.

  Raises:
    ValueError: Deferred noise would not be exact, or no table is left; the
      message says why.

  Example:
    >>> sgd = deferred_noise_sgd(loss_fn, plan, 0.1, params, example)
    >>> state = sgd.init(params)
    >>> state, seen = sgd.step(state, lot, key)
    >>> params, state = sgd.settle(state, key)

  References:
    Lim et al., LazyDP, ASPLOS 2024 (arXiv 2404.08847).
  """
  _check_rule(plan, params)
  lot = _unit_shapes(plan, example)
  tables_of = _choose_tables(loss_fn, params, lot, tables)
  steps = _Steps(
    loss_fn=loss_fn,
    plan=plan,
    tables=tuple(tables_of),
    noise=_PendingNoise.of(plan, learning_rate, params),
    chunk_size=chunk_size,
  )
  return DeferredSgd(
    tables=tuple(tables_of.values()),
    init=steps.init,
    step=jax.jit(steps.step, donate_argnums=0),
    settle=jax.jit(steps.settle, donate_argnums=0),
  )


def _check_rule(plan, params):
  """Refuses thresholds and noise that depend on anything but the step.

  A threshold that reads the parameters would read tables without their noise.
  """
  rule, why = plan.rule, None
  if jax.tree.leaves(rule.init()):
    why = "learns its threshold from the data"
  else:
    for what, of in (("thresholds", rule.scales), ("noise", rule.noise_scales)):
      traced = jax.make_jaxpr(functools.partial(of, ()))(params)
      if any(_bookkeeping.needed_inputs(traced.jaxpr)):
        why = f"scales its {what} by the parameters"
        break
  if why:
    raise ValueError(
      f"plan.rule: got {rule!r}, which {why}; deferred noise needs thresholds"
      " and a variance that are known before training (as of ThresholdClip or"
      " AutoClip)"
    )


def _learning_rates(learning_rate, num_steps) -> np.ndarray:
  """Learning rate of each step, float32 [num_steps]."""
  if hasattr(learning_rate, "update"):
    raise ValueError(
      "learning_rate: got an optimiser; deferred noise is exact for plain SGD"
      " only, because momentum, Adam and weight decay read a row's noise again"
      " after the step that drew it. Give the learning rate itself"
    )
  if not callable(learning_rate):
    rates = np.full(num_steps, learning_rate, np.float32)
  else:
    rates = jax.vmap(lambda t: jnp.asarray(learning_rate(t), jnp.float32))(
      jnp.arange(num_steps)
    )
  rates = np.asarray(rates)
  bad = ~(np.isfinite(rates) & (rates >= 0))
  if np.any(bad):
    raise ValueError(
      f"learning_rate: got {rates[bad][0]} at step {int(np.argmax(bad))}; it"
      " must be finite and at least 0"
    )
  return rates


def _unit_shapes(plan, example) -> _lot.Lot:
  """The shapes of a lot with one clip unit."""
  grouped = plan.clip_group_size > 1
  axes = (1, plan.slots_per_group) if grouped else (1,)
  return _lot.Lot(
    examples=jax.tree.map(
      lambda x: jax.ShapeDtypeStruct(
        (*axes, *jnp.shape(x)), jnp.result_type(x)
      ),
      example,
    ),
    valid=jnp.ones(axes, bool),
    ids=jnp.zeros(axes, jnp.int32),
  )


def _choose_tables(loss_fn, params, lot, wanted) -> dict[int, str]:
  """Index of each deferred leaf -> its path."""
  key = jax.random.key(0)
  program = _costs.trace(loss_fn, params, lot, key)
  unit = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), lot)
  verdicts = _bookkeeping.table_verdicts(program, params, unit, key)
  leaves, paths = [], []
  for path, leaf in jax.tree_util.tree_leaves_with_path(params):
    leaves.append(leaf)
    paths.append(jax.tree_util.keystr(path, simple=True, separator="/"))
  for i, leaf in enumerate(leaves):
    if leaf.ndim != 2:
      verdicts[i] = verdicts[i] or f"of shape {leaf.shape}, not a matrix"
    if leaf.dtype != jnp.float32:
      verdicts[i] = verdicts[i] or f"{leaf.dtype}, which rounds every step"
  unknown = sorted(set(wanted or ()) - set(paths))
  if unknown:
    raise ValueError(f"tables: got {unknown}; the parameters are {paths}")
  refused = {p: v for p, v in zip(paths, verdicts) if v is not None}
  if wanted is not None:
    refused = {path: refused[path] for path in wanted if path in refused}
  chosen = {
    i: path
    for i, path in enumerate(paths)
    if (path in wanted if wanted is not None else path not in refused)
  }
  if not chosen or (wanted is not None and refused):
    said = "; ".join(f"{path}: {why}" for path, why in refused.items())
    raise ValueError(
      "tables: deferred noise is exact only for a float32 matrix of which the"
      f" loss does nothing but look up rows ({said})"
    )
  return chosen


@dataclasses.dataclass(frozen=True, kw_only=True)
class _PendingNoise:
  """Standard deviation of a row's noise over a span of steps.

  Attributes:
    rates: Learning rate of each step, float32 [num_steps].
    scales: Standard deviation of the noise on the sum at each step and in each
      block, float32 [num_steps, blocks].
    blocks: Block of each leaf.
    divisor: Units that a sum is divided by.
    summed: Variance of a parameter's noise before each step, float64
      [num_steps + 1, blocks], as the float32 nearest to it and the rest: of a
      long run, two neighbours differ in their last digits only.
  """

  rates: np.ndarray
  scales: np.ndarray
  blocks: tuple[int, ...]
  divisor: float
  summed: tuple[np.ndarray, np.ndarray]

  @classmethod
  def of(cls, plan, learning_rate, params) -> "_PendingNoise":
    multipliers = plan.gradient_noise_multipliers()
    rates = _learning_rates(learning_rate, len(multipliers))
    per_block = jax.jit(plan.rule.noise_scales)((), _zeros_like(params))
    scales = np.float32(multipliers[:, None]) * np.asarray(per_block)[None, :]
    divisor = float(plan.expected_units)
    moved = rates.astype(np.float64)[:, None] * scales / divisor
    summed = np.concatenate(
      [np.zeros((1, scales.shape[1])), np.cumsum(np.square(moved), axis=0)]
    )
    high = np.asarray(summed, np.float32)
    return cls(
      rates=rates,
      scales=scales,
      blocks=plan.rule.blocks(params),
      divisor=divisor,
      summed=(high, np.asarray(summed - high, np.float32)),
    )

  def deviation(
    self, leaf: int, since: Int[Array, " rows"], until: Int[Array, ""]
  ) -> Float[Array, " rows"]:
    """Of the noise of steps since, ..., until - 1; nan beyond the plan."""

    def at(table, step):
      column = jnp.asarray(table[:, self.blocks[leaf]])
      return column.at[step].get(mode="fill", fill_value=jnp.nan)

    high, low = (at(part, until) - at(part, since) for part in self.summed)
    return jnp.sqrt(jnp.maximum(high + low, 0.0))


def _zeros_like(params):
  return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), params)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Steps:
  """The functions of `DeferredSgd` before compilation.

  Attributes:
    loss_fn: Loss of one record.
    plan: The plan.
    tables: Leaves whose noise is deferred.
    noise: Its variances.
    chunk_size: Clip units in memory at a time, or None.
  """

  loss_fn: Callable
  plan: _plan.DpSgdPlan
  tables: tuple[int, ...]
  noise: _PendingNoise
  chunk_size: int | None

  def init(self, params: PyTree) -> DeferredState:
    leaves, treedef = jax.tree.flatten(params)
    since = [
      jnp.zeros(leaf.shape[0], jnp.int32) if i in self.tables else None
      for i, leaf in enumerate(leaves)
    ]
    return DeferredState(
      unsettled=jax.tree.map(jnp.copy, params),
      since=jax.tree.unflatten(treedef, since),
      step=jnp.zeros((), jnp.int32),
    )

  def step(self, state: DeferredState, lot: _lot.Lot, key):
    step_key = jax.random.fold_in(key, state.step)
    record_key = jax.random.fold_in(step_key, _RECORDS)
    leaves, treedef = jax.tree.flatten(state.unsettled)
    since = treedef.flatten_up_to(state.since)
    start: list[Any] = [jnp.zeros(leaf.shape, jnp.float32) for leaf in leaves]
    read = self._rows_read(state.unsettled, lot, record_key)
    reads: dict[int, Any] = {}
    for table, rows in read.items():
      reads[table], count, place = _bookkeeping.distinct_rows(
        rows, leaves[table].shape[0]
      )
      leaves[table] = self._settle_rows(
        table,
        leaves[table],
        since[table],
        (reads[table], count),
        state.step,
        jax.random.fold_in(jax.random.fold_in(step_key, _ROWS), table),
      )
      since[table] = since[table].at[rows].set(state.step)
      start[table] = _bookkeeping.RowSum(
        values=jnp.zeros(
          (reads[table].shape[0], leaves[table].shape[1]), jnp.float32
        ),
        place=place,
      )
    clipped = self._clipped(
      treedef.unflatten(leaves), lot, record_key, treedef.unflatten(start)
    )
    leaves = self._moved(
      leaves,
      treedef.flatten_up_to(clipped.sum),
      reads,
      state.step,
      jax.random.fold_in(step_key, _NOISE),
    )
    state = DeferredState(
      unsettled=treedef.unflatten(leaves),
      since=treedef.unflatten(since),
      step=state.step + 1,
    )
    return state, dataclasses.replace(clipped, sum=None)

  def settle(self, state: DeferredState, key):
    key = jax.random.fold_in(jax.random.fold_in(key, state.step), _SETTLE)
    leaves, treedef = jax.tree.flatten(state.unsettled)
    since = treedef.flatten_up_to(state.since)
    for table in self.tables:
      normals = _fresh_noise(
        jax.random.fold_in(key, table),
        self.noise.deviation(table, since[table], state.step),
        leaves[table].shape[1],
      )
      leaves[table] = leaves[table] + normals
      since[table] = jnp.full_like(since[table], state.step)
    params = treedef.unflatten(leaves)
    state = DeferredState(
      unsettled=jax.tree.map(jnp.copy, params),
      since=treedef.unflatten(since),
      step=state.step,
    )
    return params, state

  def _rows_read(self, params, lot, key):
    """Rows of each table that the lot reads, with repetitions."""
    program = _costs.trace(self.loss_fn, params, lot, key)
    read = jax.vmap(
      lambda one: _bookkeeping.rows_read(program, self.tables, params, one, key)
    )(lot)
    return {table: jnp.ravel(rows) for table, rows in read.items()}

  def _settle_rows(self, table, rows_of, since, distinct, step, key):
    """Adds what is pending to the rows that are about to be read."""
    rows, count = distinct
    capacity, dim = rows.shape[0], rows_of.shape[1]
    deviation = self.noise.deviation(
      table, since.at[rows].get(mode="fill", fill_value=0), step
    )
    sizes = sorted({-(-capacity // part) for part in _PARTS})

    def first(size):
      def draw():
        noise = _fresh_noise(key, deviation[:size], dim)
        return jnp.pad(noise, ((0, capacity - size), (0, 0)))

      return draw

    enough = jnp.searchsorted(jnp.asarray(sizes), count)
    noise = jax.lax.switch(enough, [first(size) for size in sizes])
    return rows_of.at[rows].add(noise, mode="drop", unique_indices=True)

  def _clipped(self, params, lot, key, start):
    """The clipped sum; of the tables only the rows that are read."""
    chunk_size = self.chunk_size
    if chunk_size is None:
      chunk_size = _choose.choose_engine(
        self.loss_fn, params, lot, key
      ).chunk_size
    engine = _bookkeeping.bookkeeping_engine(
      self.loss_fn, self.plan.rule, self.plan.clip_group_size > 1, chunk_size
    )
    return engine(params, lot, key, (), None, start)

  def _moved(self, leaves, sums, reads, step, key):
    """The parameters after the step, with noise where it is not deferred."""

    def at_step(values):
      return jnp.asarray(values).at[step].get(mode="fill", fill_value=jnp.nan)

    rate = at_step(self.noise.rates) / self.noise.divisor
    others = [i for i in range(len(leaves)) if i not in self.tables]
    noised = _noise.add_to_blocks(
      key,
      [sums[i] for i in others],
      [self.noise.blocks[i] for i in others],
      at_step(self.noise.scales),
    )
    moved = list(leaves)
    for i, total in zip(others, noised):
      moved[i] = (leaves[i] - rate * total).astype(leaves[i].dtype)
    for table, rows in reads.items():
      moved[table] = (
        moved[table]
        .at[rows]
        .add(-rate * sums[table].values, mode="drop", unique_indices=True)
      )
    return moved


def _fresh_noise(key, deviation, dim):
  """Independent normals for each row, [rows, dim]."""
  normals = _normals.standard_normals(key, deviation.shape[0] * dim)
  # As in `_noise`: a draw that is fused into its use loses its vectorised hash.
  normals = jax.lax.optimization_barrier(normals)
  return deviation[:, None] * jnp.reshape(normals, (-1, dim))
