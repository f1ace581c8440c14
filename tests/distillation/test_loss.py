"""The distillation loss: known answers, gradients, ONE record's loss."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.distillation import tiny_pair as tiny
from trustjax import distillation, models


@pytest.fixture(params=[False, True], ids=["without_jit", "with_jit"])
def loss(request):
  def call(*arrays, temperature=1.0, alpha_kd=0.5, alpha_lm=0.5):
    fn = functools.partial(
      distillation.distill_loss,
      temperature=temperature,
      alpha_kd=alpha_kd,
      alpha_lm=alpha_lm,
    )
    return (jax.jit(fn) if request.param else fn)(*arrays)

  return call


_P = np.log([[0.4, 0.2, 0.4]]).astype(np.float32)


@pytest.mark.parametrize(
  ("temperature", "expected"), [(1.0, 0.043692), (2.0, 0.048822)]
)
def test_divergence_from_a_uniform_student(loss, temperature, expected):
  found = loss(
    np.zeros((1, 3), np.float32),
    _P,
    np.array([0]),
    np.array([True]),
    temperature=temperature,
    alpha_kd=2.0,
    alpha_lm=3.0,
  )
  np.testing.assert_allclose(found.kd, expected, atol=1e-6)
  np.testing.assert_allclose(found.lm, np.log(3), rtol=1e-6)
  np.testing.assert_allclose(
    found.total, 2 * expected + 3 * np.log(3), rtol=1e-5
  )


def test_means_run_over_each_records_own_positions(loss):
  rng = np.random.default_rng(0)
  student, target = rng.normal(size=(2, 2, 4, 5)).astype(np.float32)
  labels = rng.integers(0, 5, (2, 4))
  labels[:, 3] = -1
  mask = np.array([[True] * 4, [True, True, False, False]])
  found = loss(student, target, labels, mask, temperature=2.0)
  for i, kept in ((0, 4), (1, 2)):
    one = loss(
      student[i, :kept],
      target[i, :kept],
      labels[i, :kept],
      np.ones(kept, bool),
      temperature=2.0,
    )
    for part in ("kd", "lm", "total"):
      np.testing.assert_allclose(
        getattr(found, part)[i], getattr(one, part), rtol=1e-5
      )


def test_a_student_like_its_teacher_has_no_divergence(loss):
  found = loss(_P + 3.0, _P, np.array([-1]), np.array([True]), temperature=2.0)
  np.testing.assert_allclose(found.kd, 0, atol=1e-6)
  assert found.lm == 0


def test_a_token_that_the_teacher_excludes_costs_nothing(loss):
  target = np.array([[0.0, -np.inf, 0.0]], np.float32)
  found = loss(
    np.zeros((1, 3), np.float32), target, np.array([0]), np.array([True])
  )
  np.testing.assert_allclose(found.kd, np.log(3 / 2), rtol=1e-6)


def test_padding_has_zero_loss_and_gradient(loss):
  def total(student):
    return loss(student, _P, np.array([-1]), np.array([False])).total

  value, slope = jax.value_and_grad(total)(jnp.ones((1, 3)))
  assert value == 0 and not np.any(slope)


class TestOneRecord:
  """`distillation_loss`, the loss that trainers and plans take."""

  def test_equals_its_parts(self):
    how, example, params = "mean", tiny.example(0), tiny.params()
    loss_fn = tiny.loss(how=how, temperature=2.0, alpha_kd=0.7, alpha_lm=0.2)
    total, aux = jax.jit(loss_fn)(params, example, None)
    scores = functools.partial(jax.jit(tiny.teacher().apply), params["teacher"])
    other = {"tokens": example["tokens_cf"], "mask": example["mask_cf"]}
    target = distillation.combine_teacher(
      scores(example),
      scores(other),
      example["idx"],
      example["valid"],
      how=how,
    )
    labels = np.append(example["tokens"][1:], -1)
    labels[~np.append(example["mask"][1:], False)] = -1
    expected = distillation.distill_loss(
      jax.jit(tiny.student().apply)(params["student"], example),
      target,
      labels,
      example["mask"],
      temperature=2.0,
      alpha_kd=0.7,
      alpha_lm=0.2,
    )
    np.testing.assert_allclose(total, expected.total, rtol=1e-5)
    np.testing.assert_allclose(aux["kd"], expected.kd, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(aux["lm"], expected.lm, rtol=1e-5)
    plain, _ = jax.jit(models.losses.language_model_loss(tiny.student()))(
      params["student"], example, None
    )
    np.testing.assert_allclose(aux["lm"], plain, rtol=1e-5)

  def test_the_teacher_receives_no_gradient(self):
    slopes, _ = _SLOPES(tiny.params(), tiny.example(0), None)
    chex.assert_trees_all_equal(
      slopes["teacher"], jax.tree.map(jnp.zeros_like, slopes["teacher"])
    )
    for path, leaf in jax.tree_util.tree_leaves_with_path(slopes["student"]):
      assert np.any(leaf != 0), jax.tree_util.keystr(path)

  def test_the_angle_of_the_hidden_states(self):
    params, example = tiny.params(), tiny.example(0)

    def hidden(model, params):
      embeddings = model.embed(params, example)
      states = jax.jit(model.encode)(params, embeddings, example["mask"])
      return np.asarray(states)[example["mask"]]

    ours = hidden(tiny.student(), params["student"])
    theirs = hidden(tiny.teacher(), params["teacher"])
    norms = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
    angle = np.mean(1 - np.sum(ours * theirs, axis=1) / norms)
    with_angle, without = (
      jax.jit(tiny.loss(alpha_cos=alpha))(params, example, None)[0]
      for alpha in (2.0, 0.0)
    )
    np.testing.assert_allclose(with_angle - without, 2 * angle, rtol=1e-4)

  @pytest.mark.slow
  @pytest.mark.parametrize("how", distillation.COMBINATIONS)
  def test_the_control_equals_the_baseline(self, how):
    """With x_cf := x the combination is the original teacher."""
    control = tiny.example(0, control=True)
    found, expected = (
      _slopes(how=which)(tiny.params(), control, None)[0]
      for which in (how, "original")
    )
    chex.assert_trees_all_close(found, expected, atol=1e-6)

  def test_padding_is_free(self):
    example = tiny.example(0)
    empty = example | {
      name: np.zeros_like(example[name])
      for name in ("mask", "mask_cf", "valid")
    }
    slopes, _ = _SLOPES(tiny.params(), empty, None)
    assert all(not np.any(leaf) for leaf in jax.tree.leaves(slopes))

  def test_bad_input(self):
    with pytest.raises(ValueError, match="how: got 'median'"):
      tiny.loss(how="median")
    with pytest.raises(ValueError, match="temperature: got 0"):
      tiny.loss(temperature=0.0)
    with pytest.raises(ValueError, match="alpha_kd: got -1"):
      tiny.loss(alpha_kd=-1.0)
    other = models.transformer_decoder(
      vocab_size=tiny.VOCAB + 1, max_length=4, num_layers=1, dim=4, num_heads=1
    )
    with pytest.raises(
      ValueError, match=f"teacher: its vocabulary has {tiny.VOCAB + 1} tokens"
    ):
      distillation.distillation_loss(tiny.student(), other)
    narrow = models.transformer_decoder(
      vocab_size=tiny.VOCAB, max_length=4, num_layers=1, dim=4, num_heads=1
    )
    with pytest.raises(ValueError, match="alpha_cos: got 1.0; hidden states"):
      distillation.distillation_loss(narrow, tiny.teacher(), alpha_cos=1.0)

  def test_arrays_of_two_vocabularies(self):
    with pytest.raises(
      ValueError, match="a vocabulary of 3; the student has 2"
    ):
      distillation.distill_loss(
        np.zeros((1, 2), np.float32),
        _P,
        np.array([0]),
        np.array([True]),
        temperature=1.0,
        alpha_kd=1.0,
        alpha_lm=1.0,
      )


def _slopes(**fields):
  return jax.jit(jax.grad(tiny.loss(**fields), has_aux=True))


# Every part of the loss at once; two tests share the program.
_SLOPES = _slopes(how="max", alpha_cos=0.5)
