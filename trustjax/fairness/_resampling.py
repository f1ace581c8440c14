"""Bootstrap and permutation null of any statistic, as one compiled program.

A statistic is a pure function of arrays with one leading axis of records. Its
resamples are drawn within strata, so that no group can come out empty, and are
computed in chunks that bound memory.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key, Real, Shaped

from trustjax.fairness import _validate
from trustjax.fairness._validate import AnyArray

PyTree = Any

# Resampled records held at a time: bounds memory, not the result.
_CHUNK = 4_000_000


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Bootstrap:
  """A statistic with its bootstrap interval.

  Attributes:
    estimate: The statistic of the data.
    low: Lower end, shaped like the estimate.
    high: Upper end.
    replicates: The statistic of every resample, leading axis [num].
    num_undefined: Resamples in which it was nan; these are left out of the
      interval.
    n: Number of units (records, or clusters) that were resampled.
    method: "percentile" or "bca".
    confidence: Nominal coverage.
  """

  estimate: PyTree
  low: PyTree
  high: PyTree
  replicates: PyTree
  num_undefined: PyTree
  n: int = dataclasses.field(metadata={"static": True})
  method: str = dataclasses.field(metadata={"static": True})
  confidence: float = dataclasses.field(metadata={"static": True})

  def map(self, fn: Callable[[PyTree], PyTree]) -> "Bootstrap":
    """The bootstrap of a function of the statistic, from the same resamples.

    A mean over groups, a difference or a ratio needs no resampling of its own:
    it is computed of every replicate.

    Args:
      fn: Pure function of a statistic to an array, or a pytree of arrays.

    Returns:
      The function of the estimate, with the percentile interval of the
      function of the replicates.

    Raises:
      ValueError: The interval is BCa, whose correction belongs to the
        statistic that was left out unit by unit.

    Example:
      >>> import jax.numpy as jnp
      >>> ages = jnp.array([3.0, 4.0, 8.0])
      >>> found = bootstrap(jnp.mean, ages, key=jax.random.key(0), num=50)
      >>> float(found.map(jnp.square).estimate)
      25.0
    """
    if self.method != "percentile":
      raise ValueError(
        f"method: got {self.method!r}; only a percentile interval can be mapped"
      )
    estimate = jax.jit(fn)(self.estimate)
    replicates = jax.jit(jax.vmap(fn))(self.replicates)
    low, high, undefined = interval(
      estimate, replicates, confidence=self.confidence
    )
    return dataclasses.replace(
      self,
      estimate=estimate,
      low=low,
      high=high,
      replicates=replicates,
      num_undefined=undefined,
    )


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class PermutationNull:
  """What a statistic would be if labels had nothing to do with records.

  Attributes:
    estimate: The statistic of the data.
    p_value: (1 + number of shuffles at least as large) / (1 + num); shuffles
      without a value do not count, and it is nan where the estimate is.
    mean: Mean of the statistic over shuffles: the noise floor of a gap.
    high: Its 95 % point.
    replicates: The statistic of every shuffle, leading axis [num].
  """

  estimate: PyTree
  p_value: PyTree
  mean: PyTree
  high: PyTree
  replicates: PyTree


def bootstrap(
  stat_fn: Callable[..., PyTree],
  data: PyTree,
  *,
  key: Key[Array, ""],
  num: int = 10_000,
  strata: Int[AnyArray, " records"] | None = None,
  clusters: Int[AnyArray, " records"] | None = None,
  by: str = "rows",
  method: str = "percentile",
  confidence: float = 0.95,
) -> Bootstrap:
  """Resamples records within strata and recomputes a statistic.

  With `by="rows"` the statistic sees the drawn records, `stat_fn(data)`; with
  `by="weights"` it sees all records and how often each was drawn,
  `stat_fn(data, weights)`, which saves gathering, lets sorted data stay sorted,
  and is what clusters need.

  The interval of a statistic that cannot be negative (a max - min gap) never
  covers 0 and is no test; put `permutation_null` beside it.

  Args:
    stat_fn: Pure function to an array, or a pytree of arrays. Pass the same
      function object again to reuse the compiled program.
    data: Pytree of arrays with one leading axis of records.
    key: Typed key.
    num: Resamples.
    strata: Stratum of each record; None is one stratum. Every resample holds
      as many records of each stratum as the data does.
    clusters: Records that are drawn together, such as the generations of one
      prompt. A cluster lies in one stratum.
    by: "rows" or "weights".
    method: "percentile", or "bca" (bias-corrected and accelerated), which
      evaluates the statistic once more per unit.
    confidence: Nominal coverage.

  Returns:
    The estimate, its interval and the replicates.

  Raises:
    ValueError: An option is unknown, clusters come with by="rows", a cluster
      spans two strata, or there are no records.

  References:
    Efron and Tibshirani, An Introduction to the Bootstrap, chapters 13, 14.
  """
  _validate.check_choice("by", by, ("rows", "weights"))
  _validate.check_choice("method", method, ("percentile", "bca"))
  _validate.check_between("confidence", confidence, 0, 1)
  _validate.check_at_least("num", num, 1)
  size = _num_records(data)
  if clusters is not None and by != "weights":
    raise ValueError(
      f"by: got {by!r}; clusters differ in size, so only by='weights' is"
      " allowed with them"
    )
  strata = jnp.zeros(size, jnp.int32) if strata is None else strata
  unit_strata, unit_of = _units(strata, clusters, size)
  num_units = unit_strata.shape[0]
  data = jax.tree.map(jnp.asarray, data)
  estimate, replicates, jackknife = _resample(
    data,
    jax.random.split(key, num),
    _Draw.within(unit_strata),
    unit_of,
    stat_fn=stat_fn,
    by=by,
    leave_one_out=method == "bca",
    chunk_size=max(1, min(num, _CHUNK // size)),
  )
  low, high, undefined = interval(
    estimate, replicates, jackknife, confidence=confidence
  )
  return Bootstrap(
    estimate=estimate,
    low=low,
    high=high,
    replicates=replicates,
    num_undefined=undefined,
    n=num_units,
    method=method,
    confidence=confidence,
  )


def permutation_null(
  stat_fn: Callable[[PyTree, Int[Array, " records"]], PyTree],
  data: PyTree,
  labels: Int[AnyArray, " records"],
  *,
  key: Key[Array, ""],
  num: int = 1_000,
  strata: Int[AnyArray, " records"] | None = None,
) -> PermutationNull:
  """Recomputes a statistic after shuffling labels over records.

  Args:
    stat_fn: Pure function (data, labels) -> array or pytree of arrays; larger
      is more extreme.
    data: Pytree of arrays with one leading axis of records.
    labels: What is shuffled, for example the group of each record.
    key: Typed key.
    num: Shuffles.
    strata: Labels are shuffled within strata, which keeps their joint
      distribution with the strata (for example with the true label, when
      true-positive rates are compared).

  Returns:
    The null with a one-sided p-value, element by element.

  Raises:
    ValueError: If there are no records, or labels are not as many.
  """
  _validate.check_at_least("num", num, 1)
  size = _num_records(data)
  if labels.shape[0] != size:
    raise ValueError(f"labels: got {labels.shape[0]} for {size} records")
  strata = jnp.zeros(size, jnp.int32) if strata is None else strata
  estimate, replicates = _shuffle(
    jax.tree.map(jnp.asarray, data),
    jnp.asarray(labels),
    jnp.asarray(strata),
    jax.random.split(key, num),
    stat_fn=stat_fn,
    chunk_size=max(1, min(num, _CHUNK // size)),
  )

  # Rounding must not turn a tie into a smaller value.
  def share_as_large(replicates, estimate):
    estimate = estimate.astype(jnp.result_type(float))
    replicates = replicates.astype(estimate.dtype)
    least = estimate - 1e-6 * jnp.abs(estimate)
    as_large = jnp.sum(replicates >= least[None], axis=0, dtype=float)
    known = jnp.sum(~jnp.isnan(replicates), axis=0, dtype=float)
    share = (1 + as_large) / (1 + known)
    # An undefined statistic is not an extreme one.
    return jnp.where(jnp.isnan(estimate) | (known == 0), jnp.nan, share)

  p_value = jax.tree.map(share_as_large, replicates, estimate)
  return PermutationNull(
    estimate=estimate,
    p_value=p_value,
    mean=jax.tree.map(lambda rep: jnp.nanmean(rep, axis=0), replicates),
    high=jax.tree.map(
      lambda rep: jnp.nanquantile(rep, 0.95, axis=0), replicates
    ),
    replicates=replicates,
  )


def interval(
  estimate: PyTree,
  replicates: PyTree,
  jackknife: PyTree | None = None,
  jackknife_weights: Real[Array, " units"] | None = None,
  *,
  confidence: float,
) -> tuple[PyTree, PyTree, PyTree]:
  """Percentile interval of replicates, or BCa where a jackknife is given.

  Args:
    estimate: Pytree of arrays.
    replicates: The same with a leading axis of resamples.
    jackknife: The same with a leading axis of left-out units.
    jackknife_weights: How many units each row of the jackknife stands for.
    confidence: Nominal coverage.

  Returns:
    Lower ends, upper ends, and the number of nan replicates.
  """
  leaves, treedef = jax.tree.flatten(estimate)
  columns = treedef.flatten_up_to(replicates)
  jack = (
    [None] * len(leaves)
    if jackknife is None
    else treedef.flatten_up_to(jackknife)
  )
  ends = [
    _leaf_interval(leaf, column, left_out, jackknife_weights, confidence)
    for leaf, column, left_out in zip(leaves, columns, jack, strict=True)
  ]
  low, high, undefined = (
    jax.tree.unflatten(treedef, list(part)) for part in zip(*ends, strict=True)
  )
  return low, high, undefined


@functools.partial(jax.jit, static_argnames="confidence")
def _leaf_interval(estimate, replicates, jackknife, weights, confidence):
  """The interval of every element of one array."""
  dtype = jnp.result_type(float)
  flat = jnp.reshape(replicates, (replicates.shape[0], -1)).astype(dtype)
  centre = jnp.reshape(jnp.asarray(estimate), (-1,)).astype(dtype)
  tail = (1 - confidence) / 2
  levels = jnp.broadcast_to(
    jnp.array([tail, 1 - tail], flat.dtype)[:, None], (2, flat.shape[1])
  )
  if jackknife is not None:
    levels = _bca_levels(
      flat,
      centre,
      jnp.reshape(jackknife, (jackknife.shape[0], -1)).astype(dtype),
      jnp.ones(jackknife.shape[0]) if weights is None else weights,
      levels,
    )
  ends = jax.vmap(_quantiles, in_axes=(1, 1), out_axes=1)(flat, levels)
  undefined = jnp.sum(jnp.isnan(flat), axis=0)
  # Shapes and types of the estimate, so that its dataclass can hold them.
  like = jnp.asarray(estimate)
  low, high, undefined = (
    jnp.reshape(part, like.shape).astype(like.dtype)
    for part in (ends[0], ends[1], undefined)
  )
  return low, high, undefined


def _quantiles(
  values: Float[Array, " num"], levels: Float[Array, " levels"]
) -> Float[Array, " levels"]:
  """Linear quantiles of the values that are not nan."""
  ordered = jnp.sort(values)  # nan sorts last
  count = jnp.sum(~jnp.isnan(values))
  at = levels * (jnp.maximum(count, 1) - 1).astype(levels.dtype)
  below = jnp.floor(at).astype(jnp.int32)
  above = jnp.minimum(below + 1, jnp.maximum(count - 1, 0))
  share = at - jnp.floor(at)
  return ordered[below] * (1 - share) + ordered[above] * share


def _bca_levels(replicates, estimate, jackknife, weights, levels):
  """Quantile levels corrected for bias and skewness, per column."""
  dtype = replicates.dtype
  count = jnp.sum(~jnp.isnan(replicates), axis=0, dtype=dtype)
  below = jnp.sum(replicates < estimate[None], axis=0, dtype=dtype)
  below += jnp.sum(replicates == estimate[None], axis=0, dtype=dtype) / 2
  # Half a replicate away from 0 and 1 keeps the bias finite.
  share = jnp.clip(below / count, 0.5 / count, 1 - 0.5 / count)
  bias = jax.scipy.special.ndtri(share)
  total = jnp.sum(weights.astype(dtype))
  weights = (weights.astype(dtype) / total)[:, None]
  mean = jnp.sum(weights * jackknife, axis=0)
  away = mean[None] - jackknife
  squares = jnp.sum(weights * away**2, axis=0)
  cubes = jnp.sum(weights * away**3, axis=0)
  # a = sum d^3 / (6 (sum d^2)^1.5) over units, written with means.
  moved = squares > 0
  scale = 6 * jnp.where(moved, squares, 1.0) ** 1.5 * jnp.sqrt(total)
  skew = jnp.where(moved, cubes / scale, 0.0)
  z = bias[None] + jax.scipy.special.ndtri(levels)
  return jax.scipy.special.ndtr(bias[None] + z / (1 - skew[None] * z))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class _Draw:
  """How to draw a unit of the same stratum for every unit.

  Attributes:
    order: Units sorted by stratum.
    start: For each sorted position, where its stratum starts.
    size: For each sorted position, how many units its stratum holds.
  """

  order: Int[Array, " units"]
  start: Int[Array, " units"]
  size: Int[Array, " units"]

  @classmethod
  def within(cls, strata: Int[AnyArray, " units"]) -> "_Draw":
    strata = jnp.asarray(strata)
    order = jnp.argsort(strata)
    ordered = strata[order]
    start = jnp.searchsorted(ordered, ordered, side="left")
    end = jnp.searchsorted(ordered, ordered, side="right")
    return cls(order=order, start=start, size=end - start)

  def __call__(self, key: Key[Array, ""]) -> Int[Array, " units"]:
    return self.order[self.start + _below(key, self.size)]


def _below(key, sizes):
  """Uniform integers in [0, size) for each of the sizes.

  The high half of a 32-bit random word times the size: one word a draw, where
  `randint` spends two. Bias is below size / 2^32.
  """
  if sizes.shape[0] >= 1 << 16:
    return jax.random.randint(key, sizes.shape, 0, sizes)
  word = jax.random.bits(key, sizes.shape, jnp.uint32)
  size = sizes.astype(jnp.uint32)
  low = ((word & 0xFFFF) * size) >> 16
  return (((word >> 16) * size + low) >> 16).astype(jnp.int32)


@functools.partial(
  jax.jit, static_argnames=("stat_fn", "by", "leave_one_out", "chunk_size")
)
def _resample(
  data, keys, draw, unit_of, *, stat_fn, by, leave_one_out, chunk_size
):
  num_units = draw.order.shape[0]

  def from_counts(counts):
    return stat_fn(data, counts[unit_of])

  def from_rows(rows):
    return stat_fn(jax.tree.map(lambda leaf: leaf[rows], data))

  def replicate(key):
    units = draw(key)
    if by == "rows":
      return from_rows(units)
    return from_counts(jnp.zeros(num_units).at[units].add(1.0))

  def without(unit):
    others = jnp.arange(num_units - 1)
    if by == "rows":
      return from_rows(jnp.where(others >= unit, others + 1, others))
    return from_counts((jnp.arange(num_units) != unit).astype(float))

  if by == "rows":
    estimate = stat_fn(data)
  else:
    estimate = from_counts(jnp.ones(num_units))
  replicates = jax.lax.map(replicate, keys, batch_size=chunk_size)
  jackknife = None
  if leave_one_out:
    jackknife = jax.lax.map(
      without, jnp.arange(num_units), batch_size=min(num_units, chunk_size)
    )
  return estimate, replicates, jackknife


@functools.partial(jax.jit, static_argnames=("stat_fn", "chunk_size"))
def _shuffle(data, labels, strata, keys, *, stat_fn, chunk_size):
  order = jnp.argsort(strata)

  def replicate(key):
    noise = jax.random.bits(key, strata.shape, jnp.uint32)
    shuffled = jnp.lexsort((noise, strata))
    return stat_fn(data, jnp.zeros_like(labels).at[order].set(labels[shuffled]))

  return stat_fn(data, labels), jax.lax.map(
    replicate, keys, batch_size=chunk_size
  )


def _num_records(data) -> int:
  sizes = {leaf.shape[0] for leaf in jax.tree.leaves(data)}
  if len(sizes) != 1 or not min(sizes):
    raise ValueError(
      f"data: got leading axes {sorted(sizes)}; all arrays need the same"
      " number of records, at least one"
    )
  return sizes.pop()


def _units(
  strata: Shaped[AnyArray, " records"],
  clusters: Shaped[AnyArray, " records"] | None,
  size: int,
) -> tuple[AnyArray, AnyArray]:
  """Stratum of each unit, and the unit of each record."""
  if strata.shape[0] != size:
    raise ValueError(f"strata: got {strata.shape[0]} for {size} records")
  if clusters is None:
    return strata, np.arange(size)
  if clusters.shape[0] != size:
    raise ValueError(f"clusters: got {clusters.shape[0]} for {size} records")
  ids, first, unit_of = np.unique(
    np.asarray(clusters), return_index=True, return_inverse=True
  )
  unit_strata = np.asarray(strata)[first]
  spans = unit_strata[unit_of] != np.asarray(strata)
  if spans.any():
    bad = ids[unit_of[int(np.argmax(spans))]]
    raise ValueError(f"clusters: cluster {bad} lies in more than one stratum")
  return unit_strata, unit_of
