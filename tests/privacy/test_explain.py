"""What `explain` shows, what `auto` chooses, and how close predictions are."""

import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from trustjax import privacy
from trustjax.privacy._engines import _choose, _costs

TIME, DIM, VOCAB, CLASSES = 16, 32, 500, 4


def tagger(params, example, key):
  """Embedding, one hidden layer, mean-pooled head, a regularised scale."""
  del key
  hidden = params["words"][example["tokens"]]
  hidden = jnp.tanh(hidden @ params["kernel"] + params["bias"][None, :])
  logits = jnp.mean(hidden, axis=0) @ params["head"]
  loss = -jax.nn.log_softmax(logits)[example["label"]]
  return loss + 0.1 * jnp.sum(params["norm"] ** 2) * jnp.sum(
    params["norm"]
  ), None


def tagger_params():
  shapes = {
    "words": (VOCAB, DIM),
    "kernel": (DIM, DIM),
    "bias": (DIM,),
    "head": (DIM, CLASSES),
    "norm": (3,),
    "idle": (2, 2),
  }
  keys = jax.random.split(jax.random.key(0), len(shapes))
  return {
    name: 0.1 * jax.random.normal(key, shape)
    for key, (name, shape) in zip(keys, shapes.items())
  }


def example():
  return {"tokens": jnp.arange(TIME), "label": jnp.int32(1)}


def lot(num):
  return privacy.Lot(
    examples=jax.tree.map(
      lambda leaf: jnp.broadcast_to(leaf, (num, *leaf.shape)), example()
    ),
    valid=jnp.ones(num, bool),
    ids=jnp.arange(num, dtype=jnp.int32),
  )


def test_every_leaf_has_a_route_and_a_reason():
  explained = privacy.explain(tagger, tagger_params(), example())
  routes = {leaf.path: leaf.route for leaf in explained.leaves}
  assert routes == {
    "words": "rows",
    "kernel": "gram",
    "bias": "direct",
    "head": "gram",
    "norm": "fallback",
    "idle": "unused",
  }
  reasons = {leaf.path: leaf.reason for leaf in explained.leaves}
  assert "used by" in reasons["norm"] and "2 times" in reasons["norm"]
  assert all(reasons.values())
  text = str(explained)
  for leaf in explained.leaves:
    assert leaf.path in text and leaf.reason in text
  assert "auto, 64 records" in text


def test_a_constant_loss_still_gets_an_engine():
  choice = privacy.choose_engine(
    lambda p, e, k: (jnp.float32(1.0), None),
    {"w": jnp.ones(3)},
    lot(4),
    jax.random.key(0),
  )
  assert choice.engine == "bookkeeping"


def test_shapes_are_enough():
  shapes = jax.eval_shape(tagger_params)
  by_shape = privacy.explain(tagger, shapes, jax.eval_shape(example))
  by_value = privacy.explain(tagger, tagger_params(), example())
  assert by_shape == by_value


def test_gram_or_multiplied_out_by_cost():
  """Long sequences and small matrices are cheaper multiplied out."""

  def loss_fn(p, e, k):
    return jnp.sum(jnp.tanh(e @ p)), None

  kernel = jax.ShapeDtypeStruct((64, 64), jnp.float32)
  routes = [
    privacy.explain(
      loss_fn, kernel, jax.ShapeDtypeStruct((time, 64), jnp.float32)
    )
    .leaves[0]
    .route
    for time in (4, 1024)
  ]
  assert routes == ["gram", "multiplied"]


@pytest.mark.parametrize(
  ("engine", "chunk"),
  [
    ("scan", 1),
    ("vmap", 8),
    ("vmap", 64),
    ("bookkeeping", 8),
    ("bookkeeping", 64),
  ],
)
def test_predicted_memory_is_near_the_compilers(engine, chunk):
  params, records = tagger_params(), lot(64)
  fn = privacy.clipped_grad(
    tagger, privacy.AutoClip(), engine=engine, chunk_size=chunk
  )
  compiled = jax.jit(fn).lower(params, records, jax.random.key(0), ()).compile()
  measured = compiled.memory_analysis().temp_size_in_bytes
  explained = privacy.explain(tagger, params, example())
  ratio = explained.costs.step_bytes(engine, chunk) / measured
  assert 0.5 < ratio < 2.0


class TestAuto:
  def choose(self, num=64, **options):
    return privacy.choose_engine(
      tagger, tagger_params(), lot(num), jax.random.key(0), **options
    )

  def test_says_why(self):
    choice = self.choose()
    assert (choice.engine, choice.chunk_size) == ("bookkeeping", 64)
    assert "64 units at a time" in choice.reason
    assert "% of forming gradients" in choice.reason

  def test_a_small_budget_means_small_chunks(self):
    costs = privacy.explain(tagger, tagger_params(), example()).costs
    budget = int(costs.step_bytes("bookkeeping", 8)) + 1
    assert self.choose(budget_bytes=budget).chunk_size == 8

  def test_a_budget_below_one_record(self):
    with pytest.raises(ValueError, match=r"budget_bytes: got 1000; one unit"):
      self.choose(budget_bytes=1000)
    fn = privacy.clipped_grad(tagger, privacy.AutoClip(), budget_bytes=1000)
    with pytest.raises(ValueError, match="budget_bytes: got 1000"):
      fn(tagger_params(), lot(4), jax.random.key(0), ())

  def test_long_units_get_small_chunks(self):
    costs = _costs.UnitCosts(
      gradient_bytes=1e7,
      activation_bytes=1e7,
      book_bytes=1e7,
      gradient_operations=1e8,
      book_operations=1e7,
      positions=128,
    )
    assert _choose.choose_by_costs(costs, 64).chunk_size == 4

  def test_clip_groups_form_gradients_where_books_are_no_cheaper(self):
    def costs(book_operations):
      return _costs.UnitCosts(
        gradient_bytes=1e6,
        activation_bytes=1e5,
        book_bytes=1e5,
        gradient_operations=1e8,
        book_operations=book_operations,
        positions=64,
      )

    groups = _choose.choose_by_costs(costs(9e7), 8, slots_per_unit=12)
    assert (groups.engine, groups.chunk_size) == ("vmap", 2)
    cheap = _choose.choose_by_costs(costs(1e6), 8, slots_per_unit=12)
    assert cheap.engine == "bookkeeping"

  def test_clip_groups_of_a_real_loss(self):
    groups = jax.tree.map(
      lambda leaf: jnp.reshape(leaf, (8, 8, *leaf.shape[1:])), lot(64)
    )
    choice = privacy.choose_engine(
      tagger, tagger_params(), groups, jax.random.key(0)
    )
    assert choice.engine == "bookkeeping"
    assert "% of forming gradients" in choice.reason


class TestBadInput:
  def run(self, loss_fn, params, engine="bookkeeping"):
    fn = privacy.clipped_grad(loss_fn, privacy.AutoClip(), engine=engine)
    return fn(params, lot(4), jax.random.key(0), ())

  @pytest.mark.parametrize("engine", ["loop", "scan", "vmap", "bookkeeping"])
  def test_a_loss_over_a_batch(self, engine):
    def loss_fn(p, e, k):
      return p["words"][e["tokens"]].sum(axis=1), None

    with pytest.raises(ValueError, match=r"returned a loss of shape \(16,\)"):
      self.run(loss_fn, tagger_params(), engine)

  @pytest.mark.parametrize("engine", ["loop", "bookkeeping"])
  def test_a_loss_without_aux(self, engine):
    with pytest.raises(ValueError, match="must return .scalar loss, aux"):
      self.run(lambda p, e, k: jnp.sum(p["bias"]), tagger_params(), engine)

  def test_an_integer_loss(self):
    with pytest.raises(ValueError, match="one real number"):
      self.run(lambda p, e, k: (e["label"], None), tagger_params())

  @pytest.mark.parametrize("kind", [jnp.int32, jnp.complex64])
  @pytest.mark.parametrize("engine", ["vmap", "bookkeeping", "auto"])
  def test_parameters_that_are_not_real(self, kind, engine):
    params = tagger_params() | {"steps": jnp.zeros(3, kind)}
    with pytest.raises(ValueError, match=r"params\['steps'\]: got type"):
      self.run(tagger, params, engine)

  def test_batch_statistics(self):
    def loss_fn(p, e, k):
      return jnp.sum(jax.lax.pmean(p["bias"], "batch")), None

    with pytest.raises(NameError, match="batch"):
      self.run(loss_fn, tagger_params())


class TestPartition:
  def test_splits_and_merges(self):
    params = tagger_params()
    trained, frozen = privacy.partition(params, r"head|bias")
    assert {k for k, v in trained.items() if v is not None} == {"head", "bias"}
    assert all((trained[k] is None) != (frozen[k] is None) for k in params)
    merged = privacy.merge(trained, frozen)
    jax.tree.map(np.testing.assert_array_equal, merged, params)
    assert privacy.merge(params, None) is params

  def test_by_function(self):
    by_match, _ = privacy.partition(
      tagger_params(), lambda path, leaf: re.search("head", path)
    )
    chex.assert_trees_all_equal(
      by_match, privacy.partition(tagger_params(), "head")[0]
    )
    trained, _ = privacy.partition(
      tagger_params(), lambda path, leaf: leaf.ndim == 1
    )
    assert {k for k, v in trained.items() if v is not None} == {"bias", "norm"}

  def test_nothing_matches(self):
    with pytest.raises(ValueError, match=r"trainable: 'lora' matches none of"):
      privacy.partition(tagger_params(), "lora")

  def test_frozen_leaves_cost_nothing(self):
    trained, frozen = privacy.partition(tagger_params(), "head")
    explained = privacy.explain(tagger, trained, example(), frozen=frozen)
    assert [leaf.path for leaf in explained.leaves] == ["head"]
    assert explained.costs.gradient_bytes == 4 * DIM * CLASSES
