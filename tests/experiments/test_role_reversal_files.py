"""The role-reversal binary on text files, tokenizers and teachers on disk."""

import json

import jax
import numpy as np
import pytest

from experiments import role_reversal_distillation
from experiments._role_reversal import _corpus, _training
from tests.experiments.tiny_role_reversal import tiny_config
from tests.models import reference_transformers
from trustjax import data, models, reporting


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """A book and some stories."""
  folder = tmp_path_factory.mktemp("files")
  text = "\n\n".join(
    f"The {job} said that {who} lost {whose} book in the garden number {i}."
    for i in range(30)
    for job, who, whose in (("nurse", "she", "her"), ("guard", "he", "his"))
  )
  (folder / "book.txt").write_text(text)
  stories = text.replace("\n\n", "\n<|endoftext|>\n").replace("book", "hat")
  (folder / "stories.txt").write_text(stories)
  return folder


def _files_config(folder, **changes):
  config = tiny_config(**changes)
  config.corpus.name = "files"
  config.corpus.files = tuple(
    str(folder / name) for name in ("book.txt", "stories.txt")
  )
  return config


@pytest.fixture(scope="module")
def files_corpus(folder):
  """With a tokenizer that is trained on the files."""
  return _corpus.make_corpus(_files_config(folder))


class TestFiles:
  """A corpus of files, a tokenizer and a pretrained teacher from folders."""

  def test_corpus(self, files_corpus):
    corpus = files_corpus
    assert corpus.swap_counts["texts"] == 114
    assert corpus.swap_counts["swapped_texts"] == 114
    assert corpus.tokenizer.decode(corpus.held_out).count("garden") == 6
    first = corpus.pairs[0]
    assert corpus.tokenizer.decode(first.tokens_cf).startswith("The nurse said")
    assert " he lost his book" in corpus.tokenizer.decode(first.tokens_cf)

  def test_pretrained_teacher(self, folder, files_corpus, tmp_path):
    pytest.importorskip("safetensors")
    config = _files_config(folder)
    tokenizer = files_corpus.tokenizer
    teacher = models.transformer_decoder(
      vocab_size=len(tokenizer), max_length=40, num_layers=2, dim=8, num_heads=2
    )
    params = jax.jit(teacher.init)(jax.random.key(0))
    models.save_decoder(tmp_path, teacher, params)
    config.teacher.pretrained_dir = str(tmp_path)
    with pytest.raises(ValueError, match="a pretrained teacher needs the"):
      _corpus.make_corpus(config)
    study = _training.make_study(config, files_corpus, tmp_path)
    np.testing.assert_array_equal(
      study.teacher_params["words"]["embedding"], params["words"]["embedding"]
    )
    assert study.students[False][0].fields["num_layers"] == 1
    assert study.students[True][0].fields["num_layers"] == 2
    config.length = 41
    with pytest.raises(ValueError, match="length: got 41; the pretrained"):
      _training.make_study(config, files_corpus, tmp_path)

  def test_a_tokenizer_of_another_model(self, folder, files_corpus, tmp_path):
    pytest.importorskip("safetensors")
    config = _files_config(folder)
    other = models.transformer_decoder(
      vocab_size=50, max_length=24, num_layers=1, dim=4, num_heads=1
    )
    shapes = jax.eval_shape(other.init, jax.random.key(0))
    params = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
    models.save_decoder(tmp_path, other, params)
    config.teacher.pretrained_dir = str(tmp_path)
    with pytest.raises(ValueError, match="knows 50. Use the tokenizer"):
      _training.make_study(config, files_corpus, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("tokenizer", ["trained", "gpt2"])
def test_a_pretrained_gpt2_goes_through_the_binary(
  tokenizer, folder, files_corpus, request, tmp_path
):
  """Random weights in the published layout, with either tokenizer."""
  numpy_files = pytest.importorskip("safetensors.numpy")
  if tokenizer == "gpt2":
    source = request.getfixturevalue("data_dir") / "tokenizers" / "gpt2"
  else:
    files_corpus.tokenizer.save(tmp_path / "tokenizer")
    source = tmp_path / "tokenizer"
  size = len(data.load_byte_pair(source))
  published = tmp_path / "published"
  published.mkdir()
  shape = {"vocab_size": size, "max_length": 64, "num_layers": 2, "dim": 8}
  numpy_files.save_file(
    reference_transformers.random_gpt2(**shape, ff_dim=32),
    published / "model.safetensors",
  )
  (published / "config.json").write_text(
    json.dumps(
      {
        "model_type": "gpt2",
        "vocab_size": size,
        "n_positions": 64,
        "n_layer": 2,
        "n_embd": 8,
        "n_head": 2,
        "activation_function": "gelu_new",
        "layer_norm_epsilon": 1e-5,
      }
    )
  )
  config = _files_config(folder, arms=("D0", "D8", "F0", "F8"))
  config.teacher.pretrained_dir = str(published)
  config.tokenizer.folder = str(source)
  config.swap.policy = "word_level"
  config.claims.arm = "F8"
  config.evaluation.carry_over = True
  role_reversal_distillation.run(config, tmp_path / "study")
  results = reporting.read_results(tmp_path / "study")
  # Random weights know nothing: a perplexity near the number of tokens.
  assert results["teacher/perplexity"] > size / 20
  for arm in config.arms:
    assert np.isfinite(results[f"{arm}/perplexity"])
    assert np.isfinite(results[f"{arm}/ceat"])
    assert results[f"{arm}/changed_positions"] > 0
  assert results["claim/utility"] in ("HOLDS", "FAILS", "UNDECIDED")
  # A pretrained teacher is not trained.
  assert not (tmp_path / "study" / "teacher" / "checkpoints").exists()
  assert "## nurse" in (tmp_path / "study" / "samples" / "F8.txt").read_text()
