"""Attacks are pure functions of ours: no implicit promotion."""

import jax
import pytest

from tests.compilation import hurried_compilation  # noqa: F401


@pytest.fixture(autouse=True)
def no_implicit_promotion():
  with jax.numpy_dtype_promotion("strict"):
    yield
