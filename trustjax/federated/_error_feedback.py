"""Error feedback: clients keep what a compression cuts off, for later.

References:
  Stich et al., Sparsified SGD with Memory, NeurIPS 2018 (arXiv 1809.07599);
  Karimireddy et al., Error Feedback Fixes SignSGD and Other Gradient
  Compression Schemes, ICML 2019 (arXiv 1901.09847).
"""

import dataclasses

import jax
import jax.numpy as jnp

from trustjax.federated import _algorithm, _compression, _local


def with_error_feedback(
  algorithm: _algorithm.FederatedAlgorithm,
  compression: _compression.TopK,
  *,
  num_clients: int,
) -> _algorithm.FederatedAlgorithm:
  """An algorithm whose clients remember what top-k did not send.

  With residual e_k of client k, zero at first, it sends

    p_k = top-k(Delta_k + e_k),        e_k <- Delta_k + e_k - p_k,

  so that what is cut off in one round goes out in a later one. This needs
  clients that persist and come back, and keeps one residual per registered
  client. An update that is dropped leaves the residual as it was.

  Pass the same compression to `run_round`, too: it changes nothing more, as
  top-k of what top-k kept is the same, and the wire is counted by it.

  Args:
    algorithm: One whose clients keep nothing else.
    compression: What is sent.
    num_clients: Registered clients.

  Returns:
    The algorithm.

  Raises:
    ValueError: The clients of `algorithm` keep something already (when it is
      initialised), or the number of clients is not positive.

  Example:
    >>> top = TopK(share=0.01)
    >>> algorithm = with_error_feedback(algorithm, top, num_clients=100)
    >>> state, _ = run_round(algorithm, state, cohort, key, compression=[top])
  """
  if num_clients < 1:
    raise ValueError(f"num_clients: got {num_clients}; it must be at least 1")

  def init(params):
    state = algorithm.init(params)
    if jax.tree.leaves(state.memory):
      raise ValueError(
        f"algorithm: got {algorithm.name!r}, whose clients keep a memory of"
        " their own; error feedback needs one whose clients keep nothing"
      )
    residual = jax.tree.map(
      lambda leaf: jnp.zeros((num_clients, *leaf.shape), leaf.dtype), params
    )
    return dataclasses.replace(state, memory=residual)

  def client_init(shared, memory, key):
    return algorithm.client_init(shared, (), key), memory

  def client_step(carry, batch, valid, key):
    return algorithm.client_step(carry[0], batch, valid, key), carry[1]

  def client_final(shared, carry):
    result = algorithm.client_final(shared, carry[0])
    whole = jax.tree.map(jnp.add, result.update, carry[1])
    sent = compression.cut(whole)
    return result._replace(update=sent, memory=_local.difference(whole, sent))

  return dataclasses.replace(
    algorithm,
    name=f"{algorithm.name}_error_feedback",
    init=init,
    client_init=client_init,
    client_step=client_step,
    client_final=client_final,
  )
