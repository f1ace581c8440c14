"""Timing that is fair on a noisy machine: every method once a round.

Methods are interleaved, so that a slow minute of the machine meets all of
them; each call waits for its result; compilation stays outside the clock and
is reported by itself.
"""

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence

import jax
import numpy as np

from experiments._benchmarks import _methods
from trustjax import training


@dataclasses.dataclass(frozen=True, kw_only=True)
class Timing:
  """What was measured of one method.

  Attributes:
    seconds: Of each round on a full lot.
    drawn_ratios: Time of each drawn lot over the usual time of the reference,
      a full batch of the expected size; empty where lots are not drawn.
    padding_share: Slots without a record, over all drawn lots.
    compile_seconds: Tracing and compiling the step for a full lot; None where
      the step runs on the host.
    temp_bytes: Temporary memory of the compiled step; None where unknown.
  """

  seconds: list[float]
  drawn_ratios: list[float]
  padding_share: float | None
  compile_seconds: float | None
  temp_bytes: int | None


class _Runner:
  """A method with its state, ready to be timed."""

  def __init__(self, method: _methods.Method, params):
    self.method = method
    self.key = jax.random.key(1)
    self.state = method.init(params)
    self.lot = jax.device_put(method.full_lot)
    self.compile_seconds = self.temp_bytes = None
    self.step = method.step
    if not method.on_host:
      self._compile()
    self.run(self.lot)  # Whatever is done once is done now.

  def _compile(self):
    began = time.perf_counter()
    compiled = self.method.step.lower(self.state, self.lot, self.key).compile()
    self.compile_seconds = time.perf_counter() - began
    self.step = compiled
    analysis = compiled.memory_analysis()
    if analysis is not None:
      self.temp_bytes = int(analysis.temp_size_in_bytes)

  def run(self, lot) -> float:
    """Seconds of one step on a full lot."""
    return self._timed(self.step, lot)

  def run_drawn(self, lot) -> float:
    """Seconds of one step on a drawn lot, whose shape is another."""
    return self._timed(self.method.step, lot)

  def _timed(self, step, lot):
    began = time.perf_counter()
    self.state, _ = jax.block_until_ready(step(self.state, lot, self.key))
    return time.perf_counter() - began


def race_with_progress(
  setting: _methods.Setting,
  methods: Sequence[_methods.Method],
  *,
  rounds: int,
  host_rounds: int,
  num_lots: int,
) -> dict[str, Timing]:
  """`race` with a progress bar and a line when it is done."""
  total = len(methods) + rounds + num_lots
  with training.progress_bar(setting.key, total) as update:
    done = iter(range(1, total + 1))
    timings = race(
      setting,
      methods,
      rounds=rounds,
      host_rounds=host_rounds,
      num_lots=num_lots,
      progress=lambda note: update(next(done), note),
    )
  print(f"{setting.key}: done", flush=True)
  return timings


def race(
  setting: _methods.Setting,
  methods: Sequence[_methods.Method],
  *,
  rounds: int,
  host_rounds: int,
  num_lots: int,
  progress: Callable[[str], None],
) -> dict[str, Timing]:
  """Times all methods of a setting, interleaved.

  Args:
    setting: Model and batch.
    methods: What is raced.
    rounds: Steps of every other method on full lots.
    host_rounds: Steps of every method that is slow.
    num_lots: Drawn lots of every compiled method that draws.
    progress: Called with a note after each piece of work.

  Returns:
    Method name to timing.
  """
  runners = []
  for method in methods:
    runners.append(_Runner(method, setting.params))
    progress(f"compiled {method.name}")
  seconds: dict[str, list[float]] = {method.name: [] for method in methods}
  for i in range(rounds):
    for runner in runners:
      if not runner.method.is_slow or i < host_rounds:
        seconds[runner.method.name].append(runner.run(runner.lot))
    progress(f"round {i + 1} of {rounds}")
  best = best_non_private(seconds)
  reference = next(r for r in runners if r.method.name == best)
  drawn, padding = _race_drawn(runners, reference, num_lots, progress)
  return {
    runner.method.name: Timing(
      seconds=seconds[runner.method.name],
      drawn_ratios=drawn.get(runner.method.name, []),
      padding_share=padding.get(runner.method.name),
      compile_seconds=runner.compile_seconds,
      temp_bytes=runner.temp_bytes,
    )
    for runner in runners
  }


def _race_drawn(runners, reference, num_lots, progress):
  """Ratios on drawn lots, and their padding, by method name."""
  drawing = [
    r for r in runners if r.method.draw is not None and not r.method.on_host
  ]
  drawn = {r.method.name: [] for r in drawing}
  slots = {r.method.name: 0 for r in drawing}
  records = dict(slots)
  seen, usual = set(), []
  for i in range(num_lots):
    usual.append(reference.run(reference.lot))
    for runner in drawing:
      name = runner.method.name
      lot = runner.method.draw(i)
      slots[name] += lot.valid.size
      records[name] += int(lot.valid.sum())
      lot = jax.device_put(lot)
      if (name, lot.valid.shape) not in seen:  # Compile outside the clock.
        seen.add((name, lot.valid.shape))
        runner.run_drawn(lot)
      drawn[name].append(runner.run_drawn(lot))
    progress(f"lot {i + 1} of {num_lots}")
  padding = {n: 1 - records[n] / slots[n] for n in slots if slots[n]}
  ratios = {n: [s / np.median(usual) for s in drawn[n]] for n in drawn}
  return ratios, padding


def best_non_private(seconds: Mapping[str, Sequence[float]]) -> str:
  """Name of the fastest non-private method: the reference of all ratios."""
  candidates = {
    name: float(np.median(times))
    for name, times in seconds.items()
    if name.startswith("non_private") and name != "non_private_noise"
  }
  return min(candidates, key=lambda name: candidates[name])
