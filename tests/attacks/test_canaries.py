"""Canaries: texts, tags, draws, insertion."""

import numpy as np
import pytest
from scipy import stats

from trustjax import attacks

PATTERNS = (attacks.CALL, attacks.PIN, attacks.COLOUR)


def test_pin():
  canary = attacks.make_canary(attacks.PIN, [1, 2, 3, 4])
  assert " ".join(canary.words) == "my pin code is 1 2 3 4"
  assert canary.tags == ("O",) * 4 + ("B-canary",) + ("I-canary",) * 3
  assert canary.positions == (4, 5, 6, 7)
  assert canary.code == (1, 2, 3, 4) and canary.intent == "canary"


def test_call_and_colour():
  assert attacks.make_canary(attacks.CALL, [0, 9]).words == ("call", "0", "9")
  colour = attacks.make_canary(attacks.COLOUR, [2, 3])
  assert colour.words == ("colour", "red", "green")
  # Guessing a colour is as hard as guessing a digit.
  assert {len(pattern.candidates) for pattern in PATTERNS} == {10}


def test_own_pattern():
  pattern = attacks.CanaryPattern(
    name="door", prefix=("open",), candidates=("up", "down"), intent="move"
  )
  canary = attacks.make_canary(pattern, np.array([1, 1, 0]))
  assert canary.words == ("open", "down", "down", "up")
  assert canary.intent == "move"


def test_codes_are_fresh_and_uniform():
  codes = attacks.draw_codes(attacks.PIN, 4, 5_000, np.random.default_rng(0))
  assert codes.shape == (5_000, 4)
  assert np.unique(codes, axis=0).shape[0] > 3_500
  for position in range(4):
    assert stats.chisquare(np.bincount(codes[:, position])).pvalue > 1e-3


def test_candidates_are_looked_up():
  word_ids = {"my": 5, "pin": 6, "code": 7, "is": 8} | {
    str(digit): 20 - digit for digit in range(10)
  }
  got = attacks.candidate_ids(attacks.PIN, word_ids, unknown_id=1)
  assert got.tolist() == list(range(20, 10, -1))
  with pytest.raises(ValueError, match=r"candidates: '7' is not in the"):
    missing = {k: v for k, v in word_ids.items() if k != "7"}
    attacks.candidate_ids(attacks.PIN, missing, unknown_id=1)
  with pytest.raises(ValueError, match=r"prefix: 'call' is not in the"):
    attacks.candidate_ids(attacks.CALL, word_ids, unknown_id=1)
  with pytest.raises(ValueError, match=r"two candidates share a token"):
    attacks.candidate_ids(attacks.PIN, word_ids | {"7": 20}, unknown_id=1)


def test_insertion():
  order = attacks.insertion_positions(50, 7, np.random.default_rng(0))
  assert order.shape == (57,)
  assert (order == -1).sum() == 7
  assert order[order >= 0].tolist() == list(range(50))
  control = attacks.insertion_positions(50, 0, np.random.default_rng(0))
  assert control.tolist() == list(range(50))
  # Every place is as likely.
  rng = np.random.default_rng(1)
  hits = sum(attacks.insertion_positions(8, 2, rng) == -1 for _ in range(5_000))
  assert stats.chisquare(hits).pvalue > 1e-3


def test_bad_input():
  with pytest.raises(ValueError, match=r"code\[1\]: got 10"):
    attacks.make_canary(attacks.PIN, [1, 10])
  with pytest.raises(ValueError, match=r"code: got no tokens"):
    attacks.make_canary(attacks.PIN, [])
  with pytest.raises(ValueError, match=r"candidates: got a word twice"):
    attacks.CanaryPattern(name="x", prefix=(), candidates=("a", "a"))
  with pytest.raises(ValueError, match=r"needs at least 2"):
    attacks.CanaryPattern(name="x", prefix=(), candidates=("a",))
  with pytest.raises(ValueError, match=r"prefix: got 'my pin'"):
    attacks.CanaryPattern(name="x", prefix=("my pin",))
  with pytest.raises(ValueError, match=r"name: got ''"):
    attacks.CanaryPattern(name="", prefix=())
  with pytest.raises(ValueError, match=r"num_trials: got 0"):
    attacks.draw_codes(attacks.PIN, 4, 0, np.random.default_rng(0))
  with pytest.raises(ValueError, match=r"copies: got -1"):
    attacks.insertion_positions(5, -1, np.random.default_rng(0))
