"""Models by name, for configs."""

import inspect

from trustjax.models import (
  _bert,
  _birnn,
  _char_lstm,
  _decoder,
  _language_model,
  _logistic,
  _mean_pool,
  _model,
  _transformer,
)

_MODELS = {
  "logistic": _logistic.logistic_tagger,
  "mean_pool": _mean_pool.mean_pool_tagger,
  "bilstm": _birnn.bilstm_tagger,
  "bigru": _birnn.bigru_tagger,
  "transformer": _transformer.transformer_encoder,
  "bert": _bert.bert_encoder,
}
_LANGUAGE_MODELS = {
  "decoder": _decoder.transformer_decoder,
  "char_lstm": _char_lstm.char_lstm,
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
    name: "logistic", "mean_pool", "bilstm", "bigru", "transformer" or "bert".
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
  sizes = dict(
    vocab_size=vocab_size,
    num_intents=num_intents,
    num_slots=num_slots,
    max_length=max_length,
  )
  return _build(_MODELS, name, sizes, fields)


def reads_characters(name: str) -> bool:
  """Whether a tagger takes `num_chars` and then reads "chars"."""
  if name not in _MODELS:
    raise ValueError(f"model.name: got {name!r}; allowed are {list(_MODELS)}")
  return "num_chars" in inspect.signature(_MODELS[name]).parameters


def language_model_names() -> tuple[str, ...]:
  """Names that `make_language_model` takes."""
  return tuple(_LANGUAGE_MODELS)


def make_language_model(
  name: str, *, vocab_size: int, max_length: int, **fields
) -> _language_model.LanguageModel:
  """Builds a language model by name.

  Args:
    name: "decoder" or "char_lstm".
    vocab_size: Rows of the word table.
    max_length: Positions of an example.
    **fields: Further fields of the model, such as `dim`.

  Returns:
    The language model.

  Raises:
    ValueError: The name or a field is unknown, or a value is not allowed.
  """
  sizes = dict(vocab_size=vocab_size, max_length=max_length)
  return _build(_LANGUAGE_MODELS, name, sizes, fields)


def _build(builders, name, sizes, fields):
  """Calls the builder of a name with its fields and the sizes it knows."""
  if name not in builders:
    raise ValueError(f"model.name: got {name!r}; allowed are {list(builders)}")
  known = inspect.signature(builders[name]).parameters
  unknown = sorted(set(fields) - set(known))
  if unknown:
    allowed = sorted(set(known) - set(_FROM_DATA))
    raise ValueError(
      f"model {name!r}: got unknown fields {unknown}; allowed are {allowed}"
    )
  usable = {field: n for field, n in sizes.items() if field in known}
  return builders[name](**usable, **fields)
