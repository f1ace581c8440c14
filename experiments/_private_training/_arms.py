"""The arms of a private-training study, from its config.

non_private            mean gradient, no clipping, no noise
dp_sgd                 per-record clipping, noise for the largest target
dp_sgd_eps<target>     the same for each smaller target
edp_sgd                clip groups, with the noise multiplier of dp_sgd
edp_sgd_equal_epsilon  clip groups, with the epsilon of dp_sgd
dp_sgd_loop            a few steps of dp_sgd, one record at a time
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import optax

from experiments._binary import _config_flags
from trustjax import data, models, privacy, training

NAMES = (
  "non_private",
  "dp_sgd",
  "edp_sgd",
  "edp_sgd_equal_epsilon",
  "dp_sgd_loop",
)
# When noise is drawn: at every step, or when a table's row is read.
NOISES = ("flat", "deferred")
# Section of the config -> the arms that it describes.
_SECTIONS = {
  "private": ("dp_sgd", "dp_sgd_loop"),
  "edp": ("edp_sgd", "edp_sgd_equal_epsilon"),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arm:
  """One way to train the same model on the same data.

  Attributes:
    name: Its name in tables and results.
    plan: The privacy plan; None trains without privacy.
    num_steps: Steps of training.
    batch_size: Expected records in a lot.
    optimizer: The optimiser's config.
    engine: Clipping engine.
    chunk_size: Clip units in memory at a time (records, if not private).
    target_epsilon: What the noise was calibrated to, if it was.
    noise: One of `NOISES`.
  """

  name: str
  plan: privacy.DpSgdPlan | None
  num_steps: int
  batch_size: int
  optimizer: dict[str, Any]
  engine: str
  chunk_size: int | None
  target_epsilon: float | None = None
  noise: str = "flat"

  def make_optimizer(self) -> optax.GradientTransformation:
    """The arm's optimiser."""
    return training.make_optimizer(num_steps=self.num_steps, **self.optimizer)

  def make_learning_rate(self) -> optax.Schedule:
    """The learning rate alone, of an optimiser that is plain SGD."""
    fields = {k: v for k, v in self.optimizer.items() if k != "name"}
    return training.make_learning_rate(num_steps=self.num_steps, **fields)

  def describe(self) -> dict[str, Any]:
    """What makes this arm's run this run, as JSON-able data."""
    noise = {} if self.noise == "flat" else {"noise": self.noise}
    return noise | {
      "arm": self.name,
      "plan": self.plan.describe() if self.plan else None,
      "num_steps": self.num_steps,
      "batch_size": self.batch_size,
      "optimizer": self.optimizer,
      "engine": self.engine,
      "chunk_size": self.chunk_size,
    }


def given(config: _config_flags.Config) -> dict[str, Any]:
  """The fields of a config that are set; None means 'take the default'."""
  return {
    name: value for name, value in config.to_dict().items() if value is not None
  }


def make_loss(
  fields: _config_flags.Config, model: models.Model, tokenizer: data.Tokenizer
) -> Callable:
  """The joint loss of one record, in the precision that is asked for.

  Args:
    fields: The config's section `loss`.
    model: The model.
    tokenizer: Of the words; training may show some of them as unknown.

  Returns:
    `loss_fn(params, example, key) -> (loss, aux)`.

  Raises:
    ValueError: A field is impossible.
  """
  given_fields = fields.to_dict()
  compute_dtype = given_fields.pop("compute_dtype")
  loss_fn = models.losses.joint_loss(
    model, unknown_id=tokenizer.unk, **given_fields
  )
  return models.in_precision(loss_fn, compute_dtype)


def private_name(target: float, largest: float) -> str:
  """Name of the per-record arm for a target epsilon."""
  return "dp_sgd" if target == largest else f"dp_sgd_eps{target:g}"


def make_arms(
  config: _config_flags.Config, num_records: int
) -> tuple[Arm, ...]:
  """Builds all arms, and so checks the whole config before any training.

  Args:
    config: The study's config.
    num_records: Records in the training split.

  Returns:
    The arms, in the order in which they are run.

  Raises:
    ValueError: A field is impossible, or a target epsilon unreachable.
  """
  _check(config)
  targets = sorted(config.target_epsilons, reverse=True)
  arms = []
  if "non_private" in config.arms:
    arms.append(_non_private(config))
  wanted = set(config.arms) - {"non_private"}
  if not wanted:
    return tuple(arms)
  dp_sgd = [
    _private(config, num_records, private_name(t, targets[0]), target=t)
    for t in targets
  ]
  assert dp_sgd[0].plan is not None
  if "dp_sgd" in wanted:
    arms += dp_sgd
  if "edp_sgd" in wanted:
    sigma = dp_sgd[0].plan.mechanism.noise_multiplier
    arms.append(_private(config, num_records, "edp_sgd", sigma=sigma))
  if "edp_sgd_equal_epsilon" in wanted:
    arms.append(
      _private(config, num_records, "edp_sgd_equal_epsilon", target=targets[0])
    )
  if "dp_sgd_loop" in wanted:
    arms.append(
      dataclasses.replace(
        dp_sgd[0], name="dp_sgd_loop", engine="loop", chunk_size=None
      )
    )
  return tuple(arms)


def _check(config):
  unknown = sorted(set(config.arms) - set(NAMES))
  if unknown or not config.arms:
    raise ValueError(
      f"config.arms: got {list(config.arms)}; allowed are {list(NAMES)}"
    )
  if not config.target_epsilons:
    raise ValueError("config.target_epsilons: got none; at least one is needed")
  for field in ("num_seeds", "loop_steps"):
    if config[field] < 1:
      raise ValueError(
        f"config.{field}: got {config[field]}; it must be at least 1"
      )
  for section, names in _SECTIONS.items():
    # Where models train side by side the config has no such field.
    noise = config[section].get("noise", "flat")
    if noise not in NOISES:
      raise ValueError(
        f"config.{section}.noise: got {noise!r}; allowed are {list(NOISES)}"
      )
    if noise == "deferred" and set(names) & set(config.arms):
      why = _why_not_deferred(config, section)
      if why:
        raise ValueError(f"config.{section}.noise: got 'deferred' with {why}")


def _why_not_deferred(config, section):
  """What forbids deferred noise besides the rule and the model, or None."""
  fields = config[section]
  sgd = {"name", "learning_rate", "decay", "warmup_steps"}
  other = sorted(set(given(fields.optimizer)) - sgd)
  if fields.optimizer.name != "sgd" or other:
    which = other[0] if other else "name"
    return (
      f"{section}.optimizer.{which} {fields.optimizer[which]!r}; it is exact"
      " for plain SGD only, since momentum, Adam and weight decay read a row's"
      " noise again after the step that drew it: set name to 'sgd' and leave"
      " the others out"
    )
  if fields.engine not in ("auto", "bookkeeping"):
    return (
      f"{section}.engine {fields.engine!r}; allowed are 'auto' and"
      " 'bookkeeping', which knows the rows that a lot reads"
    )
  if config.get("trainable"):
    return (
      f"trainable {config.trainable!r}; it takes no frozen parameters: set"
      " trainable to ''"
    )
  if section == "private" and "dp_sgd_loop" in config.arms:
    return (
      "the arm 'dp_sgd_loop', whose parameters are compared with those of"
      " dp_sgd and would hold other draws: leave it out of arms"
    )
  return None


def _non_private(config):
  fields = config.non_private
  return Arm(
    name="non_private",
    plan=None,
    num_steps=fields.num_steps,
    batch_size=fields.batch_size,
    optimizer=given(fields.optimizer),
    engine="none",
    chunk_size=fields.chunk_size,
  )


def _private(config, num_records, name, *, target=None, sigma=None):
  """An arm with per-record clipping, or clip groups if its name says so."""
  grouped = name.startswith("edp_sgd")
  private = config.private
  special = config.edp if grouped else private
  plan = privacy.DpSgdPlan.make(
    num_records=num_records,
    expected_batch_size=private.expected_batch_size,
    rule=privacy.make_rule(**given(special.rule)),
    clip_group_size=config.edp.clip_group_size if grouped else 1,
    group_capacity=config.edp.group_capacity if grouped else None,
    num_steps=private.num_steps,
    noise_multiplier=1.0 if sigma is None else sigma,
    sampler=private.sampler,
    adjacency=private.adjacency,
    capacity=private.capacity,
    schedule=_schedule(special.schedule, num_records, private),
  )
  if target is not None:
    plan = plan.calibrate(target, config.delta)
  return Arm(
    name=name,
    plan=plan,
    num_steps=private.num_steps,
    batch_size=private.expected_batch_size,
    optimizer=given(special.optimizer),
    engine=special.engine,
    chunk_size=special.chunk_size,
    target_epsilon=target,
    noise=special.get("noise", "flat"),
  )


def _schedule(fields, num_records, private):
  """The noise schedule; without a period it changes once an epoch."""
  fields = given(fields)
  # An impossible batch size is refused by the plan, which names it.
  epoch = round(num_records / max(1, private.expected_batch_size))
  fields.setdefault("period", max(1, epoch))
  return privacy.NoiseSchedule(**fields)
