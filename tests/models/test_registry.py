"""Models by name, and the messages for impossible ones."""

import jax
import pytest

from tests.models import examples
from trustjax import models


def test_names():
  expected = ("logistic", "mean_pool", "bilstm", "bigru", "transformer", "bert")
  assert models.model_names() == expected
  for name in models.model_names():
    assert models.make_model(name, **examples.SIZES).name.startswith(name)


def test_unknown_name_lists_the_names():
  with pytest.raises(ValueError, match=r"'gru'.*'mean_pool', 'bilstm'"):
    models.make_model("gru", **examples.SIZES)


def test_unknown_field_lists_the_fields():
  with pytest.raises(ValueError, match=r"\['depth'\].*'hidden_dim'"):
    models.make_model("bilstm", **examples.SIZES, depth=2)


@pytest.mark.parametrize(
  "name, field, value",
  [
    ("mean_pool", "dim", 0),
    ("mean_pool", "window", -1),
    ("mean_pool", "dropout", 1.0),
    ("mean_pool", "embedding_scale", 0.0),
    ("bilstm", "hidden_dim", 0),
    ("bigru", "hidden_dim", 0),
    ("bigru", "dropout", 1.0),
    ("bilstm", "num_layers", 0),
    ("bilstm", "num_chars", 0),
    ("bilstm", "char_dim", -3),
    ("bilstm", "char_out_dim", 0),
    ("bilstm", "dropout", -0.1),
    ("transformer", "size", "huge"),
    ("transformer", "num_heads", 3),
    ("transformer", "num_heads", 0),
    ("transformer", "num_layers", 0),
    ("transformer", "dropout", 2.0),
    ("bert", "size", "huge"),
    ("bert", "num_heads", 3),
    ("bert", "ff_dim", 0),
    ("bert", "num_token_types", -1),
    ("bert", "norm_epsilon", 0.0),
    ("bert", "dropout", 1.0),
  ],
)
def test_impossible_fields_are_named(name, field, value):
  with pytest.raises(ValueError, match=f"{field}: got {value!r}"):
    models.make_model(name, **examples.SIZES, **{field: value})


@pytest.mark.parametrize("name", models.model_names())
@pytest.mark.parametrize("field", ["vocab_size", "num_intents", "num_slots"])
def test_impossible_sizes_are_named(name, field):
  with pytest.raises(ValueError, match=f"{field}: got 0"):
    models.make_model(name, **(examples.SIZES | {field: 0}))


def test_language_models_by_name():
  assert models.language_model_names() == ("decoder", "char_lstm")
  model = models.make_language_model(
    "decoder", vocab_size=9, max_length=5, size="mini", num_layers=3
  )
  assert model.name == "decoder"
  assert model.fields["num_layers"] == 3 and model.fields["dim"] == 256
  with pytest.raises(ValueError, match=r"'gru'; allowed are \['decoder', "):
    models.make_language_model("gru", vocab_size=9, max_length=5)
  with pytest.raises(ValueError, match=r"\['depth'\].*'num_layers'"):
    models.make_language_model("decoder", vocab_size=9, max_length=5, depth=2)


@pytest.mark.parametrize(
  "field, value",
  [
    ("vocab_size", 0),
    ("max_length", 0),
    ("size", "huge"),
    ("num_heads", 3),
    ("num_layers", 0),
    ("dropout", 1.0),
    ("norm_epsilon", float("inf")),
  ],
)
def test_impossible_fields_of_the_decoder_are_named(field, value):
  sizes = {"vocab_size": 9, "max_length": 5}
  with pytest.raises(ValueError, match=f"{field}: got {value!r}"):
    models.make_language_model("decoder", **(sizes | {field: value}))


def test_who_reads_characters():
  readers = [n for n in models.model_names() if models.reads_characters(n)]
  assert readers == ["bilstm", "bigru"]
  with pytest.raises(ValueError, match=r"model.name: got 'gru'; allowed are"):
    models.reads_characters("gru")


@pytest.mark.parametrize("name", ["bilstm", "bigru"])
def test_characters_are_needed_where_they_are_read(name):
  model = models.make_model(name, **examples.SIZES, num_chars=11)
  assert model.name == f"{name}_char"
  params = jax.eval_shape(model.init, jax.random.key(0))
  record = examples.example()
  del record["chars"]
  with pytest.raises(ValueError, match="chars"):
    jax.eval_shape(model.apply, params, record)


@pytest.mark.parametrize("name", ["transformer", "bert"])
def test_too_many_positions_for_the_encoder(name):
  model = models.make_model(
    name, **(examples.SIZES | {"max_length": 5}), dim=4, ff_dim=4
  )
  params = jax.eval_shape(model.init, jax.random.key(0))
  with pytest.raises(ValueError, match=r"got 7 positions; the model has 5"):
    jax.eval_shape(model.apply, params, examples.example())


@pytest.mark.parametrize(
  "size, count",
  [
    ("tiny", 2 * (12 * 128**2 + 13 * 128)),
    ("mini", 4 * (12 * 256**2 + 13 * 256)),
    ("base", 12 * (12 * 768**2 + 13 * 768)),
  ],
)
def test_encoder_sizes(size, count):
  """Matrices 12 d^2 and vectors 13 d a layer, for ff = 4 d."""
  model = models.make_model("transformer", **examples.SIZES, size=size)
  shapes = jax.eval_shape(model.init, jax.random.key(0))
  layers = {n: v for n, v in shapes.items() if n.startswith("layer_")}
  assert models.num_params(layers) == count
