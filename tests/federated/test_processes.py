"""Several devices and several processes, each test in processes of its own."""

import os
import socket
import subprocess
import sys

import numpy as np
import pytest

from tests.federated import federated_task as task
from trustjax import federated

_ROUNDS = """
import sys
import jax, numpy as np, optax
{setup}
from tests.federated import federated_task as task
from trustjax import federated
for execution in {executions}:
  algorithm = federated.scaffold(
    task.loss_fn, num_clients=7, client_learning_rate=0.1)
  state = algorithm.init(task.params())
  for r in range(2):
    state, metrics = federated.run_round(
      algorithm, state, task.cohort(r), task.KEY, **execution)
  print("RESULT", *task.flat(state).tolist(), float(metrics.loss))
"""


def expected():
  algorithm = federated.scaffold(
    task.loss_fn, num_clients=7, client_learning_rate=0.1
  )
  state, metrics = algorithm.init(task.params()), None
  for r in range(2):
    state, metrics = federated.run_round(
      algorithm, state, task.cohort(r), task.KEY, backend="scan"
    )
  return [*task.flat(state), float(metrics.loss)]


def start(setup, executions, devices):
  program = _ROUNDS.format(setup=setup, executions=executions)
  environment = os.environ | {
    "JAX_PLATFORMS": "cpu",
    "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
    "PYTHONPATH": ":".join([os.getcwd(), *sys.path]),
  }
  return subprocess.Popen(
    [sys.executable, "-c", program],
    env=environment,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )


def results_of(process):
  output, errors = process.communicate(timeout=240)
  assert process.returncode == 0, errors[-3000:]
  lines = [line for line in output.splitlines() if line.startswith("RESULT")]
  return [[float(word) for word in line.split()[1:]] for line in lines]


@pytest.mark.slow
def test_four_devices():
  executions = [
    {"backend": backend, "devices": placement, "num_devices": count}
    for backend, placement, count in (
      ("scan", "pmap", 4),
      ("vmap", "pmap", 3),
      ("vmap", "shard_map", 4),
    )
  ]
  found = results_of(start("assert jax.device_count() == 4", executions, 4))
  assert len(found) == 3
  for result in found:
    np.testing.assert_allclose(result, expected(), rtol=5e-6, atol=1e-6)


@pytest.mark.slow
def test_two_processes_over_loopback():
  with socket.socket() as free:
    free.bind(("localhost", 0))
    port = free.getsockname()[1]
  setup = """
jax.config.update("jax_cpu_collectives_implementation", "gloo")
jax.distributed.initialize("localhost:{port}", 2, {rank})
assert jax.process_count() == 2 and jax.device_count() == 4
"""
  executions = [
    {"backend": "scan", "devices": "shard_map"},
    {"backend": "vmap", "devices": "shard_map", "chunk_size": 2},
  ]
  both = [
    start(setup.format(port=port, rank=rank), executions, 2)
    for rank in range(2)
  ]
  want = expected()
  for process in both:
    found = results_of(process)
    assert len(found) == 2
    for result in found:
      np.testing.assert_allclose(result, want, rtol=5e-6, atol=1e-6)
