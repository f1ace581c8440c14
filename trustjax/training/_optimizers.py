"""Optimisers by name, for configs. Any other optax optimiser works as well."""

import optax

_OPTIMIZERS = {
  "adam": optax.adam,
  "adamw": optax.adamw,
  "sgd": optax.sgd,
}
_DECAYS = ("constant", "cosine", "linear")


def make_optimizer(
  name: str,
  learning_rate: float,
  num_steps: int,
  *,
  decay: str = "constant",
  warmup_steps: int = 0,
  **fields,
) -> optax.GradientTransformation:
  """Builds an optax optimiser with a learning-rate schedule.

  Args:
    name: "adam", "adamw" or "sgd".
    learning_rate: Peak learning rate.
    num_steps: Steps of the run, which the schedule spans.
    decay: "constant", or "cosine" or "linear" to zero at the last step.
    warmup_steps: Steps of linear warm-up from zero.
    **fields: Further arguments of the optimiser, such as `momentum`.

  Returns:
    The optimiser.

  Raises:
    ValueError: A name is unknown, or the learning rate is not positive.
  """
  if name not in _OPTIMIZERS:
    raise ValueError(
      f"optimizer.name: got {name!r}; allowed are {sorted(_OPTIMIZERS)}"
    )
  schedule = make_learning_rate(
    learning_rate, num_steps, decay=decay, warmup_steps=warmup_steps
  )
  return _OPTIMIZERS[name](schedule, **fields)


def make_learning_rate(
  learning_rate: float,
  num_steps: int,
  *,
  decay: str = "constant",
  warmup_steps: int = 0,
) -> optax.Schedule:
  """Builds the learning rate of `make_optimizer`, a function of the step.

  Args:
    learning_rate: Peak learning rate.
    num_steps: Steps of the run, which the schedule spans.
    decay: "constant", or "cosine" or "linear" to zero at the last step.
    warmup_steps: Steps of linear warm-up from zero.

  Returns:
    The schedule.

  Raises:
    ValueError: The decay is unknown, or a number out of range.
  """
  if decay not in _DECAYS:
    raise ValueError(
      f"optimizer.decay: got {decay!r}; allowed are {list(_DECAYS)}"
    )
  if not learning_rate > 0:
    raise ValueError(
      f"optimizer.learning_rate: got {learning_rate}; it must be positive"
    )
  if not 0 <= warmup_steps < num_steps:
    raise ValueError(
      f"optimizer.warmup_steps: got {warmup_steps}; it must lie between 0"
      f" and the run's {num_steps} steps"
    )
  rest = num_steps - warmup_steps
  schedule = {
    "constant": lambda: optax.constant_schedule(learning_rate),
    "cosine": lambda: optax.cosine_decay_schedule(learning_rate, rest),
    "linear": lambda: optax.linear_schedule(learning_rate, 0.0, rest),
  }[decay]()
  if warmup_steps:
    warmup = optax.linear_schedule(0.0, learning_rate, warmup_steps)
    schedule = optax.join_schedules([warmup, schedule], [warmup_steps])
  return schedule
