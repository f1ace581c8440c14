"""Published weights: BERT, DistilBERT and GPT-2 in the layout of transformers.

A folder holds config.json and model.safetensors. The files are read with the
small safetensors package alone (extra [pretrained]), without PyTorch.
"""

import dataclasses
import json
import os
import pathlib
import re
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Key

from trustjax.models import (
  _bert,
  _decoder,
  _language_model,
  _model,
  _safetensors_layout,
)

_CONFIG, _WEIGHTS = "config.json", "model.safetensors"

# Config keys whose other values change the computation in ways that the model
# does not follow; an absent key has the first value.
_REQUIRED = {
  "bert": {
    "hidden_act": ("gelu",),
    "position_embedding_type": ("absolute", None),
    "is_decoder": (False,),
    "add_cross_attention": (False,),
  },
  "distilbert": {"activation": ("gelu",)},
  "gpt2": {
    "activation_function": ("gelu_new", "gelu_pytorch_tanh"),
    "scale_attn_weights": (True,),
    "scale_attn_by_inverse_layer_idx": (False,),
    "add_cross_attention": (False,),
  },
}
# The part of a task model's names that stands before the body's.
_PREFIX = {"bert": "bert.", "distilbert": "distilbert.", "gpt2": "transformer."}
# The first BERT files use TensorFlow's names of a norm's two vectors.
_OLD_ENDINGS = {
  "LayerNorm.gamma": "LayerNorm.weight",
  "LayerNorm.beta": "LayerNorm.bias",
}
# Constants that some versions of transformers store among the weights.
_BUFFERS = re.compile(
  r"h\.\d+\.attn\.(bias|masked_bias)|embeddings\.(position|token_type)_ids"
)


def load_encoder(
  folder: str | os.PathLike[str],
  *,
  num_intents: int,
  num_slots: int,
  key: Key[Array, ""],
  dropout: float = 0.0,
  pooler: bool | None = None,
) -> tuple[_model.Model, _model.Params]:
  """Reads a BERT or DistilBERT encoder and puts a fresh joint head on it.

  Heads in the file (masked words, next sentence, classes) are left out.

  Args:
    folder: Holds config.json (model_type "bert" or "distilbert") and
      model.safetensors.
    num_intents: Intents of the head.
    num_slots: Slot labels of the head.
    key: Draws the head.
    dropout: Rate of the model; the file's rates are not taken over.
    pooler: Whether the intent is read through BERT's pooler; None follows the
      file, and DistilBERT has none.

  Returns:
    The model, as from `bert_encoder`, and its parameters.

  Raises:
    FileNotFoundError: A file is missing.
    ImportError: The extra [pretrained] is not installed.
    ValueError: The file is of another architecture, a tensor is missing, left
      over or of another shape; the message names it.

  Example:
    ```
    model, params = load_encoder(
      "bert-base-uncased", num_intents=7, num_slots=72, key=jax.random.key(0)
    )
    loss_fn = losses.joint_loss(model)
    ```
  """
  folder = pathlib.Path(folder)
  config = _read_config(folder, ("bert", "distilbert"))
  kind, source = config["model_type"], str(folder / _WEIGHTS)
  body, _ = _read_tensors(folder, kind)
  has_pooler = any(name.startswith("pooler.") for name in body)
  pooler = has_pooler if pooler is None else pooler
  if not pooler:
    body = {n: v for n, v in body.items() if not n.startswith("pooler.")}
  if kind == "bert":
    fields = _bert_fields(config, folder)
    layout = _safetensors_layout.bert_layout(
      fields["num_layers"],
      token_types=fields["num_token_types"] > 0,
      pooler=pooler,
    )
  elif pooler:
    raise ValueError("pooler: got True; DistilBERT has no pooler")
  else:
    fields = _distilbert_fields(config, folder)
    layout = _safetensors_layout.distilbert_layout(fields["num_layers"])
  model = _bert.bert_encoder(
    num_intents=num_intents,
    num_slots=num_slots,
    dropout=dropout,
    pooler=pooler,
    **fields,
  )
  model = dataclasses.replace(model, name=kind)
  _safetensors_layout.check_all_used(layout, body, source)
  shapes = jax.eval_shape(model.init, key)
  params = _safetensors_layout.params_from_tensors(layout, body, shapes, source)
  # Compiled, so that only the head is drawn and not the body beside it.
  params["head"] = jax.jit(lambda key: model.init(key)["head"])(key)
  return model, params


def load_decoder(
  folder: str | os.PathLike[str], *, dropout: float = 0.0
) -> tuple[_language_model.LanguageModel, _model.Params]:
  """Reads a GPT-2 decoder.

  Args:
    folder: Holds config.json (model_type "gpt2") and model.safetensors.
    dropout: Rate of the model; the file's rates are not taken over.

  Returns:
    The model, as from `transformer_decoder`, and its parameters.

  Raises:
    FileNotFoundError: A file is missing.
    ImportError: The extra [pretrained] is not installed.
    ValueError: The file is of another architecture, a tensor is missing, left
      over or of another shape; the message names it.
  """
  folder = pathlib.Path(folder)
  config = _read_config(folder, ("gpt2",))
  source = str(folder / _WEIGHTS)
  body, rest = _read_tensors(folder, "gpt2")
  fields = _gpt2_fields(config, folder)
  head = {**body, **rest}.get("lm_head.weight")
  if fields["tied"]:
    body.pop("lm_head.weight", None)
    table = body.get("wte.weight")
    if (
      head is not None
      and table is not None
      and (not np.array_equal(head, table))
    ):
      raise ValueError(
        f"{source}: tensor 'lm_head.weight' differs from 'wte.weight', but"
        f" {_CONFIG} has tie_word_embeddings"
      )
  elif head is not None:
    body["lm_head.weight"] = head
  model = _decoder.transformer_decoder(dropout=dropout, **fields)
  layout = _safetensors_layout.gpt2_layout(
    fields["num_layers"], tied=fields["tied"]
  )
  _safetensors_layout.check_all_used(layout, body, source)
  shapes = jax.eval_shape(model.init, jax.random.key(0))
  return model, _safetensors_layout.params_from_tensors(
    layout, body, shapes, source
  )


def save_decoder(
  folder: str | os.PathLike[str],
  model: _language_model.LanguageModel,
  params: _model.Params,
  *,
  end_of_text: int | None = None,
) -> None:
  """Writes a decoder so that transformers reads it as `GPT2LMHeadModel`.

  Args:
    folder: Where config.json and model.safetensors go; made if needed, and
      files of those names are replaced.
    model: From `transformer_decoder` or `load_decoder`.
    params: Its parameters.
    end_of_text: Token that begins and ends a text; None for none.

  Raises:
    ImportError: The extra [pretrained] is not installed.
    ValueError: The model is no decoder, or the parameters are not its own.
  """
  if model.name != "decoder":
    raise ValueError(f"model: got {model.name!r}; only 'decoder' is GPT-2")
  fields = model.fields
  if end_of_text is not None and not 0 <= end_of_text < fields["vocab_size"]:
    raise ValueError(
      f"end_of_text: got {end_of_text}; it must be one of the"
      f" {fields['vocab_size']} tokens"
    )
  package = _safetensors()
  layout = _safetensors_layout.gpt2_layout(
    fields["num_layers"], tied=fields["tied"]
  )
  shapes = jax.eval_shape(model.init, jax.random.key(0))
  tensors = _safetensors_layout.tensors_from_params(layout, params, shapes)
  tensors = {
    name if name.startswith("lm_head.") else _PREFIX["gpt2"] + name: tensor
    for name, tensor in tensors.items()
  }
  folder = pathlib.Path(folder)
  folder.mkdir(parents=True, exist_ok=True)
  # transformers refuses files that do not state this format.
  package.numpy.save_file(tensors, folder / _WEIGHTS, metadata={"format": "pt"})
  text = json.dumps(_gpt2_config(fields, end_of_text), indent=2)
  (folder / _CONFIG).write_text(text + "\n", encoding="utf-8")


def _bert_fields(config, folder) -> dict[str, Any]:
  get = _getter(config, folder)
  return dict(
    vocab_size=get("vocab_size"),
    max_length=get("max_position_embeddings"),
    num_layers=get("num_hidden_layers"),
    dim=get("hidden_size"),
    num_heads=get("num_attention_heads"),
    ff_dim=get("intermediate_size"),
    num_token_types=get("type_vocab_size"),
    norm_epsilon=get("layer_norm_eps"),
  )


def _distilbert_fields(config, folder) -> dict[str, Any]:
  get = _getter(config, folder)
  return dict(
    vocab_size=get("vocab_size"),
    max_length=get("max_position_embeddings"),
    num_layers=get("n_layers"),
    dim=get("dim"),
    num_heads=get("n_heads"),
    ff_dim=get("hidden_dim"),
    num_token_types=0,
    # Not a setting of DistilBERT: its code has the number.
    norm_epsilon=1e-12,
  )


def _gpt2_fields(config, folder) -> dict[str, Any]:
  get = _getter(config, folder)
  inner = config.get("n_inner")
  return dict(
    vocab_size=get("vocab_size"),
    max_length=get("n_positions"),
    num_layers=get("n_layer"),
    dim=get("n_embd"),
    num_heads=get("n_head"),
    ff_dim=4 * get("n_embd") if inner is None else inner,
    tied=config.get("tie_word_embeddings", True),
    norm_epsilon=get("layer_norm_epsilon"),
  )


def _gpt2_config(fields: Mapping[str, Any], end_of_text) -> dict[str, Any]:
  """The inverse of `_gpt2_fields`, with what transformers wants besides."""
  rates = ("resid_pdrop", "embd_pdrop", "attn_pdrop")
  return {
    "architectures": ["GPT2LMHeadModel"],
    "model_type": "gpt2",
    "activation_function": "gelu_new",
    "vocab_size": fields["vocab_size"],
    "n_positions": fields["max_length"],
    "n_layer": fields["num_layers"],
    "n_embd": fields["dim"],
    "n_head": fields["num_heads"],
    "n_inner": fields["ff_dim"],
    "tie_word_embeddings": fields["tied"],
    "layer_norm_epsilon": fields["norm_epsilon"],
    **{rate: fields["dropout"] for rate in rates},
    "bos_token_id": end_of_text,
    "eos_token_id": end_of_text,
  }


def _getter(config, folder) -> Callable[[str], Any]:
  def get(key):
    if key not in config:
      raise ValueError(f"{folder / _CONFIG}: {key!r} is missing")
    return config[key]

  return get


def _read_config(folder, kinds) -> dict[str, Any]:
  """Reads config.json and checks that the model can follow it."""
  path = folder / _CONFIG
  if not path.is_file():
    raise FileNotFoundError(f"{path} is missing")
  try:
    config = json.loads(path.read_text(encoding="utf-8"))
  except json.JSONDecodeError as error:
    raise ValueError(f"{path} is not JSON: {error}") from error
  kind = config.get("model_type")
  if kind not in kinds:
    raise ValueError(
      f"{path}: model_type is {kind!r}; allowed are {list(kinds)}"
    )
  for key, allowed in _REQUIRED[kind].items():
    if config.get(key, allowed[0]) not in allowed:
      raise ValueError(
        f"{path}: {key} is {config[key]!r}; allowed are {list(allowed)}"
      )
  return config


def _read_tensors(
  folder: pathlib.Path, kind: str
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
  """Tensors of the body, by their names within it, and all others."""
  path = folder / _WEIGHTS
  if not path.is_file():
    raise FileNotFoundError(f"{path} is missing")
  package = _safetensors()
  try:
    tensors = package.numpy.load_file(path)
  except package.SafetensorError as error:
    raise ValueError(f"{path} is not a safetensors file: {error}") from error
  prefix = _PREFIX[kind]
  if not any(name.startswith(prefix) for name in tensors):
    prefix = ""
  body, rest = {}, {}
  for name, tensor in tensors.items():
    if not name.startswith(prefix):
      rest[name] = tensor
      continue
    name = name.removeprefix(prefix)
    for old, new in _OLD_ENDINGS.items():
      if name.endswith(old):
        name = name.removesuffix(old) + new
    if not _BUFFERS.fullmatch(name):
      body[name] = tensor
  return body, rest


def _safetensors() -> Any:
  """The safetensors package, with its NumPy side loaded."""
  try:
    # Imported here: the extra is needed for nothing else.
    import safetensors
    import safetensors.numpy
  except ImportError as error:
    raise ImportError(
      "pretrained weights need safetensors: install the extra [pretrained],"
      ' pip install "trustjax[pretrained]"'
    ) from error
  return safetensors
