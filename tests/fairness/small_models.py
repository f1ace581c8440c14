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


def ask(ids, at, piece):
  """Log-probability of one piece at one place of one sentence."""
  tokens = jnp.asarray([ids])
  return float(masked_model(tokens, jnp.ones_like(tokens, bool))[0, at, piece])


def ask_causal(ids):
  """Log-probabilities of all tokens of one sentence, one prefix at a time."""
  out = []
  for i, piece in enumerate(ids):
    tokens = jnp.asarray([ids[:i] or [START]])
    log_probs = causal_model(tokens, jnp.ones_like(tokens, bool))
    out.append(float(log_probs[0, -1, piece]))
  return out
