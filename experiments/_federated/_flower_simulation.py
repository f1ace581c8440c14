"""Flower's simulation, one round at a time, for the federated benchmark.

Flower runs a whole training at once: a server app beside Ray actors that run
client apps. Here the server app waits for a request before each round, so that
rounds can be timed between those of others; a round is Flower's own strategy
and grid (`FedAvg.configure_train`, `send_and_receive`, `aggregate_train`), and
a client does what its documentation shows: load the arrays, train, reply.
"""

import dataclasses
import functools
import logging
import os
import pathlib
import queue
import shutil
import tempfile
import threading
from typing import Any

import numpy as np

from experiments._federated import _torch_twins

_TIMEOUT = 600.0  # Seconds that a round may take.


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
  """What a client needs, in a file that each actor reads once.

  Attributes:
    model_name: Of the twin.
    twin_fields: Of `make_twin`, as pairs.
    fields: Arrays of a record that the twin reads.
    batch_size: Examples of a local step.
    learning_rate: Of SGD.
    folder: Where data.npz and params.npy are.
  """

  model_name: str
  twin_fields: tuple[tuple[str, Any], ...]
  fields: tuple[str, ...]
  batch_size: int
  learning_rate: float
  folder: str


class Simulation:
  """A running simulation of Flower; close it when done."""

  def __init__(self, job: Job, params: Any, store: Any, num_clients: int):
    """Starts Ray, the clients and the server.

    Args:
      job: What clients do; its folder is written here.
      params: First parameters, as in `make_twin`.
      store: The registered clients.
      num_clients: Clients of a round.

    Raises:
      RuntimeError: The simulation ends before it is ready.
    """
    os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    _write(job, params, store)
    self._requests: queue.Queue = queue.Queue()
    self._replies: queue.Queue = queue.Queue()
    self.twin = _torch_twins.make_twin(
      job.model_name, params, **dict(job.twin_fields)
    )
    self._folder = job.folder
    self._thread = threading.Thread(
      target=self._simulate,
      args=(job, store.num_clients, num_clients),
      daemon=True,
    )
    self._thread.start()
    self._wait()

  def run(self, round: int) -> None:
    """One round; returns when the server holds the new arrays."""
    self._requests.put(round)
    self._wait()

  def close(self) -> None:
    """Ends the simulation and its processes."""
    self._requests.put(None)
    self._thread.join(timeout=60)
    shutil.rmtree(self._folder, ignore_errors=True)

  def _wait(self):
    found = self._replies.get(timeout=_TIMEOUT)
    if found is not None:
      raise RuntimeError("Flower's simulation failed") from found

  def _simulate(self, job, registered, num_clients):
    try:
      self._run_simulation(job, registered, num_clients)
    except BaseException as error:  # To the thread that waits.
      self._replies.put(error)

  def _run_simulation(self, job, registered, num_clients):
    from flwr.app import ArrayRecord, ConfigRecord  # pyright: ignore
    from flwr.clientapp import ClientApp  # pyright: ignore
    from flwr.serverapp import ServerApp  # pyright: ignore
    from flwr.serverapp.strategy import FedAvg  # pyright: ignore
    from flwr.simulation import run_simulation  # pyright: ignore

    server, client = ServerApp(), ClientApp()
    strategy = FedAvg(
      fraction_train=num_clients / registered,
      fraction_evaluate=0.0,
      min_train_nodes=num_clients,
      min_available_nodes=registered,
    )

    @client.train()
    def train(message, context):
      return _train(job, message, context)

    @server.main()
    def main(grid, context):
      del context
      arrays = ArrayRecord(self.twin.state_dict())
      self._replies.put(None)
      while (round := self._requests.get()) is not None:
        messages = strategy.configure_train(
          round + 1, arrays, ConfigRecord(), grid
        )
        replies = list(grid.send_and_receive(messages, timeout=_TIMEOUT))
        arrays, _ = strategy.aggregate_train(round + 1, replies)
        failed = sum(reply.has_error() for reply in replies)
        if arrays is None or failed or len(replies) != num_clients:
          raise RuntimeError(
            f"{failed} of {len(replies)} clients failed; {num_clients} were"
            " asked"
          )
        self.twin.load_state_dict(arrays.to_torch_state_dict())
        self._replies.put(None)

    logging.getLogger("flwr").setLevel(logging.ERROR)
    cores = len(os.sched_getaffinity(0))
    run_simulation(
      server_app=server,
      client_app=client,
      num_supernodes=registered,
      backend_config={
        "init_args": {
          "num_cpus": cores,
          "include_dashboard": False,
          "log_to_driver": False,
        },
        "client_resources": {"num_cpus": 1, "num_gpus": 0.0},
      },
    )


def start(setting: Any) -> Simulation:
  """The simulation of a benchmark's setting, in a folder of its own."""
  job = Job(
    model_name=setting.model_name,
    twin_fields=tuple(setting.twin_fields.items()),
    fields=setting.fields,
    batch_size=setting.batch_size,
    learning_rate=setting.learning_rate,
    folder=tempfile.mkdtemp(prefix="flower_"),
  )
  return Simulation(job, setting.params, setting.store, setting.num_clients)


def _write(job, params, store):
  folder = pathlib.Path(job.folder)
  np.save(folder / "params.npy", np.array(params, object), allow_pickle=True)
  np.savez(
    folder / "data.npz",
    offsets=store.offsets,
    **{name: store.examples[name] for name in job.fields},
  )


@functools.cache
def _load(job):
  """(twin, tensors, offsets), once for each actor."""
  torch = _torch_twins.import_torch()
  torch.set_num_threads(1)  # One core a client, as its resources say.
  folder = pathlib.Path(job.folder)
  params = np.load(folder / "params.npy", allow_pickle=True).item()
  with np.load(folder / "data.npz") as arrays:
    offsets = arrays["offsets"]
    tensors = _torch_twins.as_tensors(arrays, job.fields)
  twin = _torch_twins.make_twin(job.model_name, params, **dict(job.twin_fields))
  return twin, tensors, offsets


def _train(job, message, context):
  """One client's local training, as a reply."""
  from flwr.app import (  # pyright: ignore
    ArrayRecord,
    Message,
    MetricRecord,
    RecordDict,
  )

  torch = _torch_twins.import_torch()
  twin, tensors, offsets = _load(job)
  torch.set_num_threads(1)
  twin.load_state_dict(message.content["arrays"].to_torch_state_dict())
  number = int(context.node_config["partition-id"])
  first, last = int(offsets[number]), int(offsets[number + 1])
  trained = [p for p in twin.parameters() if p.requires_grad]
  optimizer = torch.optim.SGD(trained, lr=job.learning_rate)
  for start in range(first, last, job.batch_size):
    part = slice(start, min(start + job.batch_size, last))
    optimizer.zero_grad()
    batch = (tensor[part] for tensor in tensors)
    _torch_twins.batch_loss(twin, *batch).backward()
    optimizer.step()
  return Message(
    content=RecordDict(
      {
        "arrays": ArrayRecord(twin.state_dict()),
        "metrics": MetricRecord({"num-examples": last - first}),
      }
    ),
    reply_to=message,
  )
