"""Recurrent cells: what one step of time does to a state.

A cell sees its inputs already projected, `x W + b` of all steps being one
matrix product outside of the loop; inside it multiplies the hidden state by
one kernel for all gates.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

# The hidden state first, then whatever else the cell remembers.
State = tuple[Float[Array, " hidden"], ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cell:
  """A gated recurrence as pure functions.

  Attributes:
    name: Prefix of its layers' parameters.
    start_bias: Initial bias of each gate; as many as there are gates.
    num_states: Vectors that it remembers.
    move: `(state, projected, kernel) -> state`, with `projected` and the
      columns of `kernel` in the order of the gates.
  """

  name: str
  start_bias: tuple[float, ...]
  num_states: int
  move: Callable[..., State]

  @property
  def num_gates(self) -> int:
    """Gates: the kernel is [hidden, num_gates * hidden]."""
    return len(self.start_bias)

  def initial_bias(self, hidden_dim: int) -> Float[Array, " gates"]:
    """The initial bias of all gates of one direction."""
    return jnp.repeat(jnp.asarray(self.start_bias, jnp.float32), hidden_dim)

  def start(self, hidden_dim: int, dtype=jnp.float32) -> State:
    """The state before the first step."""
    return (jnp.zeros(hidden_dim, dtype),) * self.num_states

  def advance(
    self,
    state: State,
    projected: Float[Array, " gates"],
    kernel: Float[Array, "hidden gates"],
    mask: Bool[Array, ""],
  ) -> State:
    """One step; the state stays where the mask is off."""
    moved = self.move(state, projected, kernel)
    return tuple(jnp.where(mask, new, old) for new, old in zip(moved, state))


def _move_lstm(state, projected, kernel):
  hidden, cell = state
  i, f, g, o = jnp.split(projected + hidden @ kernel, 4)
  cell = jax.nn.sigmoid(f) * cell + jax.nn.sigmoid(i) * jnp.tanh(g)
  return jax.nn.sigmoid(o) * jnp.tanh(cell), cell


def _move_gru(state, projected, kernel):
  # The reset gate acts behind the product, so that one product serves all.
  (hidden,) = state
  recurrent = hidden @ kernel
  r, z, n = jnp.split(projected, 3)
  again_r, again_z, again_n = jnp.split(recurrent, 3)
  candidate = jnp.tanh(n + jax.nn.sigmoid(r + again_r) * again_n)
  z = jax.nn.sigmoid(z + again_z)
  return ((1 - z) * candidate + z * hidden,)


# Gates: input, forget (starts open), candidate, output.
LSTM = Cell(
  name="lstm", start_bias=(0.0, 1.0, 0.0, 0.0), num_states=2, move=_move_lstm
)
# Gates: reset, update, candidate.
GRU = Cell(name="gru", start_bias=(0.0, 0.0, 0.0), num_states=1, move=_move_gru)
