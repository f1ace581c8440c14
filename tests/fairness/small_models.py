"""A tokeniser and two language models small enough to check by hand."""

import jax
import jax.numpy as jnp
import numpy as np

from trustjax import fairness

PAD, CLS, SEP, MASK, START = range(5)
VOCAB = 400
_RNG = np.random.default_rng(0)
_TABLE = jnp.asarray(_RNG.normal(size=(VOCAB, 16)), jnp.float32)
_OUT = jnp.asarray(_RNG.normal(size=(16, VOCAB)), jnp.float32)
_PLACES = jnp.asarray(_RNG.normal(size=(64, 16)), jnp.float32)


class Pieces:
  """Cuts words into pieces of up to four letters; ids in order of arrival."""

  def __init__(self):
    self.ids = {}

  def __call__(self, text):
    out = []
    for word in text.replace(".", " .").split():
      for i in range(0, len(word), 4):
        piece = word[i : i + 4] if not i else "##" + word[i : i + 4]
        out.append(self.ids.setdefault(piece, 5 + len(self.ids)))
    return out


def subwords(**options):
  return fairness.Subwords(
    **{
      "encode": Pieces(),
      "mask_id": MASK,
      "prefix": (CLS,),
      "suffix": (SEP,),
      **options,
    }
  )


def masked_model(tokens, mask):
  """Every position sees every token, and where it stands itself."""
  places = _PLACES[: tokens.shape[1]][None]
  seen = jnp.where(mask[:, :, None], _TABLE[tokens] * (1 + places), 0.0)
  hidden = jnp.sum(seen, axis=1, keepdims=True) + places
  return jax.nn.log_softmax(jnp.tanh(hidden) @ _OUT, axis=-1)


def causal_model(tokens, mask):
  """Every position sees the tokens up to itself."""
  places = _PLACES[: tokens.shape[1]][None]
  seen = jnp.where(mask[:, :, None], _TABLE[tokens] * (1 + places), 0.0)
  hidden = jnp.cumsum(seen, axis=1)
  return jax.nn.log_softmax(jnp.tanh(hidden) @ _OUT, axis=-1)


def _log_softmax(logits):
  top = logits.max(-1, keepdims=True)
  return logits - top - np.log(np.exp(logits - top).sum(-1, keepdims=True))


def ask(ids, at, piece):
  """Log-probability of one piece at one place of one sentence, in NumPy."""
  table, out, places = map(np.asarray, (_TABLE, _OUT, _PLACES))
  seen = (table[list(ids)] * (1 + places[: len(ids)])).sum(0)
  return float(_log_softmax(np.tanh(seen + places[at]) @ out)[piece])


def ask_causal(ids):
  """The same of all tokens of one sentence, one prefix at a time."""
  table, out, places = map(np.asarray, (_TABLE, _OUT, _PLACES))
  found = []
  for i, piece in enumerate(ids):
    prefix = list(ids[:i]) or [START]
    seen = (table[prefix] * (1 + places[: len(prefix)])).sum(0)
    found.append(float(_log_softmax(np.tanh(seen) @ out)[piece]))
  return found
