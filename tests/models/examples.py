"""Examples of one record, shared by the tests of the models."""

import numpy as np
import pytest

VOCAB, INTENTS, SLOTS, TIME, CHARS, CHAR = 23, 4, 6, 7, 11, 5
SIZES = {
  "vocab_size": VOCAB,
  "num_intents": INTENTS,
  "num_slots": SLOTS,
  "max_length": TIME,
}
# One model of each kind, with every option that changes the computation.
MODELS = {
  "mean_pool": ("mean_pool", {"dim": 8, "window": 2}),
  "bilstm": ("bilstm", {"dim": 8, "hidden_dim": 6, "num_layers": 2}),
  "bilstm_char": (
    "bilstm",
    {"dim": 8, "hidden_dim": 6, "num_chars": CHARS, "char_out_dim": 5},
  ),
  "bigru": (
    "bigru",
    {"dim": 8, "hidden_dim": 6, "num_layers": 2, "skip": True},
  ),
  "transformer": (
    "transformer",
    {"num_layers": 2, "dim": 8, "num_heads": 2, "ff_dim": 12},
  ),
  "bert": ("bert", {"num_layers": 2, "dim": 8, "num_heads": 2, "ff_dim": 12}),
}

# For parametrised tests. Two stacked layers are the BiGRU's, too, and the LSTM
# is that of the model with characters, so the plain BiLSTM adds compile time.
KINDS = [
  pytest.param(kind, marks=pytest.mark.slow) if kind == "bilstm" else kind
  for kind in MODELS
]


def example(seed: int = 0, length: int = 4) -> dict[str, np.ndarray]:
  """A random record with `length` words; what is padded is zero."""
  rng = np.random.default_rng(seed)
  mask = np.arange(TIME) < length
  chars = rng.integers(1, CHARS, (TIME, CHAR))
  chars *= np.arange(CHAR) < rng.integers(1, CHAR + 1, (TIME, 1))
  return {
    "tokens": np.where(mask, rng.integers(2, VOCAB, TIME), 0).astype(np.int32),
    "mask": mask,
    "chars": (chars * mask[:, None]).astype(np.int32),
    "intent": np.int32(rng.integers(INTENTS)),
    "slots": np.where(mask, rng.integers(0, SLOTS, TIME), 0).astype(np.int32),
  }


def batch(count: int, seed: int = 0) -> dict[str, np.ndarray]:
  """Random records of lengths 1 to TIME, stacked."""
  rng = np.random.default_rng(seed)
  records = [
    example(seed + i, int(rng.integers(1, TIME + 1))) for i in range(count)
  ]
  return {name: np.stack([r[name] for r in records]) for name in records[0]}
