r"""Who was in the training data? Attack success against epsilon.

  python -m experiments.membership_inference
  python -m experiments.membership_inference \
      --config=configs/membership_inference/snips.py \
      --config.data.manual_dir=DIR --workdir=OUT
  python -m experiments.membership_inference \
      --config.statistics_file=MODELS.npz

Every arm trains the same models on the same random halves of the data, as one
program; each model is then attacked with all the others as its shadows.
Success stands beside what the correct epsilon allows, and beside the naive
epsilon of clip groups, which is not a guarantee. Ctrl-C saves; the same command
goes on from there. `experiments._membership_attacks.read_outside` says what a
file of statistics of other models must hold.
"""

import dataclasses
import json
import pathlib

import jax
import ml_collections
import numpy as np

from experiments import private_training
from experiments._attacks import (
  _membership_attacks,
  _membership_groups,
  _membership_record,
  _shadow_training,
)
from experiments._binary import _config_flags, _console
from experiments._private_training import _arms
from trustjax import reporting


def make_arms(
  config: _config_flags.Config, num_members: int
) -> tuple[_arms.Arm, ...]:
  """The arms, with plans for the expected records of a model.

  Args:
    config: The study; "clip_only" is dp_sgd without noise.
    num_members: Expected records of a model.

  Returns:
    The arms in the config's order.

  Raises:
    ValueError: A field is impossible.
  """
  wanted = tuple(config.arms)
  if "dp_sgd_loop" in wanted:
    raise ValueError(
      "config.arms: got 'dp_sgd_loop', which is not trained to the end and"
      " cannot be attacked"
    )
  fields = ml_collections.ConfigDict(config.to_dict())
  fields.num_seeds = fields.loop_steps = 1
  names = [name for name in wanted if name != "clip_only"]
  if "clip_only" in wanted and "dp_sgd" not in names:
    names.append("dp_sgd")
  fields.arms = tuple(names)
  arms = list(_arms.make_arms(fields, num_members))
  if "clip_only" in wanted:
    arms.append(_clip_only(arms))
    if "dp_sgd" not in wanted:
      arms = [a for a in arms if not a.name.startswith("dp_sgd")]
  return tuple(arms)


def _clip_only(arms):
  twin = next(arm for arm in arms if arm.name == "dp_sgd")
  assert twin.plan is not None
  return dataclasses.replace(
    twin,
    name="clip_only",
    plan=twin.plan.replace_mechanism(noise_multiplier=0.0),
    target_epsilon=None,
  )


def check(config: _config_flags.Config) -> None:
  """Raises ValueError if a field of the attack is impossible."""
  fields = config.attack
  unknown = sorted(set(fields.attacks) - set(_membership_attacks.NAMES))
  if unknown or not fields.attacks:
    raise ValueError(
      f"config.attack.attacks: got {list(fields.attacks)}; allowed are"
      f" {list(_membership_attacks.NAMES)}"
    )
  for field, allowed in (
    ("groups", _membership_groups.NAMES),
    ("group_attacks", _membership_attacks.NAMES),
  ):
    unknown = sorted(set(fields[field]) - set(allowed))
    if unknown:
      raise ValueError(
        f"config.attack.{field}: got {unknown}; allowed are {list(allowed)}"
      )
  if not fields.fprs or not all(0 < fpr < 1 for fpr in fields.fprs):
    raise ValueError(
      f"config.attack.fprs: got {list(fields.fprs)}; one or more rates in"
      " (0, 1) are needed"
    )
  if fields.num_resamples < 1:
    raise ValueError(
      f"config.attack.num_resamples: got {fields.num_resamples}; it must be at"
      " least 1"
    )


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
  results = reporting.Results()
  if config.statistics_file:
    attacked = [_outside(config)]
    title = f"Membership inference, {config.statistics_file}"
    results.set_protocol({"attack": config.attack.to_dict()})
    _record(results, attacked, config, None)
  else:
    task = private_training.make_task(config)
    pool = _shadow_training.make_pool(task.corpus, config.attack, config.seed)
    arms = make_arms(config, pool.expected_members)
    print(
      f"{task.corpus.name}: {pool.num_records} records,"
      f" {len(pool.member)} models for each of {len(arms)} arms, of"
      f" {pool.expected_members} records on average",
      flush=True,
    )
    reporting.write_config(workdir, as_json)
    np.savez_compressed(workdir / "memberships.npz", member=pool.member)
    statistics = jax.jit(_shadow_training.make_statistics(task))
    attacked = [
      _attack(config, workdir, task, arm, pool, statistics) for arm in arms
    ]
    title = (
      f"Membership inference, {task.corpus.name}, {task.model.name},"
      f" {len(pool.member)} models, delta {config.delta:g}"
    )
    results.set_protocol(
      {
        "data": task.describe["data"],
        "model": task.describe["model"],
        "loss": task.describe["loss"],
        "delta": config.delta,
        "seed": config.seed,
        "attack": config.attack.to_dict(),
      }
    )
    _record(results, attacked, config, pool)
  _membership_record.add_claims(results, config.attack)
  table = _membership_record.make_table(results, config.attack, title=title)
  reporting.write_run(
    workdir,
    config=config,
    results=results,
    table=table,
    figures=_membership_record.make_figures(results, attacked, config.attack),
  )
  reporting.print_table(table)
  for claim in results.claims():
    print(f"claim {claim}: {results[f'claim/{claim}']}")
  print(f"\nFiles: {workdir}/results.json, table.md, table.csv, figures/")


def _attack(config, workdir, task, arm, pool, statistics):
  """Trains an arm's models, or reads their statistics, and attacks them."""
  found = _shadow_training.train_and_score(
    task,
    arm,
    pool,
    config.seed,
    workdir / "arms" / arm.name,
    {
      "chunk_size": config.attack.chunk_size,
      "save_every_seconds": config.save_every_seconds,
    },
    statistics,
  )
  print(
    f"{arm.name}: trained, {float(found['train_seconds']):.1f} s", flush=True
  )
  return _scored(config, arm.name, arm, found)


def _outside(config):
  found = _membership_attacks.read_outside(config.statistics_file)
  return _scored(config, "outside", None, found)


def _scored(config, name, arm, found):
  usable = _shadow_training.enough_shadows(found["member"])
  if not usable.any():
    raise ValueError(
      f"member: got {len(found['member'])} models, under which no record is in"
      " and out of three; train more of them"
    )
  records = found["member"].shape
  part = {
    key: value[:, usable] if value.shape[:2] == records else value
    for key, value in found.items()
  }
  # A population of as many records would look alike.
  if "population_log_p" in found:
    part["population_log_p"] = found["population_log_p"]
  scores = {
    attack: _membership_attacks.scores(attack, part, config.seed)
    for attack in config.attack.attacks
    if not _membership_attacks.missing(attack, found)
  }
  return _membership_record.Attacked(
    name=name, arm=arm, found=found, usable=usable, scores=scores
  )


def audit_canaries(
  attacked: _membership_record.Attacked, text: np.ndarray | None
) -> np.ndarray:
  """Usable records whose coin for model 0 an audit may guess.

  Copies of a text share a coin, and epsilon is that of one record, so a text
  must stand there once. A record that is usable only because of how its coin
  for model 0 fell has no fair coin left, given the other models' coins.

  Args:
    attacked: The arm.
    text: Group of each record, or None where nothing is known of copies.

  Returns:
    Their places among the usable records.
  """
  others = attacked.member[1:]
  allowed = _shadow_training.enough_shadows(others)
  if text is not None:
    _, group, copies = np.unique(
      text[attacked.usable], return_inverse=True, return_counts=True
    )
    allowed &= copies[group] == 1
  return np.flatnonzero(allowed)


def _record(results, attacked, config, pool):
  """Adds every arm; without a pool nothing is known of the records' texts."""
  text = None if pool is None else pool.text
  groups = {} if pool is None else _membership_groups.make_groups(pool)
  for each in attacked:
    _membership_record.record_arm(
      results,
      each,
      config.attack,
      config.delta,
      audit_canaries(each, text),
      config.seed,
    )
    _membership_groups.record(results, each, config.attack, groups, config.seed)
    dropped = int((~each.usable).sum())
    results.set(f"{each.name}/records_without_enough_shadows", dropped)


if __name__ == "__main__":
  _console.run_binary(
    run, default_config="membership_inference/default.py", keep_compiled=True
  )
