"""Sites: where parameters meet data, and the gradient that follows there.

At a site with output cotangent b, the gradient of the parameters' view W is a
sum of outer products over positions t, within blocks e that do not mix:

  G[e] = sum_t l[e, t] (x) m[e, t],   l in R^rows, m in R^cols.

That is all that norms and clipped sums need. Each rule below recognises one
kind of equation and brings its input and its cotangent into this form:

  Dot     any `dot_general`: l is the other operand, m the cotangent
  Rows    a gather of rows (embedding): l is one-hot and kept as an index
  Conv    a convolution: l is the unfolded input
  Whole   anything else: the cotangent of W itself, already the gradient
"""

import dataclasses
import math
import typing
from collections.abc import Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp

from trustjax.privacy._engines._bookkeeping import _views


@typing.no_type_check  # JAX rebuilds records with placeholders of its own.
@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Factors:
  """Outer products that sum to a gradient.

  Attributes:
    left: [blocks, positions, rows], or with `is_index` the row of each
      position, int32 [blocks, positions].
    right: [blocks, positions, cols].
    is_index: Whether `left` stands for one-hot vectors.
    is_precise: Whether the model asked for more than the device's default
      precision where it multiplied.
  """

  left: jax.Array
  right: jax.Array
  is_index: bool = dataclasses.field(default=False, metadata={"static": True})
  is_precise: bool = dataclasses.field(default=False, metadata={"static": True})

  @property
  def scales_left(self) -> bool:
    """Whether a weighted sum scales the left vectors: the shorter ones."""
    return not self.is_index and self.left.shape[-1] < self.right.shape[-1]


class Rule(Protocol):
  """How the gradient of a view follows from what a site records."""

  def factors(self, record, cotangent, site: "Site") -> Factors:
    """The outer products of one unit."""
    ...

  def unfold(self, gradient: jax.Array, site: "Site") -> jax.Array:
    """[blocks, rows, cols] to the view's [*stacked loops, *shape]."""
    ...

  def dims(self, site: "Site") -> tuple[int, int, int, int]:
    """(blocks, positions, rows, cols)."""
    ...


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Site:
  """One use of parameters.

  Attributes:
    view: What is used.
    rule: How its gradient follows.
    primitive: Name of the operation, for explanations.
    shape: Shape of the tapped value, inside all loops.
    dtype: Its type.
    record_shape: Shape of what is recorded, inside all loops.
    loops: (identity, length) of the scans around it, outermost first.
  """

  view: _views.View
  rule: Any
  primitive: str
  shape: tuple[int, ...]
  dtype: Any
  record_shape: tuple[int, ...] = ()
  loops: tuple[tuple[object, int], ...] = ()

  @property
  def tap_shape(self) -> tuple[int, ...]:
    """Shape of the tap: one for every iteration of the loops."""
    return (*(length for _, length in self.loops), *self.shape)

  def inside(self, loop: object, length: int) -> "Site":
    """The same site seen from outside of a loop around it."""
    return dataclasses.replace(self, loops=((loop, length), *self.loops))

  def loop_axes(self) -> tuple[list[int], list[int]]:
    """Leading axes of stacked loops, and of those that sum."""
    stacked = [
      i for i, (loop, _) in enumerate(self.loops) if loop in self.view.loops
    ]
    return stacked, [i for i in range(len(self.loops)) if i not in stacked]

  def loop_sizes(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Lengths of stacked loops, and of those that sum."""
    lengths = [length for _, length in self.loops]
    stacked, summed = self.loop_axes()
    return tuple(lengths[i] for i in stacked), tuple(lengths[i] for i in summed)


def _arrange(
  value,
  site: Site,
  blocks: Sequence[int],
  positions: Sequence[int],
  features: Sequence[int],
):
  """Brings [*loops, *axes] to [blocks, positions, features]."""
  stacked, summed = site.loop_axes()
  inner = len(site.loops)
  groups = [
    [*stacked, *(inner + i for i in blocks)],
    [*summed, *(inner + i for i in positions)],
    [inner + i for i in features],
  ]
  sizes = [math.prod(value.shape[i] for i in group) for group in groups]
  order = [i for group in groups for i in group]
  return jnp.reshape(jnp.transpose(value, order), sizes)


@dataclasses.dataclass(frozen=True)
class Dot:
  """out[b, x_free, w_free] = sum_c x[b, x_free, c] W[b, c, w_free]."""

  x_axes: tuple[tuple[int, ...], ...]  # batch, free, contracted
  w_axes: tuple[tuple[int, ...], ...]  # batch, contracted, free
  out_axes: tuple[tuple[int, ...], ...]  # batch, x_free, w_free
  is_precise: bool

  @classmethod
  def of(cls, eqn, side: int) -> "Dot":
    """The rule of a dot_general whose operand `side` is the parameters'."""
    contract, batch = eqn.params["dimension_numbers"]
    x, w = eqn.invars[1 - side].aval, eqn.invars[side].aval
    x_free = _others(x.ndim, batch[1 - side], contract[1 - side])
    w_free = _others(w.ndim, batch[side], contract[side])
    num_batch = len(batch[0])
    first = tuple(range(num_batch))
    # The free axes of the left operand come first in the output.
    lhs, rhs = (w_free, x_free) if side == 0 else (x_free, w_free)
    lhs_out = tuple(range(num_batch, num_batch + len(lhs)))
    rhs_out = tuple(range(num_batch + len(lhs), num_batch + len(lhs + rhs)))
    x_out, w_out = (rhs_out, lhs_out) if side == 0 else (lhs_out, rhs_out)
    return cls(
      x_axes=(tuple(batch[1 - side]), x_free, tuple(contract[1 - side])),
      w_axes=(tuple(batch[side]), tuple(contract[side]), w_free),
      out_axes=(first, x_out, w_out),
      is_precise=_is_precise(eqn),
    )

  def factors(self, record, cotangent, site):
    return Factors(
      left=_arrange(record, site, *self.x_axes),
      right=_arrange(cotangent, site, *self.out_axes),
      is_precise=self.is_precise,
    )

  def unfold(self, gradient, site):
    order = [axis for group in self.w_axes for axis in group]
    stacked, _ = site.loop_sizes()
    sizes = [*stacked, *(site.view.shape[axis] for axis in order)]
    inverse = [len(stacked) + order.index(i) for i in range(len(order))]
    return jnp.transpose(
      jnp.reshape(gradient, sizes), [*range(len(stacked)), *inverse]
    )

  def dims(self, site):
    stacked, summed = site.loop_sizes()
    shape = site.view.shape
    batch, contracted, free = (
      [shape[axis] for axis in axes] for axes in self.w_axes
    )
    positions = [site.shape[axis] for axis in self.out_axes[1]]
    return (
      math.prod([*stacked, *batch]),
      math.prod([*summed, *positions]),
      math.prod(contracted),
      math.prod(free),
    )


def _is_precise(eqn):
  """Whether a product asks for more than the device's default precision."""
  default = (None, jax.lax.Precision.DEFAULT, (jax.lax.Precision.DEFAULT,) * 2)
  return eqn.params["precision"] not in default


def _others(ndim, *taken):
  used = {axis for axes in taken for axis in axes}
  return tuple(axis for axis in range(ndim) if axis not in used)


@dataclasses.dataclass(frozen=True)
class Rows:
  """out[t] = W[id_t]; positions that name no row contribute nothing."""

  row_axis: int
  position_axes: tuple[int, ...]
  feature_axes: tuple[int, ...]
  clamp: bool

  @classmethod
  def of_gather(cls, eqn) -> "Rows | None":
    """The rule of a gather of whole rows, or None."""
    numbers, sizes = eqn.params["dimension_numbers"], eqn.params["slice_sizes"]
    shape = eqn.invars[0].aval.shape
    if len(numbers.start_index_map) != 1 or numbers.operand_batching_dims:
      return None
    (row,) = numbers.start_index_map
    whole = all(
      size == (1 if axis == row else shape[axis])
      for axis, size in enumerate(sizes)
    )
    collapsed = tuple(numbers.collapsed_slice_dims)
    if not whole or collapsed not in ((row,), ()):
      return None
    # A row axis that is kept, of length 1, is one more axis of positions.
    features = tuple(
      out
      for axis, out in zip(_others(len(sizes), collapsed), numbers.offset_dims)
      if axis != row
    )
    return cls(
      row_axis=row,
      position_axes=_others(eqn.outvars[0].aval.ndim, features),
      feature_axes=features,
      clamp=eqn.params["mode"] == jax.lax.GatherScatterMode.CLIP,
    )

  @classmethod
  def of_dynamic_slice(cls, eqn) -> "Rows | None":
    """The rule of a dynamic slice that takes one whole row, or None."""
    shape, sizes = eqn.invars[0].aval.shape, eqn.params["slice_sizes"]
    cut = [axis for axis in range(len(shape)) if sizes[axis] != shape[axis]]
    if len(cut) != 1 or sizes[cut[0]] != 1:
      return None
    (row,) = cut
    return cls(
      row_axis=row,
      position_axes=(row,),
      feature_axes=_others(len(shape), (row,)),
      clamp=True,
    )

  def factors(self, record, cotangent, site):
    num_rows = site.view.shape[self.row_axis]
    stacked, summed = site.loop_axes()
    rows = jnp.transpose(
      record, [*stacked, *summed, *range(len(site.loops), record.ndim)]
    )
    right = _arrange(cotangent, site, (), self.position_axes, self.feature_axes)
    rows = jnp.reshape(rows, right.shape[:2])
    if not self.clamp:
      exists = (rows >= 0) & (rows < num_rows)
      right = jnp.where(exists[:, :, None], right, jnp.zeros_like(right))
    # Clipped in the type of the index: a large unsigned one must not wrap.
    left = jnp.clip(rows, 0, num_rows - 1).astype(jnp.int32)
    return Factors(left=left, right=right, is_index=True)

  def unfold(self, gradient, site):
    stacked, _ = site.loop_sizes()
    shape = site.view.shape
    rest = [size for axis, size in enumerate(shape) if axis != self.row_axis]
    full = jnp.reshape(gradient, [*stacked, shape[self.row_axis], *rest])
    return jnp.moveaxis(full, len(stacked), len(stacked) + self.row_axis)

  def dims(self, site):
    stacked, summed = site.loop_sizes()
    rows = site.view.shape[self.row_axis]
    positions = [site.shape[axis] for axis in self.position_axes]
    return (
      math.prod(stacked),
      math.prod([*summed, *positions]),
      rows,
      math.prod(site.view.shape) // max(rows, 1),
    )


@dataclasses.dataclass(frozen=True)
class Conv:
  """A convolution as a product with unfolded patches of its input."""

  numbers: Any
  windows: tuple[tuple[str, Any], ...]
  filter_shape: tuple[int, ...]
  out_axes: tuple[tuple[int, ...], ...]  # positions, features
  is_precise: bool

  @classmethod
  def of(cls, eqn) -> "Conv | None":
    """The rule of a convolution with a parameter kernel, or None."""
    params = eqn.params
    if params["feature_group_count"] != 1 or params["batch_group_count"] != 1:
      return None
    numbers = params["dimension_numbers"]
    kernel = eqn.invars[1].aval.shape
    feature = numbers.out_spec[1]
    return cls(
      numbers=numbers,
      windows=tuple(
        (name, params[name])
        for name in (
          "window_strides",
          "padding",
          "lhs_dilation",
          "rhs_dilation",
        )
      ),
      filter_shape=tuple(kernel[axis] for axis in numbers.rhs_spec[2:]),
      out_axes=(_others(len(kernel), (feature,)), (feature,)),
      is_precise=_is_precise(eqn),
    )

  def factors(self, record, cotangent, site):
    def unfold_input(x):
      return jax.lax.conv_general_dilated_patches(
        x,
        filter_shape=self.filter_shape,
        dimension_numbers=self.numbers,
        precision=jax.lax.Precision.HIGHEST,
        **dict(self.windows),
      )

    for _ in site.loops:
      unfold_input = jax.vmap(unfold_input)
    return Factors(
      left=_arrange(unfold_input(record), site, (), *self.out_axes),
      right=_arrange(cotangent, site, (), *self.out_axes),
      is_precise=self.is_precise,
    )

  def unfold(self, gradient, site):
    stacked, _ = site.loop_sizes()
    out_axis, in_axis, *spatial = self.numbers.rhs_spec
    order = [in_axis, *spatial, out_axis]
    sizes = [*stacked, *(site.view.shape[axis] for axis in order)]
    inverse = [len(stacked) + order.index(i) for i in range(len(order))]
    return jnp.transpose(
      jnp.reshape(gradient, sizes), [*range(len(stacked)), *inverse]
    )

  def dims(self, site):
    stacked, summed = site.loop_sizes()
    positions = [site.shape[axis] for axis in self.out_axes[0]]
    cols = site.shape[self.out_axes[1][0]]
    return (
      math.prod(stacked),
      math.prod([*summed, *positions]),
      math.prod(site.view.shape) // max(cols, 1),
      cols,
    )


@dataclasses.dataclass(frozen=True)
class Whole:
  """The tap sits on the view itself, so its cotangent is the gradient."""


def find_rule(eqn, inputs: Sequence) -> tuple[Any, int, int] | None:
  """Recognises an equation in which one view of parameters meets data.

  Args:
    eqn: An equation of a jaxpr.
    inputs: Its inputs, some of them an Alias.

  Returns:
    (rule, position of the parameters, position of what is to be recorded), or
    None.
  """
  sides = [i for i, v in enumerate(inputs) if isinstance(v, _views.Alias)]
  if len(sides) != 1:
    return None
  (side,) = sides
  name = eqn.primitive.name
  data = [v for v in inputs if not isinstance(v, _views.Alias)]
  if name in ("dot_general", "conv_general_dilated") and not all(
    jnp.issubdtype(value.dtype, jnp.floating)
    for value in (*data, *(out.aval for out in eqn.outvars))
  ):
    return None  # Complex products: only the real part reaches the parameter.
  if name == "dot_general":
    return Dot.of(eqn, side), side, 1 - side
  if side == 0 and name == "gather":
    rule = Rows.of_gather(eqn)
    return rule and (rule, 0, 1)
  if side == 0 and name == "dynamic_slice":
    rule = Rows.of_dynamic_slice(eqn)
    return rule and (rule, 0, 1 + rule.row_axis)
  if side == 1 and name == "conv_general_dilated":
    rule = Conv.of(eqn)
    return rule and (rule, 1, 0)
  return None
