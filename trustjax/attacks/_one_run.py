"""Auditing in one training run: many canaries, one model, one guess each.

Each of m canaries is put into training, or left out, by its own fair coin.
From the trained model an attacker guesses r of the coins and abstains from the
rest. Differential privacy limits how many of these guesses can be right, so v
right ones are evidence against every epsilon that makes v improbable.

The bounds hold for a number of guesses that was fixed before the outcome was
seen: `OneRunPlan` writes it down. Taking the largest bound over several r, or
over thresholds, on the same outcome is not a bound at that confidence.
"""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Bool, Float
from scipy import special

from trustjax.attacks import _gaussian_dp, _validate
from trustjax.attacks._validate import AnyArray

METHODS = ("epsilon_delta", "gdp")
# Searches end here; certifying even 30 takes e^30 canaries.
_LARGEST_EPSILON = 60.0
_LARGEST_MU = 30.0
_STEPS = 60
# Names the random stream that breaks ties.
_TIES = int.from_bytes(b"ties")


@dataclasses.dataclass(frozen=True, kw_only=True)
class OneRunResult:
  """Outcome of an audit in one run.

  Attributes:
    epsilon_lower_bound: epsilon at the plan's delta is at least this, with the
      plan's confidence; 0 if nothing can be said.
    mu_lower_bound: The same for mu of Gaussian DP; None by "epsilon_delta".
    num_canaries: m.
    num_guesses: r.
    num_correct: v.
    delta: delta of the claim.
    confidence: Confidence of the bound.
    method: "epsilon_delta" assumes nothing; "gdp" holds for mechanisms whose
      trade-off is Gaussian, or dominated by one.
  """

  epsilon_lower_bound: float
  mu_lower_bound: float | None
  num_canaries: int
  num_guesses: int
  num_correct: int
  delta: float
  confidence: float
  method: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class OneRunPlan:
  """What must be fixed before training, so that the bound means what it says.

  Attributes:
    num_canaries: m, canaries with a fair coin each.
    num_guesses: r, guesses that will be made; the others abstain.
    delta: delta of the claim under test.
    confidence: Confidence of the lower bound.
    method: "epsilon_delta" or "gdp".
  """

  num_canaries: int
  num_guesses: int
  delta: float = 1e-5
  confidence: float = 0.95
  method: str = "epsilon_delta"

  def __post_init__(self):
    _check(self.num_canaries, self.num_guesses, 0, self.delta, self.confidence)
    _validate.check_choice("method", self.method, METHODS)
    if self.method == "gdp" and self.delta == 0:
      raise ValueError("delta: got 0; Gaussian DP has no epsilon at delta 0")

  def audit(
    self,
    scores: Float[AnyArray, " canaries"],
    included: Bool[AnyArray, " canaries"],
    *,
    seed: int = 0,
  ) -> OneRunResult:
    """Guesses by score and turns the number of right guesses into a bound.

    Args:
      scores: Score of each canary; larger means more likely included.
      included: The coins.
      seed: Breaks ties among equal scores.

    Returns:
      The bound.

    Raises:
      ValueError: If the number of canaries is not the plan's, or a score is
        not finite.
    """
    _validate.check_shape("scores", scores, (self.num_canaries,))
    correct = count_correct_guesses(
      scores, included, num_guesses=self.num_guesses, seed=seed
    )
    mu = None
    if self.method == "gdp":
      mu = one_run_mu_lower_bound(
        self.num_canaries,
        self.num_guesses,
        correct,
        confidence=self.confidence,
      )
      epsilon = _gaussian_dp.gdp_epsilon(mu, self.delta)
    else:
      epsilon = one_run_epsilon_lower_bound(
        self.num_canaries,
        self.num_guesses,
        correct,
        delta=self.delta,
        confidence=self.confidence,
      )
    return OneRunResult(
      epsilon_lower_bound=epsilon,
      mu_lower_bound=mu,
      num_canaries=self.num_canaries,
      num_guesses=self.num_guesses,
      num_correct=correct,
      delta=self.delta,
      confidence=self.confidence,
      method=self.method,
    )


def count_correct_guesses(
  scores: Float[AnyArray, " canaries"],
  included: Bool[AnyArray, " canaries"],
  *,
  num_guesses: int,
  seed: int = 0,
) -> int:
  """Guesses "in" for the largest scores, "out" for the smallest; counts hits.

  r // 2 guesses are "out" and the rest "in". Equal scores are ordered at
  random: by position they would give away a list that is sorted by coin.

  Args:
    scores: Score of each canary; larger means more likely included.
    included: The coins.
    num_guesses: r.
    seed: Breaks ties.

  Returns:
    v, the right guesses.

  Raises:
    ValueError: If a score is not finite or r is not within [1, canaries].
  """
  values = _validate.finite("scores", scores)
  coins = _validate.membership("included", included, values.shape)
  if not 1 <= num_guesses <= values.size:
    raise ValueError(
      f"num_guesses: got {num_guesses}; it must lie in [1, {values.size}]"
    )
  # A stream of its own: coins may have been drawn from the same seed.
  generator = np.random.default_rng((seed, _TIES))
  ties = generator.permutation(values.size)
  order = np.lexsort((ties, values))
  num_out = num_guesses // 2
  lowest = order[:num_out]
  highest = order[values.size - (num_guesses - num_out) :]
  return int((~coins[lowest]).sum() + coins[highest].sum())


def one_run_p_value(
  num_canaries: int,
  num_guesses: int,
  num_correct: int,
  *,
  epsilon: float,
  delta: float,
) -> float:
  """Bound on the probability of so many right guesses under (epsilon, delta).

    p = P[B >= v] + 2 m delta max_{1 <= i <= m} P[v > B >= v - i] / i,
    B ~ Binomial(r, e^epsilon / (1 + e^epsilon))

  Fidelity:
    Paper: Steinke, Nasr, Jagielski 2023.
    Authors' code: the public transcriptions in ml_privacy_meter and
      jax_privacy compute the same number.
    Here: i runs to v only, beyond which the maximum falls.
    Verdict: faithful.

  Args:
    num_canaries: m.
    num_guesses: r.
    num_correct: v.
    epsilon: At least 0.
    delta: Within [0, 1].

  Returns:
    The p-value, at most 1.

  Raises:
    ValueError: If the counts are impossible or a parameter is out of range.

  References:
    Steinke, Nasr, Jagielski, Privacy Auditing with One (1) Training Run,
    NeurIPS 2023, arXiv 2305.08846.
  """
  _check(num_canaries, num_guesses, num_correct, delta, 0.5)
  _validate.check_at_least("epsilon", epsilon, 0)
  rate = special.expit(epsilon)
  p = _binomial_tail(num_correct, num_guesses, rate)
  if delta > 0 and num_correct > 0:
    steps = np.arange(1, num_correct + 1)
    tails = _binomial_tail(num_correct - steps, num_guesses, rate)
    p = p + 2 * num_canaries * delta * np.max((tails - p) / steps)
  return float(min(p, 1.0))


def one_run_epsilon_lower_bound(
  num_canaries: int,
  num_guesses: int,
  num_correct: int,
  *,
  delta: float = 0.0,
  confidence: float = 0.95,
) -> float:
  """Largest epsilon whose p-value is below 1 - confidence.

  (epsilon, delta)-DP implies (epsilon', delta)-DP for every larger epsilon',
  so rejecting one epsilon rejects all below it. The number of guesses must
  have been fixed before the outcome was seen (`OneRunPlan`).

  Fidelity:
    Paper: Steinke, Nasr, Jagielski 2023.
    Authors' code: the ml_privacy_meter example reports the largest bound over
      r on the same outcome, which is optimistic; jax_privacy corrects for
      that by Bonferroni, and guesses "in" only.
    Here: one pre-registered r.
    Verdict: faithful.

  Args:
    num_canaries: m.
    num_guesses: r.
    num_correct: v.
    delta: Within [0, 1].
    confidence: 1 minus the largest probability that the bound is too high.

  Returns:
    The lower bound; 0 if not even epsilon 0 can be rejected.

  Raises:
    ValueError: If the counts are impossible or a parameter is out of range.

  Example:
    >>> one_run_epsilon_lower_bound(1000, 100, 100, delta=1e-5)
    3.465...
  """
  _check(num_canaries, num_guesses, num_correct, delta, confidence)
  return _largest_rejected(
    lambda epsilon: (
      one_run_p_value(
        num_canaries, num_guesses, num_correct, epsilon=epsilon, delta=delta
      )
      < 1 - confidence
    ),
    _LARGEST_EPSILON,
  )


def one_run_fdp_rejected(
  num_canaries: int,
  num_guesses: int,
  num_correct: int,
  *,
  least_other: Callable[[float], float],
  confidence: float = 0.95,
) -> bool:
  """Whether so many right guesses contradict a trade-off function.

  An f-DP claim says: an event of probability x with a record present has
  probability at least g(x) with it absent, and the other way round; for
  (epsilon, delta) g(x) = max(0, e^-epsilon (x - delta)), for mu-GDP
  g(x) = Phi(Phi^-1(x) - mu). With tau = 1 - confidence and

    rho_v = tau v / m,  eta_v = tau (r - v) / m
    eta_i = max(eta_{i+1}, g(rho_{i+1}))
    rho_i = rho_{i+1} + i / (r - i) (eta_i - eta_{i+1})      i = v - 1 .. 0

  the claim is rejected if rho_0 + eta_0 > r / m.

  Fidelity:
    Paper: Mahloujifar, Melis, Chaudhuri 2024, for guesses between two
      possibilities (their k = 2).
    Authors' code: jax_privacy and PrivacyGuard hold transcriptions; the
      rejection agrees with the former.
    Verdict: faithful.

  Args:
    num_canaries: m.
    num_guesses: r, fixed before the outcome was seen.
    num_correct: v.
    least_other: g, increasing, with g(x) <= x.
    confidence: 1 minus the largest probability of rejecting a true claim.

  Returns:
    Whether the claim is rejected.

  Raises:
    ValueError: If the counts are impossible or a parameter is out of range.

  References:
    Mahloujifar, Melis, Chaudhuri, Auditing f-Differential Privacy in One Run,
    arXiv 2410.22235.
  """
  _check(num_canaries, num_guesses, num_correct, 0.0, confidence)
  rho = (1 - confidence) * num_correct / num_canaries
  eta = (1 - confidence) * (num_guesses - num_correct) / num_canaries
  limit = num_guesses / num_canaries
  for i in range(num_correct - 1, -1, -1):
    raised = max(eta, least_other(rho))
    if raised == eta:
      # Nothing moves any more.
      break
    rho = min(rho + i / (num_guesses - i) * (raised - eta), 1.0)
    eta = raised
    if rho + eta > limit:
      return True
  return bool(rho + eta > limit)


def one_run_mu_lower_bound(
  num_canaries: int,
  num_guesses: int,
  num_correct: int,
  *,
  confidence: float = 0.95,
) -> float:
  """Largest mu of Gaussian DP that one run rejects.

  Fidelity:
    Paper: Mahloujifar, Melis, Chaudhuri 2024, with Gaussian trade-offs.
    Verdict: faithful.

  Args:
    num_canaries: m.
    num_guesses: r, fixed before the outcome was seen.
    num_correct: v.
    confidence: 1 minus the largest probability that the bound is too high.

  Returns:
    The lower bound; 0 if nothing can be rejected. `gdp_epsilon` turns it into
    an epsilon.

  Raises:
    ValueError: If the counts are impossible or a parameter is out of range.
  """
  return _largest_rejected(
    lambda mu: one_run_fdp_rejected(
      num_canaries,
      num_guesses,
      num_correct,
      least_other=lambda x: float(special.ndtr(special.ndtri(x) - mu)),
      confidence=confidence,
    ),
    _LARGEST_MU,
  )


def expected_correct_guesses(
  num_canaries: int, num_guesses: int, *, separation: float
) -> float:
  """Right guesses to expect from scores N(0, 1) "out", N(separation, 1) "in".

  Args:
    num_canaries: m.
    num_guesses: r.
    separation: Distance of the means, in standard deviations.

  Returns:
    The expectation, for large m.

  Raises:
    ValueError: If the counts are impossible or the separation is negative.
  """
  _check(num_canaries, num_guesses, 0, 0.0, 0.5)
  _validate.check_at_least("separation", separation, 0)
  share = num_guesses / num_canaries
  # The threshold above which half of the guesses lie; by symmetry the other
  # half has as many right.
  low, high = separation / 2 - 1, separation + 40.0
  for _ in range(200):
    middle = (low + high) / 2
    tails = special.ndtr(-middle) + special.ndtr(separation - middle)
    low, high = (middle, high) if tails > share else (low, middle)
  inside = special.ndtr(separation - low)
  return float(num_guesses * inside / (inside + special.ndtr(-low)))


def choose_num_guesses(
  num_canaries: int,
  *,
  separation: float,
  delta: float = 1e-5,
  confidence: float = 0.95,
  candidates: Sequence[int] | None = None,
) -> int:
  """The number of guesses with the largest bound on an expected outcome.

  Looks at no data: choosing r by calculation, before training, keeps the bound
  valid, whatever the true separation is.

  Fidelity:
    Paper: Steinke et al. 2023 leave the choice of r open.
    Verdict: original.

  Args:
    num_canaries: m.
    separation: Assumed distance of "in" and "out" scores, in standard
      deviations (1 to 2 for hard canaries, 4 for crafted ones).
    delta: delta of the claim.
    confidence: Confidence of the bound.
    candidates: Numbers to compare; None tries shares of m from 0.5 % to all.

  Returns:
    r.

  Raises:
    ValueError: If the counts are impossible or a parameter is out of range.
  """
  if candidates is None:
    shares = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0)
    candidates = sorted({max(2, round(num_canaries * s)) for s in shares})
  bounds = [
    one_run_epsilon_lower_bound(
      num_canaries,
      guesses,
      int(
        expected_correct_guesses(num_canaries, guesses, separation=separation)
      ),
      delta=delta,
      confidence=confidence,
    )
    for guesses in candidates
  ]
  return int(candidates[int(np.argmax(bounds))])


def _binomial_tail(least, trials, rate):
  """P[B >= least] for B ~ Binomial(trials, rate)."""
  # scipy.stats computes the same with a hundred times the overhead.
  tail = special.betainc(np.maximum(least, 1), trials - least + 1, rate)
  return np.where(np.asarray(least) > 0, tail, 1.0)


def _largest_rejected(
  rejected: Callable[[float], bool], largest: float
) -> float:
  """Supremum of the rejected parameters, by bisection; 0 if there is none."""
  low, high = 0.0, 1.0
  if not rejected(low):
    return 0.0
  while rejected(high):
    if high >= largest:
      return largest
    low, high = high, min(2 * high, largest)
  for _ in range(_STEPS):
    middle = (low + high) / 2
    if rejected(middle):
      low = middle
    else:
      high = middle
    if high - low < 1e-10:
      break
  return low


def _check(num_canaries, num_guesses, num_correct, delta, confidence):
  if not 1 <= num_guesses <= num_canaries:
    raise ValueError(
      f"num_guesses: got {num_guesses}; it must lie in [1, num_canaries ="
      f" {num_canaries}]"
    )
  if not 0 <= num_correct <= num_guesses:
    raise ValueError(
      f"num_correct: got {num_correct}; it must lie in [0, num_guesses ="
      f" {num_guesses}]"
    )
  _validate.check_within("delta", delta, 0, 1)
  _validate.check_between("confidence", confidence, 0, 1)
