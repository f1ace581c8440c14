"""Runs of the real training step with canaries in its data."""

import dataclasses
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments._attacks import _shadow_training
from experiments._binary import _console
from experiments._private_training import _arm_training, _arms
from trustjax import attacks, privacy, training

# What a study's seed is used for.
_RECORDS, _GRADIENTS, _COINS, _RELEASES = range(4)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Canaries:
  """Training records with canaries behind them, and the canaries' coins.

  Attributes:
    examples: Arrays of all records.
    member: [models, records]; real records are in every model.
    num: Canaries, the last of the records.
  """

  examples: dict[str, np.ndarray]
  member: np.ndarray
  num: int

  @property
  def coins(self) -> np.ndarray:
    """Whether model 0 was trained on each canary."""
    return self.member[0, -self.num :]


def mislabelled(
  task: _arm_training.Task, num: int, num_models: int, seed: int
) -> Canaries:
  """Copies of training utterances with random intents and random tags."""
  train = task.corpus.train
  rng = np.random.default_rng((seed, _RECORDS))
  copied = rng.integers(task.corpus.num_train, size=num)
  own = {name: array[copied] for name, array in train.items()}
  intent, slots = attacks.mislabelled_records(
    jax.random.fold_in(jax.random.key(seed), _RECORDS),
    own["slot_mask"],
    num_intents=len(task.corpus.intents),
    num_slots=len(task.corpus.slot_labels),
  )
  own["intent"] = np.asarray(intent, np.int32)
  own["slots"] = np.where(own["slot_mask"], np.asarray(slots), 0).astype(
    np.int32
  )
  return _behind(train, own, num_models, seed)


def gradient_rows(
  task: _arm_training.Task, num: int, seed: int, num_models: int = 1
) -> Canaries:
  """Records whose gradient is one large entry of the largest parameter.

  Each has a coordinate of its own, which no other canary touches.
  """
  leaf = largest_leaf(task)
  if num > leaf.size:
    raise ValueError(
      f"config.audit.num_canaries: got {num}; the largest parameter has"
      f" {leaf.size} entries, and each canary needs one"
    )
  rng = np.random.default_rng((seed, _GRADIENTS))
  train = task.corpus.train
  own = {
    name: np.repeat(array[:1], num, axis=0) for name, array in train.items()
  }
  own["canary"] = rng.permutation(leaf.size)[:num].astype(np.int32)
  plain = np.full(task.corpus.num_train, -1, np.int32)
  return _behind(train | {"canary": plain}, own, num_models, seed)


def _behind(train, own, num_models, seed):
  num = len(own["intent"])
  real = len(train["intent"])
  coins = training.draw_memberships(num_models, num, seed=(seed << 4) + _COINS)
  return Canaries(
    examples={k: np.concatenate([train[k], own[k]]) for k in train},
    member=np.concatenate([np.ones((num_models, real), bool), coins], axis=1),
    num=num,
  )


def largest_leaf(task: _arm_training.Task) -> Any:
  """Shape of the parameter with the most entries."""
  leaves = jax.tree.leaves(jax.eval_shape(task.initial, jax.random.key(0)))
  return max(leaves, key=lambda leaf: leaf.size)


def with_gradient_canaries(
  task: _arm_training.Task, magnitude: float
) -> _arm_training.Task:
  """The task, whose records with a canary have a gradient chosen by it."""
  shape = largest_leaf(task).shape
  plain_loss = task.loss_fn

  def loss_fn(params, example, key):
    example = dict(example)
    canary = example.pop("canary")
    loss, aux = plain_loss(params, example, key)
    leaf = next(x for x in jax.tree.leaves(params) if x.shape == shape)
    chosen = magnitude * jnp.ravel(leaf)[jnp.maximum(canary, 0)]
    return jnp.where(canary >= 0, chosen, loss), aux

  return dataclasses.replace(task, loss_fn=loss_fn)


def train(
  task: _arm_training.Task,
  arm: _arms.Arm,
  canaries: Canaries,
  seed: int,
  folder: pathlib.Path,
) -> Any:
  """Parameters of the models, leading axis [models].

  Args:
    task: Model and loss.
    arm: How they are trained.
    canaries: The records.
    seed: Seed of the study.
    folder: Where checkpoints live.

  Returns:
    The parameters.

  Raises:
    _console.Stopped: Ctrl-C.
  """
  result = training.train_ensemble(
    *_arm_training.build(task, arm),
    task.initial,
    canaries.examples,
    training.MemberLots(
      keep=canaries.member,
      seed=seed,
      plan=arm.plan,
      batch_size=None if arm.plan else arm.batch_size,
      capacity_multiple=arm.chunk_size or 8,
    ),
    jax.random.key(seed),
    training.EnsembleOptions(num_steps=arm.num_steps, title=arm.name),
    directory=folder,
    identity=arm.describe() | task.describe | {"seed": seed},
  )
  if not result.completed:
    raise _console.Stopped(f"stopped during {arm.name}; all is in {folder}")
  return result.params


def record_scores(
  task: _arm_training.Task,
  arm: _arms.Arm,
  canaries: Canaries,
  seed: int,
  folder: pathlib.Path,
) -> np.ndarray:
  """Black-box scores: model 0's joint logit less that of reference models.

  The reference models tossed coins of their own, which say nothing of those
  of model 0.

  Args:
    task: Model and loss.
    arm: How models are trained.
    canaries: From `mislabelled`, with two or more models.
    seed: Seed of the study.
    folder: Where checkpoints live.

  Returns:
    [canaries].
  """
  params = train(task, arm, canaries, seed, folder)
  statistics = jax.jit(_shadow_training.make_statistics(task))
  own = {k: v[-canaries.num :] for k, v in canaries.examples.items()}
  logits = np.stack(
    [
      statistics(jax.tree.map(lambda x, i=i: x[i], params), own)[0].joint_logit
      for i in range(len(canaries.member))
    ]
  )
  return logits[0] - logits[1:].mean(axis=0)


def gradient_scores(
  task: _arm_training.Task,
  arm: _arms.Arm,
  canaries: Canaries,
  seed: int,
  folder: pathlib.Path,
  *,
  magnitude: float,
  learning_rate: float,
) -> np.ndarray:
  """White-box scores: how far training moved against each canary's gradient.

  The optimiser is plain descent with a constant rate, so the whole movement is
  the sum of what was released, and the score is linear in it.

  Args:
    task: Model and loss.
    arm: Plan and engine; its optimiser is replaced.
    canaries: From `gradient_rows`.
    seed: Seed of the study.
    folder: Where checkpoints live.
    magnitude: Length of a canary's gradient, far above any clip norm.
    learning_rate: Of plain descent.

  Returns:
    [models, canaries].
  """
  descent = {
    "name": "sgd",
    "learning_rate": learning_rate,
    "decay": "constant",
    "warmup_steps": 0,
  }
  arm = dataclasses.replace(arm, optimizer=descent)
  chosen = with_gradient_canaries(task, magnitude)
  params = train(chosen, arm, canaries, seed, folder)
  shape = largest_leaf(task).shape
  key, places = jax.random.key(seed), canaries.examples["canary"]
  moved = []
  for model in range(len(canaries.member)):
    first, _ = training.ensemble_keys(key, model)
    start = jax.tree.leaves(task.initial(first))
    end = [leaf[model] for leaf in jax.tree.leaves(params)]
    before, after = (
      np.ravel(next(leaf for leaf in leaves if leaf.shape == shape))
      for leaves in (start, end)
    )
    moved.append((before - after)[places[-canaries.num :]])
  return np.stack(moved)


def release_audit(
  plan: privacy.DpSgdPlan, engine: str, *, trials: int, delta: float, seed: int
) -> attacks.ErrorRateAudit:
  """Test A: one release by the real step, in two worlds one record apart.

  Without sampling and with the plan's rule, group size and noise. The
  threshold stands in the middle of where the sums lie by construction.

  Args:
    plan: The plan under test.
    engine: Clipping engine, not of the host.
    trials: Runs of each world.
    delta: delta of the claim.
    seed: Seed of the study.

  Returns:
    The audit; claims are 1 / sigma (naive) and sensitivity factor / sigma.
  """
  size = plan.clip_group_size
  direction = np.ones(4) / 2
  sigma = plan.mechanism.noise_multiplier
  one = privacy.DpSgdPlan.make(
    num_records=max(size, 2),
    expected_batch_size=max(size, 2),
    rule=plan.rule,
    clip_group_size=size,
    num_steps=1,
    noise_multiplier=sigma,
  )
  params = jnp.zeros(4)
  clip_norm = float(one.rule.scales(one.rule.init(), params)[0])
  worlds = attacks.opposed_gradients(
    direction, group_size=max(size, 2), clip_norm=clip_norm
  )
  init, step = training.make_private_step(
    lambda params, example, key: (jnp.vdot(params, example), ()),
    optax.sgd(1.0),
    one,
    engine=engine,
  )

  @jax.jit
  def release(lot, keys):
    def once(key):
      state, _ = step(init(params), lot, key)
      return -state.params * one.expected_units

    return jax.lax.map(once, keys)

  found = []
  for world, gradients in enumerate(worlds):
    valid = np.any(gradients != 0, axis=1)
    ids = np.arange(len(valid), dtype=np.int32)
    if size > 1:
      gradients, valid, ids = gradients[None], valid[None], ids[None]
    lot = privacy.Lot(
      examples=jnp.asarray(gradients, jnp.float32), valid=valid, ids=ids
    )
    key = jax.random.fold_in(jax.random.key(seed), _RELEASES)
    keys = jax.random.split(jax.random.fold_in(key, world), trials)
    sums = np.asarray(release(lot, keys), np.float64)
    found.append(sums @ direction / clip_norm)
  present, without = found
  # -1 against 1 in a clip group, -1 against 0 for a record by itself.
  threshold = 0.0 if size > 1 else -0.5
  return attacks.audit_error_rates(
    int((without >= threshold).sum()),
    trials,
    int((present < threshold).sum()),
    trials,
    delta=delta,
  )
