"""A small convolutional classifier of images.

Convolutions are products with unfolded patches. The gradient of a kernel of
`conv_general_dilated` is far slower on a CPU; and where many clients train
kernels of their own side by side, `vmap` makes batched products of patches but
grouped convolutions of convolutions.
"""

import dataclasses
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Key

from trustjax.models import _model

_SIDE = 3  # Of a convolution's window.


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageClassifier:
  """Pure functions of ONE image; batches come from `jax.vmap`.

  An example is a dict: image [height, width, channels], float or uint8 (taken
  in 255ths), and a label that the model never looks at.

  Attributes:
    name: For tables.
    init: key -> params, nested dicts of float32 arrays.
    apply: (params, example, key=None) -> logits [classes]. A key switches
      dropout on; None evaluates.
  """

  name: str
  init: Callable[[Key[Array, ""]], _model.Params]
  apply: Callable[..., Float[Array, " classes"]]


class _ImageCnn(nnx.Module):
  """Two convolutions, one pooling, two dense layers."""

  def __init__(
    self, image_shape, num_classes, channels, hidden_dim, rates, rngs
  ):
    height, width, colours = image_shape
    first, second = channels
    side_loss = 2 * (_SIDE - 1)
    pooled = ((height - side_loss) // 2) * ((width - side_loss) // 2)
    self.first = _convolution(colours, first, rngs)
    self.second = _convolution(first, second, rngs)
    self.hidden = _dense(pooled * second, hidden_dim, rngs)
    self.head = _dense(hidden_dim, num_classes, rngs)
    self.rates = rates

  def __call__(self, image, key):
    keys = (None, None) if key is None else jax.random.split(key)
    if image.dtype == jnp.uint8:
      image = image.astype(self.first.kernel[...].dtype) / 255
    values = jax.nn.relu(self.first(_patches(image)))
    # Pooled first: a quarter of the work, and ReLU keeps the order.
    values = jax.nn.relu(_max_pool(self.second(_patches(values))))
    values = _model.dropout(
      jnp.reshape(values, (1, -1)), self.rates[0], keys[0]
    )
    values = jax.nn.relu(self.hidden(values))
    values = _model.dropout(values, self.rates[1], keys[1])
    return self.head(values)[0]


def _dense(width, out, rngs):
  glorot = nnx.initializers.glorot_uniform()
  return nnx.Linear(width, out, kernel_init=glorot, rngs=rngs)


def _convolution(width, out, rngs):
  """A window's weights as one matrix, drawn as those of a convolution."""

  def glorot(key, shape, dtype):
    window = (_SIDE, _SIDE, width, out)
    drawn = nnx.initializers.glorot_uniform()(key, window, dtype)
    return jnp.reshape(drawn, shape)

  return nnx.Linear(_SIDE**2 * width, out, kernel_init=glorot, rngs=rngs)


def _patches(
  values: Float[Array, "height width dim"],
) -> Float[Array, "high wide window"]:
  """The window of each inner position in one row: row, column, channel."""
  high, wide = (size - _SIDE + 1 for size in values.shape[:2])
  return jnp.concatenate(
    [
      values[i : i + high, j : j + wide]
      for i in range(_SIDE)
      for j in range(_SIDE)
    ],
    axis=-1,
  )


def _max_pool(values):
  """Maximum of each 2 x 2 square; an odd last row or column is left out."""
  high, wide = (size // 2 * 2 for size in values.shape[:2])
  rows = jnp.maximum(values[0:high:2], values[1:high:2])
  return jnp.maximum(rows[:, 0:wide:2], rows[:, 1:wide:2])


def image_cnn(
  *,
  image_shape: Sequence[int] = (32, 32, 3),
  num_classes: int = 10,
  channels: Sequence[int] = (32, 64),
  hidden_dim: int = 128,
  feature_dropout: float = 0.0,
  hidden_dropout: float = 0.0,
) -> ImageClassifier:
  """The convolutional network that simulators of federated learning race on.

  Two 3 x 3 convolutions without padding, ReLU after each, a 2 x 2 maximum,
  a dense layer with ReLU, a dense layer of scores. pfl-research trains it on
  CIFAR-10 with the defaults here and dropout of 0.25 and 0.5.

  Args:
    image_shape: Height, width and channels of an image.
    num_classes: Classes.
    channels: Of the two convolutions.
    hidden_dim: Width of the first dense layer.
    feature_dropout: Rate on what the convolutions found.
    hidden_dropout: Rate before the last layer.

  Returns:
    The classifier; 1,626,442 parameters by default.

  Raises:
    ValueError: A field is impossible.

  References:
    Granqvist et al., pfl-research: simulation framework for accelerating
    research in Private Federated Learning, NeurIPS 2024 (arXiv 2404.06430).

  Example:
    >>> model = image_cnn()
    >>> params = model.init(jax.random.key(0))
    >>> model.apply(params, {"image": jnp.zeros((32, 32, 3))}).shape
    (10,)
  """
  _check_shape(image_shape, channels)
  _model.check_sizes(
    num_classes=num_classes,
    hidden_dim=hidden_dim,
    **{f"channels[{i}]": size for i, size in enumerate(channels)},
  )
  rates = (feature_dropout, hidden_dropout)
  for field, rate in zip(("feature_dropout", "hidden_dropout"), rates):
    _model.check_rate(field, rate)
  shape = tuple(image_shape)
  init, bind = _model.pure_module(
    "image_cnn",
    lambda rngs: _ImageCnn(
      shape, num_classes, tuple(channels), hidden_dim, rates, rngs
    ),
  )

  def apply(params, example, key=None):
    image = jnp.asarray(example["image"])
    if image.shape != shape:
      raise ValueError(f"image: got shape {image.shape}; the model has {shape}")
    return bind(params)(image, key)

  return ImageClassifier(name="image_cnn", init=init, apply=apply)


def _check_shape(image_shape, channels):
  least = 2 * _SIDE  # Leaves one square to pool.
  if (
    len(image_shape) != 3 or min(image_shape[:2]) < least or image_shape[2] < 1
  ):
    raise ValueError(
      f"image_shape: got {tuple(image_shape)}; it must be height and width of"
      f" at least {least}, and channels"
    )
  if len(channels) != 2:
    raise ValueError(
      f"channels: got {tuple(channels)}; there are two convolutions"
    )
