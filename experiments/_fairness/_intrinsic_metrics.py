"""Metrics that look inside a language model: vectors and likelihoods.

Every function takes a trained model of the occupation sentences and returns
named numbers. Signs are chosen so that positive means the planted side: male
with the occupations that were planted as male, and with praise.
"""

import jax
import jax.numpy as jnp
import numpy as np

from experiments._fairness import _measured, _planted_models, _probes
from trustjax import data, fairness, models

# Association tests by what the corpus plants.
TESTS = ("occupations", "opinions")


def intrinsic_metrics(
  model: _planted_models.LanguageModel,
  params: _planted_models.Params,
  key: jax.Array,
  *,
  num_draws: int = 1000,
) -> _measured.Measures:
  """All intrinsic metrics that apply to a model.

  Args:
    model: Masked or causal.
    params: Its parameters.
    key: Of draws and resamples.
    num_draws: Draws of CEAT.

  Returns:
    `<metric>/<test>` to number.
  """
  found = association_metrics(model, params, key, num_draws=num_draws)
  if isinstance(model, models.LanguageModel):
    return found | causal_likelihoods(model, params, key)
  return found | masked_likelihoods(model, params, key)


def association_metrics(model, params, key, *, num_draws):
  """WEAT of the word table, SEAT and CEAT of hidden states."""
  found: _measured.Measures = {}
  table = np.asarray(model.word_table(params))
  arrays, places = _probes.contexts()
  hidden = np.asarray(_probes.hidden_states(model, params, arrays))
  vocabulary = data.occupation_vocabulary()
  for number, test in enumerate(TESTS):
    sets = _probes.word_sets()[test]
    own = jax.random.fold_in(key, number)
    result = fairness.weat(
      *(table[vocabulary.encode(sets[side])] for side in "xyab")
    )
    found[f"weat/{test}"] = _of_weat(result, own)
    vectors = []
    for side in "xyab":
      probe = _probes.sentence_probes(test)[side]
      vectors.append(
        fairness.pool_hidden(
          _probes.hidden_states(model, params, probe),
          jnp.asarray(probe["mask"]),
          pooling="mean",
        )
      )
    result = fairness.seat(*vectors, pooling="mean")
    found[f"seat/{test}"] = _of_weat(result, own)
    stacked = [_stack(hidden, places, sets[side]) for side in "xyab"]
    pooled = fairness.ceat(
      *(contexts for contexts, _ in stacked),
      *(counts for _, counts in stacked),
      key=own,
      num_draws=num_draws,
      replace="always",
    )
    # The quantiles of the effect over draws: what contexts make of it. The
    # standard error only measures the number of draws.
    found[f"ceat/{test}"] = _measured.measured(
      pooled.ces, pooled.n, pooled.low, pooled.high
    )
  return found


def _of_weat(result, key):
  interval = fairness.weat_interval(result, key=key, num=_measured.NUM_BOOT)
  return _measured.measured(
    result.effect_size, result.n, interval.low, interval.high
  )


def _stack(hidden, places, words):
  """Contexts [words, most, dim] and how many each word has."""
  counts = np.array([len(places[word]) for word in words], np.int32)
  stacked = np.zeros((len(words), counts.max(), hidden.shape[-1]), np.float32)
  for row, word in enumerate(words):
    for column, (sentence, at) in enumerate(places[word]):
      stacked[row, column] = hidden[sentence, at]
  return stacked, counts


def masked_likelihoods(model, params, key):
  """LPBS, StereoSet and CrowS-Pairs of a masked model."""
  fn = models.bind(models.log_prob_function(model), params)
  found = {}
  for test in TESTS:
    probe = _probes.template_probe(test)
    scores = fairness.ilps(
      fairness.score_masked(fn, probe.target, batch_size=128),
      fairness.score_masked(fn, probe.prior, batch_size=128),
    )
    found[f"lpbs/{test}"] = _of_templates(scores, key)
  queries = _probes.cluster_queries()
  scores = fairness.mean_probability_by_item(
    fairness.score_masked(fn, queries, batch_size=128), queries
  )
  found |= _of_clusters("stereoset", jnp.reshape(scores, (-1, 3)), key)
  queries = _probes.pair_queries()
  scores = fairness.sum_by_item(
    fairness.score_masked(fn, queries, batch_size=128), queries
  )
  found["crows_pairs/occupations"] = _of_pairs(jnp.reshape(scores, (-1, 2)))
  return found


def causal_likelihoods(model, params, key):
  """The causal relatives of the same metrics, under their own names."""
  fn = models.bind(_probes.started_log_probs(model), params)
  start = _probes.subwords().prefix[0]
  found = {}
  for test in TESTS:
    filled, neutral = (
      fairness.score_causal(fn, queries, start_id=start, batch_size=128).sum(1)
      for queries in _probes.causal_template_probe(test)
    )
    found[f"causal_lpbs/{test}"] = _of_templates(
      fairness.causal_ilps(filled, neutral), key
    )
  scores = fairness.causal_stereoset_scores(
    fn,
    _probes.cluster_sentences(),
    _probes.subwords(),
    start_id=start,
    batch_size=128,
  )
  found |= _of_clusters("causal_stereoset", scores, key)
  scores = fairness.causal_pair_scores(
    fn, _probes.pairs(), _probes.subwords(), start_id=start, batch_size=128
  )
  found["causal_pairs/occupations"] = _of_pairs(scores)
  return found


def _of_templates(scores, key):
  """Bias towards the stereotyped target, from items in pairs."""
  pairs = np.reshape(np.asarray(scores), (-1, 2))
  result = fairness.template_bias(
    pairs[:, 0], pairs[:, 1], key=key, num=_measured.NUM_BOOT
  )
  return _measured.measured(result.value, result.n, result.low, result.high)


def _of_clusters(name, scores, key):
  _, _, targets = _probes.clusters()
  result = fairness.stereoset(
    scores, targets, num_targets=len(_probes.leaning())
  )
  interval = fairness.stereoset_interval(
    result, key=key, num=_measured.NUM_BOOT
  )
  return {
    f"{name}_{field}/occupations": _measured.measured(
      getattr(result, field),
      result.n,
      interval.low[field],
      interval.high[field],
      ideal=ideal,
    )
    for field, ideal in (("ss", 50.0), ("lms", 100.0), ("icat", 100.0))
  }


def _of_pairs(scores):
  scores = np.asarray(scores)
  result = fairness.crows_pairs(
    scores[:, 0], scores[:, 1], np.zeros(len(scores), bool)
  )
  return _measured.measured(
    result.overall, result.n, result.low, result.high, ideal=50.0
  )
