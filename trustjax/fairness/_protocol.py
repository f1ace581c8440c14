"""Under which protocol a number was measured, and which numbers compare.

A fairness number depends on more than the model: on the word list, the
template, the decoding settings. Each result therefore carries the digest of
its protocol, and `check_comparable` refuses to put unlike results side by side.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass(frozen=True, kw_only=True)
class Protocol:
  """What a measurement depends on besides the metric's own options.

  The model under test does not belong here: two models are compared under one
  protocol.

  Attributes:
    data: Digest of the evaluation records.
    word_lists: Digest of the word lists or lexicon.
    templates: Digest or identifier of the templates.
    extraction: How vectors or scores were taken: layer, pooling, tokeniser.
    decoding: Sampling settings of generated text.
    seed: Seed of every random choice.
    extra: Whatever else matters, as name -> value.
  """

  data: str = ""
  word_lists: str = ""
  templates: str = ""
  extraction: str = ""
  decoding: str = ""
  seed: int | None = None
  extra: Mapping[str, Any] = dataclasses.field(default_factory=dict)

  @property
  def digest(self) -> str:
    """First 16 hexadecimal digits of the SHA-256 of all fields."""
    fields = {
      field.name: getattr(self, field.name)
      for field in dataclasses.fields(self)
    }
    fields["extra"] = dict(self.extra)
    text = json.dumps(fields, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def check_comparable(
  *results: Any, allow_different_protocols: bool = False
) -> None:
  """Raises unless results of one metric were measured in one way.

  Args:
    *results: Results of metrics of this package; each has the static fields
      `metric`, `variant` and `protocol`.
    allow_different_protocols: Explicit override for the protocol. The metric
      and its variant must agree all the same.

  Raises:
    ValueError: If metrics, variants or protocol digests differ.
  """
  names = ("metric", "variant", "protocol")
  if allow_different_protocols:
    names = names[:2]
  for name in names:
    values = {getattr(result, name) for result in results}
    if len(values) > 1:
      raise ValueError(
        f"{name}: got {sorted(values)}; only results of one {name} may be"
        " compared"
        + (
          " (allow_different_protocols=True overrides this)"
          if name == "protocol"
          else ""
        )
      )
