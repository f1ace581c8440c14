"""Carry-over checks on encoders whose answers are known."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments._role_reversal import _carry_over as carry_over
from experiments._role_reversal import _resampling as resampling
from trustjax import data, fairness


def _planted(strength):
  """An encoder that adds an occupation's leaning to a gender axis.

  The axis of women and men is the first; every text has some noise of its own.
  """
  leaning = {
    **{word: strength for word in carry_over._leaning("female")},
    **{word: -strength for word in carry_over._leaning("male")},
    **{word: 1.0 for word in carry_over._SHE},
    **{word: -1.0 for word in carry_over._HE},
  }

  def encode(texts, *, pooling="mean", width=0):
    del width
    rows = []
    for i, text in enumerate(texts):
      words = text.split()[-1:] if pooling == "last" else text.split()
      noise = np.random.default_rng(i).normal(0, 0.3, 3)
      rows.append([sum(leaning.get(w, 0.0) for w in words), *noise])
    return np.array(rows, np.float32)

  return encode


@pytest.fixture(scope="module")
def items():
  """Of a leaning encoder, of one that leans the other way, and of none."""
  return {
    strength: carry_over._seat(_planted(strength))
    | carry_over._ceat(_planted(strength), 0)
    for strength in (0.5, -0.5, 0.0)
  }


@pytest.mark.parametrize("test", ["seat", "ceat"])
def test_the_planted_leaning_is_found(items, test):
  assert items[0.5][test] > 1 > -1 > items[-0.5][test]
  assert abs(items[0.0][test]) < 0.5 * items[0.5][test]


@pytest.mark.parametrize("test", ["seat", "ceat"])
def test_words_are_resampled_around_the_estimate(items, test):
  config = types.SimpleNamespace(
    seed=0, num_seeds=1, evaluation=types.SimpleNamespace(resamples=200)
  )
  seeds = [types.SimpleNamespace(items=items[0.5])]
  found = getattr(resampling, test)(config, seeds)
  again = getattr(resampling, test)(config, seeds)
  np.testing.assert_array_equal(found.replicates, again.replicates)
  assert found.estimates == [items[0.5][test]]
  assert found.replicates.shape == (1, 200)
  low, high = np.quantile(found.replicates, [0.01, 0.99])
  assert low < found.estimates[0] < high
  assert 0 < high - low < 1


def test_seats_effect_is_that_of_its_associations(items):
  x, y = (items[0.5][f"seat_{side}"].reshape(1, -1) for side in "xy")
  np.testing.assert_allclose(
    resampling.effect(x, y)[0], items[0.5]["seat"], rtol=1e-4
  )


def test_contexts_end_with_their_word_and_lean_to_no_gender():
  sets = carry_over._contexts(0)
  names = (carry_over._leaning("female"), carry_over._leaning("male"))
  assert [len(part) for part in sets[:2]] == [10, 10]
  for words, part in zip(names, sets):
    for word, texts in zip(words, part):
      assert len(texts) == carry_over._CONTEXTS
      assert all(text.split()[-1] == word for text in texts)
  assert all(
    texts[0].split()[-1] in carry_over._SHE for texts in sets[2]
  ) and all(texts[0].split()[-1] in carry_over._HE for texts in sets[3])


def test_biographies_are_classified():
  """Women's biographies of one occupation are told apart, men's are not."""
  rng = np.random.default_rng(0)

  def people(count):
    return tuple(
      data.Biography(
        text=str(i), occupation=("nurse", "poet")[i % 2], female=i % 4 < 2
      )
      for i in range(count)
    )

  def encode(texts, *, width):
    assert width == 16
    numbers = np.array([int(text) for text in texts])
    nurse, female = numbers % 2 == 0, numbers % 4 < 2
    signal = np.where(female, np.where(nurse, 1.0, -1.0), 0.0)
    noise = rng.normal(0, 0.1, (len(texts), 2))
    return np.concatenate([signal[:, None], noise], axis=1).astype(np.float32)

  unseen = data.Biography(text="1", occupation="dj", female=True)
  items = carry_over._biography_probe(
    encode, {"train": people(80), "test": (*people(40), unseen)}, 16
  )
  assert len(items["bios_true"]) == 40 and items["bios_classes"] == 2
  config = types.SimpleNamespace(
    seed=0, evaluation=types.SimpleNamespace(resamples=100)
  )
  seeds = [types.SimpleNamespace(items=items)]
  gap = resampling.recall_gap(config, seeds, "bios")
  # All women right; of the men, the share r of nurses and 1 - r of poets.
  men = items["bios_gender"] == 0
  wrong = items["bios_true"] != items["bios_pred"]
  assert not wrong[~men].any()
  expected = [
    wrong[men & (items["bios_true"] == occupation)].mean()
    for occupation in (0, 1)
  ]
  np.testing.assert_allclose(
    gap.estimates[0], np.sqrt(np.mean(np.square(expected))), rtol=1e-5
  )
  assert resampling.accuracy(seeds, "bios") == 1 - wrong.mean()
  reference = fairness.class_gaps(
    *(
      jnp.asarray(items[f"bios_{part}"]) for part in ("true", "pred", "gender")
    ),
    num_classes=2,
  )
  np.testing.assert_allclose(gap.estimates[0], reference.rms, rtol=1e-6)


def test_vectors_are_those_of_the_model():
  """Mean over all but the end of text; texts are cut at the width."""
  model = types.SimpleNamespace(
    fields={"max_length": 5},
    embed=lambda params, example: jnp.eye(9)[example["tokens"]] * params,
    encode=lambda params, embeddings, mask: embeddings,
  )
  model = _Hashable(**vars(model))
  tokenizer = types.SimpleNamespace(
    end_of_text=8,
    encode_batch=lambda texts: [[int(c) for c in text] for text in texts],
  )
  with jax.numpy_rank_promotion("allow"):
    mean, last = (
      carry_over._vectors(
        tokenizer, model, 2.0, ["12", "3345670"], pooling=pooling
      )
      for pooling in ("mean", "last")
    )
  np.testing.assert_allclose(mean[0, :4], [0, 1, 1, 0])
  np.testing.assert_allclose(mean[1, 3:7], [1, 0.5, 0.5, 0])
  assert last.argmax(axis=1).tolist() == [2, 5] and last.max() == 2


class _Hashable(types.SimpleNamespace):
  __hash__ = object.__hash__
