"""Canary extraction: gradient search over distributions of hidden tokens.

A code of n tokens stood in the training data behind a known prefix and known
labels. The attacker holds the frozen model and looks for the tokens that make
it most certain of these labels. Discrete tokens are relaxed to a distribution
a_i over the candidates at each position, mixed into the model's input, and
optimised by gradients; hard tokens are scored in the end.
"""

import dataclasses
import functools
import typing
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, Key, Num

from trustjax.attacks import _validate

PyTree = Any
MixtureLoss = Callable[..., Float[Array, ""]]

PARTS = ("both", "intent", "slots")


@dataclasses.dataclass(frozen=True, kw_only=True)
class RelaxedSearch:
  """Settings of the relaxed optimisation.

  Attributes:
    steps: Most iterations of a restart.
    patience: Iterations without a change of argmax after which it stops.
    learning_rate: Of Adam.
    temperature: tau at the start.
    final_temperature: tau from `anneal_steps` on, reached geometrically.
    anneal_steps: Iterations from one to the other; 0 starts at the final one.
    gumbel: beta, scale of the Gumbel noise: 0 is softmax, 1 Gumbel-softmax.
    restarts: Independent starts; the smallest discrete loss wins.
    sweeps: Most rounds of the final search over one position at a time; 0
      leaves it out.
  """

  steps: int = 1_000
  patience: int = 100
  learning_rate: float = 0.02
  temperature: float = 1.0
  final_temperature: float = 1.0
  anneal_steps: int = 500
  gumbel: float = 0.0
  restarts: int = 10
  sweeps: int = 2

  def __post_init__(self):
    for field in ("steps", "patience", "restarts"):
      _validate.check_at_least(field, getattr(self, field), 1)
    for field in ("anneal_steps", "gumbel", "sweeps"):
      _validate.check_at_least(field, getattr(self, field), 0)
    for field in ("learning_rate", "temperature", "final_temperature"):
      _validate.check_positive(field, getattr(self, field))

  def temperature_at(self, step: Int[Array, ""]) -> Float[Array, ""]:
    """Temperature of an iteration.

    Args:
      step: Iteration, from 0.

    Returns:
      The temperature.
    """
    done = jnp.minimum(step / max(self.anneal_steps, 1), 1.0)
    if self.anneal_steps == 0:
      done = jnp.ones(())
    ratio = self.final_temperature / self.temperature
    return jnp.asarray(self.temperature * ratio**done, jnp.float32)


@typing.no_type_check  # JAX rebuilds records with placeholders of its own.
@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Extraction:
  """What the search found.

  Attributes:
    tokens: The guess, an index into the candidates for each position.
    loss: Its discrete loss.
    relaxed_tokens: Guess of each restart before the search over positions.
    relaxed_losses: Their discrete losses.
    num_steps: Iterations of each restart.
  """

  tokens: Int[Array, "*trials positions"]
  loss: Float[Array, "*trials"]
  relaxed_tokens: Int[Array, "*trials restarts positions"]
  relaxed_losses: Float[Array, "*trials restarts"]
  num_steps: Int[Array, "*trials restarts"]


def mix_candidates(
  mixture: Float[Array, "positions candidates"],
  features: Num[Array, "candidates *shape"],
) -> Float[Array, "positions *shape"]:
  """Expected features of each position: sum_v a_iv features_v.

  The features may be rows of the embedding table, outputs of a character
  convolution computed once for each candidate (the outer relaxation, linear
  again), or embedded characters [char, dim] (the inner one, which convolves
  the mixture).

  Fidelity:
    Paper: Parikh et al. 2022 relax tokens this way; how characters are relaxed
      is not stated.
    Authors' code: a public replication mixes characters (inner).
    Here: either, by what is passed in.
    Verdict: faithful.

  Args:
    mixture: Distribution over candidates at each position.
    features: Features of each candidate.

  Returns:
    The mixed features.
  """
  return jnp.tensordot(mixture, features, axes=1)


def canary_loss(
  logits_from_embeddings: Callable[
    [Float[Array, "time dim"]],
    tuple[Float[Array, " intents"], Float[Array, "time labels"]],
  ],
  context: Float[Array, "time dim"],
  positions: Int[Array, " positions"],
  rows: Float[Array, "candidates dim"],
  intent: Int[Array, ""],
  slots: Int[Array, " time"],
  mask: Bool[Array, " time"],
  *,
  part: str = "both",
) -> Callable[[Float[Array, "positions candidates"]], Float[Array, ""]]:
  """The attacker's loss J = L_intent + L_slots of a relaxed canary.

  Fidelity:
    Paper: Parikh et al. 2022 use the training loss at the known labels.
    Here: intent and slots together or apart; slot losses are summed over the
      tokens of the mask, so that J is minus the joint log-likelihood.
    Verdict: adaptation.

  Args:
    logits_from_embeddings: Embeddings of an utterance -> intent and slot
      logits; the frozen model in evaluation mode.
    context: Embeddings of the known tokens; what stands at the unknown
      positions is replaced.
    positions: The unknown positions.
    rows: Embedding of each candidate.
    intent: The canary's intent.
    slots: The canary's tags.
    mask: Positions that hold a token.
    part: "both", "intent" or "slots".

  Returns:
    mixture [positions, candidates] -> loss.

  Raises:
    ValueError: If `part` is unknown.
  """
  _validate.check_choice("part", part, PARTS)

  def loss(mixture):
    embeddings = context.at[positions].set(mix_candidates(mixture, rows))
    intent_logits, slot_logits = logits_from_embeddings(embeddings)
    total = jnp.zeros(())
    if part != "slots":
      total -= jax.nn.log_softmax(intent_logits)[intent]
    if part != "intent":
      log_p = jax.nn.log_softmax(slot_logits)
      own = jnp.take_along_axis(log_p, slots[:, None], axis=1)[:, 0]
      total -= jnp.sum(jnp.where(mask, own, 0.0))
    return total

  return loss


def extract_canary(
  loss_from_mixture: MixtureLoss,
  num_positions: int,
  num_candidates: int,
  key: Key[Array, ""],
  *,
  args: tuple[Any, ...] = (),
  search: RelaxedSearch = RelaxedSearch(),
) -> Extraction:
  """Searches the tokens of a canary by gradients through the frozen model.

    a_i = softmax((z_i + beta g_i) / tau),  g_i standard Gumbel, fresh each step
    z  <- Adam(z, dJ/dz)     until argmax z rests for `patience` iterations
    guess: argmax z of each restart, scored as hard tokens, then improved by
    trying every candidate at one position after the other

  The result depends on the key only, not on how trials are batched: restarts
  that have stopped stay as they are while others go on. May be jitted and
  vmapped; `extract_canaries` does so for many trials.

  Fidelity:
    Paper: Parikh et al. 2022, discrete optimisation with a differentiable
      relaxation; its settings are not known.
    Authors' code: none found. A public replication uses softmax without noise
      or temperature, Adam 0.02, at most 1,000 iterations, patience 100 and
      Glorot starts, which are the defaults here.
    Here: noise, temperature schedule, restarts and the final search are added
      options; noise never decides the guess.
    Verdict: adaptation.

  Args:
    loss_from_mixture: (mixture [positions, candidates], *args) -> J.
    num_positions: Unknown tokens n.
    num_candidates: Candidates |V|.
    key: Typed key.
    args: Passed on, for instance parameters of the model.
    search: Settings.

  Returns:
    The guess, and what each restart found.

  Raises:
    ValueError: If a size is out of range.

  Example:
    >>> found = extract_canary(loss, 4, 10, jax.random.key(0))
    >>> found.tokens
    Array([3, 1, 4, 1], dtype=int32)

  References:
    Parikh, Dupuy, Gupta, Canary Extraction in NLU Models, ACL 2022,
    arXiv 2203.13920.
    Jang, Gu, Poole, Gumbel-Softmax, ICLR 2017, arXiv 1611.01144.
  """
  _validate.check_at_least("num_positions", num_positions, 1)
  _validate.check_at_least("num_candidates", num_candidates, 1)

  def loss(mixture):
    return loss_from_mixture(mixture, *args)

  def discrete(tokens):
    value = loss(jax.nn.one_hot(tokens, num_candidates))
    # A model that overflows on some input must not win with a nan.
    return jnp.where(jnp.isnan(value), jnp.inf, value)

  def restart(key):
    tokens, steps = _relaxed_search(
      loss, (num_positions, num_candidates), key, search
    )
    relaxed = discrete(tokens)
    found, best = _search_positions(
      discrete, tokens, relaxed, num_candidates, search.sweeps
    )
    return found, best, tokens, relaxed, steps

  found, losses, tokens, relaxed, steps = jax.vmap(restart)(
    jax.random.split(key, search.restarts)
  )
  best = jnp.argmin(losses)
  return Extraction(
    tokens=found[best],
    loss=losses[best],
    relaxed_tokens=tokens,
    relaxed_losses=relaxed,
    num_steps=steps,
  )


def extract_canaries(
  loss_from_mixture: MixtureLoss,
  num_positions: int,
  num_candidates: int,
  keys: Key[Array, " trials"],
  *,
  trials: PyTree,
  search: RelaxedSearch = RelaxedSearch(),
  chunk_size: int | None = None,
) -> Extraction:
  """`extract_canary` for many trials (models, canaries) as one program.

  Fidelity:
    As `extract_canary`, of which this is a batch: the guesses are the same up
    to rounding.
    Verdict: adaptation.

  Args:
    loss_from_mixture: (mixture [positions, candidates], trial) -> J, where a
      trial is one slice of `trials`. The program is compiled once for each
      function object.
    num_positions: Unknown tokens n.
    num_candidates: Candidates |V|.
    keys: A typed key for each trial.
    trials: What differs between trials (parameters, context, labels), each
      leaf with a leading axis [trials].
    search: Settings.
    chunk_size: Trials that run side by side; None runs all. Bounds memory.

  Returns:
    The guesses, leading axis [trials].

  Raises:
    ValueError: If a size is out of range or a leaf has another leading axis.
  """
  for leaf in jax.tree.leaves(trials):
    if leaf.shape[:1] != keys.shape:
      raise ValueError(
        f"trials: got a leaf of shape {leaf.shape} for {keys.shape[0]} keys;"
        " its first axis must be the trials"
      )
  if chunk_size is not None:
    _validate.check_at_least("chunk_size", chunk_size, 1)
  return _extract_all(
    keys,
    trials,
    loss_from_mixture,
    num_positions,
    num_candidates,
    search,
    chunk_size or keys.shape[0],
  )


@functools.partial(jax.jit, static_argnums=(2, 3, 4, 5, 6))
def _extract_all(keys, trials, loss, positions, candidates, search, chunk):
  def one(item):
    key, trial = item
    return extract_canary(
      loss, positions, candidates, key, args=(trial,), search=search
    )

  return jax.lax.map(one, (keys, trials), batch_size=chunk)


def relaxed_mixture(
  logits: Float[Array, "positions candidates"],
  temperature: Float[Array, ""],
  noise: Float[Array, "positions candidates"],
) -> Float[Array, "positions candidates"]:
  """softmax((z + noise) / tau), position by position.

  Args:
    logits: z.
    temperature: tau.
    noise: beta g; zeros for the plain softmax.

  Returns:
    A distribution over candidates at each position.
  """
  return jax.nn.softmax((logits + noise) / temperature, axis=-1)


def _relaxed_search(loss, shape, key, search):
  """One restart: the argmax it rests at, and its number of iterations."""
  optimizer = optax.adam(search.learning_rate)
  init_key, noise_key = jax.random.split(key)
  glorot = (6 / (shape[0] + shape[1])) ** 0.5
  start = jax.random.uniform(init_key, shape, minval=-glorot, maxval=glorot)

  def relaxed(logits, step):
    noise = jnp.zeros(shape)
    if search.gumbel:
      noise = search.gumbel * jax.random.gumbel(
        jax.random.fold_in(noise_key, step), shape
      )
    return loss(relaxed_mixture(logits, search.temperature_at(step), noise))

  def unfinished(state):
    _, _, _, resting, step = state
    return (step < search.steps) & (resting < search.patience)

  def advance(state):
    logits, moments, guess, resting, step = state
    gradient = jax.grad(relaxed)(logits, step)
    # One overflow must not turn the whole search into nan.
    gradient = jnp.where(jnp.isfinite(gradient), gradient, 0.0)
    updates, moments = optimizer.update(gradient, moments, logits)
    logits = logits + jnp.asarray(updates)
    found = jnp.argmax(logits, axis=-1)
    resting = jnp.where(jnp.all(found == guess), resting + 1, 0)
    return logits, moments, found, resting, step + 1

  state = (
    start,
    optimizer.init(start),
    jnp.argmax(start, axis=-1),
    jnp.zeros((), jnp.int32),
    jnp.zeros((), jnp.int32),
  )
  _, _, guess, _, step = jax.lax.while_loop(unfinished, advance, state)
  return guess, step


def _search_positions(discrete, tokens, loss, num_candidates, sweeps):
  """Best candidate at one position after the other, for some sweeps."""

  def improve(index, state):
    tokens, best = state
    position = index % tokens.shape[0]

    def with_candidate(candidate):
      return discrete(tokens.at[position].set(candidate))

    losses = jax.vmap(with_candidate)(jnp.arange(num_candidates))
    choice = jnp.argmin(losses)
    better = losses[choice] < best
    changed = tokens.at[position].set(choice)
    return (
      jnp.where(better, changed, tokens),
      jnp.where(better, losses[choice], best),
    )

  return jax.lax.fori_loop(0, sweeps * tokens.shape[0], improve, (tokens, loss))
