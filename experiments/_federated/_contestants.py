"""What the federated benchmark races: one round of training, by anybody.

A method is a function from the round's number to nothing: it selects a cohort,
fetches its data, trains every client for one epoch and moves the server, and
returns when all is done.
"""

import dataclasses
import functools
import importlib.util
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments._federated import (
  _flower_simulation,
  _settings,
  _torch_twins,
)
from trustjax import federated

_KEY = 0
_NEEDS = {
  "torch_loop": ("torch",),
  "pfl": ("torch", "pfl"),
  "flower": ("torch", "flwr", "ray"),
}
PEERS = tuple(_NEEDS)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Method:
  """Something that runs rounds.

  Attributes:
    name: Key of the record.
    run: Round number -> None.
    loss: Loss on the scored records after the rounds so far; None for the
      floor, which trains nothing.
    close: Ends what it started.
  """

  name: str
  run: Callable[[int], None]
  loss: Callable[[], float] | None
  close: Callable[[], None] = lambda: None


@functools.cache
def _root_key():
  """Key of the run, made once, as a training loop does."""
  return jax.random.key(_KEY)


def draw(setting: _settings.Setting, round: int) -> federated.Cohort:
  """The cohort of a round with its data, the same for every method."""
  cohort = federated.select_clients(
    _root_key(),
    round,
    setting.store.activity,
    size=setting.num_clients,
  )
  return setting.store.fetch(
    cohort, batch_size=setting.batch_size, seed=0, round=round
  )


def our_method(setting: _settings.Setting, name: str, **execution) -> Method:
  """FedAvg under one of our backends.

  Args:
    setting: Model and cohort.
    name: Key of the record.
    **execution: Of `run_round`.

  Returns:
    The method.
  """
  algorithm = federated.fedavg(
    setting.loss_fn, optax.sgd(setting.learning_rate)
  )
  key = _root_key()
  holder = [algorithm.init(setting.params)]

  def run(round):
    holder[0], metrics = federated.run_round(
      algorithm, holder[0], draw(setting, round), key, **execution
    )
    jax.block_until_ready((holder[0], metrics))

  return Method(
    name=name,
    run=run,
    loss=lambda: float(setting.mean_loss(holder[0].params)),
  )


def floor_method(setting: _settings.Setting) -> Method:
  """As many local steps as a round has, in one loop on one client's data.

  Nothing is selected, fetched, copied, differenced or averaged: no simulation
  of the same model in the same framework can be faster.
  """
  optimizer = optax.sgd(setting.learning_rate)
  data = jax.tree.map(lambda leaf: jnp.asarray(leaf[0]), draw(setting, 0).data)
  steps = int(data.valid.any(axis=-1).sum())
  total = steps * setting.num_clients

  @jax.jit
  def train(params, data, key):
    def step(i, carry):
      place = i % steps
      return federated.local_step(
        carry,
        jax.tree.map(lambda leaf: leaf[place], data.examples),
        data.valid[place],
        jax.random.fold_in(key, i),
        loss_fn=setting.loss_fn,
        optimizer=optimizer,
      )

    carry = federated.start_local(params, optimizer)
    return jax.lax.fori_loop(0, total, step, carry)

  def run(round):
    jax.block_until_ready(train(setting.params, data, jax.random.key(round)))

  return Method(name="floor", run=run, loss=None)


def make_peers(
  setting: _settings.Setting, names: Sequence[str]
) -> tuple[list[Method], dict[str, str]]:
  """The peers that are installed.

  Args:
    setting: Model and cohort.
    names: Peers to race.

  Returns:
    (methods, name of a peer that is left out -> why).

  Raises:
    ValueError: Unknown peer.
  """
  makers = {"torch_loop": _torch_loop, "pfl": _pfl, "flower": _flower}
  methods, skipped = [], {}
  for name in names:
    if name not in _NEEDS:
      raise ValueError(f"peers: got {name!r}; allowed are {list(_NEEDS)}")
    missing = [p for p in _NEEDS[name] if importlib.util.find_spec(p) is None]
    if missing:
      skipped[name] = f"not installed: {', '.join(missing)}"
    else:
      methods.append(makers[name](setting))
  return methods, skipped


def _make_twin(setting):
  return _torch_twins.make_twin(
    setting.model_name, setting.params, **setting.twin_fields
  )


def _scored_loss(setting, twin):
  torch = _torch_twins.import_torch()
  scored = _torch_twins.as_tensors(setting.scored, setting.fields)

  def loss():
    twin.eval()
    with torch.no_grad():
      found = float(_torch_twins.batch_loss(twin, *scored))
    twin.train()
    return found

  return loss


def _torch_loop(setting) -> Method:
  """A plain loop over clients and batches, as most code is written."""
  torch = _torch_twins.import_torch()
  twin = _make_twin(setting)
  trained = [p for p in twin.parameters() if p.requires_grad]

  def run(round):
    cohort = draw(setting, round)
    data: Any = cohort.data
    examples = _torch_twins.as_tensors(data.examples, setting.fields)
    live = np.any(data.valid, axis=-1)
    start = [p.detach().clone() for p in trained]
    total = [torch.zeros_like(p) for p in start]
    for slot in np.flatnonzero(cohort.valid):
      with torch.no_grad():
        for parameter, first in zip(trained, start):
          parameter.copy_(first)
      optimizer = torch.optim.SGD(trained, lr=setting.learning_rate)
      for i in np.flatnonzero(live[slot]):
        count = int(data.valid[slot, i].sum())  # The last may be short.
        batch = [leaf[slot, i, :count] for leaf in examples]
        optimizer.zero_grad()
        _torch_twins.batch_loss(twin, *batch).backward()
        optimizer.step()
      weight = float(cohort.weights[slot])
      with torch.no_grad():
        for part, parameter in zip(total, trained):
          part.add_(parameter, alpha=weight)
    with torch.no_grad():
      for parameter, mean in zip(trained, total):
        parameter.copy_(mean)

  return Method(name="torch_loop", run=run, loss=_scored_loss(setting, twin))


def _pfl(setting) -> Method:
  """FedAvg as pfl simulates it: its backend, local loop and averaging.

  Rounds are driven one by one through its public pieces, without callbacks and
  without evaluation, which is the least that it can do.
  """
  # Imports register pfl's PyTorch functions.
  import pfl.internal.ops.pytorch_ops  # noqa: F401  # pyright: ignore
  from pfl.aggregate.simulate import SimulatedBackend  # pyright: ignore
  from pfl.algorithm.federated_averaging import (  # pyright: ignore
    FederatedAveraging,
  )
  from pfl.context import CentralContext  # pyright: ignore
  from pfl.model.pytorch import PyTorchModel  # pyright: ignore

  torch = _torch_twins.import_torch()
  twin = _make_twin(setting)
  twin.loss = functools.partial(_torch_twins.batch_loss, twin)
  twin.metrics = lambda *data: {}
  data = _pfl_data(setting)
  model = PyTorchModel(
    twin,
    torch.optim.SGD,
    torch.optim.SGD([p for p in twin.parameters() if p.requires_grad], lr=1.0),
  )
  backend = SimulatedBackend(training_data=data, val_data=data)
  algorithm = FederatedAveraging()
  fields = _pfl_fields(setting)

  def run(round):
    context = CentralContext(
      current_central_iteration=round, seed=round, **fields
    )
    statistics, metrics = backend.gather_results(
      model, algorithm, central_context=context
    )
    algorithm.process_aggregated_statistics(context, metrics, model, statistics)

  return Method(name="pfl", run=run, loss=_scored_loss(setting, twin))


def _pfl_data(setting):
  """The store's clients as pfl's users, drawn without repetition."""
  from pfl.data.dataset import Dataset  # pyright: ignore
  from pfl.data.federated_dataset import FederatedDataset  # pyright: ignore

  tensors = _torch_twins.as_tensors(setting.store.examples, setting.fields)
  offsets = setting.store.offsets

  def user_data(user):
    part = slice(int(offsets[user]), int(offsets[user + 1]))
    return Dataset([tensor[part] for tensor in tensors], user_id=user)

  rng = np.random.default_rng(0)
  chosen: list[int] = []

  def next_user():
    if not chosen:
      clients = setting.store.num_clients
      chosen.extend(rng.permutation(clients)[: setting.num_clients].tolist())
    return chosen.pop()

  return FederatedDataset(user_data, next_user)


def _pfl_fields(setting) -> dict[str, Any]:
  """What a round of the setting is, in pfl's words."""
  from pfl.algorithm.base import NNAlgorithmParams  # pyright: ignore
  from pfl.common_types import Population  # pyright: ignore
  from pfl.hyperparam.base import NNTrainHyperParams  # pyright: ignore

  size = setting.num_clients
  return dict(
    do_evaluation=False,
    cohort_size=size,
    population=Population.TRAIN,
    algorithm_params=NNAlgorithmParams(
      central_num_iterations=1,
      evaluation_frequency=1,
      train_cohort_size=size,
      val_cohort_size=0,
    ),
    model_train_params=NNTrainHyperParams(
      local_learning_rate=setting.learning_rate,
      local_num_epochs=1,
      local_batch_size=setting.batch_size,
    ),
  )


def _flower(setting) -> Method:
  """FedAvg as Flower simulates it: its strategy, grid and Ray actors."""
  simulation = _flower_simulation.start(setting)
  return Method(
    name="flower",
    run=simulation.run,
    loss=_scored_loss(setting, simulation.twin),
    close=simulation.close,
  )
