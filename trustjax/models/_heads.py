"""The joint head: one intent an utterance, one slot label a position."""

from flax import nnx
from jaxtyping import Array, Bool, Float

from trustjax.models import _model


class JointHead(nnx.Module):
  """Softmax scores of the intent (from the masked mean) and of the slots."""

  def __init__(
    self,
    hidden_dim: int,
    num_intents: int,
    num_slots: int,
    *,
    rngs: nnx.Rngs,
  ):
    """Builds two linear layers."""
    self.intent = nnx.Linear(hidden_dim, num_intents, rngs=rngs)
    self.slots = nnx.Linear(hidden_dim, num_slots, rngs=rngs)

  def __call__(
    self,
    hidden: Float[Array, "time hidden"],
    mask: Bool[Array, " time"],
    pooled: Float[Array, " hidden"] | None = None,
  ) -> _model.NluLogits:
    """Scores an utterance; `pooled` replaces the mean under the intent."""
    if pooled is None:
      pooled = _model.masked_mean(hidden, mask)
    return _model.NluLogits(
      intent=self.intent(pooled[None, :])[0], slots=self.slots(hidden)
    )
