"""Results: the record of a run, flat, finite, and honest about gaps.

Entries:
  name             number, string or null; never NaN or Infinity
  name_reason      why `name` is null; present exactly then
  name_low, _high  ends of the interval of a measured `name`, both or neither
  name_n           how many values (seeds, rounds) are behind it
  claim/x          HOLDS, FAILS or UNDECIDED, with claim/x/estimate (measured
                   as above), /relation, /threshold, /source
  protocol/x       what must be equal for two runs to be comparable
  protocol_hash    SHA-256 over the protocol entries
"""

import hashlib
import json
import math
import numbers
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from trustjax.reporting import _claims, _intervals

Value = int | float | str | None

PROTOCOL_HASH = "protocol_hash"
_ALLOWED = "a finite number, a string, or null with a sibling '<key>_reason'"
_KEY = re.compile(r"[^\s/]+(/[^\s/]+)*")


def _as_value(value: Any) -> Value:
  """Plain Python number, string or None; TypeError for anything else."""
  if value is None or isinstance(value, str):
    return value
  if hasattr(value, "item") and getattr(value, "ndim", None) == 0:
    value = value.item()  # A NumPy or JAX scalar.
  if isinstance(value, numbers.Real) and not isinstance(value, bool):
    return int(value) if isinstance(value, numbers.Integral) else float(value)
  raise TypeError(type(value).__name__)


def _is_number(value: Any) -> bool:
  return isinstance(value, int | float) and not isinstance(value, bool)


def flatten_protocol(
  protocol: Mapping[str, Any],
) -> dict[str, int | float | str]:
  """A nested protocol as flat entries: numbers, and text for the rest.

  Args:
    protocol: Names to numbers, strings, lists, None or further mappings.

  Returns:
    Slash-separated names to numbers or strings; lists, booleans and None are
    written as JSON.

  Raises:
    ValueError: If a value cannot be written as JSON, naming the field.
  """
  flat: dict[str, int | float | str] = {}
  for name, value in protocol.items():
    if isinstance(value, Mapping):
      inner = flatten_protocol(value)
      flat.update({f"{name}/{key}": item for key, item in inner.items()})
      continue
    try:
      plain = _as_value(value)
    except TypeError:
      plain = None
    finite = isinstance(plain, int | float) and math.isfinite(plain)
    if plain is not None and (finite or isinstance(plain, str)):
      flat[str(name)] = plain
      continue
    try:
      flat[str(name)] = json.dumps(value, allow_nan=False, sort_keys=True)
    except (TypeError, ValueError) as error:
      raise ValueError(
        f"protocol field {name!r}: got {value!r}; allowed are finite numbers,"
        " strings, None, and lists or mappings of them"
      ) from error
  return flat


def protocol_hash(protocol: Mapping[str, Any]) -> str:
  """SHA-256 of a protocol, independent of the order of its fields.

  Args:
    protocol: What must be equal for two runs to be comparable: data set and
      split, checkpoint, word lists, templates, seeds, metric definitions.

  Returns:
    64 hexadecimal digits.
  """
  text = json.dumps(
    flatten_protocol(protocol), sort_keys=True, separators=(",", ":")
  )
  return hashlib.sha256(text.encode()).hexdigest()


class Results(Mapping[str, Value]):
  """The record of a run; reads like a dictionary, writes with checks.

  Example:
    >>> results = Results()
    >>> results.set("dp_sgd/delta", 1e-5)
    >>> results.set("non_private/epsilon", None, reason="no mechanism was run")
    >>> results.measure("dp_sgd/slot_f1", mean_interval([0.84, 0.86, 0.85]))
    >>> results["dp_sgd/slot_f1_n"]
    3
  """

  def __init__(self, values: Mapping[str, Any] | None = None):
    """Takes entries as they stand in a file, and checks them together.

    Args:
      values: Flat entries, companions (`_low`, `_reason`, ...) included.

    Raises:
      ValueError: If an entry breaks a rule of the record, naming its key.
    """
    self._values: dict[str, Value] = {}
    for key, value in (values or {}).items():
      self._put(key, value)
    self.validate()

  def __getitem__(self, key: str) -> Value:
    if key not in self._values:
      raise KeyError(f"{key!r} is not in the results{self._nearby(key)}")
    return self._values[key]

  def __contains__(self, key: object) -> bool:
    return key in self._values

  def __iter__(self) -> Iterator[str]:
    return iter(self._values)

  def __len__(self) -> int:
    return len(self._values)

  def __repr__(self) -> str:
    return f"Results({self._values!r})"

  def _nearby(self, key: str) -> str:
    """The keys of the same arm, for messages."""
    arm = key.split("/")[0]
    keys = [k for k in self._values if k.startswith(arm + "/")] or self.arms()
    return f"; there are: {', '.join(keys[:12])}" if keys else ""

  def _put(self, key: Any, value: Any) -> None:
    """Stores one entry, checked by itself."""
    if not isinstance(key, str) or not _KEY.fullmatch(key):
      raise ValueError(
        f"key {key!r}: allowed are names separated by single slashes, without"
        " spaces"
      )
    try:
      plain = _as_value(value)
    except TypeError as error:
      raise ValueError(
        f"key {key!r}: got {value!r} of type {error}; allowed is {_ALLOWED}"
      ) from None
    if isinstance(plain, float) and not math.isfinite(plain):
      raise ValueError(f"key {key!r}: got {plain}; allowed is {_ALLOWED}")
    if key.startswith("claim/") and key.count("/") == 1:
      base = key
      for suffix in ("_reason", "_low", "_high", "_n"):
        base = base.removesuffix(suffix)
      if base == key and plain not in _claims.VERDICTS:
        raise ValueError(
          f"key {key!r}: got {plain!r}; allowed are"
          f" {', '.join(_claims.VERDICTS)}"
        )
    self._values[key] = plain

  def set(self, key: str, value: Any, *, reason: str = "") -> None:
    """Sets one entry.

    Args:
      key: Name, such as "dp_sgd/epsilon".
      value: A number, a string, or None with a reason. With a reason, a
        number that is not finite is recorded as null too.
      reason: Why there is no number.

    Raises:
      ValueError: If the value is not allowed, naming key and value.
    """
    if reason and isinstance(value, str):
      raise ValueError(f"key {key!r}: got {value!r} and a reason; give one")
    number = float(value) if value is not None and reason else 0.0
    if value is None or not math.isfinite(number):
      if not reason:
        raise ValueError(f"key {key!r}: got null; a null needs a reason")
      self._put(key, None)
      self._put(f"{key}_reason", reason)
      for suffix in ("_low", "_high", "_n"):
        self._values.pop(key + suffix, None)
      return
    self._put(key, value)
    self._values.pop(f"{key}_reason", None)

  def measure(self, key: str, measured: _intervals.Interval) -> None:
    """Sets a measured entry with `_low`, `_high`, `_n`.

    One value has no ends: then only the estimate is set.
    """
    self.set(key, measured.estimate)
    for suffix in ("_low", "_high", "_n"):
      self._values.pop(key + suffix, None)
    if measured.has_ends:
      self._put(f"{key}_low", measured.low)
      self._put(f"{key}_high", measured.high)
      self._put(f"{key}_n", measured.n)

  def add_claim(self, claim: _claims.Claim) -> None:
    """Sets `claim/<name>` and what its verdict rests on."""
    key = f"claim/{claim.name}"
    self._put(key, claim.verdict)
    if claim.estimate is None:
      self.set(f"{key}/estimate", None, reason=claim.reason)
    else:
      self.measure(f"{key}/estimate", claim.estimate)
    self._put(f"{key}/relation", claim.relation)
    self._put(f"{key}/threshold", claim.threshold)
    self._put(f"{key}/source", claim.source)

  def set_protocol(self, protocol: Mapping[str, Any]) -> None:
    """Sets `protocol/...` and `protocol_hash`, replacing earlier ones.

    Args:
      protocol: What must be equal for two runs to be comparable.
    """
    for key in [k for k in self._values if k.startswith("protocol/")]:
      del self._values[key]
    for name, value in flatten_protocol(protocol).items():
      self._put(f"protocol/{name}", value)
    self._put(PROTOCOL_HASH, protocol_hash(protocol))

  @property
  def protocol_hash(self) -> str | None:
    """Hash of the protocol, or None if the record has none."""
    value = self._values.get(PROTOCOL_HASH)
    return None if value is None else str(value)

  def protocol(self) -> dict[str, Value]:
    """The protocol entries, without their prefix."""
    return {
      key.removeprefix("protocol/"): value
      for key, value in self._values.items()
      if key.startswith("protocol/")
    }

  def interval(self, key: str) -> _intervals.Interval | None:
    """The entry with its ends, or None if it is null.

    Args:
      key: Name of a number.

    Raises:
      KeyError: If there is no such entry.
      ValueError: If the entry is a string.
    """
    value = self[key]
    if value is None:
      return None
    if isinstance(value, str):
      raise ValueError(f"key {key!r}: got the string {value!r}, not a number")
    low, high = self._values.get(f"{key}_low"), self._values.get(f"{key}_high")
    n = self._values.get(f"{key}_n", 1)
    return _intervals.Interval(value, low, high, n)  # pyright: ignore

  def reason(self, key: str) -> str:
    """Why the entry is null, or the empty string."""
    return str(self._values.get(f"{key}_reason") or "")

  def is_companion(self, key: str) -> bool:
    """Whether the entry only says more about another one."""
    return any(
      key.endswith(suffix) and key.removesuffix(suffix) in self._values
      for suffix in ("_low", "_high", "_n", "_reason")
    )

  def arms(self) -> list[str]:
    """First parts of the names, in order; claims and protocol left out."""
    firsts = [k.split("/")[0] for k in self._values if "/" in k]
    return [
      arm for arm in dict.fromkeys(firsts) if arm not in ("claim", "protocol")
    ]

  def claims(self) -> list[str]:
    """Names of the claims, in order."""
    return [
      key.removeprefix("claim/")
      for key in self._values
      if key.startswith("claim/")
      and key.count("/") == 1
      and not self.is_companion(key)
    ]

  def validate(self) -> None:
    """Checks the entries against each other.

    Raises:
      ValueError: Naming the first key that breaks a rule, and the rule.
    """
    for key, value in self._values.items():
      if value is None and not self.reason(key):
        raise ValueError(
          f"key {key!r}: got null without '{key}_reason'; allowed is {_ALLOWED}"
        )
      if key.endswith("_reason"):
        base = key.removesuffix("_reason")
        if self._values.get(base) is not None:
          raise ValueError(
            f"key {key!r}: {base!r} is {self._values[base]!r}, and only a"
            " null has a reason"
          )
      for suffix in ("_low", "_high"):
        if key.endswith(suffix) and _is_number(value):
          self._check_ends(key.removesuffix(suffix), key)
      if key.endswith("_n"):
        self._check_count(key)
    self._check_protocol()

  def _check_ends(self, base: str, key: str) -> None:
    estimate = self._values.get(base)
    low, high = (
      self._values.get(base + "_low"),
      self._values.get(base + "_high"),
    )
    if not _is_number(estimate):
      raise ValueError(
        f"key {key!r}: there is no number {base!r}; '_low' and '_high' are"
        " kept for the ends of its interval"
      )
    if not (_is_number(low) and _is_number(high)):
      raise ValueError(
        f"key {key!r}: '{base}_low' and '{base}_high' must both be numbers;"
        f" got {low!r} and {high!r}"
      )
    if not low <= estimate <= high:  # pyright: ignore[reportOperatorIssue]
      raise ValueError(
        f"key {base!r}: got {estimate!r} with _low {low!r} and _high {high!r};"
        " allowed is _low <= estimate <= _high"
      )

  def _check_count(self, key: str) -> None:
    base, count = key.removesuffix("_n"), self._values[key]
    measured = _is_number(self._values.get(base))
    if measured and (not isinstance(count, int) or count < 1):
      raise ValueError(
        f"key {key!r}: got {count!r}; it counts the values behind {base!r}"
        " and must be a whole number, at least 1"
      )

  def _check_protocol(self) -> None:
    entries, stated = self.protocol(), self.protocol_hash
    if entries and stated != protocol_hash(entries):
      raise ValueError(
        f"key {PROTOCOL_HASH!r}: got {stated!r}, which is not the hash of the"
        f" entries under 'protocol/' ({protocol_hash(entries)})"
      )


def check_comparable(runs: Mapping[str, Results]) -> None:
  """Refuses runs of different protocols.

  Args:
    runs: Name of each run to its results.

  Raises:
    ValueError: If a run has no protocol hash or the hashes differ, naming the
      runs and the fields of the protocol that differ.
  """
  names = list(runs)
  for name in names:
    if runs[name].protocol_hash is None:
      raise ValueError(
        f"{name}: has no 'protocol_hash', so that it cannot be compared;"
        " call Results.set_protocol when it is written"
      )
  for name in names[1:]:
    first, other = runs[names[0]], runs[name]
    if first.protocol_hash == other.protocol_hash:
      continue
    ours, theirs = first.protocol(), other.protocol()
    fields = [
      f"{field} ({ours.get(field, 'absent')!r} against"
      f" {theirs.get(field, 'absent')!r})"
      for field in dict.fromkeys([*ours, *theirs])
      if ours.get(field) != theirs.get(field)
    ]
    raise ValueError(
      f"{names[0]} and {name}: different protocols"
      f" ({str(first.protocol_hash)[:12]} and"
      f" {str(other.protocol_hash)[:12]}) are not comparable"
      + (f"; they differ in {', '.join(fields)}" if fields else "")
    )


def merge_results(runs: Mapping[str, Results]) -> Results:
  """The entries of several runs of one protocol in one record.

  Args:
    runs: Name of each run to its results.

  Returns:
    The union of the entries.

  Raises:
    ValueError: If the protocols differ, or two runs disagree on an entry.
  """
  check_comparable(runs)
  merged: dict[str, Value] = {}
  origin: dict[str, str] = {}
  for name, results in runs.items():
    for key, value in results.items():
      if key in merged and merged[key] != value:
        raise ValueError(
          f"key {key!r}: {origin[key]} says {merged[key]!r} and {name} says"
          f" {value!r}; entries of merged runs must not collide"
        )
      merged[key] = value
      origin.setdefault(key, name)
  return Results(merged)


def shared_keys(runs: Sequence[Results]) -> list[str]:
  """Names of the measurements that at least two of the runs have.

  Claims, protocol entries and companions (`_low`, `_reason`, ...) are left out.
  """
  counts: dict[str, int] = {}
  for results in runs:
    for key in results:
      outside = key.startswith(("claim/", "protocol/")) or key == PROTOCOL_HASH
      if not outside and not results.is_companion(key):
        counts[key] = counts.get(key, 0) + 1
  return [key for key, count in counts.items() if count > 1]
