"""The role-reversal binary: its record, its resume, and how it refuses."""

import json
import pathlib
import subprocess
import sys
import types

import jax
import numpy as np
import pytest

from configs.role_reversal_distillation import all_arms, default
from experiments import role_reversal_distillation
from experiments._role_reversal import (
  _checks,
  _corpus,
  _evaluation,
  _resampling,
  _training,
)
from tests.models import reference_transformers
from trustjax import data, distillation, models, reporting, training

_ROOT = pathlib.Path(__file__).parents[2]
_ARMS = ("D0", "D3", "D11")
# In place of the package that reads and writes texts: none is touched.
_READS_NO_TEXT = types.SimpleNamespace()


def tiny_config(**changes):
  """A few steps of a tiny teacher on a few sentences."""
  config = default.get_config()
  config.update(
    {
      "arms": _ARMS,
      "num_seeds": 1,
      "num_steps": 3,
      "batch_size": 4,
      "length": 24,
      "corpus": {"size": 120, "held_out_size": 30},
      "tokenizer": {"vocab_size": 700},
      "teacher": {"dim": 8, "num_layers": 1, "num_steps": 3, "batch_size": 4},
      "evaluation": {
        "prompts_per_group": 1,
        "num_samples": 2,
        "max_new_tokens": 4,
        "resamples": 100,
        "chunk_size": 48,
        "carry_over": False,
      },
      "claims": {"arm": "D3"},
      "log_every": 1,
    }
  )
  config.teacher.optimizer.warmup_steps = 1
  config.optimizer.warmup_steps = 1
  config.update(changes)
  return config


@pytest.fixture(scope="module")
def tiny_corpus():
  """The texts of the tiny study."""
  return _corpus.make_corpus(tiny_config())


@pytest.fixture(scope="module")
def first_teacher(tiny_corpus):
  """The tiny study's teacher before any training."""
  return _training._first_teacher(tiny_config(), tiny_corpus)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
  """A tiny study, run once: its folder and its record."""
  folder = tmp_path_factory.mktemp("study")
  role_reversal_distillation.run(tiny_config(), folder)
  return folder, reporting.read_results(folder)


def test_the_record_has_the_promised_keys(finished):
  _, results = finished
  for arm in ("teacher", *_ARMS):
    for name in ("perplexity", "gender_ratio_mean", "gender_ratio_min"):
      key = f"{arm}/{name}"
      assert results[f"{key}_low"] <= results[key] <= results[f"{key}_high"]
    assert 0 < results[f"{arm}/noise_floor_mean"] <= 1
  assert results.claims() == [
    "disparity",
    "utility",
    "carry_over",
    "carry_over_embedding",
    "carry_over_contexts",
  ]
  assert results["claim/carry_over"] == "UNDECIDED"
  assert "is off" in results["claim/carry_over/estimate_reason"]
  assert results["swapped_texts"] < results["texts"] == 120


def test_the_control_is_the_baseline(finished):
  """With x_cf := x the arm has the baseline's students, step for step."""
  folder, results = finished
  losses = [
    reporting.read_metrics(
      folder / "arms" / arm / "seed_0" / "metrics.jsonl"
    ).series("train/loss")[1]
    for arm in ("D0", "D11")
  ]
  np.testing.assert_allclose(losses[1], losses[0], rtol=1e-5)
  np.testing.assert_allclose(
    results["D11/perplexity"], results["D0/perplexity"], rtol=1e-4
  )
  assert results["D11/changed_positions"] == 0 < results["D3/changed_positions"]


def test_the_control_has_the_baselines_rows_with_longer_partners():
  """Partners of other lengths cut the pairs where texts alone are not cut."""
  config = tiny_config(length=6, swap={"policy": "word_level"})
  text = distillation.CounterfactualText(
    units=(((1,), (1,)), ((2,), (3, 4, 5)), ((6,), (6,)))
  )
  study = types.SimpleNamespace(
    config=config,
    corpus=types.SimpleNamespace(
      pairs=[text] * 4, tokenizer=types.SimpleNamespace(end_of_text=9)
    ),
  )
  baseline, control = (
    _training.make_rows(study, distillation.role_reversal_arm(name), 0)
    for name in ("D0", "D11")
  )
  for name in ("tokens", "mask"):
    np.testing.assert_array_equal(control[name], baseline[name])
    np.testing.assert_array_equal(control[f"{name}_cf"], baseline[name])
  np.testing.assert_array_equal(control["valid"], baseline["mask"])
  aligned = np.take_along_axis(control["tokens"], control["idx"], axis=1)
  np.testing.assert_array_equal(
    aligned[control["mask"]], control["tokens"][control["mask"]]
  )
  assert distillation.alignment_shares(control) == {"valid": 1.0, "changed": 0}


def test_numbers_without_a_value_are_left_out(monkeypatch):
  """As after Ctrl-C in an evaluation: its arm has no step to time."""
  monkeypatch.setattr(
    models,
    "perplexity",
    lambda *_, **__: types.SimpleNamespace(nll=np.ones(2), counts=np.ones(2)),
  )
  monkeypatch.setattr(_evaluation, "_continue", lambda *_: [["left", "ran"]])
  corpus = types.SimpleNamespace(
    held_out=[],
    vectors=None,
    prompts=types.SimpleNamespace(texts=("the nurse ",)),
  )
  found = _evaluation.evaluate(
    tiny_config(),
    corpus,
    None,
    None,
    seed=0,
    extra={"seconds_per_step": float("nan"), "num_sequences": 3.0},
  )
  assert np.isfinite([*found.numbers.values()]).all()
  assert set(found.numbers) == {"distinct_1", "mean_words", "num_sequences"}


def test_files_are_written(finished):
  folder, results = finished
  table = (folder / "table.md").read_text()
  assert "balanced mean" in table and "paired across arms" in table
  for arm in ("teacher", *_ARMS):
    assert arm in table
    samples = (folder / "samples" / f"{arm}.txt").read_text()
    assert "## nurse" in samples and "the nurse said that |" in samples
  figure = folder / "figures" / "balance_and_utility.png"
  assert figure.read_bytes().startswith(b"\x89PNG")
  config = json.loads((folder / "config.json").read_text())
  assert config["arms"] == list(_ARMS)
  assert len(results.protocol_hash) == 64


def test_a_finished_study_is_read_not_run(finished, monkeypatch, capsys):
  folder, results = finished

  train = training.train

  def only_the_teacher(*args, **kwargs):
    assert args[4].title == "teacher", "an arm was trained again"
    return train(*args, **kwargs)

  def evaluated_again(*_, **__):
    raise AssertionError("the teacher or an arm was evaluated again")

  monkeypatch.setattr(training, "train", only_the_teacher)
  monkeypatch.setattr(_evaluation, "evaluate", evaluated_again)
  role_reversal_distillation.run(tiny_config(), folder)
  again = reporting.read_results(folder)
  for arm in _ARMS:
    key = f"{arm}/perplexity"
    assert again[key] == results[key]
  assert "claim disparity" in capsys.readouterr().out


def test_another_config_is_refused(finished):
  folder, _ = finished
  with pytest.raises(ValueError, match="num_steps was 3, is 4"):
    role_reversal_distillation.run(tiny_config(num_steps=4), folder)


def test_claims_rest_on_paired_resamples():
  """Two arms with the same items differ by nothing, with no width."""
  config = tiny_config(num_seeds=2)
  drawn = _resampling.draw_seeds(config)
  rng = np.random.default_rng(0)
  resampled = _resampling.Resampled(
    estimates=np.array([1.0, 2.0]), replicates=rng.normal(1.4, 0.1, (2, 100))
  )
  estimate, replicates = resampled.over_seeds(drawn)
  assert estimate == 1.5 and replicates.shape == (100,)
  np.testing.assert_allclose(replicates.mean(), estimate)
  measured = _resampling.interval(estimate, replicates, 2)
  assert measured.low < 1.5 < measured.high
  again = resampled.over_seeds(drawn)[1]
  np.testing.assert_array_equal(again, replicates)


def test_every_arm_has_a_config():
  config = all_arms.get_config()
  _checks.check(config)
  assert config.arms == tuple(f"{kind}{i}" for kind in "DF" for i in range(12))


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


@pytest.mark.slow
def test_fine_tuning_arms_and_every_check(tmp_path):
  """The student is the whole teacher; P0 has none, F11 is F0."""
  config = tiny_config(arms=("F0", "F1", "F5", "F11", "P0"), num_seeds=1)
  config.claims.arm = "F5"
  config.evaluation.carry_over = True
  biographies = [
    {
      "hard_text": f"{who} wrote {i} .",
      "profession": i % 2,
      "gender": i % 3 % 2,
    }
    for i in range(40)
    for who in ("she", "he")
  ]
  (tmp_path / "bios.jsonl").write_text("\n".join(map(json.dumps, biographies)))
  config.evaluation.bios.path = str(tmp_path / "bios.jsonl")
  vectors = {"she": [1.0, 0.0], "he": [-1.0, 0.0], "nurse": [1.0, 1.0]}
  (tmp_path / "vectors.json").write_text(json.dumps(vectors))
  config.evaluation.vectors.file = str(tmp_path / "vectors.json")
  role_reversal_distillation.run(config, tmp_path / "study")
  results = reporting.read_results(tmp_path / "study")
  for arm in ("teacher", *config.arms):
    assert results[f"{arm}/perplexity"] > 1
    assert results[f"{arm}/probe_gap"] > 0
    for name in ("seat", "ceat", "bios_gap", "gender_ratio_mean_by_vectors"):
      assert np.isfinite(results[f"{arm}/{name}"])
    for name in ("probe_accuracy", "bios_accuracy"):
      assert 0 < results[f"{arm}/{name}"] <= 1
  assert results.claims()[2:] == [
    "carry_over",
    "carry_over_embedding",
    "carry_over_contexts",
    "carry_over_biographies",
  ]
  for claim in results.claims():
    assert results[f"claim/{claim}"] in ("HOLDS", "FAILS", "UNDECIDED")
  assert results["F5/num_sequences"] > results["F0/num_sequences"]
  table = (tmp_path / "study" / "table.md").read_text()
  for column in ("CEAT d", "biographies TPR gap", "Gender-Max"):
    assert column in table
  # Taught by the frozen original, which says the same of both texts.
  metrics = {
    arm: reporting.read_metrics(
      tmp_path / "study" / "arms" / arm / "seed_0" / "metrics.jsonl"
    )
    for arm in ("F0", "F11", "P0")
  }
  losses = {arm: m.series("train/loss")[1] for arm, m in metrics.items()}
  np.testing.assert_allclose(losses["F11"], losses["F0"], rtol=1e-5)
  assert abs(losses["P0"][-1] - losses["F0"][-1]) > 1e-3


class TestBadConfigs:
  @pytest.mark.parametrize(
    ("changes", "message"),
    [
      ({"arms": ()}, "config.arms: got none"),
      ({"arms": ("D0", "D12")}, "config.arms: got 'D12'; allowed are"),
      ({"arms": ("D0", "D0")}, "config.arms: got .*; one occurs twice"),
      ({"claims": {"arm": "E1"}}, "config.claims.arm: got 'E1'"),
      ({"claims": {"perplexity_cost": -1.0}}, "claims.perplexity_cost: got -1"),
      ({"num_seeds": 0}, "config.num_seeds: got 0"),
      ({"log_every": 0}, "config.log_every: got 0"),
      ({"evaluation": {"resamples": 5}}, "evaluation.resamples: got 5"),
      ({"swap": {"policy": "all"}}, "config.swap.policy: got 'all'"),
      ({"swap": {"ambiguity": "x"}}, "config.swap.ambiguity: got 'x'"),
      ({"evaluation": {"stride": 24}}, "evaluation.stride: got 24"),
      ({"evaluation": {"num_samples": 0}}, "evaluation.num_samples: got 0"),
      ({"evaluation": {"zero_policy": "one"}}, "zero_policy: got 'one'"),
      ({"evaluation": {"chunk_size": 0}}, "evaluation.chunk_size: got 0"),
      (
        {"evaluation": {"sampling": {"top_p": 1.5}}},
        "config.evaluation.sampling.top_p: got 1.5",
      ),
      ({"loss": {"domain": "odds"}}, "config.loss.domain: got 'odds'"),
      ({"optimizer": {"name": "x"}}, "config.optimizer.name: got 'x'"),
      (
        {"teacher": {"optimizer": {"warmup_steps": 9}}},
        "config.teacher.optimizer.warmup_steps: got 9",
      ),
      ({"corpus": {"name": "web"}}, "corpus.name: got 'web'"),
      ({"corpus": {"name": "files"}}, "corpus.files: got none"),
    ],
  )
  def test_are_refused_at_once(self, changes, message, tmp_path, monkeypatch):
    monkeypatch.setattr(_corpus, "data", _READS_NO_TEXT)
    with pytest.raises(ValueError, match=message):
      role_reversal_distillation.run(tiny_config(**changes), tmp_path)

  @pytest.mark.parametrize(
    ("changes", "message"),
    [
      ({"loss": {"temperature": 0.0}}, "config.loss.temperature: got 0.0"),
      ({"loss": {"alpha_lm": -1.0}}, "config.loss.alpha_lm: got -1.0"),
      ({"student": {"layers": (7,)}}, r"config.student.layers: got \[7\]"),
      ({"student": {"dropout": 1.0}}, "config.student.dropout: got 1.0"),
      ({"teacher": {"num_heads": 3}}, "config.teacher.num_heads: got 3"),
      ({"teacher": {"batch_size": 9_999}}, "config.teacher.batch_size: got"),
      ({"batch_size": 9_999}, "config.batch_size: got 9999; the corpus has"),
      ({"evaluation": {"max_new_tokens": 24}}, "max_new_tokens: got 24"),
      ({"evaluation": {"max_length": 3}}, "evaluation.max_length: got 3"),
    ],
  )
  def test_are_refused_before_any_training(
    self, changes, message, tiny_corpus, first_teacher, tmp_path, monkeypatch
  ):
    """These depend on the corpus or on the teacher's shape."""
    monkeypatch.setattr(training, "train", None)
    monkeypatch.setattr(_corpus, "make_corpus", lambda _: tiny_corpus)
    if "num_heads" not in changes.get("teacher", {}):
      monkeypatch.setattr(_training, "_first_teacher", lambda *_: first_teacher)
    with pytest.raises(ValueError, match=message):
      role_reversal_distillation.run(tiny_config(**changes), tmp_path)

  @pytest.mark.slow
  def test_a_mistake_ends_in_one_line(self, tmp_path):
    done = subprocess.run(
      [
        *(sys.executable, "-m", "experiments.role_reversal_distillation"),
        *("--config.arms=('D0','D99')", f"--workdir={tmp_path}"),
      ],
      cwd=_ROOT,
      capture_output=True,
      text=True,
      check=False,
    )
    assert done.returncode == 1
    assert len(done.stderr.strip().splitlines()) == 1
    assert "got 'D99'" in done.stderr
