"""A model as a frozen record of pure functions of one record."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Key

Params = dict[str, Any]
Example = dict[str, Any]


class NluLogits(NamedTuple):
  """Scores of one utterance.

  Attributes:
    intent: Unnormalised log-probabilities of the intents.
    slots: The same of the slot labels at every position.
  """

  intent: Float[Array, " intents"]
  slots: Float[Array, "time labels"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Model:
  """Pure functions of ONE record; batches come from `jax.vmap`.

  `apply` is the composition heads . encode . embed, cut where others need to
  reach in: attacks feed relaxed inputs to `encode`, prediction sensitivity
  differentiates with respect to `embed`'s output, association metrics read the
  hidden states.

  An example is a dict: tokens [time], mask [time], chars [time, char] where
  the model reads characters, and labels that models never look at.

  Attributes:
    name: For tables.
    init: key -> params, nested dicts of float32 arrays.
    embed: (params, example) -> embeddings [time, dim].
    encode: (params, embeddings, mask, key=None) -> hidden [time, hidden]. A
      key switches dropout on; None evaluates.
    heads: (params, hidden, mask) -> NluLogits.
    word_table: params -> [vocab, dim], the rows that tokens look up.
  """

  name: str
  init: Callable[[Key[Array, ""]], Params]
  embed: Callable[[Params, Example], Float[Array, "time dim"]]
  encode: Callable[..., Float[Array, "time hidden"]]
  heads: Callable[..., NluLogits]
  word_table: Callable[[Params], Float[Array, "vocab dim"]]

  def apply(
    self, params: Params, example: Example, key: Key[Array, ""] | None = None
  ) -> NluLogits:
    """Scores one utterance.

    Args:
      params: From `init`, or trained.
      example: tokens [time], mask [time] and, if the model reads them, chars.
      key: Switches dropout on; None evaluates.

    Returns:
      Intent and slot logits.
    """
    embeddings = self.embed(params, example)
    hidden = self.encode(params, embeddings, example["mask"], key)
    return self.heads(params, hidden, example["mask"])


@runtime_checkable
class TaggerModule(Protocol):
  """What a flax module must offer to become a `Model`."""

  def embed(self, example: Example) -> Float[Array, "time dim"]:
    """Embeds the words."""
    ...

  def encode(
    self,
    embeddings: Float[Array, "time dim"],
    mask: Bool[Array, " time"],
    key: Key[Array, ""] | None,
  ) -> Float[Array, "time hidden"]:
    """Mixes context in."""
    ...

  def heads(
    self, hidden: Float[Array, "time hidden"], mask: Bool[Array, " time"]
  ) -> NluLogits:
    """Scores intent and slots."""
    ...

  def word_table(self) -> Float[Array, "vocab dim"]:
    """The word embedding table."""
    ...


def pure_module(
  name: str, make: Callable[[nnx.Rngs], Any]
) -> tuple[Callable[[Key[Array, ""]], Params], Callable[[Params], Any]]:
  """Cuts a flax.nnx module into initial parameters and everything else.

  Args:
    name: For the error.
    make: Builds the module. All its state must be parameters.

  Returns:
    `init`: key -> params, and `bind`: params -> the module that holds them.

  Raises:
    ValueError: The module holds state that is not a parameter.
  """
  abstract = nnx.eval_shape(lambda: make(nnx.Rngs(0)))
  graph, _, rest = nnx.split(abstract, nnx.Param, ...)
  if jax.tree.leaves(rest):
    raise ValueError(f"model {name!r} holds state besides its parameters")

  def init(key):
    _, params, _ = nnx.split(make(nnx.Rngs(params=key)), nnx.Param, ...)
    return nnx.to_pure_dict(params)

  def bind(params):
    return nnx.merge(graph, nnx.State(params), rest)  # pyright: ignore

  return init, bind


def model_from_module(
  name: str, make: Callable[[nnx.Rngs], TaggerModule]
) -> Model:
  """Turns a flax.nnx module into a record of pure functions.

  Args:
    name: For tables.
    make: Builds the module. All its state must be parameters; randomness comes
      in as the key of `encode`.

  Returns:
    The model.

  Raises:
    ValueError: The module holds state that is not a parameter.
  """
  init, module = pure_module(name, make)

  def embed(params, example):
    return module(params).embed(as_jax(example))

  def encode(params, embeddings, mask, key=None):
    embeddings, mask = as_jax((embeddings, mask))
    return module(params).encode(embeddings, mask, key)

  def heads(params, hidden, mask):
    return module(params).heads(*as_jax((hidden, mask)))

  return Model(
    name=name,
    init=init,
    embed=embed,
    encode=encode,
    heads=heads,
    word_table=lambda params: module(params).word_table(),
  )


def as_jax(arrays: Any) -> Any:
  """NumPy arrays are welcome outside of jit, too."""
  return jax.tree.map(jnp.asarray, arrays)


def num_params(params: Params) -> int:
  """Number of scalar parameters."""
  return sum(leaf.size for leaf in jax.tree.leaves(params))


def masked_mean(
  values: Float[Array, "time dim"], mask: Bool[Array, " time"]
) -> Float[Array, " dim"]:
  """Mean over the positions of the mask; zero if there are none."""
  weights = mask.astype(values.dtype)
  total = (weights[None, :] @ values)[0]
  return total / jnp.maximum(weights.sum(), 1.0)


def dropout(
  values: Float[Array, "*shape"], rate: float, key: Key[Array, ""] | None
) -> Float[Array, "*shape"]:
  """Zeroes a share of the entries and rescales the rest; no key, no change."""
  if key is None or rate == 0:
    return values
  keep = jax.random.bernoulli(key, 1 - rate, values.shape)
  return jnp.where(keep, values / (1 - rate), 0.0)


def check_rate(field: str, rate: float) -> None:
  """Raises ValueError unless 0 <= rate < 1."""
  if not 0 <= rate < 1:
    raise ValueError(f"{field}: got {rate!r}; it must lie in [0, 1)")


def check_sizes(**sizes: int | None) -> None:
  """Raises ValueError unless each size is at least 1; None is not checked."""
  for field, size in sizes.items():
    if size is not None and size < 1:
      raise ValueError(f"{field}: got {size!r}; it must be at least 1")
