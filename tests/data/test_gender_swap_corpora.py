"""Swapping real texts twice: exact with carried roles, almost with new ones."""

import pytest

from trustjax import data

pytestmark = pytest.mark.slow

# Folder -> separator, and the share of swapped texts that do not come back
# when the roles are tagged again on the swapped text.
_CORPORA = {
  "gutenberg_books": ("blank_line", 0.05),
  "tinystories_2mb": ("end_of_text", 0.06),
  "wikitext2_valid_test": ("blank_line", 0.06),
}


@pytest.mark.parametrize("name", _CORPORA)
def test_texts_come_back(data_dir, name):
  separator, most = _CORPORA[name]
  paths = sorted((data_dir / name).glob("*.txt"))
  swapped = failed = 0
  for text in data.read_texts(paths, separator=separator):
    once = data.swap_gender(text)
    if not once.any_changed:
      continue
    swapped += 1
    assert data.swap_pieces(once.pieces, once.roles).text == text
    failed += data.swap_gender(once.text).text != text
  assert swapped > 500
  print(f"{name}: {failed} of {swapped} texts ({failed / swapped:.2%})")
  assert failed / swapped < most
