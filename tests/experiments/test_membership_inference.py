"""The membership binary: its record, its resume, and how it refuses."""

import json

import numpy as np
import pytest

from configs.membership_inference import (
  clinc150,
  default,
  nlu_evaluation,
  snips,
  snips_other_arms,
)
from experiments import membership_inference
from experiments._attacks import (
  _membership_attacks,
  _membership_groups,
  _membership_record,
  _shadow_training,
)
from tests.experiments import binaries
from trustjax import reporting

ATTACKS = ("yeom", "lira_online", "lira_offline", "rmia")
METRICS = (
  "auc",
  "balanced_accuracy",
  "tpr_at_fpr_0.001",
  "tpr_at_fpr_0.01",
)


def tiny_config(**attack):
  config = default.get_config()
  config.arms = ("non_private", "edp_sgd")
  config.target_epsilons = (1.0,)  # Much noise is quick to account for.
  fields = {
    "num_models": 8,
    "pool_size": 160,
    "num_resamples": 20,
    "attacks": ATTACKS,
  }
  config.update(
    {
      "model": {"dim": 4},
      "non_private": {"num_steps": 60, "batch_size": 16},
      "private": {"num_steps": 4, "expected_batch_size": 16},
      "edp": {"clip_group_size": 4},
      "data": {"max_length": 12},
      "attack": fields | attack,
    }
  )
  return config


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
  """A small study, run once: its folder and its record."""
  folder = tmp_path_factory.mktemp("study")
  membership_inference.run(tiny_config(), folder)
  return folder, reporting.read_results(folder / "results.json")


def test_the_record_has_the_promised_keys(finished):
  _, results = finished
  for arm in ("non_private", "edp_sgd"):
    for attack in ATTACKS:
      for metric in METRICS:
        key = f"{arm}/{attack}/{metric}"
        if metric == "tpr_at_fpr_0.001":
          # 640 non-members cannot resolve one in a thousand.
          assert results[key] is None
          assert "0.001" in results[f"{key}_reason"]
          continue
        assert results[f"{key}_low"] <= results[key] <= results[f"{key}_high"]
    assert results[f"{arm}/models"] == 8
    assert results[f"{arm}/epsilon_lower_bound"] >= 0
    assert "fixed before training" in results[f"{arm}/audit_method"]
    assert 0 <= results[f"{arm}/intent_accuracy"] <= 1
  assert results["non_private/epsilon"] is None
  assert 0.9 < results["edp_sgd/epsilon_naive"] <= 1
  assert results["edp_sgd/epsilon"] > 2


def test_an_overfitted_model_is_attacked_and_the_claims_are_recorded(finished):
  _, results = finished
  assert results["non_private/lira_online/auc_low"] > 0.55
  assert (
    results["non_private/loss_members"]
    < results["non_private/loss_non_members"]
  )
  assert "claim/lira_above_loss_threshold_tpr_at_fpr_0.01" in results
  assert results["claim/edp_sgd_below_its_ceiling_tpr_at_fpr_0.01"] == "HOLDS"


def test_groups_of_records_are_judged_by_themselves(finished):
  folder, results = finished
  key = "non_private/lira_online"
  assert results["non_private/singletons/records"] > 20
  assert results[f"{key}/singletons/auc_low"] > 0.5
  assert results[f"{key}/single_copies/auc"] is not None
  assert (
    "of records without copies"
    in (results["claim/edp_sgd_below_its_ceiling_tpr_at_fpr_0.01/source"])
  )
  table = (folder / "table.md").read_text()
  assert "LiRA online: singletons (" in table
  assert "8 models: with so few shadows" in table


def test_groups_known_answer():
  """Two intents, one of them of a single record; a copy; a word for one."""
  tokens = np.array([[1, 2, 0], [1, 2, 0], [3, 3, 0], [1, 4, 2], [4, 0, 0]])
  pool = _shadow_training.Pool(
    examples={
      "tokens": tokens,
      "mask": tokens > 0,
      "intent": np.array([5, 5, 5, 5, 6]),
    },
    text=np.array([0, 0, 1, 2, 3]),
    member=np.zeros((8, 5), bool),
    population={},
  )
  found = _membership_groups.make_groups(pool)
  assert set(found) == set(_membership_groups.NAMES)
  np.testing.assert_array_equal(found["rare_intents"], np.arange(5) == 4)
  np.testing.assert_array_equal(found["singletons"], np.arange(5) == 2)
  np.testing.assert_array_equal(found["single_copies"], np.arange(5) > 1)
  few = np.arange(30)[None] % 2 == 0
  assert "3 usable records are rare intents" in _membership_groups.too_small(
    "rare_intents", few[:, :3]
  )
  assert not _membership_groups.too_small("singletons", few)
  assert "only members" in _membership_groups.too_small("x", few | True)


def test_memberships_and_figures_are_written(finished):
  folder, _ = finished
  with np.load(folder / "memberships.npz") as file:
    assert file["member"].shape == (8, 160)
  for name in ("roc", "theory_and_practice"):
    figure = (folder / f"figures/{name}.png").read_bytes()
    assert figure.startswith(b"\x89PNG")
  assert "naive: no guarantee" in (folder / "table.md").read_text()


def test_statistics_from_outside_give_the_same_scores(finished, tmp_path):
  """The arm's own file, read as another's, and with arrays left out."""
  folder, results = finished
  path = folder / "arms/non_private/statistics.npz"
  config = tiny_config()
  config.statistics_file = str(path)
  membership_inference.run(config, tmp_path / "whole")
  outside = reporting.read_results(tmp_path / "whole/results.json")
  for attack in ATTACKS:
    for metric in ("auc", "tpr_at_fpr_0.01"):
      assert (
        outside[f"outside/{attack}/{metric}"]
        == results[f"non_private/{attack}/{metric}"]
      )
  with np.load(path) as file:
    part = {key: file[key] for key in ("member", "log_p")}
  np.savez(tmp_path / "part.npz", **part)
  config.statistics_file = str(tmp_path / "part.npz")
  membership_inference.run(config, tmp_path / "part")
  less = reporting.read_results(tmp_path / "part/results.json")
  assert less["outside/yeom/auc"] == results["non_private/yeom/auc"]
  assert less["outside/rmia/auc"] is None
  assert "population_log_p" in less["outside/rmia/auc_reason"]


def test_a_finished_arm_is_read_not_trained_again(finished, monkeypatch):
  folder, results = finished

  def trained_again(*args, **kwargs):
    raise AssertionError("trained again")

  monkeypatch.setattr(
    _shadow_training.training, "train_ensemble", trained_again
  )
  membership_inference.run(tiny_config(), folder)
  again = reporting.read_results(folder / "results.json")
  assert dict(again) == dict(results)


def test_every_attack_runs_and_copies_share_their_coin(finished):
  folder, _ = finished
  with np.load(folder / "arms/edp_sgd/statistics.npz") as file:
    found = dict(file)
  usable = _shadow_training.enough_shadows(found["member"])
  part = {
    k: v[:, usable] if v.shape[:2] == found["member"].shape else v
    for k, v in found.items()
  }
  for name in ("salem", "lira_vector"):
    scores = _membership_attacks.scores(name, part, 0)
    assert scores.shape == part["member"].shape
    assert np.isfinite(scores).all()


def test_an_audit_guesses_fair_coins_of_single_records():
  member = np.zeros((8, 5), bool)
  member[1:4] = True  # Three of the seven others are in, everywhere but ...
  member[3, 1] = False  # ... here, where only model 0 makes it three,
  member[0, 1] = True
  member[4:6, 2] = True  # ... and here, where it makes three models out.
  text = np.array([7, 1, 2, 5, 5])
  attacked = _membership_record.Attacked(
    name="arm",
    arm=None,
    found={"member": member},
    usable=_shadow_training.enough_shadows(member),
    scores={},
  )
  assert attacked.usable.all()
  canaries = membership_inference.audit_canaries
  np.testing.assert_array_equal(canaries(attacked, text), [0])
  np.testing.assert_array_equal(canaries(attacked, None), [0, 3, 4])


@pytest.mark.slow
def test_a_shadow_classifier_and_offline_rmia_find_members(finished):
  folder, _ = finished
  with np.load(folder / "arms/non_private/statistics.npz") as file:
    found = dict(file)
  shape = found["member"].shape
  usable = _shadow_training.enough_shadows(found["member"])
  found = {
    k: v[:, usable] if v.shape[:2] == shape else v for k, v in found.items()
  }
  member = found["member"]
  for name in ("shadow_classifier", "rmia_offline"):
    scores = _membership_attacks.scores(name, found, 0)
    assert scores[member].mean() > scores[~member].mean()


@pytest.mark.parametrize(
  ("path", "value", "message"),
  [
    ("attack.attacks", ("lyra",), r"attacks: got \['lyra'\]; allowed are"),
    ("attack.fprs", (2.0,), r"fprs: got \[2.0\]"),
    ("attack.num_models", 4, "num_models: got 4; at least 8"),
    ("attack.pool_size", 10**6, "pool_size: got 1000000; it must lie"),
    ("attack.num_resamples", 0, "num_resamples: got 0"),
    ("attack.groups", ("poets",), r"attack.groups: got \['poets'\]"),
    ("attack.group_attacks", ("x",), r"group_attacks: got \['x'\]"),
    ("arms", ("dp_sgd_loop",), "'dp_sgd_loop', which is not trained"),
    ("arms", ("dp",), r"config.arms: got \['dp'\]; allowed are"),
  ],
)
def test_bad_fields_are_named(path, value, message, tmp_path):
  config = tiny_config()
  binaries.set_field(config, path, value)
  with pytest.raises(ValueError, match=message):
    membership_inference.run(config, tmp_path)
  assert not (tmp_path / "results.json").exists()


@pytest.mark.parametrize(
  ("arrays", "message"),
  [
    ({"member": np.ones((8, 4), bool)}, "needed are 'member' and 'log_p'"),
    (
      {"member": np.ones((8, 4), bool), "log_p": np.full((8, 4), np.nan)},
      "'log_p' holds values that are not finite",
    ),
    (
      {"member": np.ones((8, 4), bool), "joint_logit": np.zeros((8, 5))},
      r"'joint_logit' has shape \(8, 5\); it must begin with \(8, 4\)",
    ),
  ],
)
def test_bad_statistics_are_named(arrays, message, tmp_path):
  np.savez(tmp_path / "bad.npz", **arrays)
  with pytest.raises(ValueError, match=message):
    _membership_attacks.read_outside(str(tmp_path / "bad.npz"))
  with pytest.raises(FileNotFoundError, match="there is no"):
    _membership_attacks.read_outside(str(tmp_path / "none.npz"))


def test_configs_are_those_of_the_binary():
  modules = (default, snips, snips_other_arms, nlu_evaluation, clinc150)
  for module in modules:
    config = module.get_config()
    membership_inference.check(config)
    json.dumps(config.to_dict())


def test_clipping_alone_is_dp_sgd_without_noise():
  config = tiny_config()
  config.arms = ("clip_only",)
  (arm,) = membership_inference.make_arms(config, 80)
  assert arm.name == "clip_only"
  assert arm.plan.mechanism.noise_multiplier == 0
