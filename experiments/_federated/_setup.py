"""What federated studies share: data on devices, model, algorithm, scores."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import optax

from experiments._binary import _config_flags
from experiments._private_training import _arms
from trustjax import data, federated, models, training

# What generators and root keys of a seed are drawn for.
_ACTIVITY, _MIXTURES, _OWNERS, _PERIODS = range(4)
_INIT, _TRAIN = range(2)
_CHUNK = 128  # Windows of characters that are scored at a time.


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
  """What all seeds and arms share.

  Attributes:
    name: Of the data.
    train: Training records, leading axis [records].
    classes: What arrives over time: the intent or the play of each record.
    groups: What devices differ in: its domain, intent or play.
    users: Speaker of each training record, or None where none is known.
    loss_fn: Loss of one record.
    init: Key to first parameters.
    evaluate: (parameters, split) to named scores.
    by_class: Parameters to the test accuracy of each class, nan where the test
      set has none; None where records have no class of their own.
    num_classes: Classes.
    headline: Name of the score that studies compare.
    describe: The task as JSON-able data, for records and checkpoints.
  """

  name: str
  train: dict[str, np.ndarray]
  classes: np.ndarray
  groups: np.ndarray
  users: np.ndarray | None
  loss_fn: Callable
  init: Callable[[jax.Array], Any]
  evaluate: Callable[[Any, str], dict[str, float]]
  by_class: Callable[[Any], np.ndarray] | None
  num_classes: int
  headline: str
  describe: dict[str, Any]

  @property
  def num_train(self) -> int:
    """Training records."""
    return len(self.groups)


def make_task(config: _config_flags.Config) -> Task:
  """Loads the data and builds the model and its loss.

  Args:
    config: With `data`, `model` and `seed`.

  Returns:
    The task: tagging, or next characters for "shakespeare".

  Raises:
    ValueError: A field of data or model is impossible.
    FileNotFoundError: A file of the data set is missing.
  """
  fields = _arms.given(config.data)
  if fields["name"] == "shakespeare":
    return _character_task(config)
  corpus = _load_corpus(fields, config.seed)
  prepared = data.prepare(corpus, **fields)
  intents = np.asarray(prepared.train["intent"])
  domains = [utterance.domain for utterance in corpus.train]
  users = [utterance.user for utterance in corpus.train]
  model = models.make_model(
    vocab_size=prepared.vocab_size,
    num_intents=len(prepared.intents),
    num_slots=len(prepared.slot_labels),
    max_length=prepared.max_length,
    **_arms.given(config.model),
  )

  def evaluate(params, split):
    found = models.evaluate(
      model, params, prepared.split(split), prepared.slot_labels
    )
    return {
      name: float(value)
      for name, value in dataclasses.asdict(found).items()
      if name != "num_records"
    }

  def by_class(params):
    test = prepared.split("test")
    found, _ = models.predict(model, params, test)
    known = test["intent"] >= 0  # Training never saw the others.
    truth, right = test["intent"][known], (found == test["intent"])[known]
    counts = np.bincount(truth, minlength=len(prepared.intents))
    hits = np.bincount(truth[right], minlength=len(prepared.intents))
    return np.where(counts > 0, hits / np.maximum(counts, 1), np.nan)

  return Task(
    name=prepared.name,
    train=prepared.train,
    classes=intents,
    groups=intents if None in domains else np.asarray(domains),
    users=None if None in users else np.asarray(users),
    loss_fn=models.losses.joint_loss(model),
    init=model.init,
    evaluate=evaluate,
    by_class=by_class,
    num_classes=len(prepared.intents),
    headline="intent_accuracy",
    describe={
      "data": prepared.fingerprint(),
      "model": _arms.given(config.model),
    },
  )


def _load_corpus(fields: dict[str, Any], seed: int) -> data.NluCorpus:
  """Loads the corpus, and takes the fields that name it."""
  options = {}
  num_train = fields.pop("num_train", None)
  if fields["name"] == "synthetic":
    options["num_train"] = num_train
  return data.load_corpus(
    fields.pop("name"),
    manual_dir=fields.pop("manual_dir") or None,
    data_dir=fields.pop("data_dir") or None,
    seed=seed,
    **options,
  )


def _character_task(config) -> Task:
  """Next characters of plays, each role a user."""
  if not config.data.manual_dir:
    raise ValueError(
      "data.manual_dir: got ''; 'shakespeare' needs the folder of a file of"
      " JSON lines with play, role and text"
    )
  corpus = data.load_plays(
    config.data.manual_dir, length=config.data.max_length or 80
  )
  model = models.make_language_model(
    vocab_size=len(corpus.characters),
    max_length=corpus.train["tokens"].shape[1],
    **_arms.given(config.model),
  )
  loss_fn = models.losses.language_model_loss(model)

  @jax.jit
  def score(params, chunk):
    loss, aux = jax.vmap(lambda record: loss_fn(params, record, None))(chunk)
    count = aux["num_predicted"]
    return (
      count.sum(),
      (loss * count).sum(),
      (aux["token_correct"] * count).sum(),
    )

  def evaluate(params, split):
    arrays, totals = getattr(corpus, split), np.zeros(3)
    records = len(arrays["tokens"])
    for start in range(0, records, _CHUNK):
      rows = np.arange(start, start + _CHUNK)
      live = rows < records
      chunk = {
        name: array[np.minimum(rows, records - 1)]
        for name, array in arrays.items()
      }
      chunk["mask"] = chunk["mask"] & live[:, None]
      totals += np.array([float(x) for x in score(params, chunk)])
    count, loss, correct = totals.tolist()
    return {
      "character_accuracy": correct / count,
      "nats_per_character": loss / count,
    }

  return Task(
    name="shakespeare",
    train=corpus.train,
    classes=corpus.plays,
    groups=corpus.plays,
    users=corpus.roles,
    loss_fn=loss_fn,
    init=model.init,
    evaluate=evaluate,
    by_class=None,
    num_classes=0,
    headline="character_accuracy",
    describe={
      "data": corpus.fingerprint(),
      "model": _arms.given(config.model),
    },
  )


def make_partition(
  task: Task, population: _config_flags.Config, seed: int
) -> federated.Partition:
  """Which device holds which utterance.

  Args:
    task: The task.
    population: `kind` "activity" (heavy-tailed counts, Dirichlet mixtures of
      domains), "dirichlet", "uniform", "domain" or "user".
    seed: Seed of the population.

  Returns:
    The partition.

  Raises:
    ValueError: The kind is unknown, or the data do not tell their users.
  """
  count, records = population.num_devices, task.num_train
  rng = functools.partial(_generator, seed)
  if population.kind == "user":
    if task.users is None:
      raise ValueError(
        "population.kind: got 'user', but the data do not say who spoke; use"
        " 'activity', 'dirichlet', 'uniform' or 'domain'"
      )
    return federated.natural_partition(task.users)
  if population.kind == "domain":
    return federated.natural_partition(task.groups)
  if population.kind == "uniform":
    return federated.uniform_partition(records, count, rng(_OWNERS))
  if population.kind == "dirichlet":
    return federated.dirichlet_label_partition(
      task.groups, count, population.alpha, rng(_OWNERS)
    )
  if population.kind != "activity":
    raise ValueError(
      f"population.kind: got {population.kind!r}; allowed are 'activity',"
      " 'dirichlet', 'uniform', 'domain' and 'user'"
    )
  draw = {
    "lognormal": functools.partial(
      federated.lognormal_activity, sigma=population.sigma
    ),
    "zipf": functools.partial(
      federated.zipf_activity, exponent=population.exponent
    ),
  }
  if population.activity not in draw:
    raise ValueError(
      f"population.activity: got {population.activity!r}; allowed are"
      f" {list(draw)}"
    )
  sizes = federated.scale_to_total(
    draw[population.activity](count, rng(_ACTIVITY)), records
  )
  _, counts = np.unique(task.groups, return_counts=True)
  mixtures = rng(_MIXTURES).dirichlet(
    population.alpha * counts / counts.sum() * counts.size, size=count
  )
  return federated.mixture_partition(task.groups, sizes, mixtures, rng(_OWNERS))


def make_stream(
  task: Task,
  partition: federated.Partition,
  config: _config_flags.Config,
  seed: int,
) -> federated.ClientStream:
  """The devices' data with their time of arrival.

  Args:
    task: The task.
    partition: Which device holds what.
    config: `num_periods`, and `drift` "iid", "class_arrival" or "drift".
    seed: Seed of the arrivals.

  Returns:
    The stream.

  Raises:
    ValueError: The drift is unknown.
  """
  rng, periods = _generator(seed, _PERIODS), config.num_periods
  ways = {
    "iid": lambda: federated.iid_periods(task.num_train, periods, rng),
    "class_arrival": lambda: federated.class_arrival_periods(
      task.classes, periods, rng
    ),
    "drift": lambda: federated.drift_periods(task.groups, periods, rng),
  }
  if config.drift not in ways:
    raise ValueError(
      f"stream.drift: got {config.drift!r}; allowed are {list(ways)}"
    )
  owners = np.empty(task.num_train, np.int64)
  owners[partition.indices] = np.repeat(
    np.arange(partition.num_clients), partition.sizes
  )
  return federated.ClientStream(
    examples=task.train,
    owners=owners,
    periods=ways[config.drift](),
    num_clients=partition.num_clients,
    num_periods=periods,
  )


def make_algorithm(
  loss_fn: Callable, config: _config_flags.Config, num_clients: int
) -> federated.FederatedAlgorithm:
  """An algorithm by name.

  Args:
    loss_fn: Loss of one record.
    config: `name`, `client_optimizer`, `client_learning_rate`,
      `server_learning_rate`, `server_momentum` and `mu`.
    num_clients: Registered devices.

  Returns:
    The algorithm.

  Raises:
    ValueError: A name is unknown.
  """
  clients = {"sgd": optax.sgd, "adam": optax.adam, "adamw": optax.adamw}
  if config.client_optimizer not in clients:
    raise ValueError(
      f"algorithm.client_optimizer: got {config.client_optimizer!r}; allowed"
      f" are {list(clients)}"
    )
  local = clients[config.client_optimizer](config.client_learning_rate)
  rate = config.server_learning_rate
  makers = {
    "fedavg": lambda: federated.fedavg(loss_fn, local),
    "fedprox": lambda: federated.fedprox(loss_fn, local, mu=config.mu),
    "fedadam": lambda: federated.fedadam(loss_fn, local, learning_rate=rate),
    "fedyogi": lambda: federated.fedyogi(loss_fn, local, learning_rate=rate),
    "fedavgm": lambda: federated.fedavgm(
      loss_fn, local, learning_rate=rate, momentum=config.server_momentum
    ),
    "scaffold": lambda: federated.scaffold(
      loss_fn,
      num_clients=num_clients,
      client_learning_rate=config.client_learning_rate,
      server_learning_rate=rate,
    ),
  }
  if config.name not in makers:
    raise ValueError(
      f"algorithm.name: got {config.name!r}; allowed are {list(makers)}"
    )
  return makers[config.name]()


def strategy_of(config: _config_flags.Config, kind: str) -> federated.Strategy:
  """A selection strategy with the config's parameters."""
  return federated.Strategy(
    kind=kind,
    gamma=config.gamma,
    temperature=config.temperature,
    min_activity=config.min_activity,
    epsilon=config.epsilon,
  )


def root_key(seed: int) -> jax.Array:
  """Key of the cohorts and of local training."""
  return jax.random.fold_in(jax.random.key(seed), _TRAIN)


def first_params(task: Task, seed: int):
  """First parameters, the same for every arm of a seed."""
  return jax.jit(task.init)(jax.random.fold_in(jax.random.key(seed), _INIT))


def scores(task: Task, params, split: str) -> dict[str, float]:
  """Scores on a split, named for metrics.jsonl."""
  found = task.evaluate(params, split)
  return {f"{split}/{name}": value for name, value in found.items()}


def checkpointer(folder, identity) -> training.Checkpointer:
  """The checkpoints of a run."""
  return training.Checkpointer(folder / "checkpoints", identity=identity)


def _generator(seed, purpose):
  return np.random.default_rng([seed, purpose])
