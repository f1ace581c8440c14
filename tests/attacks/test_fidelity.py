"""What every method has to say about itself."""

import dataclasses
import inspect
import re

import pytest

from trustjax import attacks

METHODS = (
  "record_statistics",
  "loss_threshold_scores",
  "loss_threshold_guesses",
  "confidence_scores",
  "random_input_threshold",
  "lira_scores",
  "lira_vector_scores",
  "rmia_scores",
  "tune_rmia_a",
  "taylor_softmax_log_probability",
  "posterior_features",
  "fit_attack_classifier",
  "attack_classifier_scores",
  "roc_curve",
  "auc",
  "tpr_at_fpr",
  "attack_metrics",
  "group_metrics",
  "tpr_ceiling",
  "tpr_ceiling_from_profile",
  "balanced_accuracy_ceiling",
  "extraction_ceiling",
  "group_privacy",
  "one_run_p_value",
  "one_run_epsilon_lower_bound",
  "one_run_fdp_rejected",
  "one_run_mu_lower_bound",
  "choose_num_guesses",
  "audit_error_rates",
  "opposed_gradients",
  "subsampled_log_ratio",
  "mislabelled_records",
  "gradient_canaries",
  "gradient_canary_scores",
  "make_canary",
  "exposure",
  "extraction_metrics",
  "mix_candidates",
  "canary_loss",
  "extract_canary",
  "extract_canaries",
)
PUBLIC = [name for name in dir(attacks) if not name.startswith("_")]


@pytest.mark.parametrize("name", METHODS)
def test_method_has_a_fidelity_note(name):
  note = inspect.getdoc(getattr(attacks, name)).partition("Fidelity:\n")[2]
  assert re.search(r"Verdict: (faithful|adaptation|original)", note), name


@pytest.mark.parametrize("name", PUBLIC)
def test_public_name_is_documented(name):
  found = getattr(attacks, name)
  if inspect.isfunction(found):
    text = inspect.getdoc(found)
    assert "Returns:" in text, name
    for parameter in inspect.signature(found).parameters:
      assert re.search(rf"^\s*{parameter}: ", text, re.M), parameter
  elif dataclasses.is_dataclass(found):
    text = inspect.getdoc(found)
    for field in dataclasses.fields(found):
      assert re.search(rf"^\s*{field.name}: ", text, re.M), field.name


def test_the_map_names_every_function():
  page = attacks.__doc__
  for name in PUBLIC:
    if inspect.isfunction(getattr(attacks, name)):
      assert re.search(rf"\b{name}\b", page), name
