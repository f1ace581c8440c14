"""Readers: one module per file layout, from a folder to utterances.

A reader takes a folder and returns `Reading(splits, notes)`. It refuses what
it does not understand, naming file and line, and never guesses.

  _text          lines, rows, word tokenisation, deterministic splits
  _slot_gated    {train,valid,test}/{seq.in,seq.out,label}
  _snips_json    the JSON of the SNIPS authors, one file per intent
  _bracketed     NLU-Evaluation: "[date : today]" in CSV, or spans in JSONL
  _intent_only   CLINC150 JSON and Banking77 CSV, without slots
"""

from trustjax.data._readers._bracketed import CSV_NAME as NLU_EVALUATION_CSV
from trustjax.data._readers._bracketed import (
  read_nlu_evaluation_csv as read_nlu_evaluation_csv,
)
from trustjax.data._readers._bracketed import (
  read_nlu_evaluation_fold as read_nlu_evaluation_fold,
)
from trustjax.data._readers._bracketed import (
  read_nlu_evaluation_jsonl as read_nlu_evaluation_jsonl,
)
from trustjax.data._readers._intent_only import read_banking77 as read_banking77
from trustjax.data._readers._intent_only import read_clinc150 as read_clinc150
from trustjax.data._readers._slot_gated import (
  read_slot_gated as read_slot_gated,
)
from trustjax.data._readers._snips_json import (
  read_snips_json as read_snips_json,
)
from trustjax.data._readers._text import Reading as Reading

# Explicit, because NLU_EVALUATION_CSV is renamed on the way.
__all__ = [
  "NLU_EVALUATION_CSV",
  "Reading",
  "read_banking77",
  "read_clinc150",
  "read_nlu_evaluation_csv",
  "read_nlu_evaluation_fold",
  "read_nlu_evaluation_jsonl",
  "read_slot_gated",
  "read_snips_json",
]
