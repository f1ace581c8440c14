"""PyTorch twins of the benchmark's models, for peers that train those.

Written as a PyTorch user would write them for Opacus and fastDP: linear and
embedding layers, layer norms, attention by matrix products. Sizes are read off
the parameters of the JAX model, so that both have the same number of them.
"""

import contextlib
import io
import os
from typing import Any

import jax
import numpy as np

from experiments._benchmarks import _methods

Setting = _methods.Setting

_LEARNING_RATE = 1e-3
_HEADS = 4


def knows(setting: Setting) -> bool:
  """Whether there is a twin of the setting's model."""
  return _kind(setting) is not None


def is_tied(setting: Setting) -> bool:
  """Whether input and output embedding are one table."""
  return _kind(setting) == "decoder" and "unembed" not in _shapes(setting)


def _kind(setting):
  for kind in ("transformer", "decoder", "mean_pool"):
    if setting.name.startswith(kind):
      return kind
  return None


def _shapes(setting) -> dict[str, Any]:
  """First key of the parameters to the shapes below it."""
  return jax.tree.map(np.shape, setting.params)


class Trainer:
  """A model with its optimiser: non-private, by Opacus, or by fastDP."""

  def __init__(self, setting: Setting, method: str, examples: dict):
    """Builds model, optimiser and the batch.

    Args:
      setting: Model and batch.
      method: "torch_non_private", "opacus_hooks", "opacus_ghost" or "fastdp".
      examples: The batch.
    """
    import torch  # pyright: ignore[reportMissingImports]

    torch.manual_seed(0)
    # Threads beyond the cores this process may use only wait for each other.
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    self._torch = torch
    model = _make_model(setting, _kind(setting))
    self.num_params = sum(p.numel() for p in model.parameters())
    self._tokens = torch.as_tensor(examples["tokens"], dtype=torch.long)
    self._targets = _targets(torch, setting, examples)
    self._criterion = _Criterion(torch)
    optimizer = torch.optim.Adam(model.parameters(), lr=_LEARNING_RATE)
    if method == "torch_non_private":
      self._model, self._optimizer = model, optimizer
    elif method == "fastdp":
      _attach_fastdp(setting, model, optimizer)
      self._model, self._optimizer = model, optimizer
    else:
      self._wrap_by_opacus(setting, method, model, optimizer)

  def _wrap_by_opacus(self, setting, method, model, optimizer):
    import opacus  # pyright: ignore[reportMissingImports]
    import opacus.utils.fast_gradient_clipping_utils as fast_gradient_clipping  # pyright: ignore

    ghost = method == "opacus_ghost"
    wrap = (
      opacus.grad_sample.GradSampleModuleFastGradientClipping
      if ghost
      else opacus.GradSampleModule
    )
    options = {"max_grad_norm": 1.0} if ghost else {}
    self._model = wrap(model, batch_first=True, **options)
    make = (
      opacus.optimizers.DPOptimizerFastGradientClipping
      if ghost
      else opacus.optimizers.DPOptimizer
    )
    self._optimizer = make(
      optimizer,
      noise_multiplier=1.0,
      max_grad_norm=1.0,
      expected_batch_size=setting.batch_size,
    )
    if ghost:
      self._criterion = fast_gradient_clipping.DPLossFastGradientClipping(
        self._model, self._optimizer, self._criterion
      )

  def step(self) -> None:
    """Takes one step on the batch."""
    self._optimizer.zero_grad()
    loss = self._criterion(self._model(self._tokens), self._targets)
    loss.backward()
    self._optimizer.step()


def _attach_fastdp(setting, model, optimizer):
  """Hooks fastDP into model and optimiser, in its fastest exact mode.

  Gradients start at the embeddings ("origin parameters"), all of them: a table
  that is not named is silently not trained.
  """
  import fastDP  # pyright: ignore[reportMissingImports]

  with contextlib.redirect_stdout(io.StringIO()):  # It reports its settings.
    engine = fastDP.PrivacyEngine(
      model,
      batch_size=setting.batch_size,
      sample_size=setting.num_records,
      epochs=1,
      noise_multiplier=1.0,
      max_grad_norm=1.0,
      clipping_fn="Abadi",
      clipping_mode="MixOpt",
      clipping_style="all-layer",
      loss_reduction="mean",
      origin_params=["words", "positions"],
    )
    engine.attach(optimizer)


def _targets(torch, setting, examples):
  """Labels of all positions, then of the record: [batch, labels]."""
  if _kind(setting) == "decoder":
    return torch.as_tensor(examples["tokens"][:, 1:], dtype=torch.long)
  intent = torch.as_tensor(examples["intent"], dtype=torch.long)
  if _kind(setting) == "mean_pool":
    return intent[:, None]
  slots = torch.as_tensor(examples["slots"], dtype=torch.long)
  return torch.cat([slots, intent[:, None]], dim=1)


class _Criterion:
  """Mean of each record's mean losses, one per head.

  Opacus' ghost clipping asks for the losses of single records by `reduction`.
  """

  def __init__(self, torch):
    self.reduction = "mean"
    self._torch = torch

  def __call__(self, outputs, targets, shape=None) -> Any:
    del shape
    losses: Any = 0.0
    start = 0
    for logits in outputs if isinstance(outputs, tuple) else (outputs,):
      stop = start + logits.shape[1]
      each = self._torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), targets[:, start:stop].flatten(), reduction="none"
      )
      losses = losses + each.view(logits.shape[0], -1).mean(dim=1)
      start = stop
    return losses.mean() if self.reduction == "mean" else losses


def _make_model(setting, kind):
  import torch  # pyright: ignore[reportMissingImports]

  if kind == "mean_pool":
    return _make_mean_pool(torch, _shapes(setting))
  causal = kind == "decoder"
  return _make_transformer(
    torch, _shapes(setting), causal=causal, tied=causal and is_tied(setting)
  )


def _make_mean_pool(torch, shapes):
  nn = torch.nn

  class MeanPool(nn.Module):
    """Mean of embeddings, linear classes; the slot head stands by."""

    def __init__(self):
      super().__init__()
      self.words = nn.Embedding(*shapes["words"]["embedding"])
      self.intent = nn.Linear(*shapes["intent"]["kernel"])
      self.slots = nn.Linear(*shapes["slots"]["kernel"])
      for parameter in self.slots.parameters():
        parameter.requires_grad_(False)

    def forward(self, tokens):
      return self.intent(self.words(tokens).mean(dim=1, keepdim=True))

  return MeanPool()


def _make_transformer(torch, shapes, *, causal, tied):
  nn = torch.nn
  layers = [name for name in shapes if name.startswith("layer_")]
  vocab, dim = shapes["words"]["embedding"]
  ff_dim = shapes[layers[0]]["ff_in"]["kernel"][1]
  layer_class = _layer_class(torch, dim, ff_dim, causal)

  class Transformer(nn.Module):
    """Encoder with joint heads, or decoder with word scores."""

    def __init__(self):
      super().__init__()
      self.words = nn.Embedding(vocab, dim)
      self.positions = nn.Embedding(_positions(shapes), dim)
      self.layers = nn.ModuleList([layer_class() for _ in layers])
      self.norm = nn.LayerNorm(dim)
      if causal:
        self.output = nn.Linear(dim, vocab, bias=False)
        if tied:
          self.output.weight = self.words.weight
      else:
        self.slots = nn.Linear(dim, shapes["head"]["slots"]["kernel"][1])
        self.intent = nn.Linear(dim, shapes["head"]["intent"]["kernel"][1])

    def forward(self, tokens):
      batch, time = tokens.shape
      # Opacus needs the batch axis on every layer's input.
      places = torch.arange(time).repeat(batch, 1)
      hidden = self.words(tokens) + self.positions(places)
      for layer in self.layers:
        hidden = layer(hidden)
      hidden = self.norm(hidden)
      if causal:
        return self.output(hidden[:, :-1].contiguous())
      return self.slots(hidden), self.intent(hidden.mean(dim=1, keepdim=True))

  return Transformer()


def _layer_class(torch, dim, ff_dim, causal):
  nn = torch.nn

  class Layer(nn.Module):
    """Pre-norm attention and feed-forward."""

    def __init__(self):
      super().__init__()
      self.norms = nn.ModuleList([nn.LayerNorm(dim) for _ in range(2)])
      self.qkv = nn.Linear(dim, 3 * dim)
      self.out = nn.Linear(dim, dim)
      self.ff_in = nn.Linear(dim, ff_dim)
      self.ff_out = nn.Linear(ff_dim, dim)

    def forward(self, hidden):
      batch, time, _ = hidden.shape
      split = self.qkv(self.norms[0](hidden)).view(
        batch, time, 3, _HEADS, dim // _HEADS
      )
      query, key, value = split.permute(2, 0, 3, 1, 4)
      mixed = nn.functional.scaled_dot_product_attention(
        query, key, value, is_causal=causal
      )
      mixed = mixed.transpose(1, 2).reshape(batch, time, dim)
      hidden = hidden + self.out(mixed)
      widened = nn.functional.gelu(
        self.ff_in(self.norms[1](hidden)), approximate="tanh"
      )
      return hidden + self.ff_out(widened)

  return Layer


def _positions(shapes):
  positions = shapes["positions"]
  return (
    positions["embedding"][0] if isinstance(positions, dict) else (positions[0])
  )
