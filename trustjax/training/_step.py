"""One step of training, private or not, from one record's loss."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from trustjax import privacy
from trustjax.training import _state

PyTree = Any
StepFn = Callable[..., tuple[_state.State, _state.StepMetrics]]
# Of those two, the step whose state holds parameters that may be looked at.
TrainStepFn = Callable[..., tuple[_state.TrainState, _state.StepMetrics]]
SettleFn = Callable[[Any, jax.Array], tuple[PyTree, _state.State]]

# What a step's key is split into.
_RECORDS, _NOISE, _CLIP = range(3)


def private_optimizer(
  plan: privacy.DpSgdPlan, optimizer: optax.GradientTransformation
) -> optax.GradientTransformationExtraArgs:
  """Puts the plan's noise and averaging in front of any optax optimiser."""
  return optax.chain(privacy.add_noise(plan), optimizer)


def make_private_step(
  loss_fn: Callable,
  optimizer: optax.GradientTransformation,
  plan: privacy.DpSgdPlan,
  *,
  engine: str = "auto",
  chunk_size: int | None = None,
  frozen: PyTree | None = None,
  mesh: jax.sharding.Mesh | None = None,
) -> tuple[Callable[[PyTree], _state.TrainState], TrainStepFn]:
  """Builds a step that is private under `plan`.

  Guarantee:
    Run `plan.mechanism.num_steps` times, with the lots of `plan.lot_indices`
    and one root key, the parameters satisfy `plan.epsilon`. The metrics are
    raw and outside the guarantee.

  Args:
    loss_fn: `(params, example, key) -> (scalar, aux)` for ONE record.
    optimizer: Any optax optimiser; it sees the noisy average.
    plan: The plan.
    engine: Clipping engine.
    chunk_size: Clip units in memory at a time.
    frozen: Parameters that are not trained, from `privacy.partition`; the
      state holds the trained part, and the loss sees both.
    mesh: Devices that share each lot; noise is drawn once all the same.

  Returns:
    (init, step) with `init(params) -> TrainState` and
    `step(state, lot, key) -> (TrainState, StepMetrics)`; `key` is the root key
    of the run, the same for every step. The step donates its state.

  Example:
    >>> init, step = make_private_step(loss_fn, optax.adam(1e-3), plan)
    >>> state, metrics = step(init(params), lot, jax.random.key(0))
  """
  private = private_optimizer(plan, optimizer)
  clipped_grad = plan.clipped_grad(
    loss_fn, engine=engine, chunk_size=chunk_size, mesh=mesh
  )

  def gradient(state, lot, key, frozen):
    key = jax.random.fold_in(jax.random.fold_in(key, state.step), _RECORDS)
    return clipped_grad(state.params, lot, key, state.clip_state, frozen=frozen)

  def apply(state, lot, clipped, key):
    key = jax.random.fold_in(key, state.step)
    updates, opt_state = private.update(
      clipped.sum,
      state.opt_state,
      state.params,
      key=jax.random.fold_in(key, _NOISE),
      clip_state=state.clip_state,
    )
    counted = _units_that_hold(lot) & jnp.isfinite(clipped.norms)
    clip_state = plan.rule.update(
      state.clip_state, clipped.norms, counted, jax.random.fold_in(key, _CLIP)
    )
    scales = plan.rule.scales(state.clip_state, state.params)
    metrics = _private_metrics(lot, clipped, scales)
    return _next_state(state, updates, opt_state, clip_state), metrics

  def init(params: PyTree) -> _state.TrainState:
    return _state.init_state(params, private, plan.rule.init())

  if engine in privacy.HOST_ENGINES:
    # The loop runs on the host; only what follows it is one program.
    compiled_apply = jax.jit(apply)
    return init, lambda state, lot, key: compiled_apply(
      state, lot, gradient(state, lot, key, frozen), key
    )

  def step(state, lot, key, frozen=None):
    return apply(state, lot, gradient(state, lot, key, frozen), key)

  return init, _compiled(step, frozen)


def make_deferred_step(
  loss_fn: Callable,
  learning_rate: Any,
  plan: privacy.DpSgdPlan,
  params: PyTree,
  example: PyTree,
  *,
  tables: tuple[str, ...] | None = None,
  chunk_size: int | None = None,
) -> tuple[Callable[[PyTree], privacy.DeferredState], StepFn, SettleFn]:
  """Builds private SGD that draws a table row's noise when it is read.

  Guarantee:
    That of `privacy.deferred_noise_sgd`: what is settled has the distribution
    of `make_private_step` with `optax.sgd`. The state, and so a checkpoint,
    lacks noise unless it was settled last: do not release it. The metrics are
    raw.

  Args:
    loss_fn: `(params, example, key) -> (scalar, aux)` for ONE record.
    learning_rate: A number, or a schedule; nothing but plain SGD is exact.
    plan: The plan.
    params: Parameters, or their shapes.
    example: One record, or its shapes, without a leading axis.
    tables: Paths of the parameters to defer; None takes all that are only
      looked up.
    chunk_size: Clip units in memory at a time.

  Returns:
    (init, step, settle); `init` and `step` are called like those of
    `make_private_step`, and `train` takes all three.
    `settle(state, key) -> (params, state)` draws what is pending, a normal for
    every entry of the tables, and training goes on from the state it returns.
    `step` and `settle` donate their state.

  Raises:
    ValueError: Deferred noise would not be exact.

  Example:
    >>> init, step, settle = make_deferred_step(
    ...   loss_fn, 0.1, plan, params, example
    ... )
    >>> state, metrics = step(init(params), lot, jax.random.key(0))
    >>> params, state = settle(state, jax.random.key(0))
  """
  sgd = privacy.deferred_noise_sgd(
    loss_fn,
    plan,
    learning_rate,
    params,
    example,
    tables=tables,
    chunk_size=chunk_size,
  )

  def step(state, lot, key):
    # Constants, or the rule would have been refused.
    scales = plan.rule.scales((), state.unsettled)
    state, seen = sgd.step(state, lot, key)
    return state, _private_metrics(lot, seen, scales)

  return sgd.init, jax.jit(step, donate_argnums=0), sgd.settle


def nothing_to_settle(
  state: _state.TrainState, key: jax.Array
) -> tuple[PyTree, _state.TrainState]:
  """`settle` of every step but the deferred: its noise is all there."""
  del key
  return state.params, state


def make_step(
  loss_fn: Callable,
  optimizer: optax.GradientTransformation,
  *,
  chunk_size: int | None = None,
  frozen: PyTree | None = None,
) -> tuple[Callable[[PyTree], _state.TrainState], TrainStepFn]:
  """Builds an ordinary step on the mean loss: no clipping, no noise.

  Args:
    loss_fn: `(params, example, key) -> (scalar, aux)` for ONE record.
    optimizer: Any optax optimiser.
    chunk_size: Records per backward pass; gradients are accumulated. None
      takes the whole batch at once; on a CPU a smaller chunk is often faster.
    frozen: Parameters that are not trained, as in `make_private_step`.

  Returns:
    (init, step), called like those of `make_private_step`.
  """

  def step(state, lot, key, frozen=None):
    key = jax.random.fold_in(jax.random.fold_in(key, state.step), _RECORDS)

    def whole_loss(params, example, key):
      return loss_fn(privacy.merge(params, frozen), example, key)

    losses, gradient = _mean_gradient(
      whole_loss, state.params, lot, key, chunk_size
    )
    updates, opt_state = optimizer.update(
      gradient, state.opt_state, state.params
    )
    metrics = _state.StepMetrics(
      loss=_mean_loss(losses, lot.valid),
      num_records=jnp.sum(lot.valid),
      num_nonfinite=jnp.sum(lot.valid & ~jnp.isfinite(losses)),
      mean_norm=optax.tree.norm(gradient),
      clipped_share=jnp.float32(0),
      clip_norm=jnp.float32(0),
    )
    return _next_state(state, updates, opt_state, state.clip_state), metrics

  def init(params: PyTree) -> _state.TrainState:
    return _state.init_state(params, optimizer)

  return init, _compiled(step, frozen)


def _compiled(step, frozen):
  """The step as one program; frozen parameters are its argument.

  Captured, they would be constants of the program: copied, and folded at
  length while it compiles.
  """
  compiled = jax.jit(step, donate_argnums=0)
  if frozen is None:
    return compiled
  return lambda state, lot, key: compiled(state, lot, key, frozen)


def _next_state(state, updates, opt_state, clip_state):
  return _state.TrainState(
    step=state.step + 1,
    params=optax.apply_updates(state.params, updates),
    opt_state=opt_state,
    clip_state=clip_state,
  )


def _units_that_hold(lot):
  return jnp.reshape(lot.valid, (lot.valid.shape[0], -1)).any(axis=1)


def _mean_loss(losses, valid):
  finite = valid & jnp.isfinite(losses)
  total = jnp.sum(jnp.where(finite, losses, 0.0))
  return (total / jnp.maximum(jnp.sum(finite), 1)).astype(jnp.float32)


def _private_metrics(lot, clipped, scales):
  holds = _units_that_hold(lot) & jnp.isfinite(clipped.norms)
  count = jnp.maximum(jnp.sum(holds), 1)
  clip_norm = jnp.sqrt(jnp.sum(jnp.square(scales)))
  return _state.StepMetrics(
    loss=_mean_loss(clipped.losses, lot.valid),
    num_records=jnp.sum(lot.valid),
    num_nonfinite=clipped.num_nonfinite,
    mean_norm=jnp.sum(jnp.where(holds, clipped.norms, 0.0)) / count,
    clipped_share=jnp.sum(holds & (clipped.norms > clip_norm)) / count,
    clip_norm=clip_norm,
  )


def _mean_gradient(loss_fn, params, lot, key, chunk_size):
  """Losses of the records and the gradient of their mean."""
  size = lot.valid.shape[0]
  chunk_size = size if chunk_size is None else chunk_size
  if size % chunk_size:
    raise ValueError(
      f"chunk_size: got {chunk_size}, which does not divide the batch's"
      f" {size} slots; choose a divisor"
    )
  weights = lot.valid / jnp.maximum(jnp.sum(lot.valid), 1)
  keys = privacy.record_keys(key, lot.ids)

  def weighted_loss(params, part):
    examples, keys, weights = part
    losses, _ = jax.vmap(loss_fn, in_axes=(None, 0, 0))(params, examples, keys)
    return jnp.sum(losses * weights.astype(losses.dtype)), losses

  backward = jax.grad(weighted_loss, has_aux=True)
  parts = (lot.examples, keys, weights)
  if chunk_size == size:
    gradient, losses = backward(params, parts)
    return losses, gradient

  def accumulate(total, part):
    gradient, losses = backward(params, part)
    return jax.tree.map(jnp.add, total, gradient), losses

  parts = jax.tree.map(
    lambda leaf: jnp.reshape(leaf, (-1, chunk_size, *leaf.shape[1:])), parts
  )
  gradient, losses = jax.lax.scan(
    accumulate, jax.tree.map(jnp.zeros_like, params), parts
  )
  return jnp.ravel(losses), gradient
