"""Tasks of the federated benchmark: random records on clients of equal size."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from trustjax import federated, models

IMAGE_MODEL = "cnn"
_SCORED = 64  # Records of the loss that all methods must agree on.
_TEXT_FIELDS = ("tokens", "slots", "intent")
_IMAGE_FIELDS = ("image", "label")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setting:
  """A model and a cohort.

  Attributes:
    key: For records, such as "mean_pool_m100".
    model_name: Name of the model.
    num_clients: Clients of a round.
    batch_size: Examples of a local step.
    learning_rate: Of the clients' SGD.
    params: First parameters.
    loss_fn: Loss of one record.
    store: The registered clients; all hold equally many records.
    scored: Records that the final loss is taken on.
    mean_loss: Parameters to the mean loss of the scored records.
    fields: Arrays of a record that a PyTorch twin reads, in its order.
    twin_fields: What a twin must be told besides the parameters.
  """

  key: str
  model_name: str
  num_clients: int
  batch_size: int
  learning_rate: float
  params: Any
  loss_fn: Callable
  store: federated.ClientStore
  scored: dict[str, np.ndarray]
  mean_loss: Callable[[Any], jax.Array]
  fields: tuple[str, ...]
  twin_fields: dict[str, Any]


def make_setting(
  model: str,
  num_clients: int,
  *,
  registered: int,
  examples_per_client: int,
  length: int,
  vocab_size: int,
  num_intents: int,
  num_slots: int,
  batch_size: int,
  learning_rate: float,
  **fields,
) -> Setting:
  """Random records on clients of equal size.

  Args:
    model: Name of a tagger, or "cnn" for the classifier of images.
    num_clients: Clients of a round.
    registered: Clients registered; at least those of a round are.
    examples_per_client: Records that each holds.
    length: Tokens of an utterance, without padding.
    vocab_size: Words.
    num_intents: Intents.
    num_slots: Slot labels.
    batch_size: Examples of a local step.
    learning_rate: Of the clients' SGD.
    **fields: Further fields of the model.

  Returns:
    The setting.

  Raises:
    ValueError: A field is impossible.
  """
  rng = np.random.default_rng(0)
  if model == IMAGE_MODEL:
    task = _image_task(rng, fields)
  else:
    task = _text_task(
      rng, model, length, vocab_size, num_intents, num_slots, fields
    )
  clients = max(registered, num_clients)
  total = clients * examples_per_client
  examples, scored = task.records(total), task.records(_SCORED)

  @jax.jit
  def mean_loss(params):
    losses = jax.vmap(lambda record: task.loss_fn(params, record, None)[0])
    return jnp.mean(losses(scored))

  return Setting(
    key=f"{model}_m{num_clients}",
    model_name=model,
    num_clients=num_clients,
    batch_size=batch_size,
    learning_rate=learning_rate,
    params=jax.jit(task.init)(jax.random.key(1)),
    loss_fn=task.loss_fn,
    store=federated.ClientStore(
      examples=examples,
      indices=np.arange(total),
      offsets=np.arange(clients + 1) * examples_per_client,
    ),
    scored=scored,
    mean_loss=mean_loss,
    fields=task.fields,
    twin_fields=task.twin_fields,
  )


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Task:
  """A model, its loss, and a source of records."""

  init: Callable
  loss_fn: Callable
  records: Callable[[int], dict[str, np.ndarray]]
  fields: tuple[str, ...]
  twin_fields: dict[str, Any]


def _text_task(rng, name, length, vocab_size, num_intents, num_slots, fields):
  """Utterances whose words and labels are drawn uniformly."""
  model = models.make_model(
    name,
    vocab_size=vocab_size,
    num_intents=num_intents,
    num_slots=num_slots,
    max_length=length,
    **fields,
  )

  def records(count):
    return {
      "tokens": rng.integers(2, vocab_size, (count, length), np.int32),
      "mask": np.ones((count, length), bool),
      "intent": rng.integers(0, num_intents, count, np.int32),
      "slots": rng.integers(0, num_slots, (count, length), np.int32),
    }

  return _Task(
    init=model.init,
    loss_fn=models.losses.joint_loss(model),
    records=records,
    fields=_TEXT_FIELDS,
    twin_fields={"num_intents": num_intents},
  )


def _image_task(rng, fields):
  """Images of CIFAR-10's shape: the mean of a class's picture and of noise.

  Pictures and noise are drawn uniformly. Nothing about accuracy on real images
  follows; that a class has a picture only lets the loss fall.
  """
  model = models.image_cnn(**fields)
  shape = (32, 32, 3)
  pictures = rng.integers(0, 128, (10, *shape), np.uint8)

  def records(count):
    label = rng.integers(0, 10, count, np.int32)
    image = rng.integers(0, 128, (count, *shape), np.uint8)
    image += pictures[label]
    return {"image": image, "label": label}

  rates = ("feature_dropout", "hidden_dropout")
  return _Task(
    init=model.init,
    loss_fn=models.losses.label_loss(model),
    records=records,
    fields=_IMAGE_FIELDS,
    twin_fields={rate: fields.get(rate, 0.0) for rate in rates},
  )
