"""The methods that a step benchmark races, all on one model and one batch.

Every method is a whole training step: gradients, and where it says so clipping
and noise, then the setting's optimiser. Names:

  non_private, non_private_chunk<n>   mean gradient, whole or accumulated
  non_private_noise                   the same with the noise of a private step
  dp_sgd_<engine>[_chunk<n>]          per-record clipping by an engine
  edp_sgd_m<m>                        clip groups of m records
  deferred_noise                      noise of a table's row drawn when it is
                                      read (SGD only)
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
import optax

from trustjax import models, privacy, training

# Steps that a plan sets noise aside for; no race takes as many.
_MOST_STEPS = 10_000
_SAMPLING_RATE = 1 / 50
_SGD_RATE = 0.1
_OPTIMIZERS = {
  "adam": lambda: optax.adam(1e-3),
  "sgd": lambda: optax.sgd(_SGD_RATE),
}
OPTIMIZERS = tuple(_OPTIMIZERS)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setting:
  """A model and a batch of full-length synthetic records.

  Attributes:
    name: Of the model.
    batch_size: Records of a full batch, and expected records of a drawn lot.
    examples: Pool of records, arrays with leading axis [num_records].
    params: Initial parameters.
    loss_fn: Loss of one record.
    label: Prefix of the results; None makes it of name and batch size.
    optimizer: Of every method: "adam" or "sgd".
  """

  name: str
  batch_size: int
  examples: dict[str, np.ndarray]
  params: Any
  loss_fn: Callable
  label: str | None = None
  optimizer: str = "adam"

  def __post_init__(self):
    if self.optimizer not in OPTIMIZERS:
      raise ValueError(
        f"optimizer: got {self.optimizer!r}; allowed are {list(OPTIMIZERS)}"
      )

  @property
  def key(self) -> str:
    """Prefix of the setting's results."""
    return self.label or f"{self.name}_B{self.batch_size}"

  @property
  def num_records(self) -> int:
    """Records in the pool."""
    return len(self.examples["tokens"])


@dataclasses.dataclass(frozen=True, kw_only=True)
class Method:
  """One way to take a step.

  Attributes:
    name: Its name in tables and results.
    init: Parameters to train state.
    step: `(state, lot, key) -> (state, metrics)`.
    full_lot: A lot without padding.
    draw: Step to a drawn lot; None where lots are not drawn.
    on_host: Whether the step cannot be compiled whole: a Python loop, or
      another framework.
    is_slow: Whether a step takes so long that a few rounds have to do.
  """

  name: str
  init: Callable
  step: Callable
  full_lot: privacy.Lot
  draw: Callable[[int], privacy.Lot] | None = None
  on_host: bool = False
  is_slow: bool = False


def make_setting(
  name: str,
  batch_size: int,
  *,
  vocab_size: int,
  length: int,
  num_intents: int,
  num_slots: int,
  only_shapes: bool = False,
  **fields: Any,
) -> Setting:
  """Builds a model and records for it; words are Zipf distributed.

  Args:
    name: Model, as `models.make_model` knows it.
    batch_size: Records of a batch.
    vocab_size: Rows of the word table.
    length: Positions of a record, all of them used.
    num_intents: Intents.
    num_slots: Slot labels.
    only_shapes: Leave the parameters at their shapes, for those who compile
      and do not run.
    **fields: Further fields of the model.

  Returns:
    The setting, the same whenever it is built.

  Raises:
    ValueError: A field is impossible.
  """
  if batch_size < 1:
    raise ValueError(f"batch_sizes: got {batch_size}; each must be at least 1")
  model = models.make_model(
    name,
    vocab_size=vocab_size,
    num_intents=num_intents,
    num_slots=num_slots,
    max_length=length,
    **fields,
  )
  rng = np.random.default_rng(0)
  words = draw_words(rng, batch_size, vocab_size=vocab_size, length=length)
  shape = words.shape
  return Setting(
    name=model.name,
    batch_size=batch_size,
    examples={
      "tokens": words,
      "mask": np.ones(shape, bool),
      "intent": rng.integers(num_intents, size=shape[0], dtype=np.int32),
      "slots": rng.integers(num_slots, size=shape, dtype=np.int32),
    },
    params=make_params(model, only_shapes=only_shapes),
    loss_fn=models.losses.joint_loss(model),
  )


def make_params(model: Any, *, only_shapes: bool) -> Any:
  """A model's initial parameters, or their shapes alone."""
  key = jax.random.key(0)
  return jax.eval_shape(model.init, key) if only_shapes else model.init(key)


def draw_words(
  rng: np.random.Generator, batch_size: int, *, vocab_size: int, length: int
) -> np.ndarray:
  """Zipf-distributed words of a pool of records, int32 [records, length]."""
  frequency = 1.0 / np.arange(1, vocab_size + 1)
  shape = (round(batch_size / _SAMPLING_RATE), length)
  words = rng.choice(vocab_size, size=shape, p=frequency / frequency.sum())
  return words.astype(np.int32)


def make_methods(
  setting: Setting,
  *,
  engines: Sequence[str],
  chunk_sizes: Sequence[int],
  group_sizes: Sequence[int],
  drawn: Sequence[str] = ("",),
) -> tuple[Method, ...]:
  """Builds every method of a setting.

  Args:
    setting: Model and batch.
    engines: Clipping engines to race.
    chunk_sizes: Records at a time, for the non-private step and for engines
      that take chunks; those that do not divide the batch are left out.
    group_sizes: Sizes of clip groups.
    drawn: How the names of the private methods begin that may draw lots.

  Returns:
    The methods, non-private ones first.

  Raises:
    ValueError: An engine is unknown, a group size does not divide the batch,
      or an entry of `drawn` begins no name.
  """
  unknown = sorted(set(engines) - set(privacy.ENGINES))
  if unknown:
    raise ValueError(
      f"engines: got {unknown}; allowed are {list(privacy.ENGINES)}"
    )
  for size in group_sizes:
    if size < 2 or setting.batch_size % size:
      raise ValueError(
        f"group_sizes: got {size}; each must be at least 2 and divide the"
        f" batch of {setting.batch_size}"
      )
  chunks = [c for c in chunk_sizes if setting.batch_size % c == 0]
  methods = [non_private(setting, chunk) for chunk in (None, *chunks)]
  methods.append(non_private_noise(setting))
  for engine in engines:
    takes_chunks = engine not in ("loop", "loop_eager", "scan", "auto")
    for chunk in (None, *chunks) if takes_chunks else (None,):
      methods.append(dp_sgd(setting, engine, chunk))
  methods += [_edp_sgd(setting, size) for size in group_sizes]
  return _drawing_only(methods, tuple(drawn))


def _drawing_only(methods, drawn):
  """The methods, of which only those whose names begin like that draw lots."""
  private = [method.name for method in methods if method.draw is not None]
  for start in drawn:
    if private and not any(name.startswith(start) for name in private):
      raise ValueError(
        f"drawn: got {start!r}, which begins no name; private methods are"
        f" {private}"
      )
  return tuple(
    method
    if method.name.startswith(drawn)
    else dataclasses.replace(method, draw=None)
    for method in methods
  )


def make_optimizer(setting: Setting) -> optax.GradientTransformation:
  """The optimiser of every method."""
  return _OPTIMIZERS[setting.optimizer]()


def make_plan(setting: Setting, clip_group_size: int = 1) -> privacy.DpSgdPlan:
  """The plan of every private method."""
  return privacy.DpSgdPlan.make(
    num_records=setting.num_records,
    expected_batch_size=setting.batch_size,
    rule=privacy.ThresholdClip(clip_norm=1.0),
    clip_group_size=clip_group_size,
    num_steps=_MOST_STEPS,
    noise_multiplier=1.0,
  )


def full_lot(setting: Setting, clip_group_size: int = 1) -> privacy.Lot:
  """The first records of the pool, every slot taken."""
  ids = np.arange(setting.batch_size, dtype=np.int32)
  if clip_group_size > 1:
    ids = ids.reshape(-1, clip_group_size)
  return privacy.Lot(
    examples={name: leaf[ids] for name, leaf in setting.examples.items()},
    valid=np.ones(ids.shape, bool),
    ids=ids,
  )


def named(name: str, chunk: int | None) -> str:
  """A method's name with its chunk size."""
  return name if chunk is None else f"{name}_chunk{chunk}"


def non_private(setting: Setting, chunk: int | None) -> Method:
  """The mean gradient, whole or accumulated."""
  init, step = training.make_step(
    setting.loss_fn, make_optimizer(setting), chunk_size=chunk
  )
  return Method(
    name=named("non_private", chunk),
    init=init,
    step=step,
    full_lot=full_lot(setting),
  )


def non_private_noise(setting: Setting) -> Method:
  """What a private step would cost if clipping were free."""
  plan = make_plan(setting)
  noise = privacy.add_noise(plan)
  key = jax.random.key(0)

  def update(updates, state, params=None):
    # Noise goes on a sum; the mean gradient is one over the expected batch.
    total = jax.tree.map(lambda leaf: leaf * plan.expected_units, updates)
    step_key = jax.random.fold_in(key, state.step)
    return noise.update(total, state, params, key=step_key)

  optimizer = optax.chain(
    optax.GradientTransformation(noise.init, update), make_optimizer(setting)
  )
  init, step = training.make_step(setting.loss_fn, optimizer)
  return Method(
    name="non_private_noise",
    init=init,
    step=step,
    full_lot=full_lot(setting),
  )


def dp_sgd(
  setting: Setting, engine: str, chunk: int | None, name: str | None = None
) -> Method:
  """Per-record clipping by an engine."""
  plan = make_plan(setting)
  init, step = training.make_private_step(
    setting.loss_fn,
    make_optimizer(setting),
    plan,
    engine=engine,
    chunk_size=chunk,
  )
  return Method(
    name=name or named(f"dp_sgd_{engine}", chunk),
    init=init,
    step=step,
    full_lot=full_lot(setting),
    draw=drawer(setting, plan, chunk),
    on_host=engine in privacy.HOST_ENGINES,
    is_slow=engine in privacy.HOST_ENGINES,
  )


def deferred_noise(setting: Setting) -> Method:
  """SGD that draws the noise of a table's row when the row is read.

  Raises:
    ValueError: The setting's optimiser is not SGD, or no table of its model is
      only looked up.
  """
  if setting.optimizer != "sgd":
    raise ValueError(
      f"deferred_noise: got optimizer {setting.optimizer!r}; it is exact for"
      " 'sgd' only"
    )
  plan = make_plan(setting)
  init, step, _ = training.make_deferred_step(
    setting.loss_fn,
    _SGD_RATE,
    plan,
    setting.params,
    {name: leaf[0] for name, leaf in setting.examples.items()},
  )
  return Method(
    name="deferred_noise",
    init=init,
    step=step,
    full_lot=full_lot(setting),
    draw=drawer(setting, plan, None),
  )


def _edp_sgd(setting, size):
  plan = make_plan(setting, size)
  init, step = training.make_private_step(
    setting.loss_fn, make_optimizer(setting), plan
  )
  return Method(
    name=f"edp_sgd_m{size}",
    init=init,
    step=step,
    full_lot=full_lot(setting, size),
    draw=drawer(setting, plan, None),
  )


def drawer(setting: Setting, plan: privacy.DpSgdPlan, chunk: int | None):
  """Draws the plan's lots, padded to a multiple of the chunk."""
  return functools.partial(
    plan.draw_lot,
    setting.examples,
    0,
    capacity_multiple=32 if chunk is None else chunk,
  )
