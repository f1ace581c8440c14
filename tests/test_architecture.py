"""Who may know whom: the layering of the packages, read off the imports."""

import ast
import pathlib

import pytest

_ROOT = pathlib.Path(__file__).parent.parent
_GROUND = {"privacy", "attacks", "fairness", "models", "data", "reporting"}

# Package -> the packages of the house it may import besides itself.
_ALLOWED = {
  **{package: set() for package in _GROUND},
  "training": {"privacy"},
  **{
    package: {"privacy", "models", "data", "training"}
    for package in ("federated", "distillation", "textprivacy")
  },
}
_FORBIDDEN_NAMES = {"utils", "util", "helpers", "helper", "common", "misc"}


def _imports(path):
  """The dotted names of all modules that a file imports, at any depth."""
  for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
    if isinstance(node, ast.Import):
      yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
      assert node.level == 0, f"{path}: relative import"
      yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _violations(path, package):
  """The imports of a file that its package may not make."""
  for name in _imports(path):
    parts = name.split(".")
    if parts[0] in ("experiments", "configs"):
      yield f"{path}: imports {name}"
    known = _ALLOWED[package] | {package}
    if parts[0] == "trustjax" and len(parts) > 1 and parts[1] not in known:
      yield f"{path}: {package} may not import {name}"


def _packages():
  return sorted(
    path.name
    for path in (_ROOT / "trustjax").iterdir()
    if path.is_dir() and any(path.glob("**/*.py"))
  )


@pytest.mark.parametrize("package", _packages())
def test_package_imports_only_what_the_design_allows(package):
  assert package in _ALLOWED, f"trustjax/{package} is not a room of the design"
  files = list((_ROOT / "trustjax" / package).glob("**/*.py"))
  assert files
  assert [v for f in files for v in _violations(f, package)] == []


def test_a_forbidden_import_is_found(tmp_path):
  bad = tmp_path / "bad.py"
  bad.write_text("def f():\n  from trustjax.models import losses\n")
  assert list(_violations(bad, "privacy"))
  bad.write_text("import experiments.report\n")
  assert list(_violations(bad, "training"))


def test_names_say_what_a_file_holds():
  files = [
    path
    for folder in ("trustjax", "experiments", "configs", "tests")
    for path in (_ROOT / folder).glob("**/*.py")
  ]
  assert not [p for p in files if p.stem.strip("_") in _FORBIDDEN_NAMES]


def test_tensorflow_is_never_imported():
  files = [
    path
    for folder in ("trustjax", "experiments")
    for path in (_ROOT / folder).glob("**/*.py")
  ]
  offenders = [
    path
    for path in files
    for name in _imports(path)
    if name.split(".")[0] == "tensorflow"
  ]
  assert offenders == []
