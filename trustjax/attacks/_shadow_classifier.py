"""Shadow attacks with a learned attacker: Shokri et al., and Salem et al."""

import dataclasses
import functools
import typing

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Float64, Int, Key
from scipy import special

from trustjax.attacks import _validate
from trustjax.attacks._validate import AnyArray


@typing.no_type_check  # JAX rebuilds records with placeholders of its own.
@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class AttackClassifier:
  """A trained attacker, or one for each group of records.

  Attributes:
    params: Weights of the network, leading axis [groups].
    mean: Mean of each feature in its training data.
    std: Standard deviation of each feature there.
    loss: Final training loss of each group, penalty included.
  """

  params: dict[str, Float[Array, "..."]]
  mean: Float[Array, " features"]
  std: Float[Array, " features"]
  loss: Float[Array, " groups"]


def posterior_features(
  logits: Float[AnyArray, "*models records labels"],
  labels: Int[AnyArray, " records"] | None = None,
  *,
  top_k: int = 3,
) -> Float64[np.ndarray, "*models records features"]:
  """What the attacker sees of a posterior: its largest entries, sorted.

  Fidelity:
    Paper: Salem et al. 2019 give the attacker the 3 largest posteriors, and
      no label; Shokri et al. 2017 the whole vector and the true label.
    Here: `labels` adds the probability of the true label and its loss.
    Verdict: faithful.

  Args:
    logits: Unnormalised log-probabilities.
    labels: True labels, or None for an attacker who does not know them.
    top_k: Posteriors to keep, largest first.

  Returns:
    top_k features, and two more with labels.

  Raises:
    ValueError: If a logit is not finite, a label is out of range, or there are
      fewer than top_k labels.
  """
  values = _validate.finite("logits", logits)
  num_labels = values.shape[-1]
  if not 1 <= top_k <= num_labels:
    raise ValueError(f"top_k: got {top_k}; it must lie in [1, {num_labels}]")
  log_p = special.log_softmax(values, axis=-1)
  top = np.exp(-np.sort(-log_p, axis=-1)[..., :top_k])
  if labels is None:
    return top
  _validate.check_in_range("labels", labels, 0, num_labels)
  index = np.broadcast_to(np.asarray(labels), log_p.shape[:-1])[..., None]
  own = np.take_along_axis(log_p, index, axis=-1)
  return np.concatenate([top, np.exp(own), -own], axis=-1)


def fit_attack_classifier(
  features: Float[AnyArray, "examples features"],
  member: Bool[AnyArray, " examples"],
  key: Key[Array, ""],
  *,
  group: Int[AnyArray, " examples"] | None = None,
  num_groups: int = 1,
  hidden: int = 64,
  steps: int = 500,
  learning_rate: float = 1e-2,
  l2: float = 1e-3,
) -> AttackClassifier:
  """Trains "member or not" on shadow records whose membership is known.

  Cross-entropy plus l2 / 2 times the squared weights, minimised by full-batch
  Adam; members and non-members weigh the same in total. All groups train in
  one program.

  Fidelity:
    Paper: Shokri et al. 2017 train one network for each class; Salem et al.
      2019 one network with a hidden layer of 64 units for all.
    Here: one hidden layer of rectified units, or logistic regression; one
      attacker, or one for each group (the intent, for instance); features are
      standardised. Step count and penalty are this project's.
    Verdict: faithful.

  Args:
    features: Features of shadow records under shadow models, see
      `posterior_features`.
    member: Whether that shadow was trained on the record.
    key: Typed key of the initial weights.
    group: Group of each example, or None for a single attacker.
    num_groups: Number of groups; each needs members and non-members.
    hidden: Hidden units; 0 is logistic regression.
    steps: Steps of Adam.
    learning_rate: Of Adam.
    l2: Weight penalty, biases excluded.

  Returns:
    The attacker.

  Raises:
    ValueError: If a feature is not finite, an option is out of range, or a
      group lacks members or non-members.

  References:
    Shokri et al., IEEE S&P 2017, arXiv 1610.05820.
    Salem et al., ML-Leaks, NDSS 2019, arXiv 1806.01246.
  """
  values = _validate.finite("features", features)
  truth = _validate.membership("member", member, values.shape[:1])
  for field, value, least in (
    ("num_groups", num_groups, 1),
    ("hidden", hidden, 0),
    ("steps", steps, 1),
    ("learning_rate", learning_rate, 0),
    ("l2", l2, 0),
  ):
    _validate.check_at_least(field, value, least)
  ids = np.zeros(truth.shape, int) if group is None else np.asarray(group)
  _validate.check_shape("group", ids, truth.shape)
  _validate.check_in_range("group", ids, 0, num_groups)
  rows, weights = _by_group(ids, truth, num_groups)
  mean = values.mean(axis=0)
  # A constant feature tells nothing; it must not become a division by zero.
  std = np.where(values.std(axis=0) > 0, values.std(axis=0), 1.0)
  params, loss = _train(
    _initial(key, num_groups, values.shape[1], hidden),
    jnp.asarray(((values - mean) / std)[rows], jnp.float32),
    jnp.asarray(truth[rows], jnp.float32),
    jnp.asarray(weights, jnp.float32),
    steps=steps,
    learning_rate=learning_rate,
    l2=l2,
  )
  return AttackClassifier(
    params=params,
    mean=jnp.asarray(mean, jnp.float32),
    std=jnp.asarray(std, jnp.float32),
    loss=loss,
  )


def attack_classifier_scores(
  classifier: AttackClassifier,
  features: Float[AnyArray, "*models records features"],
  *,
  group: Int[AnyArray, " records"] | None = None,
) -> Float64[np.ndarray, "*models records"]:
  """Log-odds of membership according to a trained attacker.

  Fidelity:
    Paper: the attacker's member probability; log-odds keep the order where
      that probability rounds to 1.
    Verdict: faithful.

  Args:
    classifier: From `fit_attack_classifier`.
    features: Features of the records under the target, made as those of its
      training.
    group: Group of each record, as in training.

  Returns:
    Scores; larger means more likely a member.

  Raises:
    ValueError: If a feature is not finite, their number differs from
      training, or a group is unknown.
  """
  values = _validate.finite("features", features)
  num_features = classifier.mean.shape[0]
  if values.shape[-1] != num_features:
    raise ValueError(
      f"features: got {values.shape[-1]}; the attacker was trained on"
      f" {num_features}"
    )
  num_groups = classifier.loss.shape[0]
  records = values.shape[-2]
  ids = np.zeros(records, int) if group is None else np.asarray(group)
  _validate.check_shape("group", ids, (records,))
  _validate.check_in_range("group", ids, 0, num_groups)
  scaled = (values - np.asarray(classifier.mean)) / np.asarray(classifier.std)
  params = jax.tree.map(
    lambda leaf: np.asarray(leaf, np.float64), dict(classifier.params)
  )
  hidden = scaled
  if "hidden_kernel" in params:
    hidden = (
      np.einsum("...rf,rfh->...rh", scaled, params["hidden_kernel"][ids])
      if num_groups > 1
      else scaled @ params["hidden_kernel"][0]
    )
    hidden = np.maximum(hidden + params["hidden_bias"][ids], 0)
  return (hidden * params["kernel"][ids]).sum(axis=-1) + params["bias"][ids]


def _by_group(ids, truth, num_groups):
  """Examples of each group, padded to the largest, and their weights."""
  sizes = np.bincount(ids, minlength=num_groups)
  rows = np.zeros((num_groups, sizes.max()), int)
  weights = np.zeros(rows.shape)
  for group in range(num_groups):
    own = np.flatnonzero(ids == group)
    for side, kind in ((True, "members"), (False, "non-members")):
      if not (truth[own] == side).any():
        raise ValueError(
          f"group: got no {kind} in group {group}; each attacker needs both"
          " kinds"
        )
    rows[group, : own.size] = own
    share = np.where(truth[own], truth[own].mean(), 1 - truth[own].mean())
    weights[group, : own.size] = 0.5 / (share * own.size)
  return rows, weights


def _initial(key, num_groups, num_features, hidden):
  """Weights of all groups: He-scaled hidden layer, zero output layer."""
  params = {
    "kernel": jnp.zeros((num_groups, hidden or num_features)),
    "bias": jnp.zeros(num_groups),
  }
  if hidden:
    first, second = jax.random.split(key)
    params["hidden_kernel"] = jax.random.normal(
      first, (num_groups, num_features, hidden)
    ) * np.sqrt(2 / num_features)
    params["hidden_bias"] = jnp.zeros((num_groups, hidden))
    params["kernel"] = jax.random.normal(
      second, (num_groups, hidden)
    ) * np.sqrt(1 / hidden)
  return params


def _loss(params, features, truth, weights, l2):
  """Weighted cross-entropy of one group's attacker, with its penalty."""
  hidden, penalty = features, jnp.sum(jnp.square(params["kernel"]))
  if "hidden_kernel" in params:
    raw = features @ params["hidden_kernel"] + params["hidden_bias"][None, :]
    hidden = jax.nn.relu(raw)
    penalty += jnp.sum(jnp.square(params["hidden_kernel"]))
  logit = hidden @ params["kernel"] + params["bias"]
  each = jax.nn.softplus(logit) - truth * logit
  return weights @ each + 0.5 * l2 * penalty


@functools.partial(jax.jit, static_argnames=("steps",))
def _train(params, features, truth, weights, *, steps, learning_rate, l2):
  """Adam on each group."""
  optimizer = optax.adam(learning_rate)

  def train_one(data):
    params, features, truth, weights = data
    gradient = jax.grad(_loss)

    def step(carry, _):
      params, state = carry
      grad = gradient(params, features, truth, weights, l2)
      updates, state = optimizer.update(grad, state, params)
      return (optax.apply_updates(params, updates), state), None

    start = (params, optimizer.init(params))
    (params, _), _ = jax.lax.scan(step, start, length=steps)
    return params, _loss(params, features, truth, weights, l2)

  # One group at a time: memory does not grow with the number of groups.
  return jax.lax.map(train_one, (params, features, truth, weights))
