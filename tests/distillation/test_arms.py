"""Arms, students made of their teacher, and what a text may lose."""

import dataclasses

import jax
import numpy as np
import pytest

from tests.distillation import tiny_pair as tiny
from trustjax import distillation, models


class TestArms:
  def test_the_table(self):
    assert list(distillation.ARMS) == [
      *(f"{letter}{i}" for letter in "DF" for i in range(12)),
      *("P0", "P5", "P10"),
    ]
    for name, teacher, texts in (
      ("D0", "original", "original"),
      ("D3", "expMean", "original"),
      ("D5", "original", "augmented"),
      ("D8", "expMean", "augmented"),
      ("D10", "original", "coin_flip"),
      ("F0", "original", "original"),
      ("F4", "swap", "original"),
      ("F5", "original", "augmented"),
      ("F6", "max", "augmented"),
      ("F10", "original", "coin_flip"),
      ("P0", "none", "original"),
      ("P5", "none", "augmented"),
    ):
      arm = distillation.role_reversal_arm(name)
      assert (arm.teacher, arm.texts) == (teacher, texts)
      assert not arm.control
      assert arm.fine_tunes == (name[0] in "FP")
    assert distillation.ARMS["D11"].control and distillation.ARMS["F11"].control

  def test_an_arm_differs_from_its_baseline_in_what_it_tests_alone(self):
    """Only 6 to 9, which are named for it, change texts and teacher."""
    for name, arm in distillation.ARMS.items():
      baseline = distillation.ARMS[arm.baseline]
      assert arm.fine_tunes == baseline.fine_tunes
      # Distilled or not is the same on both sides.
      taught = [a.teacher != distillation.NO_TEACHER for a in (arm, baseline)]
      assert taught[0] == taught[1], name
      changes = [
        arm.teacher != baseline.teacher and not arm.control,
        arm.texts != baseline.texts,
      ]
      number = int(name[1:])
      expected = 0 if number in (0, 11) else 2 if 6 <= number <= 9 else 1
      assert sum(changes) == expected, name

  def test_an_unknown_arm(self):
    with pytest.raises(ValueError, match="arms: got 'D12'; allowed are"):
      distillation.role_reversal_arm("D12")

  def _texts(self, name, seed=0):
    arm = distillation.role_reversal_arm(name)
    texts = tiny.texts(60)
    return texts, distillation.texts_of_arm(arm, texts, seed=seed)

  def test_the_corpus_is_kept_as_it_is(self):
    for name in ("D0", "D3", "F2"):
      texts, found = self._texts(name)
      assert found == texts

  def test_augmented(self):
    texts, found = self._texts("D8")
    changed = [text for text in texts if text.changed]
    assert 0 < len(changed) < len(texts)
    assert found[: len(texts)] == texts
    assert found[len(texts) :] == [text.swapped() for text in changed]

  def test_coin_flip(self):
    texts, found = self._texts("D10")
    assert len(found) == len(texts)
    heads = [one != other for one, other in zip(texts, found)]
    for text, flipped, head in zip(texts, found, heads):
      assert flipped == (text.swapped() if head else text)
    share = np.mean([h for h, text in zip(heads, texts) if text.changed])
    assert 0.25 < share < 0.75
    assert self._texts("D10")[1] == found != self._texts("D10", seed=1)[1]

  def test_control(self):
    _, found = self._texts("D11")
    assert not any(text.changed for text in found)


class TestStudents:
  def test_layers_are_spread(self):
    assert distillation.spread_layers(12, 6) == (0, 2, 4, 7, 9, 11)
    assert distillation.spread_layers(4, 4) == (0, 1, 2, 3)
    assert distillation.spread_layers(4, 2) == (0, 3)
    assert distillation.spread_layers(4, 1) == (0,)
    with pytest.raises(ValueError, match="num_student: got 5"):
      distillation.spread_layers(4, 5)
    with pytest.raises(ValueError, match="num_student: got 0"):
      distillation.spread_layers(4, 0)

  def test_copies_what_it_names(self):
    params = tiny.params()["teacher"]
    student, found = distillation.student_from_teacher(
      tiny.teacher(), params, layers=(1,), dropout=0.1
    )
    assert student.fields["num_layers"] == 1
    assert student.fields["dropout"] == 0.1
    assert jax.tree.structure(found) == jax.tree.structure(
      jax.eval_shape(student.init, jax.random.key(0))
    )
    np.testing.assert_array_equal(
      found["layer_0"]["qkv"]["kernel"], params["layer_1"]["qkv"]["kernel"]
    )
    np.testing.assert_array_equal(found["positions"], params["positions"])

  def test_all_layers_are_the_teacher_itself(self):
    params = tiny.params()["teacher"]
    student, found = distillation.student_from_teacher(
      tiny.teacher(), params, layers=(0, 1)
    )
    assert student is tiny.teacher()
    example = tiny.example(0)
    apply = jax.jit(student.apply)
    np.testing.assert_allclose(
      apply(found, example), apply(params, example), atol=1e-6
    )

  def test_bad_layers(self):
    params = tiny.params()["teacher"]
    for layers in ((2,), ()):
      with pytest.raises(ValueError, match="the teacher has 0 to 1"):
        distillation.student_from_teacher(tiny.teacher(), params, layers=layers)


class TestTextQuality:
  def test_distinct(self):
    assert distillation.distinct_n([["a", "b", "a", "b"]], 2) == 2 / 3
    assert distillation.distinct_n([["a"], ["a"], ["b"]], 1) == 2 / 3
    assert np.isnan(distillation.distinct_n([["a"]], 2))
    with pytest.raises(ValueError, match="n: got 0"):
      distillation.distinct_n([["a"]], 0)

  def test_mixed_pronouns(self):
    found = distillation.mixed_pronouns(
      [
        "she lost her coat",
        "He said that she's late",
        "the nurse left",
        "his own mother",
      ]
    )
    assert found.mixed.tolist() == [False, True, False, False]
    assert found.num_gendered == 3
    np.testing.assert_allclose(found.share, 1 / 3)
    assert np.isnan(distillation.mixed_pronouns(["the nurse"]).share)
    assert np.isnan(distillation.mixed_pronouns([]).share)


def test_only_a_decoder_is_a_teacher():
  other = models.transformer_decoder(vocab_size=3, max_length=2, num_layers=1)

  with pytest.raises(ValueError, match="teacher: got 'other'"):
    distillation.student_from_teacher(
      dataclasses.replace(other, name="other"), {}, layers=(0,)
    )
