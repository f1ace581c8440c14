"""DpSgdPlan: one object builds sampler, clipping, noise and accountant.

Private training goes silently wrong when these four disagree: a sampler that
the accountant does not know, noise for a sum added to a mean, a sensitivity
typed in by hand. Here they are read off one frozen record.
"""

import dataclasses
import hashlib
import json
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from trustjax.privacy import (
  _calibration,
  _engines,
  _lot,
  _mechanism,
  _rules,
  _sampling,
)

PyTree = Any
# Relative slack when a sampling rate is compared with a batch size.
_RATE_TOLERANCE = 1e-9


@dataclasses.dataclass(frozen=True, kw_only=True)
class DpSgdPlan:
  """Everything that a guarantee of private training depends on.

  With clip_group_size 1 this is DP-SGD with exact per-record clipping; above 1
  it is the eDP-SGD scheme, where the mean gradient of a clip group is clipped
  as one, at twice the sensitivity.

  Attributes:
    mechanism: Sampling, number of steps, noise and its schedule, adjacency.
    rule: Clipping rule.
    num_records: Records in the data set; treated as public.
    expected_batch_size: Expected records in a lot, sampling rate x records.
    clip_group_size: Nominal records per clip unit (privacy, not memory).
    group_capacity: Slots of a clip group; None takes the default, which drops
      about one record in a hundred (`_sampling.default_group_capacity`).

  Raises:
    ValueError: The fields contradict each other; the message names them.
  """

  mechanism: _mechanism.Mechanism
  rule: _rules.ClippingRule
  num_records: int
  expected_batch_size: float
  clip_group_size: int = 1
  group_capacity: int | None = None

  def __post_init__(self):
    self._check_batch_size()
    self._check_groups()
    factor = _sensitivity_factor(self.clip_group_size)
    if self.mechanism.sensitivity_factor != factor:
      raise ValueError(
        "mechanism.sensitivity_factor: got"
        f" {self.mechanism.sensitivity_factor}; with clip_group_size"
        f" {self.clip_group_size} it is {factor} (use DpSgdPlan.make, which"
        " computes it)"
      )
    object.__setattr__(self, "rule", self.rule.for_units(self.expected_units))
    self.gradient_noise_multipliers()  # Refuses an overspent budget now.

  def _check_batch_size(self):
    if not 0 < self.expected_batch_size <= self.num_records:
      raise ValueError(
        f"expected_batch_size: got {self.expected_batch_size}; it must be"
        f" positive and at most the data set's {self.num_records} records"
      )
    rate = self.expected_batch_size / self.num_records
    if abs(self.mechanism.sampling_rate - rate) > _RATE_TOLERANCE * rate:
      raise ValueError(
        f"mechanism.sampling_rate: got {self.mechanism.sampling_rate}; an"
        f" expected batch of {self.expected_batch_size} from"
        f" {self.num_records} records means {rate}"
      )

  def _check_groups(self):
    size = self.clip_group_size
    if size < 1:
      raise ValueError(f"clip_group_size: got {size}; it must be at least 1")
    if size == 1:
      if self.group_capacity not in (None, 1):
        raise ValueError(
          f"group_capacity: got {self.group_capacity}; it only applies when"
          " clip_group_size is above 1"
        )
      return
    if self.expected_batch_size % size:
      raise ValueError(
        f"clip_group_size: got {size}; it must divide the expected batch"
        f" size {self.expected_batch_size}, so that the number of groups is"
        " a constant"
      )
    if self.mechanism.sampler == "truncated_poisson":
      raise ValueError(
        "mechanism.sampler: got 'truncated_poisson' with clip groups; a"
        " removed record readmits another one elsewhere, which changes up to"
        " two groups (sensitivity 4C). Use 'poisson' or 'shuffled'"
      )
    if self.group_capacity is not None and self.group_capacity < 1:
      raise ValueError(
        f"group_capacity: got {self.group_capacity}; it must be at least 1"
      )

  @classmethod
  def make(
    cls,
    *,
    num_records: int,
    expected_batch_size: float,
    rule: _rules.ClippingRule,
    clip_group_size: int = 1,
    group_capacity: int | None = None,
    **mechanism_fields,
  ) -> "DpSgdPlan":
    """Builds a plan and its mechanism, with the sensitivity worked out.

    Args:
      num_records: Records in the data set.
      expected_batch_size: Expected records in a lot.
      rule: Clipping rule.
      clip_group_size: Nominal records per clip unit.
      group_capacity: Slots of a clip group.
      **mechanism_fields: Fields of `Mechanism`, less the sampling rate, the
        number of records and the sensitivity factor, which follow.

    Returns:
      The plan.

    Raises:
      ValueError: The fields contradict each other.

    Example:
      >>> plan = DpSgdPlan.make(
      ...   num_records=13084,
      ...   expected_batch_size=256,
      ...   rule=AutoClip(),
      ...   num_steps=511,
      ...   noise_multiplier=1.0,
      ... )
    """
    if not 0 < expected_batch_size <= num_records:
      raise ValueError(
        f"expected_batch_size: got {expected_batch_size}; it must be"
        f" positive and at most the data set's {num_records} records"
      )
    mechanism = _mechanism.Mechanism(
      sampling_rate=expected_batch_size / num_records,
      num_records=num_records,
      sensitivity_factor=_sensitivity_factor(clip_group_size),
      **mechanism_fields,
    )
    return cls(
      mechanism=mechanism,
      rule=rule,
      num_records=num_records,
      expected_batch_size=expected_batch_size,
      clip_group_size=clip_group_size,
      group_capacity=group_capacity,
    )

  def replace_mechanism(self, **changes) -> "DpSgdPlan":
    """The same plan with some fields of its mechanism changed."""
    return dataclasses.replace(
      self, mechanism=dataclasses.replace(self.mechanism, **changes)
    )

  def calibrate(
    self, target_epsilon: float, delta: float, *, accountant: str = "pld"
  ) -> "DpSgdPlan":
    """The same plan with the least noise whose epsilon meets a target.

    Args:
      target_epsilon: Epsilon of the whole run, schedule and clip groups
        included, to stay at or below.
      delta: In (0, 1).
      accountant: "pld" or "rdp".

    Returns:
      The plan with its noise multiplier.

    Raises:
      ValueError: No noise multiplier up to 10,000 reaches the target.
    """
    return dataclasses.replace(
      self,
      mechanism=_calibration.calibrate_noise_multiplier(
        self.mechanism, target_epsilon, delta, accountant=accountant
      ),
    )

  @property
  def expected_units(self) -> float:
    """Clip units that a lot is divided by: groups, or expected records."""
    if self.clip_group_size == 1:
      return self.expected_batch_size
    return self.expected_batch_size // self.clip_group_size

  @property
  def slots_per_group(self) -> int:
    """Slots of a clip group, 1 when records are clipped by themselves."""
    if self.clip_group_size == 1:
      return 1
    if self.mechanism.sampler == "shuffled":
      return self.clip_group_size
    return self.group_capacity or _sampling.default_group_capacity(
      self.clip_group_size
    )

  def gradient_noise_multipliers(self) -> np.ndarray:
    """Noise multiplier of the gradient at each step, [num_steps] float64.

    They exceed the mechanism's where the rule spends part of the budget.
    """
    return self.rule.gradient_noise_multipliers(
      self.mechanism.noise_multipliers()
    )

  def lot_indices(
    self, seed: int, step: int, *, capacity_multiple: int = 8
  ) -> _sampling.LotIndices:
    """Draws the lot of a step: which record sits in which slot.

    Args:
      seed: Seed of the run. The lot is a function of (seed, step) alone.
      step: Step, from 0.
      capacity_multiple: Padded lots are a multiple of this many slots, so
        that a chunk size can divide them.

    Returns:
      Indices and validity, [slots] or [groups, slots].
    """
    mechanism, batch = self.mechanism, self.expected_batch_size
    addressed: dict[str, Any] = dict(
      num_records=self.num_records, seed=seed, step=step
    )
    if mechanism.sampler == "shuffled":
      lot = _sampling.shuffled_lot(batch_size=int(batch), **addressed)
      return lot if self.clip_group_size == 1 else self._in_groups(lot)
    addressed["sampling_rate"] = mechanism.sampling_rate
    if self.clip_group_size > 1:
      return _sampling.grouped_poisson_lot(
        num_groups=int(self.expected_units),
        group_capacity=self.slots_per_group,
        **addressed,
      )
    if mechanism.sampler == "truncated_poisson":
      assert mechanism.capacity is not None  # The mechanism sees to it.
      return _sampling.truncated_poisson_lot(
        capacity=mechanism.capacity, **addressed
      )
    return _sampling.poisson_lot(
      capacity_multiple=capacity_multiple, **addressed
    )

  def draw_lot(
    self,
    examples: PyTree,
    seed: int,
    step: int,
    *,
    capacity_multiple: int = 8,
  ) -> _lot.Lot:
    """Draws the lot of a step and fetches its records.

    Args:
      examples: Pytree of host arrays, each with leading axis [num_records].
      seed: Seed of the run.
      step: Step, from 0.
      capacity_multiple: As in `lot_indices`.

    Returns:
      The lot, with leading axes [slots] or [groups, slots].

    Raises:
      ValueError: An array does not hold this plan's number of records.
    """
    for path, leaf in jax.tree_util.tree_leaves_with_path(examples):
      if np.shape(leaf)[:1] != (self.num_records,):
        raise ValueError(
          f"examples{jax.tree_util.keystr(path)}: got shape"
          f" {np.shape(leaf)}; the leading axis must be the plan's"
          f" {self.num_records} records"
        )
    drawn = self.lot_indices(seed, step, capacity_multiple=capacity_multiple)
    return _lot.Lot(
      examples=jax.tree.map(lambda leaf: leaf[drawn.indices], examples),
      valid=drawn.valid,
      ids=drawn.indices,
    )

  def _in_groups(self, lot):
    """Cuts a shuffled batch into groups; the shuffle itself is random."""
    shape = (int(self.expected_units), self.clip_group_size)
    return dataclasses.replace(
      lot,
      indices=lot.indices.reshape(shape),
      valid=lot.valid.reshape(shape),
    )

  def clipped_grad(
    self,
    loss_fn: Callable,
    *,
    engine: str = "auto",
    chunk_size: int | None = None,
    mesh: jax.sharding.Mesh | None = None,
  ) -> Callable[..., _lot.ClippedGrads]:
    """`trustjax.privacy.clipped_grad` with this plan's rule and groups."""
    return _engines.clipped_grad(
      loss_fn,
      self.rule,
      clip_group_size=self.clip_group_size,
      engine=engine,
      chunk_size=chunk_size,
      mesh=mesh,
    )

  def epsilon(self, delta: float) -> _mechanism.EpsilonBounds:
    """Epsilon of the whole run at `delta`, by PLD and by RDP."""
    return self.mechanism.epsilon(delta)

  def naive_epsilon(self, delta: float) -> _mechanism.EpsilonBounds:
    """Epsilon if clip groups had sensitivity C. NOT a guarantee: it is 2C.

    For comparison with published figures only; equal to `epsilon` when records
    are clipped by themselves.
    """
    return self.mechanism.naive().epsilon(delta)

  def statement(self) -> str:
    """The guarantee in plain words, with its assumptions."""
    unit = (
      "Each record is clipped by itself."
      if self.clip_group_size == 1
      else (
        f"Mean gradients of clip groups of {self.clip_group_size} records"
        " are clipped as one; a record may move a group's clipped mean"
        " across the whole ball, so the sensitivity is twice the clip norm."
      )
    )
    return f"{self.mechanism.statement()}\n{unit} Rule: {self.rule}."

  def describe(self) -> dict[str, Any]:
    """The plan as JSON-able data, for records and checkpoints."""
    return json.loads(json.dumps(_as_data(self), sort_keys=True))

  def fingerprint(self) -> str:
    """Hash of `describe`: two runs may continue each other only if equal."""
    text = json.dumps(self.describe(), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _sensitivity_factor(clip_group_size: int) -> float:
  """What the accountant divides the noise multiplier by.

  Under replace-one the accountant's own neighbouring relation supplies the
  distance of two clipped gradients, so only the group's factor enters here.
  """
  return _rules.sensitivity_in_clip_norms(clip_group_size, "add_remove")


def _as_data(value):
  if dataclasses.is_dataclass(value):
    return {"kind": type(value).__name__} | {
      field.name: _as_data(getattr(value, field.name))
      for field in dataclasses.fields(value)
    }
  return value
