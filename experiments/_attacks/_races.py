"""What the attack benchmark times, one race for each piece of work."""

import functools
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from scipy import stats

from experiments._attacks import _canary_attack, _canary_data
from experiments._binary import _config_flags
from trustjax import attacks, data, models, training

Seconds = dict[str, list[float]]


def timed(run: Callable[[], Any]) -> float:
  began = time.perf_counter()
  jax.block_until_ready(run())
  return time.perf_counter() - began


def _in_turn(methods: dict[str, Callable[[], float]], rounds: int) -> Seconds:
  """What every method says it took in every round, in alternation."""
  seconds: Seconds = {name: [] for name in methods}
  for _ in range(rounds):
    for name, method in methods.items():
      seconds[name].append(method())
  return seconds


def _tagger(fields):
  """The embedded corpus, a tagger for it, and its step."""
  prepared = data.prepare(data.load_corpus("synthetic"))
  model = models.make_model(
    fields.model,
    vocab_size=prepared.vocab_size,
    num_intents=len(prepared.intents),
    num_slots=len(prepared.slot_labels),
    max_length=prepared.max_length,
    **fields.fields.to_dict(),
  )
  built = training.make_step(
    models.losses.joint_loss(model), training.make_optimizer("adam", 1e-2, 1)
  )
  return prepared, model, built


def shadow_training(
  config: _config_flags.Config,
) -> tuple[Seconds, dict[str, Any]]:
  """Seconds of one step of one model: ensemble, host loop, and the floor.

  The host loop is what one writes first: a compiled step, called for each
  model and batch, the batch drawn and sent each time. The floor is the same
  step in a loop inside one program, on one batch that is on the device
  already: arithmetic without drawing, sending or calling.

  Returns:
    Seconds by method and round; models, steps, compilations and cut.
  """
  fields = config.shadow
  prepared, model, (init, step) = _tagger(fields)
  lots = training.MemberLots(
    keep=training.draw_memberships(
      fields.num_models, prepared.num_train, seed=0
    ),
    seed=0,
    batch_size=fields.batch_size,
  )
  steps, key = fields.num_steps, jax.random.key(0)
  options = training.EnsembleOptions(
    num_steps=steps,
    models_at_a_time=fields.models_at_a_time,
    show_progress=False,
  )
  found: dict[str, Any] = {"models": fields.num_models, "steps": steps}

  def ensemble():
    traces = []

    def traced(*args):
      traces.append(args)
      return step(*args)

    result = training.train_ensemble(
      init, traced, model.init, prepared.train, lots, key, options
    )
    found["compilations"] = len(traces)
    found["compile_seconds"] = result.compile_seconds
    found["models_at_a_time"] = result.models_at_a_time
    return result.train_seconds / fields.num_models / steps

  def host_loop():
    began = time.perf_counter()
    for number in range(fields.sequential_models):
      first, root = training.ensemble_keys(key, number)
      state = init(model.init(first))
      for t in range(steps):
        lot = lots.draw_lot(prepared.train, number, t)
        state, _ = step(state, lot, root)
      jax.block_until_ready(state)
    spent = time.perf_counter() - began
    return spent / fields.sequential_models / steps

  lot = jax.device_put(lots.draw_lot(prepared.train, 0, 0))

  @jax.jit
  def repeated(state):
    return jax.lax.fori_loop(0, steps, lambda _, s: step(s, lot, key)[0], state)

  first = init(model.init(key))

  def floor():
    return timed(lambda: repeated(first).params) / steps

  methods = {"ensemble": ensemble, "sequential": host_loop, "floor": floor}
  for warm_up in (host_loop, floor):  # Compiled outside the clock.
    warm_up()
  return _in_turn(methods, fields.rounds), found


def scoring(config: _config_flags.Config) -> Seconds:
  """Seconds to score all records under one target, and under all of them."""
  fields = config.scoring
  shape = (fields.num_models, fields.num_records)
  rng = np.random.default_rng(0)
  member = rng.random(shape) < 0.5
  logits = rng.normal(size=shape) + member
  log_p = -np.logaddexp(0, -logits)
  population = -np.logaddexp(0, -rng.normal(size=(shape[0], 2_000)))
  runs: dict[str, Callable[[], Any]] = {}
  for name, target in (("one_target", 0), ("all_targets", None)):
    runs[f"lira_online_{name}"] = lambda target=target: attacks.lira_scores(
      logits, member, target=target, online=True
    )
    runs[f"rmia_{name}"] = lambda target=target: attacks.rmia_scores(
      log_p, member, population, target=target, online=True
    )
  methods: dict[str, Callable[[], float]] = {
    name: functools.partial(timed, run) for name, run in runs.items()
  }
  # As published: a loop over records. Timed on a part, and scaled.
  part = min(fields.num_records, 500)
  scale = fields.num_records / part
  some, inside = log_p[:, :part], member[:, :part]
  methods["lira_record_by_record"] = lambda: (
    scale * timed(lambda: lira_record_by_record(logits[:, :part], member))
  )
  methods["rmia_pair_by_pair"] = lambda: (
    scale * timed(lambda: rmia_pair_by_pair(some, inside, population))
  )
  return _in_turn(methods, fields.rounds)


def lira_record_by_record(logits: np.ndarray, member: np.ndarray) -> np.ndarray:
  """Online LiRA of model 0, one record after the other."""
  scores = []
  for record in range(logits.shape[1]):
    shadows, inside = logits[1:, record], member[1:, record]
    density = []
    for side in (shadows[inside], shadows[~inside]):
      density.append(
        stats.norm.logpdf(
          logits[0, record], np.mean(side), np.std(side, ddof=1) + 1e-30
        )
      )
    scores.append(density[0] - density[1])
  return np.array(scores)


def rmia_pair_by_pair(
  log_p: np.ndarray, member: np.ndarray, population_log_p: np.ndarray
) -> np.ndarray:
  """Online RMIA of model 0 as published: every record with every point."""
  p, outside = np.exp(log_p), np.exp(population_log_p)
  mean = [
    np.where(where[1:], p[1:], 0).sum(axis=0) / where[1:].sum(axis=0)
    for where in (member, ~member)
  ]
  ratio = p[0] / ((mean[0] + mean[1]) / 2)
  ratio_z = outside[0] / outside[1:].mean(axis=0)
  return (ratio[:, None] / ratio_z[None, :] >= 1).mean(axis=1)


def extraction(config: _config_flags.Config) -> Seconds:
  """Seconds of attacks on a trial: in one program, and run by run.

  "separate" builds and compiles the attack for each model, as a script does
  that is started once a model; "separate_compiled" calls one compiled attack
  for each model.
  """
  fields = config.extraction
  num, few = fields.num_trials, fields.separate_trials
  model, trials = _canary_trials(fields)
  search = attacks.RelaxedSearch(**fields.search.to_dict())
  keys = jax.random.split(jax.random.key(1), num)
  loss = _canary_attack.trial_loss(model, 4, 4, "both")
  score = _canary_attack.token_loss(model, 4, 4, "both")

  def attack(key, trial):
    return attacks.extract_canary(
      loss, 4, 10, key, args=(trial,), search=search
    )

  compiled = jax.jit(attack)

  def trial_of(i):
    return jax.tree.map(lambda leaf: leaf[i], trials)

  def together():
    return attacks.extract_canaries(
      loss,
      4,
      10,
      keys,
      trials=trials,
      search=search,
      chunk_size=fields.chunk_size,
    ).tokens

  def separate():
    for i in range(few):
      # A function of its own, so that nothing compiled is found again.
      fresh = jax.jit(lambda key, trial: attack(key, trial))
      jax.block_until_ready(fresh(keys[i], trial_of(i)).tokens)

  def separate_compiled():
    for i in range(few):
      jax.block_until_ready(compiled(keys[i], trial_of(i)).tokens)

  def exhaustive():
    return attacks.score_completions(score, 4, 10, args=(trial_of(0),))

  for warm_up in (together, separate_compiled, exhaustive):  # Compile.
    jax.block_until_ready(warm_up())
  return _in_turn(
    {
      "together": lambda: timed(together) / num,
      "separate": lambda: timed(separate) / few,
      "separate_compiled": lambda: timed(separate_compiled) / few,
      "exhaustive": lambda: timed(exhaustive),
    },
    fields.rounds,
  )


def _canary_trials(fields):
  """An untrained tagger, and a trial with a code of its own for each model."""
  cell = _canary_data.Cell(pattern=attacks.PIN, length=4, copies=1)
  made = _canary_data.make_data(fields.study, chars=False)
  model = models.make_model(
    fields.model,
    vocab_size=len(made.vocabulary),
    num_intents=len(made.intents),
    num_slots=len(made.slot_labels),
    max_length=made.max_length,
    **fields.fields.to_dict(),
  )
  num = fields.num_trials
  params = jax.vmap(model.init)(jax.random.split(jax.random.key(0), num))
  codes = _canary_data.draw_codes(cell, num, 0)
  trials = _canary_attack.make_trials(made, cell, params, codes)
  return model, jax.device_put(trials)
