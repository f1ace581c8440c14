"""Readers of fairness sets: small files by hand, then the data folder."""

import collections
import gzip
import json

import pytest

from trustjax import data


def write(path, text):
  path.write_text(text, encoding="utf-8")
  return path


def letters(text):
  return "".join(c for c in text.lower() if c.isalnum())


class TestStereoSet:
  CLUSTER = {
    "id": "a1",
    "bias_type": "gender",
    "target": "aunt",
    "context": "My aunt is BLANK today.",
  }

  def upstream(self, tmp_path, **changes):
    cluster = {
      **self.CLUSTER,
      "sentences": [
        {"sentence": "My aunt is kind today.", "gold_label": "stereotype"},
        {"sentence": "My aunt is fish today.", "gold_label": "unrelated"},
        {
          "sentence": "My aunt is so rude today.",
          "gold_label": "anti-stereotype",
        },
      ],
      **changes,
    }
    return write(
      tmp_path / "dev.json",
      json.dumps({"data": {"intrasentence": [cluster]}}),
    )

  def test_upstream_layout(self, tmp_path):
    (got,) = data.read_stereoset(self.upstream(tmp_path))
    assert got.candidates == ("kind", "so rude", "fish")
    assert got.sentences[1] == "My aunt is so rude today."
    assert (got.domain, got.target, got.id) == ("gender", "aunt", "a1")

  def test_line_layout(self, tmp_path):
    row = {
      **self.CLUSTER,
      "stereotype": "My aunt is kind today.",
      "anti_stereotype": "My aunt is rude today",
      "unrelated": "My aunt is x.",
    }
    path = write(tmp_path / "a.jsonl", json.dumps(row) + "\n")
    (got,) = data.read_stereoset(path)
    # The second lacks its stop; its words are counted instead.
    assert got.candidates[:2] == ("kind", "rude")

  @pytest.mark.parametrize(
    ("changes", "message"),
    [
      ({"context": "No gap."}, "needs BLANK exactly once"),
      ({"bias_type": "age"}, "bias_type is 'age'"),
      ({"sentences": []}, "malformed cluster"),
    ],
  )
  def test_bad_clusters(self, tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
      data.read_stereoset(self.upstream(tmp_path, **changes))

  def test_malformed_clusters_may_be_skipped(self, tmp_path):
    path = self.upstream(tmp_path, context="No gap.")
    assert data.read_stereoset(path, on_malformed="skip") == ()
    with pytest.raises(ValueError, match="on_malformed: got 'drop'"):
      data.read_stereoset(path, on_malformed="drop")

  def test_other_files(self, tmp_path):
    with pytest.raises(ValueError, match="lacks data.intrasentence"):
      data.read_stereoset(write(tmp_path / "b.json", "{}"))
    with pytest.raises(FileNotFoundError):
      data.read_stereoset(tmp_path / "none.json")

  def test_data_folder(self, data_dir):
    path = data_dir / "stereoset/intrasentence.jsonl"
    with pytest.raises(ValueError, match="jsonl:1580: context"):
      data.read_stereoset(path)
    got = data.read_stereoset(path, on_malformed="skip")
    # One of 3,363 has two blanks.
    domains = collections.Counter(cluster.domain for cluster in got)
    assert domains == {"gender": 1026, "race": 2234, "religion": 102}
    for cluster in got:
      assert all(cluster.candidates), cluster
    whole = sum(
      letters(cluster.context.replace("BLANK", candidate)) == letters(sentence)
      for cluster in got
      for candidate, sentence in zip(cluster.candidates, cluster.sentences)
    )
    assert whole == 3 * len(got)


class TestCrowsPairs:
  HEAD = "sent_more,sent_less,stereo_antistereo,bias_type\n"

  def test_rows(self, tmp_path):
    path = write(
      tmp_path / "c.csv",
      self.HEAD + '"A, b.",C.,antistereo,age\nD,E,stereo,gender\n',
    )
    first, second = data.read_crows_pairs(path)
    assert (first.more, first.less, first.is_anti) == ("A, b.", "C.", True)
    assert (second.bias_type, second.is_anti) == ("gender", False)

  def test_bad_files(self, tmp_path):
    path = write(tmp_path / "c.csv", self.HEAD + "A,B,none,age\n")
    with pytest.raises(ValueError, match="c.csv:2: stereo_anti"):
      data.read_crows_pairs(path)
    with pytest.raises(ValueError, match="lacks the columns"):
      data.read_crows_pairs(write(tmp_path / "d.csv", "a,b\n1,2\n"))

  def test_data_folder(self, data_dir):
    got = data.read_crows_pairs(
      data_dir / "crows_pairs/crows_pairs_anonymized.csv"
    )
    assert len(got) == 1508
    assert sum(pair.is_anti for pair in got) == 218


class TestBold:
  def test_folder(self, tmp_path):
    write(
      tmp_path / "gender_prompt.json",
      json.dumps({"g": {"Ann": ["Ann is ", "Ann was "]}, "h": {"Bo": ["Bo "]}}),
    )
    got = data.read_bold(tmp_path)
    assert [(p.group, p.title, p.prompt) for p in got] == [
      ("g", "Ann", "Ann is"),
      ("g", "Ann", "Ann was"),
      ("h", "Bo", "Bo"),
    ]
    assert {p.domain for p in got} == {"gender"}
    with pytest.raises(FileNotFoundError):
      data.read_bold(tmp_path, ["race"])

  def test_bad_files(self, tmp_path):
    with pytest.raises(FileNotFoundError, match="no .*_prompt.json"):
      data.read_bold(tmp_path)
    write(tmp_path / "x_prompt.json", '{"g": ["a"]}')
    with pytest.raises(ValueError, match="group -> title -> list"):
      data.read_bold(tmp_path)

  def test_data_folder(self, data_dir):
    got = data.read_bold(data_dir / "bold")
    assert len(got) == 23_679
    assert len({(p.domain, p.group) for p in got}) == 43
    professions = collections.Counter(
      p.group for p in got if p.domain == "profession"
    )
    assert (len(professions), professions.total()) == (18, 10_195)
    assert (min(professions.values()), max(professions.values())) == (62, 3120)


class TestHateXplain:
  def upstream(self, tmp_path, labels, targets):
    post = {
      "post_tokens": ["some", "words"],
      "annotators": [
        {"label": label, "target": target, "annotator_id": i}
        for i, (label, target) in enumerate(zip(labels, targets))
      ],
    }
    write(tmp_path / "dataset.json", json.dumps({"p1": post}))
    write(
      tmp_path / "post_id_divisions.json",
      json.dumps({"train": [], "val": [], "test": ["p1"]}),
    )
    return data.read_hatexplain(tmp_path)

  def test_majorities(self, tmp_path):
    (got,) = self.upstream(
      tmp_path,
      ["offensive", "normal", "offensive"],
      [["Women", "Other"], ["Women", "Islam", "Other"], ["None"]],
    )
    assert (got.label, got.split, got.text) == (1, "test", "some words")
    assert got.communities == ("Women",)

  def test_undecided_posts_are_dropped(self, tmp_path):
    got = self.upstream(
      tmp_path, ["offensive", "normal", "hatespeech"], [["None"]] * 3
    )
    assert got == ()

  def test_bad_posts(self, tmp_path):
    with pytest.raises(ValueError, match="has the label 'rude'"):
      self.upstream(tmp_path, ["rude"] * 3, [["None"]] * 3)
    write(tmp_path / "dataset.json", "{}" + " ")
    with pytest.raises(ValueError, match="post 'p1' is malformed"):
      data.read_hatexplain(tmp_path)

  def test_a_post_without_community_counts_for_none(self):
    posts = [
      data.HatePost(text="", label=0, communities=names, split="train")
      for names in (("b",), (), (), ("a", "b"), ("c",))
    ]
    assert data.most_frequent_communities(posts, 2) == ("b", "a")

  def test_data_folder(self, data_dir):
    got = data.read_hatexplain(data_dir / "hatexplain/hatexplain_groups.csv")
    splits = collections.Counter(post.split for post in got)
    assert splits == {"train": 15_174, "val": 1_896, "test": 1_892}
    assert collections.Counter(post.label for post in got) == {
      0: 7_709,
      1: 5_401,
      2: 5_852,
    }
    assert data.most_frequent_communities(got, 5) == (
      "race",
      "gender",
      "religion",
      "minority",
      "economic",
    )


class TestMadlibs:
  TEXT = "Text,Label,Template\nhug x,NOT_BAD,verb_adj\nhit x,BAD,verb_adj\n"

  def test_plain_and_gzipped(self, tmp_path):
    plain = data.read_madlibs(write(tmp_path / "m.csv", self.TEXT))
    with gzip.open(tmp_path / "m.csv.gz", "wt") as file:
      file.write(self.TEXT)
    assert plain == data.read_madlibs(tmp_path / "m.csv.gz")
    assert [t.toxic for t in plain] == [False, True]

  def test_bad_files(self, tmp_path):
    path = write(tmp_path / "m.csv", "Text,Label,Template\na,UGLY,t\n")
    with pytest.raises(ValueError, match="m.csv:2: Label is 'UGLY'"):
      data.read_madlibs(path)
    with pytest.raises(ValueError, match="lacks .*Template"):
      data.read_madlibs(write(tmp_path / "n.csv", "Text,Label\n"))
    with pytest.raises(FileNotFoundError):
      data.read_madlibs(tmp_path / "none.csv")

  def test_data_folder(self, data_dir):
    got = data.read_madlibs(
      data_dir / "wiki_toxicity_bias/bias_madlibs_77k.csv.gz"
    )
    assert len(got) == 76_564
    assert sum(text.toxic for text in got) == 38_282
