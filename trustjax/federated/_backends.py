"""Execution backends: a cohort's clients, trained and summed up.

Every backend is a function

  run(work, shared, block, clip_state, key) -> BlockSums

of the same clients, written once, for one client, in the algorithm; the
backends differ in what happens at the same time:

  loop   one client and one local step at a time, from Python: the oracle
  scan   one client at a time, in one program
  vmap   chunks of clients side by side, in one program

Compiled backends loop with trip counts that are data: empty slots and local
steps that nobody has cost nothing, and one program serves all cohorts of a
shape. In a chunk all clients take as many steps as the busiest; the others
keep what they had, since a zero gradient is not a step that was not taken.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from trustjax.federated import _algorithm, _upload

PyTree = Any


class Block(NamedTuple):
  """Clients of a round on one device.

  Attributes:
    ids: [slots].
    valid: [slots].
    weights: [slots].
    memory: What each client kept, leading axis [slots].
    examples: Pytree [slots, steps, batch, ...].
    live: [slots, steps, batch]; a client's live steps come first.
  """

  ids: Int[Array | np.ndarray, " slots"]
  valid: Bool[Array | np.ndarray, " slots"]
  weights: Float[Array | np.ndarray, " slots"]
  memory: PyTree
  examples: PyTree
  live: Bool[Array | np.ndarray, "slots steps batch"]


class Reports(NamedTuple):
  """What is known of each client of a round, [slots]; zero where invalid.

  Attributes:
    loss: Sum of the records' losses.
    num_examples: Records used, with repetitions.
    num_steps: Local steps.
    norm: L2 norm of the update, before clipping; nan where not measured.
    counted: Valid, with a finite update; the others were dropped.
    clipped: Whether the update was clipped.
  """

  loss: Array
  num_examples: Array
  num_steps: Array
  norm: Array
  counted: Array
  clipped: Array


class BlockSums(NamedTuple):
  """What comes out of a block.

  Attributes:
    update: Sum of the clients' contributions, as the upload encodes them.
    side: Plain sum of the side results.
    memory: New rows of the clients' memory, [slots, ...].
    reports: [slots].
  """

  update: PyTree
  side: PyTree
  memory: PyTree
  reports: Reports


class Work(NamedTuple):
  """What is done for every client: local training, then the upload."""

  algorithm: _algorithm.FederatedAlgorithm
  upload: _upload.Upload


Backend = Callable[
  [Work, _algorithm.Shared, Block, PyTree, Array],
  BlockSums,
]


class _Keys(NamedTuple):
  """A client's keys, addressed by its id."""

  init: Array
  step: Array
  send: Array


def _client_keys(key, client_id):
  return _Keys(*jax.random.split(jax.random.fold_in(key, client_id), 3))


def _finish(work, shared, carry, valid, weight, memory, clip_state, key):
  """A trained client's (contribution, side, memory, report)."""
  result = work.algorithm.client_final(shared, carry)
  sent = work.upload.send(
    result.update, weight, valid, clip_state, key, params=shared.params
  )
  counted = sent.counted

  def kept(new, old):
    return jnp.where(counted, new, old)

  side = jax.tree.map(lambda x: kept(x, jnp.zeros_like(x)), result.side)
  report = Reports(
    loss=result.metrics.loss,
    num_examples=result.metrics.num_examples,
    num_steps=result.metrics.num_steps,
    norm=sent.norm,
    counted=counted,
    clipped=sent.clipped,
  )
  report = jax.tree.map(
    lambda x: jnp.where(valid, x, jnp.zeros_like(x)), report
  )
  memory = jax.tree.map(kept, result.memory, memory)
  return sent.contribution, side, memory, report


def _empty_sums(work, shared, block, clip_state, key) -> BlockSums:
  """The sums before the first client; their shapes are traced, not guessed."""

  def first(shared, block, clip_state, key):
    client = _at(block, 0)
    carry = work.algorithm.client_init(shared, client.memory, key)
    return _finish(
      work,
      shared,
      carry,
      client.valid,
      client.weights,
      client.memory,
      clip_state,
      key,
    )

  update, side, _, report = jax.eval_shape(
    first, shared, block, clip_state, key
  )
  slots = block.valid.shape[0]
  zeros = functools.partial(
    jax.tree.map, lambda leaf: jnp.zeros(leaf.shape, leaf.dtype)
  )
  return BlockSums(
    update=zeros(update),
    side=zeros(side),
    memory=block.memory,
    reports=jax.tree.map(
      lambda leaf: jnp.zeros((slots, *leaf.shape), leaf.dtype), report
    ),
  )


def _steps_of(live):
  """Local steps of each client, [slots]."""
  return jnp.sum(jnp.any(live, axis=-1), axis=-1, dtype=jnp.int32)


def _used_slots(valid):
  """One more than the last valid slot."""
  places = jnp.arange(1, valid.shape[0] + 1, dtype=jnp.int32)
  return jnp.max(jnp.where(valid, places, 0), initial=0)


def scan_clients(work, shared, block, clip_state, key) -> BlockSums:
  """One client after the other, in one program."""
  steps = jnp.where(block.valid, _steps_of(block.live), 0)

  def one_client(slot, sums):
    keys = _client_keys(key, block.ids[slot])
    memory = _at(block.memory, slot)
    carry = work.algorithm.client_init(shared, memory, keys.init)

    def one_step(i, carry):
      batch = jax.tree.map(lambda leaf: leaf[slot, i], block.examples)
      return work.algorithm.client_step(
        carry, batch, block.live[slot, i], jax.random.fold_in(keys.step, i)
      )

    carry = jax.lax.fori_loop(0, steps[slot], one_step, carry)
    update, side, memory, report = _finish(
      work,
      shared,
      carry,
      block.valid[slot],
      block.weights[slot],
      memory,
      clip_state,
      keys.send,
    )
    return BlockSums(
      update=jax.tree.map(jnp.add, sums.update, update),
      side=jax.tree.map(jnp.add, sums.side, side),
      memory=_put(sums.memory, slot, memory),
      reports=_put(sums.reports, slot, report),
    )

  empty = _empty_sums(work, shared, block, clip_state, key)
  return jax.lax.fori_loop(0, _used_slots(block.valid), one_client, empty)


def vmap_clients(
  work, shared, block, clip_state, key, *, chunk_size: int
) -> BlockSums:
  """Chunks of clients side by side; `chunk_size` must divide the slots."""
  steps = jnp.where(block.valid, _steps_of(block.live), 0)

  def one_chunk(number, sums):
    start = number * chunk_size
    here = jax.tree.map(
      lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, start, chunk_size),
      block._replace(examples=(), live=steps),
    )
    keys = jax.vmap(_client_keys, in_axes=(None, 0))(key, here.ids)
    carry = jax.vmap(work.algorithm.client_init, in_axes=(None, 0, 0))(
      shared, here.memory, keys.init
    )
    carry = _steps_of_chunk(
      work.algorithm, carry, block, start, here.live, keys.step
    )
    update, side, memory, reports = jax.vmap(
      functools.partial(_finish, work),
      in_axes=(None, 0, 0, 0, 0, None, 0),
    )(
      shared,
      carry,
      here.valid,
      here.weights,
      here.memory,
      clip_state,
      keys.send,
    )

    def add(total, parts):
      return total + jnp.sum(parts, axis=0, dtype=total.dtype)

    def put(every, parts):
      return jax.lax.dynamic_update_slice_in_dim(every, parts, start, axis=0)

    return BlockSums(
      update=jax.tree.map(add, sums.update, update),
      side=jax.tree.map(add, sums.side, side),
      memory=jax.tree.map(put, sums.memory, memory),
      reports=jax.tree.map(put, sums.reports, reports),
    )

  empty = _empty_sums(work, shared, block, clip_state, key)
  chunks = -(-_used_slots(block.valid) // chunk_size)
  return jax.lax.fori_loop(0, chunks, one_chunk, empty)


def _steps_of_chunk(algorithm, carry, block, start, steps, keys):
  """All local steps of the clients from slot `start` on, side by side.

  A client that has taken its steps keeps what it has.
  """
  chunk_size = steps.shape[0]
  step_clients = jax.vmap(algorithm.client_step)
  fold = jax.vmap(jax.random.fold_in, in_axes=(0, None))

  def one_step(i, carry):
    def at_step(leaf):
      shape = (chunk_size, 1, *leaf.shape[2:])
      zeros = (0,) * (leaf.ndim - 2)
      part = jax.lax.dynamic_slice(leaf, (start, i, *zeros), shape)
      return part[:, 0]

    moved = step_clients(
      carry,
      jax.tree.map(at_step, block.examples),
      at_step(block.live),
      fold(keys, i),
    )
    alive = i < steps

    def keep(new, old):
      shape = (chunk_size,) + (1,) * (new.ndim - 1)
      return jnp.where(jnp.reshape(alive, shape), new, old)

    return jax.tree.map(keep, moved, carry)

  return jax.lax.fori_loop(0, jnp.max(steps), one_step, carry)


@functools.lru_cache(maxsize=16)
def _compiled(work):
  """The pieces of the loop, compiled once for an algorithm."""
  algorithm = work.algorithm
  return (
    jax.jit(algorithm.client_init),
    jax.jit(algorithm.client_step),
    jax.jit(functools.partial(_finish, work)),
    jax.jit(_client_keys),
  )


def loop_clients(work, shared, block, clip_state, key) -> BlockSums:
  """A Python loop over clients and local steps: what all others must equal.

  An error names the client and the step at which it happened.
  """
  sums = _empty_sums(work, shared, block, clip_state, key)
  for slot in range(block.valid.shape[0]):
    if bool(block.valid[slot]):
      update, side, memory, report = _loop_client(
        work, shared, _at(block, slot), clip_state, key
      )
      sums = BlockSums(
        update=jax.tree.map(jnp.add, sums.update, update),
        side=jax.tree.map(jnp.add, sums.side, side),
        memory=_put(sums.memory, slot, memory),
        reports=_put(sums.reports, slot, report),
      )
  return sums


def _loop_client(work, shared, client, clip_state, key):
  """One client's (contribution, side, memory, report)."""
  init, step, finish, client_keys = _compiled(work)
  place = "client_init"
  try:
    keys = client_keys(key, client.ids)
    carry = init(shared, client.memory, keys.init)
    for i in range(int(_steps_of(client.live[None])[0])):
      place = f"local step {i}"
      carry = step(
        carry,
        _at(client.examples, i),
        client.live[i],
        jax.random.fold_in(keys.step, i),
      )
    place = "client_final"
    return finish(
      shared,
      carry,
      client.valid,
      client.weights,
      client.memory,
      clip_state,
      keys.send,
    )
  except Exception as error:
    error.add_note(f"in {place} of client {int(client.ids)}")
    raise


def _at(tree, i):
  return jax.tree.map(lambda leaf: leaf[i], tree)


def _put(tree, i, row):
  return jax.tree.map(lambda leaf, new: leaf.at[i].set(new), tree, row)
