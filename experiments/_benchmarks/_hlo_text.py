"""Reads the text of a compiled XLA program: computations and instructions.

Only what is needed to count kernels is read: names, types, operands, and the
attributes that name other computations. Texts come from
`jax.jit(f).lower(...).compile().as_text()`.
"""

import dataclasses
import functools
import math
import re
from collections.abc import Iterable

_HEADER = re.compile(r"(ENTRY )?%?([\w.\-]+) (?:\(.*\) -> .* )?\{$")
_INSTRUCTION = re.compile(r"\s+(ROOT )?%?([\w.\-]+) = (.*)$")
_COMMENT = re.compile(r"/\*.*?\*/")
_OPCODE = re.compile(r" ([a-z][\w\-]*)\(")
_OPERAND = re.compile(r"%([\w.\-]+)")
_ARRAY = re.compile(r"\b(pred|token|bf16|[sufc]\d+\w*)\[([\d,]*)\]")
_LABEL = re.compile(r'op_name="([^"]*)"')
_CALLED = re.compile(
  r"\b(calls|to_apply|body|true_computation|false_computation)=%?([\w.\-]+)"
)
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"')
_BITS = {"pred": 8, "token": 0}


@dataclasses.dataclass(frozen=True)
class Shape:
  """One array.

  Attributes:
    dtype: Type as XLA writes it: "bf16", "f32", "s32", "pred", ...
    dims: Its axes.
  """

  dtype: str
  dims: tuple[int, ...]

  @property
  def size(self) -> int:
    """Entries."""
    return math.prod(self.dims)

  @property
  def bytes(self) -> int:
    """Bytes of its entries, without the padding of a layout."""
    bits = _BITS.get(self.dtype)
    if bits is None:
      match = re.search(r"\d+", self.dtype)
      bits = int(match[0]) if match else 0
    return self.size * bits // 8


@dataclasses.dataclass(frozen=True, kw_only=True)
class Instruction:
  """One line of a computation.

  Attributes:
    name: Its name.
    opcode: "fusion", "dot", "while", ...
    type_text: Type of the result as written.
    operands: Names of what it reads.
    attributes: The text behind the operands.
    is_root: Whether it is the result of its computation.
  """

  name: str
  opcode: str
  type_text: str
  operands: tuple[str, ...]
  attributes: str
  is_root: bool

  @functools.cached_property
  def shapes(self) -> tuple[Shape, ...]:
    """Arrays of the result; several for a tuple."""
    return tuple(
      Shape(dtype, tuple(int(x) for x in dims.split(",") if x))
      for dtype, dims in _ARRAY.findall(self.type_text)
    )

  @property
  def bytes(self) -> int:
    """Bytes of the result."""
    return sum(shape.bytes for shape in self.shapes)

  @property
  def label(self) -> str:
    """The path of JAX's name scopes and primitive; empty if there is none."""
    match = _LABEL.search(self.attributes)
    return match[1] if match else ""

  @property
  def called(self) -> dict[str, str]:
    """Attribute to the computation that it names."""
    return dict(_CALLED.findall(self.attributes))

  @property
  def branches(self) -> tuple[str, ...]:
    """Computations of a conditional, that of False before that of True."""
    match = _BRANCHES.search(self.attributes)
    if match:
      return tuple(x.strip().lstrip("%") for x in match[1].split(","))
    called = self.called
    return called["false_computation"], called["true_computation"]

  @property
  def known_trips(self) -> int | None:
    """How often the body of a `while` runs, where the compiler knows."""
    match = _TRIPS.search(self.attributes)
    return int(match[1]) if match else None


class Computation:
  """Instructions in the order in which they run.

  Attributes:
    instructions: All of them.
  """

  def __init__(self, instructions: Iterable[Instruction]):
    self.instructions = tuple(instructions)
    self._by_name = {x.name: x for x in self.instructions}

  def __getitem__(self, name: str) -> Instruction:
    return self._by_name[name]

  @property
  def root(self) -> Instruction:
    """The result."""
    return next(x for x in self.instructions if x.is_root)

  @functools.cached_property
  def users(self) -> dict[str, list[Instruction]]:
    """Name of an instruction to those that read it."""
    found: dict[str, list[Instruction]] = {}
    for instruction in self.instructions:
      for operand in dict.fromkeys(instruction.operands):
        found.setdefault(operand, []).append(instruction)
    return found


@dataclasses.dataclass(frozen=True)
class Module:
  """A program.

  Attributes:
    entry: Name of the computation that is run.
    computations: All of them by name.
  """

  entry: str
  computations: dict[str, Computation]


def parse(text: str) -> Module:
  """Reads a program.

  Args:
    text: Of the compiled program.

  Returns:
    Its computations.

  Raises:
    ValueError: No entry computation is found.
  """
  computations: dict[str, Computation] = {}
  entry = name = None
  body: list[Instruction] = []
  for line in text.splitlines():
    if name is None:
      header = _HEADER.match(line)
      if header:
        name, body = header[2], []
        entry = name if header[1] else entry
    elif line.startswith("}"):
      computations[name] = Computation(body)
      name = None
    elif instruction := _instruction(line):
      body.append(instruction)
  if entry is None or entry not in computations:
    raise ValueError(
      "text: found no entry computation; it must be the text of a compiled XLA"
      " program"
    )
  return Module(entry, computations)


def _instruction(line):
  match = _INSTRUCTION.match(line)
  if not match:
    return None
  text = _COMMENT.sub("", match[3])
  # The type may be a tuple, whose closing parenthesis is not its first one.
  end = _closing(text, 0) + 1 if text.startswith("(") else text.index(" ")
  opcode = _OPCODE.match(text, end)
  if not opcode:
    return None
  closing = _closing(text, opcode.end() - 1)
  return Instruction(
    name=match[2],
    opcode=opcode[1],
    type_text=text[:end],
    operands=tuple(_OPERAND.findall(text[opcode.end() : closing])),
    attributes=text[closing + 1 :],
    is_root=bool(match[1]),
  )


def _closing(text, start):
  """Where the parenthesis that opens at `start` closes."""
  depth = 0
  for match in re.compile(r"[()]").finditer(text, start):
    depth += 1 if match[0] == "(" else -1
    if depth == 0:
      return match.start()
  raise ValueError(f"text: a parenthesis is never closed in {text[:80]!r}")
