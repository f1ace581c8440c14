"""Readers: each layout on hand-written files, and each way to be malformed."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trustjax.data import _readers
from trustjax.data._readers import _bracketed, _text

GATED = {
  "train/seq.in": "play jazz\ngo to old york \n",
  "train/seq.out": "O B-genre\nO O B-city I-city \n",
  "train/label": "play\ngo\n",
  "valid/seq.in": "go\n",
  "valid/seq.out": "O\n",
  "valid/label": "go\n",
  "test/seq.in": "play\n",
  "test/seq.out": "O\n",
  "test/label": "play\n",
}


def write(folder, files):
  for name, content in files.items():
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, bytes):
      path.write_bytes(content)
    else:
      path.write_text(content, encoding="utf-8", newline="")
  return folder


def shown(utterance):
  return utterance.tokens, utterance.slots, utterance.intent


# SlotGated: SNIPS and ATIS.


def test_slot_gated(tmp_path):
  reading = _readers.read_slot_gated(write(tmp_path, GATED))
  assert [shown(u) for u in reading.splits["train"]] == [
    (("play", "jazz"), ("O", "B-genre"), "play"),
    (("go", "to", "old", "york"), ("O", "O", "B-city", "I-city"), "go"),
  ]
  assert len(reading.splits["validation"]) == len(reading.splits["test"]) == 1


def test_slot_gated_accepts_dev_windows_ends_and_no_last_newline(tmp_path):
  files = {k.replace("valid", "dev"): v for k, v in GATED.items()}
  files["train/seq.in"] = "play jazz\r\ngo to old\u0085 york"
  reading = _readers.read_slot_gated(write(tmp_path, files))
  assert reading.splits["train"][1].tokens[-1] == "york"
  assert len(reading.splits["validation"]) == 1


@pytest.mark.parametrize(
  ("name", "content", "message"),
  [
    ("train/seq.out", "O B-genre\nO O B-city\n", r"seq.out:2: 4 tokens but 3"),
    ("train/seq.in", "play\ngo to old york\n", r"seq.out:1: 1 tokens but 2"),
    ("train/label", "play\n", r"label: 1 lines but .*seq.in has 2"),
    ("test/seq.out", "O\nO\n", r"seq.out: 2 lines but .*seq.in has 1"),
    ("test/label", "\n", r"test.label: the file is empty"),
    ("train/label", "play\n\n", r"label:2: the label is empty"),
    ("test/seq.in", "", r"test.seq.in: the file is empty"),
    ("test/seq.out", "X\n", r"seq.out:1: tag 'X' is not a BIO tag"),
    ("valid/seq.in", b"\xff\xfe\n", r"seq.in: not UTF-8 text"),
  ],
)
def test_malformed_slot_gated(tmp_path, name, content, message):
  with pytest.raises(ValueError, match=message):
    _readers.read_slot_gated(write(tmp_path, {**GATED, name: content}))


@pytest.mark.parametrize("name", GATED)
def test_each_missing_slot_gated_file_is_named(tmp_path, name):
  write(tmp_path, GATED)
  (tmp_path / name).unlink()
  with pytest.raises(FileNotFoundError, match=f"missing file .*{name}"):
    _readers.read_slot_gated(tmp_path)


# SNIPS as published by its authors.


def snips_json(intent, *utterances):
  pieces = [
    {"data": [dict(zip(("text", "entity"), p)) for p in u]} for u in utterances
  ]
  return json.dumps({intent: pieces}, ensure_ascii=False)


def test_snips_json(tmp_path):
  many = [[("Play ",), (f"Song{i}", "track")] for i in range(30)]
  write(
    tmp_path,
    {
      "PlayMusic/train_PlayMusic_full.json": snips_json("PlayMusic", *many),
      "PlayMusic/validate_PlayMusic.json": snips_json(
        "PlayMusic", [("Hear ",), ("Caf\u00e9 Old", "artist"), (", ok",)]
      ).encode("latin-1"),
    },
  )
  reading = _readers.read_snips_json(tmp_path, validation_share=0.3)
  assert [shown(u) for u in reading.splits["test"]] == [
    (
      ("hear", "caf\u00e9", "old", ",", "ok"),
      ("O", "B-artist", "I-artist", "O", "O"),
      "PlayMusic",
    )
  ]
  sizes = [len(reading.splits[s]) for s in ("train", "validation")]
  assert sum(sizes) == 30
  assert min(sizes) > 0


@pytest.mark.parametrize(
  ("content", "message"),
  [
    ("{\n\n oops}", r"full.json:3: malformed JSON"),
    ("", "full.json: the file is empty"),
    ('{"Other": []}', "expected an object with a list under 'Play'"),
    ('{"Play": [{"words": 1}]}', "utterance 1 is malformed"),
    ('{"Play": [{"data": [{"text": " "}]}]}', "utterance 1: .* one token"),
  ],
)
def test_malformed_snips_json(tmp_path, content, message):
  write(tmp_path, {"Play/train_Play_full.json": content})
  with pytest.raises(ValueError, match=message):
    _readers.read_snips_json(tmp_path)


def test_snips_json_without_its_test_file(tmp_path):
  write(tmp_path, {"Play/train_Play_full.json": snips_json("Play", [("a",)])})
  with pytest.raises(FileNotFoundError, match=r"missing file .*validate_Play"):
    _readers.read_snips_json(tmp_path)


# NLU-Evaluation.

HEADER = (
  "userid;answerid;scenario;intent;status;answer_annotation;notes;"
  "suggested_entities;answer_normalised;answer;question\n"
)


def annotated(user, status, annotation):
  return f'{user};1;alarm;set;{status};"{annotation}";;;x;"y; z";q\n'


def test_brackets():
  text, entities = _bracketed.parse_brackets(
    "wake me at [time : five am] on [ date:friday ]"
  )
  assert text == "wake me at five am on friday"
  assert [(text[s:e], slot) for s, e, slot in entities] == [
    ("five am", "time"),
    ("friday", "date"),
  ]


@given(
  st.lists(
    st.tuples(
      st.sampled_from(["wake me", "at", "please"]),
      st.sampled_from([None, "date", "time of day"]),
    ),
    min_size=1,
  )
)
def test_brackets_invert_writing(pieces):
  written = " ".join(t if s is None else f"[{s} : {t}]" for t, s in pieces)
  text, entities = _bracketed.parse_brackets(written)
  assert text == " ".join(t for t, _ in pieces)
  assert [(text[s:e], slot) for s, e, slot in entities] == [
    (t, s.replace(" ", "_")) for t, s in pieces if s is not None
  ]


def test_nlu_evaluation_csv(tmp_path):
  rows = [
    annotated(i % 7, "", f"wake me at [time : {i}], please") for i in range(99)
  ]
  rows += [annotated(1, "IRR_XR", "[bad"), annotated(2, "", "null")]
  write(tmp_path, {_bracketed.CSV_NAME: HEADER + "".join(rows)})
  reading = _readers.read_nlu_evaluation_csv(tmp_path)
  everything = [u for part in reading.splits.values() for u in part]
  assert len(everything) == 99
  assert {u.intent for u in everything} == {"alarm_set"}
  assert {u.domain for u in everything} == {"alarm"}
  assert {u.user for u in everything} == {str(i) for i in range(7)}
  zero = next(u for u in everything if "0" in u.tokens)
  assert zero.tokens == ("wake", "me", "at", "0", ",", "please")
  assert zero.slots == ("O", "O", "O", "B-time", "O", "O")
  assert "1 rows of status IRR, 1 without an annotation" in reading.notes[0]


def test_nlu_evaluation_csv_malformed_rows_stop_or_are_counted(tmp_path):
  rows = [annotated(i, "", f"a{i}") for i in range(60)]
  rows[2] = annotated(2, "", "wake me at [time : five")
  write(
    tmp_path,
    {f"AnnotatedData/{_bracketed.CSV_NAME}": HEADER + "".join(rows)},
  )
  with pytest.raises(ValueError, match=r"All.csv:4: malformed bracket"):
    _readers.read_nlu_evaluation_csv(tmp_path)
  reading = _readers.read_nlu_evaluation_csv(
    tmp_path, skip_malformed=True, validation_share=0.3
  )
  assert sum(len(part) for part in reading.splits.values()) == 59
  assert "1 malformed" in reading.notes[0]
  with pytest.raises(ValueError, match=r"test_share is 1.5"):
    _readers.read_nlu_evaluation_csv(tmp_path, test_share=1.5)


@pytest.mark.parametrize(
  ("content", "message"),
  [
    ("a;b\n1;2\n", r"csv:1: the header \['a', 'b'\] lacks the columns"),
    (HEADER + "1;2\n", r"csv:2: malformed CSV row, 2 fields but 11 columns"),
    (HEADER + '1;"2\n', r"csv:2: malformed CSV row"),
    ("", "the file is empty"),
    (HEADER + annotated(1, "", "at [five]"), "csv:2: malformed bracket"),
    (HEADER + annotated(1, "", "at [time : ]"), "csv:2: malformed bracket"),
    (HEADER + annotated(1, "", "[a : [b : c]]"), "csv:2: malformed bracket"),
    (HEADER + annotated(1, "", "[a : b]]"), "csv:2: malformed bracket"),
  ],
)
def test_malformed_nlu_evaluation_csv(tmp_path, content, message):
  write(tmp_path, {_bracketed.CSV_NAME: content})
  with pytest.raises(ValueError, match=message):
    _readers.read_nlu_evaluation_csv(tmp_path)


def test_nlu_evaluation_fold(tmp_path):
  header = (
    "answerid;scenario;intent;answer_annotation;answer_from_anno;"
    "answer_from_user\n"
  )
  rows = [f'1;alarm;query;"what [date : {i}]";x;y\n' for i in range(40)]
  write(
    tmp_path,
    {
      "trainset/alarm_query.csv": header + "".join(rows),
      "testset/csv/alarm_query.csv": header + '2;iot;on;"light on";x;y\n',
    },
  )
  reading = _readers.read_nlu_evaluation_fold(tmp_path)
  assert [shown(u) for u in reading.splits["test"]] == [
    (("light", "on"), ("O", "O"), "iot_on")
  ]
  assert reading.splits["train"][0].slots == ("O", "B-date")
  (tmp_path / "testset/csv/alarm_query.csv").unlink()
  with pytest.raises(FileNotFoundError, match=r"missing files .*testset/csv"):
    _readers.read_nlu_evaluation_fold(tmp_path)


def jsonl_row(**changes):
  row = {
    "id": "1",
    "scenario": "alarm",
    "intent": "alarm_set",
    "text": "wake me at five, ok",
    "entities": [[11, 15, "time"]],
  }
  return json.dumps({**row, **changes}) + "\n"


def test_nlu_evaluation_jsonl(tmp_path):
  train = "".join(jsonl_row(text=f"wake me at five {i}") for i in range(40))
  write(tmp_path, {"train.jsonl": train, "test.jsonl": jsonl_row()})
  reading = _readers.read_nlu_evaluation_jsonl(tmp_path)
  (only,) = reading.splits["test"]
  assert only.tokens == ("wake", "me", "at", "five", ",", "ok")
  assert only.slots == ("O", "O", "O", "B-time", "O", "O")
  assert only.domain == "alarm"


@pytest.mark.parametrize(
  ("row", "message"),
  [
    ("{oops\n", r"train.jsonl:2: malformed JSON"),
    ("[]\n", r"train.jsonl:2: malformed row"),
    (jsonl_row(entities=[[1, 2]]), r"train.jsonl:2: "),
    (jsonl_row(entities=[[0, 99, "t"]]), r"train.jsonl:2: .*\[0, 99\)"),
    (
      jsonl_row(entities=[[0, 7, "a"], [5, 10, "b"]]),
      r"train.jsonl:2: .*overlaps",
    ),
    (jsonl_row(entities=[[4, 5, "t"]], text="wake  me"), "marks no word"),
    (jsonl_row(text="", entities=[]), "jsonl:2: .*at least one token"),
    (jsonl_row(text=None, entities=[]), "jsonl:2: malformed row"),
  ],
)
def test_malformed_nlu_evaluation_jsonl(tmp_path, row, message):
  write(tmp_path, {"train.jsonl": jsonl_row() + row})
  with pytest.raises(ValueError, match=message):
    _readers.read_nlu_evaluation_jsonl(tmp_path)


# CLINC150 and Banking77.

CLINC = {
  "train": [["what's up", "hi"], ["pay it", "pay"]],
  "val": [["hello", "hi"]],
  "test": [["pay", "pay"]],
  "oos_train": [["fly", "oos"]],
  "oos_val": [["swim", "oos"]],
  "oos_test": [["run", "oos"], ["sit", "oos"]],
}


def test_clinc150(tmp_path):
  write(
    tmp_path,
    {
      "data_full.json": json.dumps(CLINC),
      "domains.json": json.dumps({"talk": ["hi"], "bank": ["pay"]}),
    },
  )
  reading = _readers.read_clinc150(tmp_path)
  first = reading.splits["train"][0]
  assert shown(first) == (("what's", "up"), ("O", "O"), "hi")
  assert first.domain == "talk"
  assert {s: len(u) for s, u in reading.splits.items()} == {
    "train": 2,
    "validation": 1,
    "test": 1,
  }
  everything = _readers.read_clinc150(tmp_path, out_of_scope=True)
  assert [u.intent for u in everything.splits["test"]] == ["pay", "oos", "oos"]


@pytest.mark.parametrize(
  ("content", "message"),
  [
    ("{\n,", r"data_full.json:2: malformed JSON"),
    ("[]", "expected an object of splits"),
    ('{"train": [], "val": []}', "no list under 'test'"),
    ('{"train": [["a", "b"], ["c"]]}', "entry 2 of 'train' is malformed"),
    ('{"train": [[" ", "b"]]}', "entry 1 of 'train' has no text"),
    (" \n", "data_full.json: the file is empty"),
  ],
)
def test_malformed_clinc150(tmp_path, content, message):
  write(tmp_path, {"data_full.json": content})
  with pytest.raises(ValueError, match=message):
    _readers.read_clinc150(tmp_path)


def banking(count):
  rows = [f'"My card, no {i}?\nIt is lost",lost\n' for i in range(count)]
  return "text,category\n" + "".join(rows)


def test_banking77(tmp_path):
  write(tmp_path, {"train.csv": banking(40), "test.csv": banking(1)})
  reading = _readers.read_banking77(tmp_path)
  (only,) = reading.splits["test"]
  assert only.text == "My card , no 0 ? It is lost"
  assert set(only.slots) == {"O"}
  assert only.intent == "lost"


@pytest.mark.parametrize(
  ("content", "message"),
  [
    ("text,label\na,b\n", r"train.csv:1: the header .* lacks .*'category'"),
    ("text,category\na,b,c\n", r"train.csv:2: malformed CSV row, 3 fields"),
    ("text,category\na,b\n ,c\n", r"train.csv:3: .*at least one token"),
    ("text,category\na,\n", r"train.csv:2: .*needs an intent"),
    ("", r"train.csv: the file is empty"),
  ],
)
def test_malformed_banking77(tmp_path, content, message):
  write(tmp_path, {"train.csv": content})
  with pytest.raises(ValueError, match=message):
    _readers.read_banking77(tmp_path)


# Words and carving.


@pytest.mark.parametrize(
  ("text", "words"),
  [
    ("what's on at 7:30 p.m.?", "what's on at 7:30 p.m . ?"),
    ("wi-fi, o'clock", "wi-fi , o'clock"),
    ("$5 (USD)", "$ 5 ( USD )"),
    ("  caf\u00e9\tna\u00efve ", "caf\u00e9 na\u00efve"),
  ],
)
def test_words(text, words):
  assert list(_text.split_words(text)) == words.split()


@given(st.text(max_size=30))
def test_words_keep_every_visible_character(text):
  words = _text.split_words(text)
  assert "".join(words) == "".join(text.split())
  assert not any(char.isspace() for word in words for char in word)


def test_carving_depends_on_the_text_alone():
  many = [
    _text.Utterance(tokens=(f"w{i % 80}",), slots=("O",), intent="x")
    for i in range(160)
  ]
  kept, held, note = _text.carve_validation(many, 0.25)
  assert len(kept) + len(held) == 160
  assert not {u.text for u in kept} & {u.text for u in held}
  reverse, held_reverse, _ = _text.carve_validation(many[::-1], 0.25)
  assert (reverse[::-1], held_reverse[::-1]) == (kept, held)
  assert f"{len(held)} of 160" in note
  # A share of 0.25 of 80 texts: four standard deviations are 15 texts.
  assert abs(len(held) / 2 - 20) < 16


@pytest.mark.parametrize("share", [0.0, 1.0, -0.5])
def test_impossible_shares(share):
  with pytest.raises(ValueError, match=r"validation_share is .* in \(0, 1\)"):
    _text.carve_validation([], share)


def test_a_share_that_leaves_a_part_empty():
  one = _text.Utterance(tokens=("a",), slots=("O",), intent="x")
  with pytest.raises(ValueError, match="both must have some"):
    _text.carve_validation([one], 0.5)
