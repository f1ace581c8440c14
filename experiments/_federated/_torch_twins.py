"""PyTorch twins of the federated benchmark's models, with the same weights.

Plain modules as a PyTorch user would write them: `nn.LSTM`, scaled dot-product
attention, `nn.Conv2d`, embedding tables. Their parameters are copied from the
JAX model, so that both start at the same place and a round must end at the same
place.
"""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

MODELS = ("logistic", "mean_pool", "bilstm", "transformer", "cnn")
_HEADS = 4


def import_torch() -> Any:
  """PyTorch, using the cores that this process may use and no more."""
  import torch  # pyright: ignore[reportMissingImports]

  torch.set_num_threads(len(os.sched_getaffinity(0)))
  return torch


def make_twin(name: str, params: Any, **fields) -> Any:
  """A module from the first array of a batch to scores.

  Taggers map tokens to (slot logits, intent logits), the classifier of images
  maps images to logits.

  Args:
    name: One of `MODELS`; records have no padding.
    params: Parameters of the JAX model.
    **fields: Of a tagger `num_intents` (the other outputs are slot labels), of
      "cnn" `feature_dropout` and `hidden_dropout`.

  Returns:
    The module.

  Raises:
    ValueError: There is no twin of that name.
  """
  numbers = jax.tree.map(np.asarray, params)
  makers = {
    "logistic": lambda: _logistic(numbers, **fields),
    "mean_pool": lambda: _mean_pool(numbers),
    "bilstm": lambda: _bilstm(numbers),
    "transformer": lambda: _transformer(numbers),
    "cnn": lambda: _cnn(numbers, **fields),
  }
  if name not in makers:
    raise ValueError(f"model: got {name!r}; allowed are {list(MODELS)}")
  return makers[name]()


def as_tensors(
  arrays: Mapping[str, np.ndarray], fields: Sequence[str]
) -> list[Any]:
  """The named arrays as tensors; whole numbers but pixels become int64."""
  torch = import_torch()
  tensors = [torch.as_tensor(arrays[field]) for field in fields]
  return [t if t.dtype == torch.uint8 else t.long() for t in tensors]


def _tensor(array):
  return import_torch().as_tensor(np.array(array))


def _table(fields):
  embedding = import_torch().nn.Embedding
  return embedding.from_pretrained(_tensor(fields["embedding"]), freeze=False)


def _linear(fields):
  layer = import_torch().nn.Linear(*fields["kernel"].shape)
  layer.weight.data = _tensor(fields["kernel"].T)
  layer.bias.data = _tensor(fields["bias"])
  return layer


def _norm(fields):
  layer = import_torch().nn.LayerNorm(fields["scale"].size, eps=1e-6)
  layer.weight.data = _tensor(fields["scale"])
  layer.bias.data = _tensor(fields["bias"])
  return layer


def _logistic(numbers, num_intents):
  nn = import_torch().nn

  class Logistic(nn.Module):
    def __init__(self):
      super().__init__()
      self.words = _table(numbers["words"])
      self.bias = nn.Parameter(_tensor(numbers["bias"]))
      self.cut = num_intents

    def forward(self, tokens):
      scores = self.words(tokens)
      intent = scores[..., : self.cut].mean(dim=1) + self.bias[: self.cut]
      return scores[..., self.cut :] + self.bias[self.cut :], intent

  return Logistic()


def _mean_pool(numbers):
  torch = import_torch()

  class MeanPool(torch.nn.Module):
    def __init__(self):
      super().__init__()
      self.words = _table(numbers["words"])
      self.intent = _linear(numbers["intent"])
      self.slots = _linear(numbers["slots"])
      dim = self.words.embedding_dim
      self.window = (self.slots.in_features // dim - 2) // 2

    def forward(self, tokens):
      words = self.words(tokens)
      pooled = words.mean(dim=1)
      time, near = tokens.shape[1], self.window
      padded = torch.nn.functional.pad(words, (0, 0, near, near))
      shifted = [padded[:, k : k + time] for k in range(2 * near + 1)]
      everywhere = pooled[:, None].expand_as(words)
      hidden = torch.cat([*shifted, everywhere], dim=-1)
      return self.slots(hidden), self.intent(pooled)

  return MeanPool()


def _lstm(fields):
  """Both directions, with our weights."""
  width = fields["recurrent"].shape[1]
  layer = import_torch().nn.LSTM(
    fields["input"].shape[0], width, bidirectional=True, batch_first=True
  )
  for k, end in enumerate(("l0", "l0_reverse")):
    part = slice(4 * width * k, 4 * width * (k + 1))
    for field, value in (
      ("weight_ih", fields["input"][:, part].T),
      ("weight_hh", fields["recurrent"][k].T),
      ("bias_ih", fields["bias"][part]),
      ("bias_hh", np.zeros(4 * width, np.float32)),
    ):
      getattr(layer, f"{field}_{end}").data = _tensor(value)
    # One bias a gate: two would learn twice as fast.
    getattr(layer, f"bias_hh_{end}").requires_grad_(False)
  return layer


def _bilstm(numbers):
  nn = import_torch().nn

  class BiLstm(nn.Module):
    def __init__(self):
      super().__init__()
      self.words = _table(numbers["words"])
      self.lstm = _lstm(numbers["lstm_0"])
      self.slots = _linear(numbers["head"]["slots"])
      self.intent = _linear(numbers["head"]["intent"])

    def forward(self, tokens):
      hidden, _ = self.lstm(self.words(tokens))
      return self.slots(hidden), self.intent(hidden.mean(dim=1))

  return BiLstm()


def _transformer(numbers):
  nn = import_torch().nn

  class Layer(nn.Module):
    def __init__(self, fields):
      super().__init__()
      self.attention_norm = _norm(fields["attention_norm"])
      self.qkv, self.out = _linear(fields["qkv"]), _linear(fields["out"])
      self.ff_norm = _norm(fields["ff_norm"])
      self.ff_in = _linear(fields["ff_in"])
      self.ff_out = _linear(fields["ff_out"])

    def forward(self, hidden):
      batch, time, dim = hidden.shape
      split = self.qkv(self.attention_norm(hidden)).view(
        batch, time, 3, _HEADS, dim // _HEADS
      )
      query, key, value = split.permute(2, 0, 3, 1, 4)
      mixed = nn.functional.scaled_dot_product_attention(query, key, value)
      mixed = mixed.transpose(1, 2).reshape(batch, time, dim)
      hidden = hidden + self.out(mixed)
      widened = nn.functional.gelu(
        self.ff_in(self.ff_norm(hidden)), approximate="tanh"
      )
      return hidden + self.ff_out(widened)

  class Transformer(nn.Module):
    def __init__(self):
      super().__init__()
      self.words = _table(numbers["words"])
      self.positions = nn.Parameter(_tensor(numbers["positions"]))
      names = sorted(key for key in numbers if key.startswith("layer_"))
      self.layers = nn.ModuleList([Layer(numbers[key]) for key in names])
      self.norm = _norm(numbers["norm"])
      self.slots = _linear(numbers["head"]["slots"])
      self.intent = _linear(numbers["head"]["intent"])

    def forward(self, tokens):
      hidden = self.words(tokens) + self.positions[: tokens.shape[1]]
      for layer in self.layers:
        hidden = layer(hidden)
      hidden = self.norm(hidden)
      return self.slots(hidden), self.intent(hidden.mean(dim=1))

  return Transformer()


def _cnn(numbers, feature_dropout, hidden_dropout):
  """pfl-research's network for CIFAR-10, in its order of layers."""
  torch = import_torch()
  nn = torch.nn

  def convolution(fields):
    # Our windows run over rows, columns and channels, and so do the images
    # behind the last convolution; PyTorch's channels come first.
    window = fields["kernel"].reshape(3, 3, -1, fields["bias"].size)
    layer = nn.Conv2d(window.shape[2], window.shape[3], kernel_size=3)
    layer.weight.data = _tensor(window.transpose(3, 2, 0, 1))
    layer.bias.data = _tensor(fields["bias"])
    return layer

  first, second = (convolution(numbers[key]) for key in ("first", "second"))
  hidden, head = (_linear(numbers[key]) for key in ("hidden", "head"))
  rows, channels = hidden.weight.data, second.out_channels
  side = round((rows.shape[1] / channels) ** 0.5)
  rows = rows.reshape(-1, side, side, channels).permute(0, 3, 1, 2)
  hidden.weight.data = rows.flatten(1).contiguous()

  class Cnn(nn.Module):
    def __init__(self):
      super().__init__()
      self.layers = nn.Sequential(
        first,
        nn.ReLU(),
        second,
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Dropout(feature_dropout),
        nn.Flatten(),
        hidden,
        nn.ReLU(),
        nn.Dropout(hidden_dropout),
        head,
      )

    def forward(self, images):
      return self.layers(images.permute(0, 3, 1, 2).float() / 255)

  return Cnn()


def batch_loss(twin: Any, inputs: Any, *labels: Any) -> Any:
  """Mean loss of a batch.

  Args:
    twin: From `make_twin`.
    inputs: What it reads.
    *labels: Slots and intents for a tagger, else classes.

  Returns:
    The cross-entropy, of a tagger the intent's plus the mean slot's.
  """
  cross_entropy = import_torch().nn.functional.cross_entropy
  scores = twin(inputs)
  if isinstance(scores, tuple):
    slots, intent = labels
    return cross_entropy(scores[1], intent) + cross_entropy(
      scores[0].flatten(0, 1), slots.flatten()
    )
  return cross_entropy(scores, *labels)
