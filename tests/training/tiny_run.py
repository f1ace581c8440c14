"""A run in a folder that can be stopped, crashed and started again."""

import json
import os
import signal

import jax

from trustjax import training

KEY = jax.random.key(2)


class Run:
  """Trains as the binaries do, and may be started as often as one likes.

  Attributes:
    folder: Where metrics and checkpoints lie.
    plan: Its plan, which is also its identity.
    built: (init, step), or (init, step, settle); runs may share it.
    first: First parameters.
    examples: The records.
    key: Root key.
    drawn: Steps whose lots were drawn, over all starts.
    seen: Parameters that were evaluated, over all starts.
  """

  def __init__(self, folder, plan, built, first, examples, key=KEY):
    self.folder, self.plan, self.built = folder, plan, built
    self.first, self.examples, self.key = first, examples, key
    self.drawn, self.seen = [], []

  def start(self, num_steps=None, *, stop_at=None, crash=False, **options):
    """Trains.

    Args:
      num_steps: Step to train to; None takes the plan's.
      stop_at: Step during which this process gets Ctrl-C.
      crash: Whether the first evaluation raises OSError.
      **options: Of the loop.
    """
    init, step, *settle = self.built

    def draw(t):
      self.drawn.append(t)
      if t == stop_at:
        os.kill(os.getpid(), signal.SIGINT)
      return self.plan.draw_lot(self.examples, seed=3, step=t)

    def evaluate(params):
      if crash:
        raise OSError("crashed")
      self.seen.append(jax.device_get(params))
      return {"eval/first": jax.numpy.ravel(jax.tree.leaves(params)[-1])[0]}

    checkpointer = self.checkpointer()
    fields = dict(
      num_steps=num_steps or self.plan.mechanism.num_steps,
      log_every=1,
      evaluate_every=3,
      show_progress=False,
    )
    with training.MetricWriter(
      self.folder / "metrics.jsonl", resume_at=checkpointer.latest_step()
    ) as writer:
      result = training.train(
        init(self.first),
        step,
        draw,
        self.key,
        training.LoopOptions(**(fields | options)),
        writer=writer,
        evaluate=evaluate,
        checkpointer=checkpointer,
        **({"settle": settle[0]} if settle else {}),
      )
    checkpointer.close()
    return result

  def checkpointer(self):
    """Of this folder and plan."""
    return training.Checkpointer(
      self.folder / "checkpoints", identity=self.plan.describe()
    )

  def rows(self):
    """metrics.jsonl without the clock."""
    lines = (self.folder / "metrics.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    return [{k: v for k, v in row.items() if k != "time"} for row in rows]
