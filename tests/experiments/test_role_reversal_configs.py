"""What the role-reversal binary refuses, and how soon."""

import pathlib
import subprocess
import sys
import types

import pytest

from experiments import role_reversal_distillation
from experiments._role_reversal import _corpus, _training
from tests.experiments.tiny_role_reversal import tiny_config
from trustjax import training

_ROOT = pathlib.Path(__file__).parents[2]
# In place of the package that reads and writes texts: none is touched.
_READS_NO_TEXT = types.SimpleNamespace()


@pytest.fixture(scope="module")
def tiny_corpus():
  """The texts of the tiny study."""
  return _corpus.make_corpus(tiny_config())


@pytest.fixture(scope="module")
def first_teacher(tiny_corpus):
  """The tiny study's teacher before any training."""
  return _training._first_teacher(tiny_config(), tiny_corpus)


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
