"""One file from the network, or an error that says what to do instead."""

import http.client
import os
import pathlib
import tempfile
import urllib.request

from absl import logging

_TIMEOUT_SECONDS = 30
_LARGEST_BYTES = 200 * 2**20


def fetch(url: str, path: pathlib.Path, *, dataset: str, advice: str) -> None:
  """Downloads a file unless it is already there.

  The file appears under its name only once it is complete, so a download
  that was interrupted is never taken for data.

  Args:
    url: Where from.
    path: Where to.
    dataset: The data set's name, for the message.
    advice: How else to get the file, for the message.

  Raises:
    FileNotFoundError: If the download fails, is empty, is larger than any
      file of these data sets, or is a web page instead of data.
  """
  if path.is_file():
    return
  logging.info("downloading %s", url)
  try:
    with urllib.request.urlopen(url, timeout=_TIMEOUT_SECONDS) as response:
      data = response.read(_LARGEST_BYTES + 1)
      announced = response.headers.get("Content-Length")
    problem = _problem(data, announced)
  except (http.client.HTTPException, OSError, ValueError) as error:
    problem = str(error)
    data = b""
  if problem:
    raise FileNotFoundError(
      f"dataset {dataset!r}: the file {path.name} is missing and could not "
      f"be downloaded from {url} ({problem}). {advice}"
    )
  path.parent.mkdir(parents=True, exist_ok=True)
  handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name)
  try:
    with os.fdopen(handle, "wb") as out:
      out.write(data)
    pathlib.Path(temporary).replace(path)
  finally:
    pathlib.Path(temporary).unlink(missing_ok=True)


def _problem(data: bytes, announced: str | None) -> str | None:
  """Says what is wrong with a download, or None."""
  if not data.strip():
    return "the answer was empty"
  if len(data) > _LARGEST_BYTES:
    return f"the answer is larger than {_LARGEST_BYTES} bytes"
  if announced is not None and announced.isdigit():
    expected = int(announced)
    if expected != len(data):
      return f"{len(data)} of {expected} bytes arrived"
  start = data[:200].lstrip().lower()
  if start.startswith((b"<!doctype html", b"<html")):
    return "the answer is a web page"
  return None
