"""Private fine-tuning of a pretrained encoder through the main binary."""

import json
import shutil

import jax
import numpy as np
import pytest

from configs.private_training import finetune_bert
from experiments import private_training
from tests.experiments import binaries
from tests.models import reference_transformers as reference
from trustjax import reporting

SIZES = dict(vocab_size=200, max_length=16, num_layers=2, dim=12, ff_dim=20)
BERT = {
  "model_type": "bert",
  "vocab_size": 200,
  "max_position_embeddings": 16,
  "num_hidden_layers": 2,
  "hidden_size": 12,
  "num_attention_heads": 3,
  "intermediate_size": 20,
  "type_vocab_size": 2,
  "layer_norm_eps": 1e-12,
  "hidden_act": "gelu",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """A random BERT in the layout of published ones, with its vocabulary."""
  safetensors = pytest.importorskip("safetensors.numpy")
  path = tmp_path_factory.mktemp("bert")
  (path / "config.json").write_text(json.dumps(BERT))
  safetensors.save_file(
    reference.random_bert(**SIZES), path / "model.safetensors"
  )
  words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
  letters = [chr(c) for c in range(ord("a"), ord("z") + 1)]
  words += letters + [f"##{letter}" for letter in letters]
  (path / "vocab.txt").write_text("\n".join(words) + "\n")
  return path


@pytest.fixture(scope="module", autouse=True)
def shared_corpus():
  """Cuts the corpus into pieces once for each vocabulary file."""
  with pytest.MonkeyPatch.context() as patch:
    prepare = binaries.once(
      private_training.data.prepare,
      lambda corpus, **fields: repr([corpus.name, sorted(fields.items())]),
    )
    patch.setattr(private_training.data, "prepare", prepare)
    yield


def small_config(folder, **changes):
  config = finetune_bert.get_config()
  config.data.update(
    {
      "name": "synthetic",
      "vocabulary_file": str(folder / "vocab.txt"),
      "max_length": 16,
    }
  )
  config.model.pretrained_dir = str(folder)
  config.trainable = "layer_1/|head"
  config.non_private.update({"batch_size": 8, "num_steps": 2})
  config.private.update({"expected_batch_size": 8, "num_steps": 2})
  config.delta, config.evaluate_every = 1e-4, 0
  config.target_epsilons = (1.0,)  # Much noise is quick to account for.
  for name, value in changes.items():
    config[name] = value
  return config


def test_only_the_chosen_layers_are_trained(folder):
  task = private_training.make_task(small_config(folder))
  trained = task.initial(jax.random.key(0))
  paths = {
    jax.tree_util.keystr(path, simple=True, separator="/").split("/")[0]
    for path, _ in jax.tree_util.tree_leaves_with_path(trained)
  }
  assert paths == {"layer_1", "head"}
  # The body is the file's whatever the seed; the head is the seed's.
  other = task.initial(jax.random.key(1))
  jax.tree.map(
    np.testing.assert_array_equal, trained["layer_1"], other["layer_1"]
  )
  assert np.any(
    trained["head"]["intent"]["kernel"] != other["head"]["intent"]["kernel"]
  )


def test_the_study_runs_and_resumes(folder, tmp_path):
  config = small_config(folder)
  private_training.run(config, tmp_path / "out")
  results = reporting.read_results(tmp_path / "out" / "results.json")
  assert 0.9 < results["dp_sgd/epsilon"] <= 1.0
  for arm in ("non_private", "dp_sgd"):
    assert 0 <= results[f"{arm}/intent_accuracy"] <= 1
  private_training.run(config, tmp_path / "out")


@pytest.mark.parametrize(
  ("change", "message"),
  [
    (("trainable", "adapter"), "trainable: 'adapter' matches none of"),
    (("model.name", "bilstm"), "model.name: got 'bilstm' with model.pretr"),
    (("model.num_layers", 3), r"model: got \['num_layers'\] with"),
  ],
)
def test_bad_fields(folder, change, message):
  config = small_config(folder)
  field, value = change
  node = config.model if field.startswith("model.") else config
  node[field.removeprefix("model.")] = value
  with pytest.raises(ValueError, match=message):
    private_training.make_task(config)


def test_a_vocabulary_of_another_model(folder, tmp_path):
  folder = shutil.copytree(folder, tmp_path / "other")
  path = folder / "vocab.txt"
  more = "\n".join(f"word{i}" for i in range(200))
  path.write_text(path.read_text() + more + "\n")
  with pytest.raises(ValueError, match="data.vocabulary_file: got 257 entries"):
    private_training.make_task(small_config(folder))
