"""Which tensor of a published file is which parameter, in both directions."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import numpy as np

from trustjax.models import _model

_SHOWN = 5


@dataclasses.dataclass(frozen=True, kw_only=True)
class Leaf:
  """One of our parameters and the tensors that hold it.

  Attributes:
    path: Keys of the parameter in the nested dicts.
    names: Its tensors; several lie side by side along our last axis.
    transposed: Whether a tensor is a matrix [out, in], as PyTorch's linear
      layers keep it; our kernels are [in, out].
  """

  path: tuple[str, ...]
  names: tuple[str, ...]
  transposed: bool = False

  def shape_of_tensor(self, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Shape of each tensor, given the shape of the parameter."""
    part = (*shape[:-1], shape[-1] // len(self.names))
    return part[::-1] if self.transposed else part


Layout = tuple[Leaf, ...]


def _table(ours, theirs):
  return Leaf(path=(*ours.split("."), "embedding"), names=(f"{theirs}.weight",))


def _norm(ours, theirs):
  path = tuple(ours.split("."))
  yield Leaf(path=(*path, "scale"), names=(f"{theirs}.weight",))
  yield Leaf(path=(*path, "bias"), names=(f"{theirs}.bias",))


def _linear(ours, *theirs, transposed=True):
  path = tuple(ours.split("."))
  yield Leaf(
    path=(*path, "kernel"),
    names=tuple(f"{name}.weight" for name in theirs),
    transposed=transposed,
  )
  yield Leaf(
    path=(*path, "bias"), names=tuple(f"{name}.bias" for name in theirs)
  )


def gpt2_layout(num_layers: int, *, tied: bool) -> Layout:
  """GPT-2: its `Conv1D` keeps matrices as we do, queries to values fused."""
  leaves = [
    _table("words", "wte"),
    Leaf(path=("positions",), names=("wpe.weight",)),
  ]
  for i in range(num_layers):
    ours, theirs = f"layer_{i}", f"h.{i}"
    leaves += _norm(f"{ours}.attention_norm", f"{theirs}.ln_1")
    leaves += _norm(f"{ours}.ff_norm", f"{theirs}.ln_2")
    for mine, name in (
      ("qkv", "attn.c_attn"),
      ("out", "attn.c_proj"),
      ("ff_in", "mlp.c_fc"),
      ("ff_out", "mlp.c_proj"),
    ):
      leaves += _linear(f"{ours}.{mine}", f"{theirs}.{name}", transposed=False)
  leaves += _norm("norm", "ln_f")
  if not tied:
    leaves.append(
      Leaf(
        path=("unembed", "kernel"), names=("lm_head.weight",), transposed=True
      )
    )
  return tuple(leaves)


def _embeddings(token_types):
  yield _table("words", "embeddings.word_embeddings")
  yield Leaf(
    path=("positions",), names=("embeddings.position_embeddings.weight",)
  )
  if token_types:
    yield Leaf(
      path=("token_types",), names=("embeddings.token_type_embeddings.weight",)
    )
  yield from _norm("embedding_norm", "embeddings.LayerNorm")


def bert_layout(num_layers: int, *, token_types: bool, pooler: bool) -> Layout:
  """BERT's encoder, with its pooler or without."""
  leaves = list(_embeddings(token_types))
  for i in range(num_layers):
    ours, theirs = f"layer_{i}", f"encoder.layer.{i}"
    attention = f"{theirs}.attention"
    leaves += _linear(
      f"{ours}.qkv",
      *(f"{attention}.self.{name}" for name in ("query", "key", "value")),
    )
    leaves += _linear(f"{ours}.out", f"{attention}.output.dense")
    leaves += _norm(f"{ours}.attention_norm", f"{attention}.output.LayerNorm")
    leaves += _linear(f"{ours}.ff_in", f"{theirs}.intermediate.dense")
    leaves += _linear(f"{ours}.ff_out", f"{theirs}.output.dense")
    leaves += _norm(f"{ours}.ff_norm", f"{theirs}.output.LayerNorm")
  if pooler:
    leaves += _linear("pooler", "pooler.dense")
  return tuple(leaves)


def distilbert_layout(num_layers: int) -> Layout:
  """DistilBERT's encoder: neither segments nor a pooler."""
  leaves = list(_embeddings(False))
  for i in range(num_layers):
    ours, theirs = f"layer_{i}", f"transformer.layer.{i}"
    leaves += _linear(
      f"{ours}.qkv",
      *(f"{theirs}.attention.{name}" for name in ("q_lin", "k_lin", "v_lin")),
    )
    leaves += _linear(f"{ours}.out", f"{theirs}.attention.out_lin")
    leaves += _norm(f"{ours}.attention_norm", f"{theirs}.sa_layer_norm")
    leaves += _linear(f"{ours}.ff_in", f"{theirs}.ffn.lin1")
    leaves += _linear(f"{ours}.ff_out", f"{theirs}.ffn.lin2")
    leaves += _norm(f"{ours}.ff_norm", f"{theirs}.output_layer_norm")
  return tuple(leaves)


def params_from_tensors(
  layout: Layout,
  tensors: Mapping[str, np.ndarray],
  shapes: _model.Params,
  source: str,
) -> _model.Params:
  """Builds the parameters that a layout covers.

  Args:
    layout: Which tensor is which parameter.
    tensors: Tensors by name.
    shapes: The model's parameters, or anything of their shapes.
    source: The file, for errors.

  Returns:
    Nested dicts of float32 arrays; parameters outside of the layout are
    absent.

  Raises:
    ValueError: A tensor is missing, has another shape than the model, or is
      not of floating point.
  """
  missing = [n for leaf in layout for n in leaf.names if n not in tensors]
  if missing:
    raise ValueError(f"{source}: tensors are missing: {_shown(missing)}")
  params: dict[str, Any] = {}
  for leaf in layout:
    expected = leaf.shape_of_tensor(_get(shapes, leaf.path).shape)
    parts = []
    for name in leaf.names:
      tensor = tensors[name]
      if tensor.shape != expected:
        raise ValueError(
          f"{source}: tensor {name!r} has shape {tensor.shape}, but the"
          f" config asks for {expected}"
        )
      # jax's test, as that of NumPy does not know bfloat16.
      if not jax.numpy.issubdtype(tensor.dtype, jax.numpy.floating):
        raise ValueError(
          f"{source}: tensor {name!r} has dtype {tensor.dtype}; it must be of"
          " floating point"
        )
      tensor = tensor.astype(np.float32)
      parts.append(tensor.T if leaf.transposed else tensor)
    branch = params
    for key in leaf.path[:-1]:
      branch = branch.setdefault(key, {})
    branch[leaf.path[-1]] = jax.numpy.asarray(np.concatenate(parts, axis=-1))
  return params


def tensors_from_params(
  layout: Layout, params: _model.Params, shapes: _model.Params
) -> dict[str, np.ndarray]:
  """The inverse of `params_from_tensors`, in float32.

  Args:
    layout: Which tensor is which parameter; it must cover all of them.
    params: The parameters.
    shapes: What the model's parameters should look like.

  Returns:
    Contiguous tensors by name.

  Raises:
    ValueError: `params` are not those of the model.
  """
  wanted, got = _shapes_by_path(shapes), _shapes_by_path(params)
  for path in sorted(wanted.keys() | got.keys()):
    if wanted.get(path) != got.get(path):
      raise ValueError(
        f"params: {path} has shape {got.get(path, 'none (it is missing)')};"
        f" the model has {wanted.get(path, 'no such parameter')}"
      )
  tensors = {}
  for leaf in layout:
    array = np.asarray(_get(params, leaf.path), np.float32)
    for name, part in zip(
      leaf.names, np.split(array, len(leaf.names), axis=-1)
    ):
      part = part.T if leaf.transposed else part
      tensors[name] = np.ascontiguousarray(part)
  return tensors


def check_all_used(layout: Layout, names: Iterable[str], source: str) -> None:
  """Raises ValueError where a file holds more than the model does."""
  known = {name for leaf in layout for name in leaf.names}
  extra = sorted(set(names) - known)
  if extra:
    raise ValueError(
      f"{source}: the config does not account for the tensors {_shown(extra)}"
    )


def _get(tree: Any, path: tuple[str, ...]) -> Any:
  for key in path:
    tree = tree[key]
  return tree


def _shapes_by_path(params):
  leaves = jax.tree_util.tree_leaves_with_path(params)
  return {
    ".".join(str(part.key) for part in path): tuple(leaf.shape)
    for path, leaf in leaves
  }


def _shown(names):
  more = len(names) - _SHOWN
  tail = f" and {more} more" if more > 0 else ""
  return ", ".join(repr(name) for name in names[:_SHOWN]) + tail
