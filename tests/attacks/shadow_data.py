"""Synthetic shadow models whose statistics have a known law."""

import numpy as np


def gaussian_shadows(
  seed=0, models=16, records=200, gain=1.0, spread=1.0, std_in=1.0, std_out=1.0
):
  """Statistics N(d + gain, std_in^2) in, N(d, std_out^2) out; d differs."""
  rng = np.random.default_rng(seed)
  member = random_halves(rng, models, records)
  difficulty = spread * rng.normal(size=records)
  noise = rng.normal(size=(models, records))
  stats = difficulty + np.where(member, gain + std_in * noise, std_out * noise)
  return stats, member


def random_halves(rng, models, records):
  """Memberships with every record in for exactly half of the models."""
  half = np.arange(models) < models // 2
  return np.stack([rng.permutation(half) for _ in range(records)], axis=1)
