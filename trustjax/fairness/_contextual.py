"""CEAT: the distribution of WEAT effects over contexts of the words."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float64, Int, Key, Real

from trustjax.fairness import _association, _pooling, _validate
from trustjax.fairness._validate import AnyArray

# Numbers gathered at a time; about the size of a cache, which is faster than
# gathering more.
_CHUNK = 1 << 20

# Context indices [draws, words] of X, Y, A and B.
Draws = tuple[Int[AnyArray, "draws _"], ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class CeatResult:
  """Effects over draws of contexts, and their pooled size.

  Compare `ces`, or the quantiles of `es`. Never compare p-values: draws are
  not independent evidence, the standard error shrinks as draws^(-1/2), and p
  measures how many draws were made.

  Attributes:
    ces: Combined effect size.
    se: Its standard error, a Monte-Carlo quantity.
    low: 2.5 % quantile of the effects.
    median: Their median.
    high: 97.5 % quantile.
    tau2: Variance between effects.
    q: Heterogeneity statistic.
    p_two_sided: Of ces = 0.
    p_greater: One-sided on signed z, as the authors' script has it.
    es: Effect of every draw.
    v: Variance that weights it.
    n: Draws that were pooled.
    n_dropped: Draws without spread, whose effect is undefined.
  """

  ces: float
  se: float
  low: float
  median: float
  high: float
  tau2: float
  q: float
  p_two_sided: float
  p_greater: float
  es: Float64[np.ndarray, " draws"]
  v: Float64[np.ndarray, " draws"]
  n: int
  n_dropped: int
  metric: str = "ceat"
  variant: str = ""
  protocol: str = ""


def ceat(
  ctx_x: Real[AnyArray, "words_x contexts_x dim"],
  ctx_y: Real[AnyArray, "words_y contexts_y dim"],
  ctx_a: Real[AnyArray, "words_a contexts_a dim"],
  ctx_b: Real[AnyArray, "words_b contexts_b dim"],
  num_ctx_x: Int[AnyArray, " words_x"],
  num_ctx_y: Int[AnyArray, " words_y"],
  num_ctx_a: Int[AnyArray, " words_a"],
  num_ctx_b: Int[AnyArray, " words_b"],
  *,
  key: Key[Array, ""] | None = None,
  num_draws: int = 10_000,
  replace: str = "paper",
  variance: str = "std2",
  draws: Draws | None = None,
  protocol: str = "",
) -> CeatResult:
  """Contextualised embedding association test.

  Each draw picks one contextual vector for every word of X, Y, A and B and
  computes the WEAT effect size (ddof 1) and a variance V_i; `random_effects`
  pools the draws.

    std2    V_i = variance of s(w, A, B) over X u Y, as published
    hedges  V_i = (n_x + n_y) / (n_x n_y) + ES_i^2 / (2 (n_x + n_y))

  Under "std2" the effect is dimensionless while V_i is in squared cosines, so
  an encoder with tightly packed cosines gets a tiny standard error for the same
  effect; "hedges" is the sampling variance that a meta-analysis asks for.

  All draws are one compiled program: contexts are scaled to length one once,
  and since s is linear in the attribute vectors a draw costs one gather of the
  chosen vectors and one product with their mean difference.

  Fidelity:
    Paper: Guo and Caliskan 2021: 10,000 draws, without replacement for a word
      with at least as many contexts, two-sided p.
    Authors' code: always with replacement, 1,000 draws in the main block,
      one-sided p on signed z. It has no licence and was not used.
    Here: the paper by default, the script's choices as options.
    Verdict: faithful.

  Args:
    ctx_x: Contextual vectors of the words of X, padded in the middle axis.
    ctx_y: The same of Y, as many words as X.
    ctx_a: The same of A.
    ctx_b: The same of B.
    num_ctx_x: How many contexts each word of X has, at least 1.
    num_ctx_y: The same of Y.
    num_ctx_a: The same of A.
    num_ctx_b: The same of B.
    key: Typed key of the draws.
    num_draws: Number of draws.
    replace: "paper", or "always" to draw with replacement for every word.
    variance: "std2" or "hedges".
    draws: Contexts to use instead of drawing them (`context_draws`), so that
      several encoders are compared on the same sentences.
    protocol: Digest of the protocol, kept in the result.

  Returns:
    The pooled effect and every draw.

  Raises:
    ValueError: If X and Y differ in size, vectors differ in length, a set is
      empty, a count of contexts or a draw is out of range, a vector that counts
      is zero or not finite, an option is unknown, or neither key nor draws are
      given.

  References:
    Guo and Caliskan, AIES 2021, arXiv 2006.03955.
  """
  _validate.check_choice("variance", variance, ("std2", "hedges"))
  contexts = (ctx_x, ctx_y, ctx_a, ctx_b)
  counts = (num_ctx_x, num_ctx_y, num_ctx_a, num_ctx_b)
  if ctx_x.shape[0] != ctx_y.shape[0]:
    raise ValueError(
      f"ctx_x and ctx_y: got {ctx_x.shape[0]} and {ctx_y.shape[0]} words; the"
      " test needs as many of both"
    )
  lengths = [vectors.shape[-1] for vectors in contexts]
  if len(set(lengths)) > 1:
    raise ValueError(
      f"ctx_x, ctx_y, ctx_a, ctx_b: got vectors of {lengths} numbers; one"
      " encoder gives all of them"
    )
  for name, vectors, count in zip("xyab", contexts, counts, strict=True):
    _check_contexts(name, vectors, count)
  if draws is None:
    if key is None:
      raise ValueError("key: got None; give a key, or the draws")
    draws = context_draws(
      counts,
      key=key,
      num_draws=num_draws,
      max_contexts=max(vectors.shape[1] for vectors in contexts),
      replace=replace,
    )
  for name, chosen, count in zip("xyab", draws, counts, strict=True):
    _check_draws(name, np.asarray(chosen), np.asarray(count))
  es, v = _effects(tuple(map(jnp.asarray, contexts)), draws, variance=variance)
  # Pooling is float64 on the host.
  es, v = np.asarray(es, np.float64), np.asarray(v, np.float64)
  return _pooled(es, v, f"replace={replace},variance={variance}", protocol)


def context_draws(
  num_contexts: tuple[Int[AnyArray, " _"], ...],
  *,
  key: Key[Array, ""],
  num_draws: int,
  max_contexts: int,
  replace: str = "paper",
) -> Draws:
  """Draws a context for every word, many times.

  Args:
    num_contexts: Contexts of the words of every set, in the order X, Y, A, B.
    key: Typed key.
    num_draws: Number of draws.
    max_contexts: Largest number of contexts of a word.
    replace: "paper" draws without replacement for a word that has at least
      `num_draws` contexts; "always" never does.

  Returns:
    Context indices [draws, words] of every set.

  Raises:
    ValueError: If `replace` is unknown or `num_draws` is not positive.
  """
  _validate.check_choice("replace", replace, ("paper", "always"))
  _validate.check_at_least("num_draws", num_draws, 1)
  without = replace == "paper" and max_contexts >= num_draws
  keys = jax.random.split(key, len(num_contexts))
  return tuple(
    _draw_set(
      jnp.asarray(counts, jnp.int32),
      set_key,
      num_draws=num_draws,
      max_contexts=max_contexts,
      without_replacement=without,
    )
    for counts, set_key in zip(num_contexts, keys, strict=True)
  )


@functools.partial(
  jax.jit, static_argnames=("num_draws", "max_contexts", "without_replacement")
)
def _draw_set(counts, key, *, num_draws, max_contexts, without_replacement):
  """Context indices [draws, words] of one set of words."""
  with_key, without_key = jax.random.split(key)
  drawn = jax.random.randint(
    with_key, (num_draws, counts.shape[0]), 0, counts[None, :]
  )
  if not without_replacement:
    return drawn

  def shuffled(word_key, count):
    noise = jax.random.uniform(word_key, (max_contexts,))
    # Padding sorts last, so the first `count` places hold real contexts.
    noise = jnp.where(jnp.arange(max_contexts) < count, noise, 2.0)
    return jnp.argsort(noise)[:num_draws].astype(jnp.int32)

  unique = jax.vmap(shuffled, out_axes=1)(
    jax.random.split(without_key, counts.shape[0]), counts
  )
  return jnp.where(counts[None, :] >= num_draws, unique, drawn)


@functools.partial(jax.jit, static_argnames="variance")
def _effects(contexts, draws, *, variance):
  """Effect size and variance of every draw."""
  units = tuple(_association.unit_vectors(vectors) for vectors in contexts)
  num_words = sum(vectors.shape[0] for vectors in contexts)
  n_x, n_y = contexts[0].shape[0], contexts[1].shape[0]

  def pick(vectors, chosen):
    return vectors[jnp.arange(vectors.shape[0]), chosen]

  def draw(chosen):
    x, y, a, b = map(pick, units, chosen)
    direction = jnp.mean(a, axis=0) - jnp.mean(b, axis=0)
    s_x = jnp.sum(x * direction[None], axis=-1)
    s_y = jnp.sum(y * direction[None], axis=-1)
    es, spread = _association.effect_size(s_x, s_y, ddof=1)
    if variance == "hedges":
      spread = jnp.where(
        spread > 0, _association.hedges_variance(es, n_x, n_y), 0.0
      )
    return es, spread

  size = contexts[0].shape[-1] * num_words
  return jax.lax.map(
    draw, draws, batch_size=max(1, min(draws[0].shape[0], _CHUNK // size))
  )


def _pooled(es, v, variant, protocol) -> CeatResult:
  """Pools the draws that have a spread."""
  some = v > 0
  n = int(some.sum())
  nan = float("nan")
  effect, quantiles = None, [nan] * 3
  if n:
    effect = _pooling.random_effects(es[some], v[some])
    quantiles = [float(q) for q in np.quantile(es[some], [0.025, 0.5, 0.975])]
  return CeatResult(
    ces=effect.ces if effect else nan,
    se=effect.se if effect else nan,
    low=quantiles[0],
    median=quantiles[1],
    high=quantiles[2],
    tau2=effect.tau2 if effect else nan,
    q=effect.q if effect else nan,
    p_two_sided=effect.p_two_sided if effect else nan,
    p_greater=effect.p_greater if effect else nan,
    es=es,
    v=v,
    n=n,
    n_dropped=len(es) - n,
    variant=variant,
    protocol=protocol,
  )


def _check_draws(name, chosen, count):
  """Raises ValueError for draws that are not contexts of the words."""
  if not len(chosen) or chosen.shape[1:] != count.shape:
    raise ValueError(
      f"draws of {name}: got shape {list(chosen.shape)}; it must be"
      f" [draws, {len(count)}] with at least one draw"
    )
  outside = (chosen < 0) | (chosen >= count[None])
  if outside.any():
    draw, word = (int(i) for i in np.argwhere(outside)[0])
    raise ValueError(
      f"draws of {name}[{draw}, {word}]: got {chosen[draw, word]}; the word's"
      f" contexts are [0, {count[word]})"
    )


def _check_contexts(name, vectors, count):
  """Raises ValueError for counts or vectors that cannot be used."""
  if not vectors.shape[0]:
    raise ValueError(f"ctx_{name}: got no words; at least one is needed")
  counts = np.asarray(count)
  bad = (counts < 1) | (counts > vectors.shape[1])
  if bad.any():
    word = int(np.argmax(bad))
    raise ValueError(
      f"num_ctx_{name}[{word}]: got {counts[word]}; it must lie in"
      f" [1, {vectors.shape[1]}]"
    )
  real = jnp.arange(vectors.shape[1])[None, :] < jnp.asarray(counts)[:, None]
  array = jnp.asarray(vectors)
  usable = jnp.all(jnp.isfinite(array), -1) & jnp.any(array != 0, -1)
  wrong = np.asarray(real & ~usable)
  if wrong.any():
    word, context = (int(i) for i in np.argwhere(wrong)[0])
    raise ValueError(
      f"ctx_{name}[{word}, {context}]: got a zero vector, or one that is not"
      " finite; its cosine is undefined"
    )
