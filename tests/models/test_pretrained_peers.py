"""Imports and exports against transformers, on random weights."""

import jax
import numpy as np
import pytest

from trustjax import models

_REASON = "needs the extra [peers] and transformers"
torch = pytest.importorskip("torch", reason=_REASON)
transformers = pytest.importorskip("transformers", reason=_REASON)

_VOCAB, _TIME, _LENGTHS = 29, 9, (9, 5, 1)
_HEAD = {"num_intents": 3, "num_slots": 5}
_BERT = {
  "vocab_size": _VOCAB,
  "max_position_embeddings": 11,
  "num_hidden_layers": 3,
  "hidden_size": 24,
  "num_attention_heads": 4,
  "intermediate_size": 40,
  "layer_norm_eps": 1e-2,
}
_DISTILBERT = {
  "vocab_size": _VOCAB,
  "max_position_embeddings": 11,
  "n_layers": 3,
  "dim": 24,
  "n_heads": 4,
  "hidden_dim": 40,
}
_GPT2 = {
  "vocab_size": _VOCAB,
  "n_positions": 11,
  "n_layer": 3,
  "n_embd": 24,
  "n_head": 4,
  "layer_norm_epsilon": 1e-2,
  "bos_token_id": 0,
  "eos_token_id": 0,
}


def _randomised(module):
  """Every weight random and large, biases and norms, too."""
  torch.manual_seed(0)
  with torch.no_grad():
    for name, weight in module.named_parameters():
      of_norm = "norm" in name.lower() or "ln_" in name
      centre = 1.0 if of_norm and name.endswith("weight") else 0.0
      weight.normal_(centre, 0.3)
  return module.eval()


def _batch():
  rng = np.random.default_rng(0)
  mask = np.arange(_TIME) < np.array(_LENGTHS)[:, None]
  tokens = np.where(mask, rng.integers(1, _VOCAB, mask.shape), 0)
  return {
    "tokens": tokens.astype(np.int32),
    "mask": mask,
    "token_types": (mask & (np.arange(_TIME) > 2)).astype(np.int32),
  }


def _theirs(module, batch, **more):
  with torch.no_grad():
    return module(
      input_ids=torch.tensor(batch["tokens"], dtype=torch.long),
      attention_mask=torch.tensor(batch["mask"], dtype=torch.long),
      **more,
    )


def _hidden(model, params, batch):
  def one(example):
    embeddings = model.embed(params, example)
    return model.encode(params, embeddings, example["mask"])

  return jax.jit(jax.vmap(one))(batch)


def _assert_equal(ours, theirs, mask):
  theirs = theirs.numpy()[mask]
  assert np.std(theirs) > 0.25
  np.testing.assert_allclose(np.asarray(ours)[mask], theirs, atol=1e-4)


def _load_encoder(folder):
  return models.load_encoder(folder, **_HEAD, key=jax.random.key(0))


def test_bert(tmp_path):
  module = _randomised(transformers.BertModel(transformers.BertConfig(**_BERT)))
  module.save_pretrained(tmp_path)
  model, params = _load_encoder(tmp_path)
  batch = _batch()
  segments = torch.tensor(batch["token_types"], dtype=torch.long)
  theirs = _theirs(module, batch, token_type_ids=segments)
  hidden = _hidden(model, params, batch)
  _assert_equal(hidden, theirs.last_hidden_state, batch["mask"])
  logits = jax.vmap(model.apply, in_axes=(None, 0))(params, batch)
  head = jax.tree.map(np.asarray, params["head"]["intent"])
  np.testing.assert_allclose(
    logits.intent,
    theirs.pooler_output.numpy() @ head["kernel"] + head["bias"],
    atol=1e-4,
  )
  plain = {name: batch[name] for name in ("tokens", "mask")}
  theirs = _theirs(module, batch).last_hidden_state
  _assert_equal(_hidden(model, params, plain), theirs, batch["mask"])


@pytest.mark.parametrize(
  "kind",
  ["BertForMaskedLM", "BertForPreTraining", "BertForTokenClassification"],
)
def test_bert_under_a_task(tmp_path, kind):
  config = transformers.BertConfig(**_BERT)
  module = _randomised(getattr(transformers, kind)(config))
  module.save_pretrained(tmp_path)
  model, params = _load_encoder(tmp_path)
  assert ("pooler" in params) == (kind == "BertForPreTraining")
  batch = _batch()
  segments = torch.tensor(batch["token_types"], dtype=torch.long)
  theirs = _theirs(module.bert, batch, token_type_ids=segments)
  hidden = _hidden(model, params, batch)
  _assert_equal(hidden, theirs.last_hidden_state, batch["mask"])


@pytest.mark.parametrize("kind", ["DistilBertModel", "DistilBertForMaskedLM"])
def test_distilbert(tmp_path, kind):
  config = transformers.DistilBertConfig(**_DISTILBERT)
  module = _randomised(getattr(transformers, kind)(config))
  module.save_pretrained(tmp_path)
  model, params = _load_encoder(tmp_path)
  batch = _batch()
  del batch["token_types"]
  body = getattr(module, "distilbert", module)
  theirs = _theirs(body, batch).last_hidden_state
  _assert_equal(_hidden(model, params, batch), theirs, batch["mask"])


@pytest.mark.parametrize("inner", [None, 40])
@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_gpt2(tmp_path, tied, inner):
  config = transformers.GPT2Config(
    **_GPT2, n_inner=inner, tie_word_embeddings=tied
  )
  module = _randomised(transformers.GPT2LMHeadModel(config))
  module.save_pretrained(tmp_path)
  model, params = models.load_decoder(tmp_path)
  assert model.fields["tied"] == tied
  batch = _batch()
  theirs = _theirs(module, batch)
  logits = jax.vmap(model.apply, in_axes=(None, 0))(params, batch)
  _assert_equal(logits, theirs.logits, batch["mask"])
  body = _theirs(module.transformer, batch).last_hidden_state
  _assert_equal(_hidden(model, params, batch), body, batch["mask"])


def test_gpt2_without_its_head(tmp_path):
  config = transformers.GPT2Config(**_GPT2)
  module = _randomised(transformers.GPT2Model(config))
  module.save_pretrained(tmp_path)
  model, params = models.load_decoder(tmp_path)
  batch = _batch()
  theirs = _theirs(module, batch).last_hidden_state
  _assert_equal(_hidden(model, params, batch), theirs, batch["mask"])


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_transformers_reads_our_export(tmp_path, tied):
  model = models.transformer_decoder(
    vocab_size=_VOCAB,
    max_length=11,
    num_layers=3,
    dim=24,
    num_heads=4,
    ff_dim=40,
    tied=tied,
    norm_epsilon=1e-3,
  )
  keys = iter(jax.random.split(jax.random.key(0), 100))
  params = jax.tree.map(
    lambda leaf: 0.3 * jax.random.normal(next(keys), leaf.shape),
    jax.eval_shape(model.init, jax.random.key(0)),
  )
  models.save_decoder(tmp_path, model, params, end_of_text=0)
  module, info = transformers.GPT2LMHeadModel.from_pretrained(
    tmp_path, output_loading_info=True
  )
  assert not info["missing_keys"] and not info["unexpected_keys"]
  batch = _batch()
  logits = jax.vmap(model.apply, in_axes=(None, 0))(params, batch)
  _assert_equal(logits, _theirs(module.eval(), batch).logits, batch["mask"])


def test_the_loss_is_that_of_transformers(tmp_path):
  """Their loss is a mean over a batch, so records are compared one by one."""
  module = _randomised(
    transformers.GPT2LMHeadModel(transformers.GPT2Config(**_GPT2))
  )
  module.save_pretrained(tmp_path)
  model, params = models.load_decoder(tmp_path)
  loss_fn = jax.jit(models.losses.language_model_loss(model))
  batch = _batch()
  for i in (0, 1):
    record = {name: value[i] for name, value in batch.items()}
    labels = np.where(record["mask"], record["tokens"], -100)[None, :]
    one = {name: value[None] for name, value in record.items()}
    theirs = _theirs(module, one, labels=torch.tensor(labels).long()).loss
    np.testing.assert_allclose(
      loss_fn(params, record, None)[0], float(theirs), rtol=1e-5
    )
