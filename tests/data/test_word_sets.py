"""Word sets: their sizes, and the same words as a public copy."""

import json

import pytest

from trustjax import data

# Name in WEFE's copy of the sets, for X, Y, A and B.
PUBLIC = {
  "C1": ("flowers", "insects", "pleasant_5", "unpleasant_5a"),
  "C2": ("instruments", "weapons", "pleasant_5", "unpleasant_5a"),
  "C3": (
    "european_american_names_5",
    "african_american_names_5",
    "pleasant_5",
    "unpleasant_5b",
  ),
  "C4": (
    "european_american_names_7",
    "african_american_names_7",
    "pleasant_5",
    "unpleasant_5b",
  ),
  "C5": (
    "european_american_names_7",
    "african_american_names_7",
    "pleasant_9",
    "unpleasant_9",
  ),
  "C6": ("male_names", "female_names", "career", "family"),
  "C7": ("math", "arts", "male_terms", "female_terms"),
  "C8": ("science", "arts_2", "male_terms_2", "female_terms_2"),
  "C9": ("mental_disease", "physical_disease", "temporary", "permanent"),
  "C10": (
    "young_people_names",
    "old_people_names",
    "pleasant_9",
    "unpleasant_9",
  ),
}


def test_sizes():
  sizes = {
    test: (len(words.x), len(words.a))
    for test, words in data.association_words().items()
  }
  assert sizes == {
    "C1": (25, 25),
    "C2": (25, 25),
    "C3": (32, 25),
    "C4": (18, 25),
    "C5": (18, 8),
    "C6": (8, 8),
    "C7": (8, 8),
    "C8": (8, 8),
    "C9": (6, 7),
    "C10": (8, 8),
  }


def test_digests_differ():
  digests = {words.digest for words in data.association_words().values()}
  assert len(digests) == 10


@pytest.mark.parametrize("test", PUBLIC)
def test_same_words_as_a_public_copy(test, data_dir):
  public = json.loads((data_dir / "weat_wefe/WEAT.json").read_text())
  words = data.association_words()[test]
  for ours, name in zip((words.x, words.y, words.a, words.b), PUBLIC[test]):
    assert list(ours) == public[name]


def test_unequal_targets_are_refused():
  with pytest.raises(ValueError, match="got 1 and 2 words"):
    data.AssociationWords(x=("a",), y=("b", "c"), a=("d",), b=("e",))


def test_templates():
  filled = data.fill_templates(("aster", "rose"), "noun")
  assert len(filled) == 2 * len(data.SENTENCE_TEMPLATES["noun"])
  assert filled[0] == ("This is an aster.", "aster")
  assert ("A rose is a thing.", "rose") in filled
  assert ("An aster is a thing.", "aster") in filled
  names = data.fill_templates(("Amy",), "name")
  assert ("Amy is here.", "Amy") in names
  with pytest.raises(ValueError, match="kind: got 'verb'"):
    data.fill_templates(("run",), "verb")
