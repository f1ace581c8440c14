"""The fairness binary: given arrays, trained models, planted and not."""

import numpy as np
import pytest

from configs.fairness_metrics import default, unbiased
from experiments import fairness_metrics
from experiments._fairness import (
  _decision_metrics,
  _generated_texts,
  _given_arrays,
  _intrinsic_metrics,
  _measured,
  _planted_models,
  _probes,
)
from trustjax import data, fairness, reporting


def given_config(tmp_path, **arrays):
  """A config whose files hold the given arrays, by kind."""
  config = default.get_config()
  config.num_draws = 50
  for kind, content in arrays.items():
    path = tmp_path / f"{kind}.npz"
    np.savez(path, **content)
    config.given[kind] = str(path)
  return config


def circle(*degrees):
  angle = np.deg2rad(degrees)
  return np.stack([np.cos(angle), np.sin(angle)], 1).astype(np.float32)


def test_given_arrays_get_their_known_answers(tmp_path, monkeypatch):
  """WEAT on the unit circle, the two-target StereoSet, LPBS of ln 4."""
  monkeypatch.setattr(_given_arrays, "_NUM_BOOT", 50)
  config = given_config(
    tmp_path,
    embeddings={
      "x": circle(0, 30),
      "y": circle(60, 90),
      "a": circle(0),
      "b": circle(90),
    },
    log_probabilities={
      "stereoset_scores": np.array(
        [[0.5, 0.3, 0.1], [0.2, 0.4, 0.3], [0.6, 0.6, 0.7]]
      ),
      "target_id": np.array([0, 0, 1]),
      "score_more": np.array([-1.0, -2.0]),
      "score_less": np.array([-2.0, -1.0]),
      "is_anti": np.array([False, False]),
      "logp_target": np.log([[0.4, 0.1]]),
      "logp_prior": np.log([[0.2, 0.2]]),
    },
  )
  fairness_metrics.run(config, tmp_path / "out")
  results = reporting.read_results(tmp_path / "out/results.json")
  for key, expected in {
    "weat/given/value": 1.5710961,
    "stereoset_ss/given/value": 25.0,
    "stereoset_lms/given/value": 37.5,
    "stereoset_icat/given/value": 18.75,
    "crows_pairs/given/value": 50.0,
    "lpbs/given/value": np.log(4),
  }.items():
    np.testing.assert_allclose(results[key], expected, rtol=1e-6, err_msg=key)
  assert results["weat/given/n"] == 4
  assert (tmp_path / "out/figures/metrics.png").stat().st_size > 5000
  assert not (tmp_path / "out/models").exists()


@pytest.mark.slow  # Compiles bootstraps of four metrics.
def test_given_predictions_get_their_known_answers(tmp_path):
  config = given_config(
    tmp_path,
    predictions={
      "scores": np.array([0.9, 0.8, 0.7, 0.2, 0.9, 0.3, 0.2, 0.1] * 20),
      "y_true": np.array([1, 1, 0, 0, 1, 1, 0, 0] * 20),
      "group": np.array([0, 0, 0, 0, 1, 1, 1, 1] * 20),
      "scores_cf": np.array([[0.8], [0.8], [0.5], [0.2]] * 40),
      "gender_label": np.array([0] * 30 + [1] * 10),
      "profession": np.zeros(40, int),
      "prompt": np.arange(40),
    },
  )
  fairness_metrics.run(config, tmp_path / "out")
  results = reporting.read_results(tmp_path / "out/results.json")
  for key, expected in {
    "demographic_parity_difference/given/value": 0.5,
    "equalized_odds_difference/given/value": 0.5,
    "subgroup_auc/group_0/value": 1.0,
    "bpsn_auc/group_1/value": 1.0,
    "gender_ratio_mean/given/value": 1 / 3,
    "counterfactual_gap/given/value": 1.3 / 8,
    "counterfactual_flip_rate/given/value": 2 / 8,
  }.items():
    np.testing.assert_allclose(results[key], expected, rtol=1e-6, err_msg=key)
  parity = "demographic_parity_difference/given/value"
  assert results[f"{parity}_low"] <= 0.5 <= results[f"{parity}_high"]
  assert 0 < results["demographic_parity_difference/given/null_95"] < 0.3


@pytest.mark.parametrize(
  ("kind", "content", "message"),
  [
    ("embeddings", {"x": np.ones((2, 2))}, r"holds 'x' but not \['a', 'b', 'y"),
    ("predictions", {"score": np.ones(2)}, r"unknown arrays \['score'\]"),
    ("predictions", {}, "holds no arrays"),
    (
      "embeddings",
      {s: np.ones((2, 3 if s == "b" else 2)) for s in "xyab"},
      "'b' has 3 dim, but 'x' has 2",
    ),
    (
      "embeddings",
      {s: np.full((2, 2), "word") for s in "xyab"},
      r"x\[0, 0\] is word; allowed are numbers",
    ),
    (
      "log_probabilities",
      {"stereoset_scores": np.ones((4, 2)), "target_id": np.zeros(4, int)},
      r"shape \[4, 2\]; it must be \[clusters, 3\]",
    ),
    (
      "log_probabilities",
      {"logp_target": np.full((4, 2), 0.4), "logp_prior": -np.ones((4, 2))},
      r"logp_target\[0, 0\] is 0.4; allowed are logarithms",
    ),
    (
      "log_probabilities",
      {
        "score_more": -np.ones(2),
        "score_less": -np.ones(2),
        "is_anti": np.array(["stereo", "antistereo"]),
      },
      r"is_anti\[0\] is stereo; allowed are true or false",
    ),
    (
      "predictions",
      {
        "scores": np.array([0.2, 3.0]),
        "y_true": np.arange(2),
        "group": np.zeros(2),
      },
      r"scores\[1\] is 3.0; allowed are probabilities",
    ),
    (
      "predictions",
      {
        "gender_label": np.array([0, 0.5]),
        "profession": np.zeros(2),
        "prompt": np.arange(2),
      },
      r"gender_label\[1\] is 0.5; allowed are whole",
    ),
    (
      "predictions",
      {name: np.zeros(0) for name in ("scores", "y_true", "group")},
      r"shape \[0\]; it must be \[records\], and not empty",
    ),
  ],
)
def test_bad_files(tmp_path, kind, content, message):
  config = given_config(tmp_path, **{kind: content})
  with pytest.raises(ValueError, match=message):
    fairness_metrics.run(config, tmp_path / "out")


def test_files_that_are_not_there_or_not_arrays(tmp_path):
  config = default.get_config()
  config.given.predictions = str(tmp_path / "none.npz")
  with pytest.raises(FileNotFoundError, match=r"given\.predictions: there is"):
    fairness_metrics.run(config, tmp_path / "out")
  path = tmp_path / "text.npz"
  path.write_text("no arrays")
  with pytest.raises(ValueError, match="is not an .npz file"):
    _given_arrays.read(path, "embeddings")


def test_bad_numbers(tmp_path):
  config = default.get_config()
  config.num_samples = 0
  with pytest.raises(ValueError, match="num_samples: got 0"):
    fairness_metrics.run(config, tmp_path)


def test_unbiased_config_differs_in_the_planted_levels_alone():
  plain, null = default.get_config(), unbiased.get_config()
  null.corpus = plain.corpus
  assert plain.to_dict() == null.to_dict()
  assert not any(
    unbiased.get_config().corpus[field]
    for field in ("bias", "opinion_bias", "label_bias")
  )


class TestProbes:
  def test_every_probe_is_in_the_vocabulary(self):
    for probe in (
      _probes.template_probe("occupations").target,
      _probes.template_probe("opinions").prior,
      _probes.cluster_queries(),
      _probes.pair_queries(),
      *_probes.causal_template_probe("occupations"),
      *_probes.causal_template_probe("opinions"),
    ):
      tokens = np.asarray(probe.tokens)
      assert not (tokens == 1).any()
      assert tokens.shape[1] <= data.SENTENCE_TIME
    for test in _intrinsic_metrics.TESTS:
      for side in "xyab":
        assert not (_probes.sentence_probes(test)[side]["tokens"] == 1).any()

  def test_templates_differ_in_the_person_alone(self):
    number, rows = _probes.person_templates()
    words = np.reshape([row.split()[1] for row in rows], (number, -1))
    assert number == 2 * 4 * 4
    assert (words == words[0]).all()
    assert len(set(words[0])) == words.shape[1] == 24
    assert len(set(rows)) == len(rows)
    assert not (_probes.encode(rows)["tokens"] == 1).any()

  def test_templates_ask_for_the_stereotype_first(self):
    queries = _probes.template_probe("occupations").target
    vocabulary = data.occupation_vocabulary()
    rows = zip(queries.tokens, queries.piece)
    first = [(vocabulary.decode(ids), piece) for ids, piece in rows][::2]
    for words, piece in first:
      (occupation,) = (w for w in words if w in data.OCCUPATIONS)
      asked = vocabulary.tokens[piece]
      side = data.OCCUPATIONS[occupation]
      assert (
        asked
        in {
          "male": {"he", "him", "man"},
          "female": {"she", "her", "woman"},
        }[side]
      )

  def test_contexts_hold_the_word_they_are_of(self):
    arrays, places = _probes.contexts()
    vocabulary = data.occupation_vocabulary()
    for word, found in places.items():
      assert len(found) == 10, word
      for row, at in found:
        assert vocabulary.tokens[arrays["tokens"][row, at]] == word

  @pytest.mark.slow
  def test_a_start_is_read_once(self):
    """The wrapped model answers as the plain one on started sentences."""
    shape = _planted_models.Shape(objective="causal", num_layers=1, dim=32)
    model = _planted_models.make_language_model(shape)
    params = model.init(_key())
    started = np.array([[2, 10, 11, 12]])
    mask = np.ones((1, 4), bool)
    fn = _probes.started_log_probs(model)
    plain = fn(params, started, mask)
    bare = fn(params, started[:, 1:], mask[:, 1:])
    np.testing.assert_allclose(plain[:, 1:], bare, atol=1e-5)


def _key(seed=0):
  import jax

  return jax.random.key(seed)


@pytest.mark.slow
def test_decision_metrics_see_who_is_disfavoured(monkeypatch):
  """Women lose 0.2 whatever they did: every gap says so, with its sign."""
  monkeypatch.setattr(_measured, "NUM_BOOT", 50)
  rng = np.random.default_rng(0)
  group = np.arange(800) % 2
  labels = (rng.random(800) < 0.5).astype(np.int32)
  fair = np.clip(0.3 + 0.4 * labels + 0.1 * rng.normal(size=800), 0.25, 0.95)
  loss = 0.2
  scores = np.where(group == 0, fair - loss, fair).astype(np.float32)
  swapped = np.where(group == 0, fair, fair - loss).astype(np.float32)
  found = _decision_metrics.decision_metrics(
    scores, swapped, labels, group, _key()
  )
  np.testing.assert_allclose(
    found["counterfactual_signed/gender"].value, loss, atol=1e-5
  )
  np.testing.assert_allclose(
    found["counterfactual_gap/gender"].value, loss, atol=1e-5
  )
  parity = found["demographic_parity_difference/gender"]
  assert parity.value > parity.null[1]
  assert found["bnsp_auc/female"].value < found["bnsp_auc/male"].value
  assert found["pos_aeg/female"].value < 0 < found["pos_aeg/male"].value
  for code, name in enumerate(("female", "male")):
    np.testing.assert_allclose(
      found[f"calibration_bias/{name}"].value,
      np.mean((scores - labels)[group == code]),
      atol=1e-5,
    )
  np.testing.assert_allclose(
    found["counterfactual_flip_rate/gender"].value,
    np.mean((scores > 0.5) != (swapped > 0.5)),
    atol=1e-6,
  )
  for name, one in found.items():
    assert one.low is not None, name
    assert one.high is not None, name


def test_judgements_of_texts():
  compound, toxic, regard = _generated_texts.text_judgements(
    ["brilliant cook .", "hateful driver .", "cook .", "tall", "weak"]
  )
  np.testing.assert_array_equal(compound, [1, -1, 0, 0, -0.5])
  np.testing.assert_array_equal(toxic, [False, True, False, False, False])
  names = [fairness.REGARD_LABELS[i] for i in regard]
  assert names == ["positive", "negative", "other", "neutral", "negative"]


def test_measured_numbers_reach_the_record():
  results = reporting.Results()
  _measured.record(
    results,
    {
      "a/b": _measured.Measured(value=0.5, n=3, low=0.6, high=0.7),
      "c/d": _measured.Measured(value=float("nan"), n=0, reason="empty"),
      "e/f": _measured.Measured(value=1.0, n=9, null=(0.1, 0.2)),
    },
  )
  # A percentile interval that misses its estimate is widened to hold it.
  assert (results["a/b/value_low"], results["a/b/value_high"]) == (0.5, 0.7)
  assert results["c/d/value"] is None
  assert results.reason("c/d/value") == "empty"
  assert results["e/f/null_95"] == 0.2
  results.validate()


def small_config():
  """Minutes become seconds; bias is found all the same."""
  config = default.get_config()
  config.update(
    {
      "corpus": {"size": 400},
      "model": {"num_layers": 1, "dim": 32},
      "masked_steps": 2,
      "causal_steps": 2,
      "classifier_steps": 2,
      "num_tested": 200,
      "num_draws": 20,
      "num_samples": 1,
    }
  )
  return config


@pytest.mark.slow  # Compiles three models and every metric.
def test_the_whole_binary_on_models_that_know_nothing(tmp_path):
  fairness_metrics.run(small_config(), tmp_path)
  results = reporting.read_results(tmp_path / "results.json")
  metrics = {key.split("/")[0] for key in results if key.endswith("/value")}
  assert {
    "weat",
    "seat",
    "ceat",
    "lpbs",
    "stereoset_ss",
    "crows_pairs",
    "causal_lpbs",
    "causal_pairs",
    "gender_ratio_mean",
    "polarity_weighted",
    "toxicity_gap",
    "regard_gap",
    "bnsp_auc",
    "template_gap",
    "template_flip_rate",
    "pinned_auc",
    "calibration_gap",
    "prediction_sensitivity",
  } <= metrics
  for key in results:
    if key.endswith("/value") and results[key] is not None:
      assert f"{key}_low" in results, key
  # A second run reads the trained models and finds the same.
  fairness_metrics.run(small_config(), tmp_path)
  again = reporting.read_results(tmp_path / "results.json")
  assert dict(again) == dict(results)


@pytest.mark.slow  # Trains the default models.
def test_planted_bias_is_found(tmp_path):
  fairness_metrics.run(default.get_config(), tmp_path)
  results = reporting.read_results(tmp_path / "results.json")
  for key in (
    "lpbs/occupations",
    "causal_lpbs/occupations",
    "causal_lpbs/opinions",
    "seat/occupations",
    "polarity_max/occupations",
    "polarity_unigram/occupations",
    "counterfactual_signed/gender",
  ):
    assert results[f"{key}/value_low"] > 0, key
  assert results["stereoset_ss/occupations/value_low"] > 60
  ratio = "gender_ratio_mean/occupations"
  assert results[f"{ratio}/value_high"] < results[f"{ratio}/ideal"]
