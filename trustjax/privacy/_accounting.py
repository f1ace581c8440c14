"""Epsilon by dp-accounting: events, two accountants, and their traps."""

import contextlib
import dataclasses
import functools
import logging
import math

from absl import logging as absl_logging
import dp_accounting
from dp_accounting import rdp
from dp_accounting.pld import privacy_loss_distribution as loss_distribution
import numpy as np
import scipy.optimize
import scipy.special

_RELATION = dp_accounting.NeighboringRelation
_RELATIONS = {
    "add_remove": _RELATION.ADD_OR_REMOVE_ONE,
    "zero_out": _RELATION.REPLACE_SPECIAL,
    "replace_one": _RELATION.REPLACE_ONE,
}
# Grid of the privacy loss: the accountant's default, and one that a search for
# a bracket may use. Either gives an upper bound; the coarse one is looser by
# about 1e-4 of epsilon, and eight times as fast.
FINE, COARSE = 1e-4, 1e-3
# Distinct noise multipliers that PLD composes one by one.
_MAX_PIECES = 32


@dataclasses.dataclass(frozen=True, kw_only=True)
class EpsilonBounds:
  """Two upper bounds on the same epsilon.

  Attributes:
    pld: By privacy loss distributions, the tighter and the headline.
    rdp: By Renyi divergences; None where no sound bound is available.
    rdp_reason: Why `rdp` is None.
  """

  pld: float
  rdp: float | None
  rdp_reason: str | None = None


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
  if any(piece.noise_multiplier == 0 for piece in pieces):
    return EpsilonBounds(pld=math.inf, rdp=math.inf)

  def event(piece):
    return dp_accounting.PoissonSampledDpEvent(
        sampling_rate, dp_accounting.GaussianDpEvent(piece.noise_multiplier)
    )

  bound = _composed_epsilon(
      pieces,
      lambda sigma: _poisson_loss(sigma, sampling_rate, adjacency, interval),
      delta,
  )
  if adjacency == "replace_one":
    # The RDP accountant has no bound for this relation under Poisson sampling.
    return EpsilonBounds(
        pld=bound,
        rdp=None,
        rdp_reason="RDP has no bound for replace-one under Poisson sampling",
    )
  return EpsilonBounds(pld=bound, rdp=_rdp_epsilon(pieces, event, delta))


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

  no_rdp = "RDP has no bound for truncated Poisson sampling"
  if any(piece.noise_multiplier == 0 for piece in pieces):
    return EpsilonBounds(pld=math.inf, rdp=None, rdp_reason=no_rdp)
  return EpsilonBounds(
      pld=_composed_epsilon(
          pieces,
          lambda sigma: _truncated_loss(
              sigma, sampling_rate, num_records, capacity, adjacency, interval
          ),
          delta,
      ),
      rdp=None,
      rdp_reason=no_rdp,
  )


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
  if np.any(values == 0):
    return EpsilonBounds(pld=math.inf, rdp=math.inf)
  starts = np.arange(0, values.size, steps_per_epoch)
  least = np.minimum.reduceat(values, starts)
  # Replacing a record is twice zeroing it; inside clip groups, whose factor is
  # in the multiplier already, this is conservative.
  distance = 2.0 if adjacency == "replace_one" else 1.0
  pieces = merge_pieces(least / distance)
  return EpsilonBounds(
      pld=gaussian_epsilon(
          distance * math.sqrt(float(np.sum(least**-2.0))), delta
      ),
      rdp=_rdp_epsilon(
          pieces,
          lambda piece: dp_accounting.GaussianDpEvent(piece.noise_multiplier),
          delta,
      ),
  )


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
  return float(scipy.optimize.brentq(excess, 0.0, high, xtol=1e-12))


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


def _composed_epsilon(pieces, loss_of_step, delta):
  """Epsilon of all pieces together, from the loss of one step of each."""
  parts = [
      loss_of_step(piece.noise_multiplier).self_compose(piece.num_steps)
      for piece in pieces
  ]
  whole = functools.reduce(lambda one, other: one.compose(other), parts)
  return float(whole.get_epsilon_for_delta(delta))


def _rdp_epsilon(pieces, event, delta):
  # Zero-out equals add-or-remove for sampled Gaussians, and the RDP accountant
  # only knows the latter.
  accountant = rdp.RdpAccountant()
  with _quiet_orders():
    for piece in pieces:
      accountant.compose(event(piece), piece.num_steps)
    return float(accountant.get_epsilon(delta))


@contextlib.contextmanager
def _quiet_orders():
  """Drops the accountant's notes on single orders that do not converge.

  An order that is left out loosens the bound and never breaks it.
  """

  def keep(record):
    return "rdp" not in record.pathname

  logger: logging.Logger = absl_logging.get_absl_logger()
  logger.addFilter(keep)
  try:
    yield
  finally:
    logger.removeFilter(keep)
