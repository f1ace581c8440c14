"""Gender-Max of texts from a file of word vectors."""

import json

import numpy as np
import pytest

from experiments._fairness import _word_vectors
from trustjax import fairness

# she - he lies along the first axis.
_VECTORS = {
  "she": [1.0, 1.0, 0.0],
  "he": [-1.0, 1.0, 0.0],
  "sister": [3.0, 0.0, 4.0],
  "brother": [1.0, 0.0, 0.0],
  "nurse": [4.0, 3.0, 0.0],
  "the": [0.1, 1.0, 0.0],
  "nothing": [0.0, 0.0, 0.0],
}
_TEXTS = ("The nurse left.", "He met the nurse.", "His sister left.", "", "the")


def _json(folder, vectors=None):
  path = folder / "vectors.json"
  path.write_text(json.dumps(_VECTORS if vectors is None else vectors))
  return path


def test_projections_are_cosines(tmp_path):
  found = _word_vectors.read_word_vectors(_json(tmp_path), hard_debias=False)
  expected = {"she": 0.5**0.5, "he": -(0.5**0.5), "sister": 0.6, "nurse": 0.8}
  for word, value in expected.items():
    np.testing.assert_allclose(found.projection[word], value, rtol=1e-5)
  assert "nothing" not in found.projection


def test_debiased_pairs_lie_around_their_midpoint(tmp_path):
  """A pair that leans to one side as a whole is told apart all the same."""
  found = _word_vectors.read_word_vectors(_json(tmp_path)).projection
  # (0.6 - 1) / 2: "sister" is less female here than "brother".
  for word, value in (("sister", -0.2), ("brother", 0.2), ("she", 0.5**0.5)):
    np.testing.assert_allclose(found[word], value, rtol=1e-5)
  assert found["he"] == -found["she"] and found["nurse"] == found["the"] == 0


def test_an_occupation_labels_a_text_only_by_raw_vectors(tmp_path):
  raw, debiased = (
    _word_vectors.read_word_vectors(_json(tmp_path), hard_debias=flag)
    for flag in (False, True)
  )
  texts = [text.replace("sister", "own") for text in _TEXTS]
  female, male, neutral = fairness.FEMALE, fairness.MALE, fairness.NEUTRAL
  # .8 of "nurse" is more than .71 of "he".
  assert raw.gender_max(texts).tolist() == [
    *(female, female, neutral, neutral, neutral)
  ]
  assert debiased.gender_max(texts).tolist() == [
    *(neutral, male, neutral, neutral, neutral)
  ]
  assert raw.digest != debiased.digest


@pytest.mark.parametrize("header", ["", "6 3\n"])
def test_text_layouts(tmp_path, header):
  """GloVe's, and word2vec's with its line of counts."""
  path = tmp_path / "vectors.txt"
  path.write_text(
    header
    + "".join(f"{w} {' '.join(map(str, v))}\n" for w, v in _VECTORS.items())
  )
  found = _word_vectors.read_word_vectors(path)
  again = _word_vectors.read_word_vectors(_json(tmp_path))
  assert found.projection == again.projection and len(found.projection) > 4


def test_refusals(tmp_path):
  with pytest.raises(FileNotFoundError, match="vectors.file: there is no"):
    _word_vectors.read_word_vectors(tmp_path / "none.json")
  with pytest.raises(ValueError, match=r"no vector of \['he'\]"):
    _word_vectors.read_word_vectors(
      _json(tmp_path, {"she": [1.0, 0.0], "x": [0.0, 1.0]})
    )
  with pytest.raises(ValueError, match="gives 'he' a vector of shape"):
    _word_vectors.read_word_vectors(
      _json(tmp_path, {"she": [1.0, 0.0], "he": [1.0]})
    )

  with pytest.raises(ValueError, match="vectors.threshold: got 1.0"):
    _word_vectors.read_word_vectors(_json(tmp_path), threshold=1.0)


def test_public_vectors(data_dir):
  """Of 50 dimensions: "she" and "he" do not reach BOLD's threshold."""
  path = data_dir / "glove_50d_5k" / "glove-50d-5k.json"
  texts = ["she left", "he left", "her book", "my father", "the captain left"]
  female, male, neutral = fairness.FEMALE, fairness.MALE, fairness.NEUTRAL
  for threshold, expected in (
    (0.1, [female, male, female, male, neutral]),
    (0.25, [neutral] * 5),
  ):
    found = _word_vectors.read_word_vectors(path, threshold=threshold)
    assert found.gender_max(texts).tolist() == expected
  raw = _word_vectors.read_word_vectors(path, hard_debias=False)
  assert raw.gender_max(["the captain left"]).tolist() == [male]
