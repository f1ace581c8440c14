"""Steps of the peers, on the same model, batch, noise and optimiser.

A peer that is not installed is left out by name; the record says so.
"""

import functools
import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments._benchmarks import _clipping_settings, _methods, _torch_models
from trustjax import privacy

Setting = _methods.Setting
Method = _methods.Method

_NEEDS = {
  "jax_privacy": ("jax_privacy",),
  "torch_non_private": ("torch",),
  "opacus_hooks": ("torch", "opacus"),
  "opacus_ghost": ("torch", "opacus"),
  "fastdp": ("torch", "transformers", "fastDP"),
}
# Why a peer is not raced on a model whose input and output tables are one.
_REFUSED_TIED = {
  "opacus_ghost": "Opacus ghost clipping refuses tied weights",
  "fastdp": (
    "fastDP is silently wrong on tied weights: the second use of the table"
    " overwrites the norm of the first, so records are clipped too little"
  ),
}
NAMES = tuple(_NEEDS)


def missing(name: str) -> list[str]:
  """Packages that a peer needs and that are not installed."""
  return [p for p in _NEEDS[name] if importlib.util.find_spec(p) is None]


def make_methods(
  setting: Setting, names, chunk_sizes
) -> tuple[list[Method], dict[str, str]]:
  """Builds the peers' methods.

  Args:
    setting: Model and batch.
    names: Peers to race.
    chunk_sizes: Records at a time for jax-privacy, which is raced whole and
      with each of them.

  Returns:
    (methods, name of a peer that is left out -> why).

  Raises:
    ValueError: Unknown peer.
  """
  methods, skipped = [], {}
  for name in names:
    if name not in _NEEDS:
      raise ValueError(f"peers: got {name!r}; allowed are {list(_NEEDS)}")
    if missing(name):
      skipped[name] = f"not installed: {', '.join(missing(name))}"
    elif name in _REFUSED_TIED and _torch_models.is_tied(setting):
      skipped[name] = _REFUSED_TIED[name]
    elif name == "jax_privacy":
      chunks = [c for c in chunk_sizes if setting.batch_size % c == 0]
      methods += [_jax_privacy(setting, chunk) for chunk in (None, *chunks)]
    elif setting.optimizer != "adam":
      skipped[name] = f"raced with Adam only, not with {setting.optimizer}"
    elif not _torch_models.knows(setting):
      skipped[name] = f"no PyTorch model of {setting.name} here"
    else:
      methods.append(_torch_method(setting, name))
  return methods, skipped


def _jax_privacy(setting, chunk):
  """jax-privacy's clipped gradient, then our noise and optimiser."""
  import jax_privacy

  plan = _methods.make_plan(setting)
  noise = privacy.add_noise(plan)
  optimizer = optax.chain(noise, _methods.make_optimizer(setting))

  def loss(params, batch, keys):
    # It keeps the batch axis, of length 1, in front of every record.
    example = jax.tree.map(lambda leaf: leaf[0], batch)
    key = jax.random.wrap_key_data(keys[0])
    return setting.loss_fn(params, example, key)[0]

  clipped = jax_privacy.clipped_grad(
    loss,
    l2_clip_norm=plan.rule.clip_norm,
    batch_argnums=(1, 2),
    microbatch_size=chunk,
  )

  def step(state, lot, key):
    params, opt_state = state
    # Its microbatching cannot reshape typed keys.
    keys = jax.random.key_data(privacy.record_keys(key, lot.ids))
    total = clipped(params, lot.examples, keys)
    updates, opt_state = optimizer.update(
      total, opt_state, params, key=key, clip_state=()
    )
    return (optax.apply_updates(params, updates), opt_state), jnp.zeros(())

  return Method(
    name=_methods.named("jax_privacy", chunk),
    init=lambda params: (
      jax.tree.map(jnp.copy, params),
      optimizer.init(params),
    ),
    step=jax.jit(step, donate_argnums=0),
    full_lot=_methods.full_lot(setting),
    # Rank promotion and memory make its whole batch slow enough for a few.
    is_slow=True,
  )


def _torch_method(setting, name):
  lot = _methods.full_lot(setting)
  examples = {key: np.asarray(leaf) for key, leaf in lot.examples.items()}
  trainer = _torch_models.Trainer(setting, name, examples)
  _clipping_settings.check_same_size(setting, trainer.num_params, name)

  def step(state, lot, key):
    del lot, key  # The same records, held as tensors.
    trainer.step()
    return state, 0.0

  return Method(
    name=name,
    init=functools.partial(lambda params: 0),
    step=step,
    full_lot=lot,
    on_host=True,
  )
