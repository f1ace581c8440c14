"""Downloads, against a server on this machine."""

import dataclasses
import http.server
import threading

import pytest

from trustjax import data
from trustjax.data import _download, _sources

ROWS = "".join(f"text {i},lost\n" for i in range(60))
PAGES = {
  "/train.csv": ("text,category\n" + ROWS).encode(),
  "/test.csv": b"text,category\nmy card,lost\n",
  "/page": b"<!DOCTYPE html><html>log in</html>",
  "/empty": b"",
}


@pytest.fixture
def server():
  served = []

  class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
      served.append(self.path)
      if self.path == "/short":
        self.send_response(200)
        self.send_header("Content-Length", "100")
        self.end_headers()
        self.wfile.write(b"half")
        return
      body = PAGES.get(self.path)
      self.send_response(404 if body is None else 200)
      self.end_headers()
      self.wfile.write(body or b"")

    def log_message(self, *args):
      pass

  with http.server.HTTPServer(("127.0.0.1", 0), Handler) as running:
    thread = threading.Thread(target=running.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{running.server_port}", served
    running.shutdown()
    thread.join()


def _banking(monkeypatch, url, totals):
  source = dataclasses.replace(
    _sources.SOURCES["banking77"],
    downloads={f: f"{url}/{f}" for f in ("train.csv", "test.csv")},
    known_totals=totals,
  )
  monkeypatch.setitem(_sources.SOURCES, "banking77", source)


def test_a_data_set_is_downloaded_once(server, tmp_path, monkeypatch):
  url, served = server
  _banking(monkeypatch, url, (61, 61))
  for _ in range(2):
    corpus = data.load_corpus("banking77", data_dir=tmp_path)
    assert len(corpus.train) + len(corpus.validation) == 60
    assert corpus.test[0].text == "my card"
  assert served == ["/train.csv", "/test.csv"]


def test_a_download_of_the_wrong_size_is_refused(server, tmp_path, monkeypatch):
  _banking(monkeypatch, server[0], (13_083, 13_083))
  with pytest.raises(ValueError, match="has 61 utterances; 13083 to 13083"):
    data.load_corpus("banking77", data_dir=tmp_path)


def test_a_failing_download_says_which_file_and_how_to_get_it(
  server, tmp_path, monkeypatch
):
  _banking(monkeypatch, server[0] + "/gone", (61, 61))
  with pytest.raises(
    FileNotFoundError,
    match=r"dataset 'banking77': the file train.csv is missing and could not "
    r"be downloaded from http.*\(.*404.*\).*Pass the folder as manual_dir",
  ):
    data.load_corpus("banking77", data_dir=tmp_path)


@pytest.mark.parametrize(
  ("page", "problem"),
  [
    ("/page", "the answer is a web page"),
    ("/empty", "the answer was empty"),
    ("/short", "4 of 100 bytes|IncompleteRead"),
  ],
)
def test_what_is_not_data_is_refused(server, tmp_path, page, problem):
  path = tmp_path / "file"
  with pytest.raises(FileNotFoundError, match=problem):
    _download.fetch(server[0] + page, path, dataset="x", advice="ask")
  assert not list(tmp_path.iterdir())


def test_no_server(tmp_path):
  with pytest.raises(FileNotFoundError, match="file is missing and could not"):
    _download.fetch(
      "http://127.0.0.1:9/x", tmp_path / "file", dataset="x", advice="ask"
    )


@pytest.mark.parametrize("name", sorted(_sources.SOURCES))
def test_every_download_is_pinned_and_readable(name):
  source = _sources.SOURCES[name]
  assert (name == "atis") == (not source.downloads)
  for file, url in source.downloads.items():
    assert url.startswith("https://raw.githubusercontent.com/")
    commit = url.split("/")[5]
    assert len(commit) == 40
    int(commit, 16)
    assert url.endswith(file)
    assert any(
      file == pattern
      for layout in source.layouts
      for pattern in layout.contents
    )
