"""Who is trained on what: memberships, and lots of a model's own records."""

import dataclasses
import hashlib
from typing import Any

import jax
import numpy as np
from jaxtyping import Bool, Int

from trustjax import privacy

PyTree = Any

# What a seed is used for.
_MEMBERSHIPS, _LOTS = 0x3E3B, 0x3E3C


def draw_memberships(
  num_models: int,
  num_records: int,
  *,
  seed: int,
  share: float = 0.5,
  groups: Int[np.ndarray, " records"] | None = None,
) -> Bool[np.ndarray, "models records"]:
  """An independent coin for every model and record: in, or out.

  Exact halves would make a record that is in one model likelier to be out of
  the others, which biases attacks of models on each other (`lira_scores`).

  Args:
    num_models: Models.
    num_records: Records of the pool.
    seed: Seed of the coins; models added later do not change earlier ones.
    share: Probability of "in".
    groups: Group of each record, from 0; one coin for each group, so that
      copies of a text are in or out together.

  Returns:
    The memberships.

  Raises:
    ValueError: A size or the share is out of range.
  """
  for field, value in (
    ("num_models", num_models),
    ("num_records", num_records),
  ):
    if value < 1:
      raise ValueError(f"{field}: got {value}; it must be at least 1")
  if not 0 < share < 1:
    raise ValueError(f"share: got {share}; it must lie strictly in (0, 1)")
  if groups is None:
    groups = np.arange(num_records)
  if groups.shape != (num_records,):
    raise ValueError(
      f"groups: got shape {groups.shape}; it must be ({num_records},)"
    )
  rows = []
  for model in range(num_models):
    rng = np.random.default_rng((_MEMBERSHIPS, seed, model))
    rows.append(rng.random(int(groups.max()) + 1)[groups] < share)
  return np.stack(rows)


@dataclasses.dataclass(frozen=True, kw_only=True)
class MemberLots:
  """Which records a model of an ensemble sees at a step.

  With a plan, lots are drawn from a model's own records by the plan's sampler
  at its sampling rate, and `plan.epsilon` holds for each model with respect to
  its own records. Without one, batches are cut from a permutation of each
  epoch.

  Attributes:
    keep: Memberships.
    seed: Seed of all lots.
    plan: A plan with Poisson sampling. Its `num_records` is nominal (the
      expected members, for instance): only the sampling rate is used.
    batch_size: Records in a batch, without a plan.
    capacity_multiple: Slots come in multiples of this.

  Raises:
    ValueError: Neither or both of plan and batch size are given, the plan's
      sampler needs a fixed number of records, or a model has too few.
  """

  keep: Bool[np.ndarray, "models records"]
  seed: int
  plan: privacy.DpSgdPlan | None = None
  batch_size: int | None = None
  capacity_multiple: int = 8

  def __post_init__(self):
    if (self.plan is None) == (self.batch_size is None):
      raise ValueError(
        "plan, batch_size: exactly one of them must be given, for private or"
        " for non-private lots"
      )
    if self.plan is not None and self.plan.mechanism.sampler != "poisson":
      raise ValueError(
        f"plan.mechanism.sampler: got {self.plan.mechanism.sampler!r}; models"
        " have different numbers of records, for which only 'poisson' keeps"
        " the sampling rate"
      )
    least = self.batch_size or 1
    members = self.keep.sum(axis=1)
    if least < 1 or (members < least).any():
      raise ValueError(
        f"keep: got {int(members.min())} records for model"
        f" {int(members.argmin())}; lots need at least {least}"
      )

  @property
  def num_models(self) -> int:
    """Models of the ensemble."""
    return len(self.keep)

  @property
  def usual_slots(self) -> int:
    """Leading slots (groups, with clip groups) of a lot of any model."""
    if self.plan is None:
      assert self.batch_size is not None  # Checked above.
      return self.batch_size
    if self.plan.clip_group_size > 1:
      return int(self.plan.expected_units)
    return privacy.default_lot_capacity(
      int(self.keep.sum(axis=1).max()),
      self.plan.mechanism.sampling_rate,
      self.capacity_multiple,
    )

  def draw(self, model: int, step: int) -> privacy.LotIndices:
    """The lot of a model at a step, as places in the pool.

    Args:
      model: Model, from 0.
      step: Step, from 0.

    Returns:
      Indices and validity, [slots] or [groups, slots].
    """
    members = np.flatnonzero(self.keep[model])
    words = np.random.SeedSequence((_LOTS, self.seed, model)).generate_state(2)
    addressed: dict[str, Any] = dict(
      num_records=members.size,
      seed=int(words[0]) << 32 | int(words[1]),
      step=step,
    )
    if self.plan is None:
      assert self.batch_size is not None  # Checked above.
      drawn = privacy.shuffled_lot(batch_size=self.batch_size, **addressed)
    elif self.plan.clip_group_size > 1:
      drawn = privacy.grouped_poisson_lot(
        sampling_rate=self.plan.mechanism.sampling_rate,
        num_groups=int(self.plan.expected_units),
        group_capacity=self.plan.slots_per_group,
        **addressed,
      )
    else:
      drawn = privacy.poisson_lot(
        sampling_rate=self.plan.mechanism.sampling_rate,
        capacity_multiple=self.capacity_multiple,
        **addressed,
      )
    places = members[drawn.indices].astype(np.int32)
    return dataclasses.replace(
      drawn, indices=np.where(drawn.valid, places, 0).astype(np.int32)
    )

  def draw_lot(self, examples: PyTree, model: int, step: int) -> privacy.Lot:
    """`draw` with the records fetched: the lot of a model trained alone.

    Args:
      examples: Pytree of host arrays with leading axis [records].
      model: Model, from 0.
      step: Step, from 0.

    Returns:
      The lot.
    """
    drawn = self.draw(model, step)
    return privacy.Lot(
      examples=jax.tree.map(lambda leaf: leaf[drawn.indices], examples),
      valid=drawn.valid,
      ids=drawn.indices,
    )

  def describe(self) -> dict[str, Any]:
    """Everything that the lots depend on, as JSON-able data."""
    packed = np.packbits(self.keep).tobytes()
    return {
      "memberships": hashlib.sha256(packed).hexdigest(),
      "shape": list(self.keep.shape),
      "lot_seed": self.seed,
      "plan": self.plan.describe() if self.plan else None,
      "batch_size": self.batch_size,
      "capacity_multiple": self.capacity_multiple,
    }
