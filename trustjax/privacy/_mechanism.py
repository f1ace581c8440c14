"""Mechanism: the only place where protecting randomness is described."""

import dataclasses
import functools
import math
import numpy as np

from trustjax.privacy import _accounting
from trustjax.privacy import _rules
from trustjax.privacy import _sampling
from trustjax.privacy import _schedules

Adjacency = _rules.Adjacency
Sampler = str
EpsilonBounds = _accounting.EpsilonBounds

_SAMPLERS = ("poisson", "truncated_poisson", "shuffled")
_NEIGHBOURS = {
    "add_remove": "one record is added or removed",
    "zero_out": "one record is replaced by an empty one",
    "replace_one": "one record is replaced by another",
}


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
    sensitivity_factor: S / C: 1 for records clipped by themselves, 2 for clip
      groups. Under "replace_one" the accountant supplies the distance between
      two records and this stays the same.
    capacity: Most records in a lot of "truncated_poisson".
    num_records: Records in the data set; needed unless sampling is Poisson.
  """

  sampling_rate: float
  num_steps: int
  noise_multiplier: float
  sampler: Sampler = "poisson"
  schedule: _schedules.NoiseSchedule = _schedules.NoiseSchedule()
  adjacency: Adjacency = "add_remove"
  sensitivity_factor: float = 1.0
  capacity: int | None = None
  num_records: int | None = None

  def __post_init__(self):
    if not 0 < self.sampling_rate <= 1:
      raise ValueError(
          f"sampling_rate: got {self.sampling_rate}; it must lie in (0, 1]"
      )
    if self.num_steps < 1 or self.num_steps != int(self.num_steps):
      raise ValueError(
          f"num_steps: got {self.num_steps}; it must be a whole number, at"
          " least 1"
      )
    if not (math.isfinite(self.noise_multiplier) and self.noise_multiplier >= 0):
      raise ValueError(
          f"noise_multiplier: got {self.noise_multiplier}; it must be finite"
          " and at least 0"
      )
    if not (
        math.isfinite(self.sensitivity_factor) and self.sensitivity_factor > 0
    ):
      raise ValueError(
          f"sensitivity_factor: got {self.sensitivity_factor}; it must be"
          " finite and positive"
      )
    if self.adjacency not in _NEIGHBOURS:
      raise ValueError(
          f"adjacency: got {self.adjacency!r}; allowed are {list(_NEIGHBOURS)}"
      )
    if self.sampler not in _SAMPLERS:
      raise ValueError(
          f"sampler: got {self.sampler!r}; allowed are {list(_SAMPLERS)}"
      )
    if self.sampler == "truncated_poisson":
      self._check_truncated()
    elif self.capacity is not None:
      raise ValueError(
          f"capacity: got {self.capacity}; it only applies to the sampler"
          " 'truncated_poisson'"
      )
    if self.sampler == "shuffled":
      self._check_shuffled()

  def _check_truncated(self):
    if self.capacity is None or self.capacity < 1:
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
          " another one in another clip group, so groups have sensitivity 4C"
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

  def naive(self) -> "Mechanism":
    """The mechanism as if the sensitivity were C. NOT a guarantee."""
    return dataclasses.replace(self, sensitivity_factor=1.0)

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
    sampling = {
        "poisson": (
            f"Each record enters each of {self.num_steps} lots independently"
            f" with probability {self.sampling_rate:.6g} (Poisson sampling)."
        ),
        "truncated_poisson": (
            f"Each record enters each of {self.num_steps} lots independently"
            f" with probability {self.sampling_rate:.6g}; a lot of more than"
            f" {self.capacity} keeps a uniformly random subset, which is"
            " accounted for."
        ),
        "shuffled": (
            f"{self.num_steps} batches of fixed size are cut from a fresh"
            " permutation each epoch; no amplification by sampling is claimed."
        ),
    }[self.sampler]
    sigmas = self.noise_multipliers()
    noise = f"noise multiplier {sigmas[0]:.6g}"
    if sigmas.min() != sigmas.max():
      noise += f" changing to {sigmas[-1]:.6g} ({self.schedule.kind})"
    return (
        f"Unit: one record; neighbouring data sets differ in that"
        f" {_NEIGHBOURS[self.adjacency]}. {sampling} Gaussian noise:"
        f" {noise}, sum of sensitivity {self.sensitivity_factor:g} clip norms."
        " Assumptions: the noise generator is not cryptographic and"
        " floating-point attacks on it are out of scope; anything chosen by"
        " looking at the data (vocabulary and label inventory built from it,"
        " hyper-parameters searched on it, the number of records) is outside"
        " the guarantee; metrics of training are not private and must not be"
        " released."
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
