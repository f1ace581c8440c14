"""Language models, causal and masked, as frozen records of pure functions."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
from flax import nnx
from jaxtyping import Array, Float, Key

from trustjax.models import _model


@dataclasses.dataclass(frozen=True, kw_only=True)
class TokenScorer:
  """What a causal and a masked language model have in common.

  `apply` is the composition logits . encode . embed, cut at the same places as
  a `Model`: relaxed inputs enter at `encode`, hidden states leave it.

  Attributes:
    name: For tables.
    fields: What the model was built with, for exports and for records of
      results; two models are equal by their functions alone.
    init: key -> params, nested dicts of float32 arrays.
    embed: (params, example) -> embeddings [time, dim].
    encode: (params, embeddings, mask, key=None) -> hidden [time, hidden]. A
      key switches dropout on; None evaluates.
    logits: (params, hidden) -> unnormalised log-probabilities [time, vocab].
    word_table: params -> [vocab, dim], the rows that tokens look up.
  """

  name: str
  fields: Mapping[str, Any] = dataclasses.field(compare=False)
  init: Callable[[Key[Array, ""]], _model.Params]
  embed: Callable[[_model.Params, _model.Example], Float[Array, "time dim"]]
  encode: Callable[..., Float[Array, "time hidden"]]
  logits: Callable[
    [_model.Params, Float[Array, "time hidden"]], Float[Array, "time vocab"]
  ]
  word_table: Callable[[_model.Params], Float[Array, "vocab dim"]]

  def apply(
    self,
    params: _model.Params,
    example: _model.Example,
    key: Key[Array, ""] | None = None,
  ) -> Float[Array, "time vocab"]:
    """Scores a token at every position: the next one, or the one there.

    Args:
      params: From `init`, trained, or imported.
      example: tokens [time] and mask [time].
      key: Switches dropout on; None evaluates.

    Returns:
      Logits.
    """
    embeddings = self.embed(params, example)
    hidden = self.encode(params, embeddings, example["mask"], key)
    return self.logits(params, hidden)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LanguageModel(TokenScorer):
  """Pure functions of ONE record; batches come from `jax.vmap`.

  The logits of position t score the token of position t + 1 and depend on no
  token behind t.

  An example is a dict: tokens [time] and mask [time], True on a prefix. The
  attributes are those of `TokenScorer`.
  """


def language_model_from_module(
  name: str, fields: Mapping[str, Any], make: Callable[[nnx.Rngs], Any]
) -> LanguageModel:
  """Turns a flax.nnx module into a record of pure functions.

  Args:
    name: For tables.
    fields: What the model is built with.
    make: Builds the module, as in `functions_of_module`.

  Returns:
    The language model.

  Raises:
    ValueError: The module holds state that is not a parameter.
  """
  return LanguageModel(
    name=name, fields=dict(fields), **functions_of_module(name, make)
  )


def functions_of_module(
  name: str, make: Callable[[nnx.Rngs], Any]
) -> dict[str, Any]:
  """The functions of a `TokenScorer`.

  Args:
    name: For messages.
    make: Builds the module, which offers `embed(example)`,
      `encode(embeddings, mask, key)`, `logits(hidden)` and `word_table()`. All
      its state must be parameters.

  Returns:
    init, embed, encode, logits and word_table.

  Raises:
    ValueError: The module holds state that is not a parameter.
  """
  init, module = _model.pure_module(name, make)

  def embed(params, example):
    return module(params).embed(_model.as_jax(example))

  def encode(params, embeddings, mask, key=None):
    return module(params).encode(*_model.as_jax((embeddings, mask)), key)

  def logits(params, hidden):
    return module(params).logits(jax.numpy.asarray(hidden))

  return dict(
    init=init,
    embed=embed,
    encode=encode,
    logits=logits,
    word_table=lambda params: module(params).word_table(),
  )
