"""The benchmark of sampling and of a distillation step."""

import pytest

from configs.benchmark_distillation import default, gpt2_vocabulary
from experiments import benchmark_distillation
from trustjax import reporting


def _tiny():
  config = default.get_config()
  config.update(
    {
      "rounds": 2,
      "sampling": {
        "vocab_size": 30,
        "num_layers": 1,
        "dim": 8,
        "num_heads": 1,
        "max_new_tokens": 3,
        "num_texts": 6,
        "chunk_size": 4,
        "raced_texts": 4,
        "peer": "",
      },
      "step": {
        "vocab_size": 30,
        "length": 4,
        "batch_size": 3,
        "teacher_layers": 1,
        "dim": 8,
        "num_heads": 1,
      },
    }
  )
  return config


@pytest.mark.slow
def test_the_record(tmp_path):
  benchmark_distillation.run(_tiny(), tmp_path)
  results = reporting.read_results(tmp_path)
  for name in ("whole", "teacher_passes", "student_step"):
    assert results[f"step/{name}_seconds"] > 0
  assert results["step/time_over_parts"] > 0
  assert results["sampling/all_texts_seconds"] > 0
  assert results["sampling/time_over_peer"] is None
  assert "left out" in results["sampling/time_over_peer_reason"]
  assert "step/time_over_parts" in (tmp_path / "table.md").read_text()


@pytest.mark.parametrize(
  ("field", "value", "message"),
  [
    ("parts", ("training",), "config.parts: got"),
    ("rounds", 1, "config.rounds: got 1"),
  ],
)
def test_bad_configs(field, value, message, tmp_path):
  config = _tiny()
  config[field] = value
  with pytest.raises(ValueError, match=message):
    benchmark_distillation.run(config, tmp_path)


def test_an_unknown_peer(tmp_path):
  config = gpt2_vocabulary.get_config()
  config.sampling.peer = "other"
  with pytest.raises(ValueError, match="config.sampling.peer: got 'other'"):
    benchmark_distillation.run(config, tmp_path)
