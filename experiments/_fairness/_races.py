"""What the fairness benchmark races: ours against the usual way.

A race is a pair of functions that compute the same thing, and how many times
the work of the second one has to be taken to equal that of the first: slow ways
do a part of the work in a round, and their time is proportional to it.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments._binary import _config_flags
from experiments._fairness import (
  _decision_metrics,
  _planted_models,
  _sensitivities,
)
from trustjax import data, fairness


@dataclasses.dataclass(frozen=True, kw_only=True)
class Race:
  """Two ways to one result.

  Attributes:
    name: For the record.
    ours: Runs this package's way.
    theirs: Runs the other way, on a part of the work.
    scale: Times the part makes the whole.
    peer: What the other way is.
    at_least: Speed-up that is claimed.
    check: Raises unless both agree; run once.
    seconds_at_most: Time that ours may take; None where none is claimed.
  """

  name: str
  ours: Callable[[], Any]
  theirs: Callable[[], Any]
  scale: float
  peer: str
  at_least: float
  check: Callable[[], None]
  seconds_at_most: float | None = None


def make_races(config: _config_flags.Config) -> list[Race]:
  """The races that a config names.

  Raises:
    ValueError: The name is unknown, or a size is below 1.
  """
  makers = {
    "ceat": _ceat,
    "group_bootstrap": _group_bootstrap,
    "prediction_sensitivity": _sensitivity,
  }
  if config.only not in ("", *makers):
    raise ValueError(
      f"only: got {config.only!r}; allowed are '' and {list(makers)}"
    )
  for name in makers:
    for field, value in config[name].items():
      if value < 1:
        raise ValueError(f"{name}.{field}: got {value}; it must be at least 1")
  return [
    make(config[name], config.seed)
    for name, make in makers.items()
    if config.only in ("", name)
  ]


def _ceat(options, seed):
  rng = np.random.default_rng(seed)
  shape = (options.num_words, options.num_contexts, options.dim)
  contexts = [rng.normal(size=shape).astype(np.float32) for _ in range(4)]
  contexts[0][..., 0] += 0.5
  contexts[2][..., 0] += 0.5
  counts = [np.full(options.num_words, options.num_contexts)] * 4
  key = jax.random.key(seed)

  def ours():
    return fairness.ceat(
      *contexts, *counts, key=key, num_draws=options.num_draws
    ).es

  def theirs():
    drawing = np.random.default_rng(seed)
    found = np.empty(options.loop_draws)
    for i in range(options.loop_draws):
      chosen = drawing.integers(0, options.num_contexts, (4, options.num_words))
      found[i] = _effect(contexts, chosen)
    return found

  def check():
    draws = fairness.context_draws(
      tuple(counts),
      key=key,
      num_draws=options.loop_draws,
      max_contexts=options.num_contexts,
    )
    same = fairness.ceat(*contexts, *counts, draws=draws).es
    expected = [
      _effect(contexts, [part[i] for part in map(np.asarray, draws)])
      for i in range(options.loop_draws)
    ]
    np.testing.assert_allclose(same, expected, atol=1e-4)

  return Race(
    name="ceat",
    ours=ours,
    theirs=theirs,
    scale=options.num_draws / options.loop_draws,
    peer="NumPy loop over draws, cosines vectorised within a draw",
    at_least=20.0,
    check=check,
  )


def _effect(contexts, chosen):
  """Effect size of one draw by the published definition."""
  x, y, a, b = (
    part[np.arange(len(part)), at] for part, at in zip(contexts, chosen)
  )

  def cosines(one, other):
    one = one / np.linalg.norm(one, axis=1, keepdims=True)
    other = other / np.linalg.norm(other, axis=1, keepdims=True)
    return one @ other.T

  s_x, s_y = (cosines(w, a).mean(1) - cosines(w, b).mean(1) for w in (x, y))
  return (s_x.mean() - s_y.mean()) / np.concatenate([s_x, s_y]).std(ddof=1)


def _group_bootstrap(options, seed):
  rng = np.random.default_rng(seed)
  n = options.num_records
  group = rng.integers(0, options.num_groups, n)
  labels = (rng.random(n) < 0.4).astype(np.int32)
  decided = (rng.random(n) < 0.3 + 0.3 * labels + 0.03 * group).astype(np.int32)
  key = jax.random.key(seed)

  def ours():
    rates = fairness.group_rates(
      labels, decided, group, num_groups=options.num_groups
    )
    return fairness.group_gaps_test(
      rates, key=key, num=options.num_resamples
    ).low

  def theirs(num=options.peer_resamples):
    # The peer is an extra; the message names it where it is missing.
    try:
      from fairlearn import metrics as peer
    except ImportError as error:
      raise ValueError(
        "group_bootstrap: the peer fairlearn is not installed; install"
        " trustjax[test], or set --config.only to another race"
      ) from error
    frame = peer.MetricFrame(
      metrics={
        "selection_rate": peer.selection_rate,
        "tpr": peer.true_positive_rate,
        "fpr": peer.false_positive_rate,
      },
      y_true=labels,
      y_pred=decided,
      sensitive_features=group,
      n_boot=num,
      ci_quantiles=[0.025, 0.975],
      random_state=seed,
    )
    return frame.by_group

  def check():
    rates = fairness.group_rates(
      labels, decided, group, num_groups=options.num_groups
    )
    np.testing.assert_allclose(
      rates.tpr, np.asarray(theirs()["tpr"]), atol=1e-6
    )

  return Race(
    name="group_bootstrap",
    ours=ours,
    theirs=theirs,
    # The frame of the records themselves is as much work as a resample.
    scale=options.num_resamples / (options.peer_resamples + 1),
    peer="fairlearn MetricFrame with n_boot",
    at_least=1.0,
    check=check,
    seconds_at_most=5.0,
  )


def _sensitivity(options, seed):
  shape = _planted_models.Shape(
    objective="masked", num_layers=options.num_layers, dim=options.dim
  )
  classifier = _planted_models.make_classifier(shape, 2)
  encoder = classifier.model.init(jax.random.key(seed))
  params = classifier.init(jax.random.key(seed + 1), encoder)
  status_params = classifier.init(jax.random.key(seed + 2), encoder)
  sentences = _decision_metrics.tested_sentences(options.num_sentences)
  if len(sentences) < options.num_sentences:
    raise ValueError(
      f"prediction_sensitivity.num_sentences: got {options.num_sentences};"
      f" {len(sentences)} can be drawn"
    )
  arrays = data.encode_sentences(sentences)

  def ours():
    return _sensitivities.sensitivities(
      classifier, params, classifier, status_params, arrays, space="logit"
    ).value

  theirs = _sensitivity_loop(
    classifier, (params, status_params), arrays, options.loop_sentences
  )

  def check():
    np.testing.assert_allclose(
      np.asarray(ours())[: options.loop_sentences], theirs(), rtol=1e-3
    )

  return Race(
    name="prediction_sensitivity",
    ours=ours,
    theirs=theirs,
    scale=options.num_sentences / options.loop_sentences,
    peer="one compiled backward pass a sentence and class",
    at_least=5.0,
    check=check,
  )


def _sensitivity_loop(classifier, both_params, arrays, num):
  """The published definition, sentence by sentence and class by class."""

  @jax.jit
  def class_gradient(params, embedded, mask, k):
    return jax.grad(lambda e: classifier.logits(params, e, mask)[k])(embedded)

  embedded = np.asarray(
    classifier.embeddings(
      both_params[0], jnp.asarray(arrays["tokens"]), jnp.asarray(arrays["mask"])
    )
  )
  kept = arrays["mask"] & ~np.isin(arrays["tokens"], (2, 3))

  def loop():
    found = np.empty(num)
    for i in range(num):
      rows, status = (
        np.stack(
          [
            np.asarray(class_gradient(each, embedded[i], arrays["mask"][i], k))
            for k in range(2)
          ]
        )
        for each in both_params
      )
      weight = np.linalg.norm(np.abs(status).sum(0), axis=1) * kept[i]
      size = np.linalg.norm(rows, axis=2).mean(0)
      found[i] = (size * weight).sum() / weight.sum()
    return found

  return loop
