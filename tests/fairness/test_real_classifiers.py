"""Bias AUCs and rates of classifiers trained on public toxicity data."""

import csv
import gzip
import re

import jax
import numpy as np
import pytest
from sklearn import feature_extraction, linear_model
from sklearn import metrics as sk

from trustjax import fairness

pytestmark = pytest.mark.slow  # Trains classifiers on real data.

KEY = jax.random.key(0)
COMMUNITIES = ("gender", "religion", "race", "economic", "minority")
TERMS = ("gay", "lesbian", "muslim", "christian", "black", "white", "american")


def train(texts, labels):
  """A bag of words and logistic regression."""
  words = feature_extraction.text.CountVectorizer(min_df=2, binary=True)
  model = linear_model.LogisticRegression(C=1.0, max_iter=300)
  model.fit(words.fit_transform(texts), labels)
  return lambda new: model.predict_proba(words.transform(new))[:, 1]


@pytest.fixture(scope="module")
def hatexplain(data_dir):
  """Scores, labels (toxic or not) and communities of the test split."""
  path = data_dir / "hatexplain/hatexplain_groups.csv"
  with path.open(encoding="utf-8", newline="") as lines:
    rows = list(csv.DictReader(lines))
  split = {
    part: [r for r in rows if r["split"] == part] for part in ("train", "test")
  }
  assert (len(split["train"]), len(split["test"])) == (15_174, 1_892)

  def labels(part):
    return np.array([int(row["label"] != "0") for row in split[part]])

  score = train([row["text"] for row in split["train"]], labels("train"))
  groups = np.array(
    [
      [row[f"label_{name}"] == "1" for name in COMMUNITIES]
      for row in split["test"]
    ]
  )
  return score([row["text"] for row in split["test"]]), labels("test"), groups


@pytest.fixture(scope="module")
def madlibs(data_dir):
  """Scores on the identity templates of a classifier of talk comments."""
  path = data_dir / "wiki_toxicity_bias/toxicity_nonfuzzed_testset.csv"
  with path.open(encoding="utf-8", newline="") as lines:
    comments = list(csv.DictReader(lines))
  score = train(
    [row["comment"] for row in comments],
    np.array([row["toxic"] == "True" for row in comments]),
  )
  path = data_dir / "wiki_toxicity_bias/bias_madlibs_77k.csv.gz"
  with gzip.open(path, "rt", encoding="utf-8", newline="") as lines:
    rows = list(csv.DictReader(lines))
  assert len(rows) == 76_564
  words = [set(re.findall("[a-z]+", row["Text"].lower())) for row in rows]
  groups = np.array([[term in found for term in TERMS] for found in words])
  labels = np.array([int(row["Label"] == "BAD") for row in rows])
  return score([row["Text"] for row in rows]), labels, groups


def expected(scores, labels, groups, g, background):
  """The published recipe, by data frames of rows, with scikit-learn."""
  inside = groups[:, g]
  outside = ~inside & (groups.any(1) if background == "identified" else True)
  good, bad = labels == 0, labels == 1

  def auc(rows):
    return sk.roc_auc_score(labels[rows], scores[rows])

  return (
    auc(inside),
    auc((inside & good) | (outside & bad)),
    auc((inside & bad) | (outside & good)),
  )


@pytest.mark.parametrize("background", ["all", "identified"])
def test_hatexplain_equals_the_published_recipe(hatexplain, background):
  scores, labels, groups = hatexplain
  got = fairness.bias_aucs(
    scores, labels, groups, background=background, on_empty="nan"
  )
  for g in range(len(COMMUNITIES)):
    want = expected(scores, labels, groups, g, background)
    found = (got.subgroup[g], got.bpsn[g], got.bnsp[g])
    np.testing.assert_allclose(found, want, atol=2e-6)
  assert got.overall > 0.75
  # Posts about a group are mostly toxic: harmless ones are over-flagged.
  assert got.bpsn[2] < got.bnsp[2]


def test_hatexplain_intervals(hatexplain):
  scores, labels, groups = hatexplain
  big = groups[:, [0, 1, 2, 4]]
  found = fairness.bias_aucs_bootstrap(scores, labels, big, key=KEY, num=300)
  for name in ("subgroup", "bpsn", "bnsp"):
    low, value, high = (
      np.asarray(getattr(part, name))
      for part in (found.low, found.estimate, found.high)
    )
    assert ((low < value) & (value < high)).all()
    # Hundreds of posts a community: intervals of a few points.
    assert (high - low < 0.2).all()
  mean = fairness.power_mean(found.replicates.subgroup)
  assert np.isfinite(mean).all()


def test_hatexplain_gaps(hatexplain):
  """Posts about race against posts about religion, at threshold 1/2."""
  scores, labels, groups = hatexplain
  one = groups[:, 2] ^ groups[:, 1]
  rates = fairness.group_rates(
    labels,
    (scores >= 0.5).astype(int),
    groups[:, 1].astype(int),
    num_groups=2,
    mask=one,
  )
  assert int(rates.n_dropped) == int((~one).sum())
  found = fairness.group_gaps_test(rates, key=KEY, num=1000)
  gap = found.estimate.equalized_odds_difference
  assert found.low.equalized_odds_difference <= gap
  assert gap <= found.high.equalized_odds_difference
  rows = one & groups[:, 1] & (labels == 1)
  np.testing.assert_allclose(
    rates.tpr[1], (scores[rows] >= 0.5).mean(), rtol=1e-6
  )


def test_madlibs(madlibs):
  scores, labels, groups = madlibs
  got = fairness.bias_aucs(scores, labels, groups)
  for g in (0, 6):
    want = expected(scores, labels, groups, g, "all")
    found = (got.subgroup[g], got.bpsn[g], got.bnsp[g])
    np.testing.assert_allclose(found, want, atol=2e-5)
  # The data are balanced by construction; what differs is the classifier.
  share = np.array([labels[groups[:, g]].mean() for g in range(len(TERMS))])
  np.testing.assert_allclose(share, 0.5, atol=0.01)
  _, total = fairness.pinned_auc_gaps(scores, labels, groups)
  assert 0 < total < len(TERMS)


def test_a_term_that_means_toxic_is_found(madlibs):
  """Raise the scores of one term: only its BPSN falls."""
  scores, labels, groups = madlibs
  planted = scores + 0.3 * groups[:, 2]
  before = fairness.bias_aucs(scores, labels, groups)
  after = fairness.bias_aucs(planted, labels, groups)
  change = np.asarray(after.bpsn - before.bpsn)
  assert change.argmin() == 2
  assert change[2] < -0.1
  assert after.neg_aeg[2] > before.neg_aeg[2]
  np.testing.assert_allclose(after.subgroup[2], before.subgroup[2], atol=1e-4)
