"""The modified teacher: its distribution combined with the counterfactual."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import core
from jaxtyping import Array, Bool, Float, Int

from trustjax import data
from trustjax.distillation import _alignment

COMBINATIONS = ("max", "mean", "expMean", "swap")
DOMAINS = ("logprob", "logit")

AnyArray = Array | np.ndarray


def combine_teacher(
  logits: Float[AnyArray, "*batch time vocab"],
  logits_cf: Float[AnyArray, "*batch time_cf vocab_cf"],
  idx: Int[AnyArray, "*batch time"],
  valid: Bool[AnyArray, "*batch time"],
  *,
  how: str,
  domain: str = "logprob",
  vocab_perm: Int[AnyArray, " perm"] | None = None,
) -> Float[Array, "*batch time vocab"]:
  """Log-probabilities of the teacher that has read both texts.

    l = log_softmax(z),  l' = log_softmax(z_cf[idx]), or l'[perm]
    max      max(l, l')               normalised
    mean     (l + l') / 2             normalised: the geometric mean
    expMean  log((p + p') / 2)        the arithmetic mean
    swap     l'

  Combine first, temper after: max and expMean do not commute with a
  temperature. The combination acts behind a gendered word only, since in front
  of it both texts are the same.

  Fidelity:
    Paper: Gupta et al. 2022 modify the teacher's probabilities with those of a
      gender-swapped text. The names of the four functions, the domain and
      whether words are swapped back are recollections.
    Here: log-probabilities by default, because on raw logits max and expMean
      change when a constant is added to one side's logits; `domain="logit"`
      exists to study that. Without `vocab_perm` a gendered context gets a
      mixed continuation, and even a perfectly symmetric teacher is changed;
      with it, only the words that have no partner are evened out.
    Verdict: adaptation.

  Args:
    logits: Scores of the next token, given the text.
    logits_cf: The same, given the swapped text.
    idx: Position of the swapped text that belongs to each position.
    valid: Where to combine; elsewhere the original distribution stays.
    how: "max", "mean", "expMean" or "swap".
    domain: "logprob" or "logit".
    vocab_perm: Involution of the vocabulary that swaps the counterfactual's
      words back; None leaves them.

  Returns:
    Normalised log-probabilities.

  Raises:
    ValueError: An option is unknown, the vocabularies or the positions differ,
      or `vocab_perm` is no involution.

  References:
    Gupta et al., Mitigating Gender Bias in Distilled Language Models via
    Counterfactual Role Reversal, Findings of ACL 2022.
  """
  if how not in COMBINATIONS:
    raise ValueError(f"how: got {how!r}; allowed are {list(COMBINATIONS)}")
  if domain not in DOMAINS:
    raise ValueError(f"domain: got {domain!r}; allowed are {list(DOMAINS)}")
  if logits.shape[-1] != logits_cf.shape[-1]:
    raise ValueError(
      f"logits_cf: got a vocabulary of {logits_cf.shape[-1]}; the original has"
      f" {logits.shape[-1]}, and the two teachers must share one"
    )
  _check_permutation(vocab_perm, logits.shape[-1])
  logits, idx, valid = map(jnp.asarray, (logits, idx, valid))
  theirs = jnp.take_along_axis(jnp.asarray(logits_cf), idx[..., None], axis=-2)
  if vocab_perm is not None:
    theirs = jnp.take(theirs, jnp.asarray(vocab_perm), axis=-1)
  plain = jax.nn.log_softmax(logits)
  ours = plain
  if domain == "logprob":
    theirs = jax.nn.log_softmax(theirs)
  else:
    ours = logits
  if how == "max":
    combined = jnp.maximum(ours, theirs)
  elif how == "mean":
    combined = (ours + theirs) / 2
  elif how == "expMean":
    combined = jnp.logaddexp(ours, theirs) - math.log(2)
  else:
    combined = theirs
  # Means of probabilities, and probabilities themselves, are normalised.
  if domain == "logit" or how in ("max", "mean"):
    combined = jax.nn.log_softmax(combined)
  return jnp.where(valid[..., None], combined, plain)


def _check_permutation(vocab_perm, size):
  if vocab_perm is None:
    return
  if vocab_perm.shape != (size,):
    raise ValueError(
      f"vocab_perm: got shape {vocab_perm.shape}; the vocabulary has {size}"
    )
  if isinstance(vocab_perm, core.Tracer):
    return  # Its values are not known while a program is built.
  perm = np.asarray(vocab_perm)
  order = np.arange(size)
  inside = (perm >= 0) & (perm < size)
  back = np.where(inside, perm[np.where(inside, perm, 0)], -1)
  wrong = np.flatnonzero(back != order)
  if wrong.size:
    raise ValueError(
      f"vocab_perm: is no involution: {int(wrong[0])} goes to"
      f" {int(perm[wrong[0]])}, which does not lead back"
    )


def vocabulary_permutation(
  tokenizer: data.BytePairTokenizer, lexicon: data.GenderLexicon | None = None
) -> Int[np.ndarray, " vocab"]:
  """The involution of a vocabulary that a lexicon induces.

  A token has no role, so "her" can only have one partner here: "his", its most
  frequent one. "him" and "hers", whose partners are then taken, stay.

  Args:
    tokenizer: Its tokens are permuted.
    lexicon: None uses `data.gender_lexicon()`.

  Returns:
    The partner of each token, itself where it has none: each form of a word
    (`word_forms`) that is one token, and whose partner's form is one, too.
  """
  lexicon = data.gender_lexicon() if lexicon is None else lexicon
  perm = np.arange(len(tokenizer), dtype=np.int32)
  # The role of a determiner first; later pairs find the word taken.
  entries = sorted(
    lexicon.partners.items(), key=lambda item: item[0][1] != "determiner"
  )
  taken: set[int] = set()
  for (word, _), (partner, _) in entries:
    forms = zip(
      _alignment.word_forms(word), _alignment.word_forms(partner), strict=True
    )
    for one, other in forms:
      ids = tokenizer.encode(one), tokenizer.encode(other)
      if any(len(pieces) != 1 for pieces in ids):
        continue
      (a,), (b,) = ids
      if a in taken or b in taken or a == b:
        continue
      perm[a], perm[b] = b, a
      taken |= {a, b}
  return perm
