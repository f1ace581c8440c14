"""Views: arrays that show entries of parameter leaves, each at most once.

A loss rarely uses a parameter as it is stored: it transposes a table, reshapes
an attention kernel, joins the four kernels of a cell, casts to bfloat16. Such
steps only move entries about, so the gradient of the view, moved back, is the
gradient of the leaves, and has the same norm.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

# Primitives that move the entries of one array and drop some of them at most.
_MOVES = frozenset(
  {"transpose", "reshape", "squeeze", "slice", "rev", "copy", "split"}
)


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class View:
  """What a value inside the loss shows of the parameters.

  Attributes:
    leaves: Which leaves, in the order of `jax.tree.leaves(params)`.
    shapes: Their shapes.
    show: Leaves to the array they make, of shape [*stacked loops, *shape];
      linear.
    loops: Identities of the scans that iterate over the leading axes.
    shape: Shape of the value in the innermost of these loops.
    whole: Whether this is one leaf as it is stored.
  """

  leaves: tuple[int, ...]
  shapes: tuple[tuple[int, ...], ...]
  show: Callable[..., jax.Array]
  loops: tuple[object, ...] = ()
  shape: tuple[int, ...]
  whole: bool = False

  @property
  def is_complete(self) -> bool:
    """Whether every entry of the leaves is shown; none is shown twice."""
    shown = jax.eval_shape(
      self.show,
      *(jax.ShapeDtypeStruct(shape, jnp.float32) for shape in self.shapes),
    )
    return shown.size == sum(map(math.prod, self.shapes))

  def put_back(self, gradient: jax.Array) -> list[jax.Array]:
    """Moves the gradient of the view to the leaves it shows.

    Args:
      gradient: [*stacked loops, *shape].

    Returns:
      One array per leaf, zero where the view shows nothing.
    """
    if self.whole:
      return [jnp.reshape(gradient, self.shapes[0])]
    structs = [
      jax.ShapeDtypeStruct(shape, gradient.dtype) for shape in self.shapes
    ]
    return list(jax.linear_transpose(self.show, *structs)(gradient))

  def positions(self, offsets: Sequence[int]) -> np.ndarray:
    """Flat index of every shown entry, where leaf i starts at offsets[i]."""
    numbered = [
      np.arange(math.prod(shape), dtype=np.int64).reshape(shape) + offsets[leaf]
      for leaf, shape in zip(self.leaves, self.shapes)
    ]
    if self.whole:
      return numbered[0]
    with jax.ensure_compile_time_eval(), jax.enable_x64(True):
      return np.asarray(self.show(*map(jnp.asarray, numbered)))


@dataclasses.dataclass(frozen=True, eq=False)
class Alias:
  """A value inside the loss that is a view of parameters, and nothing else."""

  view: View
  value: jax.Array


def leaf_alias(index: int, value: jax.Array) -> Alias:
  """The leaf itself."""
  view = View(
    leaves=(index,),
    shapes=(value.shape,),
    show=lambda leaf: leaf,
    shape=value.shape,
    whole=True,
  )
  return Alias(view, value)


def slice_in_loop(alias: Alias, loop: object, value: jax.Array) -> Alias:
  """What a scan over the leading axis of an alias shows in each iteration."""
  view = dataclasses.replace(
    alias.view, loops=(*alias.view.loops, loop), shape=alias.view.shape[1:]
  )
  return Alias(view, value)


def move(eqn, inputs: Sequence, outputs: Sequence) -> list[Alias] | None:
  """Views of the outputs of an equation, if it only moves parameters about.

  Args:
    eqn: An equation of a jaxpr.
    inputs: Its inputs, at least one of them an Alias.
    outputs: Its computed outputs.

  Returns:
    An alias for each output, or None if the equation does more.
  """
  if not all(isinstance(value, Alias) for value in inputs):
    return None
  name = eqn.primitive.name
  if name == "concatenate":
    return _joined(eqn, inputs, outputs)
  if len(inputs) > 1:
    return None
  (alias,) = inputs
  if name == "convert_element_type":
    if not jnp.issubdtype(eqn.params["new_dtype"], jnp.floating):
      return None
    # Gradients are kept in float32: a cast is not repeated on their way back.
    return [Alias(alias.view, outputs[0])]
  grows = math.prod(eqn.outvars[0].aval.shape) > math.prod(alias.view.shape)
  if name not in _MOVES and (name != "broadcast_in_dim" or grows):
    return None

  def nth(i):
    def show(*leaves):
      moved = _over_loops(
        lambda value: _nth_output(eqn, i, value), alias.view.loops
      )
      return moved(alias.view.show(*leaves))

    return show

  return [
    Alias(
      dataclasses.replace(
        alias.view, show=nth(i), shape=output.shape, whole=False
      ),
      output,
    )
    for i, output in enumerate(outputs)
  ]


def _nth_output(eqn, i, value):
  out = eqn.primitive.bind(value, **eqn.params)
  return out[i] if eqn.primitive.multiple_results else out


def _joined(eqn, inputs, outputs):
  """Concatenation of views of different leaves."""
  leaves = [leaf for alias in inputs for leaf in alias.view.leaves]
  same_loops = len({alias.view.loops for alias in inputs}) == 1
  if len(set(leaves)) < len(leaves) or not same_loops:
    return None

  def show(*arrays):
    parts, start = [], 0
    for alias in inputs:
      stop = start + len(alias.view.leaves)
      parts.append(alias.view.show(*arrays[start:stop]))
      start = stop
    return _over_loops(
      lambda *values: eqn.primitive.bind(*values, **eqn.params),
      inputs[0].view.loops,
    )(*parts)

  view = View(
    leaves=tuple(leaves),
    shapes=tuple(shape for alias in inputs for shape in alias.view.shapes),
    show=show,
    loops=inputs[0].view.loops,
    shape=outputs[0].shape,
  )
  return [Alias(view, outputs[0])]


def _over_loops(fn, loops):
  """Maps `fn` over the leading axes that scans iterate over."""
  for _ in loops:
    fn = jax.vmap(fn)
  return fn
