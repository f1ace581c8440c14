r"""Times sampling with a cache, and a step of distillation.

  python -m experiments.benchmark_distillation
  python -m experiments.benchmark_distillation \
      --config=configs/benchmark_distillation/gpt2_vocabulary.py --workdir=OUT

Sampling is raced against `generate` of transformers on the same weights, where
it is installed, in alternation; it is skipped by name where it is not. A step
of distillation with two teacher passes is raced against its parts measured
separately: the two passes, and the student's step on given targets.
"""

import pathlib
import tempfile
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import optax

from experiments._benchmarks import _step_record
from experiments._binary import _config_flags, _console
from trustjax import distillation, models, privacy, reporting, training

_PARTS = ("sampling", "step")
_PEERS = ("", "transformers")


def check(config: _config_flags.Config) -> None:
  """Raises ValueError if a field of the config is impossible."""
  unknown = sorted(set(config.parts) - set(_PARTS))
  if unknown or not config.parts:
    raise ValueError(
      f"config.parts: got {list(config.parts)}; allowed are {list(_PARTS)}"
    )
  if config.rounds < 2:
    raise ValueError(
      f"config.rounds: got {config.rounds}; it must be at least 2"
    )
  if config.sampling.peer not in _PEERS:
    raise ValueError(
      f"config.sampling.peer: got {config.sampling.peer!r}; allowed are"
      f" {list(_PEERS)}"
    )


def run(config: _config_flags.Config, workdir: pathlib.Path) -> None:
  """Runs the parts, writes and prints the record.

  Args:
    config: The benchmark.
    workdir: Where the record goes.
  """
  check(config)
  results = reporting.Results()
  results.set_protocol(
    {"sampling": config.sampling.to_dict(), "step": config.step.to_dict()}
  )
  results.set("hardware", _step_record.hardware())
  results.set("jax", jax.__version__)
  results.set("rounds", config.rounds)
  if "sampling" in config.parts:
    _time_sampling(config, results)
  if "step" in config.parts:
    _time_step(config, results)
  table = reporting.Table(
    columns=[reporting.Column("what"), reporting.Column("value")],
    rows=[
      {"what": key, "value": results.interval(key)}
      for key, value in results.items()
      if isinstance(value, float)
      and not results.is_companion(key)
      and not key.startswith("protocol/")
    ],
    title=str(results["hardware"]),
  )
  reporting.write_run(workdir, config=config, results=results, table=table)
  reporting.print_table(table)


def _race(
  methods: dict[str, Callable[[], Any]], rounds: int
) -> dict[str, list[float]]:
  """Seconds of every method in every round, in alternation."""
  seconds: dict[str, list[float]] = {name: [] for name in methods}
  for method in methods.values():
    method()  # Compilation stays outside the clock.
  with training.progress_bar("rounds", rounds) as update:
    for i in range(rounds):
      for name, method in methods.items():
        began = time.perf_counter()
        method()
        seconds[name].append(time.perf_counter() - began)
      update(i + 1, "")
  return seconds


def _time_sampling(config, results):
  fields = config.sampling
  model = models.transformer_decoder(
    vocab_size=fields.vocab_size,
    max_length=fields.prompt_length + fields.max_new_tokens,
    num_layers=fields.num_layers,
    dim=fields.dim,
    num_heads=fields.num_heads,
    ff_dim=4 * fields.dim,
  )
  params = jax.jit(model.init)(jax.random.key(0))
  rng = np.random.default_rng(0)
  shape = (fields.num_texts, fields.prompt_length)
  prompts = rng.integers(0, fields.vocab_size, shape).tolist()

  def sample(count):
    return models.continue_prompts(
      model,
      params,
      prompts[:count],
      jax.random.key(1),
      max_new_tokens=fields.max_new_tokens,
      sampling=models.Sampling(top_p=fields.top_p),
      chunk_size=fields.chunk_size,
    )

  began = time.perf_counter()
  sample(fields.chunk_size)
  results.set("sampling/first_chunk_seconds", time.perf_counter() - began)
  began = time.perf_counter()
  sample(fields.num_texts)
  results.set("sampling/all_texts_seconds", time.perf_counter() - began)
  results.set("sampling/num_texts", fields.num_texts)
  methods: dict[str, Callable[[], Any]] = {
    "trustjax": lambda: sample(fields.raced_texts)
  }
  peer, reason = _transformers(model, params, prompts, fields)
  if peer is not None:
    methods[fields.peer] = peer
  seconds = _race(methods, config.rounds)
  for name, times in seconds.items():
    results.measure(
      f"sampling/{name}_seconds", reporting.bootstrap_median(times)
    )
  key = "sampling/time_over_peer"
  if peer is None:
    results.set(key, None, reason=reason)
    print(f"peer: {reason}", flush=True)
  else:
    results.measure(
      key,
      reporting.bootstrap_ratio_of_medians(
        seconds["trustjax"], seconds[fields.peer]
      ),
    )


def _transformers(model, params, prompts, fields):
  """`generate` on the same weights, or None and why not."""
  if not fields.peer:
    return None, "left out by the config"
  try:
    import torch  # pyright: ignore[reportMissingImports]
    import transformers  # pyright: ignore[reportMissingImports]
  except ImportError as error:
    return None, f"transformers or torch is not installed ({error.name})"
  with tempfile.TemporaryDirectory() as folder:
    models.save_decoder(folder, model, params)
    theirs: Any = transformers.GPT2LMHeadModel.from_pretrained(folder)
  theirs.eval()
  tokens = torch.tensor(prompts[: fields.raced_texts])

  def generate():
    with torch.no_grad():
      theirs.generate(
        tokens,
        attention_mask=torch.ones_like(tokens),
        do_sample=True,
        top_p=fields.top_p,
        top_k=0,
        max_new_tokens=fields.max_new_tokens,
        pad_token_id=0,
      )

  return generate, ""


def _time_step(config, results):
  fields = config.step
  seconds = _race(_step_methods(fields), config.rounds)
  parts = np.add(seconds["teacher_passes"], seconds["student_step"])
  for name, times in seconds.items():
    results.measure(f"step/{name}_seconds", reporting.bootstrap_median(times))
  results.measure(
    "step/time_over_parts",
    reporting.bootstrap_ratio_of_medians(seconds["whole"], parts.tolist()),
  )


def _step_methods(fields) -> dict[str, Callable[[], Any]]:
  """A step of distillation, and its two parts measured separately."""
  teacher, student = (
    models.transformer_decoder(
      vocab_size=fields.vocab_size,
      max_length=fields.length,
      num_layers=layers,
      dim=fields.dim,
      num_heads=fields.num_heads,
      ff_dim=4 * fields.dim,
    )
    for layers in (fields.teacher_layers, fields.student_layers)
  )
  params = {
    name: jax.jit(model.init)(jax.random.key(i))
    for i, (name, model) in enumerate(
      (("teacher", teacher), ("student", student))
    )
  }
  lot = _lot(fields)
  examples, key = lot.examples, jax.random.key(0)

  @jax.jit
  @jax.vmap
  def passes(example):
    # Both texts of every sequence, as the whole step reads them.
    return teacher.apply(params["teacher"], example)

  both = {
    "tokens": np.concatenate([examples["tokens"], examples["tokens_cf"]]),
    "mask": np.concatenate([examples["mask"], examples["mask_cf"]]),
  }
  target = jax.nn.log_softmax(passes(both)[: fields.batch_size])
  given = privacy.Lot(
    examples=examples | {"target": target, "labels": examples["tokens"]},
    valid=lot.valid,
    ids=lot.ids,
  )
  optimizer = optax.adam(1e-3)
  trained, frozen = privacy.partition(params, "^student/")
  loss_fn = distillation.distillation_loss(student, teacher, how=fields.how)
  whole = training.make_step(loss_fn, optimizer, frozen=frozen)
  alone = training.make_step(_student_loss(student), optimizer)
  return {
    "whole": _stepper(whole, trained, lot, key),
    "teacher_passes": lambda: jax.block_until_ready(passes(both)),
    "student_step": _stepper(alone, {"student": params["student"]}, given, key),
  }


def _student_loss(student):
  """The distillation loss on targets that are given with the example."""

  def loss_fn(params, example, key):
    loss = distillation.distill_loss(
      student.apply(params["student"], example, key),
      example["target"],
      example["labels"],
      example["mask"],
      temperature=2.0,
      alpha_kd=0.5,
      alpha_lm=0.5,
    )
    return loss.total, {}

  return loss_fn


def _stepper(built, params, lot, key):
  """Takes the next step of a run, and waits for it."""
  init, step = built
  state = [init(params)]
  lot = jax.device_put(lot)

  def call():
    state[0], _ = jax.block_until_ready(step(state[0], lot, key))

  return call


def _lot(fields):
  rng = np.random.default_rng(0)
  shape = (fields.batch_size, fields.length)
  tokens = rng.integers(0, fields.vocab_size, shape).astype(np.int32)
  full = np.ones(shape, bool)
  return privacy.Lot(
    examples={
      "tokens": tokens,
      "mask": full,
      "tokens_cf": np.roll(tokens, 1, axis=0),
      "mask_cf": full,
      "idx": np.tile(np.arange(fields.length, dtype=np.int32), (shape[0], 1)),
      "valid": full,
    },
    valid=np.ones(fields.batch_size, bool),
    ids=np.arange(fields.batch_size, dtype=np.int32),
  )


if __name__ == "__main__":
  _console.run_binary(
    run,
    default_config="benchmark_distillation/default.py",
    keep_compiled=False,
  )
