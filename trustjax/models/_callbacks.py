"""A model with its parameters as functions of batches.

Evaluators take models as callables of (tokens, mask) or (embeddings, mask);
these functions make such callables of the models of this room. Each returns a
function whose first argument is the parameters, and the same function for the
same model; `bind` gives it its parameters in a way that JAX can look into, so
that many models of one architecture share one compiled program.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from trustjax.models import (
  _language_model,
  _masked_language_model,
  _model,
  _precision,
)

AnyLanguageModel = (
  _language_model.LanguageModel | _masked_language_model.MaskedLanguageModel
)
AnyModel = AnyLanguageModel | _model.Model

Tokens = Int[Array, "batch time"]
Mask = Bool[Array, "batch time"]
Vectors = Float[Array, "batch time dim"]


@functools.lru_cache(maxsize=64)
def log_prob_function(
  model: AnyLanguageModel,
) -> Callable[[_model.Params, Tokens, Mask], Float[Array, "batch time vocab"]]:
  """(params, tokens, mask) -> log-probabilities at every position.

  Of the token there for a masked model, of the next token for a causal one.

  Args:
    model: A masked or a causal language model.

  Returns:
    The function.
  """

  def log_probs(params, tokens, mask):
    logits = jax.vmap(
      lambda t, m: model.apply(params, {"tokens": t, "mask": m})
    )(tokens, mask)
    return jax.nn.log_softmax(_precision.at_least_float32(logits), axis=-1)

  return log_probs


@functools.lru_cache(maxsize=64)
def hidden_function(
  model: AnyModel,
) -> Callable[[_model.Params, Tokens, Mask], Vectors]:
  """(params, tokens, mask) -> the last hidden state of every position.

  Args:
    model: Any model of this room that reads tokens alone.

  Returns:
    The function.
  """
  embed = embedding_function(model)

  def hidden(params, tokens, mask):
    return jax.vmap(lambda e, m: model.encode(params, e, m))(
      embed(params, tokens, mask), mask
    )

  return hidden


@functools.lru_cache(maxsize=64)
def embedding_function(
  model: AnyModel,
) -> Callable[[_model.Params, Tokens, Mask], Vectors]:
  """(params, tokens, mask) -> the input embeddings.

  Args:
    model: Any model of this room that reads tokens alone.

  Returns:
    The function.
  """

  def embeddings(params, tokens, mask):
    return jax.vmap(lambda t, m: model.embed(params, {"tokens": t, "mask": m}))(
      tokens, mask
    )

  return embeddings


@functools.lru_cache(maxsize=64)
def class_function(
  model: _model.Model,
) -> Callable[[_model.Params, Vectors, Mask], Float[Array, "batch classes"]]:
  """(params, embeddings, mask) -> logits of the intents, as classes.

  A tagger of one slot label is a classifier of texts; embeddings enter, so
  that a gradient with respect to them can be taken.

  Args:
    model: A tagger.

  Returns:
    The function.
  """

  def classes(params, embeddings, mask):
    def one(vectors, shown):
      hidden = model.encode(params, vectors, shown)
      return model.heads(params, hidden, shown).intent

    return jax.vmap(one)(jnp.asarray(embeddings), jnp.asarray(mask))

  return classes


def bind(function: Callable, params: _model.Params) -> jax.tree_util.Partial:
  """Gives a function the parameters it takes first.

  Args:
    function: From one of the makers above.
    params: Its first argument.

  Returns:
    The function of the other arguments. It is a pytree whose leaves are the
    parameters: a compiled program that takes it as an argument serves every
    model of the architecture.

  Example:
    >>> fn = bind(log_prob_function(model), params)
    >>> scores = fairness.score_masked(fn, queries)
  """
  return jax.tree_util.Partial(function, params)
