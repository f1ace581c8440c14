"""Intervals and nulls of group gaps, from counts alone.

Drawing n_g records of a group with replacement and counting them draws the
group's confusion counts from a multinomial; shuffling group labels draws them
from a multivariate hypergeometric. So a resample costs a few random numbers
whatever the number of records.
"""

import dataclasses
import warnings

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

from trustjax.fairness import _group_rates, _resampling, _validate


class SmallGroupWarning(UserWarning):
  """A group is so small that its rates are mostly noise."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class GroupGapsTest:
  """Gaps with their intervals and their noise floor.

  Attributes:
    estimate: The gaps.
    low: Lower ends of the bootstrap intervals.
    high: Upper ends.
    null_mean: Mean of each gap when groups do not matter: the noise floor.
    null_high: The 95 % point of the same; for ratios the 5 % point.
    p_value: Share of shuffles with a gap at least as large (a ratio at least
      as small), one shuffle added.
    num_undefined: Resamples in which a gap was nan.
    replicates: Resampled gaps, leading axis [num].
  """

  estimate: _group_rates.GroupGaps
  low: _group_rates.GroupGaps
  high: _group_rates.GroupGaps
  null_mean: _group_rates.GroupGaps
  null_high: _group_rates.GroupGaps
  p_value: _group_rates.GroupGaps
  num_undefined: _group_rates.GroupGaps
  replicates: _group_rates.GroupGaps


def small_groups(
  rates: _group_rates.GroupRates, *, minimum: int = 30
) -> list[str]:
  """Says which groups hold fewer records than they should.

  Args:
    rates: From `group_rates`.
    minimum: Records that a group, and each class within it, should have.

  Returns:
    One sentence for each cell that is too small.
  """
  n = np.asarray(rates.n)
  per_class = np.asarray(rates.counts).sum(-1)
  found = []
  for group, size in enumerate(n):
    if size < minimum:
      found.append(
        f"group {group} has {size} records, fewer than {minimum}: its rates"
        " are mostly noise"
      )
      continue
    for label in (0, 1):
      if per_class[group, label] < minimum:
        found.append(
          f"group {group} has {per_class[group, label]:g} records with label"
          f" {label}, fewer than {minimum}: its"
          f" {('false', 'true')[label]}-positive rate is mostly noise"
        )
  return found


def group_gaps_test(
  rates: _group_rates.GroupRates,
  *,
  key: Key[Array, ""],
  num: int = 10_000,
  strata: str = "group",
  interval: str = "percentile",
  confidence: float = 0.95,
  method: str = "between_groups",
  small: int = 30,
  on_empty: str = "error",
) -> GroupGapsTest:
  """Bootstraps the gaps within groups, and shuffles groups for a null.

  The null of selection rates shuffles the group over all records; the null of
  the other rates shuffles it among records of one true label, so that groups
  keep their base rates. Both are exact draws from the permutation
  distribution.

  A percentile interval of a gap cannot cover 0; `p_value` is the test, and
  `null_mean` is what the gap would be without any difference.

  Args:
    rates: From `group_rates`, without weights.
    key: Typed key.
    num: Resamples and shuffles.
    strata: "group" keeps the size of each group; "group_and_label" keeps the
      size of each label within it, too.
    interval: "percentile" or "bca".
    confidence: Nominal coverage.
    method: "between_groups" or "to_overall", see `group_gaps`.
    small: Groups or classes with fewer records raise a `SmallGroupWarning`.
    on_empty: As in `group_gaps`.

  Returns:
    Gaps, intervals, noise floor and p-values.

  Raises:
    ValueError: An option is unknown, counts are weighted, or a group lacks a
      class.
  """
  _validate.check_choice("strata", strata, ("group", "group_and_label"))
  _validate.check_choice("interval", interval, ("percentile", "bca"))
  _validate.check_between("confidence", confidence, 0, 1)
  _validate.check_at_least("num", num, 1)
  estimate = _group_rates.group_gaps(rates, method=method, on_empty=on_empty)
  counts = np.asarray(rates.counts)
  if not np.array_equal(counts.sum((-2, -1)), np.asarray(rates.n)):
    raise ValueError(
      "rates: got weighted counts; resampling counts needs every record to"
      " count once (use `bootstrap` with by='weights')"
    )
  for message in small_groups(rates, minimum=small):
    warnings.warn(message, SmallGroupWarning, stacklevel=2)
  generator = np.random.default_rng(np.asarray(jax.random.key_data(key)))
  whole = counts.astype(np.int64)

  def gaps(tables):
    return _group_rates.gaps_from_counts(
      jnp.asarray(tables, jnp.result_type(float)), method=method
    )

  replicates = gaps(_resampled_counts(generator, whole, num, strata))
  jackknife, stands_for = None, None
  if interval == "bca":
    tables, stands_for = _left_out(whole)
    jackknife, stands_for = gaps(tables), jnp.asarray(stands_for, float)
  low, high, undefined = _resampling.interval(
    estimate, replicates, jackknife, stands_for, confidence=confidence
  )
  mean, extreme, p_value = _null(
    estimate,
    gaps(_shuffled_counts(generator, whole, num, by_label=False)),
    gaps(_shuffled_counts(generator, whole, num, by_label=True)),
  )
  return GroupGapsTest(
    estimate=estimate,
    low=low,
    high=high,
    null_mean=mean,
    null_high=extreme,
    p_value=p_value,
    num_undefined=undefined,
    replicates=replicates,
  )


def _resampled_counts(generator, counts, num, strata):
  """Confusion counts of `num` resamples, [num, groups, 2, 2]."""
  cells = 4 if strata == "group" else 2
  rows = counts.reshape(-1, cells)
  sizes = rows.sum(-1)
  shares = np.full(rows.shape, 1.0 / cells)
  np.divide(rows, sizes[:, None], out=shares, where=sizes[:, None] > 0)
  drawn = [
    generator.multinomial(size, share, size=num)
    for size, share in zip(sizes, shares, strict=True)
  ]
  return np.stack(drawn, axis=1).reshape(num, *counts.shape)


def _left_out(counts):
  """Counts without one record, and how many records each table stands for."""
  tables, stands_for = [], []
  for cell in zip(*np.nonzero(counts), strict=True):
    table = counts.copy()
    table[cell] -= 1
    tables.append(table)
    stands_for.append(counts[cell])
  return np.stack(tables), np.array(stands_for)


def _shuffled_counts(generator, counts, num, *, by_label):
  """Confusion counts after shuffling the groups, [num, groups, 2, 2].

  Without `by_label` only the predictions are shuffled over groups: the true
  label is dropped (all records are put under label 1), since selection rates
  do not look at it.
  """
  tables = counts
  if not by_label:
    tables = np.stack([np.zeros_like(counts[:, 0]), counts.sum(1)], axis=1)
  out = np.zeros((num, *counts.shape), np.int64)
  for label in (0, 1):
    sizes = tables[:, label].sum(-1)
    selected = int(tables[:, label, 1].sum())
    if sizes.sum():
      out[:, :, label, 1] = generator.multivariate_hypergeometric(
        sizes, selected, size=num, method="marginals"
      )
    out[:, :, label, 0] = sizes[None] - out[:, :, label, 1]
  return out


def _null(estimate, over_all, within_label):
  """Mean, extreme quantile and p-value of every gap under its null."""
  mean, extreme, p_value = {}, {}, {}
  for field in dataclasses.fields(_group_rates.GroupGaps):
    name = field.name
    parity = name.startswith("demographic_parity")
    values = np.asarray(getattr(over_all if parity else within_label, name))
    found = float(getattr(estimate, name))
    ratio = "ratio" in name
    # Rounding must not turn a tie into a smaller value.
    slack = 1e-6 * abs(found)
    as_extreme = values <= found + slack if ratio else values >= found - slack
    known = values[~np.isnan(values)]
    share = (1 + np.count_nonzero(as_extreme)) / (1 + len(known))
    level = 0.05 if ratio else 0.95
    some = known.size and np.isfinite(found)
    mean[name] = known.mean() if known.size else np.nan
    extreme[name] = np.quantile(known, level) if known.size else np.nan
    p_value[name] = share if some else np.nan
  return tuple(
    _group_rates.GroupGaps(
      **{name: jnp.asarray(value, float) for name, value in part.items()}
    )
    for part in (mean, extreme, p_value)
  )
