"""GPT-2, BERT and DistilBERT in float64 NumPy, from the papers' formulas.

Weights are dicts in the naming and layout of the published files, written out
here by hand, so that they also test how files are read.
"""

import math

import numpy as np

_erf = np.vectorize(math.erf)


def _norm(x, weights, name, epsilon):
  mean = x.mean(-1, keepdims=True)
  variance = ((x - mean) ** 2).mean(-1, keepdims=True)
  scaled = (x - mean) / np.sqrt(variance + epsilon)
  return scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def _linear(x, weights, name):
  """PyTorch's linear layer: the matrix is [out, in]."""
  return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


def _conv1d(x, weights, name):
  """GPT-2's linear layer: the matrix is [in, out]."""
  return x @ weights[f"{name}.weight"] + weights[f"{name}.bias"]


def _attention(q, k, v, num_heads, sees):
  """Head by head and query by query; sees(q) lists the keys of a query."""
  head_dim = q.shape[1] // num_heads
  out = np.zeros_like(q)
  for head in range(num_heads):
    cut = slice(head * head_dim, (head + 1) * head_dim)
    for t in range(len(q)):
      keys = sees(t)
      scores = k[keys, cut] @ q[t, cut] / math.sqrt(head_dim)
      weights = np.exp(scores - scores.max())
      out[t, cut] = weights / weights.sum() @ v[keys, cut]
  return out


def gpt2_logits(weights, tokens, *, num_layers, num_heads, epsilon=1e-5):
  """Logits of the next token at every position, without padding."""
  w = {name: value.astype(np.float64) for name, value in weights.items()}
  x = w["wte.weight"][tokens] + w["wpe.weight"][: len(tokens)]
  for i in range(num_layers):
    qkv = _conv1d(_norm(x, w, f"h.{i}.ln_1", epsilon), w, f"h.{i}.attn.c_attn")
    q, k, v = np.split(qkv, 3, axis=1)
    mixed = _attention(q, k, v, num_heads, lambda t: list(range(t + 1)))
    x = x + _conv1d(mixed, w, f"h.{i}.attn.c_proj")
    wide = _conv1d(_norm(x, w, f"h.{i}.ln_2", epsilon), w, f"h.{i}.mlp.c_fc")
    inner = math.sqrt(2 / math.pi) * (wide + 0.044715 * wide**3)
    x = x + _conv1d(0.5 * wide * (1 + np.tanh(inner)), w, f"h.{i}.mlp.c_proj")
  x = _norm(x, w, "ln_f", epsilon)
  return x @ w.get("lm_head.weight", w["wte.weight"]).T


_BERT = {
  "layer": "encoder.layer.{}.",
  "qkv": [f"attention.self.{name}" for name in ("query", "key", "value")],
  "out": "attention.output.dense",
  "attention_norm": "attention.output.LayerNorm",
  "ff_in": "intermediate.dense",
  "ff_out": "output.dense",
  "ff_norm": "output.LayerNorm",
}
_DISTILBERT = {
  "layer": "transformer.layer.{}.",
  "qkv": [f"attention.{name}" for name in ("q_lin", "k_lin", "v_lin")],
  "out": "attention.out_lin",
  "attention_norm": "sa_layer_norm",
  "ff_in": "ffn.lin1",
  "ff_out": "ffn.lin2",
  "ff_norm": "output_layer_norm",
}


def bert_hidden(
  weights,
  tokens,
  *,
  num_layers,
  num_heads,
  epsilon=1e-12,
  token_types=None,
  distil=False,
):
  """Last hidden states, without padding."""
  w = {name: value.astype(np.float64) for name, value in weights.items()}
  names = _DISTILBERT if distil else _BERT
  everyone = list(range(len(tokens)))
  x = w["embeddings.word_embeddings.weight"][tokens]
  x = x + w["embeddings.position_embeddings.weight"][: len(tokens)]
  if not distil:
    if token_types is None:
      token_types = np.zeros(len(tokens), int)
    x = x + w["embeddings.token_type_embeddings.weight"][token_types]
  x = _norm(x, w, "embeddings.LayerNorm", epsilon)
  for i in range(num_layers):
    at = names["layer"].format(i)
    q, k, v = (_linear(x, w, at + name) for name in names["qkv"])
    mixed = _attention(q, k, v, num_heads, lambda t: everyone)
    mixed = _linear(mixed, w, at + names["out"])
    x = _norm(x + mixed, w, at + names["attention_norm"], epsilon)
    wide = _linear(x, w, at + names["ff_in"])
    wide = 0.5 * wide * (1 + _erf(wide / math.sqrt(2)))
    wide = _linear(wide, w, at + names["ff_out"])
    x = _norm(x + wide, w, at + names["ff_norm"], epsilon)
  return x


def _random(shapes, seed):
  """Weights large enough that every part matters to the output."""
  rng = np.random.default_rng(seed)
  return {
    name: rng.normal(float(name.endswith(_NORMS)), 0.4, shape).astype("f4")
    for name, shape in shapes.items()
  }


_NORMS = (
  "LayerNorm.weight",
  "layer_norm.weight",
  *(f"{name}.weight" for name in ("ln_1", "ln_2", "ln_f")),
)


def random_gpt2(
  *, vocab_size, max_length, num_layers, dim, ff_dim, tied=True, seed=0
):
  """Random weights under the names of GPT-2's own file."""
  shapes = {"wte.weight": (vocab_size, dim), "wpe.weight": (max_length, dim)}
  for i in range(num_layers):
    for name, shape in (
      ("attn.c_attn", (dim, 3 * dim)),
      ("attn.c_proj", (dim, dim)),
      ("mlp.c_fc", (dim, ff_dim)),
      ("mlp.c_proj", (ff_dim, dim)),
      ("ln_1", (dim,)),
      ("ln_2", (dim,)),
    ):
      shapes[f"h.{i}.{name}.weight"] = shape
      shapes[f"h.{i}.{name}.bias"] = shape[-1:]
  shapes |= {"ln_f.weight": (dim,), "ln_f.bias": (dim,)}
  if not tied:
    shapes["lm_head.weight"] = (vocab_size, dim)
  return _random(shapes, seed)


def random_bert(
  *, vocab_size, max_length, num_layers, dim, ff_dim, distil=False, seed=0
):
  """Random weights under the names of BERT's or DistilBERT's own file."""
  names = _DISTILBERT if distil else _BERT
  shapes = {
    "embeddings.word_embeddings.weight": (vocab_size, dim),
    "embeddings.position_embeddings.weight": (max_length, dim),
    "embeddings.LayerNorm.weight": (dim,),
    "embeddings.LayerNorm.bias": (dim,),
  }
  if not distil:
    shapes["embeddings.token_type_embeddings.weight"] = (2, dim)
    shapes |= {"pooler.dense.weight": (dim, dim), "pooler.dense.bias": (dim,)}
  for i in range(num_layers):
    at = names["layer"].format(i)
    layers = [(name, (dim, dim)) for name in (*names["qkv"], names["out"])]
    layers += [
      (names["ff_in"], (ff_dim, dim)),
      (names["ff_out"], (dim, ff_dim)),
      (names["attention_norm"], (dim,)),
      (names["ff_norm"], (dim,)),
    ]
    for name, shape in layers:
      shapes[f"{at}{name}.weight"] = shape
      shapes[f"{at}{name}.bias"] = shape[:1]
  return _random(shapes, seed)
