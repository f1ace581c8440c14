"""ILPS and LPBS: what an attribute does to the probability of a target."""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Key, Real

from trustjax.fairness import _queries, _resampling, _validate
from trustjax.fairness._validate import AnyArray

_TARGET, _ATTRIBUTE = "[TARGET]", "[ATTRIBUTE]"


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class TemplateBias:
  """Log-probability bias score over templates.

  Attributes:
    value: Mean of the scores ("mean") or of their sizes ("mean_abs").
    low: Lower end of the bootstrap interval over templates.
    high: Upper end.
    per_template: Signed score of each template.
    n: Templates that count.
    n_dropped: Templates that the mask left out.
  """

  value: Float[Array, ""]
  low: Float[Array, ""]
  high: Float[Array, ""]
  per_template: Float[Array, " templates"]
  n: int = dataclasses.field(metadata={"static": True})
  n_dropped: int = dataclasses.field(metadata={"static": True})
  metric: str = dataclasses.field(default="lpbs", metadata={"static": True})
  variant: str = dataclasses.field(default="", metadata={"static": True})
  protocol: str = dataclasses.field(default="", metadata={"static": True})


def ilps(
  logp_target: Real[AnyArray, "*shape"],
  logp_prior: Real[AnyArray, "*shape"],
  *,
  combine: str | None = None,
) -> Float[Array, "*_"]:
  """Increased log-probability score: log(p_target / p_prior).

    p_target = P(target at its mask | attribute filled in)
    p_prior  = P(target at its own mask | both masked)

  0: the attribute does not matter to the target; signed and unbounded.

  Fidelity:
    Paper: Kurita et al. 2019.
    Authors' code: sums the probabilities of a word set before the logarithm;
      reads the prior at the attribute's mask when the target stands first.
    Here: single words, or sets with `combine="logsumexp"`; the prior is read
      at the target's own mask (`template_queries`).
    Verdict: faithful.

  Args:
    logp_target: log p_target of each target word.
    logp_prior: log p_prior of the same.
    combine: None keeps single words; "logsumexp" takes the last axis as a set
      of words whose probabilities are added before the logarithm.

  Returns:
    The scores, without the last axis if sets are combined.

  Raises:
    ValueError: If shapes differ, a value is not finite, or `combine` is
      unknown.

  References:
    Kurita et al., GeBNLP 2019, arXiv 1906.07337.
  """
  _validate.check_choice("combine", combine, (None, "logsumexp"))
  _validate.check_same_shape(logp_target=logp_target, logp_prior=logp_prior)
  _validate.check_finite("logp_target", logp_target)
  _validate.check_finite("logp_prior", logp_prior)
  dtype = jnp.result_type(float)
  target, prior = (
    jnp.asarray(values, dtype) for values in (logp_target, logp_prior)
  )
  if combine == "logsumexp":
    target = jax.scipy.special.logsumexp(target, axis=-1)
    prior = jax.scipy.special.logsumexp(prior, axis=-1)
  return target - prior


def lpbs(
  ilps_1: Real[AnyArray, "*shape"], ilps_2: Real[AnyArray, "*shape"]
) -> Float[Array, "*shape"]:
  """Log-probability bias score: ILPS of one target minus that of another.

  Signed, unbounded, 0 without bias, and antisymmetric.

  Fidelity:
    Paper: Kurita et al. 2019. A preference rate (share of templates in which
      one target is likelier) is another statistic and must not carry this
      name.
    Verdict: faithful.

  Args:
    ilps_1: Scores of the first target, for example "he".
    ilps_2: Scores of the second, for example "she".

  Returns:
    The differences.

  Raises:
    ValueError: If shapes differ.
  """
  _validate.check_same_shape(ilps_1=ilps_1, ilps_2=ilps_2)
  dtype = jnp.result_type(float)
  return jnp.asarray(ilps_1, dtype) - jnp.asarray(ilps_2, dtype)


def causal_ilps(
  logp_attribute: Real[AnyArray, "*shape"],
  logp_neutral: Real[AnyArray, "*shape"],
) -> Float[Array, "*shape"]:
  """The question of ILPS for a causal model, under a name of its own.

    log P(attribute | template filled with the target)
      - log P(attribute | the same template with a neutral subject)

  A causal model has no masks, so target and attribute change roles.

  Fidelity:
    Paper: none; how the correlation study of Cao et al. 2022 treats causal
      models is not known here.
    Verdict: original.

  Args:
    logp_attribute: Log-probability of the attribute behind the target.
    logp_neutral: The same behind a neutral subject.

  Returns:
    The differences.

  Raises:
    ValueError: If shapes differ or a value is not finite.
  """
  return ilps(logp_attribute, logp_neutral)


def template_bias(
  ilps_1: Real[AnyArray, " templates"],
  ilps_2: Real[AnyArray, " templates"],
  *,
  key: Key[Array, ""],
  num: int = 2_000,
  aggregate: str = "mean",
  mask: Bool[AnyArray, " templates"] | None = None,
  confidence: float = 0.95,
  protocol: str = "",
) -> TemplateBias:
  """One LPBS for a model, with an interval over templates.

  Under "mean_abs" noise looks like bias: use it only beside the signed mean.

  Fidelity:
    Paper: Kurita et al. 2019 report LPBS by word and category. The
      aggregation of Cao et al. 2022 to one number is not known here.
    Verdict: adaptation; both aggregations are offered.

  Args:
    ilps_1: Scores of the first target per template.
    ilps_2: Scores of the second.
    key: Typed key of the bootstrap.
    num: Resamples.
    aggregate: "mean" or "mean_abs".
    mask: Templates that count.
    confidence: Nominal coverage.
    protocol: Digest of the protocol, kept in the result.

  Returns:
    The aggregate and its interval.

  Raises:
    ValueError: If an option is unknown, shapes differ, or no template counts.
  """
  _validate.check_choice("aggregate", aggregate, ("mean", "mean_abs"))
  scores = lpbs(ilps_1, ilps_2)
  keep = np.ones(scores.shape, bool) if mask is None else np.asarray(mask)
  if not keep.any():
    raise ValueError("mask: leaves no template; at least one is needed")
  _validate.check_finite("ilps_1 - ilps_2", scores, keep)
  found = _resampling.bootstrap(
    _mean if aggregate == "mean" else _mean_abs,
    scores[keep],
    key=key,
    num=num,
    confidence=confidence,
  )
  return TemplateBias(
    value=found.estimate,
    low=found.low,
    high=found.high,
    per_template=scores,
    n=int(keep.sum()),
    n_dropped=int((~keep).sum()),
    variant=f"aggregate={aggregate}",
    protocol=protocol,
  )


def template_queries(
  template: str,
  targets: Sequence[str],
  attribute: str,
  subwords: _queries.Subwords,
  *,
  compose: str | None = None,
) -> tuple[_queries.MaskedQueries, _queries.MaskedQueries]:
  """Builds the two questions of ILPS for one template.

    logp_target = sum_by_item(score_masked(model, first), first)
    logp_prior  = sum_by_item(score_masked(model, second), second)

  In the second the pieces of the attribute are masked, and the target is read
  at its own mask.

  Args:
    template: Text with one [TARGET] and one [ATTRIBUTE], in either order.
    targets: Target words; one item each.
    attribute: Attribute word.
    subwords: The tokeniser.
    compose: What to do with a target of several pieces: None refuses it;
      "first_piece" asks for the first piece only; "chain" masks all its pieces
      and fills them from the left.

  Returns:
    The queries with the attribute filled in, and with it masked.

  Raises:
    ValueError: If a slot is missing or doubled, a target has several pieces
      and `compose` is None, or the tokeniser has no mask.
  """
  _validate.check_choice("compose", compose, (None, "first_piece", "chain"))
  mask_id = _queries.require_mask_id(subwords)
  for slot in (_TARGET, _ATTRIBUTE):
    if template.count(slot) != 1:
      raise ValueError(
        f"template: got {template.count(slot)} times {slot} in {template!r};"
        " exactly one is needed"
      )
  filled, open_ = [], []
  for item, target in enumerate(targets):
    pieces = _pieces(template, _TARGET, target, subwords)
    if len(pieces) != 1 and compose is None:
      raise ValueError(
        f"targets[{item}]: {target!r} has {len(pieces)} pieces; pass compose="
        "'first_piece' or 'chain', or choose another word"
      )
    if compose == "first_piece":
      pieces = pieces[:1]
    for rows, masked in ((filled, False), (open_, True)):
      for i, piece in enumerate(pieces):
        shown = pieces[:i] + [mask_id] * (len(pieces) - i)
        ids, start = _sentence(template, shown, attribute, subwords, masked)
        rows.append((ids, start + i, piece, item))
  num_items = len(targets)
  return (
    _queries.masked_queries(filled, subwords, num_items=num_items),
    _queries.masked_queries(open_, subwords, num_items=num_items),
  )


def _mean(scores):
  return jnp.mean(scores)


def _mean_abs(scores):
  return jnp.mean(jnp.abs(scores))


def _pieces(template, slot, word, subwords):
  """The pieces of a word in the place of a slot."""
  pieces = subwords.words(word, inside=_follows_space(template, slot))
  if not pieces:
    raise ValueError(f"{slot}: the word {word!r} has no pieces")
  return pieces


def _follows_space(template, slot):
  return template[: template.index(slot)].endswith(" ")


def _sentence(template, target_ids, attribute, subwords, mask_attribute):
  """Ids of the filled template, and where the target starts."""
  attribute_ids = _pieces(template, _ATTRIBUTE, attribute, subwords)
  if mask_attribute:
    attribute_ids = [subwords.mask_id] * len(attribute_ids)
  fillers = {_TARGET: target_ids, _ATTRIBUTE: attribute_ids}
  ids, start, rest = list(subwords.prefix), 0, template
  for slot in sorted(fillers, key=template.index):
    text, rest = rest.split(slot)
    ids += subwords.words(text, inside=text.startswith(" "))
    if slot == _TARGET:
      start = len(ids)
    ids += fillers[slot]
  ids += subwords.words(rest, inside=rest.startswith(" "))
  return ids + list(subwords.suffix), start
