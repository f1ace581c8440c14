"""Epsilon by dp-accounting: events, two accountants, and their traps."""

import contextlib
import dataclasses
import functools
import logging
import math

import dp_accounting
import numpy as np
import scipy.optimize
import scipy.special
from absl import logging as absl_logging
from dp_accounting import rdp
from dp_accounting.pld import privacy_loss_distribution as loss_distribution

from trustjax.privacy import _loss_grid

_RELATION = dp_accounting.NeighboringRelation
_RELATIONS = {
  "add_remove": _RELATION.ADD_OR_REMOVE_ONE,
  "zero_out": _RELATION.REPLACE_SPECIAL,
  "replace_one": _RELATION.REPLACE_ONE,
}
# Grid of the privacy loss: the accountant's default, and one that a search for
# a bracket may use. Either gives an upper bound; the coarse one is looser by
# about 1e-4 of epsilon, and eight times as fast. Both widen for runs that
# would not fit in memory (`_loss_grid`).
FINE, COARSE = 1e-4, 1e-3
# Distinct noise multipliers that PLD composes one by one.
_MAX_PIECES = 64
# Effective multipliers below this count as no noise: epsilon would exceed half
# a million, and its square overflows on the way to zero.
_LEAST_NOISE = 1e-3
# How far apart, in clip norms, the sums of neighbouring lots may lie. In a
# truncated lot a record may also take the place of another.
_DISTANCES = {"add_remove": 1.0, "zero_out": 1.0, "replace_one": 2.0}
_TRUNCATED_DISTANCE = 2.0
_NO_RDP_REPLACE_ONE = "RDP has no bound for replace-one under Poisson sampling"
_NO_RDP_TRUNCATED = "RDP has no bound for truncated Poisson sampling"
_RDP_UNSTABLE = (
  "the RDP accountant lost its precision on this mechanism, so its value is"
  " not a bound"
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class EpsilonBounds:
  """Two upper bounds on the same epsilon.

  Attributes:
    pld: By privacy loss distributions, the tighter and the headline; or the
      closed form without amplification where that is smaller still (a delta
      below the accountant's rounding). Infinite only without noise, or
      with less than a thousandth of the sensitivity.
    rdp: By Renyi divergences; None where no sound bound is available.
    rdp_reason: Why `rdp` is None.
  """

  pld: float
  rdp: float | None
  rdp_reason: str | None = None

  @property
  def best(self) -> float:
    """The headline: the bound by privacy loss distributions."""
    return self.pld


@dataclasses.dataclass(frozen=True, kw_only=True)
class GaussianPiece:
  """Consecutive steps with the same noise.

  Attributes:
    noise_multiplier: Effective: noise std over the sum's sensitivity.
    num_steps: How many steps.
  """

  noise_multiplier: float
  num_steps: int


def check_delta(delta: float) -> None:
  """Raises ValueError unless 0 < delta < 1."""
  if not 0 < delta < 1:
    raise ValueError(f"delta: got {delta}; it must lie strictly in (0, 1)")


def merge_pieces(noise_multipliers: np.ndarray) -> tuple[GaussianPiece, ...]:
  """Gathers equal noise multipliers, wherever in the run they occur.

  Composition does not depend on the order. A schedule with more distinct
  values than PLD can compose in reasonable time is rounded down to a grid,
  which can only raise epsilon: the bound stays a bound.

  Args:
    noise_multipliers: Effective multiplier of every step.

  Returns:
    Pieces by falling multiplier.
  """
  values = np.asarray(noise_multipliers, np.float64)
  if values.min() < _LEAST_NOISE:  # One such step undoes all the others.
    return (GaussianPiece(noise_multiplier=0.0, num_steps=values.size),)
  if np.unique(values).size > _MAX_PIECES:
    grid = np.geomspace(values.min(), values.max(), _MAX_PIECES)
    grid[0] = values.min()  # geomspace may end a rounding error above it.
    values = grid[np.searchsorted(grid, values, side="right") - 1]
  distinct, counts = np.unique(values, return_counts=True)
  return tuple(
    GaussianPiece(noise_multiplier=float(value), num_steps=int(count))
    for value, count in zip(distinct[::-1], counts[::-1])
  )


def poisson_epsilon(
  pieces: tuple[GaussianPiece, ...],
  sampling_rate: float,
  adjacency: str,
  delta: float,
  interval: float = FINE,
) -> EpsilonBounds:
  """Epsilon of Poisson-sampled Gaussian steps."""
  no_rdp = _NO_RDP_REPLACE_ONE if adjacency == "replace_one" else None
  if _is_noiseless(pieces):
    return EpsilonBounds(
      pld=math.inf, rdp=None if no_rdp else math.inf, rdp_reason=no_rdp
    )
  distance = _DISTANCES[adjacency]
  bound = unamplified_epsilon(pieces, distance, delta)
  if sampling_rate < 1:  # Otherwise the closed form is exact.
    spacing = _affordable(pieces, distance, sampling_rate, interval)
    composed = _composed_epsilon(
      pieces,
      lambda sigma: _poisson_loss(sigma, sampling_rate, adjacency, spacing),
      delta,
    )
    bound = min(bound, composed)
  if no_rdp:
    return EpsilonBounds(pld=bound, rdp=None, rdp_reason=no_rdp)
  return _with_rdp(
    bound,
    pieces,
    lambda piece: dp_accounting.PoissonSampledDpEvent(
      sampling_rate, dp_accounting.GaussianDpEvent(piece.noise_multiplier)
    ),
    delta,
  )


def truncated_poisson_epsilon(
  pieces: tuple[GaussianPiece, ...],
  sampling_rate: float,
  num_records: int,
  capacity: int,
  adjacency: str,
  delta: float,
  interval: float = FINE,
) -> EpsilonBounds:
  """Epsilon when lots beyond `capacity` keep a random subset."""
  bound = math.inf
  if not _is_noiseless(pieces):
    # The accountant mixes in a pair of distance 2 on each side.
    spacing = _affordable(
      pieces, 2 * _TRUNCATED_DISTANCE, sampling_rate, interval
    )
    composed = _composed_epsilon(
      pieces,
      lambda sigma: _truncated_loss(
        sigma, sampling_rate, num_records, capacity, adjacency, spacing
      ),
      delta,
    )
    bound = min(
      composed, unamplified_epsilon(pieces, _TRUNCATED_DISTANCE, delta)
    )
  return EpsilonBounds(pld=bound, rdp=None, rdp_reason=_NO_RDP_TRUNCATED)


def shuffled_epsilon(
  noise_multipliers: np.ndarray,
  steps_per_epoch: int,
  adjacency: str,
  delta: float,
) -> EpsilonBounds:
  """Epsilon of fixed batches, each record at most once an epoch.

  No amplification is claimed. Which batch of an epoch a record meets is
  data-independent, so it meets, at worst, the epoch's least noise:
  mu^2 = sum over epochs of 1 / min(sigma)^2, and the curve is the Gaussian's.
  """
  values = np.asarray(noise_multipliers, np.float64)
  if values.min() < _LEAST_NOISE:
    return EpsilonBounds(pld=math.inf, rdp=math.inf)
  starts = np.arange(0, values.size, steps_per_epoch)
  least = np.minimum.reduceat(values, starts)
  # Replacing a record is twice zeroing it; inside clip groups, whose factor is
  # in the multiplier already, this is conservative.
  distance = _DISTANCES[adjacency]
  return _with_rdp(
    gaussian_epsilon(distance * math.sqrt(float(np.sum(least**-2.0))), delta),
    merge_pieces(least / distance),
    lambda piece: dp_accounting.GaussianDpEvent(piece.noise_multiplier),
    delta,
  )


def unamplified_epsilon(
  pieces: tuple[GaussianPiece, ...], distance: float, delta: float
) -> float:
  """Epsilon if every record were in every lot: holds under any sampling.

  Args:
    pieces: Steps with noise.
    distance: Of neighbouring sums, over the sensitivity.
    delta: In (0, 1).

  Returns:
    The Gaussian curve at mu^2 = distance^2 sum_t 1 / sigma_t^2.
  """
  total = sum(p.num_steps / p.noise_multiplier**2 for p in pieces)
  return gaussian_epsilon(distance * math.sqrt(total), delta)


def gaussian_epsilon(mu: float, delta: float) -> float:
  """Exact epsilon of a mechanism that is mu-Gaussian private.

  Solves delta = Phi(mu/2 - eps/mu) - exp(eps) Phi(-mu/2 - eps/mu).

  Args:
    mu: Sensitivity over noise standard deviation.
    delta: Target delta in (0, 1).

  Returns:
    The smallest epsilon >= 0.

  References:
    Balle and Wang, ICML 2018; Dong, Roth and Su, JRSS-B 2022.
  """
  check_delta(delta)
  if mu == 0:
    return 0.0

  def excess(epsilon):
    log_a = scipy.special.log_ndtr(mu / 2 - epsilon / mu)
    log_b = epsilon + scipy.special.log_ndtr(-mu / 2 - epsilon / mu)
    # a - b in logarithms, where both may be tiny.
    log_gap = log_a + math.log(-math.expm1(min(log_b - log_a, -1e-300)))
    return log_gap - math.log(delta)

  if excess(0.0) <= 0:
    return 0.0
  high = 1.0
  while excess(high) > 0:
    high *= 2
  found = scipy.optimize.root_scalar(
    excess, bracket=(0.0, high), method="brentq", xtol=1e-12
  )
  return float(found.root)


# The loss distribution of one step costs far more than composing it, and runs
# that differ in length, or schedules that share values, share their steps.
@functools.lru_cache(maxsize=128)
def _poisson_loss(sigma, sampling_rate, adjacency, interval):
  return loss_distribution.from_gaussian_mechanism(
    sigma,
    sampling_prob=sampling_rate,
    neighboring_relation=_RELATIONS[adjacency],
    value_discretization_interval=interval,
  )


@functools.lru_cache(maxsize=32)
def _truncated_loss(
  sigma, sampling_rate, num_records, capacity, adjacency, interval
):
  return loss_distribution.from_truncated_subsampled_gaussian_mechanism(
    dataset_size=num_records,
    sampling_probability=sampling_rate,
    truncated_batch_size=capacity,
    noise_multiplier=sigma,
    neighboring_relation=_RELATIONS[adjacency],
    value_discretization_interval=interval,
  )


def _is_noiseless(pieces):
  return any(piece.noise_multiplier == 0 for piece in pieces)


def _affordable(pieces, distance, sampling_rate, interval):
  return _loss_grid.affordable_interval(
    [piece.noise_multiplier / distance for piece in pieces],
    [piece.num_steps for piece in pieces],
    sampling_rate,
    interval,
  )


def _composed_epsilon(pieces, loss_of_step, delta):
  """Epsilon of all pieces together, from the loss of one step of each."""
  parts = [
    loss_of_step(piece.noise_multiplier).self_compose(piece.num_steps)
    for piece in pieces
  ]
  whole = functools.reduce(lambda one, other: one.compose(other), parts)
  epsilon = float(whole.get_epsilon_for_delta(delta))
  if math.isnan(epsilon):
    raise ValueError(
      "epsilon: the PLD accountant returned NaN for noise multipliers from"
      f" {pieces[-1].noise_multiplier:g} to {pieces[0].noise_multiplier:g}"
    )
  return epsilon


def _with_rdp(bound, pieces, event, delta):
  """Adds the bound by RDP, or the reason why there is none."""
  # Zero-out equals add-or-remove for sampled Gaussians, and the RDP accountant
  # only knows the latter.
  accountant = rdp.RdpAccountant()
  with _quiet_orders():
    for piece in pieces:
      accountant.compose(event(piece), piece.num_steps)
    epsilon = float(accountant.get_epsilon(delta))
  # From a negative divergence, which is a rounding error, the accountant
  # makes an epsilon of zero and a line in the log. Not every log is read.
  lowest = np.min(accountant._rdp)  # pylint: disable=protected-access
  if lowest < 0 or not math.isfinite(epsilon):
    return EpsilonBounds(pld=bound, rdp=None, rdp_reason=_RDP_UNSTABLE)
  return EpsilonBounds(pld=bound, rdp=epsilon)


@contextlib.contextmanager
def _quiet_orders():
  """Drops the RDP accountant's lines about single orders.

  An order that did not converge is left out, which loosens the bound and
  never breaks it. A negative divergence does break it, and the caller looks
  for those itself.
  """

  def keep(record):
    return not record.pathname.endswith("rdp_privacy_accountant.py")

  logger: logging.Logger = absl_logging.get_absl_logger()
  logger.addFilter(keep)
  try:
    yield
  finally:
    logger.removeFilter(keep)
