"""Data sets by name."""

import inspect
import os
from typing import Any

from trustjax.data._corpus import NluCorpus
from trustjax.data._sources import SOURCES
from trustjax.data._synthetic import synthetic_corpus


def dataset_names() -> tuple[str, ...]:
  """Returns the names that `load_corpus` knows."""
  return ("synthetic", *SOURCES)


def dataset_help(name: str) -> str:
  """Returns what a data set is, its layouts and how to get its files."""
  _check_name(name)
  if name == "synthetic":
    return "Generated on the spot; needs no files."
  source = SOURCES[name]
  return f"{source.summary} ({source.license}). {source.help()}"


def load_corpus(
  name: str,
  *,
  manual_dir: str | os.PathLike[str] | None = None,
  data_dir: str | os.PathLike[str] | None = None,
  seed: int = 0,
  **options: Any,
) -> NluCorpus:
  """Loads a data set by name.

  Real data are prepared once as array_record files and read back from there
  afterwards; the prepared copy is found by a hash of the files, so it is
  never that of other files.

  Args:
    name: One of `dataset_names()`.
    manual_dir: The folder of the user's files in a layout that the data set
      accepts (`dataset_help`); None or "" downloads where that is possible.
    data_dir: Where downloads and prepared data go; None takes
      $TRUSTJAX_CACHE_DIR or else ~/.cache/trustjax.
    seed: Seed of the synthetic corpus. Real data do not depend on it.
    **options: For "synthetic", the arguments of `synthetic_corpus`; for real
      data, options of the layout, such as validation_share.

  Returns:
    The corpus.

  Raises:
    ValueError: If the name or an option is unknown, or a file is malformed
      (the message names file and line).
    FileNotFoundError: If a file is missing (the message says how to get it).

  Example:
    >>> corpus = load_corpus("synthetic", num_train=100)
    >>> len(corpus.train)
    100
  """
  _check_name(name)
  if name != "synthetic":
    # Imported here because TFDS takes a second to import.
    from trustjax.data.tfds_builders import BUILDERS

    builder = BUILDERS[name](
      manual_dir=manual_dir, data_dir=data_dir, **options
    )
    return builder.corpus()
  if manual_dir:
    raise ValueError(
      f"manual_dir is {str(manual_dir)!r}, but the synthetic corpus is "
      "generated and reads no files"
    )
  allowed = set(inspect.signature(synthetic_corpus).parameters) - {"seed"}
  unknown = sorted(set(options) - allowed)
  if unknown:
    raise ValueError(
      f"unknown options {unknown} for dataset 'synthetic'; allowed: "
      f"{sorted(allowed)}"
    )
  return synthetic_corpus(seed, **options)


def _check_name(name: str) -> None:
  if name not in dataset_names():
    raise ValueError(
      f"unknown dataset {name!r}; it must be one of {list(dataset_names())}"
    )
