"""Words from their characters, so that an unseen word is not a blank."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from trustjax.models import _precision


class CharCnn(nnx.Module):
  """Character embedding, one convolution of width 3, maximum over the word.

  References:
    Ma and Hovy, End-to-end Sequence Labeling, ACL 2016.
  """

  def __init__(
    self, num_chars: int, char_dim: int, out_dim: int, *, rngs: nnx.Rngs
  ):
    """Builds the table and the convolution; character 0 is padding."""
    self.table = _precision.Embed(num_chars, char_dim, rngs=rngs)
    self.convolution = nnx.Linear(3 * char_dim, out_dim, rngs=rngs)

  def __call__(
    self, chars: Int[Array, "time char"]
  ) -> Float[Array, "time out"]:
    """Embeds each word; a word without characters becomes zero."""
    valid = (chars > 0)[..., None]
    embedded = jnp.where(valid, self.table(chars), 0.0)
    before = jnp.pad(embedded, ((0, 0), (1, 0), (0, 0)))[:, :-1]
    after = jnp.pad(embedded, ((0, 0), (0, 1), (0, 0)))[:, 1:]
    windows = jnp.concatenate([before, embedded, after], axis=-1)
    features = jax.nn.relu(self.convolution(windows))
    # ReLU features are at least zero, so zero is the neutral element.
    return jnp.max(jnp.where(valid, features, 0.0), axis=1)
