"""What every metric has to say about itself, and that the example runs."""

import dataclasses
import inspect
import pathlib
import re

import pytest

from trustjax import fairness

METRICS = (
  "weat",
  "weat_pvalue",
  "seat",
  "ceat",
  "random_effects",
  "ilps",
  "lpbs",
  "causal_ilps",
  "template_bias",
  "stereoset",
  "stereoset_queries",
  "causal_stereoset_scores",
  "crows_pairs",
  "causal_pair_scores",
  "group_rates",
  "group_gaps",
  "class_gaps",
  "group_calibration",
  "bias_aucs",
  "pinned_auc_gaps",
  "power_mean",
  "counterfactual_gap",
  "template_gap",
  "distributional_fairness",
  "distributional_group_fairness",
  "counterfactual_sensitivity",
  "gender_label",
  "gender_polarity",
  "gender_ratio",
  "label_shares",
  "sentiment_label",
  "toxic_label",
  "prompted_toxicity",
  "prediction_sensitivity",
  "correlation_study",
)
PUBLIC = [name for name in dir(fairness) if not name.startswith("_")]


@pytest.mark.parametrize("name", METRICS)
def test_metric_has_a_fidelity_note(name):
  note = inspect.getdoc(getattr(fairness, name)).partition("Fidelity:\n")[2]
  verdict = re.search(r"Verdict: (faithful|adaptation|original)", note)
  assert verdict, name


@pytest.mark.parametrize("name", PUBLIC)
def test_public_name_is_documented(name):
  found = getattr(fairness, name)
  if inspect.isfunction(found):
    text = inspect.getdoc(found)
    assert "Returns:" in text or name.startswith("check_"), name
    parameters = inspect.signature(found).parameters
    if parameters:
      assert "Args:" in text, name
      for parameter in parameters:
        assert re.search(rf"^\s*\*?{parameter}: ", text, re.M), parameter
  elif dataclasses.is_dataclass(found):
    text = inspect.getdoc(found)
    for field in dataclasses.fields(found):
      if field.name in ("metric", "variant", "protocol"):
        continue
      assert re.search(rf"^\s*{field.name}: ", text, re.M), field.name


def test_the_example_of_the_readme_runs(capsys):
  text = pathlib.Path(fairness.__file__).with_name("README.md").read_text()
  exec(re.search(r"```python\n(.*?)```", text, re.S).group(1), {})
  assert len(capsys.readouterr().out.split()) >= 5
