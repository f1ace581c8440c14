"""Models by name, for configs."""

import inspect

from trustjax.models import _bilstm, _mean_pool, _model, _transformer

_MODELS = {
  "mean_pool": _mean_pool.mean_pool_tagger,
  "bilstm": _bilstm.bilstm_tagger,
  "transformer": _transformer.transformer_encoder,
}
# Sizes that follow from the data; a model takes those it knows.
_FROM_DATA = ("vocab_size", "num_intents", "num_slots", "max_length")


def model_names() -> tuple[str, ...]:
  """Names that `make_model` takes."""
  return tuple(_MODELS)


def make_model(
  name: str,
  *,
  vocab_size: int,
  num_intents: int,
  num_slots: int,
  max_length: int,
  **fields,
) -> _model.Model:
  """Builds a model by name.

  Args:
    name: "mean_pool", "bilstm" or "transformer".
    vocab_size: Rows of the word table.
    num_intents: Intents.
    num_slots: Slot labels.
    max_length: Positions of an example.
    **fields: Further fields of the model, such as `dim`.

  Returns:
    The model.

  Raises:
    ValueError: The name or a field is unknown, or a value is not allowed.
  """
  if name not in _MODELS:
    raise ValueError(f"model.name: got {name!r}; allowed are {list(_MODELS)}")
  known = inspect.signature(_MODELS[name]).parameters
  unknown = sorted(set(fields) - set(known))
  if unknown:
    allowed = sorted(set(known) - set(_FROM_DATA))
    raise ValueError(
      f"model {name!r}: got unknown fields {unknown}; allowed are {allowed}"
    )
  sizes = dict(
    vocab_size=vocab_size,
    num_intents=num_intents,
    num_slots=num_slots,
    max_length=max_length,
  )
  usable = {field: n for field, n in sizes.items() if field in known}
  return _MODELS[name](**usable, **fields)
