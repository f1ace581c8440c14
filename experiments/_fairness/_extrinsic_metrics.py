"""Metrics of what a model does: decisions, scores, pairs, generated text."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from experiments._fairness import _measured, _planted_models, _probes
from trustjax import data, fairness, models

_NUM_BOOT = 1000
FEMALE, MALE = 0, 1
_TESTED_SEED = 900_002
_MAX_NEW = 6
_NOT_GENDERED = "no generated text has a gendered word"


@functools.cache
def tested_sentences(size: int) -> tuple[data.OccupationSentence, ...]:
  """Held-out sentences without bias that judge a person whose gender is told.

  A fair judge's labels (`merit`) are what decisions are held against.
  """
  drawn = data.occupation_sentences(_TESTED_SEED, 6 * size, 0.0)
  kept = [
    s for s in drawn if s.gender != "neutral" and s.opinion_at is not None
  ]
  return tuple(kept[:size])


def decision_metrics(
  scores: np.ndarray,
  swapped: np.ndarray,
  labels: np.ndarray,
  group: np.ndarray,
  key: jax.Array,
  *,
  threshold: float = 0.5,
) -> _measured.Measures:
  """Metrics of a binary classifier over two groups.

  Args:
    scores: Probability of the favourable class.
    swapped: The same of the counterfactual of each record.
    labels: What a fair judge decided.
    group: FEMALE or MALE.
    key: Of resamples.
    threshold: Above it the decision is favourable.

  Returns:
    `<metric>/<group or test>` to number.
  """
  decided = (scores > threshold).astype(np.int32)
  rates = fairness.group_rates(labels, decided, group, num_groups=2)
  tested = fairness.group_gaps_test(rates, key=key, num=2000)
  found = {}
  for name in (
    "demographic_parity_difference",
    "equalized_odds_difference",
    "equal_opportunity_difference",
  ):
    found[f"{name}/gender"] = _measured.measured(
      getattr(tested.estimate, name),
      len(scores),
      getattr(tested.low, name),
      getattr(tested.high, name),
      null=(
        float(getattr(tested.null_mean, name)),
        float(getattr(tested.null_high, name)),
      ),
    )
  ratio = "demographic_parity_ratio"
  found[f"{ratio}/gender"] = _measured.measured(
    getattr(tested.estimate, ratio),
    len(scores),
    getattr(tested.low, ratio),
    getattr(tested.high, ratio),
    ideal=1.0,
  )
  found |= score_metrics(scores, labels, group, key)
  return found | counterfactual_metrics(
    scores, swapped, group, key, threshold=threshold
  )


def score_metrics(
  scores: np.ndarray, labels: np.ndarray, group: np.ndarray, key: jax.Array
) -> _measured.Measures:
  """Ranking and calibration of two groups.

  Args:
    scores: Probability of the favourable class.
    labels: What a fair judge decided.
    group: FEMALE or MALE.
    key: Of resamples.

  Returns:
    `<metric>/<group>` to number.
  """
  groups = np.stack([group == FEMALE, group == MALE], axis=1)
  names = ("female", "male")
  boot = fairness.bias_aucs_bootstrap(
    scores, labels, groups, key=key, num=_NUM_BOOT
  )
  found = {}
  for name in ("subgroup", "bpsn", "bnsp", "pos_aeg", "neg_aeg"):
    gap = name.endswith("aeg")
    for index, label in enumerate(names):
      found[f"{name}{'' if gap else '_auc'}/{label}"] = _measured.measured(
        getattr(boot.estimate, name)[index],
        boot.estimate.n[index],
        getattr(boot.low, name)[index],
        getattr(boot.high, name)[index],
        ideal=0.0 if gap else 1.0,
      )
  power_mean = boot.map(_bnsp_power_mean)
  found["bnsp_auc_power_mean/gender"] = _measured.measured(
    power_mean.estimate,
    len(scores),
    power_mean.low,
    power_mean.high,
    ideal=1.0,
  )
  pinned = fairness.pinned_auc_bootstrap(
    scores, labels, groups, key=key, num=_NUM_BOOT
  )
  for index, label in enumerate(names):
    found[f"pinned_auc/{label}"] = _measured.measured(
      pinned.estimate[0][index],
      boot.estimate.n[index],
      pinned.low[0][index],
      pinned.high[0][index],
      ideal=1.0,
    )
  found["pinned_auc_gap/gender"] = _measured.measured(
    pinned.estimate[1], len(scores), pinned.low[1], pinned.high[1]
  )
  calibration = fairness.group_calibration_bootstrap(
    scores, labels, group, num_groups=2, key=key, num=_NUM_BOOT
  )
  for index, label in enumerate(names):
    found[f"calibration_bias/{label}"] = _measured.measured(
      calibration.estimate.bias[index],
      calibration.estimate.n[index],
      calibration.low.bias[index],
      calibration.high.bias[index],
    )
  found["calibration_gap/gender"] = _measured.measured(
    calibration.estimate.bias_gap,
    len(scores),
    calibration.low.bias_gap,
    calibration.high.bias_gap,
  )
  return found


def _bnsp_power_mean(aucs):
  return fairness.power_mean(aucs.bnsp)


def counterfactual_metrics(
  scores: np.ndarray,
  swapped: np.ndarray,
  group: np.ndarray,
  key: jax.Array,
  *,
  threshold: float = 0.5,
) -> _measured.Measures:
  """How far a score moves when only the gender changes.

  Args:
    scores: Probability of the favourable class.
    swapped: The same of the counterfactual of each record.
    group: FEMALE or MALE.
    key: Of resamples.
    threshold: Above it the decision is favourable.

  Returns:
    `<metric>/gender` to number.
  """
  # The woman is the original, whichever of the two was written: the signed gap
  # is what she loses.
  of_woman, of_man = (
    np.where(group == which, scores, swapped) for which in (FEMALE, MALE)
  )
  gap = fairness.counterfactual_gap_bootstrap(
    of_woman,
    of_man[:, None],
    np.ones((len(scores), 1), bool),
    key=key,
    num=_NUM_BOOT,
    threshold=threshold,
  )
  return {
    f"counterfactual_{name}/gender": _measured.measured(
      gap.estimate[field], len(scores), gap.low[field], gap.high[field]
    )
    for name, field in (
      ("gap", "mean"),
      ("signed", "signed"),
      ("flip_rate", "flip_rate"),
    )
  }


def sensitivity_metrics(
  classifier: _planted_models.TextClassifier,
  params: _planted_models.Params,
  status: _planted_models.TextClassifier,
  status_params: _planted_models.Params,
  arrays: dict[str, np.ndarray],
  key: jax.Array,
) -> _measured.Measures:
  """Accumulated prediction sensitivity, relative to that to anything at all."""
  found = {}
  for space in ("prob", "logit"):
    result = sensitivities(
      classifier, params, status, status_params, arrays, space=space
    )
    relative = np.asarray(result.relative)
    known = relative[np.isfinite(relative)]
    interval = fairness.bootstrap(
      jnp.mean, jnp.asarray(known), key=key, num=_NUM_BOOT
    )
    found[f"prediction_sensitivity/{space}"] = _measured.measured(
      interval.estimate, len(known), interval.low, interval.high
    )
  return found


def sensitivities(
  classifier,
  params,
  status,
  status_params,
  arrays,
  *,
  space,
  special_ids: tuple[int, ...] | None = None,
  **options,
) -> fairness.PredictionSensitivity:
  """Sensitivities of all records, weighed by a protected-status model.

  Args:
    classifier: The task model.
    params: Its parameters.
    status: The protected-status model, on the same word table.
    status_params: Its parameters.
    arrays: tokens and mask.
    space: "prob", "logit" or "log_prob".
    special_ids: Tokens that do not count; None takes the start and the end of
      an occupation sentence.
    **options: Of `fairness.prediction_sensitivity`.

  Returns:
    The sensitivities.
  """
  if special_ids is None:
    special_ids = (*_probes.subwords().prefix, *_probes.subwords().suffix)
  tokens = jnp.asarray(arrays["tokens"])
  mask = jnp.asarray(arrays["mask"])
  return fairness.prediction_sensitivity(
    jax.tree_util.Partial(classifier.classes, params),
    jax.tree_util.Partial(status.classes, status_params),
    _embedded(classifier, params, tokens, mask),
    mask,
    space=space,
    psm_space="logit",
    special=np.isin(arrays["tokens"], special_ids),
    **options,
  )


@functools.partial(jax.jit, static_argnums=0)
def _embedded(classifier, params, tokens, mask):
  return classifier.embeddings(params, tokens, mask)


def template_metrics(
  classifier: _planted_models.TextClassifier,
  params: _planted_models.Params,
  key: jax.Array,
) -> _measured.Measures:
  """Gaps between fillings of a template that differ in the person alone.

  Args:
    classifier: The classifier.
    params: Its parameters.
    key: Of resamples, over templates.

  Returns:
    `template_gap/persons` and `template_flip_rate/persons`.
  """
  templates, rows = _probes.person_templates()
  scores = _planted_models.class_probabilities(
    classifier, params, _probes.encode(rows)
  )[:, 1]
  by_template = np.reshape(scores, (templates, -1))
  gap = fairness.template_gap_bootstrap(
    by_template, np.ones(by_template.shape, bool), key=key, num=_NUM_BOOT
  )
  persons = by_template.shape[1]
  return {
    f"template_{name}/persons": _measured.measured(
      gap.estimate[field],
      templates * persons * (persons - 1) // 2,
      gap.low[field],
      gap.high[field],
    )
    for name, field in (("gap", "mean"), ("flip_rate", "flip_rate"))
  }


def generation_metrics(
  model: models.LanguageModel,
  params: _planted_models.Params,
  key: jax.Array,
  *,
  num_samples: int,
  sampling: models.Sampling | None = None,
) -> _measured.Measures:
  """Gender after occupations, judgement after genders.

  Args:
    model: A causal model.
    params: Its parameters.
    key: Of sampling and resampling.
    num_samples: Continuations of each prompt.
    sampling: None draws from the model's own distribution.

  Returns:
    `<metric>/<test>` to number.
  """
  sampling = sampling or models.Sampling(
    end_of_text=_probes.subwords().suffix[0]
  )
  found = _gender_of_texts(model, params, key, num_samples, sampling)
  return found | _judgement_of_texts(model, params, key, num_samples, sampling)


def continuations(
  model, params, prompts, key, num_samples, sampling
) -> list[list[str]]:
  """Texts of the samples of every prompt, the prompts left out."""
  start = _probes.subwords().prefix
  vocabulary = data.occupation_vocabulary()
  written = models.continue_prompts(
    model,
    params,
    [[*start, *vocabulary.encode(prompt.tokens)] for prompt in prompts],
    key,
    max_new_tokens=_MAX_NEW,
    sampling=sampling,
    num_samples=num_samples,
    chunk_size=1024,
  )
  return [
    [" ".join(vocabulary.decode(ids)) for ids in samples]
    for samples in written.texts()
  ]


def _gender_of_texts(model, params, key, num_samples, sampling):
  leaning = dict(_probes.leaning())
  prompts = [p for p in data.occupation_prompts() if p.group in leaning]
  texts = continuations(
    model, params, prompts, jax.random.fold_in(key, 0), num_samples, sampling
  )
  flat = [text for samples in texts for text in samples]
  prompt = np.repeat(np.arange(len(prompts)), num_samples)
  occupations = list(leaning)
  group = np.array([occupations.index(prompts[p].group) for p in prompt])
  labels = np.asarray(fairness.gender_label(*fairness.gender_word_counts(flat)))
  boot = fairness.gender_ratio_bootstrap(
    labels,
    group,
    prompt,
    num_groups=len(occupations),
    key=key,
    num=_NUM_BOOT,
  )
  gendered = np.asarray(boot.estimate.counts)[:, :2].sum(1)
  noise = fairness.gender_ratio_noise(gendered.astype(int), key=key, num=2000)
  found = {
    f"gender_ratio_{name}/occupations": _measured.measured(
      getattr(boot.estimate, name),
      noise.n,
      getattr(boot.low, name),
      getattr(boot.high, name),
      # What perfectly balanced text would get at these sizes.
      ideal=getattr(noise, name) if noise.n else 1.0,
      null=(getattr(noise, name), getattr(noise, f"{name}_low")),
      reason=_NOT_GENDERED,
    )
    for name in ("mean", "minimum")
  }
  planted = np.array([leaning[name] == "female" for name in occupations])[group]
  told = (labels == fairness.FEMALE) | (labels == fairness.MALE)
  agree = (labels == fairness.FEMALE) == planted
  found["polarity_unigram/occupations"] = _share_above_half(
    agree[told], prompt[told], key
  )
  return found | _projected_polarity(model, params, flat, planted, prompt, key)


def _share_above_half(agree, prompt, key):
  """Share of gendered texts on the stereotype's side, less one half."""
  if not len(agree):
    return _measured.Measured(value=float("nan"), n=0, reason=_NOT_GENDERED)
  interval = _mean_over_prompts(agree - 0.5, prompt, key)
  return _measured.measured(
    interval.estimate, len(agree), interval.low, interval.high
  )


def _mean_over_prompts(values, prompt, key):
  """Bootstrap of a mean that keeps the texts of a prompt together."""
  return fairness.bootstrap(
    _weighted_mean,
    jnp.asarray(values, jnp.float32),
    key=key,
    num=_NUM_BOOT,
    clusters=prompt,
    by="weights",
  )


def _weighted_mean(values, weights):
  return weights @ values / weights.sum()


def _projected_polarity(model, params, texts, planted, prompt, key):
  """Weighted and largest projection on she - he of the model's own vectors.

  Signed towards the planted stereotype. Occupation words, whose vectors are
  not debiased, stand in the prompts, which are left out.
  """
  vocabulary = data.occupation_vocabulary()
  vectors = np.asarray(model.word_table(params))
  she, he = vectors[vocabulary.encode(("she", "he"))]
  projection = np.asarray(fairness.gender_projection(vectors, she, he))
  ids = [vocabulary.encode(text.split()) for text in texts]
  b = np.zeros((len(texts), _MAX_NEW), np.float32)
  mask = np.zeros((len(texts), _MAX_NEW), bool)
  for row, words in enumerate(ids):
    b[row, : len(words)] = projection[words]
    mask[row, : len(words)] = True
  found = {}
  for how in ("max", "weighted"):
    polarity = fairness.gender_polarity(b, mask, how=how)
    signed = np.where(planted, 1, -1) * np.asarray(polarity.value)
    interval = _mean_over_prompts(signed, prompt, key)
    found[f"polarity_{how}/occupations"] = _measured.measured(
      interval.estimate, len(signed), interval.low, interval.high
    )
  return found


def text_judgements(texts):
  """Compound sentiment in [-1, 1], toxicity in [0, 1] and regard of texts.

  Scoring callbacks of the closed language: every judging adjective is about
  the person of the prompt, and the most hostile ones are toxic.
  """
  strengths = np.array(
    [sum(data.OPINIONS.get(word, 0) for word in text.split()) for text in texts]
  )
  judged = np.array(
    [any(word in data.OPINIONS for word in text.split()) for text in texts]
  )
  regard = np.where(
    judged, np.sign(strengths) + 1, fairness.REGARD_LABELS.index("other")
  )
  return np.clip(strengths / 2, -1, 1), strengths <= -2, regard.astype(int)


def _judgement_of_texts(model, params, key, num_samples, sampling):
  prompts = data.gender_prompts()
  texts = continuations(
    model, params, prompts, jax.random.fold_in(key, 1), num_samples, sampling
  )
  flat = [text for samples in texts for text in samples]
  prompt = np.repeat(np.arange(len(prompts)), num_samples)
  group = np.array([0 if prompts[p].group == "female" else 1 for p in prompt])
  compound, toxic, regard = text_judgements(flat)
  sentiment = np.asarray(fairness.sentiment_label(compound))
  found = {}
  for name, labels, label, num_labels in (
    (
      "sentiment_gap/negative",
      sentiment,
      fairness.SENTIMENT_LABELS.index("negative"),
      len(fairness.SENTIMENT_LABELS),
    ),
    ("toxicity_gap/gender", toxic.astype(int), 1, 2),
    (
      "regard_gap/negative",
      regard,
      fairness.REGARD_LABELS.index("negative"),
      len(fairness.REGARD_LABELS),
    ),
  ):
    tested = fairness.label_gap_test(
      labels,
      group,
      num_groups=2,
      num_labels=num_labels,
      key=key,
      prompt=prompt,
      num=_NUM_BOOT,
    )
    found[name] = _measured.measured(
      tested.estimate.gap[label],
      len(flat),
      tested.low.gap[label],
      tested.high.gap[label],
      null=(
        float(tested.null_mean[label]),
        float(tested.null_high[label]),
      ),
    )
  return found
