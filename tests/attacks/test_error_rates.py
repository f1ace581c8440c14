"""Audits by error rates, and clip groups on the real aggregators.

Error rates of the statistical tests: every audit below errs with probability
at most 5 % per run under a true claim, and seeds are fixed.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dp_accounting import dp_event
from dp_accounting.pld import pld_privacy_accountant
from scipy import stats

from trustjax import attacks, privacy


@pytest.fixture(autouse=True)
def standard_promotion():
  # Clip groups of the engines are not under test here.
  with jax.numpy_dtype_promotion("standard"):
    yield


ENGINES = ("loop", "scan", "vmap", "bookkeeping")


@pytest.mark.parametrize(
  ("n", "errors", "mu", "epsilon"),
  [(200, 32, 1.556, 7.37), (1000, 159, 1.807, 8.83), (5000, 793, 1.916, 9.48)],
)
def test_known_answers(n, errors, mu, epsilon):
  audit = attacks.audit_error_rates(errors, n, errors, n)
  assert abs(audit.mu_lower_bound - mu) < 2e-3
  assert abs(audit.epsilon_gdp - epsilon) < 0.02
  assert audit.rejects_mu(1.0) and not audit.rejects_mu(2.0)
  # Without an assumption one threshold proves little.
  assert audit.epsilon_lower_bound < 1.993
  if n == 5000:
    assert abs(audit.epsilon_lower_bound - 1.59) < 0.01


def test_equals_scipy():
  audit = attacks.audit_error_rates(7, 300, 90, 400, delta=1e-3)
  upper = [
    stats.binomtest(k, n, alternative="less").proportion_ci(0.975, "exact").high
    for k, n in ((7, 300), (90, 400))
  ]
  np.testing.assert_allclose((audit.fpr_upper, audit.fnr_upper), upper)
  np.testing.assert_allclose(
    audit.mu_lower_bound,
    stats.norm.isf(upper[0]) - stats.norm.ppf(upper[1]),
  )
  np.testing.assert_allclose(
    audit.epsilon_lower_bound, np.log((1 - upper[1] - 1e-3) / upper[0])
  )
  swapped = attacks.audit_error_rates(90, 400, 7, 300, delta=1e-3)
  np.testing.assert_allclose(
    swapped.epsilon_lower_bound, audit.epsilon_lower_bound
  )


def test_an_attack_on_nothing_proves_nothing():
  audit = attacks.audit_error_rates(480, 1000, 510, 1000)
  assert audit.mu_lower_bound == audit.epsilon_lower_bound == 0
  assert attacks.audit_error_rates(10, 10, 0, 10).mu_lower_bound == 0


def test_coverage_on_a_known_mechanism():
  # Gaussian mechanism with mu = 1, threshold in the middle.
  rng = np.random.default_rng(0)
  rate = stats.norm.sf(0.5)
  exceeded = 0
  for _ in range(400):
    wrong, missed = (int(k) for k in rng.binomial(500, rate, 2))
    audit = attacks.audit_error_rates(wrong, 500, missed, 500)
    exceeded += audit.mu_lower_bound > 1
  assert attacks.clopper_pearson(exceeded, 400)[0] <= 0.05


def one_record_loss(params, example, key):
  """A loss whose gradient is the example."""
  del key
  return jnp.vdot(params, example), ()


def clipped_sum(gradients, engine, *, group_size, clip_norm):
  """What the real aggregator makes of one clip group."""
  slots = len(gradients)
  examples = jnp.asarray(gradients, jnp.float32)
  # An empty slot is what a record that was not drawn leaves behind.
  valid = jnp.any(examples != 0, axis=1)
  ids = jnp.arange(slots, dtype=jnp.int32)
  if group_size > 1:
    examples = examples.reshape(-1, group_size, examples.shape[1])
    valid, ids = valid.reshape(-1, group_size), ids.reshape(-1, group_size)
  fn = privacy.clipped_grad(
    one_record_loss,
    privacy.ThresholdClip(clip_norm=clip_norm),
    clip_group_size=group_size,
    engine=engine,
  )
  lot = privacy.Lot(examples=examples, valid=valid, ids=ids)
  params = jnp.zeros(examples.shape[-1])
  return np.asarray(fn(params, lot, jax.random.key(0), ()).sum, np.float64)


def run_test_a(engine, *, slots, group_size, sigma=1.0, clip_norm=0.5, n=5_000):
  """Test A: both worlds through the aggregator, noise, a fixed threshold."""
  direction = np.array([3.0, 4.0, 0.0]) / 5
  present, without = attacks.opposed_gradients(
    direction, group_size=slots, clip_norm=clip_norm
  )
  options = {"group_size": group_size, "clip_norm": clip_norm}
  means = [
    clipped_sum(gradients, engine, **options) @ direction / clip_norm
    for gradients in (without, present)
  ]
  rng = np.random.default_rng(0)
  x = np.array(means)[:, None] + sigma * rng.normal(size=(2, n))
  # The midpoint follows from the construction, not from the draws.
  threshold = sum(means) / 2
  audit = attacks.audit_error_rates(
    int((x[0] >= threshold).sum()), n, int((x[1] < threshold).sum()), n
  )
  return means, audit


@pytest.mark.parametrize("engine", ENGINES)
def test_a_clip_group_falsifies_the_naive_epsilon(engine):
  means, audit = run_test_a(engine, slots=4, group_size=4)
  # One record moves the clipped mean by twice the clip norm.
  np.testing.assert_allclose(means, [-1, 1], atol=1e-4)
  expected = 5_000 * stats.norm.sf(1)
  assert abs(audit.fpr_upper * 5_000 - expected) < 150
  assert audit.rejects_mu(1.0)
  assert not audit.rejects_mu(2.0)
  assert audit.epsilon_gdp > attacks.gdp_epsilon(1.0, 1e-5)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_record_clipped_by_itself_keeps_the_naive_epsilon(engine):
  means, audit = run_test_a(engine, slots=4, group_size=1)
  np.testing.assert_allclose(means, [-1, 0], atol=1e-4)
  assert not audit.rejects_mu(1.0)
  # The test has power: it comes close to the truth.
  assert audit.mu_lower_bound > 0.9


@pytest.mark.parametrize("engine", ENGINES)
def test_a_mate_in_another_group_keeps_the_naive_epsilon(engine):
  direction = np.array([1.0, 0.0])
  present, without = attacks.opposed_gradients(
    direction, group_size=2, clip_norm=1.0
  )
  # Target and mate are put into groups of their own.
  apart = [
    np.stack([g[0], np.zeros(2), g[1], np.zeros(2)]) for g in (without, present)
  ]
  options = {"group_size": 2, "clip_norm": 1.0}
  means = [clipped_sum(g, engine, **options)[0] for g in apart]
  np.testing.assert_allclose(means, [-1, 0], atol=1e-4)


def slow_log_ratio(x, q, shift, noise):
  law = stats.norm(0, noise)
  moved = stats.norm(shift, noise)
  return np.sum(
    np.log((1 - q) * law.pdf(x) + q * moved.pdf(x)) - law.logpdf(x), axis=-1
  )


def test_log_ratio_equals_scipy():
  x = np.random.default_rng(0).normal(size=(5, 20)) * 2
  options = {"shift": 1.5, "noise_std": 0.8}
  got = attacks.subsampled_log_ratio(x, sampling_rate=0.1, **options)
  np.testing.assert_allclose(got, slow_log_ratio(x, 0.1, 1.5, 0.8))
  np.testing.assert_array_equal(
    attacks.subsampled_log_ratio(x, sampling_rate=0.0, **options), 0
  )
  full = attacks.subsampled_log_ratio(x, sampling_rate=1.0, **options)
  want = (1.5 * (2 * x - 1.5) / (2 * 0.8**2)).sum(-1)
  np.testing.assert_allclose(full, want)


def profile(noise_multiplier):
  """delta(epsilon) of the sampled Gaussian of SNIPS, batch 256, 511 steps."""
  accountant = pld_privacy_accountant.PLDAccountant(
    value_discretization_interval=1e-3
  )
  step = dp_event.PoissonSampledDpEvent(
    256 / 13_084, dp_event.GaussianDpEvent(noise_multiplier)
  )
  accountant.compose(step, 511)
  epsilons = np.linspace(0, 20, 401)
  return epsilons, np.array([accountant.get_delta(e) for e in epsilons])


@pytest.mark.slow
def test_b_a_sampled_run_falsifies_the_naive_epsilon():
  # 5,000 runs a side from the exact law of the projections; thresholds from
  # runs of their own.
  q, steps, runs = 256 / 13_084, 511, 5_000
  rng = np.random.default_rng(0)

  def statistic(with_record, num):
    out = []
    for _ in range(num // 500):
      x = rng.normal(size=(500, steps))
      if with_record:
        x += 2 * (rng.random(x.shape) < q)
      out.append(
        attacks.subsampled_log_ratio(
          x, sampling_rate=q, shift=2.0, noise_std=1.0
        )
      )
    return np.concatenate(out)

  calibration = statistic(False, runs)
  without, present = statistic(False, runs), statistic(True, runs)
  naive, correct = profile(1.0), profile(0.5)
  for fpr, tpr, allowed in ((0.01, 0.42, 0.042), (0.1, 0.72, 0.242)):
    threshold = np.quantile(calibration, 1 - fpr)
    audit = attacks.audit_error_rates(
      int((without >= threshold).sum()),
      runs,
      int((present < threshold).sum()),
      runs,
    )
    assert abs((present >= threshold).mean() - tpr) < 0.03
    ceiling = attacks.tpr_ceiling_from_profile(
      fpr, epsilons=naive[0], deltas=naive[1]
    )
    assert abs(ceiling - allowed) < 0.02
    assert audit.rejects_profile(*naive)
    assert not audit.rejects_profile(*correct)


def test_bad_input():
  with pytest.raises(ValueError, match=r"6 of 5"):
    attacks.audit_error_rates(6, 5, 0, 5)
  with pytest.raises(ValueError, match=r"delta: got 0"):
    attacks.audit_error_rates(1, 5, 0, 5, delta=0)
  with pytest.raises(ValueError, match=r"zero vector"):
    attacks.opposed_gradients(np.zeros(3), group_size=2, clip_norm=1.0)
  with pytest.raises(ValueError, match=r"group_size: got 0"):
    attacks.opposed_gradients(np.ones(3), group_size=0, clip_norm=1.0)
  with pytest.raises(ValueError, match=r"noise_std: got 0"):
    attacks.subsampled_log_ratio(
      np.zeros(3), sampling_rate=0.5, shift=1.0, noise_std=0
    )
  with pytest.raises(ValueError, match=r"sampling_rate: got 2"):
    attacks.subsampled_log_ratio(
      np.zeros(3), sampling_rate=2, shift=1.0, noise_std=1
    )
