"""Readers of public fairness sets: what they hold, checked, nothing guessed.

  read_stereoset     dev.json of the authors, or one JSON object a line
  read_crows_pairs   crows_pairs_anonymized.csv of the authors
  read_bold          the folder of *_prompt.json files of the authors
  read_hatexplain    dataset.json and post_id_divisions.json of the authors, or
                     hatexplain_groups.csv with five merged groups
  read_madlibs       bias_madlibs_77k.csv of the authors, plain or gzipped

The content of these sets is offensive by nature. Their licences differ and
none is bundled; a reader takes a path.
"""

import collections
import csv
import dataclasses
import gzip
import json
import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from trustjax.data._readers import _text

STEREOSET_DOMAINS = ("gender", "profession", "race", "religion")
HATE_LABELS = ("normal", "offensive", "hatespeech")
_GOLD = ("stereotype", "anti-stereotype", "unrelated")
_BOLD_SUFFIX = "_prompt.json"
_MERGED = ("gender", "religion", "race", "economic", "minority")


@dataclasses.dataclass(frozen=True, kw_only=True)
class StereoSetCluster:
  """One context with three candidates.

  Attributes:
    id: Identifier of the authors.
    domain: One of `STEREOSET_DOMAINS`.
    target: Target term.
    context: Sentence with BLANK.
    sentences: Stereotype, anti-stereotype, unrelated.
    candidates: What fills BLANK in each of them.
  """

  id: str
  domain: str
  target: str
  context: str
  sentences: tuple[str, str, str]
  candidates: tuple[str, str, str]


@dataclasses.dataclass(frozen=True, kw_only=True)
class CrowsPair:
  """Two sentences that differ in whom they are about.

  Attributes:
    more: The more stereotypical sentence.
    less: The less stereotypical one.
    is_anti: Whether the pair contradicts a stereotype.
    bias_type: One of nine categories.
  """

  more: str
  less: str
  is_anti: bool
  bias_type: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class BoldPrompt:
  """The beginning of a sentence to be continued.

  Attributes:
    domain: For example "profession".
    group: For example "dance_occupations".
    title: The Wikipedia page it is from.
    prompt: The text, without trailing space.
  """

  domain: str
  group: str
  title: str
  prompt: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class HatePost:
  """A post with its majority label and the communities it is about.

  Attributes:
    text: The post.
    label: Index into `HATE_LABELS`; toxic is anything but 0.
    communities: Communities that most annotators named, sorted.
    split: "train", "val" or "test".
  """

  text: str
  label: int
  communities: tuple[str, ...]
  split: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class MadlibsText:
  """An identity template that is filled in.

  Attributes:
    text: The sentence.
    toxic: Whether it is meant to be.
    template: Name of the template.
  """

  text: str
  toxic: bool
  template: str


class MalformedClusterError(ValueError):
  """A cluster of StereoSet that cannot be asked about."""


def read_stereoset(
  path: pathlib.Path, *, on_malformed: str = "error"
) -> tuple[StereoSetCluster, ...]:
  """Reads intrasentence clusters.

  A few contexts outside of the public development set have two blanks; they
  fit no scoring rule.

  Args:
    path: The authors' JSON, or a file with one JSON object a line and the
      fields id, bias_type, target, context, stereotype, anti_stereotype,
      unrelated.
    on_malformed: "error", or "skip" to leave malformed clusters out.

  Returns:
    The clusters, in the order of the file.

  Raises:
    FileNotFoundError: If there is no file.
    ValueError: If the option is unknown or a cluster is malformed; the message
      names it.
  """
  if on_malformed not in ("error", "skip"):
    raise ValueError(
      f"on_malformed: got {on_malformed!r}; allowed are 'error' and 'skip'"
    )
  if path.suffix == ".jsonl":
    entries: list[tuple[str, Any, Callable[..., StereoSetCluster]]] = [
      (f"{path}:{i}", line, _cluster_of_line)
      for i, line in enumerate(_text.read_lines(path), 1)
    ]
  else:
    try:
      listed = _text.read_json(path)["data"]["intrasentence"]
    except (KeyError, TypeError) as error:
      raise ValueError(f"{path}: lacks data.intrasentence ({error})") from None
    entries = [
      (f"{path}: intrasentence[{i}]", cluster, _cluster_of_json)
      for i, cluster in enumerate(listed)
    ]
  clusters = []
  for where, entry, parse in entries:
    try:
      clusters.append(parse(where, entry))
    except MalformedClusterError:
      if on_malformed == "error":
        raise
  return tuple(clusters)


def read_crows_pairs(path: pathlib.Path) -> tuple[CrowsPair, ...]:
  """Reads the pairs.

  Args:
    path: The authors' CSV file.

  Returns:
    The pairs, in the order of the file.

  Raises:
    FileNotFoundError: If there is no file.
    ValueError: If a column is missing or a direction is unknown.
  """
  columns = ("sent_more", "sent_less", "stereo_antistereo", "bias_type")
  pairs = []
  for line, row in _text.read_csv(path, columns):
    direction = row["stereo_antistereo"]
    if direction not in ("stereo", "antistereo"):
      raise ValueError(
        f"{path}:{line}: stereo_antistereo is {direction!r}; allowed are"
        " 'stereo' and 'antistereo'"
      )
    pairs.append(
      CrowsPair(
        more=row["sent_more"],
        less=row["sent_less"],
        is_anti=direction == "antistereo",
        bias_type=row["bias_type"],
      )
    )
  return tuple(pairs)


def read_bold(
  folder: pathlib.Path, domains: Sequence[str] | None = None
) -> tuple[BoldPrompt, ...]:
  """Reads prompts.

  Args:
    folder: The folder with <domain>_prompt.json files.
    domains: Domains to read; None reads all that are there.

  Returns:
    The prompts, by domain, group and title as they stand in the files.

  Raises:
    FileNotFoundError: If a domain, or every one, is missing.
    ValueError: If a file is malformed.
  """
  if domains is None:
    domains = [
      path.name.removesuffix(_BOLD_SUFFIX)
      for path in sorted(folder.glob(f"*{_BOLD_SUFFIX}"))
    ]
    if not domains:
      raise FileNotFoundError(f"no *{_BOLD_SUFFIX} in {folder}")
  prompts = []
  for domain in domains:
    path = folder / f"{domain}{_BOLD_SUFFIX}"
    groups = _text.read_json(path)
    try:
      prompts += [
        BoldPrompt(
          domain=domain, group=group, title=title, prompt=prompt.rstrip()
        )
        for group, pages in groups.items()
        for title, listed in pages.items()
        for prompt in listed
      ]
    except AttributeError:
      raise ValueError(
        f"{path}: must be group -> title -> list of prompts"
      ) from None
  return tuple(prompts)


def read_hatexplain(path: pathlib.Path) -> tuple[HatePost, ...]:
  """Reads posts.

  Of the authors' dataset.json, three annotators label each post: the majority
  counts, and posts with three different labels are dropped, as the authors do.
  A community counts when at least two of three annotators name it; "None" and
  "Other" are no communities.

  Args:
    path: A folder that holds dataset.json and post_id_divisions.json, or the
      file hatexplain_groups.csv, whose five groups were merged by others.

  Returns:
    The posts, in the order of the divisions or of the file.

  Raises:
    FileNotFoundError: If a file is missing.
    ValueError: If a post is malformed or a label unknown.
  """
  if path.is_dir():
    return _read_annotated_posts(path)
  columns = ("split", "label", "text", *(f"label_{name}" for name in _MERGED))
  posts = []
  for line, row in _text.read_csv(path, columns):
    if row["label"] not in ("0", "1", "2"):
      raise ValueError(f"{path}:{line}: label is {row['label']!r}; not 0, 1, 2")
    posts.append(
      HatePost(
        text=row["text"],
        label=int(row["label"]),
        communities=tuple(
          sorted(name for name in _MERGED if row[f"label_{name}"] == "1")
        ),
        split=row["split"],
      )
    )
  return tuple(posts)


def most_frequent_communities(
  posts: Iterable[HatePost], count: int = 10
) -> tuple[str, ...]:
  """The communities that most posts are about.

  The authors' notebook ranks them with a count that is contaminated: for a
  post without a community it adds the last one seen. Here each post counts for
  its own.

  Args:
    posts: The posts.
    count: How many communities.

  Returns:
    Their names, most frequent first, ties in alphabetical order.
  """
  found = collections.Counter(
    name for post in posts for name in post.communities
  )
  ranked = sorted(found, key=lambda name: (-found[name], name))
  return tuple(ranked[:count])


def read_madlibs(path: pathlib.Path) -> tuple[MadlibsText, ...]:
  """Reads filled identity templates.

  Args:
    path: CSV with the columns Text, Label (BAD or NOT_BAD) and Template; a
      name that ends in .gz is unpacked.

  Returns:
    The texts, in the order of the file.

  Raises:
    FileNotFoundError: If there is no file.
    ValueError: If a column is missing or a label unknown.
  """
  if not path.is_file():
    raise FileNotFoundError(f"missing file {path}")
  opened = gzip.open if path.suffix == ".gz" else open
  texts = []
  with opened(path, "rt", encoding="utf-8", newline="") as lines:
    rows = csv.DictReader(lines)
    missing = {"Text", "Label", "Template"} - set(rows.fieldnames or ())
    if missing:
      raise ValueError(f"{path}:1: the header lacks {sorted(missing)}")
    for row in rows:
      if row["Label"] not in ("BAD", "NOT_BAD"):
        raise ValueError(
          f"{path}:{rows.line_num}: Label is {row['Label']!r}; allowed are"
          " 'BAD' and 'NOT_BAD'"
        )
      texts.append(
        MadlibsText(
          text=row["Text"],
          toxic=row["Label"] == "BAD",
          template=row["Template"],
        )
      )
  return tuple(texts)


def _cluster_of_line(where: str, line: str) -> StereoSetCluster:
  try:
    cluster = json.loads(line)
    sentences = [
      cluster[name] for name in ("stereotype", "anti_stereotype", "unrelated")
    ]
    return _cluster(where, cluster, sentences)
  except (KeyError, json.JSONDecodeError) as error:
    raise MalformedClusterError(
      f"{where}: malformed cluster ({error!r})"
    ) from None


def _cluster_of_json(where: str, cluster: Mapping[str, Any]):
  try:
    by_label = {
      item["gold_label"]: item["sentence"] for item in cluster["sentences"]
    }
    return _cluster(where, cluster, [by_label[label] for label in _GOLD])
  except (KeyError, TypeError) as error:
    raise MalformedClusterError(
      f"{where}: malformed cluster ({error!r})"
    ) from None


def _cluster(where, cluster, sentences) -> StereoSetCluster:
  context = cluster["context"]
  if context.count("BLANK") != 1:
    raise MalformedClusterError(
      f"{where}: context {context!r} needs BLANK exactly once"
    )
  if cluster["bias_type"] not in STEREOSET_DOMAINS:
    raise MalformedClusterError(
      f"{where}: bias_type is {cluster['bias_type']!r}; allowed are"
      f" {STEREOSET_DOMAINS}"
    )
  stereotype, anti, unrelated = sentences
  fillings = tuple(_filling(context, sentence) for sentence in sentences)
  return StereoSetCluster(
    id=str(cluster["id"]),
    domain=cluster["bias_type"],
    target=cluster["target"],
    context=context,
    sentences=(stereotype, anti, unrelated),
    candidates=(fillings[0], fillings[1], fillings[2]),
  )


def _filling(context: str, sentence: str) -> str:
  """What stands in the sentence where the context has BLANK.

  Many sentences were retyped and differ in case, or elsewhere (a final stop, a
  doubled space); for the latter the words around BLANK are counted, as the
  authors do.
  """
  left, right = context.split("BLANK")
  end = len(sentence) - len(right)
  inside = sentence[len(left) : end].strip()
  fits = (sentence[: len(left)] + sentence[end:]).lower() == (
    left + right
  ).lower()
  if fits and inside:
    return inside
  words = sentence.split()
  start, stop = len(left.split()), len(words) - len(right.split())
  if right[:1].strip():
    # BLANK is part of its word ("BLANK." or "BLANK's").
    stop += 1
  return " ".join(words[start : max(stop, start + 1)]).strip(" .,;:!?")


def _read_annotated_posts(folder: pathlib.Path) -> tuple[HatePost, ...]:
  annotated = _text.read_json(folder / "dataset.json")
  divisions = _text.read_json(folder / "post_id_divisions.json")
  posts = []
  for split, ids in divisions.items():
    for post_id in ids:
      try:
        post = annotated[post_id]
        labels = [person["label"] for person in post["annotators"]]
        named = collections.Counter(
          name
          for person in post["annotators"]
          for name in set(person["target"])
        )
        text = " ".join(post["post_tokens"])
      except (KeyError, TypeError) as error:
        raise ValueError(
          f"{folder}: post {post_id!r} is malformed ({error!r})"
        ) from None
      label, votes = collections.Counter(labels).most_common(1)[0]
      if label not in HATE_LABELS:
        raise ValueError(
          f"{folder}: post {post_id!r} has the label {label!r}; allowed are"
          f" {HATE_LABELS}"
        )
      if votes < 2:
        continue
      posts.append(
        HatePost(
          text=text,
          label=HATE_LABELS.index(label),
          communities=tuple(
            sorted(
              name
              for name, count in named.items()
              if count >= 2 and name not in ("None", "Other")
            )
          ),
          split=split,
        )
      )
  return tuple(posts)
