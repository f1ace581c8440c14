"""Runs a jaxpr, follows parameters through it, and taps where they are used.

The same interpreter runs twice. First it takes stock: it finds the sites, with
their shapes. Then, with a zero tap per site as input, it adds each tap to its
site's output and records the site's input. The derivative by a tap is the
output cotangent of its site, and taps are all that needs differentiating.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.extend.core as jex
from jax.typing import ArrayLike

from trustjax.privacy._engines._bookkeeping import _sites, _views

# Equations that only wrap a jaxpr: run as if it were written in their place.
_WRAPPERS = {
  "jit": "jaxpr",
  "pjit": "jaxpr",
  "closed_call": "call_jaxpr",
  "core_call": "call_jaxpr",
  "checkpoint": "jaxpr",
  "remat": "jaxpr",
  "remat2": "jaxpr",
}


@dataclasses.dataclass
class Tape:
  """What an interpretation finds, or is given, along the way.

  Attributes:
    taps: A value to add at each site, in order of execution; None takes stock.
    sites: The sites found while taking stock.
    records: What was recorded at each tapped site.
  """

  taps: list[jax.Array] | None = None
  sites: list[_sites.Site] = dataclasses.field(default_factory=list)
  records: list[Any] = dataclasses.field(default_factory=list)

  def tap(self, site: _sites.Site, output: jax.Array, record) -> jax.Array:
    """Passes a site's output through the tape."""
    if self.taps is None:
      self.sites.append(site)
      return output
    self.records.append(record)
    return output + self.taps.pop(0)

  def use(self, value, primitive: str) -> ArrayLike:
    """Passes a view that is used in a way we have no rule for."""
    if not isinstance(value, _views.Alias):
      return value
    site = _sites.Site(
      view=value.view,
      rule=_sites.Whole(),
      primitive=primitive,
      shape=value.value.shape,
      dtype=value.value.dtype,
    )
    return self.tap(site, value.value, ())


def interpret(jaxpr, consts: Sequence, inputs: Sequence, tape: Tape) -> list:
  """Evaluates a jaxpr whose inputs may be views of parameters.

  Args:
    jaxpr: An open jaxpr.
    consts: Values of its constants.
    inputs: Arrays, or `Alias` for views of parameters.
    tape: Where uses of parameters are noted or tapped.

  Returns:
    The outputs; those that only show parameters are `Alias`.
  """
  values: dict[Any, Any] = dict(zip(jaxpr.constvars, consts))
  values.update(zip(jaxpr.invars, inputs))

  def read(atom):
    return atom.val if isinstance(atom, jex.Literal) else values[atom]

  for eqn in _needed(jaxpr):
    outputs = _run_equation(eqn, [read(atom) for atom in eqn.invars], tape)
    values.update(zip(eqn.outvars, outputs))
  return [read(atom) for atom in jaxpr.outvars]


def _needed(jaxpr) -> list:
  """Equations that the outputs depend on, or that have an effect.

  The compiler drops the others anyway, but a site among them would be tapped,
  and its books kept for nothing.
  """
  needed, equations = set(_variables(jaxpr.outvars)), []
  for eqn in reversed(jaxpr.eqns):
    if eqn.effects or not needed.isdisjoint(eqn.outvars):
      equations.append(eqn)
      needed.update(_variables(eqn.invars))
  return equations[::-1]


def needed_inputs(jaxpr) -> list[bool]:
  """Whether the outputs depend on each input, by what the equations read."""
  needed = set(_variables(jaxpr.outvars))
  for eqn in _needed(jaxpr):
    needed.update(_variables(eqn.invars))
  return [variable in needed for variable in jaxpr.invars]


def _variables(atoms):
  return [atom for atom in atoms if not isinstance(atom, jex.Literal)]


def plain(value):
  """The array behind a value."""
  return value.value if isinstance(value, _views.Alias) else value


def _run_equation(eqn, inputs, tape):
  if not any(isinstance(value, _views.Alias) for value in inputs):
    return _bind(eqn, inputs)
  name = eqn.primitive.name
  if not eqn.outvars:  # A print or a callback: nothing to differentiate.
    return _bind(eqn, [plain(value) for value in inputs])
  if name in _WRAPPERS:
    inner = eqn.params[_WRAPPERS[name]]
    # Some hold a closed jaxpr, some an open one without constants.
    consts = getattr(inner, "consts", ())
    return interpret(getattr(inner, "jaxpr", inner), consts, inputs, tape)
  if name == "scan":
    return _run_scan(eqn, inputs, tape)
  found = _sites.find_rule(eqn, inputs)
  if found:
    rule, side, other = found
    (output,) = _bind(eqn, [plain(value) for value in inputs])
    record = inputs[other]
    site = _sites.Site(
      view=inputs[side].view,
      rule=rule,
      primitive=name,
      shape=output.shape,
      dtype=output.dtype,
      record_shape=record.shape,
    )
    return [tape.tap(site, output, record)]
  if all(isinstance(value, _views.Alias) for value in inputs):
    outputs = _bind(eqn, [plain(value) for value in inputs])
    moved = _views.move(eqn, inputs, outputs)
    if moved is not None:
      return moved
  return _bind(eqn, [tape.use(value, name) for value in inputs])


def _run_scan(eqn, inputs, tape):
  """Enters a loop: constant parameters, and those stacked along it."""
  params, loop = eqn.params, object()
  closed = params["jaxpr"]
  num_consts, num_carry = _scan_sizes(eqn, closed.jaxpr)
  consts = inputs[:num_consts]
  carry = [
    tape.use(value, "scan carry")
    for value in inputs[num_consts : num_consts + num_carry]
  ]
  stacked = inputs[num_consts + num_carry :]

  def run(inner, carry, rows):
    rows = [
      _views.slice_in_loop(whole, loop, row)
      if isinstance(whole, _views.Alias)
      else row
      for whole, row in zip(stacked, rows)
    ]
    outputs = interpret(
      closed.jaxpr, closed.consts, [*consts, *carry, *rows], inner
    )
    return [inner.use(value, "scan output") for value in outputs]

  def take_stock(carry, rows):
    inner = Tape()
    run(inner, carry, rows)
    found.extend(inner.sites)

  found: list[_sites.Site] = []
  rows = [plain(value) for value in stacked]
  jax.eval_shape(
    take_stock,
    carry,
    [jax.ShapeDtypeStruct(row.shape[1:], row.dtype) for row in rows],
  )

  def body(carry, now):
    rows, taps = now
    inner = Tape(taps=None if taps is None else list(taps))
    outputs = run(inner, carry, rows)
    return outputs[:num_carry], (outputs[num_carry:], inner.records)

  taps = None
  if tape.taps is None:
    tape.sites.extend(site.inside(loop, params["length"]) for site in found)
  else:
    taps, tape.taps[: len(found)] = tape.taps[: len(found)], []
  carry, (outputs, records) = jax.lax.scan(
    body,
    carry,
    (rows, taps),
    length=params["length"],
    reverse=params["reverse"],
    unroll=params["unroll"],
  )
  tape.records.extend(records)
  return [*carry, *outputs]


def _scan_sizes(eqn, body) -> tuple[int, int]:
  """How many constants a scan has, and how many carried values.

  Read off the shapes, because JAX versions spell the parameters differently:
  what is iterated over has one more axis outside of the body than inside.
  """
  num_stacked = sum(
    outer.aval.ndim != inner.aval.ndim
    for outer, inner in zip(eqn.invars, body.invars, strict=True)
  )
  num_carry = sum(
    outer.aval.ndim == inner.aval.ndim
    for outer, inner in zip(eqn.outvars, body.outvars, strict=True)
  )
  return len(eqn.invars) - num_stacked - num_carry, num_carry


def _bind(eqn, values) -> list:
  """Runs one equation on arrays, as JAX runs it."""
  params = eqn.primitive.get_bind_params(eqn.params)
  with eqn.ctx.manager:
    outputs = eqn.primitive.bind(*values, **params)
  return list(outputs) if eqn.primitive.multiple_results else [outputs]
