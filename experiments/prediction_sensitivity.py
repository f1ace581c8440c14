r"""Holds prediction sensitivity against a fairness label of each prediction.

  python -m experiments.prediction_sensitivity
  python -m experiments.prediction_sensitivity \
      --config=configs/prediction_sensitivity/hatexplain.py \
      --config.data.manual_dir=DIR --workdir=OUT

Trains a classifier, and a model of protected status on the same word vectors;
measures the accumulated sensitivity of every tested prediction and, as the
baseline, how far it moves when the gender is swapped; correlates both with a
label. On the planted sentences the label is planted: gender decided, or not.
On HateXplain and on the madlibs templates it is the error on texts about a
community. Beside it stand the bias AUCs of the classifier by community.
"""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from experiments._binary import _config_flags, _console
from experiments._fairness import (
  _community_aucs,
  _measured,
  _planted_models,
  _sensitivities,
  _sensitivity_data,
)
from trustjax import fairness, reporting

Config = _config_flags.Config
_VIEWS = ("point_biserial", "spearman", "auc")
_BASELINE = "counterfactual_gap"


def train(
  config: Config, task: _sensitivity_data.SensitivityData, folder: pathlib.Path
) -> dict[str, tuple[_planted_models.TextClassifier, dict]]:
  """The task model and the protected-status model, on one word table.

  Args:
    config: The binary's config.
    task: The data.
    folder: Where checkpoints live.

  Returns:
    Name to (classifier, parameters).

  Raises:
    _console.Stopped: Ctrl-C.
  """
  encoder = _sensitivity_data.make_encoder(task, **config.model.to_dict())
  schedule = _planted_models.Schedule(
    steps=config.steps,
    batch_size=config.batch_size,
    learning_rate=config.learning_rate,
  )
  first = encoder.init(jax.random.key(config.seed))
  trained = {}
  for name, target, num_classes, trainable in (
    ("task", task.target, 2, "all"),
    ("protected_status", task.status, task.num_status, "all_but_words"),
  ):
    classifier = _planted_models.TextClassifier(encoder, num_classes)
    params = _planted_models.train_classifier(
      classifier,
      first,
      task.train,
      target,
      schedule,
      config.seed,
      trainable=trainable,
      folder=folder / name,
    )
    trained[name] = (classifier, params)
    # The words of the task model stay: gradients share their coordinates.
    first = params["encoder"]
    print(f"{name} model trained", flush=True)
  return trained


def per_prediction(
  config: Config,
  task: _sensitivity_data.SensitivityData,
  trained: dict[str, tuple[_planted_models.TextClassifier, dict]],
) -> tuple[dict[str, np.ndarray], np.ndarray]:
  """Metrics of every tested prediction, and the scores.

  Args:
    config: The binary's config.
    task: The data.
    trained: From `train`.

  Returns:
    Metric to one number a text (nan where there is none), and the probability
    of class 1. `uniform_prob` is the sensitivity to anything at all: what any
    metric of unfairness has to beat.
  """
  classifier, params = trained["task"]
  status, status_params = trained["protected_status"]
  found: dict[str, np.ndarray] = {}
  for space in ("prob", "logit"):
    result = _sensitivities.sensitivities(
      classifier,
      params,
      status,
      status_params,
      task.tested,
      space=space,
      special_ids=task.special,
      w=config.w,
      reduce=config.reduce,
    )
    found[f"sensitivity_{space}"] = np.asarray(result.value)
    found[f"relative_{space}"] = np.asarray(result.relative)
    if space == "prob":
      found["uniform_prob"] = np.asarray(result.uniform)
  plain, swapped = (
    _planted_models.class_probabilities(classifier, params, part)
    for part in (task.tested, task.swapped)
  )
  predicted = plain.argmax(1)
  rows = np.arange(len(predicted))
  gap = fairness.counterfactual_gap(
    plain[rows, predicted],
    swapped[rows, predicted][:, None],
    task.valid[:, None],
  )
  found[_BASELINE] = np.asarray(gap.per_item)
  return found, plain[:, 1]


def make_results(
  config: Config,
  task: _sensitivity_data.SensitivityData,
  metrics: dict[str, np.ndarray],
  predicted: np.ndarray,
) -> reporting.Results:
  """Agreements of all metrics with all labels, and the paired comparison.

  A text without a counterfactual has no gap; its gap counts as 0, the verdict
  of the baseline that nothing depends on gender, so that all metrics are
  compared on the same texts. `<study>/counterfactual_coverage` says how many
  have one.
  """
  key = jax.random.key(config.seed)
  results = reporting.Results()
  results.set_protocol(
    {
      "data": config.data.name,
      "num_tested": len(predicted),
      "w": config.w,
      "reduce": config.reduce,
      "seed": config.seed,
    }
  )
  results.set("accuracy", float(np.mean(predicted == task.tested_target)))
  metrics = {
    name: np.nan_to_num(values) if name == _BASELINE else values
    for name, values in metrics.items()
  }
  for study, (labels, rows) in _sensitivity_data.fairness_labels(
    task, predicted
  ).items():
    rows = rows & np.all([np.isfinite(v) for v in metrics.values()], axis=0)
    labels = labels[rows]
    results.set(f"{study}/n", int(rows.sum()))
    results.set(f"{study}/n_unfair", int(labels.sum()))
    results.set(
      f"{study}/counterfactual_coverage", float(task.valid[rows].mean())
    )
    for name, values in metrics.items():
      for view in _VIEWS:
        _agreement(
          results, f"{name}/{study}", view, values[rows], labels, key, config
        )
    _comparison(results, study, metrics, rows, labels, key, config)
  return results


def _agreement(results, name, view, values, labels, key, config):
  if labels.min() == labels.max() or values.min() == values.max():
    results.set(
      f"{name}/{view}", None, reason="the label or the metric is constant"
    )
    return
  boot = fairness.bootstrap(
    _AGREEMENTS[view],
    (jnp.asarray(values, jnp.float32), jnp.asarray(labels, jnp.float32)),
    key=key,
    num=config.num_boot,
    strata=labels,
  )
  _set(
    results,
    f"{name}/{view}",
    _measured.measured(boot.estimate, len(labels), boot.low, boot.high),
  )


def _set(results, key, one):
  """An entry with its interval, or null."""
  cell = one.cell()
  if isinstance(cell, reporting.Missing):
    results.set(key, None, reason=cell.reason)
  else:
    results.measure(key, cell)


def _of(view):
  def agreement(data):
    return getattr(fairness.label_agreement(*data), view)

  return agreement


# One object a view, so that each compiles once.
_AGREEMENTS = {view: _of(view) for view in _VIEWS}


def _comparison(results, study, metrics, rows, labels, key, config):
  """The metric minus its baseline, on the same texts."""
  name = f"difference/{study}/point_biserial"
  first = metrics["sensitivity_prob"][rows]
  second = metrics[_BASELINE][rows]
  if min(np.ptp(labels), np.ptp(first), np.ptp(second)) == 0:
    results.set(name, None, reason="the label or a metric is constant")
    return
  found = fairness.compare_agreement(
    first, second, labels, key=key, num=config.num_boot
  )
  _set(
    results,
    name,
    _measured.measured(
      found.difference.estimate.point_biserial,
      len(labels),
      found.difference.low.point_biserial,
      found.difference.high.point_biserial,
    ),
  )
  results.set(f"difference/{study}/steiger_p", found.steiger_p)


def make_table(results: reporting.Results, studies, metrics):
  """One row a metric and study."""
  return reporting.Table(
    columns=[
      reporting.Column("study"),
      reporting.Column("metric"),
      *(reporting.Column(v, v.replace("_", " "), format=".3f") for v in _VIEWS),
    ],
    rows=[
      {
        "study": study,
        "metric": name,
        **{
          view: _measured.cell(results, f"{name}/{study}/{view}")
          for view in _VIEWS
        },
      }
      for study in studies
      for name in metrics
    ],
    title="Agreement with the fairness label",
    notes=[
      "auc: chance that an unfair prediction scores higher; 0.5 is none.",
      "uniform_prob is the sensitivity to anything: the metric to beat.",
    ],
  )


def plot(metrics, studies, title):
  """Every metric's distribution, unfair against fair predictions."""
  pairs = [(study, name) for study in studies for name in metrics]
  figure, panels = reporting.new_figure(panels=len(pairs), title=title)
  for axis, (study, name) in zip(panels, pairs):
    labels, rows = studies[study]
    values = metrics[name]
    for label, text, color in (
      (0, "fair", "#1b6ca8"),
      (1, "unfair", "#c2571a"),
    ):
      kept = values[rows & (labels == label) & np.isfinite(values)]
      if len(kept):
        axis.plot(
          np.sort(kept), np.linspace(0, 1, len(kept)), color=color, label=text
        )
    axis.set_title(f"{name}, {study}")
    axis.set_ylabel("share of texts below")
  panels[0].legend()
  return figure


def run(config: Config, workdir: pathlib.Path) -> None:
  """Trains, measures, writes and prints.

  Args:
    config: The binary's config.
    workdir: Where everything is written.

  Raises:
    _console.Stopped: Ctrl-C, with finished models saved.
  """
  task = _sensitivity_data.load(config)
  trained = train(config, task, workdir / "models")
  metrics, scores = per_prediction(config, task, trained)
  predicted = (scores > 0.5).astype(int)
  results = make_results(config, task, metrics, predicted)
  _measured.record(
    results,
    _community_aucs.community_aucs(
      scores,
      task.tested_target,
      task.groups,
      task.group_names,
      jax.random.key(config.seed),
      num=config.num_boot,
    ),
  )
  aucs = _community_aucs.table(
    results, task.group_names, f"Bias AUCs on {task.name}"
  )
  reporting.write_table(workdir / "community_aucs", aucs)
  studies = _sensitivity_data.fairness_labels(task, predicted)
  table = make_table(results, studies, metrics)
  reporting.write_run(
    workdir,
    config=config,
    results=results,
    table=table,
    figures={"metrics": plot(metrics, studies, f"Predictions on {task.name}")},
  )
  reporting.print_table(aucs)
  _measured.print_finished(workdir, table)


if __name__ == "__main__":
  _console.run_binary(
    run, default_config="prediction_sensitivity/default.py", keep_compiled=True
  )
