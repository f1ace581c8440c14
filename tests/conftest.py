"""Settings that hold for every test.

Two CPU devices are faked before JAX starts, so that sharding code is tested
without an accelerator; ranks are never promoted silently; and the public
annotations of TrustJAX are checked at call time.
"""

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Several test processes with LAPACK threads of their own wait for each other.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ["XLA_FLAGS"] = (
  os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=2"
)

import jaxtyping

# Imported here so that the hook finds it by name.
import tests.runtime_types  # noqa: F401

# The hook must be installed before the first import of trustjax.
jaxtyping.install_import_hook("trustjax", "tests.runtime_types.check")

import pathlib

import jax
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture
def strict_dtypes():
  """Raises on implicit dtype promotion, for tests of our pure functions."""
  with jax.numpy_dtype_promotion("strict"):
    yield


@pytest.fixture(scope="session")
def data_dir() -> pathlib.Path:
  """The folder of real data, or a skip that says how to provide it."""
  root = os.environ.get("TRUSTJAX_DATA_DIR")
  if not root:
    pytest.skip("real data: set TRUSTJAX_DATA_DIR to the data folder")
  return pathlib.Path(root)
