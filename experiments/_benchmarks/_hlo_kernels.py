"""Lists the kernels of a compiled XLA program with their bytes and operations.

What is counted follows the program as it runs: the body of a loop as often as
it turns, of a conditional the branch of a true predicate. In a step of this
house that is the usual one: all records of a chunk are finite, the last slots
of a padded lot are taken.

Bytes are those that cross the memory bus if nothing is found in a cache: each
operand once and each result once. Of what a fusion only slices or gathers from,
the part that is read counts; of what it updates in place, the part that is
written.
"""

import dataclasses
import math
import re
from typing import Any

from experiments._benchmarks import _hlo_text

_FREE = {
  "parameter",
  "constant",
  "get-tuple-element",
  "tuple",
  "bitcast",
  "after-all",
  "partition-id",
  "replica-id",
  "opt-barrier",
  "add-dependency",
}
# The same numbers at other places, or in another order.
_VIEWS = {"bitcast", "reshape", "transpose", "copy"}
_PARTS = {"slice", "dynamic-slice", "gather"}
_CONTRACTING = re.compile(r'lhs_contracting_dim\w*"?[=:][{\[]([^}\]]*)[}\]]')
_BATCH = re.compile(r'lhs_batch_dim\w*"?[=:][{\[]([^}\]]*)[}\]]')
_ALGORITHM = re.compile(
  r"(?:ALG_DOT|algorithm=dot)_(BF16|F16|TF32|F32|F64)_\w*?(?:_X(\d))?\b",
  re.IGNORECASE,
)
_TARGET = re.compile(r'custom_call_target="([^"]*)"')
_NUMBERS = re.compile(r"[._\d]+(clone)?$")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Kernel:
  """A kernel that runs.

  Attributes:
    name: Of its instruction.
    what: Kind of kernel: "fusion input_reduce_fusion", or for a product the
      types and shapes.
    shape: Type of the result.
    label: Path of JAX's name scopes; empty where the compiler kept none.
    count: How often it runs.
    bytes: Read and written by one run.
    flops: Operations of matrix products in one run, a multiply-add being two.
    dtype: Type in which these multiply, a key of a GPU's rates; empty if there
      are none.
    is_batched: Whether a product is one of many small ones.
    in_loop: Whether it runs inside a loop.
  """

  name: str
  what: str
  shape: str
  label: str
  count: int
  bytes: int
  flops: int = 0
  dtype: str = ""
  is_batched: bool = False
  in_loop: bool = False


def kernels(text: str, *, loop_trips: int | None = None) -> list[Kernel]:
  """Lists the kernels of a program in the order in which they run first.

  Args:
    text: Of the compiled program.
    loop_trips: How often a loop turns whose number of turns is computed by the
      program; None allows no such loop.

  Returns:
    The kernels; those of a loop once, with their count.

  Raises:
    ValueError: The text is no program, a loop's turns are unknown, or a kernel
      calls a library in a way whose operations cannot be read from the text.
  """
  module = _hlo_text.parse(text)
  found: list[Kernel] = []

  def walk(name, count, in_loop):
    computation = module.computations[name]
    for instruction in computation.instructions:
      opcode, called = instruction.opcode, instruction.called
      if opcode in _FREE or opcode.endswith(("-done", "-update")):
        continue
      if opcode == "while":
        trips = instruction.known_trips
        trips = loop_trips if trips is None else trips
        if trips is None:
          raise ValueError(
            f"loop_trips: got None, and how often {instruction.name} turns is"
            " not in the program; give a number"
          )
        walk(called["body"], count * trips, True)
      elif opcode == "conditional":
        walk(instruction.branches[-1], count, in_loop)
      elif opcode in ("call", "call-start", "async-start"):
        walk(called.get("to_apply") or called["calls"], count, in_loop)
      else:
        fields = _measure(module, computation, instruction)
        found.append(Kernel(count=count, in_loop=in_loop, **fields))

  walk(module.entry, 1, False)
  return found


def _measure(module, computation, instruction) -> dict[str, Any]:
  """Fields of a kernel that follow from its instruction."""
  fields: dict[str, Any] = {
    "name": instruction.name,
    "what": f"{instruction.opcode} {_NUMBERS.sub('', instruction.name)}",
    "shape": re.sub(r"\{[^}]*\}", "", instruction.type_text),
    "label": instruction.label,
  }
  if instruction.opcode.startswith("fusion"):
    body = module.computations[instruction.called["calls"]]
    products = [x for x in body.instructions if x.opcode == "dot"]
    fields["label"] = instruction.label or _label_of(body)
    fields["bytes"] = _fusion_bytes(body)
    if products:
      fields |= _product(body, products[0])
      fields["flops"] = sum(_product(body, x)["flops"] for x in products)
    return fields
  _refuse_opaque(instruction)
  if instruction.opcode == "dot" or "gemm_backend_config" in (
    instruction.attributes
  ):
    fields |= _product(computation, instruction)
  return fields | {"bytes": _plain_bytes(computation, instruction)}


def _refuse_opaque(instruction):
  opcode = instruction.opcode
  target = _TARGET.search(instruction.attributes)
  is_library = target is not None and target[1].startswith("__cudnn$")
  is_hidden = opcode.endswith("-start") and opcode != "copy-start"
  if opcode == "convolution" or is_library or is_hidden:
    raise ValueError(
      f"text: {instruction.name} is a {target[1] if target else opcode}; its"
      " operations are not counted here, so no time can be predicted"
    )


def _label_of(body):
  """Label of a fusion that lost its own: the last one that says the most."""
  labels = [x.label for x in body.instructions if x.label]
  differentiated = [label for label in labels if "jvp(" in label]
  return (differentiated or labels or [""])[-1]


def _product(computation, instruction) -> dict[str, Any]:
  """What and how a matrix product multiplies."""
  left, right = (
    computation[operand].shapes[0] for operand in instruction.operands[:2]
  )
  result = instruction.shapes[0]
  text = instruction.attributes
  contracting = _CONTRACTING.search(text)
  axes = re.findall(r"\d+", contracting[1]) if contracting else []
  depth = math.prod(left.dims[int(axis)] for axis in axes)
  batch = _BATCH.search(text)
  dtype, passes = _multiplied_in(left.dtype, text)
  return {
    "what": f"product {dtype}->{result.dtype} {_times(left)} by"
    f" {_times(right)} -> {_times(result)}",
    "shape": f"{result.dtype}[{','.join(map(str, result.dims))}]",
    "flops": 2 * result.size * depth * passes,
    "dtype": dtype,
    "is_batched": bool(batch and batch[1].strip()),
  }


def _times(shape):
  return "x".join(map(str, shape.dims)) or "1"


def _multiplied_in(dtype, attributes):
  """(type that the units multiply in, how many products stand for one)."""
  algorithm = _ALGORITHM.search(attributes)
  if algorithm:
    return algorithm[1].lower(), int(algorithm[2] or 1)
  if dtype != "f32":
    return dtype, 1
  is_exact = "HIGHEST" in attributes or "={highest" in attributes
  return ("f32" if is_exact else "tf32"), 1


def _plain_bytes(computation, instruction):
  """Bytes of an instruction that is a kernel by itself."""
  opcode, operands = instruction.opcode, instruction.operands
  sizes = [computation[operand].bytes for operand in operands]
  if opcode in _PARTS:
    return 2 * instruction.bytes
  if opcode == "dynamic-update-slice":
    return 2 * sizes[1]
  if opcode == "scatter":
    return sizes[1] + 3 * sum(sizes[2:]) if len(sizes) == 3 else sum(sizes)
  if opcode == "copy-start":
    return 2 * sum(sizes)
  results = [
    shape
    for place, shape in enumerate(instruction.shapes)
    # A library's scratch memory is an array of bytes beside the result.
    if opcode != "custom-call" or place == 0 or shape.dtype not in ("s8", "u8")
  ]
  return sum(sizes) + sum(shape.bytes for shape in results)


def _fusion_bytes(body):
  """Bytes that a fused computation reads from memory and writes to it."""
  read = sum(
    min(x.bytes, _read_of(body, x))
    for x in body.instructions
    if x.opcode == "parameter"
  )
  root = body.root
  return read + min(root.bytes, _written_of(body, root))


def _read_of(body, value):
  """Bytes of a value that its users need."""
  total = 0
  for user in body.users.get(value.name, ()):
    is_first = user.operands[0] == value.name
    if user.opcode in _PARTS and is_first:
      total += user.bytes
    elif user.opcode == "dynamic-update-slice" and is_first:
      continue  # What is kept stays where it is.
    elif user.opcode == "scatter" and is_first:
      total += _updates_of(body, user)
    elif user.opcode in _VIEWS and not user.is_root:
      total += _read_of(body, user)
    else:
      return value.bytes
  return total


def _written_of(body, value):
  """Bytes that are written when a value is the result of a fusion."""
  if value.opcode == "tuple":
    return sum(_written_of(body, body[x]) for x in value.operands)
  origin = _origin(body, value)
  if origin.opcode == "dynamic-update-slice":
    return body[origin.operands[1]].bytes
  if origin.opcode == "scatter":
    target = _origin(body, body[origin.operands[0]])
    if target.opcode == "parameter":
      return _updates_of(body, origin)
  return value.bytes


def _origin(body, value):
  """What a value is a view or a rounding of."""
  while value.opcode in _VIEWS | {"convert"}:
    value = body[value.operands[0]]
  return value


def _updates_of(body, scatter):
  """Bytes of the entries that a scatter adds to."""
  first = len(scatter.operands) // 2 + 1
  return sum(body[x].bytes for x in scatter.operands[first:])
