r"""Measures every fairness metric that applies to a model, with its interval.

  python -m experiments.fairness_metrics
  python -m experiments.fairness_metrics --config.corpus.bias=0 --workdir=OUT
  python -m experiments.fairness_metrics \
      --config.given.predictions=FILE.npz --workdir=OUT

Without files, a masked language model, a causal one and a classifier on top of
the masked one are trained on sentences with planted bias; what a metric should
find is known. With files, only what they hold is measured and nothing is
trained. results.json has `<metric>/<test>/value`, `/value_low`, `/value_high`
and `/n`; the table puts the noise floor of a gap beside it.
"""

import pathlib

import jax
import numpy as np

from experiments._binary import _config_flags, _console
from experiments._fairness import (
  _decision_metrics,
  _generated_texts,
  _given_arrays,
  _intrinsic_metrics,
  _measured,
  _pair_metrics,
  _planted_models,
  _probes,
  _sensitivities,
)
from trustjax import data, models, reporting

Config = _config_flags.Config
_NOTES = (
  "Signed effects are positive towards the planted stereotype.",
  "95 % of chance: a folded gap stays below it, a ratio above, in 95 of 100"
  " cases without bias.",
  "The ideal of a gender ratio is that of balanced text at these counts.",
)


def trained_metrics(
  config: Config, workdir: pathlib.Path
) -> _measured.Measures:
  """Trains the three models and measures them.

  Args:
    config: The binary's config.
    workdir: Where checkpoints live.

  Returns:
    `<metric>/<test>` to number; metrics of the causal model's association
    carry the prefix "causal_".

  Raises:
    _console.Stopped: Ctrl-C.
  """
  corpus = _planted_models.Corpus(seed=config.seed, **config.corpus.to_dict())
  key = jax.random.key(config.seed)
  found: _measured.Measures = {}
  encoders = {}
  for objective in _planted_models.OBJECTIVES:
    shape = _planted_models.Shape(objective=objective, **config.model.to_dict())
    encoders[objective] = params = _planted_models.train_language_model(
      shape,
      corpus,
      _schedule(config, config[f"{objective}_steps"]),
      config.seed,
      workdir / "models" / objective,
    )
    print(f"{objective} model trained", flush=True)
    model = _planted_models.make_language_model(shape)
    measures = _intrinsic_metrics.intrinsic_metrics(
      model, params, key, num_draws=config.num_draws
    )
    if isinstance(model, models.LanguageModel):
      measures = {
        name if name.startswith("causal_") else f"causal_{name}": one
        for name, one in measures.items()
      }
      measures |= _generated_texts.generation_metrics(
        model,
        params,
        key,
        num_samples=config.num_samples,
        sampling=models.Sampling(
          temperature=config.temperature,
          top_p=config.top_p,
          end_of_text=_probes.subwords().suffix[0],
        ),
      )
    found |= measures
  return found | _classifier_metrics(
    config, corpus, encoders["masked"], key, workdir / "models"
  )


def _classifier_metrics(config, corpus, encoder, key, folder):
  """Decisions of a classifier on the masked model, and their gradients."""
  shape = _planted_models.Shape(objective="masked", **config.model.to_dict())
  judged = [s for s in corpus.sentences() if s.opinion_at is not None]
  arrays = data.encode_sentences(judged)
  schedule = _schedule(config, config.classifier_steps)
  told = arrays["gender"] < 2
  classifier = _planted_models.make_classifier(shape, 2)
  trained = {
    name: _planted_models.train_classifier(
      classifier,
      encoder,
      {k: v[rows] for k, v in arrays.items()},
      target[rows],
      schedule,
      config.seed,
      trainable="all_but_words",
      folder=folder / name,
    )
    for name, target, rows in (
      ("classifier", arrays["label"], np.ones(len(judged), bool)),
      ("protected_status", arrays["gender"], told),
    )
  }
  print("classifier and protected-status model trained", flush=True)
  tested = _decision_metrics.tested_sentences(config.num_tested)
  plain = data.encode_sentences(tested)
  swapped = data.encode_sentences(tested, swapped=True)
  scores, changed = (
    _planted_models.class_probabilities(
      classifier, trained["classifier"], part
    )[:, 1]
    for part in (plain, swapped)
  )
  found = _decision_metrics.decision_metrics(
    scores, changed, plain["merit"], plain["gender"], key
  )
  found |= _pair_metrics.template_metrics(
    classifier, trained["classifier"], key
  )
  return found | _sensitivities.sensitivity_metrics(
    classifier,
    trained["classifier"],
    classifier,
    trained["protected_status"],
    plain,
    key,
  )


def _schedule(config, steps):
  return _planted_models.Schedule(
    steps=steps,
    batch_size=config.batch_size,
    learning_rate=config.learning_rate,
  )


def protocol(config: Config) -> dict:
  """What must be equal for two runs to be comparable; not the model."""
  if any(config.given.to_dict().values()):
    return {"given": sorted(k for k, v in config.given.items() if v)}
  return {
    "probes": _probes.digest(),
    "lexicon": data.gender_lexicon().digest,
    "num_tested": config.num_tested,
    "decoding": {
      "num_samples": config.num_samples,
      "temperature": config.temperature,
      "top_p": config.top_p,
    },
    "num_draws": config.num_draws,
  }


def run(config: Config, workdir: pathlib.Path) -> None:
  """Measures, writes and prints.

  Args:
    config: The binary's config.
    workdir: Where everything is written.

  Raises:
    _console.Stopped: Ctrl-C, with finished models saved.
  """
  for field in ("num_tested", "num_draws", "num_samples"):
    if config[field] < 1:
      raise ValueError(f"{field}: got {config[field]}; it must be at least 1")
  paths = config.given.to_dict()
  if any(paths.values()):
    measures = _given_arrays.given_metrics(
      paths, jax.random.key(config.seed), num_draws=config.num_draws
    )
    title = "Fairness metrics of the given arrays"
  else:
    measures = trained_metrics(config, workdir)
    planted = ", ".join(
      f"{field} {config.corpus[field]:g}"
      for field in ("bias", "opinion_bias", "label_bias")
    )
    title = f"Fairness metrics, planted {planted}"
  results = reporting.Results()
  results.set_protocol(protocol(config))
  _measured.record(results, measures)
  table = _measured.table(measures, title=title, notes=_NOTES)
  reporting.write_run(
    workdir,
    config=config,
    results=results,
    table=table,
    figures={"metrics": _measured.plot(measures, title=title)},
  )
  _measured.print_finished(workdir, table)


if __name__ == "__main__":
  _console.run_binary(
    run, default_config="fairness_metrics/default.py", keep_compiled=True
  )
