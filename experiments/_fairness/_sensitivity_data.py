"""Texts, targets and fairness labels of the sensitivity study."""

import collections
import csv
import dataclasses
import pathlib
import re
from collections.abc import Mapping

import numpy as np

from experiments._binary import _config_flags
from experiments._fairness import _decision_metrics
from trustjax import data, models

_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)*|[^\w\s]")
_GROUPS_FILE = "hatexplain_groups.csv"
_MADLIBS_FILE = "bias_madlibs_77k.csv"
_COMMENTS_FILE = "toxicity_nonfuzzed_testset.csv"
MADLIBS_TERMS = (
  "gay",
  "lesbian",
  "muslim",
  "christian",
  "jewish",
  "black",
  "white",
  "female",
  "male",
  "american",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SensitivityData:
  """What the study trains and tests on.

  Attributes:
    name: Of the data set.
    vocab_size: Tokens.
    max_length: Positions.
    train: tokens and mask of training texts.
    target: Class that the task model learns.
    status: Class that the protected-status model learns.
    num_status: Classes of the same.
    tested: tokens and mask of the tested texts.
    swapped: The same of their counterfactuals.
    valid: Which texts have one that differs.
    tested_target: Classes of the tested texts.
    special: Tokens that do not count.
    community: Whether each tested text is about a community.
    groups: Which communities, [texts, groups].
    group_names: Their names.
    strength: How much the text speaks for class 1, where that is known.
    label_bias: Planted between the label and gender.
  """

  name: str
  vocab_size: int
  max_length: int
  train: Mapping[str, np.ndarray]
  target: np.ndarray
  status: np.ndarray
  num_status: int
  tested: Mapping[str, np.ndarray]
  swapped: Mapping[str, np.ndarray]
  valid: np.ndarray
  tested_target: np.ndarray
  special: tuple[int, ...]
  community: np.ndarray
  groups: np.ndarray
  group_names: tuple[str, ...]
  strength: np.ndarray | None = None
  label_bias: float = 0.0


def load(config: _config_flags.Config) -> SensitivityData:
  """The data that a config names.

  Args:
    config: The binary's config.

  Returns:
    The data.

  Raises:
    ValueError: The name is unknown, or real data has no folder.
    FileNotFoundError: A file is missing.
  """
  loaders = {
    "occupations": _occupations,
    "hatexplain": _hatexplain,
    "madlibs": _madlibs,
  }
  if config.data.name not in loaders:
    raise ValueError(
      f"data.name: got {config.data.name!r}; allowed are {list(loaders)}"
    )
  return loaders[config.data.name](config)


def fairness_labels(
  task: SensitivityData, predicted: np.ndarray
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
  """Study name to (0/1 labels, the records that have one).

  On the planted sentences a record is unfair where the planted judge decides
  by gender: the strength of the judgement is smaller than what gender adds. On
  HateXplain a post about a community is unfair where the model errs, and among
  the harmless ones where it calls the post toxic.

  Args:
    task: The data.
    predicted: Class that the model predicts for each tested text.

  Returns:
    The labels of each study.
  """
  if task.strength is not None:
    shift = data.LABEL_SHIFT * task.label_bias
    unfair = task.community & (np.abs(task.strength) < shift)
    return {"planted": (unfair.astype(int), np.ones(len(unfair), bool))}
  wrong = (predicted != task.tested_target).astype(int)
  harmless = task.community & (task.tested_target == 0)
  return {
    "group_errors": (wrong, task.community),
    "group_false_positives": (wrong, harmless),
  }


def _occupations(config):
  sentences = [
    s
    for s in data.occupation_sentences(
      config.seed, config.data.size, 0.0, label_bias=config.data.label_bias
    )
    if s.opinion_at is not None
  ]
  train = data.encode_sentences(sentences)
  # Neutral sentences, too: a prediction that nothing can be wrong with.
  tested = [
    *_decision_metrics.tested_sentences(config.data.num_tested * 4 // 5),
    *(
      s
      for s in data.occupation_sentences(900_003, 4 * config.data.num_tested)
      if s.gender == "neutral" and s.opinion_at is not None
    ),
  ][: config.data.num_tested]
  arrays = data.encode_sentences(tested)
  told = arrays["gender"] < 2
  vocabulary = data.occupation_vocabulary()
  return SensitivityData(
    name="occupations",
    vocab_size=len(vocabulary),
    max_length=data.SENTENCE_TIME,
    train=train,
    target=train["label"],
    status=train["gender"],
    num_status=3,
    tested=arrays,
    swapped=data.encode_sentences(tested, swapped=True),
    valid=told,
    tested_target=arrays["merit"],
    special=(2, 3),
    community=told,
    groups=arrays["gender"][:, None] == np.arange(2),
    group_names=data.GENDERS[:2],
    strength=arrays["strength"],
    label_bias=config.data.label_bias,
  )


def _hatexplain(config):
  folder = _folder(
    config, f"dataset.json and post_id_divisions.json, or {_GROUPS_FILE}"
  )
  path = folder / _GROUPS_FILE
  posts = data.read_hatexplain(path if path.is_file() else folder)
  train = [p for p in posts if p.split == "train"]
  tested = [p for p in posts if p.split == "test"][: config.data.num_tested]
  # Ten communities as in the paper, or the five groups of the merged file.
  names = data.most_frequent_communities(train, 10)
  return _from_texts(
    config,
    "hatexplain",
    names,
    [(p.text, int(p.label > 0), p.communities) for p in train],
    [(p.text, int(p.label > 0), p.communities) for p in tested],
  )


def _madlibs(config):
  """Talk comments to train on, identity templates to test on."""
  folder = _folder(config, f"{_MADLIBS_FILE}[.gz] and {_COMMENTS_FILE}")
  path = folder / _MADLIBS_FILE
  path = path if path.is_file() else path.with_suffix(".csv.gz")
  texts = data.read_madlibs(path)
  every = max(1, len(texts) // config.data.num_tested)
  comments = folder / _COMMENTS_FILE
  if not comments.is_file():
    raise FileNotFoundError(f"data.manual_dir: there is no {comments}")
  with comments.open(encoding="utf-8", newline="") as lines:
    train = [
      (row["comment"], int(row["toxic"] == "True"))
      for row in csv.DictReader(lines)
    ]

  def terms(text):
    found = set(_words(text))
    return tuple(term for term in MADLIBS_TERMS if term in found)

  return _from_texts(
    config,
    "madlibs",
    MADLIBS_TERMS,
    [(text, toxic, terms(text)) for text, toxic in train],
    [
      (t.text, int(t.toxic), terms(t.text))
      for t in texts[::every][: config.data.num_tested]
    ],
  )


def _folder(config, files):
  if not config.data.manual_dir:
    raise ValueError(
      f"data.manual_dir: got '', but data.name={config.data.name!r} reads its"
      f" files from there ({files})"
    )
  return pathlib.Path(config.data.manual_dir)


def _from_texts(config, name, names, train, tested):
  """Encodes (text, class, communities), with words of the training texts."""
  counts = collections.Counter(
    word for text, _, _ in train for word in set(_words(text))
  )
  common = sorted(counts, key=lambda word: (-counts[word], word))
  ids = {
    word: i + 2 for i, word in enumerate(common[: config.data.num_words - 2])
  }

  def encode(texts):
    tokens = np.zeros((len(texts), config.data.max_length), np.int32)
    for row, text in enumerate(texts):
      known = [ids.get(w, 1) for w in _words(text)][: config.data.max_length]
      tokens[row, : max(1, len(known))] = known or [1]
    return {"tokens": tokens, "mask": tokens != 0}

  def status(communities):
    found = [i for i, n in enumerate(names) if n in communities]
    return min(found) + 1 if found else 0

  plain = encode([text for text, _, _ in tested])
  swapped = encode([data.swap_gender(text).text for text, _, _ in tested])
  groups = np.array([[n in about for n in names] for _, _, about in tested])
  return SensitivityData(
    name=name,
    vocab_size=len(ids) + 2,
    max_length=config.data.max_length,
    train=encode([text for text, _, _ in train]),
    target=np.array([toxic for _, toxic, _ in train]),
    status=np.array([status(about) for _, _, about in train]),
    num_status=len(names) + 1,
    tested=plain,
    swapped=swapped,
    valid=(plain["tokens"] != swapped["tokens"]).any(1),
    tested_target=np.array([toxic for _, toxic, _ in tested]),
    special=(),
    community=np.asarray(groups.any(1)),
    groups=groups,
    group_names=tuple(names),
  )


def _words(text):
  return _WORD.findall(text.lower())


def make_encoder(task: SensitivityData, **fields: int):
  """An encoder for the texts, to be trained from scratch."""
  dim = fields["dim"]
  return models.masked_encoder(
    vocab_size=task.vocab_size,
    max_length=task.max_length,
    mask_id=1,
    num_layers=fields["num_layers"],
    dim=dim,
    num_heads=max(1, dim // 32),
    ff_dim=4 * dim,
  )
