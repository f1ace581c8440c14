"""How much one prediction depends on what carries protected status.

The Jacobian of a classifier with respect to its input embeddings is weighted
by class and by how much each coordinate says about a protected attribute, and
accumulated. One forward pass, and one backward pass per class, serve a whole
chunk of records, since the records of a batch do not see each other.

What to keep in mind:
  Only reduce="token_l2" is invariant to a joint rotation of the embedding
  space, and "elementwise" needs both models to share one embedding table.
  In probability space a confident model looks fair whatever it does: for
  softmax(s x, -s x) at x = 0.5 the value is 0.393 at s = 1 and 8e-8 at s = 20.
  Report space="logit" beside it.
  P = 0 everywhere, with v one-hot on a protected coordinate, implies that a
  differentiable model ignores it. Parity does not imply P = 0.
  Without absolute values a uniform w gives 0 for every softmax model.
  A protected-status model whose probabilities round to 0 and 1 (logits apart by
  more than 80 in float32) has no weights left: P is 0 there, and
  psm_space="logit" is the remedy.
"""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Real

from trustjax.fairness import _validate
from trustjax.fairness._validate import AnyArray

# (embeddings [batch, time, dim], mask [batch, time]) -> logits
# [batch, classes].
ClassFn = Callable[
  [Float[Array, "batch time dim"], Bool[Array, "batch time"]],
  Float[Array, "batch classes"],
]

REDUCTIONS = ("elementwise", "token_l1", "token_l2", "input_x_grad")
SPACES = ("prob", "logit", "log_prob")
# Tokens that are differentiated together: on a CPU as many as stay in its
# cache, elsewhere as many as fill a device and still fit into its memory.
_CPU_TOKENS, _TOKENS = 1024, 16_384


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class PredictionSensitivity:
  """Accumulated prediction sensitivity of each record.

  Values scale with v and with the embeddings: compare records under one model;
  across models compare `relative`.

  Attributes:
    value: Sensitivity P of each record; nan without a token that counts.
    per_token: What each token adds to it; 0 where masked.
    token_weight: How much protected status each token carries, summing to 1
      over a record if v was normalised.
    uniform: The same sum with v uniform: the sensitivity to anything at all.
    relative: value / uniform; nan where nothing matters.
    n: Tokens of each record that count.
  """

  value: Float[Array, " batch"]
  per_token: Float[Array, "batch time"]
  token_weight: Float[Array, "batch time"]
  uniform: Float[Array, " batch"]
  relative: Float[Array, " batch"]
  n: Int[Array, " batch"]
  metric: str = dataclasses.field(
    default="prediction_sensitivity", metadata={"static": True}
  )
  variant: str = dataclasses.field(default="", metadata={"static": True})
  protocol: str = dataclasses.field(default="", metadata={"static": True})


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Options:
  """How a Jacobian is taken and accumulated; part of the compiled program."""

  reduce: str
  space: str
  psm_space: str
  normalize: bool
  absolute: bool

  def __post_init__(self):
    _validate.check_choice("reduce", self.reduce, REDUCTIONS)
    _validate.check_choice("space", self.space, SPACES)
    _validate.check_choice("psm_space", self.psm_space, SPACES)
    if not self.absolute and self.reduce != "elementwise":
      raise ValueError(
        f"reduce: got {self.reduce!r} with absolute=False; only 'elementwise'"
        " has a sign to keep"
      )

  def variant(self, w, v) -> str:
    """All choices in one line, for the result."""
    return (
      f"w={w if isinstance(w, str) else 'given'},"
      f"v={v if isinstance(v, str) else 'given'},reduce={self.reduce},"
      f"space={self.space},psm_space={self.psm_space},"
      f"normalize={self.normalize},absolute={self.absolute}"
    )


def prediction_sensitivity(
  class_fn: ClassFn,
  psm_fn: ClassFn | None,
  embeds: Float[AnyArray, "batch time dim"],
  mask: Bool[AnyArray, "batch time"],
  *,
  w: str | Real[AnyArray, "..."] = "uniform",
  v: str | Real[AnyArray, "..."] = "psm",
  reduce: str = "token_l2",
  space: str = "prob",
  psm_space: str = "prob",
  special: Bool[AnyArray, "batch time"] | None = None,
  normalize: bool = True,
  absolute: bool = True,
  chunk_size: int | None = None,
  protocol: str = "",
) -> PredictionSensitivity:
  """Accumulated prediction sensitivity P(x) = w' |J(x)| v.

  J_ktd is the derivative of class k with respect to coordinate d of the
  embedding of token t; w weighs classes, V_td weighs coordinates by how much
  they carry protected status.

    elementwise   sum_k w_k sum_td |J_ktd| V_td
    token_l1      sum_k w_k sum_t |J_kt|_1 |V_t|_1
    token_l2      sum_k w_k sum_t |J_kt|_2 |V_t|_2
    input_x_grad  sum_k w_k sum_t |sum_d J_ktd E_td| |V_t|_1

  Fidelity:
    Paper: Krishna et al. 2022. The form above, the choices of w and the
      protected-status model are as remembered; its defaults are not known.
    Authors' code: none is known.
    Here: every choice is an option; the lexicon and swap weights are ours.
    Verdict: adaptation.

  Args:
    class_fn: The classifier, in evaluation mode. Models of one architecture
      share a program if given as `jax.tree_util.Partial(fn, params)`.
    psm_fn: The protected-status model on the same embeddings, for v="psm".
    embeds: Input embeddings.
    mask: Positions that hold a token.
    w: "uniform" (1 / K), "predicted" (the predicted class), "class=k", or
      weights [classes] or [batch, classes].
    v: "psm" (sum over the outputs g_m of |dg_m / dE|), "uniform", "onehot=i"
      (coordinate i of every token), or weights [batch, time, dim] or
      [batch, time] (`lexicon_weights`, `swap_weights`).
    reduce: One of the reductions above.
    space: What is differentiated: "prob", "logit" or "log_prob".
    psm_space: The same of the protected-status model.
    special: Positions that do not count.
    normalize: Whether token weights are divided by their sum over a record.
    absolute: False keeps the sign of J, to show what goes wrong.
    chunk_size: Records at a time, which bounds memory; None chooses it.
    protocol: Digest of the protocol, kept in the result.

  Returns:
    The sensitivities, token by token.

  Raises:
    ValueError: If an option is unknown, `psm_fn` is missing, shapes do not
      fit, or a weight is negative or not finite.

  References:
    Krishna et al., ACL 2022, arXiv 2203.08670.
  """
  options = _Options(
    reduce=reduce,
    space=space,
    psm_space=psm_space,
    normalize=normalize,
    absolute=absolute,
  )
  embeds, mask = jnp.asarray(embeds), jnp.asarray(mask)
  counts = mask if special is None else mask & ~jnp.asarray(special)
  way, weights = _class_weights(w, class_fn, embeds, mask)
  kind, coordinates = _coordinate_weights(v, embeds, psm_fn)
  found = _chunked(
    (embeds, mask, counts, weights, coordinates),
    _validate.as_partial(class_fn),
    _validate.as_partial(psm_fn) if psm_fn and kind == "psm" else None,
    way=way,
    options=options,
    chunk_size=_chunk_size(chunk_size, mask),
  )
  return PredictionSensitivity(
    **found, variant=options.variant(w, v), protocol=protocol
  )


def _chunk_size(chunk_size, mask) -> int:
  """Records at a time."""
  if chunk_size is None:
    tokens = _CPU_TOKENS if jax.default_backend() == "cpu" else _TOKENS
    chunk_size = max(1, tokens // max(1, mask.shape[1]))
  _validate.check_at_least("chunk_size", chunk_size, 1)
  # As even as can be: the last chunk is filled up.
  num_chunks = -(-mask.shape[0] // chunk_size)
  return -(-mask.shape[0] // max(1, num_chunks))


@functools.partial(jax.jit, static_argnames=("way", "options", "chunk_size"))
def _chunked(arrays, class_fn, psm_fn, *, way, options, chunk_size):
  """The sensitivities of all records, some at a time."""
  batch = arrays[0].shape[0]
  num_chunks = -(-batch // max(1, chunk_size))

  def of_chunk(arrays):
    return _sensitivity(arrays, class_fn, psm_fn, way, options)

  if num_chunks <= 1:
    return of_chunk(arrays)
  # The last record again, where the last chunk is not full.
  rows = jnp.minimum(jnp.arange(num_chunks * chunk_size), batch - 1)
  found = jax.lax.map(
    of_chunk,
    jax.tree.map(
      lambda array: array[rows].reshape(
        num_chunks, chunk_size, *array.shape[1:]
      ),
      arrays,
    ),
  )
  return jax.tree.map(
    lambda array: array.reshape(-1, *array.shape[2:])[:batch], found
  )


def _sensitivity(arrays, class_fn, psm_fn, way, options):
  """Fields of the result, for records that are differentiated together."""
  embeds, mask, counts, weights, coordinates = arrays
  jacobian, weights = _jacobian(
    class_fn, embeds, mask, options.space, way, weights.T
  )
  if psm_fn is not None:
    rows, _ = _jacobian(psm_fn, embeds, mask, options.psm_space, "all", None)
    coordinates = jnp.sum(jnp.abs(rows), axis=0)
  weights = weights.astype(embeds.dtype)
  keep = counts[:, :, None]
  jacobian = jnp.where(keep[None], jacobian, 0.0)
  # Token weights [batch, time, 1] stand for all coordinates alike.
  coordinates = jnp.where(keep, coordinates, 0.0)
  accumulate = functools.partial(
    _reduce, jacobian, embeds=embeds, weights=weights, options=options
  )
  per_token, token_weight = accumulate(coordinates)
  flat, _ = accumulate(jnp.where(keep, jnp.ones_like(embeds), 0.0))
  n = jnp.sum(counts, axis=1)
  value, uniform = (
    jnp.where(n > 0, jnp.sum(part, axis=1), jnp.nan)
    for part in (per_token, flat)
  )
  some = uniform > 0
  return {
    "value": value,
    "per_token": per_token,
    "token_weight": token_weight,
    "uniform": uniform,
    "relative": jnp.where(some, value / jnp.where(some, uniform, 1), jnp.nan),
    "n": n,
  }


def _jacobian(fn, embeds, mask, space, way, weights):
  """Derivatives [classes, batch, time, dim], and their weights.

  Records are independent, so the cotangent of one class for all records pulls
  back to the derivative of each record. Where only one class of each record
  has weight, one pass is enough.
  """
  logits, pull_back = jax.vjp(lambda embeds: fn(embeds, mask), embeds)
  batch, num_classes = logits.shape
  if way == "all":
    chosen = jnp.broadcast_to(
      jnp.eye(num_classes)[:, None, :], (num_classes, batch, num_classes)
    )
  else:
    k = jnp.argmax(logits, -1)
    if way.startswith("class="):
      k = jnp.full_like(k, int(way.removeprefix("class=")))
    chosen = jax.nn.one_hot(k, num_classes)[None]
    weights = jnp.ones((1, batch))
  chosen = chosen.astype(logits.dtype)
  cotangents = _through_softmax(logits, chosen, space)
  return jax.vmap(lambda c: pull_back(c)[0])(cotangents), weights


def _through_softmax(logits, chosen, space):
  """Derivative of the chosen class with respect to the logits.

  dp_k / dz_j = p_k (delta_kj - p_j). The diagonal is written with the sum of
  the other probabilities: 1 - p_k would be rounded to 0 for a confident model,
  where the metric is smallest.
  """
  if space == "logit":
    return chosen
  p = jax.nn.softmax(logits, axis=-1)[None]
  others = (1 - chosen) * p
  slope = chosen * jnp.sum(others, axis=-1, keepdims=True) - others
  if space == "log_prob":
    return slope
  return slope * jnp.sum(chosen * p, axis=-1, keepdims=True)


def _reduce(jacobian, coordinates, *, embeds, weights, options):
  """Per-token sensitivities and the normalised token weights."""
  if options.reduce == "elementwise":
    spread = jnp.broadcast_to(coordinates, embeds.shape)
    token_weight = jnp.sum(spread, axis=-1)
    rows = jnp.abs(jacobian) if options.absolute else jacobian
    per_class = jnp.sum(rows * spread[None], axis=-1)
  else:
    if options.reduce == "token_l2":
      size = _norm(jacobian)
      token_weight = _norm(coordinates)
    else:
      token_weight = jnp.sum(jnp.abs(coordinates), axis=-1)
      if options.reduce == "token_l1":
        size = jnp.sum(jnp.abs(jacobian), axis=-1)
      else:
        size = jnp.abs(jnp.sum(jacobian * embeds[None], axis=-1))
    per_class = size * token_weight[None]
  per_token = jnp.sum(weights[:, :, None] * per_class, axis=0)
  if options.normalize:
    total = jnp.sum(token_weight, axis=1, keepdims=True)
    some = total > 0
    scale = jnp.where(some, 1 / jnp.where(some, total, 1), 0.0)
    return per_token * scale, token_weight * scale
  return per_token, token_weight


def _norm(array):
  """Euclidean norm over the last axis, with a gradient of 0 at 0.

  Entries are scaled first: the slopes of a confident model are so small that
  their squares would vanish, and with them the weights that are normalised.
  """
  size = jnp.max(jnp.abs(array), axis=-1)
  some = size != 0  # Of a nan, too, which must not become 0.
  scale = jnp.where(some, size, 1.0)
  squares = jnp.sum(jnp.square(array / scale[..., None]), axis=-1)
  return jnp.where(some, scale * jnp.sqrt(jnp.where(some, squares, 1.0)), 0.0)


@jax.jit
def _outputs(fn, embeds, mask):
  return fn(embeds, mask)


def _num_outputs(fn, embeds, mask) -> int:
  # Of a jitted function, so that a model is traced once and not at each call.
  fn = _validate.as_partial(fn)
  shape = _outputs.eval_shape(fn, embeds, mask).shape
  if len(shape) != 2 or shape[0] != embeds.shape[0]:
    raise ValueError(
      f"class_fn: returns shape {shape} for {embeds.shape[0]} records; it must"
      " return [batch, classes]"
    )
  return shape[1]


def _class_weights(w, class_fn, embeds, mask):
  """How classes are chosen, and weights [batch, classes or 1]."""
  batch, num_classes = embeds.shape[0], _num_outputs(class_fn, embeds, mask)
  if not isinstance(w, str):
    weights = jnp.asarray(w, jnp.result_type(float))
    if weights.shape not in ((num_classes,), (batch, num_classes)):
      raise ValueError(
        f"w: got shape {weights.shape}; allowed are [{num_classes}] and"
        f" [{batch}, {num_classes}]"
      )
    _check_weights("w", weights)
    return "all", jnp.broadcast_to(
      jnp.reshape(weights, (-1, num_classes)), (batch, num_classes)
    )
  if w.startswith("class="):
    k = _index("w", w, "class=")
    if not 0 <= k < num_classes:
      raise ValueError(f"w: got {w!r}, but there are {num_classes} classes")
    return w, jnp.ones((batch, 1))
  _validate.check_choice("w", w, ("uniform", "predicted", "class=k"))
  if w == "uniform":
    return "all", jnp.full((batch, num_classes), 1 / num_classes)
  return "predicted", jnp.ones((batch, 1))


def _coordinate_weights(v, embeds, psm_fn):
  """What kind of weights, and the weights [batch, time, dim or 1]."""
  batch, time, dim = embeds.shape
  if not isinstance(v, str):
    weights = jnp.asarray(v, embeds.dtype)
    if weights.shape not in ((batch, time), (batch, time, dim)):
      raise ValueError(
        f"v: got shape {weights.shape}; allowed are [{batch}, {time}] and"
        f" [{batch}, {time}, {dim}]"
      )
    _check_weights("v", weights)
    return "given", weights[:, :, None] if weights.ndim == 2 else weights
  if v.startswith("onehot="):
    i = _index("v", v, "onehot=")
    if not 0 <= i < dim:
      raise ValueError(f"v: got {v!r}, but embeddings have {dim} coordinates")
    return "given", jnp.zeros_like(embeds).at[:, :, i].set(1)
  _validate.check_choice("v", v, ("psm", "uniform", "onehot=i"))
  if v == "psm" and psm_fn is None:
    raise ValueError("psm_fn: got None, but v='psm' needs it")
  return v, jnp.ones_like(embeds)


def _index(field, text, prefix) -> int:
  number = text.removeprefix(prefix)
  if not number.isdecimal():
    raise ValueError(f"{field}: got {text!r}; {prefix!r} wants a whole number")
  return int(number)


def _check_weights(field, weights):
  _validate.check_finite(field, weights)
  if _validate.is_known(weights) and (np.asarray(weights) < 0).any():
    raise ValueError(f"{field}: got a negative weight; allowed are >= 0")
