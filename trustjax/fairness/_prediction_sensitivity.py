"""How much one prediction depends on what carries protected status.

The Jacobian of a classifier with respect to its input embeddings is weighted
by class and by how much each coordinate says about a protected attribute, and
accumulated. One forward and one backward pass per class serve a whole batch,
since the records of a batch do not see each other.
"""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Real

from trustjax.fairness import _counterfactual, _validate
from trustjax.fairness._validate import AnyArray

# (embeddings [batch, time, dim], mask [batch, time]) -> logits
# [batch, classes].
ClassFn = Callable[
  [Float[Array, "batch time dim"], Bool[Array, "batch time"]],
  Float[Array, "batch classes"],
]

REDUCTIONS = ("elementwise", "token_l1", "token_l2", "input_x_grad")
SPACES = ("prob", "logit", "log_prob")


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class PredictionSensitivity:
  """Accumulated prediction sensitivity of each record.

  Values scale with v and with the embeddings: compare records under one model;
  across models compare `relative`.

  Attributes:
    value: Sensitivity P of each record.
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

  Only token_l2 is invariant to a joint rotation of the embedding space, and
  "elementwise" needs both models to share one embedding table.

  What to keep in mind:
    In probability space a confident model looks fair whatever it does: for
    softmax(s x, -s x) at x = 0.5 the value is 0.393 at s = 1 and 8e-8 at
    s = 20. Report space="logit" beside it.
    P = 0 everywhere, with v one-hot on a protected coordinate, implies that a
    differentiable model ignores it. Parity does not imply P = 0.
    Without absolute values a uniform w gives 0 for every softmax model.
    A protected-status model whose probabilities round to 0 and 1 (logits apart
      by more than 80 in float32) has no weights left: P is 0 there, and
      psm_space="logit" is the remedy.

  Fidelity:
    Paper: Krishna et al. 2022 establish the metric, its link to statistical
      and individual fairness and its correlation with human judgement. The
      form above, the choices of w and the protected-status model are as
      remembered; defaults of the paper are not known here.
    Authors' code: none is known.
    Here: every choice is an option and kept in the variant; the lexicon and
      swap weights are ours.
    Verdict: adaptation.

  Args:
    class_fn: The classifier, in evaluation mode. For many models of one
      architecture pass `jax.tree_util.Partial(fn, params)` with the same `fn`:
      they share one compiled program.
    psm_fn: The protected-status model on the same embeddings; only v="psm"
      needs it.
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
    special: Positions of special tokens, which do not count.
    normalize: Whether the token weights of a record are divided by their sum.
    absolute: False keeps the sign of J (elementwise only); to show what goes
      wrong.
    protocol: Digest of the protocol, kept in the result.

  Returns:
    The sensitivities, token by token.

  Raises:
    ValueError: If an option is unknown, `psm_fn` is missing, shapes do not
      fit, or a weight is negative or not finite.

  References:
    Krishna et al., ACL 2022, arXiv 2203.08670.
  """
  _validate.check_choice("reduce", reduce, REDUCTIONS)
  _validate.check_choice("space", space, SPACES)
  _validate.check_choice("psm_space", psm_space, SPACES)
  if not absolute and reduce != "elementwise":
    raise ValueError(
      f"reduce: got {reduce!r} with absolute=False; only 'elementwise' has a"
      " sign to keep"
    )
  embeds, mask = jnp.asarray(embeds), jnp.asarray(mask)
  counts = mask if special is None else mask & ~jnp.asarray(special)
  num_classes = _num_outputs("class_fn", class_fn, embeds, mask)
  way, weights = _class_weights(w, embeds.shape[0], num_classes)
  kind, coordinates = _coordinate_weights(v, embeds, psm_fn)
  per_token, token_weight, uniform = _sensitivity(
    embeds,
    mask,
    counts,
    weights,
    coordinates,
    _validate.as_partial(class_fn),
    _validate.as_partial(psm_fn) if psm_fn and kind == "psm" else None,
    way=way,
    reduce=reduce,
    space=space,
    psm_space=psm_space,
    normalize=normalize,
    absolute=absolute,
  )
  value = jnp.sum(per_token, axis=1)
  some = uniform > 0
  return PredictionSensitivity(
    value=value,
    per_token=per_token,
    token_weight=token_weight,
    uniform=uniform,
    relative=jnp.where(some, value / jnp.where(some, uniform, 1), jnp.nan),
    n=jnp.sum(counts, axis=1),
    variant=(
      f"w={w if isinstance(w, str) else 'given'},"
      f"v={v if isinstance(v, str) else 'given'},reduce={reduce},"
      f"space={space},psm_space={psm_space},normalize={normalize},"
      f"absolute={absolute}"
    ),
    protocol=protocol,
  )


def lexicon_weights(
  token_ids: Int[AnyArray, "batch time"], lexicon_ids: Int[AnyArray, " ids"]
) -> Float[Array, "batch time"]:
  """Weight 1 for tokens that are identity terms, 0 for others.

  Args:
    token_ids: Tokens.
    lexicon_ids: Ids of identity terms.

  Returns:
    Weights for `v`.
  """
  found = jnp.isin(jnp.asarray(token_ids), jnp.asarray(lexicon_ids))
  return found.astype(jnp.result_type(float))


def swap_weights(
  embeds: Float[AnyArray, "batch time dim"],
  embeds_cf: Float[AnyArray, "batch time dim"],
) -> Float[Array, "batch time dim"]:
  """Weight |E(x') - E(x)|: the coordinates that a swap changes.

  Args:
    embeds: Embeddings of the originals.
    embeds_cf: Embeddings of counterfactuals of the same length.

  Returns:
    Weights for `v`.

  Raises:
    ValueError: If shapes differ.
  """
  _validate.check_same_shape(embeds=embeds, embeds_cf=embeds_cf)
  return jnp.abs(jnp.asarray(embeds_cf) - jnp.asarray(embeds))


def counterfactual_sensitivity(
  class_fn: ClassFn,
  embeds: Float[AnyArray, "batch time dim"],
  mask: Bool[AnyArray, "batch time"],
  embeds_cf: Float[AnyArray, "batch substitutions time_cf dim"],
  mask_cf: Bool[AnyArray, "batch substitutions time_cf"],
  valid: Bool[AnyArray, "batch substitutions"],
) -> _counterfactual.CounterfactualGap:
  """The counterfactual-fairness baseline: how far the prediction moves.

  The score of a record is the probability of the class that is predicted for
  the original, and `counterfactual_gap` compares it with each substitution;
  `per_item` is what to correlate beside the sensitivity.

  Fidelity:
    Paper: Krishna et al. 2022 compare with counterfactual fairness (Garg et
      al. 2019).
    Verdict: faithful to Garg et al.; which class the paper scores is not
      known.

  Args:
    class_fn: The classifier.
    embeds: Embeddings of the originals.
    mask: Positions that hold a token.
    embeds_cf: Embeddings of the substitutions.
    mask_cf: Their masks.
    valid: Substitutions that exist and differ from the original.

  Returns:
    The gap; the threshold of `flip_rate` is 1/2.
  """
  original = jax.nn.softmax(class_fn(jnp.asarray(embeds), jnp.asarray(mask)))
  predicted = jnp.argmax(original, axis=-1)
  batch, substitutions = valid.shape
  flat = jnp.asarray(embeds_cf).reshape(-1, *embeds_cf.shape[2:])
  changed = jax.nn.softmax(
    class_fn(flat, jnp.asarray(mask_cf).reshape(-1, mask_cf.shape[-1]))
  ).reshape(batch, substitutions, -1)
  return _counterfactual.counterfactual_gap(
    jnp.take_along_axis(original, predicted[:, None], axis=1)[:, 0],
    jnp.take_along_axis(changed, predicted[:, None, None], axis=2)[..., 0],
    valid,
  )


@functools.partial(
  jax.jit,
  static_argnames=(
    "way",
    "reduce",
    "space",
    "psm_space",
    "normalize",
    "absolute",
  ),
)
def _sensitivity(
  embeds,
  mask,
  counts,
  weights,
  coordinates,
  class_fn,
  psm_fn,
  *,
  way,
  reduce,
  space,
  psm_space,
  normalize,
  absolute,
):
  """Per-token values, token weights, and the value with uniform weights."""
  jacobian, weights = _jacobian(class_fn, embeds, mask, space, way, weights)
  if psm_fn is not None:
    rows, _ = _jacobian(psm_fn, embeds, mask, psm_space, "all", None)
    coordinates = jnp.sum(jnp.abs(rows), axis=0)
  weights = weights.astype(embeds.dtype)
  keep = counts[:, :, None]
  jacobian = jnp.where(keep[None], jacobian, 0.0)
  # Token weights [batch, time, 1] stand for all coordinates alike.
  coordinates = jnp.where(keep, coordinates, 0.0)

  def accumulate(coordinates):
    return _reduce(
      jacobian, coordinates, embeds, weights, reduce, normalize, absolute
    )

  per_token, token_weight = accumulate(coordinates)
  flat, _ = accumulate(jnp.where(keep, jnp.ones_like(embeds), 0.0))
  return per_token, token_weight, jnp.sum(flat, axis=1)


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


def _reduce(
  jacobian, coordinates, embeds, weights, reduce, normalize, absolute
):
  """Per-token sensitivities and the normalised token weights."""
  if reduce == "elementwise":
    spread = jnp.broadcast_to(coordinates, embeds.shape)
    token_weight = jnp.sum(spread, axis=-1)
    rows = jnp.abs(jacobian) if absolute else jacobian
    per_class = jnp.sum(rows * spread[None], axis=-1)
  else:
    if reduce == "token_l2":
      size = _norm(jacobian)
      token_weight = _norm(coordinates)
    else:
      token_weight = jnp.sum(jnp.abs(coordinates), axis=-1)
      if reduce == "token_l1":
        size = jnp.sum(jnp.abs(jacobian), axis=-1)
      else:
        size = jnp.abs(jnp.sum(jacobian * embeds[None], axis=-1))
    per_class = size * token_weight[None]
  per_token = jnp.sum(weights[:, :, None] * per_class, axis=0)
  if normalize:
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
  some = size > 0
  scale = jnp.where(some, size, 1.0)
  squares = jnp.sum(jnp.square(array / scale[..., None]), axis=-1)
  return jnp.where(some, scale * jnp.sqrt(jnp.where(some, squares, 1.0)), 0.0)


def _num_outputs(name, fn, embeds, mask) -> int:
  shape = jax.eval_shape(fn, embeds, mask).shape
  if len(shape) != 2 or shape[0] != embeds.shape[0]:
    raise ValueError(
      f"{name}: returns shape {shape} for {embeds.shape[0]} records; it must"
      " return [batch, classes]"
    )
  return shape[1]


def _class_weights(w, batch, num_classes):
  """How classes are chosen, and weights [classes, batch]."""
  if not isinstance(w, str):
    weights = jnp.asarray(w, jnp.result_type(float))
    if weights.shape not in ((num_classes,), (batch, num_classes)):
      raise ValueError(
        f"w: got shape {weights.shape}; allowed are [{num_classes}] and"
        f" [{batch}, {num_classes}]"
      )
    _check_weights("w", weights)
    weights = jnp.broadcast_to(
      jnp.reshape(weights, (-1, num_classes)), (batch, num_classes)
    )
    return "all", weights.T
  if w.startswith("class="):
    k = _index("w", w, "class=")
    if not 0 <= k < num_classes:
      raise ValueError(f"w: got {w!r}, but there are {num_classes} classes")
    return w, jnp.ones((1, batch))
  _validate.check_choice("w", w, ("uniform", "predicted", "class=k"))
  if w == "uniform":
    return "all", jnp.full((num_classes, batch), 1 / num_classes)
  return "predicted", jnp.ones((1, batch))


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
