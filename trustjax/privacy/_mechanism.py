"""Mechanism: the only place where protecting randomness is described."""

import dataclasses
import functools
import math
from typing import Any

import numpy as np

from trustjax.privacy import _accounting, _rules, _sampling, _schedules

Adjacency = _rules.Adjacency
Sampler = str
EpsilonBounds = _accounting.EpsilonBounds

_CONSTANT = _schedules.NoiseSchedule()
_SAMPLERS = ("poisson", "truncated_poisson", "shuffled")
_NEIGHBOURS = {
  "add_remove": "one record is added or removed",
  "zero_out": "one record is replaced by an empty one",
  "replace_one": "one record is replaced by another",
}
_ASSUMPTIONS = (
  "Assumptions: the noise generator is not cryptographic and floating-point"
  " attacks on it are out of scope; anything chosen by looking at the data"
  " (vocabulary and label inventory built from it, hyper-parameters searched"
  " on it, the number of records) is outside the guarantee; metrics of"
  " training are not private and must not be released."
)


def _is_count(value):
  return isinstance(value, (int, np.integer)) and value >= 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mechanism:
  """A sampled Gaussian mechanism, repeated.

  At step t a lot is sampled, a sum of sensitivity S = sensitivity_factor * C
  is formed, and N(0, (sigma_t C)^2 I) is added, where C is the clip norm and
  sigma_t = noise_multiplier * schedule factor.

  Attributes:
    sampling_rate: Expected share of the records in a lot, in (0, 1].
    num_steps: Number of releases.
    noise_multiplier: sigma before the schedule; 0 means no noise, whose
      epsilon is infinite.
    sampler: "poisson", "truncated_poisson", or "shuffled" (fixed batches, each
      record at most once an epoch, no amplification).
    schedule: Factor on the noise multiplier over the run.
    adjacency: "add_remove", "zero_out" or "replace_one".
    sensitivity_factor: S / C, at least 1: 1 for records clipped by themselves,
      2 for clip groups. Under "replace_one" the accountant supplies the
      distance between two records and this stays the same.
    capacity: Most records in a lot of "truncated_poisson".
    num_records: Records in the data set; needed unless sampling is Poisson.

  Raises:
    ValueError: A field is out of range or contradicts another.

  Example:
    >>> run = Mechanism(
    ...   sampling_rate=0.01, num_steps=1000, noise_multiplier=1.0
    ... )
    >>> round(run.epsilon(1e-5).pld, 3)
    1.828
  """

  sampling_rate: float
  num_steps: int
  noise_multiplier: float
  sampler: Sampler = "poisson"
  schedule: _schedules.NoiseSchedule = _CONSTANT
  adjacency: Adjacency = "add_remove"
  sensitivity_factor: float = 1.0
  capacity: int | None = None
  num_records: int | None = None

  def __post_init__(self):
    self._check_ranges()
    if self.sampler == "truncated_poisson":
      self._check_truncated()
    elif self.capacity is not None:
      raise ValueError(
        f"capacity: got {self.capacity}; it only applies to the sampler"
        " 'truncated_poisson'"
      )
    if self.sampler == "shuffled":
      self._check_shuffled()

  def _check_ranges(self):
    if not 0 < self.sampling_rate <= 1:
      raise ValueError(
        f"sampling_rate: got {self.sampling_rate}; it must lie in (0, 1]"
      )
    for field in ("num_steps", "capacity", "num_records"):
      value = getattr(self, field)
      optional = value is None and field != "num_steps"
      if not optional and not _is_count(value):
        raise ValueError(
          f"{field}: got {value}; it must be a whole number, at least 1"
        )
    if not (
      math.isfinite(self.noise_multiplier) and self.noise_multiplier >= 0
    ):
      raise ValueError(
        f"noise_multiplier: got {self.noise_multiplier}; it must be finite"
        " and at least 0"
      )
    if not 1 <= self.sensitivity_factor < math.inf:
      raise ValueError(
        f"sensitivity_factor: got {self.sensitivity_factor}; it must be"
        " finite and at least 1, since one record alone may move the sum by"
        " the clip norm"
      )
    if self.adjacency not in _NEIGHBOURS:
      raise ValueError(
        f"adjacency: got {self.adjacency!r}; allowed are {list(_NEIGHBOURS)}"
      )
    if self.sampler not in _SAMPLERS:
      raise ValueError(
        f"sampler: got {self.sampler!r}; allowed are {list(_SAMPLERS)}"
      )

  def _check_truncated(self):
    if self.capacity is None:
      raise ValueError(
        f"capacity: got {self.capacity}; the sampler 'truncated_poisson'"
        " needs the most records a lot may hold"
      )
    if self.num_records is None:
      raise ValueError(
        "num_records: got None; the sampler 'truncated_poisson' needs it"
      )
    if self.sensitivity_factor != 1.0:
      raise ValueError(
        f"sensitivity_factor: got {self.sensitivity_factor}; with the sampler"
        " 'truncated_poisson' it must be 1: a removed record readmits"
        " another one in another clip group, so groups have sensitivity 4C,"
        " and no other factor is accounted for"
      )

  def _check_shuffled(self):
    if self.num_records is None:
      raise ValueError("num_records: got None; the sampler 'shuffled' needs it")
    if self.adjacency == "add_remove":
      raise ValueError(
        "adjacency: got 'add_remove' with the sampler 'shuffled'; removing a"
        " record moves others to other batches. Use 'zero_out' or"
        " 'replace_one'"
      )
    batch = self.sampling_rate * self.num_records
    if round(batch) < 1 or abs(batch - round(batch)) > 1e-6:
      raise ValueError(
        f"sampling_rate: got {self.sampling_rate}; with the sampler"
        " 'shuffled' it must be a whole batch size over"
        f" {self.num_records} records, and it means a batch of {batch:g}"
      )

  def noise_multipliers(self) -> np.ndarray:
    """sigma_t of every step, float64 [num_steps]."""
    return self.noise_multiplier * self.schedule.factors(self.num_steps)

  def effective_noise_multipliers(self) -> np.ndarray:
    """sigma_t / sensitivity_factor: what the accountant sees, [num_steps]."""
    return self.noise_multipliers() / self.sensitivity_factor

  def epsilon(self, delta: float) -> EpsilonBounds:
    """Epsilon of the whole run.

    Guarantee:
      Both values are upper bounds for a run that samples, clips and adds noise
      as this mechanism says, under its adjacency, with one record as the unit.

    Args:
      delta: In (0, 1).

    Returns:
      Bounds by PLD and by RDP.

    Raises:
      ValueError: delta is out of range.
    """
    _accounting.check_delta(delta)
    return epsilon_bounds(self, delta, _accounting.FINE)

  def replace(self, **changes) -> "Mechanism":
    """The same mechanism with some fields changed, checked anew."""
    return dataclasses.replace(self, **changes)

  def naive(self) -> "Mechanism":
    """The mechanism as if the sensitivity were C. NOT a guarantee.

    For comparison with published figures only.

    Returns:
      This mechanism if its sensitivity is C; otherwise one whose statement
      says that it guarantees nothing.
    """
    if self.sensitivity_factor == 1:
      return self
    fields: dict[str, Any] = {
      f.name: getattr(self, f.name) for f in dataclasses.fields(self)
    }
    fields["sensitivity_factor"] = 1.0
    return NaiveMechanism(**fields)

  def prefix(self, num_steps: int) -> "Mechanism":
    """The first `num_steps` steps of this mechanism.

    The schedule "linear" ends at `final` in the last step of the whole run,
    so a prefix of it is refused.

    Args:
      num_steps: At least 1 and at most the whole run's.

    Returns:
      The shorter mechanism.
    """
    if not 1 <= num_steps <= self.num_steps:
      raise ValueError(
        f"num_steps: got {num_steps}; it must lie between 1 and"
        f" {self.num_steps}"
      )
    if self.schedule.kind == "linear":
      raise ValueError(
        "schedule.kind: got 'linear', whose slope depends on the number of"
        " steps; the epsilon of a prefix is not that of a shorter run"
      )
    return dataclasses.replace(self, num_steps=num_steps)

  def statement(self) -> str:
    """What is promised, in plain words, and what it rests on."""
    if self.noise_multiplier == 0:
      return (
        "No privacy: the noise multiplier is 0, so no noise is added and"
        " epsilon is infinite."
      )
    return " ".join(
      [self._unit(), self._sampling(), self._noise(), _ASSUMPTIONS]
    )

  def _unit(self):
    return (
      "Unit: one record; neighbouring data sets differ in that"
      f" {_NEIGHBOURS[self.adjacency]}. Whoever contributes several records"
      " is protected less."
    )

  def _sampling(self):
    lots = "lot" if self.num_steps == 1 else f"{self.num_steps} lots"
    each = "the one lot" if self.num_steps == 1 else f"each of {lots}"
    poisson = (
      f"Each record enters {each} independently with probability"
      f" {self.sampling_rate:.6g} (Poisson sampling)"
    )
    if self.sampler == "poisson":
      return poisson + "."
    if self.sampler == "truncated_poisson":
      return (
        f"{poisson}; a lot of more than {self.capacity} keeps a uniformly"
        " random subset of that size, which is accounted for."
      )
    batch = round(self.sampling_rate * (self.num_records or 0))
    return (
      f"Every epoch is a fresh permutation of the {self.num_records}"
      f" records, cut into batches of {batch} ({self.num_steps} steps in"
      " all); no amplification by sampling is claimed."
    )

  def _noise(self):
    sigmas = self.noise_multipliers()
    level = f"{sigmas[0]:.6g}"
    if sigmas.min() != sigmas.max():
      level += (
        f" at first, {sigmas[-1]:.6g} at last and {sigmas.min():.6g} at"
        f" least (schedule: {self.schedule.kind}, fixed in advance)"
      )
    factor = self.sensitivity_factor
    clips = "one clip norm" if factor == 1 else f"{factor:.6g} clip norms"
    return (
      f"Gaussian noise of standard deviation {level} clip norms is added to"
      f" a sum of sensitivity {clips}."
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class NaiveMechanism(Mechanism):
  """A mechanism accounted with too small a sensitivity: guarantees nothing."""

  def statement(self) -> str:
    """Says first that this is not a guarantee."""
    return (
      "NOT A GUARANTEE: the sensitivity of the clipped sum is understated."
      f" What would hold if it were one clip norm: {super().statement()}"
    )


@functools.lru_cache(maxsize=256)
def epsilon_bounds(
  mechanism: Mechanism, delta: float, interval: float
) -> EpsilonBounds:
  """`Mechanism.epsilon` at a given grid of the privacy loss; remembered."""
  sigmas = mechanism.effective_noise_multipliers()
  if mechanism.sampler == "shuffled":
    assert mechanism.num_records is not None
    batch = round(mechanism.sampling_rate * mechanism.num_records)
    return _accounting.shuffled_epsilon(
      sigmas,
      _sampling.steps_per_epoch(mechanism.num_records, batch),
      mechanism.adjacency,
      delta,
    )
  pieces = _accounting.merge_pieces(sigmas)
  if mechanism.sampler == "truncated_poisson":
    assert mechanism.num_records is not None and mechanism.capacity is not None
    return _accounting.truncated_poisson_epsilon(
      pieces,
      mechanism.sampling_rate,
      mechanism.num_records,
      mechanism.capacity,
      mechanism.adjacency,
      delta,
      interval,
    )
  return _accounting.poisson_epsilon(
    pieces, mechanism.sampling_rate, mechanism.adjacency, delta, interval
  )
