"""Attacks on trained models: gradient search, and all completions scored."""

import dataclasses
import functools
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from dp_accounting import dp_event
from dp_accounting.pld import pld_privacy_accountant
from scipy import stats

from experiments._attacks import _canary_data
from trustjax import attacks, models, privacy

# Sensitivities with less probability than this are left out of the mixture;
# what they could add to delta is far below it.
_LEAST_PROBABILITY = 1e-12


@dataclasses.dataclass(frozen=True, kw_only=True)
class Found:
  """What was found in the models of one kind of canary.

  Attributes:
    codes: The inserted codes, [trials, positions].
    guesses: Search name to guesses, [trials, positions].
    losses: Search name to discrete losses, [trials].
    ranks: Rank of the code among all completions, [trials]; nan where there
      are too many to score.
    alone: Whether the code's loss is below all others, [trials].
  """

  codes: np.ndarray
  guesses: dict[str, np.ndarray]
  losses: dict[str, np.ndarray]
  ranks: np.ndarray
  alone: np.ndarray

  def best(self) -> np.ndarray:
    """In each trial the guess of the search with the smallest loss."""
    names = list(self.guesses)
    winner = np.argmin(np.stack([self.losses[n] for n in names]), axis=0)
    every = np.stack([self.guesses[n] for n in names])
    return every[winner, np.arange(len(winner))]


@functools.cache
def trial_loss(model: models.Model, start: int, length: int, part: str):
  """(mixture, trial) -> the attacker's loss.

  A trial holds params, the canary's arrays cut to its own length, and the
  arrays of the candidates. Words mix as the model's embeddings of them, with
  their characters' convolution inside: linear whatever the model reads.

  Args:
    model: The frozen model.
    start: Known words in front of the code.
    length: Tokens of the code.
    part: "both", "intent" or "slots".

  Returns:
    The loss, the same function object for the same arguments, so that it is
    compiled once.
  """
  positions = jnp.arange(start, start + length)

  def loss(mixture, trial):
    params, canary = trial["params"], trial["canary"]
    mask = canary["mask"]

    def logits(embeddings):
      hidden = model.encode(params, embeddings, mask)
      scored = model.heads(params, hidden, mask)
      return scored.intent, scored.slots

    return attacks.canary_loss(
      logits,
      model.embed(params, canary),
      positions,
      model.embed(params, trial["candidates"]),
      canary["intent"],
      canary["slots"],
      mask,
      part=part,
    )(mixture)

  return loss


@functools.cache
def token_loss(model: models.Model, start: int, length: int, part: str):
  """(tokens, trial) -> the same loss of hard tokens."""
  relaxed = trial_loss(model, start, length, part)

  def loss(tokens, trial):
    num = trial["candidates"]["tokens"].shape[0]
    return relaxed(jax.nn.one_hot(tokens, num), trial)

  return loss


def make_trials(
  made: _canary_data.CanaryData,
  cell: _canary_data.Cell,
  params: Any,
  codes: np.ndarray,
) -> dict[str, Any]:
  """What the attacker of each model holds, leading axis [trials]."""
  time = len(cell.pattern.prefix) + cell.length
  canary = made.canaries(cell.pattern, codes)
  # What stands at the unknown positions is not the attacker's to see: all
  # start from the first candidate.
  blank = made.canaries(cell.pattern, np.zeros_like(codes))
  hidden = {k: blank[k] for k in ("tokens", "chars") if k in blank}
  canary = {
    k: v[:, :time] if v.ndim > 1 else v for k, v in (canary | hidden).items()
  }
  candidates = made.candidates(cell.pattern)
  repeated = {
    k: np.broadcast_to(v, (len(codes), *v.shape)) for k, v in candidates.items()
  }
  return {"params": params, "canary": canary, "candidates": repeated}


def attack(
  model: models.Model,
  trials: dict[str, Any],
  cell: _canary_data.Cell,
  codes: np.ndarray,
  *,
  searches: dict[str, attacks.RelaxedSearch],
  part: str,
  max_completions: int,
  chunk_size: int | None,
  seed: int,
  first: int = 0,
) -> Found:
  """Attacks all models of one kind of canary.

  Args:
    model: The frozen model.
    trials: From `make_trials`.
    cell: The kind of canary.
    codes: The inserted codes, for the score only.
    searches: Name to settings of the gradient search.
    part: Which loss the attacker uses.
    max_completions: Largest number of completions that are all scored.
    chunk_size: Trials side by side in the search.
    seed: Seed of the searches' starts.
    first: Number of the first trial; a trial's start is a function of the seed
      and its own number, however the trials are cut into blocks.

  Returns:
    What was found.
  """
  num = len(cell.pattern.candidates)
  start = len(cell.pattern.prefix)
  guesses, losses = {}, {}
  numbers = jnp.arange(first, first + len(codes))
  for index, (name, search) in enumerate(searches.items()):
    key = jax.random.fold_in(jax.random.key(seed), index)
    found = attacks.extract_canaries(
      trial_loss(model, start, cell.length, part),
      cell.length,
      num,
      jax.vmap(functools.partial(jax.random.fold_in, key))(numbers),
      trials=trials,
      search=search,
      chunk_size=chunk_size,
    )
    guesses[name] = np.asarray(found.tokens)
    losses[name] = np.asarray(found.loss)
  ranks = np.full(len(codes), np.nan)
  alone = np.zeros(len(codes), bool)
  if num**cell.length <= max_completions:
    index = attacks.completion_index(codes, num)
    for i in range(len(codes)):
      scored = attacks.score_completions(
        token_loss(model, start, cell.length, part),
        cell.length,
        num,
        args=(jax.tree.map(lambda x, i=i: x[i], trials),),
        max_completions=max_completions,
      )
      exposed = attacks.exposure(np.asarray(scored), int(index[i]))
      ranks[i], alone[i] = float(exposed.rank), bool(exposed.is_best)
  return Found(
    codes=codes, guesses=guesses, losses=losses, ranks=ranks, alone=alone
  )


def attack_in_blocks(
  folder: pathlib.Path,
  block: int,
  made_trials: Any,
  codes: np.ndarray,
  run: Any,
) -> Found:
  """Attacks some trials after the others, and keeps what is finished.

  Args:
    folder: Where finished blocks live.
    block: Trials of a block.
    made_trials: Everything by trial.
    codes: The inserted codes.
    run: (trials, codes, first trial) -> Found.

  Returns:
    What was found in all trials.
  """
  parts = []
  for first in range(0, len(codes), block):
    part = slice(first, first + block)
    path = folder / f"trials_{first}_{first + len(codes[part]) - 1}.npz"
    if not path.exists():
      own = jax.tree.map(lambda x, part=part: x[part], made_trials)
      found = run(own, codes[part], first)
      arrays: dict[str, Any] = {"ranks": found.ranks, "alone": found.alone}
      arrays |= {f"guesses/{k}": v for k, v in found.guesses.items()}
      arrays |= {f"losses/{k}": v for k, v in found.losses.items()}
      folder.mkdir(parents=True, exist_ok=True)
      np.savez(folder / "partial.npz", **arrays)
      (folder / "partial.npz").replace(path)
    with np.load(path) as file:
      parts.append(dict(file))
  whole = {k: np.concatenate([p[k] for p in parts]) for k in parts[0]}

  def named(kind):
    keys = [k for k in whole if k.startswith(f"{kind}/")]
    return {k.partition("/")[2]: whole[k] for k in keys}

  return Found(
    codes=codes,
    guesses=named("guesses"),
    losses=named("losses"),
    ranks=whole["ranks"],
    alone=whole["alone"],
  )


def group_epsilon(
  plan: privacy.DpSgdPlan, copies: int, delta: float
) -> tuple[float | None, str]:
  """Epsilon for all copies of a canary together.

  Poisson sampling draws Binomial(copies, q) of them at a step; each moves the
  sum by the plan's sensitivity, so a step is a mixture of Gaussians.

  Args:
    plan: The plan.
    copies: Records that are the same canary.
    delta: delta of the group's guarantee.

  Returns:
    (epsilon, "") or (None, why there is none).

  References:
    Tight group-level DP guarantees for DP-SGD, arXiv 2401.10294;
    tensorflow/privacy, compute_dp_sgd_privacy_lib.
  """
  mechanism = plan.mechanism
  if copies == 0:
    return 0.0, ""
  if mechanism.noise_multiplier == 0:
    return None, "without noise no epsilon is finite"
  if mechanism.schedule.kind != "constant":
    return None, "the noise follows a schedule; groups are not accounted for it"
  counts = np.arange(copies + 1)
  law = stats.binom.pmf(counts, copies, mechanism.sampling_rate)
  kept = law > _LEAST_PROBABILITY
  sigma = mechanism.noise_multiplier / mechanism.sensitivity_factor
  # A grid as fine as the answer is small keeps large groups affordable.
  interval = 1e-3 * max(1.0, copies / 2) ** 1.4
  accountant = pld_privacy_accountant.PLDAccountant(
    value_discretization_interval=interval
  )
  accountant.compose(
    dp_event.MixtureOfGaussiansDpEvent(
      sigma,
      counts[kept].astype(float).tolist(),
      (law[kept] / law[kept].sum()).tolist(),
    ),
    mechanism.num_steps,
  )
  epsilon = float(accountant.get_epsilon(delta))
  if not np.isfinite(epsilon):
    return None, "no finite epsilon at this delta"
  return epsilon, ""
