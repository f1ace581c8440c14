"""Clipping rules: how long a unit's gradient may be, and the noise it needs.

A unit is one record, or one clip group. Parameters are partitioned into
blocks (one block for flat clipping, one per layer otherwise); a rule gives
each block j a bound C_j, and every unit leaves clipping with

  ||u_j||_2 <= C_j  for all j,  so that  ||u||_2 <= sqrt(sum_j C_j^2) = C.

`C` is the rule's clip norm. The noise on block j has standard deviation
noise_multiplier * a_j, where every rule keeps sum_j (C_j / a_j)^2 = 1, so the
accountant sees the same multiplier whatever the partition.
"""

import dataclasses
import math
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Key

PyTree = Any
ClipState = Any
# "add_remove", "zero_out" or "replace_one"; checked by value, so that configs
# get an error in words.
Adjacency = str

# Rounding of a norm to float32 and of the rescaling may lift a gradient above
# its bound by a few units in the last place; the bound is what privacy rests
# on, so we stay below it. Norms themselves are summed in float64.
_SHRINK = 1.0 - 1e-6
# Squares of a shorter gradient underflow in float32, and its norm would be
# underestimated; without a stability constant it counts as zero.
_LEAST_NORM = 1e-15


@runtime_checkable
class ClippingRule(Protocol):
  """What an engine, the noise and the plan need to know about clipping."""

  @property
  def clip_norm(self) -> float:
    """Joint clip norm C, or its first value if it is learned."""
    ...

  def init(self) -> ClipState:
    """The state before the first step; `()` for rules that learn nothing."""
    ...

  def for_units(self, expected_units: float) -> "ClippingRule":
    """The same rule, told how many units a lot holds on average."""
    ...

  def blocks(self, params: PyTree) -> tuple[int, ...]:
    """Block index of each leaf, in the order of `jax.tree.leaves`."""
    ...

  def scales(
    self, clip_state: ClipState, params: PyTree
  ) -> Float[Array, " blocks"]:
    """Bound C_j of each block."""
    ...

  def factors(
    self,
    norms: Float[Array, "*units blocks"],
    scales: Float[Array, " blocks"],
  ) -> Float[Array, "*units blocks"]:
    """Multiplier of each block's gradient, given its norm."""
    ...

  def noise_scales(
    self, clip_state: ClipState, params: PyTree
  ) -> Float[Array, " blocks"]:
    """Noise standard deviation a_j of each block at noise multiplier 1."""
    ...

  def gradient_noise_multipliers(self, multipliers: np.ndarray) -> np.ndarray:
    """The gradient's share of a budget given as noise multipliers."""
    ...

  def update(
    self,
    clip_state: ClipState,
    norms: Float[Array, " units"],
    valid: Bool[Array, " units"],
    key: Key[Array, ""],
  ) -> ClipState:
    """The state after a step."""
    ...

  def sensitivity(
    self,
    clip_state: ClipState,
    clip_group_size: int,
    adjacency: Adjacency,
  ) -> Float[Array, ""]:
    """L2 sensitivity of the clipped sum."""
    ...


def sensitivity_in_clip_norms(
  clip_group_size: int, adjacency: Adjacency
) -> float:
  """L2 sensitivity of the clipped sum, as a multiple of the clip norm.

  One record alone adds or removes a vector of norm at most C. Inside a clip
  group it changes the group's clipped mean from u to u', both in the C-ball,
  so ||u - u'|| <= 2C, and two opposed groups attain it; the bound needs slots
  that do not depend on the record. Replacing a record moves u to u' as well.

  Args:
    clip_group_size: Records averaged before clipping.
    adjacency: "add_remove", "zero_out" or "replace_one".

  Returns:
    1.0 or 2.0.
  """
  _check_adjacency(adjacency)
  alone = clip_group_size == 1
  return 1.0 if alone and adjacency != "replace_one" else 2.0


def _check_adjacency(adjacency: str) -> None:
  if adjacency not in ("add_remove", "zero_out", "replace_one"):
    raise ValueError(
      f"adjacency: got {adjacency!r}; allowed are 'add_remove', 'zero_out'"
      " and 'replace_one'"
    )


def _require_positive(field: str, value: float) -> None:
  if not (math.isfinite(value) and value > 0):
    raise ValueError(f"{field}: got {value}; it must be finite and positive")


@dataclasses.dataclass(frozen=True, kw_only=True)
class _FlatRule:
  """What all rules with one block and a fixed clip norm have in common."""

  clip_norm: float = 1.0

  def __post_init__(self):
    _require_positive("clip_norm", self.clip_norm)

  def init(self) -> ClipState:
    return ()

  def for_units(self, expected_units: float) -> ClippingRule:
    del expected_units
    return self  # pyright: ignore[reportReturnType]

  def blocks(self, params: PyTree) -> tuple[int, ...]:
    return (0,) * len(jax.tree.leaves(params))

  def scales(
    self, clip_state: ClipState, params: PyTree
  ) -> Float[Array, " blocks"]:
    del clip_state, params
    return jnp.full((1,), self.clip_norm, jnp.float32)

  def noise_scales(
    self, clip_state: ClipState, params: PyTree
  ) -> Float[Array, " blocks"]:
    return self.scales(clip_state, params)

  def gradient_noise_multipliers(self, multipliers: np.ndarray) -> np.ndarray:
    return multipliers

  def update(
    self,
    clip_state: ClipState,
    norms: Float[Array, " units"],
    valid: Bool[Array, " units"],
    key: Key[Array, ""],
  ) -> ClipState:
    del norms, valid, key
    return clip_state

  def sensitivity(
    self,
    clip_state: ClipState,
    clip_group_size: int,
    adjacency: Adjacency,
  ) -> Float[Array, ""]:
    del clip_state
    factor = sensitivity_in_clip_norms(clip_group_size, adjacency)
    return jnp.float32(self.clip_norm * factor)


def _threshold_factors(norms, scales):
  """min(1, C / norm), a hair below C when it rescales."""
  bound = jnp.broadcast_to(scales, norms.shape)
  rescaled = _SHRINK * bound / jnp.maximum(norms, bound)
  return jnp.where(norms <= bound, 1.0, rescaled)


def _automatic_factors(norms, scales, gamma):
  """C / (norm + gamma), with 0 / 0 = 0."""
  bound = jnp.broadcast_to(scales, norms.shape)
  denominator = norms + gamma
  usable = denominator > _LEAST_NORM
  safe = jnp.where(usable, denominator, 1.0)
  return jnp.where(usable, _SHRINK * bound / safe, 0.0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ThresholdClip(_FlatRule):
  """u = g min(1, C / ||g||): the rule of DP-SGD.

  Attributes:
    clip_norm: C, in units of the gradient norm.

  References:
    Abadi et al., Deep Learning with Differential Privacy, CCS 2016.
  """

  def factors(
    self,
    norms: Float[Array, "*units blocks"],
    scales: Float[Array, " blocks"],
  ) -> Float[Array, "*units blocks"]:
    return _threshold_factors(norms, scales)


@dataclasses.dataclass(frozen=True, kw_only=True)
class AutoClip(_FlatRule):
  """u = C g / (||g|| + gamma): no threshold to tune, no privacy cost.

  With gamma > 0 this is AUTO-S, with gamma = 0 AUTO-V. The clip norm only
  rescales the learning rate (and cancels in Adam), so it may stay at 1.

  Attributes:
    clip_norm: C, length of a long gradient after clipping.
    gamma: Stability constant; gradients much shorter than it stay short.

  References:
    Bu et al., Automatic Clipping, NeurIPS 2023 (arXiv 2206.07136).
  """

  gamma: float = 0.01

  def __post_init__(self):
    super().__post_init__()
    if not (math.isfinite(self.gamma) and self.gamma >= 0):
      raise ValueError(
        f"gamma: got {self.gamma}; it must be finite and at least 0"
      )

  def factors(
    self,
    norms: Float[Array, "*units blocks"],
    scales: Float[Array, " blocks"],
  ) -> Float[Array, "*units blocks"]:
    return _automatic_factors(norms, scales, self.gamma)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PerLayerClip(_FlatRule):
  """A threshold for each layer: C_j = C s_j with sum_j s_j^2 = 1.

  A layer is a leaf of the parameters, or with `depth` the leaves that share
  the first `depth` keys of their path. The scales use current weights or
  shapes only, never a gradient, so choosing them is post-processing and free.

  Attributes:
    clip_norm: Joint clip norm C.
    scale: "weight_relative" (s_j proportional to the layer's weight norm, at
      least `floor`), "equal", or "dimension" (s_j^2 proportional to the number
      of parameters).
    allocation: How the noise is shared out, always with
      sum_j (C_j / a_j)^2 = 1: "least_noise" (least total variance), "uniform"
      (the same std everywhere), "proportional" (a_j = sqrt(layers) C_j).
    gamma: None clips at the threshold; a number uses C_j / (norm + gamma).
    floor: Smallest weight norm that "weight_relative" reckons with, so that a
      layer that starts at zero can move.
    depth: Path keys that make a layer; None takes every leaf by itself.
  """

  scale: str = "weight_relative"
  allocation: str = "least_noise"
  gamma: float | None = None
  floor: float = 1e-2
  depth: int | None = None

  def __post_init__(self):
    super().__post_init__()
    for field, allowed in (
      ("scale", ("weight_relative", "equal", "dimension")),
      ("allocation", ("least_noise", "uniform", "proportional")),
    ):
      if getattr(self, field) not in allowed:
        raise ValueError(
          f"{field}: got {getattr(self, field)!r}; allowed are {allowed}"
        )
    _require_positive("floor", self.floor)
    if self.gamma is not None and not self.gamma >= 0:
      raise ValueError(
        f"gamma: got {self.gamma}; it must be None or at least 0"
      )
    if self.depth is not None and self.depth < 1:
      raise ValueError(
        f"depth: got {self.depth}; it must be None or at least 1"
      )

  def blocks(self, params: PyTree) -> tuple[int, ...]:
    paths = [
      path for path, _ in jax.tree_util.tree_flatten_with_path(params)[0]
    ]
    index: dict[Any, int] = {}
    return tuple(
      index.setdefault(path[: self.depth], len(index)) for path in paths
    )

  def _sums(self, params, leaf_value):
    """Sums a per-leaf number over the leaves of each block."""
    blocks = self.blocks(params)
    sums = [jnp.float32(0)] * (max(blocks) + 1)
    for block, leaf in zip(blocks, jax.tree.leaves(params)):
      sums[block] = sums[block] + leaf_value(leaf)
    return jnp.stack(sums)

  def _dimensions(self, params) -> Float[Array, " blocks"]:
    return self._sums(params, lambda leaf: jnp.float32(leaf.size))

  def scales(
    self, clip_state: ClipState, params: PyTree
  ) -> Float[Array, " blocks"]:
    del clip_state
    if self.scale == "equal":
      squares = jnp.ones((max(self.blocks(params)) + 1,), jnp.float32)
    elif self.scale == "dimension":
      squares = self._dimensions(params)
    else:
      squares = self._sums(
        params, lambda leaf: jnp.sum(jnp.square(leaf.astype(jnp.float32)))
      )
      squares = jnp.maximum(squares, self.floor**2)
    return self.clip_norm * jnp.sqrt(squares / jnp.sum(squares))

  def factors(
    self,
    norms: Float[Array, "*units blocks"],
    scales: Float[Array, " blocks"],
  ) -> Float[Array, "*units blocks"]:
    if self.gamma is None:
      return _threshold_factors(norms, scales)
    return _automatic_factors(norms, scales, self.gamma)

  def noise_scales(
    self, clip_state: ClipState, params: PyTree
  ) -> Float[Array, " blocks"]:
    bounds = self.scales(clip_state, params)
    if self.allocation == "uniform":
      return jnp.full_like(bounds, self.clip_norm)
    if self.allocation == "proportional":
      return math.sqrt(bounds.size) * bounds
    roots = jnp.sqrt(self._dimensions(params))
    return jnp.sqrt(bounds / roots * jnp.sum(bounds * roots))


@dataclasses.dataclass(frozen=True, kw_only=True)
class QuantileClip(_FlatRule):
  """A threshold that follows a quantile of the gradient norms, privately.

  With B the expected number of units,

    b_t     = (1/B) (sum_i (1[||g_i|| <= C_t] - 1/2) + N(0, sigma_b^2)) + 1/2
    C_{t+1} = C_t exp(-learning_rate (b_t - quantile)).

  The count has sensitivity 1/2, so releasing it costs what a Gaussian of
  multiplier 2 sigma_b costs. The mechanism's multiplier sigma pays for both
  queries; the gradient then gets (sigma^-2 - (2 sigma_b)^-2)^(-1/2). In a clip
  group the indicator may flip from -1/2 to +1/2, twice as much, exactly as the
  gradient's sensitivity doubles: one rule covers both.

  Attributes:
    clip_norm: First threshold C_0.
    quantile: Share of units that should stay unclipped.
    learning_rate: Step of the geometric update.
    count_noise: sigma_b, in units; None means B / 20.
    expected_units: B; filled in by the plan.

  References:
    Andrew et al., Differentially Private Learning with Adaptive Clipping,
    NeurIPS 2021 (arXiv 1905.03871).
  """

  quantile: float = 0.5
  learning_rate: float = 0.2
  count_noise: float | None = None
  expected_units: float | None = None

  def __post_init__(self):
    super().__post_init__()
    if not 0 <= self.quantile <= 1:
      raise ValueError(f"quantile: got {self.quantile}; it must lie in [0, 1]")
    _require_positive("learning_rate", self.learning_rate)
    if self.count_noise is not None:
      _require_positive("count_noise", self.count_noise)
    if self.expected_units is not None:
      _require_positive("expected_units", self.expected_units)

  def init(self) -> ClipState:
    return jnp.float32(self.clip_norm)

  def for_units(self, expected_units: float) -> "QuantileClip":
    if self.expected_units not in (None, expected_units):
      raise ValueError(
        f"expected_units: got {self.expected_units}; the plan's lots hold"
        f" {expected_units} units on average"
      )
    return dataclasses.replace(self, expected_units=expected_units)

  @property
  def _units(self) -> float:
    if self.expected_units is None:
      raise ValueError(
        "expected_units: got None; a plan fills it in, or give the expected"
        " number of clip units in a lot"
      )
    return self.expected_units

  @property
  def _sigma_b(self) -> float:
    return self._units / 20 if self.count_noise is None else self.count_noise

  def scales(
    self, clip_state: ClipState, params: PyTree
  ) -> Float[Array, " blocks"]:
    del params
    return jnp.reshape(clip_state, (1,))

  def factors(
    self,
    norms: Float[Array, "*units blocks"],
    scales: Float[Array, " blocks"],
  ) -> Float[Array, "*units blocks"]:
    return _threshold_factors(norms, scales)

  def gradient_noise_multipliers(self, multipliers: np.ndarray) -> np.ndarray:
    multipliers = np.asarray(multipliers, np.float64)
    largest = multipliers.max(initial=0.0)
    if largest >= 2 * self._sigma_b:
      raise ValueError(
        f"count_noise: got {self._sigma_b}; with a noise multiplier of"
        f" {largest} it must exceed {largest / 2}, or nothing of the budget"
        " is left for the gradient"
      )
    with np.errstate(divide="ignore"):
      return (multipliers**-2.0 - (2 * self._sigma_b) ** -2.0) ** -0.5

  def update(
    self,
    clip_state: ClipState,
    norms: Float[Array, " units"],
    valid: Bool[Array, " units"],
    key: Key[Array, ""],
  ) -> ClipState:
    shifted = jnp.where(norms <= clip_state, 0.5, -0.5)
    count = jnp.sum(jnp.where(valid, shifted, 0.0))
    noise = self._sigma_b * jax.random.normal(key, (), jnp.float32)
    return self.step(clip_state, (count + noise) / self._units + 0.5)

  def step(
    self, clip_norm: Float[Array, ""], unclipped: Float[Array, ""]
  ) -> Float[Array, ""]:
    """The next threshold, given the (noisy) unclipped share."""
    return clip_norm * jnp.exp(
      -self.learning_rate * (unclipped - self.quantile)
    )

  def sensitivity(
    self,
    clip_state: ClipState,
    clip_group_size: int,
    adjacency: Adjacency,
  ) -> Float[Array, ""]:
    factor = sensitivity_in_clip_norms(clip_group_size, adjacency)
    return jnp.asarray(clip_state, jnp.float32) * factor


_RULES = {
  "threshold": ThresholdClip,
  "auto": AutoClip,
  "per_layer": PerLayerClip,
  "quantile": QuantileClip,
}


def make_rule(name: str, **fields) -> ClippingRule:
  """Builds a clipping rule by name, for configs.

  Args:
    name: "threshold", "auto", "per_layer" or "quantile".
    **fields: Fields of the rule.

  Returns:
    The rule.

  Raises:
    ValueError: The name or a field is unknown, or a value is not allowed.
  """
  if name not in _RULES:
    raise ValueError(f"rule: got {name!r}; allowed are {sorted(_RULES)}")
  allowed = {field.name for field in dataclasses.fields(_RULES[name])}
  allowed.discard("expected_units")
  unknown = sorted(set(fields) - allowed)
  if unknown:
    raise ValueError(
      f"rule {name!r}: got unknown fields {unknown}; allowed are"
      f" {sorted(allowed)}"
    )
  return _RULES[name](**fields)
