r"""Trains one model on many devices: one federated run, private or not.

  python -m experiments.federated_learning
  python -m experiments.federated_learning \
      --config.data.name=snips --config.data.manual_dir=DIR \
      --config.population.num_devices=2000 --config.privacy.enabled=True

Devices of heavy-tailed activity hold the utterances; each round a cohort is
selected, trains locally, and the server moves. Ctrl-C saves; the same command
goes on from there, bit for bit.
"""

import functools
import json
import pathlib

import numpy as np

from experiments._binary import _config_flags, _console
from experiments._federated import _setup
from experiments._private_training import _arms
from trustjax import federated, privacy, reporting, training


def make_plan(
  config: _config_flags.Config, num_users: int
) -> federated.UserLevelPlan | None:
  """The privacy plan of a run, or None.

  Args:
    config: The run.
    num_users: Registered devices.

  Returns:
    The plan, calibrated where a target epsilon is given.

  Raises:
    ValueError: The plan has no guarantee.
  """
  fields = config.privacy
  if not fields.enabled:
    return None
  rule = privacy.ThresholdClip(clip_norm=fields.clip_norm)
  if fields.adaptive_quantile is not None:
    rule = privacy.QuantileClip(
      clip_norm=fields.clip_norm,
      quantile=fields.adaptive_quantile,
      count_noise=fields.count_noise,
    )
  plan = federated.UserLevelPlan.make(
    num_users=num_users,
    cohort_size=config.selection.size,
    num_rounds=config.num_rounds,
    noise_multiplier=fields.noise_multiplier,
    rule=rule,
    strategy=_setup.strategy_of(config.selection, config.selection.strategy),
    q_max=fields.q_max,
    rate_factor=fields.rate_factor,
    simulated_cohort_size=fields.simulated_cohort_size,
  )
  if fields.target_epsilon is not None:
    plan = plan.calibrate(fields.target_epsilon, fields.delta)
  return plan


def make_options(
  config: _config_flags.Config, title: str
) -> federated.FederatedOptions:
  """The loop's options, read off a config."""
  compression = []
  if config.upload.top_k is not None:
    compression.append(federated.TopK(share=config.upload.top_k))
  if config.upload.quantize_bits is not None:
    compression.append(federated.Quantize(bits=config.upload.quantize_bits))
  periods = config.stream.num_periods
  if periods < 1 or config.num_rounds % periods:
    raise ValueError(
      f"stream.num_periods: got {periods}; it must divide the"
      f" {config.num_rounds} rounds"
    )
  return federated.FederatedOptions(
    num_rounds=config.num_rounds,
    rounds_per_period=config.num_rounds // periods,
    batch_size=config.batch_size,
    num_epochs=config.num_epochs,
    max_examples=config.max_examples,
    dropout=config.dropout,
    evaluate_every=config.evaluate_every,
    save_every_seconds=config.save_every_seconds,
    execution=federated.Execution(**_arms.given(config.execution)),
    compression=tuple(compression),
    title=title,
  )


def make_algorithm(
  config: _config_flags.Config, task: _setup.Task, num_clients: int
) -> federated.FederatedAlgorithm:
  """The algorithm of a run, with the memory of its uploads.

  Args:
    config: The run.
    task: Its loss.
    num_clients: Registered devices.

  Returns:
    The algorithm.

  Raises:
    ValueError: Error feedback without anything that is cut off.
  """
  algorithm = _setup.make_algorithm(task.loss_fn, config.algorithm, num_clients)
  if not config.upload.error_feedback:
    return algorithm
  if config.upload.top_k is None:
    raise ValueError(
      "upload.error_feedback: got True without upload.top_k; nothing is cut"
      " off that devices could keep"
    )
  return federated.with_error_feedback(
    algorithm,
    federated.TopK(share=config.upload.top_k),
    num_clients=num_clients,
  )


def run(config: _config_flags.Config, workdir: pathlib.Path) -> None:
  """Trains, and writes record, table and figures.

  Args:
    config: The run.
    workdir: Where everything is written.

  Raises:
    _console.Stopped: Ctrl-C, with everything saved.
  """
  task = _setup.make_task(config)
  partition = _setup.make_partition(task, config.population, config.seed)
  stream = _setup.make_stream(task, partition, config.stream, config.seed)
  retention = federated.Retention(
    kind=config.stream.retention,
    window=config.stream.window,
    capacity=config.stream.capacity,
  )
  plan = make_plan(config, partition.num_clients)
  if plan is not None:
    print(plan.statement(), flush=True)
  options = make_options(config, config.algorithm.name)
  algorithm = make_algorithm(config, task, partition.num_clients)
  as_json = json.loads(json.dumps(config.to_dict()))
  identity = {
    "config": {
      name: value
      for name, value in as_json.items()
      if name not in ("save_every_seconds", "data")
    },
    "data": stream.static().fingerprint(),
    "plan": None if plan is None else plan.describe(),
  }
  checkpoints = _setup.checkpointer(workdir, identity)
  try:
    with training.MetricWriter(
      workdir / "metrics.jsonl", resume_at=checkpoints.latest_step()
    ) as writer:
      result = federated.train_rounds(
        algorithm,
        _setup.first_params(task, config.seed),
        lambda period: stream.store(period, retention, seed=config.seed),
        functools.partial(
          federated.select_clients,
          strategy=_setup.strategy_of(
            config.selection, config.selection.strategy
          ),
          size=config.selection.size,
          sampling=config.selection.sampling,
          weighting=config.selection.weighting,
        ),
        _setup.root_key(config.seed),
        options,
        seed=config.seed,
        plan=plan,
        writer=writer,
        evaluate=lambda params, period: _setup.scores(
          task, params, "validation"
        ),
        checkpointer=checkpoints,
      )
  finally:
    checkpoints.close()
  if not result.completed:
    raise _console.Stopped(
      f"stopped after round {int(result.state.round)} of {config.num_rounds};"
      f" all is saved in {workdir}"
    )
  _write(workdir, as_json, config, task, partition, plan, result)


def _write(workdir, as_json, config, task, partition, plan, result):
  results = reporting.Results()
  results.set_protocol(task.describe | {"seed": config.seed})
  for name, value in _setup.scores(task, result.state.params, "test").items():
    results.set(name.removeprefix("test/"), value)
  results.set("rounds", config.num_rounds)
  results.set("examples", result.num_examples)
  results.set("bytes_up", result.bytes_up)
  results.set("bytes_down", result.bytes_down)
  results.set(
    "seconds_per_round",
    result.seconds_per_round,
    reason="the last session ran one round only",
  )
  _set_privacy(results, config, plan)
  statistics = federated.partition_statistics(
    task.groups, partition, np.random.default_rng(config.seed)
  )
  for name in ("num_clients", "size_variation", "classes_per_client"):
    results.set(f"partition/{name}", getattr(statistics, name))
  for name in ("mean_divergence", "noise_floor"):
    results.set(f"partition/{name}", getattr(statistics, name))
  table = reporting.Table(
    columns=(
      reporting.Column("what"),
      reporting.Column("value", format=".4g"),
    ),
    rows=[
      {"what": name, "value": results[name]}
      for name in results
      if not name.startswith("protocol") and not name.endswith("_reason")
    ],
    title=f"{config.algorithm.name} on {task.name}",
  )
  metrics = reporting.read_metrics(workdir / "metrics.jsonl")
  curves = {}
  for label, name in (
    ("Training loss", "train/loss"),
    ("Validation accuracy", f"validation/{task.headline}"),
  ):
    x, y = metrics.series(name)
    curves[label] = {config.algorithm.name: reporting.Curve(x, y)}
  reporting.write_run(
    workdir,
    config=as_json,
    results=results,
    table=table,
    figures={
      "learning_curves": reporting.plot_learning_curves(curves, x_label="round")
    },
  )
  reporting.print_table(table)
  print(f"\nFiles: {workdir}/results.json, table.md, table.csv, figures/")


def _set_privacy(results, config, plan):
  if plan is None:
    results.set("epsilon", None, reason="no mechanism was run")
    return
  if plan.simulated_cohort_size is not None:
    results.set("simulated_noise", "true")
    results.set(
      "epsilon", None, reason="noise of a larger cohort was simulated only"
    )
    results.set(
      "simulated_epsilon",
      plan.epsilon(config.privacy.delta).pld,
      reason="without noise no epsilon is finite",
    )
    return
  results.set(
    "epsilon",
    plan.epsilon(config.privacy.delta).pld,
    reason="without noise no epsilon is finite",
  )
  results.set("delta", config.privacy.delta)
  results.set("noise_multiplier", plan.mechanism.noise_multiplier)


if __name__ == "__main__":
  _console.run_binary(
    run, default_config="federated_learning/default.py", keep_compiled=True
  )
