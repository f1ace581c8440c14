"""Metrics of what a causal model writes: gender, sentiment, regard."""

import jax
import jax.numpy as jnp
import numpy as np

from experiments._fairness import _measured, _planted_models, _probes
from trustjax import data, fairness, models

_MAX_NEW = 6
_NOT_GENDERED = "no generated text has a gendered word"


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
    num=_measured.NUM_BOOT,
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
    num=_measured.NUM_BOOT,
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
      num=_measured.NUM_BOOT,
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
