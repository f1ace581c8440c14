"""Published weights in and out, against NumPy and by hand-written files."""

import functools
import json
import sys

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.models import reference_transformers as reference
from trustjax import models, privacy

_KEY, _HEAD = jax.random.key(0), {"num_intents": 3, "num_slots": 5}
_SIZES = {
  "vocab_size": 13,
  "max_length": 6,
  "num_layers": 2,
  "dim": 12,
  "ff_dim": 20,
}
_BERT = {
  "model_type": "bert",
  "vocab_size": 13,
  "max_position_embeddings": 6,
  "num_hidden_layers": 2,
  "hidden_size": 12,
  "num_attention_heads": 3,
  "intermediate_size": 20,
  "type_vocab_size": 2,
  "layer_norm_eps": 1e-2,
  "hidden_act": "gelu",
}
_DISTILBERT = {
  "model_type": "distilbert",
  "vocab_size": 13,
  "max_position_embeddings": 6,
  "n_layers": 2,
  "dim": 12,
  "n_heads": 3,
  "hidden_dim": 20,
  "activation": "gelu",
}
_GPT2 = {
  "model_type": "gpt2",
  "vocab_size": 13,
  "n_positions": 6,
  "n_layer": 2,
  "n_embd": 12,
  "n_head": 3,
  "n_inner": 20,
  "layer_norm_epsilon": 1e-2,
  "activation_function": "gelu_new",
}
_BERT_EXAMPLE = {
  "tokens": np.array([2, 5, 7, 3, 0, 0], np.int32),
  "mask": np.arange(6) < 4,
}
_SEGMENTS = np.array([0, 0, 1, 1, 0, 0], np.int32)


def _numpy_files():
  return pytest.importorskip(
    "safetensors.numpy", reason="needs the extra [pretrained]"
  )


def _write(folder, config, tensors):
  """A folder in the layout of published ones."""
  folder.mkdir(parents=True, exist_ok=True)
  (folder / "config.json").write_text(json.dumps(config))
  _numpy_files().save_file(tensors, folder / "model.safetensors")
  return folder


def _bert_tensors(distil=False):
  return reference.random_bert(**_SIZES, distil=distil)


def _gpt2_tensors(tied=True):
  return reference.random_gpt2(**_SIZES, tied=tied)


def _prefixed(tensors, prefix):
  return {prefix + name: value for name, value in tensors.items()}


def _load_encoder(folder, **more):
  return models.load_encoder(folder, **_HEAD, key=_KEY, **more)


def _hidden(model, params, example):
  embeddings = model.embed(params, example)
  return jax.jit(model.encode)(params, embeddings, example["mask"])


@pytest.mark.parametrize("distil", [False, True], ids=["bert", "distilbert"])
def test_an_encoder_equals_numpy(tmp_path, distil):
  tensors = _bert_tensors(distil)
  config = _DISTILBERT if distil else _BERT
  model, params = _load_encoder(_write(tmp_path, config, tensors))
  expected = reference.bert_hidden(
    tensors,
    _BERT_EXAMPLE["tokens"][:4],
    num_layers=2,
    num_heads=3,
    epsilon=1e-12 if distil else 1e-2,
    distil=distil,
  )
  assert model.name == config["model_type"]
  assert np.std(expected) > 0.5
  ours = _hidden(model, params, _BERT_EXAMPLE)
  np.testing.assert_allclose(ours[:4], expected, atol=1e-4)
  assert not np.any(ours[4:])


def test_segments_equal_numpy(tmp_path):
  tensors = _bert_tensors()
  model, params = _load_encoder(_write(tmp_path, _BERT, tensors))
  expected = reference.bert_hidden(
    tensors,
    _BERT_EXAMPLE["tokens"][:4],
    num_layers=2,
    num_heads=3,
    epsilon=1e-2,
    token_types=_SEGMENTS[:4],
  )
  example = _BERT_EXAMPLE | {"token_types": _SEGMENTS}
  ours = _hidden(model, params, example)[:4]
  np.testing.assert_allclose(ours, expected, atol=1e-4)
  plain = _hidden(model, params, _BERT_EXAMPLE)[:4]
  assert np.max(np.abs(ours - plain)) > 0.1
  first = _BERT_EXAMPLE | {"token_types": 0 * _SEGMENTS}
  np.testing.assert_array_equal(_hidden(model, params, first)[:4], plain)


def test_the_intent_is_read_through_the_pooler_of_the_first_position(tmp_path):
  tensors = _bert_tensors()
  model, params = _load_encoder(_write(tmp_path, _BERT, tensors))
  hidden = np.asarray(_hidden(model, params, _BERT_EXAMPLE))
  pooled = np.tanh(
    tensors["pooler.dense.weight"] @ hidden[0] + tensors["pooler.dense.bias"]
  )
  head = params["head"]
  logits = jax.jit(model.apply)(params, _BERT_EXAMPLE)
  np.testing.assert_allclose(
    logits.intent,
    pooled @ head["intent"]["kernel"] + head["intent"]["bias"],
    atol=1e-5,
  )
  chex.assert_shape(logits.slots, (6, 5))


def test_without_a_pooler_the_intent_is_read_off_the_mean(tmp_path):
  tensors = _bert_tensors()
  folder = _write(tmp_path / "with", _BERT, tensors)
  bare = {n: v for n, v in tensors.items() if "pooler" not in n}
  for model, params in (
    _load_encoder(folder, pooler=False),
    _load_encoder(_write(tmp_path / "without", _BERT, bare)),
  ):
    assert "pooler" not in params
    mean = _hidden(model, params, _BERT_EXAMPLE)[:4].mean(0)
    head = params["head"]["intent"]
    np.testing.assert_allclose(
      jax.jit(model.apply)(params, _BERT_EXAMPLE).intent,
      mean @ head["kernel"] + head["bias"],
      atol=1e-5,
    )


def test_the_head_follows_the_key_and_the_body_the_file(tmp_path):
  folder = _write(tmp_path, _BERT, _bert_tensors())
  _, first = models.load_encoder(folder, **_HEAD, key=_KEY)
  _, again = models.load_encoder(folder, **_HEAD, key=_KEY)
  model, other = models.load_encoder(folder, **_HEAD, key=jax.random.key(1))
  chex.assert_trees_all_equal(first, again)
  assert np.any(
    first["head"]["slots"]["kernel"] != other["head"]["slots"]["kernel"]
  )
  chex.assert_trees_all_equal({**first, "head": None}, {**other, "head": None})
  fresh = jax.jit(model.init)(_KEY)
  chex.assert_trees_all_equal_shapes_and_dtypes(first, fresh)
  chex.assert_trees_all_close(first["head"], fresh["head"], atol=1e-6)


@pytest.mark.parametrize("distil", [False, True], ids=["bert", "distilbert"])
def test_names_of_task_models_and_old_files_are_understood(tmp_path, distil):
  tensors = _bert_tensors(distil)
  config = _DISTILBERT if distil else _BERT
  _, plain = _load_encoder(_write(tmp_path / "plain", config, tensors))
  prefix = "distilbert." if distil else "bert."
  task = _prefixed(tensors, prefix) | {
    "cls.predictions.bias": np.zeros(13, np.float32),
    f"{prefix}embeddings.position_ids": np.arange(6)[None, :],
  }
  _, ours = _load_encoder(_write(tmp_path / "task", config, task))
  chex.assert_trees_all_equal(ours, plain)
  if not distil:
    old = {
      name.replace("Norm.weight", "Norm.gamma").replace(
        "Norm.bias", "Norm.beta"
      ): value
      for name, value in task.items()
    }
    _, ours = _load_encoder(_write(tmp_path / "old", config, old))
    chex.assert_trees_all_equal(ours, plain)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_widened(tmp_path, dtype):
  tensors = {n: v.astype(jnp.dtype(dtype)) for n, v in _gpt2_tensors().items()}
  _, params = models.load_decoder(_write(tmp_path, _GPT2, tensors))
  table = params["words"]["embedding"]
  assert table.dtype == jnp.float32
  np.testing.assert_array_equal(table, tensors["wte.weight"].astype(np.float32))


@pytest.mark.slow
def test_an_imported_encoder_is_tuned_with_clipped_gradients(tmp_path):
  folder = _write(tmp_path, _BERT, _bert_tensors())
  model, params = _load_encoder(folder, dropout=0.1)
  one = _BERT_EXAMPLE | {
    "intent": np.int32(1),
    "slots": np.array([0, 4, 2, 0, 0, 0], np.int32),
  }
  two = one | {"tokens": one["tokens"][::-1].copy(), "intent": np.int32(2)}
  two["mask"] = two["tokens"] > 0
  examples = jax.tree.map(lambda *leaves: np.stack(leaves), one, two)
  loss_fn = models.losses.joint_loss(model)
  rule = privacy.ThresholdClip(clip_norm=0.1)
  ids = jnp.arange(2, dtype=jnp.uint32)
  lot = privacy.Lot(examples=examples, valid=jnp.ones(2, bool), ids=ids)
  clipped = privacy.clipped_grad(loss_fn, rule, engine="vmap")(
    params, lot, _KEY, rule.init()
  )
  expected = jax.tree.map(jnp.zeros_like, params)
  grad = jax.jit(jax.grad(loss_fn, has_aux=True))
  for record, index in ((one, 0), (two, 1)):
    grads, _ = grad(params, record, jax.random.fold_in(_KEY, ids[index]))
    norm = jnp.sqrt(sum(jnp.sum(g**2) for g in jax.tree.leaves(grads)))
    assert norm > 0.1
    expected = jax.tree.map(
      lambda total, g, norm=norm: total + g * (0.1 / norm), expected, grads
    )
  chex.assert_trees_all_close(clipped.sum, expected, atol=1e-5)
  for path, leaf in jax.tree_util.tree_leaves_with_path(clipped.sum):
    assert np.any(leaf != 0), jax.tree_util.keystr(path)


@pytest.mark.parametrize("prefix", ["", "transformer."])
@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_a_decoder_equals_numpy(tmp_path, tied, prefix):
  tensors = _gpt2_tensors(tied)
  named = {
    name if name.startswith("lm_head") else prefix + name: value
    for name, value in tensors.items()
  }
  named[f"{prefix}h.0.attn.bias"] = np.tril(np.ones((1, 1, 6, 6), np.float32))
  config = _GPT2 if tied else _GPT2 | {"tie_word_embeddings": False}
  model, params = models.load_decoder(_write(tmp_path, config, named))
  tokens = np.array([4, 1, 9, 12, 4, 2], np.int32)
  expected = reference.gpt2_logits(
    tensors, tokens, num_layers=2, num_heads=3, epsilon=1e-2
  )
  ours = jax.jit(model.apply)(
    params, {"tokens": tokens, "mask": np.ones(6, bool)}
  )
  np.testing.assert_allclose(ours, expected, atol=1e-4)


def test_a_tied_table_may_be_stored_twice_if_it_is_the_same(tmp_path):
  tensors = _prefixed(_gpt2_tensors(), "transformer.")
  table = tensors["transformer.wte.weight"]
  twice = tensors | {"lm_head.weight": table.copy()}
  models.load_decoder(_write(tmp_path, _GPT2, twice))
  with pytest.raises(ValueError, match=r"'lm_head.weight' differs"):
    models.load_decoder(
      _write(tmp_path, _GPT2, tensors | {"lm_head.weight": table + 1})
    )


def test_the_default_feed_forward_is_four_times_the_width(tmp_path):
  sizes = _SIZES | {"ff_dim": 48}
  config = {name: value for name, value in _GPT2.items() if name != "n_inner"}
  folder = _write(tmp_path, config, reference.random_gpt2(**sizes))
  model, _ = models.load_decoder(folder)
  assert model.fields["ff_dim"] == 48


@functools.cache
def _decoder(tied):
  model = models.transformer_decoder(
    **_SIZES, num_heads=3, dropout=0.1, tied=tied, norm_epsilon=1e-2
  )
  return model, jax.jit(model.init)(_KEY)


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_export_and_import_return_the_same_decoder(tmp_path, tied):
  _numpy_files()
  model, params = _decoder(tied)
  models.save_decoder(tmp_path / "new" / "folder", model, params)
  ours, imported = models.load_decoder(tmp_path / "new" / "folder", dropout=0.1)
  assert ours.fields == model.fields
  chex.assert_trees_all_equal(imported, params)


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_an_export_has_the_names_and_shapes_of_gpt2(tmp_path, tied):
  model, params = _decoder(tied)
  files = _numpy_files()
  models.save_decoder(tmp_path, model, params, end_of_text=12)
  written = files.load_file(tmp_path / "model.safetensors")
  expected = {
    name if name.startswith("lm_head") else f"transformer.{name}": value.shape
    for name, value in _gpt2_tensors(tied).items()
  }
  assert {name: value.shape for name, value in written.items()} == expected
  config = json.loads((tmp_path / "config.json").read_text())
  for name, value in _GPT2.items():
    assert config[name] == value, name
  assert config["tie_word_embeddings"] is tied
  assert config["bos_token_id"] == config["eos_token_id"] == 12
  assert config["attn_pdrop"] == config["resid_pdrop"] == 0.1


def test_only_a_decoder_with_its_own_parameters_is_exported(tmp_path):
  _numpy_files()
  model, params = _decoder(True)
  with pytest.raises(ValueError, match="unembed.kernel has shape none"):
    models.save_decoder(tmp_path, _decoder(False)[0], params)
  longer = params | {"positions": jnp.zeros((7, 12))}
  with pytest.raises(ValueError, match=r"positions has shape \(7, 12\)"):
    models.save_decoder(tmp_path, model, longer)
  with pytest.raises(ValueError, match="end_of_text: got 13"):
    models.save_decoder(tmp_path, model, params, end_of_text=13)
  other = models.LanguageModel(
    name="bigram",
    fields={},
    init=model.init,
    embed=model.embed,
    encode=model.encode,
    logits=model.logits,
    word_table=model.word_table,
  )
  with pytest.raises(ValueError, match="model: got 'bigram'"):
    models.save_decoder(tmp_path, other, params)
  assert not list(tmp_path.iterdir())


# What is wrong with a folder, and what the message must name.
_BROKEN = {
  "no config": (lambda f: (f / "config.json").unlink(), "config.json is"),
  "no weights": (
    lambda f: (f / "model.safetensors").unlink(),
    "model.safetensors is missing",
  ),
  "not JSON": (
    lambda f: (f / "config.json").write_text("{"),
    "config.json is not JSON",
  ),
  "not safetensors": (
    lambda f: (f / "model.safetensors").write_bytes(b"\x00" * 30),
    "model.safetensors is not a safetensors file",
  ),
}


@pytest.mark.parametrize("case", list(_BROKEN))
@pytest.mark.parametrize("kind", ["bert", "gpt2"])
def test_broken_files_are_named(tmp_path, kind, case):
  breaks, message = _BROKEN[case]
  if kind == "bert":
    folder, load = _write(tmp_path, _BERT, _bert_tensors()), _load_encoder
  else:
    folder = _write(tmp_path, _GPT2, _gpt2_tensors())
    load = models.load_decoder
  breaks(folder)
  kind_of_error = FileNotFoundError if case.startswith("no ") else ValueError
  with pytest.raises(kind_of_error, match=message):
    load(folder)


@pytest.mark.parametrize(
  "config, tensors, name",
  [
    (_BERT, _bert_tensors(), "encoder.layer.1.attention.self.key.bias"),
    (_BERT, _bert_tensors(), "embeddings.token_type_embeddings.weight"),
    (_BERT, _bert_tensors(), "pooler.dense.bias"),
    (_DISTILBERT, _bert_tensors(True), "transformer.layer.0.ffn.lin2.weight"),
    (_GPT2, _gpt2_tensors(), "h.1.mlp.c_proj.weight"),
    (_GPT2, _gpt2_tensors(), "wte.weight"),
    (
      _GPT2 | {"tie_word_embeddings": False},
      _gpt2_tensors(False),
      "lm_head.weight",
    ),
  ],
)
def test_missing_and_misshapen_tensors_are_named(
  tmp_path, config, tensors, name
):
  gpt2 = config["model_type"] == "gpt2"
  load = models.load_decoder if gpt2 else _load_encoder
  without = {key: value for key, value in tensors.items() if key != name}
  with pytest.raises(ValueError, match=f"missing: '{name}'"):
    load(_write(tmp_path, config, without))
  shape = tensors[name].shape
  wrong = tensors | {name: np.zeros((*shape[:-1], shape[-1] + 1), np.float32)}
  with pytest.raises(ValueError, match=f"'{name}' has shape .*asks for"):
    load(_write(tmp_path, config, wrong))
  whole = tensors | {name: np.zeros(shape, np.int32)}
  with pytest.raises(ValueError, match=f"'{name}' has dtype int32"):
    load(_write(tmp_path, config, whole))


def test_a_transposed_matrix_is_refused(tmp_path):
  """GPT-2's Conv1D and PyTorch's linear layer differ by a transposition."""
  name = "h.0.attn.c_attn.weight"
  tensors = _gpt2_tensors()
  tensors[name] = np.ascontiguousarray(tensors[name].T)
  with pytest.raises(ValueError, match=r"\(36, 12\).*\(12, 36\)"):
    models.load_decoder(_write(tmp_path, _GPT2, tensors))


@pytest.mark.parametrize("kind", ["bert", "gpt2"])
def test_layers_beyond_the_config_are_refused(tmp_path, kind):
  if kind == "bert":
    config, tensors = _BERT | {"num_hidden_layers": 1}, _bert_tensors()
    load, name = _load_encoder, "encoder.layer.1."
  else:
    config, tensors = _GPT2 | {"n_layer": 1}, _gpt2_tensors()
    load, name = models.load_decoder, "h.1."
  with pytest.raises(ValueError, match=f"not account for the tensors '{name}"):
    load(_write(tmp_path, config, tensors))


@pytest.mark.parametrize(
  "config, changes, message",
  [
    (_BERT, {"hidden_act": "relu"}, "hidden_act is 'relu'.*'gelu'"),
    (_BERT, {"is_decoder": True}, "is_decoder is True"),
    (_BERT, {"position_embedding_type": "relative_key"}, "relative_key"),
    (_BERT, {"model_type": "roberta"}, "model_type is 'roberta'.*'bert'"),
    (_BERT, {"model_type": "gpt2"}, "model_type is 'gpt2'"),
    (_DISTILBERT, {"activation": "relu"}, "activation is 'relu'"),
    (_GPT2, {"activation_function": "relu"}, "activation_function is 'relu'"),
    (_GPT2, {"scale_attn_by_inverse_layer_idx": True}, "inverse_layer_idx"),
    (_GPT2, {"scale_attn_weights": False}, "scale_attn_weights is False"),
    (_GPT2, {"model_type": "bert"}, "model_type is 'bert'"),
    (_GPT2, {"n_head": 5}, "num_heads: got 5; it must divide"),
    (_BERT, {"hidden_size": None}, "'hidden_size' is missing"),
    (_DISTILBERT, {"n_heads": None}, "'n_heads' is missing"),
    (_GPT2, {"n_layer": None}, "'n_layer' is missing"),
  ],
)
def test_what_the_model_does_not_do_is_refused(
  tmp_path, config, changes, message
):
  gpt2 = config is _GPT2
  tensors = _gpt2_tensors() if gpt2 else _bert_tensors(config is _DISTILBERT)
  changed = {n: v for n, v in (config | changes).items() if v is not None}
  with pytest.raises(ValueError, match=message):
    folder = _write(tmp_path, changed, tensors)
    models.load_decoder(folder) if gpt2 else _load_encoder(folder)


def test_distilbert_has_no_pooler(tmp_path):
  folder = _write(tmp_path, _DISTILBERT, _bert_tensors(True))
  with pytest.raises(ValueError, match="pooler: got True"):
    _load_encoder(folder, pooler=True)
  model, params = _load_encoder(folder)
  example = _BERT_EXAMPLE | {"token_types": _SEGMENTS}
  with pytest.raises(ValueError, match="token_types"):
    model.embed(params, example)


def test_a_missing_extra_is_named(tmp_path, monkeypatch):
  model, params = _decoder(True)
  (tmp_path / "config.json").write_text(json.dumps(_GPT2))
  (tmp_path / "model.safetensors").write_bytes(b"")
  monkeypatch.setitem(sys.modules, "safetensors", None)
  monkeypatch.setitem(sys.modules, "safetensors.numpy", None)
  for call in (
    lambda: models.load_decoder(tmp_path),
    lambda: models.save_decoder(tmp_path, model, params),
  ):
    with pytest.raises(ImportError, match=r"trustjax\[pretrained\]"):
      call()
