"""The audit binary: its record, and canaries against what is known."""

import dataclasses
import types

import jax
import numpy as np
import pytest

from configs.audit import default, exceedance, snips
from experiments import audit, private_training
from experiments._attacks import _audit_runs, _exceedance
from trustjax import privacy, reporting


def tiny_config(**changes):
  config = default.get_config()
  config.update(
    {
      "arms": ("edp_sgd",),
      "model": {"dim": 4},
      "non_private": {"num_steps": 40, "batch_size": 64},
      "private": {"num_steps": 4, "expected_batch_size": 64},
      "edp": {"clip_group_size": 4},
      "data": {"max_length": 12},
      "audit": {
        "num_canaries": 100,
        "num_references": 1,
        "release_trials": 2000,
      }
      | changes,
    }
  )
  return config


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
  folder = tmp_path_factory.mktemp("audit")
  audit.run(tiny_config(), folder)
  return folder, reporting.read_results(folder / "results.json")


@pytest.mark.slow
def test_the_record_has_the_promised_keys(finished):
  folder, results = finished
  assert "one run, gradients" in results["edp_sgd/audit_method"]
  for method in ("records", "gradients", "gradients_gdp"):
    assert results[f"edp_sgd/{method}/epsilon_lower_bound"] >= 0
  assert (
    results["edp_sgd/epsilon_lower_bound"]
    == results["edp_sgd/gradients/epsilon_lower_bound"]
  )
  assert results["edp_sgd/epsilon"] > 1.5 * results["edp_sgd/epsilon_naive"]
  assert results["edp_sgd/epsilon_lower_bound"] <= results["edp_sgd/epsilon"]
  figure = (folder / "figures/bounds.png").read_bytes()
  assert figure.startswith(b"\x89PNG")


@pytest.mark.slow
def test_gradients_of_a_model_without_noise_are_found(tmp_path):
  """Without noise nearly every guess is right, and no epsilon is finite."""
  config = tiny_config()
  config.arms = ("non_private",)
  audit.run(config, tmp_path)
  results = reporting.read_results(tmp_path / "results.json")
  correct = results["non_private/gradients/correct_guesses"]
  assert correct >= 0.97 * results["non_private/gradients/guesses"]
  assert results["non_private/epsilon_lower_bound"] > 1.5
  assert results["non_private/epsilon"] is None
  assert "no noise" in results["non_private/epsilon_reason"]


@pytest.mark.slow
def test_one_release_falsifies_the_naive_claim_of_clip_groups(finished):
  _, results = finished
  assert results["edp_sgd/release/naive_rejected"] == "yes"
  assert results["edp_sgd/release/correct_rejected"] == "no"
  assert (
    results["edp_sgd/release/mu"] == 2 * results["edp_sgd/release/mu_naive"]
  )


def test_one_release_keeps_the_claim_of_single_records():
  plan = privacy.DpSgdPlan.make(
    num_records=100,
    expected_batch_size=10,
    rule=privacy.ThresholdClip(clip_norm=0.3),
    num_steps=5,
    noise_multiplier=0.8,
  )
  found = _audit_runs.release_audit(
    plan, "auto", trials=4000, delta=1e-5, seed=0
  )
  assert not found.rejects_mu(1 / 0.8)
  assert found.mu_lower_bound > 0.9 / 0.8


@pytest.fixture(scope="module")
def task():
  return private_training.make_task(tiny_config())


def test_canaries_have_their_own_coordinates_and_coins(task):
  rows = _audit_runs.gradient_rows(task, 50, seed=1)
  own = rows.examples["canary"][-50:]
  assert len(set(own)) == 50 and own.min() >= 0
  assert (rows.examples["canary"][:-50] == -1).all()
  assert rows.member[:, :-50].all()
  assert 10 < rows.coins.sum() < 40
  records = _audit_runs.mislabelled(task, 50, 3, seed=1)
  assert records.member.shape == (3, task.corpus.num_train + 50)
  with pytest.raises(ValueError, match="num_canaries: got 10000000"):
    _audit_runs.gradient_rows(task, 10**7, seed=1)


def test_a_canarys_gradient_is_the_one_it_chose(task):
  rows = _audit_runs.gradient_rows(task, 3, seed=1)
  chosen = _audit_runs.with_gradient_canaries(task, 100.0)
  params = jax.jit(task.initial)(jax.random.key(0))
  example = {k: v[-1] for k, v in rows.examples.items()}
  loss = jax.jit(lambda p, example: chosen.loss_fn(p, example, None)[0])
  gradient = jax.jit(jax.grad(loss))(params, example)
  flat = np.concatenate([np.ravel(x) for x in jax.tree.leaves(gradient)])
  assert np.count_nonzero(flat) == 1 and flat.max() == 100.0
  plain = {k: v[0] for k, v in rows.examples.items()}
  own = {k: v for k, v in plain.items() if k != "canary"}
  usual = jax.jit(lambda p, example: task.loss_fn(p, example, None)[0])
  np.testing.assert_allclose(loss(params, plain), usual(params, own), rtol=1e-6)


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"method": "luck"}, "audit.method: got 'luck'; allowed are"),
    ({"num_canaries": 3}, "audit.num_canaries: got 3; it must be at least 10"),
    ({"release_trials": 1}, "release_trials: got 1"),
    ({"repetitions": -1}, "exceedance.repetitions: got -1"),
    ({"mus": (0.0,)}, r"exceedance.mus: got \(0.0,\)"),
  ],
)
def test_bad_fields_are_named(changes, message, tmp_path):
  config = tiny_config()
  for name, value in changes.items():
    part = config.audit if name in config.audit else config.exceedance
    part[name] = value
  with pytest.raises(ValueError, match=message):
    audit.run(config, tmp_path)
  assert not (tmp_path / "results.json").exists()


@pytest.fixture(scope="module")
def repeated():
  config = tiny_config(num_canaries=300)
  config.exceedance.update(
    {"repetitions": 40, "epsilons": (1.0,), "mus": (2.0,)}
  )
  return list(_exceedance.simulated(config))


def test_bounds_on_known_mechanisms_seldom_exceed_them(repeated):
  results = reporting.Results()
  for found in repeated:
    _exceedance.record(results, found)
    key = f"exceedance/{found.name}"
    # By chance in less than 2.5 % of seeds, were the bound's error 5 %.
    assert results[f"{key}/valid"] == "yes"
    assert found.bounds.shape == (40,) and (found.bounds > 0).any()
  share = results["exceedance/randomised_response_epsilon_1/share_of_epsilon"]
  assert 0.5 <= share < 1
  table = _exceedance.make_table(results, repeated)
  assert len(table.rows) == 5
  assert "gaussian release mu 2 gdp" in table.to_markdown()


def test_a_claim_that_is_too_small_is_exceeded(repeated):
  found = dataclasses.replace(repeated[0], epsilon=0.5)
  results = reporting.Results()
  _exceedance.record(results, found)
  assert results[f"exceedance/{found.name}/valid"] == "no"
  assert results[f"exceedance/{found.name}/exceeded"] > 0.5


@pytest.mark.slow
def test_the_study_of_exceedance_leaves_a_record(tmp_path):
  config = tiny_config()
  config.exceedance.update({"repetitions": 8, "epsilons": (1.0,), "mus": ()})
  config.arms = ("dp_sgd",)
  audit.run(config, tmp_path)
  results = reporting.read_results(tmp_path / "results.json")
  key = "exceedance/dp_sgd_gradients"
  assert 7.9 < results[f"{key}/epsilon"] <= 8
  assert results[f"{key}/repetitions"] == 8
  figure = (tmp_path / "figures/exceedance.png").read_bytes()
  assert figure.startswith(b"\x89PNG")


def test_configs_are_those_of_the_binary():
  for module in (default, snips, exceedance):
    audit.check(module.get_config())


def test_a_rule_that_learns_has_no_release_to_audit():
  """Its threshold's count is released, too: one Gaussian is not the claim."""
  plan = privacy.DpSgdPlan.make(
    num_records=100,
    expected_batch_size=50,
    rule=privacy.QuantileClip(),
    num_steps=1,
    noise_multiplier=1.0,
  )
  arm = types.SimpleNamespace(name="dp_sgd", plan=plan, engine="vmap")
  results = reporting.Results()
  audit._record_release(results, tiny_config(), arm)
  for name in ("mu_lower_bound", "mu_naive", "mu"):
    assert results[f"dp_sgd/release/{name}"] is None
