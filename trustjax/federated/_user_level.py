"""User-level privacy: one record from which draw, clip, noise and epsilon come.

The unit is a user (a device) with all its data of all periods. A round adds

  (sum_{k in S} w_k clip_C(Delta_k) + N(0, z^2 C^2 I)) / M

to the server's optimiser, where every user enters the cohort S independently
with probability q_k, w_k <= 1 is a function of that user alone, and M is a
constant: a divisor that depends on the cohort would leak who is in it.
"""

import dataclasses
import functools
import hashlib
import json
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

from trustjax import privacy
from trustjax.federated import (
  _cohort,
  _draws,
  _scores,
  _selection,
)

PyTree = Any
# Scores that are a function of one user's activity alone.
_BY_USER = ("uniform", "proportional", "tempered", "softmax", "threshold")
_UNIFORM = _scores.Strategy()
_NOISE, _CLIP = 0x9015E, 0xC119


@dataclasses.dataclass(frozen=True, kw_only=True)
class UserLevelPlan:
  """Everything that a user-level guarantee depends on.

  Attributes:
    mechanism: Poisson sampling at the largest rate, rounds, noise, adjacency.
    rule: Clipping rule of whole updates; `QuantileClip` adapts the bound.
    num_users: Registered users; treated as public.
    cohort_size: M, the expected cohort; the constant divisor.
    strategy: How a user's activity sets the rate; "uniform" ignores it.
    rate_factor: lambda of q_k = min(q_max, lambda f_k), fixed in advance; None
      under "uniform".
    activity_cap: Weigh users by min(1, a_k / cap); None weighs them equally.
    simulated_cohort_size: Cohort of the deployment that is simulated. The
      noise is scaled down to this run's cohort and the accountant reckons with
      the deployment: this run itself is then NOT private at that epsilon.

  Raises:
    ValueError: The fields contradict each other, or void the guarantee.

  References:
    McMahan et al., Learning Differentially Private Recurrent Language Models,
    ICLR 2018 (arXiv 1710.06963); Andrew et al., arXiv 1905.03871.
  """

  mechanism: privacy.Mechanism
  rule: privacy.ClippingRule
  num_users: int
  cohort_size: float
  strategy: _scores.Strategy = _UNIFORM
  rate_factor: float | None = None
  activity_cap: float | None = None
  simulated_cohort_size: float | None = None

  def __post_init__(self):
    if self.mechanism.sampler != "poisson":
      raise ValueError(
        f"mechanism.sampler: got {self.mechanism.sampler!r}; users are drawn"
        " by 'poisson'"
      )
    if self.mechanism.sensitivity_factor != 1:
      raise ValueError(
        "mechanism.sensitivity_factor: got"
        f" {self.mechanism.sensitivity_factor}; a clipped user moves the sum"
        " by one clip norm"
      )
    self._check_sizes()
    self._check_strategy()
    object.__setattr__(self, "rule", self.rule.for_units(self.cohort_size))
    self.noise_multipliers()  # Refuses an overspent budget now.

  def _check_sizes(self):
    if not 0 < self.cohort_size <= self.num_users:
      raise ValueError(
        f"cohort_size: got {self.cohort_size}; it must be positive and at most"
        f" the {self.num_users} users"
      )
    if self.activity_cap is not None and not self.activity_cap > 0:
      raise ValueError(
        f"activity_cap: got {self.activity_cap}; it must be positive"
      )
    simulated = self.simulated_cohort_size
    if simulated is not None and not (
      self.cohort_size <= simulated <= self.num_users
    ):
      raise ValueError(
        f"simulated_cohort_size: got {simulated}; it must lie between this"
        f" run's {self.cohort_size} and the {self.num_users} users"
      )

  def _check_strategy(self):
    kind = self.strategy.kind
    if kind not in _BY_USER:
      raise ValueError(
        f"strategy: got {kind!r}; one user's activity would change the rates of"
        f" others, and the guarantee is void. Allowed are {list(_BY_USER)}"
      )
    rate = self.mechanism.sampling_rate
    if kind == "uniform":
      cohort = self.simulated_cohort_size or self.cohort_size
      if self.rate_factor is not None:
        raise ValueError(
          f"rate_factor: got {self.rate_factor}; 'uniform' has none"
        )
      if not math.isclose(rate, cohort / self.num_users, rel_tol=1e-9):
        raise ValueError(
          f"mechanism.sampling_rate: got {rate}; a cohort of {cohort} of"
          f" {self.num_users} users means {cohort / self.num_users}"
        )
      return
    if self.rate_factor is None or not 0 < self.rate_factor < math.inf:
      raise ValueError(
        f"rate_factor: got {self.rate_factor}; selection by activity needs a"
        " positive constant fixed in advance: computed from the activities it"
        " would depend on every user"
      )
    if self.simulated_cohort_size is not None:
      raise ValueError(
        f"simulated_cohort_size: got {self.simulated_cohort_size} with the"
        f" strategy {kind!r}; it is defined for 'uniform'"
      )

  @classmethod
  def make(
    cls,
    *,
    num_users: int,
    cohort_size: float,
    num_rounds: int,
    noise_multiplier: float,
    rule: privacy.ClippingRule,
    strategy: str | _scores.Strategy = "uniform",
    q_max: float | None = None,
    rate_factor: float | None = None,
    adjacency: str = "add_remove",
    activity_cap: float | None = None,
    simulated_cohort_size: float | None = None,
  ) -> "UserLevelPlan":
    """Builds a plan and the mechanism that fits it.

    Args:
      num_users: Registered users.
      cohort_size: Expected cohort M.
      num_rounds: Rounds of the whole run, all periods together.
      noise_multiplier: z.
      rule: Clipping rule of whole updates.
      strategy: How activity sets the rate.
      q_max: Largest rate of a user. Required when selecting by activity: it is
        the rate that the epsilon is computed at.
      rate_factor: lambda of q_k = min(q_max, lambda f_k).
      adjacency: "add_remove" or "zero_out".
      activity_cap: Weigh users by min(1, a_k / cap).
      simulated_cohort_size: Of the deployment that is simulated.

    Returns:
      The plan.

    Raises:
      ValueError: The fields contradict each other, or void the guarantee.

    Example:
      >>> plan = UserLevelPlan.make(
      ...   num_users=10_000,
      ...   cohort_size=200,
      ...   num_rounds=60,
      ...   noise_multiplier=1.0,
      ...   rule=privacy.ThresholdClip(clip_norm=0.5),
      ... )
      >>> round(plan.epsilon(1e-5).pld, 2)
      1.21
    """
    chosen = _scores.as_strategy(strategy)
    if chosen.kind == "uniform":
      if q_max is not None:
        raise ValueError(f"q_max: got {q_max}; 'uniform' has one rate for all")
      # Sizes out of range are refused below, by their own name.
      rate = min(1.0, (simulated_cohort_size or cohort_size) / num_users)
    elif q_max is None:
      raise ValueError(
        f"q_max: got None; the strategy {chosen.kind!r} needs the largest rate"
        " of a user, at which the epsilon is computed"
      )
    else:
      rate = q_max
    return cls(
      mechanism=privacy.Mechanism(
        sampling_rate=rate,
        num_steps=num_rounds,
        noise_multiplier=noise_multiplier,
        adjacency=adjacency,
      ),
      rule=rule,
      num_users=num_users,
      cohort_size=cohort_size,
      strategy=chosen,
      rate_factor=rate_factor,
      activity_cap=activity_cap,
      simulated_cohort_size=simulated_cohort_size,
    )

  def noise_multipliers(self) -> np.ndarray:
    """Noise on the sum in clip norms, each round, float64 [rounds].

    They exceed the mechanism's where adaptive clipping spends part of the
    budget, and fall below it where a larger cohort is simulated.
    """
    multipliers = self.rule.gradient_noise_multipliers(
      self.mechanism.noise_multipliers()
    )
    simulated = self.simulated_cohort_size
    return multipliers * (self.cohort_size / simulated if simulated else 1.0)

  def rates(self, activity: np.ndarray) -> np.ndarray:
    """Probability q_k of each user to be in a cohort, float64 [users]."""
    activity = np.asarray(activity)
    if activity.shape != (self.num_users,):
      raise ValueError(
        f"activity: got shape {activity.shape}; the plan has"
        f" {self.num_users} users"
      )
    if self.strategy.kind == "uniform":
      return np.where(activity > 0, self.cohort_size / self.num_users, 0.0)
    logs = np.asarray(_scores.log_scores(activity, self.strategy), np.float64)
    assert self.rate_factor is not None
    # In logarithms: a softmax of a heavy tail overflows.
    most = self.mechanism.sampling_rate
    rates = np.exp(
      np.minimum(math.log(self.rate_factor) + logs, math.log(most))
    )
    return np.minimum(rates, most)

  def select_clients(
    self,
    key: Key[Array, ""],
    round: int,
    activity: np.ndarray,
    *,
    available: np.ndarray | None = None,
  ) -> _cohort.Cohort:
    """Draws the cohort of a round: an independent coin flip for each user.

    Args:
      key: Root key of the run.
      round: Round, from 0.
      activity: Examples of each user; who has none is not drawn.
      available: Who can be reached, a fact that must not depend on the data.

    Returns:
      The cohort, marked as drawn by this plan.
    """
    rates = self.rates(activity)
    if available is not None:
      rates = np.where(available, rates, 0.0)
    key = jax.random.fold_in(jax.random.fold_in(key, _selection.SELECT), round)
    bits = np.asarray(_draws.id_bits(key, self.num_users))
    drawn = _draws.draw_poisson(bits, rates)
    ids, valid = _selection.in_slots(
      drawn, _selection.poisson_slots(rates, drawn.size)
    )
    weights = valid.astype(np.float32)
    if self.activity_cap is not None:
      weights *= np.minimum(1.0, np.asarray(activity)[ids] / self.activity_cap)
    return _cohort.Cohort(
      ids=ids,
      valid=valid,
      weights=weights.astype(np.float32),
      inclusion=np.where(valid, rates[ids], 0.0).astype(np.float32),
      weighting=self.mark(),
    )

  def mark(self) -> str:
    """What a cohort of this plan carries as its weighting."""
    return f"user_level:{self.fingerprint()[:16]}"

  def epsilon(self, delta: float) -> privacy.EpsilonBounds:
    """Epsilon of the whole run for one user, at the largest rate.

    Guarantee:
      For runs whose cohorts come from `select_clients` and whose updates are
      summed by `run_private_round`. With `simulated_cohort_size` it is the
      epsilon of the simulated deployment, not of this run.

    Args:
      delta: In (0, 1).

    Returns:
      Bounds by PLD and by RDP.
    """
    return self.mechanism.epsilon(delta)

  def calibrate(self, target_epsilon: float, delta: float) -> "UserLevelPlan":
    """The same plan with the least noise whose epsilon meets a target."""
    return dataclasses.replace(
      self,
      mechanism=privacy.calibrate_noise_multiplier(
        self.mechanism, target_epsilon, delta
      ),
    )

  def statement(self) -> str:
    """The guarantee in plain words, with its assumptions."""
    mechanism = self.mechanism
    parts = [
      "Unit: one user with all their data of all periods; data that is deleted"
      " refunds nothing. Neighbouring populations differ in that one user is"
      + (
        " added or removed."
        if mechanism.adjacency == "add_remove"
        else " replaced by one without data."
      ),
      f"Each user enters each of {mechanism.num_steps} rounds independently"
      f" with probability at most {mechanism.sampling_rate:.6g}.",
      f"Updates are clipped ({self.rule}), summed with weights of at most 1,"
      f" given noise of {mechanism.noise_multiplier:.6g} clip norms, and"
      f" divided by the constant {self.cohort_size:g}.",
    ]
    if self.strategy.kind != "uniform":
      parts.append(
        "Activity steers selection and is itself private: the server is"
        " trusted with it, and must not publish who was selected."
      )
    if self.simulated_cohort_size is not None:
      parts.insert(
        0,
        "SIMULATED: the epsilon is that of a deployment with cohorts of"
        f" {self.simulated_cohort_size:g}; this run, with less noise, is not"
        " private at it.",
      )
    parts.append(
      "Assumptions: the noise generator is not cryptographic and floating-point"
      " attacks on it are out of scope; metrics of rounds are not private."
    )
    return " ".join(parts)

  def describe(self) -> dict[str, Any]:
    """The plan as JSON-able data, for records and checkpoints."""
    return json.loads(json.dumps(_as_data(self), sort_keys=True))

  def fingerprint(self) -> str:
    """Hash of `describe`."""
    text = json.dumps(self.describe(), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


@functools.partial(jax.jit, static_argnums=0)
def release(
  plan, params, clip_state, update, norms, counted, valid, round, key
):
  """The noisy mean of a round and the clipping state after it.

  Args:
    plan: The plan.
    params: Parameters before the round.
    clip_state: Of the rule; noise and clip use the same one.
    update: Sum of the clipped updates.
    norms: Norm of each slot's update before clipping.
    counted: Which slots were summed.
    valid: Which slots hold a user.
    round: Round, from 0.
    key: Root key of the run.

  Returns:
    (mean, next clip_state).
  """
  multipliers = jnp.asarray(plan.noise_multipliers(), jnp.float32)
  # No budget was set aside for a round beyond the last.
  multiplier = multipliers.at[round].get(mode="fill", fill_value=jnp.nan)
  key = jax.random.fold_in(jax.random.fold_in(key, _NOISE), round)
  scales = multiplier * plan.rule.noise_scales(clip_state, params)
  leaves, treedef = jax.tree.flatten(update)
  normals = privacy.standard_normals(key, sum(leaf.size for leaf in leaves))
  # Without the barrier the draw is fused into every leaf's slice.
  normals = jax.lax.optimization_barrier(normals)
  noised, start = [], 0
  for block, leaf in zip(plan.rule.blocks(params), leaves):
    part = jnp.reshape(normals[start : start + leaf.size], leaf.shape)
    noised.append((leaf + scales[block] * part) / plan.cohort_size)
    start += leaf.size
  clip_key = jax.random.fold_in(key, _CLIP)
  after = plan.rule.update(
    clip_state, jnp.where(counted, norms, jnp.inf), valid, clip_key
  )
  return jax.tree.unflatten(treedef, noised), after


def _as_data(value):
  if dataclasses.is_dataclass(value):
    return {"kind": type(value).__name__} | {
      field.name: _as_data(getattr(value, field.name))
      for field in dataclasses.fields(value)
    }
  return value
