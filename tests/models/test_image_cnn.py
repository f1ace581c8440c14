"""The classifier of images: against SciPy, its sizes, privacy, refusals."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.signal

from trustjax import federated, models, privacy

SIZES = {
  "image_shape": (9, 8, 2),
  "num_classes": 4,
  "channels": (3, 5),
  "hidden_dim": 6,
}
MODEL = models.image_cnn(**SIZES)
INIT = jax.jit(MODEL.init)
APPLY = jax.jit(MODEL.apply)
LOSS = models.losses.label_loss(MODEL)


@functools.cache
def params():
  """Drawn, with biases that are not zero."""
  drawn = INIT(jax.random.key(0))
  rng = np.random.default_rng(0)
  return jax.tree.map(
    lambda leaf: leaf + jnp.asarray(rng.normal(0, 0.1, leaf.shape), leaf.dtype),
    drawn,
  )


def batch(count, seed=0):
  rng = np.random.default_rng(seed)
  return {
    "image": rng.integers(0, 256, (count, *SIZES["image_shape"]), np.uint8),
    "label": rng.integers(0, SIZES["num_classes"], count, np.int32),
  }


def convolve(image, fields):
  """One convolution without padding, channel by channel."""
  kernel = np.asarray(fields["kernel"]).reshape(3, 3, image.shape[2], -1)
  planes = [
    sum(
      scipy.signal.correlate2d(image[..., i], kernel[..., i, o], mode="valid")
      for i in range(image.shape[2])
    )
    for o in range(kernel.shape[3])
  ]
  return np.stack(planes, axis=-1) + np.asarray(fields["bias"])


def test_scores_are_those_of_plain_convolutions():
  here = params()
  image = batch(1)["image"][0]
  values = np.maximum(convolve(image / 255, here["first"]), 0)
  values = np.maximum(convolve(values, here["second"]), 0)
  pooled = np.zeros((2, 2, 5))  # Of 5 rows the last is left out.
  for i in range(2):
    for j in range(2):
      square = values[2 * i : 2 * i + 2, 2 * j : 2 * j + 2]
      pooled[i, j] = square.max(axis=(0, 1))
  dense = [np.asarray(here[key]["kernel"]) for key in ("hidden", "head")]
  hidden = np.maximum(pooled.ravel() @ dense[0] + here["hidden"]["bias"], 0)
  got = APPLY(here, {"image": image})
  np.testing.assert_allclose(
    got,
    hidden @ dense[1] + np.asarray(here["head"]["bias"]),
    rtol=1e-5,
    atol=1e-6,
  )
  scaled = {"image": image.astype(np.float32) / np.float32(255)}
  np.testing.assert_allclose(APPLY(here, scaled), got, rtol=1e-6)


def test_the_default_is_the_published_network():
  """Parameters of torch's layers, and Glorot's bounds of a convolution."""
  shapes = jax.eval_shape(models.image_cnn().init, jax.random.key(0))
  assert models.num_params(shapes) == 896 + 18_496 + 1_605_760 + 1_290
  kernel = np.asarray(INIT(jax.random.key(1))["second"]["kernel"])
  bound = np.sqrt(6 / (9 * 3 + 9 * 5))
  assert 0.9 * bound < np.abs(kernel).max() <= bound


def draws(example, **rates):
  """Scores under 4,000 keys, and the model's without a key."""
  apply = models.image_cnn(**SIZES, **rates).apply

  @jax.jit
  def both(params, keys):
    many = jax.vmap(lambda key: apply(params, example, key))(keys)
    return many, apply(params, example)

  keys = jax.random.split(jax.random.key(2), 4000)
  return tuple(np.asarray(found) for found in both(params(), keys))


def test_dropout_needs_a_key_and_keeps_the_mean():
  example = {"image": batch(1)["image"][0]}
  many, plain = draws(example, hidden_dropout=0.75)
  np.testing.assert_allclose(plain, APPLY(params(), example), rtol=1e-6)
  spread = many.std(axis=0)
  # The head is linear: 5 standard errors of its mean.
  assert np.all(np.abs(many.mean(axis=0) - plain) < 5 * spread / 4000**0.5)
  # All six hidden units are gone in 0.75^6 of the draws, if they are not zero.
  empty = np.all(many == np.asarray(params()["head"]["bias"]), axis=1)
  assert empty.mean() > 0.15
  many, plain = draws(example, feature_dropout=0.75)
  empty = np.all(many == np.asarray(params()["head"]["bias"]), axis=1)
  assert many.std() > 0.01 and empty.mean() < 0.15


def test_the_label_loss_is_a_cross_entropy():
  example = jax.tree.map(lambda leaf: leaf[0], batch(1))
  logits = np.asarray(APPLY(params(), {"image": example["image"]}))
  evaluate = jax.jit(LOSS)
  loss, aux = evaluate(params(), example, None)
  label = int(example["label"])
  want = np.log(np.exp(logits).sum()) - logits[label]
  np.testing.assert_allclose(loss, want, rtol=1e-5)
  assert float(aux["correct"]) == float(np.argmax(logits) == label)
  unlabelled = example | {"label": np.int32(-1)}
  assert float(evaluate(params(), unlabelled, None)[0]) == 0


@pytest.mark.slow
def test_book_keeping_clips_what_every_image_contributes():
  """Against gradients that are formed one by one and clipped in NumPy."""
  valid, clip_norm = np.array([1, 1, 0, 1], bool), 0.5
  lot = privacy.Lot(examples=batch(4), valid=valid, ids=np.arange(4))
  rule = privacy.ThresholdClip(clip_norm=clip_norm)
  clip = jax.jit(privacy.clipped_grad(LOSS, rule, engine="bookkeeping"))
  got = clip(params(), lot, jax.random.key(0), ())
  each = jax.grad(lambda p, record: LOSS(p, record, None)[0])
  gradients = jax.jit(jax.vmap(each, (None, 0)))(params(), lot.examples)
  leaves = [np.asarray(g).reshape(4, -1) for g in jax.tree.leaves(gradients)]
  norms = np.linalg.norm(np.concatenate(leaves, axis=1), axis=1)
  assert np.all(norms > clip_norm)  # The clip is at work.
  np.testing.assert_allclose(got.norms, np.where(valid, norms, 0), rtol=1e-5)
  factors = np.where(valid, clip_norm / norms, 0)
  jax.tree.map(
    lambda a, g: np.testing.assert_allclose(
      a, np.tensordot(factors, g, axes=1), rtol=1e-4, atol=1e-6
    ),
    got.sum,
    gradients,
  )
  routes = privacy.explain(
    LOSS, params(), jax.tree.map(lambda leaf: leaf[0], lot.examples)
  ).leaves
  # By their factors: no gradient is formed for every record.
  assert {leaf.route for leaf in routes} <= {"multiplied", "gram", "direct"}


@pytest.mark.slow
def test_a_private_round_is_bounded_by_the_clip_norm():
  """Three users, all drawn, no noise: each adds at most the clip norm."""
  clip_norm = 0.01
  plan = federated.UserLevelPlan.make(
    num_users=3,
    cohort_size=3,
    num_rounds=1,
    noise_multiplier=0.0,
    rule=privacy.ThresholdClip(clip_norm=clip_norm),
  )
  store = federated.ClientStore(
    examples=batch(6), indices=np.arange(6), offsets=np.arange(4) * 2
  )
  key = jax.random.key(0)
  cohort = plan.select_clients(key, 0, store.activity)
  cohort = store.fetch(cohort, batch_size=2, seed=0, round=0)
  algorithm = federated.fedavg(LOSS, optax.sgd(0.1))
  state, metrics = federated.run_private_round(
    algorithm, algorithm.init(params()), cohort, key, plan
  )
  moved = jax.tree.map(jnp.subtract, params(), state.params)
  length = np.linalg.norm([np.linalg.norm(m) for m in jax.tree.leaves(moved)])
  assert float(metrics.clipped_share) == 1
  assert 0.3 * clip_norm < length <= clip_norm * (1 + 1e-5)


@pytest.mark.parametrize(
  "field, value",
  [
    ("image_shape", (5, 32, 3)),
    ("image_shape", (32, 32)),
    ("num_classes", 0),
    ("channels", (4,)),
    ("hidden_dim", 0),
    ("feature_dropout", 1.0),
    ("hidden_dropout", -0.1),
  ],
)
def test_impossible_fields_are_named(field, value):
  with pytest.raises(ValueError, match=f"{field}: got"):
    models.image_cnn(**(SIZES | {field: value}))


def test_other_images_are_refused():
  with pytest.raises(ValueError, match=r"channels\[1\]: got 0"):
    models.image_cnn(**(SIZES | {"channels": (3, 0)}))
  with pytest.raises(ValueError, match=r"image: got shape \(9, 9, 2\)"):
    MODEL.apply(params(), {"image": np.zeros((9, 9, 2), np.float32)})
