r"""Codes in training data: can they be read back out of the model?

  python -m experiments.canary_extraction
  python -m experiments.canary_extraction \
      --config=configs/canary_extraction/snips_pin.py \
      --config.data.manual_dir=DIR --workdir=OUT

Every trial is a model of its own with a fresh code, inserted R times into its
training data only. All models of an arm are trained as one program, all
attacks on them are another; then all completions are scored, so that a search
that failed is not mistaken for privacy. Arms are defences. Ctrl-C saves; the
same command goes on from there.
"""

import dataclasses
import json
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from experiments import private_training
from experiments._attacks import (
  _canary_attack,
  _canary_data,
  _canary_record,
  _membership_record,
)
from experiments._binary import _config_flags, _console
from experiments._private_training import _arm_training, _arms, _early_stopping
from trustjax import attacks, data, models, reporting, training

ARMS = {
  "none": (),
  "dropout": ("dropout",),
  "early_stopping": ("early_stopping",),
  "chars": ("chars",),
  "all": ("dropout", "early_stopping", "chars"),
  "deduplicated": ("deduplicate",),
  "dp_sgd": ("private",),
  "edp_sgd": ("private",),
}
_NO_MECHANISM = "no mechanism was run"
# Held-out records that early stopping looks at.
_VALIDATION_RECORDS = 256


@dataclasses.dataclass(frozen=True, kw_only=True)
class Defended:
  """One arm, ready to be trained.

  Attributes:
    name: Its name.
    arm: Optimiser and plan.
    made: Its data.
    model: Its model.
    defences: What protects the canaries.
  """

  name: str
  arm: _arms.Arm
  made: _canary_data.CanaryData
  model: models.Model
  defences: tuple[str, ...]


def check(config: _config_flags.Config) -> None:
  """Raises ValueError if a field of the study is impossible."""
  unknown = sorted(set(config.arms) - set(ARMS))
  if unknown or not config.arms:
    raise ValueError(
      f"config.arms: got {list(config.arms)}; allowed are {list(ARMS)}"
    )
  if config.attack.num_trials < 2:
    raise ValueError(
      f"config.attack.num_trials: got {config.attack.num_trials}; at least 2"
      " models are needed"
    )
  wants_chars = [name for name in config.arms if "chars" in ARMS[name]]
  if wants_chars and not models.reads_characters(config.model.name):
    raise ValueError(
      f"config.arms: got {wants_chars}; model.name {config.model.name!r} reads"
      " no characters (as 'bilstm' and 'bigru' do)"
    )
  for name in config.attack.searches:
    if name not in ("softmax", "gumbel"):
      raise ValueError(
        f"config.attack.searches: got {name!r}; allowed are ['softmax',"
        " 'gumbel']"
      )
  if not config.attack.searches:
    raise ValueError("config.attack.searches: got none; at least one is needed")
  _canary_data.make_cells(config)


def make_arms(config: _config_flags.Config) -> list[Defended]:
  """Data, model and plan of every arm, before any training."""
  fields = ml_collections.ConfigDict(config.to_dict())
  fields.num_seeds = fields.loop_steps = 1
  private = [n for n in config.arms if "private" in ARMS[n]]
  fields.arms = ("non_private", *private)
  built = {a.name: a for a in _arms.make_arms(fields, config.attack.pool_size)}
  kinds = {
    chars: _canary_data.make_data(config, chars=chars)
    for chars in {"chars" in ARMS[name] for name in config.arms}
  }
  found = []
  for name in config.arms:
    defences = ARMS[name]
    made = kinds["chars" in defences]
    model_fields = _arms.given(config.model)
    if "chars" in defences:
      model_fields["num_chars"] = len(data.CHARACTERS)
    if "dropout" in defences:
      model_fields["dropout"] = config.attack.dropout
    model = models.make_model(
      vocab_size=len(made.vocabulary),
      num_intents=len(made.intents),
      num_slots=len(made.slot_labels),
      max_length=made.max_length,
      **model_fields,
    )
    arm = built[name if "private" in defences else "non_private"]
    found.append(
      Defended(
        name=name,
        arm=dataclasses.replace(arm, name=name),
        made=made,
        model=model,
        defences=defences,
      )
    )
  return found


def train(
  config: _config_flags.Config,
  defended: Defended,
  cells: list[_canary_data.Cell],
  folder: pathlib.Path,
) -> Any:
  """Parameters of all models of an arm, [cells * trials].

  Raises:
    _console.Stopped: Ctrl-C.
  """
  examples, member = _canary_data.insert(
    defended.made,
    cells,
    config.attack.num_trials,
    config.seed,
    deduplicate="deduplicate" in defended.defences,
  )
  arm = defended.arm
  result = training.train_ensemble(
    *_step(config, defended),
    defended.model.init,
    examples,
    training.MemberLots(
      keep=member,
      seed=config.seed,
      plan=arm.plan,
      batch_size=None if arm.plan else arm.batch_size,
      capacity_multiple=arm.chunk_size or 8,
    ),
    jax.random.key(config.seed),
    training.EnsembleOptions(
      num_steps=arm.num_steps,
      title=defended.name,
      save_every_seconds=config.save_every_seconds,
    ),
    directory=folder / "checkpoints",
    identity=_identity(config, defended),
  )
  if not result.completed:
    raise _console.Stopped(
      f"stopped during {defended.name}; all is in {folder}"
    )
  return result.params


def _step(config, defended):
  """Start and step of an arm's models, which may stop early."""
  loss_fn = _arms.make_loss(
    config.loss, defended.model, defended.made.vocabulary
  )
  task = _arm_training.Task(
    corpus=None,  # pyright: ignore[reportArgumentType]  # Not looked at.
    model=defended.model,
    loss_fn=loss_fn,
    initial=defended.model.init,
    describe={},
  )
  built = _arm_training.build(task, defended.arm)
  if "early_stopping" not in defended.defences:
    return built
  splits = defended.made.splits
  held_out = {
    k: v[:_VALIDATION_RECORDS] for k, v in splits["validation"].items()
  }
  epoch = max(1, len(splits["train"]["intent"]) // defended.arm.batch_size)
  return _early_stopping.with_early_stopping(
    built, _mean_loss(loss_fn, held_out), every=epoch, start=3 * epoch
  )


def _identity(config, defended):
  """What must not differ when training goes on from a checkpoint."""
  return defended.arm.describe() | {
    "data": config.data.to_dict(),
    "pool_size": config.attack.pool_size,
    "canaries": [list(canary) for canary in config.canaries],
    "num_trials": config.attack.num_trials,
    "model": _arms.given(config.model),
    "loss": config.loss.to_dict(),
    "dropout": config.attack.dropout,
    "max_chars": config.attack.max_chars,
    "seed": config.seed,
    "defences": list(defended.defences),
  }


def _mean_loss(loss_fn, arrays):
  arrays = {k: jnp.asarray(v) for k, v in arrays.items()}

  def mean(params):
    losses = jax.lax.map(
      lambda example: loss_fn(params, example, None)[0], arrays, batch_size=64
    )
    return jnp.mean(losses)

  return mean


def run(config: _config_flags.Config, workdir: pathlib.Path) -> None:
  """Trains, attacks, writes and prints the record.

  Args:
    config: The study.
    workdir: Where everything is written.

  Raises:
    _console.Stopped: Ctrl-C, with everything saved.
  """
  check(config)
  as_json = json.loads(json.dumps(config.to_dict()))
  private_training.check_workdir(workdir, as_json)
  cells = _canary_data.make_cells(config)
  arms = make_arms(config)
  reporting.write_config(workdir, as_json)
  results = reporting.Results()
  results.set_protocol(
    {
      "data": config.data.to_dict(),
      "model": _arms.given(config.model),
      "canaries": [list(c) for c in config.canaries],
      "attack": config.attack.to_dict(),
      "delta": config.delta,
      "seed": config.seed,
    }
  )
  trials: dict[str, dict[str, _canary_record.Trials]] = {}
  for defended in arms:
    trials[defended.name] = {}
    params = train(config, defended, cells, workdir / "arms" / defended.name)
    print(f"{defended.name}: trained", flush=True)
    _record_utility(results, config, defended, params)
    count = config.attack.num_trials
    for number, cell in enumerate(cells):
      part = slice(number * count, (number + 1) * count)
      own = jax.tree.map(lambda x, part=part: x[part], params)
      folder = workdir / "arms" / defended.name / cell.name
      trials[defended.name][cell.name] = _attack_cell(
        results, config, defended, cell, own, folder
      )
    print(f"{defended.name}: attacked", flush=True)
  _canary_record.compare(results, config, cells, trials)
  table = _canary_record.make_table(results, config, cells)
  reporting.write_run(
    workdir,
    config=config,
    results=results,
    table=table,
    figures={"extraction": _canary_record.make_figure(results, config, cells)},
  )
  reporting.print_table(table)
  print(f"\nFiles: {workdir}/results.json, table.md, table.csv, figures/")


def _record_utility(results, config, defended, params):
  """Utility on clean test data, and the epsilons of one record."""
  arm, test = defended.name, defended.made.splits["test"]
  scores = [
    models.evaluate(
      defended.model,
      jax.tree.map(lambda x, i=i: x[i], params),
      test,
      defended.made.slot_labels,
    )
    for i in range(min(config.attack.num_trials, 10))
  ]
  for name in ("intent_accuracy", "slot_f1"):
    values = [float(getattr(score, name)) for score in scores]
    results.measure(f"{arm}/{name}", reporting.mean_interval(values))
  plan = defended.arm.plan
  if plan is None:
    for name in ("epsilon", "epsilon_naive"):
      results.set(f"{arm}/{name}", None, reason=_NO_MECHANISM)
    return
  results.set(f"{arm}/epsilon", plan.epsilon(config.delta).pld)
  results.set(f"{arm}/epsilon_naive", plan.naive_epsilon(config.delta).pld)
  results.set(f"{arm}/noise_multiplier", plan.mechanism.noise_multiplier)
  results.set(f"{arm}/plan", plan.fingerprint())


def make_searches(
  config: _config_flags.Config,
) -> dict[str, attacks.RelaxedSearch]:
  """The gradient searches of a config, by name."""
  fields = config.attack.search.to_dict()
  kinds = {
    "softmax": {"gumbel": 0.0},
    # Noise explores while it is warm; it must cool to settle.
    "gumbel": {"gumbel": 1.0, "final_temperature": 0.1},
  }
  return {
    name: attacks.RelaxedSearch(**(fields | kinds[name]))
    for name in config.attack.searches
  }


def _attack_cell(results, config, defended, cell, own, folder):
  """Attacks the models of one kind of canary and records what was found."""
  fields = config.attack
  codes = _canary_data.draw_codes(cell, fields.num_trials, config.seed)

  def attack(trials, codes, first):
    return _canary_attack.attack(
      defended.model,
      trials,
      cell,
      codes,
      searches=make_searches(config),
      part=fields.part,
      max_completions=fields.max_completions,
      chunk_size=fields.chunk_size,
      seed=config.seed,
      first=first,
    )

  found = _canary_attack.attack_in_blocks(
    folder,
    fields.block,
    _canary_attack.make_trials(defended.made, cell, own, codes),
    codes,
    attack,
  )
  key = f"{defended.name}/{cell.name}"
  candidates = len(cell.pattern.candidates)
  metrics = attacks.extraction_metrics(
    found.best(), codes, num_candidates=candidates
  )
  _membership_record.put(results, f"{key}/accuracy", metrics.accuracy)
  _membership_record.put(results, f"{key}/hamming", metrics.hamming)
  results.set(f"{key}/trials", len(codes))
  results.set(f"{key}/chance_accuracy", metrics.chance_accuracy)
  for name, guesses in found.guesses.items():
    one = attacks.extraction_metrics(guesses, codes, num_candidates=candidates)
    _membership_record.put(results, f"{key}/accuracy_{name}", one.accuracy)
  bits = _record_exposure(results, config, key, found, candidates**cell.length)
  _record_group(results, config, defended, cell, key)
  success = (found.best() == codes).all(axis=1)
  return _canary_record.Trials(success=success, bits=bits)


def _record_exposure(results, config, key, found, completions):
  """Rank and exposure where all completions were scored; exposures or None."""
  if np.isnan(found.ranks).any():
    reason = (
      f"{completions} completions are more than config.attack.max_completions"
      f" = {config.attack.max_completions}"
    )
    for name in ("exposure_mean", "rank_median", "exhaustive_top1", "gap"):
      results.set(f"{key}/{name}", None, reason=reason)
    return None
  bits = np.log2(completions) - np.log2(found.ranks)
  _membership_record.put(
    results, f"{key}/exposure_mean", attacks.bootstrap_mean(bits)
  )
  results.set(f"{key}/exposure_median", float(np.median(bits)))
  results.set(f"{key}/rank_median", float(np.median(found.ranks)))
  top, trials = int(found.alone.sum()), len(found.alone)
  results.measure(
    f"{key}/exhaustive_top1", reporting.clopper_pearson(top, trials)
  )
  accuracy = results[f"{key}/accuracy"]
  assert isinstance(accuracy, float)
  results.set(f"{key}/gap", top / trials - accuracy)
  return bits


def _record_group(results, config, defended, cell, key):
  """What the guarantee says of all copies, and of a guess at the code."""
  plan = defended.arm.plan
  if plan is None:
    for name in ("epsilon_group", "accuracy_ceiling"):
      results.set(f"{key}/{name}", None, reason=_NO_MECHANISM)
    return
  epsilon, reason = _canary_attack.group_epsilon(
    plan, cell.copies, config.delta
  )
  results.set(f"{key}/epsilon_group", epsilon, reason=reason or "not finite")
  ceiling = None
  if epsilon is not None:
    ceiling = attacks.extraction_ceiling(
      len(cell.pattern.candidates),
      cell.length,
      epsilon=epsilon,
      delta=config.delta,
    )
  results.set(f"{key}/accuracy_ceiling", ceiling, reason=reason or "not finite")


if __name__ == "__main__":
  _console.run_binary(
    run, default_config="canary_extraction/default.py", keep_compiled=True
  )
