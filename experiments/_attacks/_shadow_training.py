"""Trains an arm's models on random halves and scores every record on each."""

import dataclasses
import json
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments._binary import _config_flags, _console
from experiments._private_training import _arm_training, _arms
from trustjax import attacks, data, models, privacy, reporting, training

# What a study's seed is used for.
_POOL, _MEMBERSHIPS, _LOTS = range(3)
_RECORDS_AT_A_TIME = 256


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pool:
  """The records under attack, and who was trained on them.

  Attributes:
    examples: Arrays of the records.
    text: Group of each record; records of a group have the same text.
    member: Memberships [models, records], one coin for each group.
    population: Arrays of records that no model was trained on.
  """

  examples: dict[str, np.ndarray]
  text: np.ndarray
  member: np.ndarray
  population: dict[str, np.ndarray]

  @property
  def num_records(self) -> int:
    """Records of the pool."""
    return self.member.shape[1]

  @property
  def expected_members(self) -> int:
    """Records that a model is trained on, on average."""
    return round(self.num_records / 2)


def make_pool(
  corpus: data.PreparedCorpus, fields: _config_flags.Config, seed: int
) -> Pool:
  """Draws the pool and its memberships.

  Args:
    corpus: The training split is the pool; the others are the population.
    fields: `pool_size`, None for all, and `num_models`.
    seed: Seed of the study.

  Returns:
    The pool.

  Raises:
    ValueError: More records are asked for than there are, or too few models.
  """
  size = fields.pool_size or corpus.num_train
  if not 4 <= size <= corpus.num_train:
    raise ValueError(
      f"config.attack.pool_size: got {size}; it must lie between 4 and the"
      f" {corpus.num_train} training records"
    )
  if fields.num_models < 8:
    raise ValueError(
      f"config.attack.num_models: got {fields.num_models}; at least 8 are"
      " needed, so that a record is in and out of several shadow models"
    )
  order = np.random.default_rng((seed, _POOL)).permutation(corpus.num_train)
  chosen = np.sort(order[:size])
  examples = data.gather(corpus.train, chosen)
  _, text = np.unique(examples["tokens"], axis=0, return_inverse=True)
  outside = {
    name: np.concatenate([corpus.validation[name], corpus.test[name]])
    for name in corpus.test
  }
  known = np.flatnonzero(outside["intent"] >= 0)
  return Pool(
    examples=examples,
    text=text.ravel(),
    member=training.draw_memberships(
      fields.num_models,
      size,
      seed=(seed << 4) + _MEMBERSHIPS,
      groups=text.ravel(),
    ),
    population=data.gather(outside, known),
  )


def enough_shadows(member: np.ndarray) -> np.ndarray:
  """Records that every target finds in, and out of, two other models.

  Online attacks need that. It is decided by the coins alone, but by the
  target's own, too: where only just enough models are in, the target tends to
  be one of them, whose shadows then are the fewest. That pulls the AUC of an
  attack on nothing below 1/2: to 0.48 with 8 models, not noticeably with 16.
  """
  inside = member.sum(axis=0)
  return (inside >= 3) & (len(member) - inside >= 3)


def train_and_score(
  task: _arm_training.Task,
  arm: _arms.Arm,
  pool: Pool,
  seed: int,
  folder: pathlib.Path,
  options: dict[str, Any],
  statistics: Callable[..., tuple],
) -> dict[str, np.ndarray]:
  """Statistics of an arm's models, or those of a finished run.

  Args:
    task: Model, loss and data.
    arm: How the models are trained; its plan is for `expected_members`.
    pool: The records.
    seed: Seed of the study.
    folder: Where checkpoints and statistics live.
    options: Of the ensemble, less its number of steps.
    statistics: From `make_statistics`, compiled; arms share it.

  Returns:
    `member`, and by model and record `log_p`, `joint_logit`, `intent_logit`,
    `slots_logit` and `features`; `population_log_p`; by model
    `intent_accuracy` and `slot_f1` on the test split, and `train_seconds`.

  Raises:
    _console.Stopped: Ctrl-C.
    training.CheckpointError: The folder belongs to another run.
  """
  lots = training.MemberLots(
    keep=pool.member,
    seed=(seed << 4) + _LOTS,
    plan=arm.plan,
    batch_size=None if arm.plan else arm.batch_size,
    capacity_multiple=arm.chunk_size or 8,
  )
  identity = arm.describe() | task.describe | {"seed": seed} | lots.describe()
  finished, named = folder / "statistics.npz", folder / "identity.json"
  if finished.exists() and named.exists():
    saved = json.loads(named.read_text(encoding="utf-8"))
    training.check_identity(finished, saved, identity)
    with np.load(finished) as file:
      return dict(file)
  result = training.train_ensemble(
    *_arm_training.build(task, arm),
    task.initial,
    pool.examples,
    lots,
    jax.random.key(seed),
    training.EnsembleOptions(
      num_steps=arm.num_steps, title=arm.name, **options
    ),
    directory=folder / "checkpoints",
    identity=arm.describe() | task.describe | {"seed": seed},
  )
  if not result.completed:
    raise _console.Stopped(f"stopped during {arm.name}; all is in {folder}")
  found = score(task, result.params, pool, statistics) | {
    "train_seconds": np.asarray(result.train_seconds)
  }
  folder.mkdir(parents=True, exist_ok=True)
  arrays: dict[str, Any] = found
  np.savez_compressed(folder / "partial.npz", **arrays)
  (folder / "partial.npz").replace(finished)
  reporting.write_atomically(named, json.dumps(identity, indent=2) + "\n")
  return found


def score(
  task: _arm_training.Task,
  params: Any,
  pool: Pool,
  statistics: Callable[..., tuple],
) -> dict[str, np.ndarray]:
  """What every model says of every record of the pool and the population.

  Args:
    task: Model and data.
    params: Trained parameters with leading axis [models].
    pool: The records.
    statistics: From `make_statistics`, compiled.

  Returns:
    As `train_and_score`, less the time.
  """
  records, population = map(jax.device_put, (pool.examples, pool.population))
  intents = len(task.corpus.intents)
  rows: dict[str, list] = {}
  for model in range(len(pool.member)):
    own = jax.tree.map(lambda leaf, model=model: leaf[model], params)
    found, logits = jax.device_get(statistics(own, records))
    outside, _ = jax.device_get(statistics(own, population))
    # Five numbers a record instead of all logits of all models.
    seen = attacks.posterior_features(
      logits, pool.examples["intent"], top_k=min(3, intents)
    )
    own = privacy.merge(own, task.frozen)
    utility = models.evaluate(
      task.model, own, task.corpus.test, task.corpus.slot_labels
    )
    for name, value in {
      "log_p": -found.loss,
      "joint_logit": found.joint_logit,
      "intent_logit": found.intent_logit,
      "slots_logit": found.slots_logit,
      "features": np.concatenate(
        [seen, -found.slots_log_p_per_token[:, None]], axis=1
      ).astype(np.float32),
      "population_log_p": -outside.loss,
      "intent_accuracy": utility.intent_accuracy,
      "slot_f1": utility.slot_f1,
    }.items():
      rows.setdefault(name, []).append(value)
  stacked = {name: np.stack(values) for name, values in rows.items()}
  return stacked | {"member": pool.member}


def make_statistics(task: _arm_training.Task) -> Callable[..., tuple]:
  """What one model says of some records, as a function to be compiled.

  Args:
    task: Model and frozen parameters.

  Returns:
    (params, arrays) -> (RecordStatistics, intent logits).
  """

  def statistics(params, arrays):
    whole = privacy.merge(params, task.frozen)
    labels = ("intent", "slots", "slot_mask")
    inputs = {k: v for k, v in arrays.items() if k not in labels}
    intent, slots = jax.lax.map(
      lambda example: tuple(task.model.apply(whole, example)),
      inputs,
      batch_size=_RECORDS_AT_A_TIME,
    )
    truth = jnp.where(arrays["slot_mask"], arrays["slots"], -1)
    found = attacks.record_statistics(
      intent, slots, arrays["intent"], truth, arrays["slot_mask"]
    )
    return found, intent

  return statistics
