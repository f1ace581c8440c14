"""Paired bootstraps of a role-reversal study: items within seeds."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from experiments._binary import _config_flags
from experiments._role_reversal import _evaluation
from trustjax import fairness, reporting

_WINDOWS, _PROMPTS, _SENTENCES, _WORDS, _SEEDS, _NOISE, _CONTEXTS = range(7)
# Contexts that a resampled word stands in, one after the other.
_CONTEXT_DRAWS = 8
_PURPOSE = 0xB007


@dataclasses.dataclass(frozen=True, kw_only=True)
class Resampled:
  """A statistic of every seed, and its replicates.

  Attributes:
    estimates: Of each seed.
    replicates: Of each seed and resample. All arms share the resampled items,
      so that a difference of two arms is a paired one.
  """

  estimates: np.ndarray
  replicates: np.ndarray

  def over_seeds(self, drawn: np.ndarray) -> tuple[float, np.ndarray]:
    """The mean over seeds, and its replicates with the drawn seeds.

    The replicates are moved so that their mean is the estimate: a ratio that
    cannot exceed 1 falls with every noise that is added, and resampling adds
    some.

    Args:
      drawn: Seeds of each resample, [resamples, seeds].

    Returns:
      (estimate, replicates).
    """
    estimate = float(self.estimates.mean())
    order = np.arange(drawn.shape[0])[:, None]
    replicates = self.replicates.T[order, drawn].mean(axis=1)
    # A resample may miss every gendered text, and then has no ratio.
    some = np.isfinite(replicates)
    middle = replicates[some].mean() if some.any() else 0.0
    return estimate, replicates - middle + estimate


def interval(
  estimate: float, replicates: np.ndarray, num_seeds: int
) -> reporting.Interval:
  """The central 95 % of the replicates, the estimate inside."""
  low, high = np.nanquantile(replicates, [0.025, 0.975])
  return reporting.Interval(
    estimate, min(float(low), estimate), max(float(high), estimate), num_seeds
  )


def draw_seeds(config: _config_flags.Config) -> np.ndarray:
  """The seeds of every resample, the same for all statistics and arms."""
  shape = (config.evaluation.resamples, config.num_seeds)
  return _generator(config, _SEEDS).integers(0, config.num_seeds, shape)


def _generator(config, purpose, seed=0):
  return np.random.default_rng([config.seed, _PURPOSE, purpose, seed])


def _weights(config, purpose, seed, count):
  """How often each item is drawn: [resamples, items]."""
  return _generator(config, purpose, seed).multinomial(
    count, np.full(count, 1 / count), size=config.evaluation.resamples
  )


def _stack(parts):
  estimates, replicates = zip(*parts)
  return Resampled(
    estimates=np.array(estimates, np.float64), replicates=np.stack(replicates)
  )


Evaluations = list[_evaluation.Evaluation]


def perplexity(config: _config_flags.Config, seeds: Evaluations) -> Resampled:
  """Perplexity; windows are drawn."""

  def one(number, items):
    weights = _weights(config, _WINDOWS, number, len(items["nll"]))
    mean = (weights @ items["nll"]) / (weights @ items["counts"])
    plain = items["nll"].sum() / items["counts"].sum()
    return np.exp(plain), np.exp(mean)

  return _stack(one(i, seed.items) for i, seed in enumerate(seeds))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Disparity:
  """Ratios of the rarer to the more frequent gender, and what noise gives.

  Attributes:
    mean: Mean over groups.
    minimum: Smallest.
    floor_mean: What balanced texts would give as the mean.
    floor_minimum: And as the minimum.
    counts: Female, male and neutral texts of all groups and seeds.
    num_undefined: Groups without any gendered text, over all seeds.
    mean_with_prompt: Mean where prompts are labelled, too.
  """

  mean: Resampled
  minimum: Resampled
  floor_mean: float
  floor_minimum: float
  counts: np.ndarray
  num_undefined: int
  mean_with_prompt: float


def disparity(
  config: _config_flags.Config,
  group: np.ndarray,
  num_groups: int,
  seeds: Evaluations,
  *,
  label: str = "label",
) -> Disparity:
  """Gender ratios; prompts are drawn within their groups.

  Args:
    config: The study's config.
    group: Group of each prompt.
    num_groups: Groups.
    seeds: Evaluations of an arm.
    label: Which item labels the continuations.

  Returns:
    The ratios.
  """
  means, minima, floors, counts, undefined = [], [], [], [], 0
  with_prompt = []
  for number, seed in enumerate(seeds):
    labels = seed.items[label]
    prompt = np.repeat(np.arange(len(labels)), labels.shape[1])
    key = jax.random.fold_in(jax.random.key(config.seed), number)
    found = fairness.gender_ratio_bootstrap(
      jnp.asarray(labels.ravel()),
      jnp.asarray(group[prompt]),
      jnp.asarray(prompt),
      num_groups=num_groups,
      key=jax.random.fold_in(key, _PROMPTS),
      num=config.evaluation.resamples,
      zero_policy=config.evaluation.zero_policy,
    )
    for parts, name in ((means, "mean"), (minima, "minimum")):
      parts.append(
        (
          float(getattr(found.estimate, name)),
          np.asarray(getattr(found.replicates, name), np.float64),
        )
      )
    by_group = np.asarray(found.estimate.counts)
    noise = fairness.gender_ratio_noise(
      by_group[:, :2].sum(axis=1).astype(int),
      key=jax.random.fold_in(key, _NOISE),
      zero_policy=config.evaluation.zero_policy,
    )
    floors.append((noise.mean, noise.minimum))
    counts.append(by_group.sum(axis=0))
    undefined += int(found.estimate.num_undefined)
    whole = fairness.gender_ratio(
      jnp.asarray(seed.items["label_with_prompt"].ravel()),
      jnp.asarray(group[prompt]),
      num_groups=num_groups,
      zero_policy=config.evaluation.zero_policy,
    )
    with_prompt.append(float(whole.mean))
  floor_mean, floor_minimum = np.mean(floors, axis=0)
  return Disparity(
    mean=_stack(means),
    minimum=_stack(minima),
    floor_mean=float(floor_mean),
    floor_minimum=float(floor_minimum),
    counts=np.sum(counts, axis=0),
    num_undefined=undefined,
    mean_with_prompt=float(np.mean(with_prompt)),
  )


def recall_gap(
  config: _config_flags.Config, seeds: Evaluations, probe: str
) -> Resampled:
  """Root mean square of a probe's recall gaps; sentences are drawn.

  Args:
    config: The study's config.
    seeds: Evaluations of an arm.
    probe: "probe" (embedded occupations) or "bios".

  Returns:
    The gap over classes that have women and men.
  """

  def one(number, items):
    true, predicted, gender = (
      items[f"{probe}_{part}"] for part in ("true", "pred", "gender")
    )
    num_classes = int(items[f"{probe}_classes"])
    cells = np.eye(2 * num_classes)[2 * true + gender]
    hits = cells * (true == predicted)[:, None]
    weights = _weights(config, _SENTENCES, number, len(true))

    def rms(weights):
      count, hit = weights @ cells, weights @ hits
      recall = hit / np.where(count > 0, count, np.nan)
      gap = recall[..., 1::2] - recall[..., ::2]
      return np.sqrt(np.nanmean(gap**2, axis=-1))

    plain = fairness.class_gaps(
      *map(jnp.asarray, (true, predicted, gender)), num_classes=num_classes
    )
    return float(plain.rms), rms(weights)

  return _stack(one(i, seed.items) for i, seed in enumerate(seeds))


def accuracy(seeds: Evaluations, probe: str) -> float:
  """Mean accuracy of a probe, as in `recall_gap`."""
  return float(
    np.mean(
      [s.items[f"{probe}_true"] == s.items[f"{probe}_pred"] for s in seeds]
    )
  )


def seat(config: _config_flags.Config, seeds: Evaluations) -> Resampled:
  """SEAT's effect size; words of both target sets are drawn.

  d = (mean_X s - mean_Y s) / sd(s), where s are the associations with female
  against male words; positive where occupations lean as they are planted.
  """

  def one(number, items):
    words_x, words_y = _drawn_words(config, number, items, "seat")
    x, y = items["seat_x"][words_x], items["seat_y"][words_y]
    return float(items["seat"]), effect(*(_flat(part) for part in (x, y)))

  return _stack(one(i, seed.items) for i, seed in enumerate(seeds))


def ceat(config: _config_flags.Config, seeds: Evaluations) -> Resampled:
  """CEAT's pooled effect size; words of both target sets are drawn.

  Its own standard error says how many contexts were drawn, and not how many
  words there are. A replicate is the mean effect of its words in some drawn
  contexts.
  """

  def one(number, items):
    drawn = _drawn_words(config, number, items, "ceat")
    rng = _generator(config, _CONTEXTS, number)
    effects = []
    for _ in range(_CONTEXT_DRAWS):
      x, y = (
        items[f"ceat_{side}"][
          words, rng.integers(0, items[f"ceat_{side}"].shape[1], words.shape)
        ]
        for side, words in zip("xy", drawn)
      )
      effects.append(effect(x, y))
    return float(items["ceat"]), np.mean(effects, axis=0)

  return _stack(one(i, seed.items) for i, seed in enumerate(seeds))


def _drawn_words(config, number, items, test):
  """Words of X and of Y in every resample."""
  rng = _generator(config, _WORDS, number)
  return tuple(
    rng.integers(0, count, (config.evaluation.resamples, count))
    for count in (len(items[f"{test}_x"]), len(items[f"{test}_y"]))
  )


def _flat(associations):
  return associations.reshape(len(associations), -1)


def effect(x: np.ndarray, y: np.ndarray) -> np.ndarray:
  """Effect sizes of associations.

  Args:
    x: Of the words of X, [resamples, associations].
    y: Of the words of Y.

  Returns:
    [resamples].
  """
  spread = np.concatenate([x, y], axis=1).std(axis=1, ddof=1)
  return (x.mean(axis=1) - y.mean(axis=1)) / spread
